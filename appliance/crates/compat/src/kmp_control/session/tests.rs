use super::*;
use crate::Reply;
use crate::kmp_control::testing::{Recorded, case, cases, client, field, media_info, publication, text};
use bytes::Bytes;

const FAST: Settings = Settings {
    asks_connect: true,
    tells_unpublish: true,
    asks_republish: true,
    retries: 2,
    retry_interval: Duration::from_millis(200),
    reader: Reader { buffer_bytes: 4_096, strict: true },
};

#[allow(clippy::disallowed_methods, reason = "only differences matter")]
fn start() -> Instant {
    Instant::now()
}

/// A session with a KMP sender that does what the recorded one did.
struct Bench {
    session: Session,
    now: Instant,
    open: Vec<(CallId, Callback, Bytes)>,
    tracks: BTreeMap<String, TrackKey>,
    seen: Vec<Output>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let session = Session::new(settings);
        Bench { session, now: start(), open: Vec::new(), tracks: BTreeMap::new(), seen: Vec::new() }
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match &output {
                Output::Call { call, callback, body } => self.open.push((*call, *callback, body.clone())),
                Output::Cancel { call } => self.open.retain(|(id, ..)| id != call),
                Output::RepublishFailed { track, .. } => {
                    self.session.fail_track(*track, Reason::UpstreamError);
                    self.session.upstreams_gone(*track);
                }
                _ => {}
            }
            self.seen.push(output);
        }
    }

    fn take(&mut self, callback: &str, body: &str) -> Option<CallId> {
        let at = self.open.iter().position(|(_, it, bytes)| it.name() == callback && bytes == body)?;
        Some(self.open.remove(at).0)
    }

    fn reply(&mut self, call: CallId, outcome: &CallOutcome) {
        self.session.handle_reply(call, outcome, self.now);
        self.drain();
    }

    fn wait(&mut self) {
        if let Some(at) = self.session.next_timeout() {
            self.now = at;
            self.session.handle_timeout(at);
            self.drain();
        }
    }

    /// Makes happen what led to this callback.
    fn cause(&mut self, record: &Recorded) {
        let body = &record.body;
        match record.callback.as_str() {
            "connect" => self.session.connect(&client(field(body, "rtmp"))),
            "publish" => {
                let key = self.session.start_track(&Arc::new(publication(body)), &media_info(body));
                self.tracks.insert(text(body, "input_id"), key.unwrap());
            }
            "republish" => {
                let key = self.tracks[&text(body, "input_id")];
                self.session.republish(key, 7, &text(body, "id"), &media_info(body));
            }
            _ => {
                let key = self.tracks[&text(body, "input_id")];
                match text(body, "reason").as_str() {
                    "rtmp_close" => self.session.end_track(key, Reason::RtmpClose),
                    "rtmp_disconnect" => self.session.end(Reason::RtmpDisconnect),
                    "upstream_error" => self.session.fail_track(key, Reason::UpstreamError),
                    "rtmp_bad_data" => self.session.fail_track(key, Reason::RtmpBadData),
                    // Comes of another track.
                    "rtmp_kmp_error" => {}
                    other => panic!("{other} comes by itself"),
                }
                self.drain();
                self.session.upstreams_gone(key);
            }
        }
        self.drain();
    }

    fn play(&mut self, name: &str, record: &Recorded) {
        let mut call = self.take(&record.callback, &record.raw);
        if call.is_none() && self.session.next_timeout().is_some() {
            self.wait();
            call = self.take(&record.callback, &record.raw);
        }
        if call.is_none() {
            self.cause(record);
            call = self.take(&record.callback, &record.raw);
        }
        let call = call.unwrap_or_else(|| panic!("{name}: no call {} in {:?}", record.raw, self.open));
        self.reply(call, &record.outcome);
    }

    fn dropped(&self) -> Option<Reason> {
        let mut dropped = self.seen.iter().filter_map(|output| match output {
            Output::DropSession { reason } => Some(*reason),
            _ => None,
        });
        let first = dropped.next();
        assert_eq!(dropped.next(), None);
        first
    }
}

