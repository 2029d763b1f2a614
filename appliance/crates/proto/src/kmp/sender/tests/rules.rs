//! What the recordings do not show, and what we do unless asked to be strict.

use super::super::*;
use super::harness::{Act, Heard, Run, ack, kind};
use crate::kmp::packet::FrameHead;

fn frame(payload: &Bytes, keyframe: bool) -> (Option<Wire>, Wire) {
    (None, FrameHead { created: 0, dts: 0, keyframe, pts_delay: 0 }.encode(payload.clone()))
}

fn run(settings: Settings) -> Run {
    Run::new(settings, 1000)
}

fn backoff() -> Settings {
    Settings {
        reconnect: Reconnect::Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(3) },
        ..Settings::new()
    }
}

fn kinds(heard: &Heard) -> Vec<PacketKind> {
    super::harness::cut(&heard.bytes).iter().map(kind).collect()
}

#[test]
fn payloads_are_written_from_where_they_are() {
    let payload = Bytes::from(vec![1; 10_000]);
    let mut sender = Sender::new(Settings::new(), 7);
    let now = super::now();
    let name = Name::new("x").unwrap();
    let (info, packet) = frame(&payload, true);
    sender.push(info, packet, true, now);
    sender.published(name, name, vec![UpstreamSpec::new("u")], now);
    let key = sender.upstreams().next().unwrap().key;
    sender.connected(key, now);
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(sender.slices(key, &mut slices), 3);
    assert_eq!(slices[2].as_ptr(), payload.as_ptr());
    sender.written(key, 104 + 40 + 1000, now);
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(sender.slices(key, &mut slices), 1);
    assert_eq!((slices[0].as_ptr(), slices[0].len()), (payload[1000..].as_ptr(), 9000));
}

#[test]
fn a_silent_track_gives_a_sign_of_life() {
    let mut run = run(Settings::new());
    run.step(&frame(&Bytes::from_static(b"a"), true), true, Duration::from_secs(16));
    use PacketKind::{Connect, Frame, Null};
    assert_eq!(kinds(&run.heard[0]), [Connect, Frame, Null, Null, Null]);
}

#[test]
fn a_peer_that_stops_acknowledging_is_given_up() {
    let mut run = run(backoff());
    let media = frame(&Bytes::from_static(b"a"), true);
    run.peer = Box::new(|heard, nth| match (nth, heard.frames) {
        (0, 0..5) | (1.., _) => vec![ack(heard, heard.frames)],
        _ => vec![],
    });
    for _ in 0..64 {
        run.step(&media, true, Duration::from_secs(1));
    }
    assert_eq!(run.heard.len(), 1);
    run.step(&media, true, Duration::from_secs(3));
    assert_eq!((run.heard.len(), run.heard[1].first_id), (2, 1004));
    assert_eq!(run.heard[1].frames, 61);
}

#[test]
fn a_peer_that_never_acknowledges_is_left_in_peace() {
    let mut run = run(backoff());
    for _ in 0..300 {
        run.step(&frame(&Bytes::from_static(b"a"), true), true, Duration::from_secs(1));
    }
    assert_eq!(run.heard.len(), 1);
}

/// A track that has ended, after its first connection had `acked` of ten frames acknowledged; its receiver acknowledges the
/// rest on the connection with number `says`, if that comes. How many connections there were.
fn ended(settings: Settings, acked: u64, says: usize) -> (Run, usize) {
    let mut run = run(Settings { end_attempts: 3, end_patience: None, ..settings });
    run.peer = Box::new(move |heard, nth| match (nth, heard.end) {
        (0, false) if heard.frames == acked => vec![ack(heard, acked)],
        (_, true) if nth >= says => vec![ack(heard, heard.frames), Act::Close],
        (_, true) => vec![Act::Close],
        _ => vec![],
    });
    for _ in 0..10 {
        run.step(&frame(&Bytes::from_static(b"a"), true), true, Duration::from_millis(40));
    }
    run.end(Reason::Close);
    run.pass(Duration::from_secs(120));
    let connections = run.heard.len();
    (run, connections)
}

