use super::*;
use crate::Request;
use crate::kmp_control::json::{Json, pretty};
use crate::kmp_control::testing::{field, file, folder, list, media_info, number, publication, text};
use crate::kmp_control::{ResumeFrom, UpstreamUrl};
use fieldgate_model::config::KmpControlApi;
use std::net::IpAddr;
use std::sync::Arc;

fn count(json: &Json, key: &str) -> u64 {
    number(json, key) as u64
}

fn build(document: &Json) -> Build {
    let has_rtmp =
        matches!(document, Json::Object(fields) if fields.iter().any(|(key, _)| key == "rtmp_version"));
    Build {
        version: text(document, "version"),
        nginx_version: text(document, "nginx_version"),
        rtmp_version: if has_rtmp { text(document, "rtmp_version") } else { String::new() },
        compiler: text(document, "compiler"),
        built: text(document, "built"),
        pid: count(document, "pid") as u32,
    }
}

fn traffic(json: &Json, direction: &str) -> Traffic {
    Traffic {
        bits_per_second: count(json, &format!("bw_{direction}")),
        bytes: count(json, &format!("bytes_{direction}")),
    }
}

fn track(json: &Json) -> TrackView {
    TrackView {
        publication: Arc::new(publication(json)),
        channel_id: text(json, "channel_id"),
        track_id: text(json, "track_id"),
        mem_left: count(json, "mem_left"),
        mem_limit: count(json, "mem_limit"),
        last_timestamp: number(json, "last_timestamp") as i64,
        last_created: number(json, "last_created") as i64,
        sent_frames: count(json, "sent_frames"),
        sent_key_frames: count(json, "sent_key_frames"),
        written: count(json, "written"),
        bitrate: count(json, "bitrate"),
        frame_rate_hundredths: (number(json, "frame_rate") * 100.0).round() as u64,
        media_info: media_info(json),
        upstreams: list(json, "upstreams").iter().map(upstream).collect(),
        strict: false,
    }
}

fn upstream(json: &Json) -> UpstreamView {
    let resume_from = text(json, "resume_from");
    let all = [ResumeFrom::LastAcked, ResumeFrom::LastSent, ResumeFrom::LastWritten];
    UpstreamView {
        id: text(json, "id"),
        remote_addr: text(json, "remote_addr").parse().ok(),
        local_addr: text(json, "local_addr").parse().ok(),
        connection: count(json, "connection"),
        required: *field(json, "required") == Json::Bool(true),
        resume_from: all.into_iter().find(|it| it.name() == resume_from).unwrap(),
        sent_bytes: count(json, "sent_bytes"),
        position: count(json, "position"),
        acked_frames: count(json, "acked_frames"),
        acked_bytes: count(json, "acked_bytes"),
        auto_acked_frames: count(json, "auto_acked_frames"),
    }
}

/// What a recorded document says, put into our types.
fn snapshot(document: &Json) -> Snapshot {
    let mut snapshot =
        Snapshot { build: build(document), uptime_seconds: count(document, "uptime"), ..Snapshot::default() };
    let Json::Object(fields) = document else { panic!() };
    if let Some((_, Json::Object(tracks))) = fields.iter().find(|(key, _)| key == "tracks") {
        snapshot.tracks = tracks.iter().map(|(id, json)| (id.parse().unwrap(), track(json))).collect();
        return snapshot;
    }
    snapshot.accepted = count(document, "naccepted");
    snapshot.traffic_in = traffic(document, "in");
    snapshot.traffic_out = traffic(document, "out");
    for server in list(document, "servers") {
        let applications = list(server, "applications").iter().map(|application| Application {
            name: text(application, "name"),
            sessions: list(application, "sessions")
                .iter()
                .map(|it| session(it, &mut snapshot.tracks))
                .collect(),
        });
        let applications = applications.collect();
        snapshot.servers.push(applications);
    }
    snapshot
}

type Tracks = std::collections::BTreeMap<u64, TrackView>;

fn session(json: &Json, tracks: &mut Tracks) -> SessionView {
    SessionView {
        flashver: text(json, "flashver"),
        swf_url: text(json, "swf_url"),
        tc_url: text(json, "tc_url"),
        page_url: text(json, "page_url"),
        repeats_extended_timestamps: match text(json, "type3_ext_ts").as_str() {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        },
        remote_addr: text(json, "remote_addr").parse().unwrap(),
        uptime_seconds: count(json, "uptime"),
        connection: count(json, "connection"),
        streams: list(json, "streams").iter().map(|it| stream(it, tracks)).collect(),
    }
}

