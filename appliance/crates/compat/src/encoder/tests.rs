#![allow(clippy::disallowed_methods, reason = "only differences matter")]

use super::*;

const START: &str = "ENCODE-START\nStream-Channel:c1\nStream-ID:id-1\nStream-Source-Type:RTMP\n\
                     Stream-Source-URI:rtmp://10.0.0.1:1935/c1/channel-key-0001\nResolutions:ORIGINAL,640x360\nRecord:True\n\
                     Previews:256x144,3";

struct Driven {
    encoder: Encoder,
    now: Instant,
}

impl Driven {
    fn new(capacity: Option<u32>, reregister: bool) -> Driven {
        let now = Instant::now();
        let settings =
            Settings { capacity, reregister, id_max: 128, silence: Duration::from_secs(60), seed: 7 };
        Driven { encoder: Encoder::new(settings, now), now }
    }

    fn connected(capacity: Option<u32>) -> Driven {
        let mut driven = Driven::new(capacity, true);
        driven.encoder.handle_timeout(driven.now);
        driven.encoder.handle_connected(driven.now);
        driven.actions();
        driven
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.encoder.poll_action()).collect()
    }

    /// What is sent and done; no notes.
    fn said(&mut self) -> Vec<String> {
        let said = self.actions().into_iter().filter_map(|action| match action {
            Action::Send(message) => Some(message.text()),
            Action::Start(id, assignment) => Some(format!("start {} {}", id.0, assignment.stream_id)),
            Action::Stop(id) => Some(format!("stop {}", id.0)),
            Action::Connect => Some("connect".to_owned()),
            Action::Close => Some("close".to_owned()),
            Action::Note(_) => None,
        });
        said.collect()
    }

    fn hear(&mut self, text: &str) -> Vec<String> {
        self.encoder.handle_text(text, self.now);
        self.said()
    }

    fn ended(&mut self, id: u64, failed: Option<&str>) -> Vec<String> {
        self.encoder.handle_ended(TaskId(id), failed);
        self.said()
    }

    fn available(&mut self, id: u64, kind: FilesKind, start: Duration) -> Vec<String> {
        let available = Available {
            kind,
            resolution: "640x360-25".to_owned(),
            index_file: "hls/c1/id-1/640x360-25/x.m3u8".to_owned(),
            start,
        };
        self.encoder.handle_available(TaskId(id), &available);
        self.said()
    }

    fn pass(&mut self, seconds: u64) -> Vec<String> {
        self.now += Duration::from_secs(seconds);
        self.encoder.handle_timeout(self.now);
        self.said()
    }
}

fn start(nth: u32) -> String {
    START.replace("id-1", &format!("id-{nth}"))
}

fn closed(nth: u32) -> String {
    format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:id-{nth}")
}

#[test]
fn check_25_the_first_message_registers() {
    for (capacity, told) in [(None, "-1"), (Some(0), "0"), (Some(4), "4")] {
        let mut driven = Driven::new(capacity, true);
        driven.encoder.handle_timeout(driven.now);
        assert_eq!(driven.said(), ["connect"]);
        driven.encoder.handle_connected(driven.now);
        assert_eq!(driven.said(), [format!("REGISTER\nCapacity:{told}")]);
    }
}

#[test]
fn check_25_a_task_is_what_was_asked_for_and_is_closed_once() {
    let mut driven = Driven::connected(None);
    driven.encoder.handle_text(START, driven.now);
    let actions = driven.actions();
    let Some(Action::Start(id, assignment)) = actions.last() else { panic!("{actions:?}") };
    assert_eq!((assignment.channel.as_str(), assignment.stream_id.as_str()), ("c1", "id-1"));
    assert_eq!(assignment.source.reveal(), "rtmp://10.0.0.1:1935/c1/channel-key-0001");
    assert_eq!((assignment.record, assignment.previews), (true, Previews::parse("256x144,3")));
    assert_eq!(assignment.resolutions, Resolutions::parse("ORIGINAL,640x360"));
    assert!(!format!("{actions:?}").contains("channel-key-0001"), "keys are shown to nobody");
    let id = id.0;
    assert_eq!(driven.hear(START), [""; 0], "it is known");
    assert_eq!(driven.ended(id, None), [closed(1)]);
    assert_eq!(driven.ended(id, None), [""; 0]);
    assert_eq!(driven.hear(START), ["start 2 id-1"], "it may come again");
    assert_eq!(
        driven.ended(2, Some("the source\nis dead")),
        [format!("{}\nError-Code:ENCODE_FAILED\nError-Message:the sourceis dead", closed(1))]
    );
}