#[test]
fn a_receiver_that_acknowledges_has_not_had_what_it_says_nothing_of() {
    // Under load a router that only lets us connect was taken for it, and a stretch that fits into a socket given up.
    let (run, connections) = ended(backoff(), 4, 20);
    assert_eq!(connections, 21);
    assert_eq!(run.settled.iter().map(|told| told.2).collect::<Vec<_>>(), [Fate::Acknowledged; 2]);
    assert_eq!((run.settled[1].0, run.settled[1].1), (1004, 1010));
    assert!(run.unpublished.is_some());
}

#[test]
fn a_receiver_that_never_acknowledges_is_given_up_some_connections_after_the_end() {
    let (run, connections) = ended(backoff(), 0, usize::MAX);
    assert_eq!(connections, 4);
    assert_eq!(run.settled, [(1000, 1010, Fate::Unconfirmed(Cause::Unacknowledged))]);
    // One that acknowledged on other connections of the track is not.
    let mut run = self::run(Settings { end_attempts: 3, end_patience: None, ..backoff() });
    run.sender.expect_acks();
    run.peer = Box::new(|heard, _| if heard.end { vec![Act::Close] } else { vec![] });
    run.step(&frame(&Bytes::from_static(b"a"), true), true, Duration::from_secs(1));
    run.end(Reason::Close);
    run.pass(Duration::from_secs(60));
    assert!(run.heard.len() > 15 && run.settled.is_empty(), "{} connections", run.heard.len());
}

#[test]
fn a_peer_that_takes_nothing_is_given_up() {
    let now = super::now();
    let mut sender = Sender::new(backoff(), 7);
    let (name, (info, packet)) = (Name::new("x").unwrap(), frame(&Bytes::from_static(b"a"), true));
    sender.push(info, packet, true, now);
    sender.published(name, name, vec![UpstreamSpec::new("u")], now);
    let key = sender.upstreams().next().unwrap().key;
    assert_eq!(sender.next_timeout(), Some(now + Duration::from_secs(10)), "connecting is limited too");
    sender.connected(key, now);
    sender.written(key, 50, now + Duration::from_secs(4));
    assert_eq!(sender.next_timeout(), Some(now + Duration::from_secs(14)));
    while sender.poll_output().is_some() {}
    sender.handle_timeout(now + Duration::from_secs(14));
    assert_eq!(sender.poll_output(), Some(Output::Close(key)));
    assert_eq!(sender.next_timeout(), Some(now + Duration::from_millis(14_200)), "then it tries again");
}

#[test]
fn pauses_grow_until_a_peer_acknowledges() {
    let mut run = run(backoff());
    run.refuses = Box::new(|nth| nth < 6);
    run.step(&frame(&Bytes::from_static(b"a"), true), true, Duration::ZERO);
    let mut pauses = Vec::new();
    while run.heard.is_empty() {
        let pause = run.sender.next_timeout().unwrap() - run.now;
        pauses.push(pause.as_millis());
        run.pass(pause);
    }
    assert_eq!(pauses, [200, 400, 800, 1600, 3000, 3000]);
}

#[test]
fn an_optional_upstream_that_is_given_up_leaves_the_others_alone() {
    let mut run = run(Settings { reconnect: Reconnect::Never, ..Settings::new() });
    run.specs.push(UpstreamSpec { required: false, ..UpstreamSpec::new("opt") });
    run.peer = Box::new(|heard, _| match heard.upstream {
        1 => vec![Act::Close],
        _ if heard.end => vec![ack(heard, heard.frames), Act::Close],
        _ => vec![],
    });
    let media = frame(&Bytes::from_static(b"a"), true);
    (0..5).for_each(|_| run.step(&media, true, Duration::from_millis(40)));
    assert_eq!((run.session_dropped, run.sender.state()), (None, State::Active));
    run.end(Reason::Close);
    assert_eq!(run.heard[0].frames, 5);
    assert_eq!(run.unpublished.map(|(_, reason)| reason), Some(Reason::Close));
}