fn stream(json: &Json, tracks: &mut Tracks) -> StreamView {
    let Json::Object(by_kind) = field(json, "tracks") else { panic!() };
    let mut of_kind = |kind: &str| {
        let (_, json) = by_kind.iter().find(|(key, _)| key == kind)?;
        let id = text(json, "kmp_out_id").parse().unwrap();
        tracks.insert(id, track(json));
        Some(id)
    };
    StreamView {
        video: of_kind("video"),
        audio: of_kind("audio"),
        name: text(json, "name"),
        args: text(json, "args"),
        kind: text(json, "type"),
        traffic_in: traffic(json, "in"),
        audio_in: traffic(json, "in_audio"),
        video_in: traffic(json, "in_video"),
        traffic_out: traffic(json, "out"),
        uptime_seconds: count(json, "uptime"),
    }
}

const OPEN: KmpControlApi = KmpControlApi { listen: Vec::new(), write: true, allow: Vec::new() };

fn request(method: &str, target: &str, body: &str) -> Request {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let peer = IpAddr::from([127, 0, 0, 1]);
    Request { method: method.to_owned(), target: target.to_owned(), headers, body: body.into(), peer }
}

/// Status and body of a request that needs no action.
fn ask(snapshot: &Snapshot, method: &str, target: &str, body: &str) -> (u16, String) {
    let mut exchange = Exchange::new(&request(method, target, body), &OPEN);
    match exchange.step(snapshot) {
        Step::Reply(reply) => {
            let is_json = reply.headers == [("content-type".to_owned(), "application/json".to_owned())];
            assert_eq!(is_json, !reply.body.is_empty());
            (reply.status, String::from_utf8(reply.body).unwrap())
        }
        Step::Act(action) => panic!("{action:?}"),
    }
}

/// Built from the values in them, so nothing is masked but what our [`Build`] would say.
#[test]
fn every_recorded_document_comes_out_byte_for_byte() {
    let mut rendered = 0;
    for case in std::fs::read_dir(folder()).unwrap() {
        let case = case.unwrap().file_name().into_string().unwrap();
        for (name, target) in [
            ("api_rtmp_kmp.json", "/?pretty=1"),
            ("api_rtmp_kmp.json", "/rtmp_kmp_api/?pretty=1"),
            ("api_rtmp_kmp_after.json", "/?pretty=1"),
            ("api_rtmp_kmp_compact.json", "/"),
            ("api_kmp_out.json", "/kmp_out_api?pretty=1"),
        ] {
            let name = format!("{case}/{name}");
            if !folder().join(&name).exists() {
                continue;
            }
            let recorded = file(&name);
            let snapshot = snapshot(&Json::parse(recorded.as_bytes()).unwrap());
            assert_eq!(ask(&snapshot, "GET", target, ""), (200, recorded), "{name}");
            rendered += 1;
        }
    }
    assert!(rendered >= 10, "{rendered}");
}

fn yard() -> Snapshot {
    snapshot(
        &Json::parse(file("07_two_upstreams_last_sent_connect_data/api_rtmp_kmp.json").as_bytes()).unwrap(),
    )
}