#[test]
fn check_25_files_are_told_of_with_their_start_where_there_is_one() {
    let mut driven = Driven::connected(None);
    driven.hear(START);
    let told = |kind: &str, more: &str| {
        format!(
            "STREAM-AVAILABLE\nStream-Channel:c1\nStream-ID:id-1\nStream-Type:{kind}\nResolution:640x360-25\n\
             Index-file:hls/c1/id-1/640x360-25/x.m3u8{more}"
        )
    };
    assert_eq!(driven.available(1, FilesKind::Live, Duration::ZERO), [told("HLS-LIVE", "")]);
    assert_eq!(driven.available(1, FilesKind::Previews, Duration::ZERO), [told("IMG-PREVIEW", "")]);
    for (millis, text) in [(30_000, "30"), (30_500, "30.5"), (259_200_000, "259200")] {
        let start = Duration::from_millis(millis);
        assert_eq!(
            driven.available(1, FilesKind::Vod, start),
            [told("HLS-VOD", &format!("\nStart-Time:{text}"))]
        );
    }
    driven.ended(1, None);
    assert_eq!(driven.available(1, FilesKind::Live, Duration::ZERO), [""; 0], "nobody asks for it any more");
}

#[test]
fn check_25_a_stop_aborts_what_has_produced_nothing_and_lets_the_rest_drain() {
    let mut driven = Driven::connected(None);
    driven.hear(START);
    driven.hear(&start(2));
    driven.available(2, FilesKind::Live, Duration::ZERO);
    let stop = |id: &str| format!("ENCODE-STOP\nStream-Channel:c1\nStream-ID:{id}");
    assert_eq!(driven.hear(&stop("id-9")), [""; 0]);
    assert_eq!(driven.hear("ENCODE-STOP\nStream-Channel:c2\nStream-ID:id-1"), [""; 0]);
    assert_eq!(driven.hear(&stop("id-1")), ["stop 1"]);
    assert_eq!(driven.hear(&stop("id-1")), [""; 0], "once");
    assert_eq!(driven.ended(1, None), [closed(1)]);
    assert_eq!(driven.hear(&stop("id-2")), [""; 0]);
    assert_eq!(driven.encoder.next_timeout(), Some(driven.now + DRAIN_WITHIN));
    assert_eq!(driven.pass(9), [""; 0]);
    assert_eq!(driven.hear(&stop("id-2")), [""; 0], "its time is not made longer");
    assert_eq!(driven.pass(1), ["stop 2"]);
    assert_eq!(driven.pass(1), [""; 0]);
    assert_eq!(driven.ended(2, None), [closed(2)]);
}

#[test]
fn check_25_a_stop_without_an_id_means_all_of_the_channel() {
    let mut driven = Driven::connected(None);
    driven.hear(START);
    driven.hear(&start(2));
    driven.hear(&START.replace("c1", "c2"));
    assert_eq!(driven.hear("ENCODE-STOP\nStream-Channel:c1\nStream-ID:"), ["stop 1", "stop 2"]);
}