#[test]
fn v28_an_upstream_can_be_added_and_removed() {
    let mut run = run(Settings::strict());
    let media = frame(&Bytes::from_static(b"a"), true);
    run.peer = Box::new(
        |heard, _| if heard.frames == 3 && heard.upstream == 0 { vec![ack(heard, 2)] } else { vec![] },
    );
    (0..4).for_each(|_| run.step(&media, true, Duration::from_secs(1)));
    assert_eq!(run.sender.add_upstream(UpstreamSpec::new("more"), Some(UpstreamKey(9)), run.now), None);
    let more = run.sender.add_upstream(UpstreamSpec::new("more"), None, run.now).unwrap();
    run.settle();
    assert_eq!((run.heard[1].first_id, run.heard[1].frames), (1002, 2));
    assert!(run.sender.remove_upstream(UpstreamKey(0)) && !run.sender.remove_upstream(UpstreamKey(0)));
    run.step(&media, true, Duration::from_secs(1));
    assert_eq!((run.heard[0].frames, run.heard[1].frames, run.heard[1].end), (4, 3, false));
    assert!(run.sender.remove_upstream(more));
    run.settle();
    assert_eq!((run.sender.state(), run.session_dropped), (State::Inactive, None));
    run.end(Reason::Close);
    assert_eq!(run.unpublished.map(|(_, reason)| reason), Some(Reason::Close));
}

#[test]
fn memory_is_let_go_on_the_upstream_furthest_behind_up_to_a_keyframe() {
    let keep = Keep::Memory(Memory::of(40 * 1040));
    let mut run = run(Settings { keep, end_patience: None, ..backoff() });
    run.specs.push(UpstreamSpec::new("away"));
    run.refuses = Box::new(|nth| nth != 0);
    run.peer = Box::new(|heard, _| vec![ack(heard, heard.frames)]);
    let payload = Bytes::from(vec![0; 1000]);
    for index in 0..100 {
        run.step(&frame(&payload, index % 7 == 0), true, Duration::from_millis(40));
    }
    let away = run.sender.upstreams().nth(1).map(|view| (view.acked_id, view.totals.auto_acked_frames));
    let (acked_id, auto_acked) = away.unwrap();
    assert_eq!((acked_id - 1000) % 7, 0, "goes on at a keyframe");
    assert_eq!(acked_id - 1000, auto_acked);
    assert!(100 - auto_acked <= 30 && 100 - auto_acked >= 13, "{auto_acked}");
    let acknowledged: u64 =
        run.settled.iter().filter(|settled| settled.2 == Fate::Acknowledged).map(|s| s.1 - s.0).sum();
    assert_eq!((run.heard[0].frames, acknowledged, run.heard.len()), (100, 100, 1));
}

#[test]
fn frames_that_were_let_go_and_are_acknowledged_after_all_count_as_delivered() {
    let mut run = run(Settings { keep: Keep::Memory(Memory::of(20 * 140)), ..backoff() });
    let media = frame(&Bytes::from(vec![0; 100]), true);
    run.peer = Box::new(|heard, _| if heard.frames == 40 { vec![ack(heard, 40)] } else { vec![] });
    (0..40).for_each(|_| run.step(&media, true, Duration::from_millis(40)));
    assert!(run.sender.upstreams().next().unwrap().totals.auto_acked_frames > 10);
    assert_eq!(run.settled, [(1000, 1040, Fate::Acknowledged)]);
}

#[test]
fn without_room_for_one_frame_the_track_fails_without_an_end() {
    let mut run = run(Settings { keep: Keep::Memory(Memory::of(1000)), ..Settings::strict() });
    run.sender = Sender::new(Settings { keep: Keep::Memory(Memory::of(1000)), ..Settings::new() }, 1);
    let now = run.now;
    let (_, packet) = frame(&Bytes::from(vec![0; 2000]), true);
    run.sender.push(None, packet, true, now);
    assert_eq!(run.sender.poll_output(), Some(Output::AskPublish));
    assert_eq!(run.sender.poll_output(), Some(Output::DropSession(Reason::NoMemory)));
    run.end(Reason::Disconnect);
    assert_eq!(run.unpublished.map(|(_, reason)| reason), Some(Reason::NoMemory));
}

