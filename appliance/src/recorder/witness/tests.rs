use super::*;
use fieldgate_model::config::{Path, Problem, Span};
use fieldgate_model::status::{
    LadderStatus, LadderStep, Notice, PendingChange, PictureStatus, RolledBack, SourceStatus, StreamStatus,
};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_millis(secs * 1_000)
}

fn camera(at_secs: i64, since: Option<i64>, activity: Activity) -> Status {
    let stream = since.map(|since| StreamStatus {
        publisher: "rtsp".to_owned(),
        since: at(since),
        newest_unit_age: Span::from_millis(0),
        ..StreamStatus::default()
    });
    let source =
        SourceStatus { kind: "rtsp".to_owned(), activity: Some(activity), ..SourceStatus::default() };
    let gate = MountpointStatus { stream, source, ..MountpointStatus::default() };
    Status { at: at(at_secs), mountpoints: [("gate-2".to_owned(), gate)].into(), ..Status::default() }
}

fn running() -> Activity {
    Activity { state: State::Running, starts: 1, ..Activity::default() }
}

fn retrying(starts: u64, cause: &str) -> Activity {
    Activity { state: State::Retrying, starts, cause: Some(cause.to_owned()), ..Activity::default() }
}

fn texts(seen: &Seen) -> Vec<String> {
    seen.events.iter().map(|event| event.text.clone()).collect()
}

#[test]
fn an_outage_of_a_camera_is_told_from_its_begin_to_its_end() {
    let mut witness = Witness::default();
    let first = witness.look(&camera(100, Some(90), running()), true);
    assert_eq!(texts(&first), ["delivers, from rtsp"]);
    assert_eq!(witness.look(&camera(101, Some(90), running()), true), Seen::default());
    let lost = witness.look(&camera(102, None, retrying(1, "SETUP refused: 454")), true);
    assert_eq!(texts(&lost), ["the camera stopped sending: SETUP refused: 454", "SETUP refused: 454"]);
    assert_eq!(lost.missing, ["gate-2"]);
    let reach = Reach { has_link: true, answers: Some(("10.0.0.7:554".to_owned(), true)) };
    let probed = witness.probed("gate-2", reach).unwrap();
    assert_eq!(probed.text, "link up; 10.0.0.7:554 answers");
    let mut again = camera(110, None, retrying(2, "SETUP refused: 454"));
    assert_eq!(witness.look(&again, true), Seen::default(), "the same again is only counted");
    again.at = at(120);
    let step =
        LadderStep { at: at(119), step: "reboot".to_owned(), result: "the picture is back".to_owned() };
    let ladder = LadderStatus { steps: vec![step], ..LadderStatus::default() };
    again.mountpoints.get_mut("gate-2").unwrap().source.ladder = Some(ladder);
    assert_eq!(texts(&witness.look(&again, true)), ["rebooted the camera: the picture is back"]);
    let back = witness.look(&camera(143, Some(142), running()), true);
    assert_eq!(
        texts(&back),
        [
            "the camera sends again; link up; 10.0.0.7:554 answers; SETUP refused: 454 (2 times); rebooted the camera; \
          41 s lost; cause: camera"
        ]
    );
    assert_eq!((back.events[0].lost_seconds, back.events[0].cause), (Some(41), Some(Cause::Camera)));
}

#[test]
fn a_camera_that_is_silent_is_lost_although_its_session_stands() {
    let mut witness = Witness::default();
    witness.look(&camera(100, Some(90), running()), true);
    let mut silent = camera(110, Some(90), running());
    let gate = silent.mountpoints.get_mut("gate-2").unwrap();
    gate.picture = Some(PictureStatus { verdict: "dead".to_owned(), ..PictureStatus::default() });
    assert_eq!(texts(&witness.look(&silent, true)), ["the camera stopped sending"]);
    let gate = silent.mountpoints.get_mut("gate-2").unwrap();
    let cause = Some("the same picture for 30 s".to_owned());
    gate.picture = Some(PictureStatus { verdict: "frozen".to_owned(), cause, ..PictureStatus::default() });
    silent.at = at(115);
    let told = witness.look(&silent, true);
    assert_eq!(told.events[1].text, "the picture is frozen: the same picture for 30 s");
    assert_eq!(told.events[0].kind, EventKind::StreamBack);
}