#[test]
fn check_25_a_lost_coordinator_takes_its_tasks_with_it() {
    let mut driven = Driven::connected(Some(4));
    driven.hear(START);
    driven.hear(&start(2));
    driven.hear("ENCODE-STOP\nStream-Channel:c1\nStream-ID:id-2");
    driven.encoder.handle_lost("it is gone", driven.now);
    assert_eq!(driven.said(), ["stop 1"]);
    assert_eq!(driven.pass(20), ["connect"]);
    driven.encoder.handle_connected(driven.now);
    assert_eq!(driven.said(), ["REGISTER\nCapacity:4"]);
    assert_eq!(driven.ended(1, None), [""; 0], "the new one never heard of it");
    assert_eq!(driven.hear(START), ["start 3 id-1"], "and what it gives is a task of its own");
    assert_eq!(driven.available(1, FilesKind::Live, Duration::ZERO), [""; 0]);
}

#[test]
fn check_25_there_are_no_more_tasks_than_places_and_what_is_left_is_told_again() {
    let mut driven = Driven::connected(Some(2));
    driven.hear(START);
    driven.hear(&start(2));
    let refused =
        format!("{}\nError-Code:NO_CAPACITY\nError-Message:there is no place for one more task", closed(3));
    assert_eq!(driven.hear(&start(3)), [refused, "REGISTER\nCapacity:0".to_owned()]);
    assert_eq!(driven.ended(1, None), [closed(1), "REGISTER\nCapacity:1".to_owned()]);
    assert_eq!(driven.hear(&start(4)), ["start 3 id-4"]);
    // By setting, and without a limit, it is not.
    let mut driven = Driven::new(Some(2), false);
    driven.encoder.handle_connected(driven.now);
    driven.hear(START);
    assert_eq!(driven.ended(1, None), [closed(1)]);
    // And an encoder without a limit has one all the same.
    let mut driven = Driven::connected(None);
    let begun = (0..300).filter(|nth| driven.hear(&start(*nth)).concat().starts_with("start")).count();
    assert_eq!(begun, TASKS_MAX);
}

#[test]
fn check_25_what_cannot_be_encoded_is_closed_at_once() {
    let mut driven = Driven::connected(None);
    for (from, to, code) in [
        ("Stream-ID:id-1", "Stream-ID:../../etc", "INVALID_NAME"),
        ("Stream-Channel:c1", "Stream-Channel:..", "INVALID_NAME"),
        ("Stream-Channel:c1", "Stream-Channel:", "INVALID_NAME"),
        ("Type:RTMP", "Type:WS", "UNSUPPORTED_SOURCE"),
        ("rtmp://", "file://", "UNSUPPORTED_SOURCE"),
        ("rtmp://", "", "UNSUPPORTED_SOURCE"),
        ("channel-key-0001", &"k".repeat(2_049), "UNSUPPORTED_SOURCE"),
    ] {
        let said = driven.hear(&START.replace(from, to));
        assert!(said.len() == 1 && said[0].starts_with("STREAM-CLOSED\n"), "{to}: {said:?}");
        assert!(said[0].contains(&format!("\nError-Code:{code}\n")), "{to}: {said:?}");
    }
}

#[test]
fn check_20_as_encoder_heartbeats_go_out_and_silence_ends_it() {
    let mut driven = Driven::connected(None);
    driven.hear(START);
    assert_eq!(driven.pass(20), ["HEARTBEAT"]);
    assert_eq!(driven.pass(20), ["HEARTBEAT"]);
    driven.hear("HEARTBEAT");
    assert_eq!(driven.pass(59), ["HEARTBEAT"]);
    assert_eq!(driven.pass(1), ["close", "stop 1", "connect"], "and it comes again");
}

#[test]
fn what_is_no_message_ends_the_socket() {
    let mut driven = Driven::connected(None);
    driven.hear(START);
    let long = "x".repeat(70_000);
    let said = driven.hear(&long);
    assert!(said[0].starts_with("ERROR\nError-Code:MESSAGE_TOO_LONG"), "{said:?}");
    assert_eq!(said[1..], ["close", "stop 1"]);
    assert_eq!(driven.hear(START), [""; 0], "nobody is there");
}