#[test]
fn nothing_is_lost_while_the_answer_takes_its_time() {
    let mut sender = Sender::new(Settings::strict(), 1000);
    let now = super::now();
    let media = frame(&Bytes::from_static(b"a"), true);
    let ids: Vec<_> = (0..50).filter_map(|_| sender.push(None, media.1.clone(), true, now)).collect();
    assert_eq!((ids.first(), ids.last()), (Some(&1000), Some(&1049)));
    assert_eq!(sender.poll_output(), Some(Output::AskPublish));
    assert_eq!((sender.poll_output(), sender.state()), (None, State::Asking));
    let name = Name::new("x").unwrap();
    sender.published(name, name, vec![UpstreamSpec::new("u")], now);
    assert_eq!(sender.upstreams().next().map(|view| view.acked_id), Some(1000));
    sender.end(Reason::Close, now);
    assert_eq!(sender.next_id(), 1050);

    // A question that is still open at the end is cancelled, and what waited for it is lost.
    let mut sender = Sender::new(Settings::strict(), 1000);
    sender.push(None, media.1, true, now);
    sender.end(Reason::Close, now);
    assert_eq!(sender.poll_output(), Some(Output::AskPublish));
    assert_eq!(sender.poll_output(), Some(Output::AskUnpublish(Reason::Close)));
}

#[test]
fn v19_a_refused_question_ends_the_session() {
    let mut run = run(Settings { flush_timeout: Duration::ZERO, ..Settings::strict() });
    let media = frame(&Bytes::from_static(b"a"), true);
    run.peer = Box::new(|_, _| vec![Act::Close]);
    run.answer = Box::new(|_| None);
    run.step(&media, true, Duration::from_millis(40));
    run.step(&media, true, Duration::from_millis(40));
    assert_eq!(run.asks.len(), 1);
    run.sender.republish_failed(UpstreamKey(0));
    run.settle();
    assert_eq!(run.session_dropped, Some(Reason::UpstreamError));
}

/// Thirty frames of 40 bytes and what follows, a keyframe first of each ten; the first ten were read, sent and are not
/// acknowledged, the next ten are gone from what is kept.
fn before_a_gap() -> (Sender, UpstreamKey, Instant) {
    let now = super::now();
    let mut sender =
        Sender::new(Settings { keep: Keep::Backlog { window_bytes: 2_000 }, ..backoff() }, 1_000);
    let payload = Bytes::from(vec![0; 100]);
    let kept = |number: u64| Kept {
        kind: PacketKind::Frame,
        keyframe: number.is_multiple_of(10),
        wire: frame(&payload, number.is_multiple_of(10)).1,
    };
    for number in 0..30 {
        let Kept { wire, keyframe, .. } = kept(number);
        sender.push(None, wire, keyframe, now);
    }
    let name = Name::new("x").unwrap();
    sender.published(name, name, vec![UpstreamSpec::new("u")], now);
    let key = sender.upstreams().next().unwrap().key;
    sender.connected(key, now);
    write_all(&mut sender, key, now);
    let asked = outputs(&mut sender).into_iter().find_map(|output| match output {
        Output::Fetch { from_id } => Some(from_id),
        _ => None,
    });
    let from_id = asked.unwrap();
    assert!(from_id > 1_010, "the window has the first ten");
    // The frames in between are gone, too.
    sender.loaded(from_id, 1_020, None, (20..30).map(kept).collect(), now);
    (sender, key, now)
}

fn outputs(sender: &mut Sender) -> Vec<Output> {
    std::iter::from_fn(|| sender.poll_output()).collect()
}

fn write_all(sender: &mut Sender, key: UpstreamKey, now: Instant) {
    while sender.has_pending(key) {
        let mut slices = [IoSlice::new(&[]); 64];
        let used = sender.slices(key, &mut slices);
        let len = slices[..used].iter().map(|slice| slice.len()).sum();
        sender.written(key, len, now);
    }
}

fn settled(outputs: &[Output]) -> Vec<(u64, u64, Fate)> {
    let settled = outputs.iter().filter_map(|output| match output {
        Output::Settled { from_id, to_id, fate, .. } => Some((*from_id, *to_id, *fate)),
        _ => None,
    });
    settled.collect()
}