#[test]
fn an_added_upstream_shows_as_recorded() {
    let recorded = Json::parse(file("28_api_add_upstream/extra.json").as_bytes()).unwrap();
    let mut snapshot = yard();
    let (&id, track) = snapshot.tracks.iter_mut().next().unwrap();
    track.upstreams = list(&recorded, "upstreams").iter().map(upstream).collect();
    let (status, json) = ask(&snapshot, "GET", &format!("/kmp_out_api/tracks/{id}/upstreams"), "");
    assert_eq!((status, Json::parse(json.as_bytes()).unwrap()), (200, field(&recorded, "upstreams").clone()));
    let (status, ids) = ask(&snapshot, "GET", &format!("/kmp_out_api/tracks/{id}/upstreams?list=1"), "");
    assert_eq!((status, ids.as_str()), (200, r#"["main","late"]"#));
}

#[test]
fn folders_and_tracks_can_be_listed() {
    let snapshot = yard();
    let ids: Vec<u64> = snapshot.tracks.keys().copied().collect();
    let get = |target: &str| ask(&snapshot, "GET", target, "");
    // As recorded in 12_delete_session.
    assert_eq!(get("/?list=1").1, r#"["multi","sessions"]"#);
    assert_eq!(get("/kmp_out_api/?list=1").1, r#"["multi","tracks"]"#);
    assert_eq!(get("/kmp_out_api/tracks?list=1").1, format!("[\"{}\",\"{}\"]", ids[0], ids[1]));
    let (_, all) = get("/kmp_out_api/tracks");
    let (_, one) = get(&format!("/kmp_out_api/tracks/{}", ids[0]));
    assert!(all.starts_with(&format!("{{\"{}\":{one},", ids[0])));
    assert!(get("/kmp_out_api").1.ends_with(&format!("\"tracks\":{all}}}")));
    assert!(!one.contains("kmp_out_id"));
    assert_eq!(get(&format!("/kmp_out_api/tracks/{}?list=1", ids[0])).1, r#"["upstreams"]"#);
}

#[test]
fn an_ended_track_stands_in_one_document_alone() {
    let mut snapshot = yard();
    snapshot.servers.iter_mut().flatten().flat_map(|it| &mut it.sessions).for_each(|it| it.streams.clear());
    assert!(!ask(&snapshot, "GET", "/", "").1.contains("channel_id"));
    assert!(ask(&snapshot, "GET", "/kmp_out_api", "").1.contains("channel_id"));
}

#[test]
fn requests_that_cannot_be_answered_say_why_by_their_status() {
    let snapshot = yard();
    let id = *snapshot.tracks.keys().next().unwrap();
    let upstreams = format!("/kmp_out_api/tracks/{id}/upstreams");
    for (method, target, body, status) in [
        ("GET", "/sessions", "", 405),
        ("GET", "/sessions/5", "", 405),
        ("DELETE", "/sessions/abc", "", 400),
        ("DELETE", "/sessions/99999999999999999999", "", 400),
        ("DELETE", "/", "", 405),
        ("PATCH", "/", "", 405),
        ("HEAD", "/", "", 405),
        ("GET", "/nothing", "", 400),
        ("GET", "/tracks", "", 400),
        ("GET", "/multi", "", 400),
        ("GET", "/kmp_out_api/sessions", "", 400),
        ("GET", "/kmp_out_api/tracks/1/upstreams/a/b", "", 400),
        ("GET", "/kmp_out_api/tracks/77", "", 404),
        ("GET", "/kmp_out_api/tracks/x", "", 404),
        ("GET", "/kmp_out_api/tracks/77?list=1", "", 404),
        ("DELETE", "/kmp_out_api/tracks/77/upstreams/main", "", 404),
        ("DELETE", "/kmp_out_api/tracks/1", "", 405),
        ("POST", "/kmp_out_api/tracks/77/upstreams", "{\"url\":\"10.0.0.1:1\"}", 404),
        ("POST", &upstreams, "", 415),
        ("POST", &upstreams, "[]", 415),
        ("POST", &upstreams, "{\"url\":\"nowhere\"}", 415),
        ("POST", &upstreams, "{\"url\":\"10.0.0.1:1\",\"resume_from\":\"x\"}", 415),
        ("POST", "/multi", "", 415),
        ("POST", "/multi", "[]", 415),
        ("POST", "/multi", "{}", 415),
        ("POST", "/multi", "[{},1]", 415),
    ] {
        assert_eq!(ask(&snapshot, method, target, body), (status, String::new()), "{method} {target} {body}");
    }
    let plain = Request { headers: vec![], ..request("POST", &upstreams, "{\"url\":\"10.0.0.1:1\"}") };
    assert!(
        matches!(Exchange::new(&plain, &OPEN).step(&snapshot), Step::Reply(reply) if reply.status == 415)
    );
    let named = request("POST", &upstreams, "{\"url\":\"some.host:1\"}");
    assert!(matches!(Exchange::new(&named, &OPEN).step(&snapshot), Step::Act(_)));
    let mut strict = snapshot.clone();
    strict.tracks.values_mut().for_each(|track| track.strict = true);
    assert!(matches!(Exchange::new(&named, &OPEN).step(&strict), Step::Reply(reply) if reply.status == 415));
}

#[test]
fn what_is_asked_to_be_done_is_done_before_the_reply() {
    let snapshot = yard();
    let id = *snapshot.tracks.keys().next().unwrap();
    let added = "{\"id\":\"late\",\"url\":\"kmp://some.host:1\",\"required\":false,\"resume_from\":\"last_sent\",\
                 \"src_id\":\"main\"}";
    let upstream = crate::kmp_control::Upstream {
        id: "late".into(),
        url: UpstreamUrl { tls: false, host: "some.host".into(), port: 1 },
        required: false,
        resume_from: ResumeFrom::LastSent,
        connect_data: None,
    };
    let source = Some("main".to_owned());
    let track = format!("/kmp_out_api/tracks/{id}/upstreams");
    let removed = Action::RemoveUpstream { track: id, upstream: "my/one".into() };
    let cases = [
        (request("DELETE", "/sessions/7", ""), Action::DropSession { connection: 7 }, 204),
        (request("DELETE", "/rtmp_kmp_api//sessions/7", ""), Action::DropSession { connection: 7 }, 204),
        (request("POST", &track, added), Action::AddUpstream { track: id, upstream, source }, 201),
        (request("DELETE", &format!("{track}/my%2Fone"), ""), removed, 204),
    ];
    for (request, action, done) in cases {
        for (outcome, status) in [(Outcome::Done, done), (Outcome::NotFound, 404), (Outcome::Failed, 500)] {
            let mut exchange = Exchange::new(&request, &OPEN);
            assert_eq!(exchange.step(&snapshot), Step::Act(action.clone()));
            exchange.handle_outcome(outcome);
            let Step::Reply(reply) = exchange.step(&snapshot) else { panic!() };
            assert_eq!((reply.status, reply.body.len()), (status, 0));
        }
    }
}

#[test]
fn several_requests_in_one_have_a_status_each() {
    let snapshot = yard();
    let body = r#"[
        {"uri":"/?x","method":"GET"},
        {"uri":"/sessions/7","method":"DELETE"},
        {"uri":"/sessions/8","method":"DELETE","body":null},
        {"uri":"/sessions/x","method":"DELETE"},
        {"uri":"/nothing","method":"GET"},
        {"uri":"/","method":"GET","body":{}},
        {"uri":"/","method":"get"},
        {"method":"GET"},
        {"uri":"/multi","method":"POST","body":[]},
        {"uri":"?list=1","method":"GET"}
    ]"#;
    let mut exchange = Exchange::new(&request("POST", "/multi", body), &OPEN);
    assert_eq!(exchange.step(&snapshot), Step::Act(Action::DropSession { connection: 7 }));
    exchange.handle_outcome(Outcome::Done);
    assert_eq!(exchange.step(&snapshot), Step::Act(Action::DropSession { connection: 8 }));
    exchange.handle_outcome(Outcome::NotFound);
    let Step::Reply(reply) = exchange.step(&snapshot) else { panic!() };
    let expected = format!(
        r#"[{{"code":200,"body":{}}},{{"code":204}},{{"code":404}},{{"code":400}},{{"code":400}},{{"code":415}},{{"code":415}},{{"code":415}},{{"code":400}},{{"code":200,"body":["multi","sessions"]}}]"#,
        ask(&snapshot, "GET", "/", "").1
    );
    assert_eq!((reply.status, String::from_utf8(reply.body).unwrap()), (200, expected));
    let one = r#"[{"uri":"/tracks/77","method":"GET"}]"#;
    assert_eq!(ask(&snapshot, "POST", "/kmp_out_api/multi", one), (200, r#"[{"code":404}]"#.to_owned()));
    let pretty_one = pretty(r#"[{"code":404}]"#);
    assert_eq!(ask(&snapshot, "POST", "/kmp_out_api/multi?pretty=1", one), (200, pretty_one));
    let many = |count: usize| format!("[{}]", vec![r#"{"uri":"/x","method":"GET"}"#; count].join(","));
    assert_eq!(ask(&snapshot, "POST", "/multi", &many(64)).0, 200);
    assert_eq!(ask(&snapshot, "POST", "/multi", &many(65)).0, 413);
}

#[test]
fn without_write_it_only_shows() {
    let snapshot = yard();
    let read_only = KmpControlApi::default();
    for (method, target) in
        [("DELETE", "/sessions/7"), ("DELETE", "/sessions/x"), ("POST", "/multi"), ("PUT", "/x")]
    {
        let mut exchange = Exchange::new(&request(method, target, "[{}]"), &read_only);
        assert!(
            matches!(exchange.step(&snapshot), Step::Reply(reply) if reply.status == 405),
            "{method} {target}"
        );
    }
    let mut exchange = Exchange::new(&request("GET", "/", ""), &read_only);
    assert!(matches!(exchange.step(&snapshot), Step::Reply(reply) if reply.status == 200));
}

#[test]
fn only_named_networks_may_ask_and_without_any_loopback_alone() {
    let snapshot = yard();
    let status = |peer: &str, allow: &[&str]| {
        let allow = allow.iter().map(|network| network.parse().unwrap()).collect();
        let request = Request { peer: peer.parse().unwrap(), ..request("GET", "/", "") };
        match Exchange::new(&request, &KmpControlApi { allow, ..OPEN }).step(&snapshot) {
            Step::Reply(reply) => reply.status,
            Step::Act(action) => panic!("{action:?}"),
        }
    };
    assert_eq!(status("127.0.0.1", &[]), 200);
    assert_eq!(status("::ffff:127.0.0.1", &[]), 200);
    assert_eq!(status("10.0.0.1", &[]), 403);
    assert_eq!(status("10.0.0.1", &["10.0.0.0/8"]), 200);
    assert_eq!(status("127.0.0.1", &["10.0.0.0/8"]), 403);
}