#[test]
fn one_that_never_came_says_why_once_and_then_that_it_came() {
    let mut witness = Witness::default();
    let refused = "the camera refused the password (401)";
    assert_eq!(texts(&witness.look(&camera(1, None, retrying(1, refused)), true)), [refused]);
    assert_eq!(witness.look(&camera(2, None, retrying(2, refused)), true), Seen::default());
    let came = witness.look(&camera(9, Some(9), running()), true);
    assert_eq!(came.events[0].kind, EventKind::StreamBegan);
    assert!(came.events[0].text.contains("(401)"), "{}", came.events[0].text);
}

#[test]
fn an_upstream_that_was_down_says_for_how_long_and_what_was_not_sent() {
    let mut witness = Witness::default();
    let status = |secs, activity, dropped| {
        let mut status = camera(secs, Some(1), running());
        let mut push = PushStatus { enabled: true, activity, ..PushStatus::default() };
        push.counters.dropped_units = dropped;
        status.mountpoints.get_mut("gate-2").unwrap().pushes.insert("up".to_owned(), push);
        status
    };
    let first = witness.look(&status(10, running(), 0), true);
    assert_eq!(first.events[1].kind, EventKind::UpstreamBack);
    let lost = witness.look(&status(11, retrying(1, "the server closed the connection"), 0), true);
    assert_eq!(texts(&lost), ["does not deliver any more: the server closed the connection"]);
    let other = witness.look(&status(15, retrying(2, "cannot connect: refused"), 0), true);
    assert_eq!(texts(&other), ["cannot connect: refused"]);
    let back = witness.look(&status(30, running(), 250), true);
    assert_eq!(
        texts(&back),
        [
            "delivers again; the server closed the connection; cannot connect: refused; 250 frames were not sent; \
          20 s lost; cause: upstream"
        ]
    );
    assert_eq!(back.events[0].upstream.as_deref(), Some("up"));
}

#[test]
fn what_becomes_of_the_config_and_notices_are_told_once() {
    let mut witness = Witness::default();
    let mut status = Status { at: at(1), ..Status::default() };
    status.config.revision = 7;
    assert_eq!(witness.look(&status, false), Seen::default(), "what was there before is no news");
    (status.config.revision, status.config.changed_by) = (8, "ann from 10.0.0.9".to_owned());
    assert_eq!(texts(&witness.look(&status, false)), ["config 8 is in force, by ann from 10.0.0.9"]);
    status.config.phase = ConfigPhase::AwaitingConfirm;
    status.config.pending =
        Some(PendingChange { by: "ann".to_owned(), deadline: at(90), unhealthy: Vec::new() });
    assert_eq!(witness.look(&status, false).events[0].kind, EventKind::ConfigTried);
    assert_eq!(witness.look(&status, true).events[0].kind, EventKind::Claimed);
    (status.config.phase, status.config.pending) = (ConfigPhase::Confirmed, None);
    let causes = vec![Problem::new(&Path::root().field("admin"), "was not confirmed within 90 s")];
    status.config.rolled_back = Some(RolledBack { at: at(91), by: "ann".to_owned(), causes });
    let undone = witness.look(&status, true);
    assert_eq!(texts(&undone), ["the change by ann was undone: admin: was not confirmed within 90 s"]);
    status.notices.push(Notice { code: "stuck".to_owned(), text: "x is stuck".to_owned() });
    assert_eq!(texts(&witness.look(&status, true)), ["x is stuck"]);
    assert_eq!(witness.look(&status, true), Seen::default());
}

#[test]
fn what_flaps_is_counted_and_does_not_push_out_all_else() {
    let mut witness = Witness::default();
    let mut told = 0;
    for second in 0..3_000 {
        let since = (second % 2 == 0).then_some(second);
        let seen = witness.look(&camera(second, since, running()), true);
        told += seen.events.len();
    }
    assert!(told <= 3 * OFTEN as usize, "{told}");
    let later = witness.look(&camera(4_000, Some(4_000), running()), true);
    assert!(later.events[0].text.contains("more like this were not told"), "{:?}", texts(&later));
}