#[test]
fn a_connection_waits_for_the_acks_of_what_stands_before_a_gap() {
    let (mut sender, key, now) = before_a_gap();
    let sent_id = sender.upstreams().next().unwrap().handed_id;
    assert_eq!(settled(&outputs(&mut sender)), []);
    assert_eq!(sender.next_timeout(), Some(now + Duration::from_secs(5)), "only the sign of life is due");
    let ack = |frame_id| Ack { frame_id, upstream_frame_id: 0, offset: 0 };
    sender.acked(key, &ack(sent_id - 1), now);
    assert_eq!(outputs(&mut sender), [settled_as(key, 1_000, sent_id - 1, Fate::Acknowledged)]);
    sender.acked(key, &ack(sent_id), now);
    let told = outputs(&mut sender);
    assert_eq!(settled(&told), [(sent_id - 1, sent_id, Fate::Acknowledged)]);
    assert!(told.contains(&Output::Fetch { from_id: sent_id }), "{told:?}");
    // All before the gap is acknowledged: it goes on behind it, on a new connection.
    sender.loaded(sent_id, 1_020, None, Vec::new(), now);
    let told = outputs(&mut sender);
    assert_eq!(settled(&told), [(sent_id, 1_020, Fate::Lost(Cause::Backlog))]);
    assert!(told.contains(&Output::Close(key)));
}

#[test]
fn a_connection_does_not_wait_for_ever_for_the_acks_before_a_gap() {
    let (mut sender, key, now) = before_a_gap();
    let sent_id = sender.upstreams().next().unwrap().handed_id;
    outputs(&mut sender);
    let late = now + Duration::from_secs(10);
    sender.handle_timeout(late - Duration::from_millis(1));
    assert_eq!(settled(&outputs(&mut sender)), []);
    write_all(&mut sender, key, late);
    sender.handle_timeout(late);
    assert!(outputs(&mut sender).contains(&Output::Fetch { from_id: sent_id }));
    sender.loaded(sent_id, 1_020, None, Vec::new(), late);
    // What a socket had may have arrived; what none had has not.
    let told = settled(&outputs(&mut sender));
    let expected =
        [(1_000, sent_id, Fate::Unconfirmed(Cause::Backlog)), (sent_id, 1_020, Fate::Lost(Cause::Backlog))];
    assert_eq!(told, expected);
}

fn settled_as(upstream: UpstreamKey, from_id: u64, to_id: u64, fate: Fate) -> Output {
    Output::Settled { upstream, from_id, to_id, fate }
}

#[test]
fn after_a_backlog_has_dropped_everything_a_keyframe_is_waited_for() {
    let now = super::now();
    let mut sender =
        Sender::new(Settings { keep: Keep::Backlog { window_bytes: 10_000 }, ..backoff() }, 1_000);
    let payload = Bytes::from(vec![0; 100]);
    let push = |sender: &mut Sender, number: u64| {
        let keyframe = number.is_multiple_of(10);
        let header = (number == 0).then(|| super::random::info(7));
        sender.push(header, frame(&payload, keyframe).1, keyframe, now);
    };
    (0..14).for_each(|number| push(&mut sender, number));
    let name = Name::new("x").unwrap();
    sender.published(name, name, vec![UpstreamSpec::new("u")], now);
    let key = sender.upstreams().next().unwrap().key;
    // The budget is smaller than the GOP.
    sender.dropped(1_014, None, now);
    assert_eq!(settled(&outputs(&mut sender)), [(1_000, 1_014, Fate::Lost(Cause::Backlog))]);
    sender.handle_timeout(now);
    sender.connected(key, now);
    (14..20).for_each(|number| push(&mut sender, number));
    let headless: Vec<_> = (1_014..1_020).map(|id| (id, id + 1, Fate::Lost(Cause::Headless))).collect();
    assert_eq!(settled(&outputs(&mut sender)), headless);
    assert!(!sender.has_pending(key), "nothing is said before there is something to begin with");
    push(&mut sender, 20);
    let mut slices = [IoSlice::new(&[]); 8];
    assert!(sender.slices(key, &mut slices) > 0);
    let connect = slices[0].to_vec();
    assert_eq!(u64::from_le_bytes(connect[80..88].try_into().unwrap()), 1_020);
    assert_eq!(slices[1].to_vec(), super::random::info(7).head, "the header was dropped with the rest");
}