/// Each recorded callback is made, byte for byte and in the recorded order, with the recorded replies; no other is.
#[test]
fn recorded_sessions_make_the_same_callbacks() {
    let mut played = 0;
    for (name, records) in cases() {
        // Refused connections are told below; in 34 the calls to publish reached nobody who could record them.
        if name.starts_with("27") || name.starts_with("34") {
            continue;
        }
        let retries = if records[0].raw.contains(r#""app":"fast""#) { 2 } else { 5 };
        let asks_connect = records[0].callback == "connect";
        let mut bench = Bench::new(Settings { retries, asks_connect, ..FAST });
        records.iter().for_each(|record| bench.play(&name, record));
        assert!(bench.open.is_empty() && bench.session.is_idle(), "{name}: {:?}", bench.open);
        assert_eq!(bench.session.next_timeout(), None, "{name}");
        let done = bench.seen.iter().filter(|output| matches!(output, Output::TrackDone { .. })).count();
        assert_eq!(done, bench.tracks.len(), "{name}");
        let reason = match name.get(..2).unwrap() {
            "12" | "13" | "14" => Some(Reason::RtmpDisconnect),
            "17" | "36" => Some(Reason::ParsePublishFailed),
            "19" | "22" | "30" => Some(Reason::UpstreamError),
            "38" => Some(Reason::RtmpBadData),
            "39" => Some(Reason::CreateUpstreamFailed),
            _ => None,
        };
        assert_eq!(bench.dropped(), reason, "{name}");
        played += 1;
    }
    assert_eq!(played, 39);
}

#[test]
fn a_refusal_of_connect_is_final_and_no_answer_is_asked_for_again() {
    let records = case("27_connect_rejected");
    let (mut at, mut texts) = (0, Vec::new());
    while at < records.len() {
        let mut bench = Bench::new(FAST);
        loop {
            bench.play("27", &records[at]);
            at += 1;
            match bench.seen.last() {
                Some(Output::TryFailed { retry_in: Some(_), .. }) => {}
                Some(Output::Deny { text }) => break texts.push(Some(text.clone())),
                Some(Output::Admit) => break texts.push(None),
                other => panic!("{other:?}"),
            }
        }
        assert!(bench.session.is_idle());
    }
    let denied = |text: &str| Some(text.to_owned());
    assert_eq!(texts, [denied("bad key"), denied(""), denied("Internal server error"), None]);
    assert_eq!(at, 6);
}

#[test]
fn a_controller_that_is_down_ends_the_session_after_all_tries() {
    let records = case("34_controller_down");
    let mut bench = Bench::new(FAST);
    bench.play("34", &records[0]);
    let info = media_info(&case("01_h264_aac_ffmpeg_defaults")[1].body);
    let video = match media_info(&case("01_h264_aac_ffmpeg_defaults")[2].body) {
        info @ MediaInfo::Video { .. } => info,
        other => panic!("{other:?}"),
    };
    let publication = Arc::new(publication(&records[1].body));
    bench.session.start_track(&publication, &info);
    bench.drain();
    let (call, ..) = bench.open.remove(0);
    bench.session.start_track(&publication, &video);
    let failed = CallOutcome::Failed("connection refused".into());
    for left in [2, 1, 0] {
        let before = bench.seen.len();
        bench.reply(call, &failed);
        let Output::TryFailed { callback: Callback::Publish, retry_in, .. } =
            bench.seen[before..].iter().find(|output| matches!(output, Output::TryFailed { .. })).unwrap()
        else {
            panic!("{:?}", bench.seen)
        };
        assert_eq!(retry_in.is_some(), left > 0);
        bench.wait();
        if left > 0 {
            bench.open.retain(|(id, ..)| *id != call);
        }
    }
    assert_eq!(bench.dropped(), Some(Reason::ParsePublishFailed));
    for record in &records[1..] {
        let call = bench.take("unpublish", &record.raw).unwrap_or_else(|| panic!("{:?}", bench.open));
        bench.reply(call, &failed);
    }
    assert!(bench.session.is_idle(), "unpublish has one try");
}

fn one_track(settings: Settings, reply: &str) -> (Bench, TrackKey) {
    let record = &case("01_h264_aac_ffmpeg_defaults")[2];
    let mut bench = Bench::new(settings);
    let key =
        bench.session.start_track(&Arc::new(publication(&record.body)), &media_info(&record.body)).unwrap();
    bench.drain();
    let (call, ..) = bench.open.remove(0);
    if !reply.is_empty() {
        bench.reply(call, &replied(reply));
    }
    (bench, key)
}

fn replied(body: &str) -> CallOutcome {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    CallOutcome::Replied(Reply { status: 200, headers, body: body.as_bytes().to_vec() })
}

const GOOD: &str = r#"{"code":"ok","channel_id":"c","track_id":"t","upstreams":[{"url":"10.0.0.1:1"}]}"#;
const NOWHERE: &str = r#"{"code":"ok","channel_id":"c","track_id":"t","upstreams":[]}"#;

fn reasons(bench: &Bench) -> Vec<String> {
    let bodies = bench.open.iter().filter(|(_, callback, _)| *callback == Callback::Unpublish);
    bodies.map(|(.., body)| text(&super::super::json::Json::parse(body).unwrap(), "reason")).collect()
}

#[test]
fn retries_repeat_the_same_bytes_after_the_interval() {
    let (mut bench, _) = one_track(FAST, "");
    let Some(Output::Call { body, .. }) = bench.seen.first().cloned() else { panic!() };
    let began = bench.now;
    for tries in 1..=2_u32 {
        bench.reply(CallId(0), &replied("{}"));
        let due = bench.session.next_timeout().unwrap();
        assert_eq!(due, began + FAST.retry_interval * tries);
        bench.session.handle_timeout(due - Duration::from_nanos(1));
        bench.drain();
        assert!(bench.open.is_empty());
        // A reply that comes while nothing is asked is of no call.
        bench.reply(CallId(0), &replied(GOOD));
        bench.wait();
        let (id, callback, again) = bench.open.pop().unwrap();
        assert_eq!((id, callback, &again), (CallId(0), Callback::Publish, &body));
    }
    bench.reply(CallId(0), &replied("{}"));
    assert_eq!(bench.dropped(), Some(Reason::ParsePublishFailed));
}

#[test]
fn a_track_that_ends_while_it_waits_is_unpublished_at_once() {
    let (mut bench, key) = one_track(FAST, "");
    bench.session.end_track(key, Reason::RtmpClose);
    bench.drain();
    assert!(bench.seen.contains(&Output::Cancel { call: CallId(0) }));
    assert_eq!(reasons(&bench), ["rtmp_close"]);
    bench.session.finish_track(key, Reason::RtmpDisconnect);
    bench.reply(CallId(0), &replied(GOOD));
    assert_eq!(reasons(&bench), ["rtmp_close"]);
    assert!(!bench.seen.iter().any(|output| matches!(output, Output::Published { .. })));
}

#[test]
fn an_unwanted_track_is_unpublished_at_its_end() {
    let (mut bench, key) = one_track(FAST, NOWHERE);
    assert!(matches!(bench.seen.last(), Some(Output::Published { upstreams, .. }) if upstreams.is_empty()));
    assert_eq!(reasons(&bench), [""; 0]);
    bench.session.end_track(key, Reason::RtmpClose);
    bench.drain();
    assert_eq!(reasons(&bench), ["rtmp_close"]);
    assert_eq!(bench.dropped(), None);
}

#[test]
fn an_active_track_is_unpublished_when_its_last_upstream_is_gone() {
    let (mut bench, key) = one_track(FAST, GOOD);
    bench.session.end_track(key, Reason::RtmpClose);
    bench.session.end_track(key, Reason::RtmpDisconnect);
    bench.drain();
    assert_eq!(bench.seen.last(), Some(&Output::EndTrack { track: key, reason: Reason::RtmpClose }));
    assert_eq!(reasons(&bench), [""; 0]);
    bench.session.upstreams_gone(key);
    bench.session.upstreams_gone(key);
    bench.drain();
    assert_eq!(reasons(&bench), ["rtmp_close"], "the first cause wins, and is told once");
}

#[test]
fn what_is_removed_by_hand_leaves_an_inactive_track() {
    let (mut bench, key) = one_track(FAST, GOOD);
    bench.session.upstreams_gone(key);
    bench.session.republish(key, 7, "main", &media_info(&case("01_h264_aac_ffmpeg_defaults")[2].body));
    bench.drain();
    assert!(bench.open.is_empty());
    bench.session.end(Reason::RtmpDisconnect);
    bench.drain();
    assert_eq!(reasons(&bench), ["rtmp_disconnect"]);
}

#[test]
fn the_sister_of_a_track_without_memory_has_another_reason() {
    let (mut bench, video) = one_track(FAST, GOOD);
    let record = &case("01_h264_aac_ffmpeg_defaults")[1];
    let publication = Arc::new(publication(&record.body));
    let audio = bench.session.start_track(&publication, &media_info(&record.body)).unwrap();
    bench.session.fail_track(video, Reason::AllocFailed);
    bench.drain();
    assert!(bench.seen.contains(&Output::EndTrack { track: video, reason: Reason::AllocFailed }));
    assert_eq!(reasons(&bench), ["rtmp_kmp_error"]);
    assert_eq!(bench.dropped(), Some(Reason::AllocFailed));
    bench.session.upstreams_gone(video);
    bench.drain();
    assert_eq!(reasons(&bench), ["rtmp_kmp_error", "alloc_failed"]);
    assert_ne!(audio, video);
    assert_eq!(bench.session.start_track(&publication, &media_info(&record.body)), None, "it is dropped");
}

#[test]
fn callbacks_without_url_are_not_made() {
    let quiet = Settings { asks_connect: false, tells_unpublish: false, asks_republish: false, ..FAST };
    let (mut bench, key) = one_track(quiet, GOOD);
    bench.session.connect(&client(field(&case("01_h264_aac_ffmpeg_defaults")[0].body, "rtmp")));
    bench.session.republish(key, 7, "main", &media_info(&case("01_h264_aac_ffmpeg_defaults")[2].body));
    bench.drain();
    assert!(bench.open.is_empty());
    assert!(bench.seen.contains(&Output::Admit));
    assert!(bench.seen.contains(&Output::RepublishFailed { track: key, upstream: 7 }));
    assert_eq!(bench.seen.last(), Some(&Output::TrackDone { track: key }));
    assert!(bench.session.is_idle());
}

#[test]
fn a_lost_upstream_that_is_forgotten_is_asked_for_no_more() {
    let (mut bench, key) = one_track(FAST, GOOD);
    bench.session.republish(key, 7, "main", &media_info(&case("01_h264_aac_ffmpeg_defaults")[2].body));
    bench.drain();
    let (call, ..) = bench.open[0];
    bench.session.forget_upstream(key, 8);
    bench.drain();
    assert_eq!(bench.open.len(), 1);
    bench.session.forget_upstream(key, 7);
    bench.drain();
    assert!(bench.open.is_empty() && bench.seen.contains(&Output::Cancel { call }));
}

#[test]
fn settings_come_from_the_config() {
    let application = KmpApplication {
        unpublish_url: Some(fieldgate_model::config::SecretUrl::new("http://ctl/u")),
        ..KmpApplication::default()
    };
    let settings = Settings::from(&application);
    assert!(settings.tells_unpublish && !settings.asks_connect && !settings.asks_republish);
    assert_eq!((settings.retries, settings.retry_interval), (5, Duration::from_secs(2)));
    assert_eq!(settings.reader, Reader { buffer_bytes: 4_096, strict: false });
}
