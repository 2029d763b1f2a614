use super::*;
use crate::CallOutcome;
use crate::kmp_control::testing::{cases, replies};
use crate::kmp_control::upstream::ResumeFrom;

const STRICT: Reader = Reader { buffer_bytes: 4_096, strict: true };
const OURS: Reader = Reader { buffer_bytes: 4_096, strict: false };

fn json(body: &str) -> Reply {
    let headers = vec![("content-type".to_owned(), "Application/JSON; charset=utf-8".to_owned())];
    Reply { status: 200, headers, body: body.as_bytes().to_vec() }
}

fn publish(fields: &str) -> Result<Published, ReplyError> {
    OURS.publish(&json(&format!(r#"{{"code":"ok",{fields}}}"#)))
}

const MAIN: &str = r#"{"url":"10.0.0.1:1"}"#;

/// Cases whose replies are meant to be wrong are told one by one below.
#[test]
fn every_recorded_good_reply_is_understood_in_both_modes() {
    const WRONG: [&str; 8] = ["16", "17", "19", "23", "27", "30", "36", "39"];
    for (case, records) in cases() {
        for record in records {
            let CallOutcome::Replied(reply) = &record.outcome else { panic!("{case}") };
            let is_wrong = WRONG.iter().any(|number| case.starts_with(number));
            for reader in [STRICT, OURS] {
                let result = match record.callback.as_str() {
                    "connect" => reader.connect(reply),
                    "publish" => reader.publish(reply).and_then(|it| Ok(it.upstreams.map(drop)?)),
                    "republish" => reader.republish(reply).map(drop),
                    _ => Ok(()),
                };
                assert!(result.is_ok() || is_wrong, "{case}: {result:?}");
            }
        }
    }
}

#[test]
fn a_track_can_have_several_upstreams() {
    let replies = replies("07_two_upstreams_last_sent_connect_data", "publish");
    let published = STRICT.publish(&replies[0]).unwrap();
    assert_eq!((published.channel_id.as_str(), published.track_id.as_str()), ("ch1", "a1"));
    let [main, opt] = published.upstreams.unwrap().try_into().unwrap();
    assert_eq!((main.id.as_str(), main.url.to_string().as_str()), ("main", "kmp://127.0.0.1:27001"));
    assert_eq!((main.required, main.resume_from, main.connect_data), (true, ResumeFrom::LastAcked, None));
    assert_eq!((opt.id.as_str(), opt.url.to_string().as_str()), ("opt", "kmp://127.0.0.1:27002"));
    assert_eq!((opt.required, opt.resume_from), (false, ResumeFrom::LastSent));
    assert_eq!(opt.connect_data.as_deref(), Some(&b"{\"hello\":\"kmp\"}"[..]));
}

#[test]
fn a_republish_reply_gives_a_place_and_perhaps_new_data() {
    let replies = replies("07_two_upstreams_last_sent_connect_data", "republish");
    let place = STRICT.republish(&replies[0]).unwrap();
    assert_eq!(place.url.to_string(), "kmp://127.0.0.1:27002");
    assert_eq!(place.connect_data.as_deref(), Some(&b"second"[..]));
    let refused = STRICT.republish(&super::super::testing::replies("19_republish_refused", "republish")[0]);
    assert_eq!(refused, Err(ReplyError::Refused { code: "error".into(), message: "nowhere".into() }));
    assert_eq!(STRICT.republish(&json(r#"{"code":"ok"}"#)), Err(UpstreamError::NoUrl.into()));
}

#[test]
fn replies_that_are_wrong_are_named() {
    let replies = replies("16_publish_retries_then_ok", "publish");
    let results: Vec<_> = replies.iter().map(|reply| STRICT.publish(reply).map(|it| it.track_id)).collect();
    assert_eq!(
        results,
        [
            Err(ReplyError::ContentType("text/plain".into())),
            Err(ReplyError::Refused { code: "error".into(), message: "try later".into() }),
            Err(ReplyError::Missing("code")),
            Err(ReplyError::Status(500)),
            Ok("a1".to_owned()),
            Ok("v1".to_owned()),
        ]
    );
}

#[test]
fn the_answer_to_connect_is_yes_no_or_none() {
    let replies = replies("27_connect_rejected", "connect");
    let results: Vec<_> = replies.iter().map(|reply| STRICT.connect(reply)).collect();
    let refused =
        |message: &str| Err(ReplyError::Refused { code: "denied".into(), message: message.to_owned() });
    let unusable = || Err(ReplyError::Missing("code"));
    assert_eq!(results, [refused("bad key"), refused(""), unusable(), unusable(), unusable(), Ok(())]);
}

#[test]
fn a_reply_must_be_shorter_than_the_buffer() {
    let replies = replies("36_big_publish_reply", "publish");
    assert!(STRICT.publish(&replies[0]).is_ok());
    let len = replies[1].body.len();
    assert_eq!(STRICT.publish(&replies[1]), Err(ReplyError::TooLong { len, max: 4_096 }));
    let exact = |body: &Reply, buffer_bytes| Reader { buffer_bytes, strict: true }.publish(body).is_ok();
    assert!(exact(&replies[1], len as u32 + 1));
    assert!(!exact(&replies[1], len as u32));
}

#[test]
fn host_names_are_for_us_alone() {
    let reply = &replies("39_bad_upstream_url", "publish")[0];
    let url = "kmp://some.host.name:27001".to_owned();
    assert_eq!(STRICT.publish(reply).unwrap().upstreams, Err(UpstreamError::Url { url, strict: true }));
    let upstreams = OURS.publish(reply).unwrap().upstreams.unwrap();
    assert_eq!(upstreams[0].url.to_string(), "kmp://some.host.name:27001");
}

#[test]
fn values_of_other_types_count_as_absent() {
    let upstream =
        &STRICT.publish(&replies("41_reply_wrong_json_types", "publish")[0]).unwrap().upstreams.unwrap()[0];
    assert_eq!(
        (upstream.id.as_str(), upstream.required, upstream.resume_from),
        ("", true, ResumeFrom::LastAcked)
    );
    assert_eq!(OURS.connect(&json(r#"{"code":7}"#)), Err(ReplyError::Missing("code")));
    assert_eq!(OURS.connect(&json(r#"{"code":null,"code":"ok"}"#)), Ok(()));
    assert_eq!(publish(r#""channel_id":"c","track_id":"t""#), Err(ReplyError::Missing("upstreams")));
    assert_eq!(
        publish(r#""channel_id":"c","track_id":"t","upstreams":{}"#),
        Err(ReplyError::Missing("upstreams"))
    );
    assert_eq!(publish(r#""track_id":"t","upstreams":[]"#), Err(ReplyError::Missing("channel_id")));
    assert_eq!(publish(r#""channel_id":"c","track_id":"t","upstreams":[7]"#), Err(ReplyError::Upstreams));
    assert_eq!(publish(r#""channel_id":"c","track_id":"t","upstreams":[]"#).unwrap().upstreams, Ok(vec![]));
}

#[test]
fn a_known_field_comes_once_an_unknown_one_as_often_as_it_likes() {
    assert_eq!(OURS.connect(&json(r#"{"x":1,"code":"oK","x":2,"y":[{"code":1}]}"#)), Ok(()));
    assert_eq!(OURS.connect(&json(r#"{"code":"ok","Code":"ok"}"#)), Err(ReplyError::Twice("code")));
    let twice =
        publish(r#""channel_id":"c","track_id":"t","upstreams":[{"url":"10.0.0.1:1","id":"a","id":"a"}]"#);
    assert_eq!(twice.unwrap().upstreams, Err(UpstreamError::Twice("id")));
}

#[test]
fn names_hold_32_bytes_at_most() {
    let with = |id: &str| publish(&format!(r#""channel_id":"{id}","track_id":"t","upstreams":[{MAIN}]"#));
    assert!(with(&"x".repeat(32)).is_ok());
    assert_eq!(with(&"x".repeat(33)), Err(ReplyError::Id { field: "channel_id", len: 33 }));
    assert_eq!(with(&"é".repeat(17)), Err(ReplyError::Id { field: "channel_id", len: 34 }));
    assert_eq!(with(r"a\u0000"), Err(ReplyError::Id { field: "channel_id", len: 2 }));
}

#[test]
fn an_upstream_that_cannot_be_used_is_told_apart_from_a_reply_that_cannot() {
    let upstream = |fields: &str| {
        let published =
            publish(&format!(r#""channel_id":"c","track_id":"t","upstreams":[{MAIN},{{{fields}}}]"#));
        published.unwrap().upstreams.unwrap_err()
    };
    assert_eq!(upstream(r#""id":"a""#), UpstreamError::NoUrl);
    assert!(matches!(upstream(r#""url":"10.0.0.1""#), UpstreamError::Url { .. }));
    assert_eq!(upstream(r#""url":"10.0.0.1:1","resume_from":"first""#), UpstreamError::ResumeFrom);
    assert_eq!(upstream(r#""url":"10.0.0.1:1","connect_data":"a-b""#), UpstreamError::ConnectData);
}

#[test]
fn the_count_of_upstreams_is_bounded() {
    let with = |count: usize| {
        let upstreams = vec![MAIN; count].join(",");
        publish(&format!(r#""channel_id":"c","track_id":"t","upstreams":[{upstreams}]"#))
    };
    assert_eq!(with(MAX_UPSTREAMS).unwrap().upstreams.unwrap().len(), MAX_UPSTREAMS);
    assert_eq!(with(MAX_UPSTREAMS + 1), Err(ReplyError::Upstreams));
}

#[test]
fn what_is_no_json_object_is_no_reply() {
    for body in ["", "[]", "\"ok\"", "{", "{\"code\":\"ok\"}x", "\u{feff}{\"code\":\"ok\"}"] {
        assert_eq!(OURS.connect(&json(body)), Err(ReplyError::NoObject), "{body}");
    }
    let deep = format!("{{\"code\":\"ok\",\"x\":{}{}}}", "[".repeat(2_000), "]".repeat(2_000));
    let reader = Reader { buffer_bytes: 1 << 20, strict: false };
    assert_eq!(reader.connect(&json(&deep)), Err(ReplyError::NoObject));
    assert_eq!(
        OURS.connect(&Reply { headers: vec![], ..json("{}") }),
        Err(ReplyError::ContentType(String::new()))
    );
}
