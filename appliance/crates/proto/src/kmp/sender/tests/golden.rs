//! The recorded cases: with the same input and the same receivers every connection has the recorded bytes. Only what the
//! channel and track are called is taken from the recording.

use super::super::*;
use super::harness::{Act, Heard, Recorded, Run, ack, cut};

const FAST: Duration = Duration::from_millis(20);
const VIDEO: Duration = Duration::from_millis(66);
const AUDIO: Duration = Duration::from_millis(23);

/// The settings of the recordings, where nothing else is said.
fn fast(is_video: bool) -> Settings {
    Settings {
        flush_timeout: FAST,
        block_bytes: if is_video { 64 << 10 } else { 4 << 10 },
        keep: Keep::Memory(Memory::of(if is_video { 48 << 20 } else { 1 << 20 })),
        reconnect: Reconnect::Ask { interval: Duration::from_millis(300), max: 3 },
        ..Settings::strict()
    }
}

struct Case {
    recorded: Recorded,
    run: Run,
    period: Duration,
    next: usize,
}

impl Case {
    fn new(case: &str, track: &str) -> Case {
        let recorded = Recorded::load(case, track);
        let run = Run::new(fast(recorded.is_video), recorded.first_id);
        let period = if recorded.is_video { VIDEO } else { AUDIO };
        Case { recorded, run, period, next: 0 }
    }

    /// Pushes the next `count` frames.
    fn push(&mut self, count: usize) {
        for step in &self.recorded.steps[self.next..self.next + count] {
            self.run.step(step, self.recorded.is_video, self.period);
        }
        self.next += count;
    }

    fn push_all(&mut self) {
        self.push(self.recorded.steps.len() - self.next);
    }

    /// All frames, then the end.
    fn play(&mut self) {
        self.push_all();
        self.run.end(Reason::Close);
    }

    /// What receivers of an upstream heard, each connection with the names of the recording.
    fn heard(&self, upstream: u32) -> Vec<Vec<u8>> {
        let names = &self.recorded.connections["main"].first().map(|first| first[16..80].to_vec());
        let heard = self.run.heard.iter().filter(|heard| heard.upstream == upstream);
        heard
            .map(|heard| {
                let mut bytes = heard.bytes.clone();
                bytes[16..80].copy_from_slice(names.as_ref().unwrap());
                bytes
            })
            .collect()
    }

    #[track_caller]
    fn assert_as_recorded(&self, upstream: u32, name: &str) {
        let (ours, theirs) = (self.heard(upstream), &self.recorded.connections[name]);
        assert_eq!(ours.len(), theirs.len(), "connections");
        for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
            assert_eq!(ours.len(), theirs.len(), "bytes of connection {}", number + 1);
            assert!(ours == theirs, "connection {}", number + 1);
        }
    }
}

/// Acknowledges every frame and closes at the end.
fn good(heard: &Heard) -> Vec<Act> {
    let mut acts = vec![ack(heard, heard.frames)];
    if heard.end {
        acts.push(Act::Close);
    }
    acts
}

fn each_track(case: &str, check: impl Fn(Case)) {
    ["v1", "a1"].into_iter().for_each(|track| check(Case::new(case, track)));
}

#[test]
fn v03_a_partial_ack_moves_the_resumption_and_its_fields_come_back() {
    each_track("03_reconnect_partial_ack", |mut case| {
        let mut acked = false;
        case.run.peer = Box::new(move |heard, nth| match (nth, heard.frames) {
            (0, 10) if !acked => {
                acked = true;
                let frame_id = heard.first_id + 10;
                vec![Act::Ack(Ack { frame_id, upstream_frame_id: 777, offset: 55 })]
            }
            (0, 20) => vec![Act::Close],
            (0, _) => vec![],
            _ => good(heard),
        });
        case.play();
        case.assert_as_recorded(0, "main");
        assert_eq!(case.run.unpublished.map(|(_, reason)| reason), Some(Reason::Close));
        let settled: u64 = case.run.settled.iter().map(|(from, to, _)| to - from).sum();
        assert_eq!(settled, case.recorded.steps.len() as u64);
        assert!(case.run.settled.iter().all(|(_, _, fate)| *fate == Fate::Acknowledged));
    });
}

#[test]
fn v04_without_an_ack_everything_comes_again() {
    each_track("04_reconnect_no_ack", |mut case| {
        case.run.peer = Box::new(|heard, nth| match (nth, heard.frames) {
            (0, 20) => vec![Act::Close],
            (0, _) => vec![],
            _ => good(heard),
        });
        case.play();
        case.assert_as_recorded(0, "main");
    });
}

#[test]
fn v07_two_upstreams_and_one_goes_on_behind_the_last_packet_sent() {
    each_track("07_two_upstreams_last_sent_connect_data", |mut case| {
        let data = Bytes::copy_from_slice(&case.recorded.connections["opt"][0][104..119]);
        case.run.specs.push(UpstreamSpec {
            required: false,
            resume_from: ResumeFrom::LastSent,
            connect_data: data,
            ..UpstreamSpec::new("opt")
        });
        case.run.answer = Box::new(|_| Some(Some(Bytes::from_static(b"second"))));
        case.run.peer = Box::new(|heard, nth| match (heard.upstream, nth, heard.frames) {
            (0, ..) => good(heard),
            (_, 0, 15) => vec![Act::StopReading],
            _ if heard.end => vec![Act::Close],
            _ => vec![],
        });
        // What the kernel took before it knew that the peer was gone is lost, and counts as sent.
        let first_id = |n: usize| super::harness::first_id(&cut(&case.recorded.connections["opt"][n])[0]);
        case.push((first_id(1) - first_id(0)) as usize);
        let deaf = case.run.heard.iter().position(|heard| heard.upstream == 1).unwrap();
        case.run.close(deaf);
        case.play();
        case.assert_as_recorded(0, "main");
        case.assert_as_recorded(1, "opt");
        assert!(case.run.unpublished.is_some());
    });
}

#[test]
fn v15_unpublish_waits_until_the_receiver_closes() {
    each_track("15_eost_then_close_after_3s", |mut case| {
        case.play();
        case.assert_as_recorded(0, "main");
        let ended = case.run.at();
        case.run.pass(Duration::from_secs(3));
        assert_eq!(case.run.unpublished, None);
        assert_eq!(case.run.sender.next_timeout(), None, "the reference has no timer here");
        case.run.close(0);
        assert_eq!(case.run.unpublished, Some((ended + Duration::from_secs(3), Reason::Close)));
    });
}

#[test]
fn v15_unless_strict_the_wait_is_bounded() {
    let mut case = Case::new("15_eost_then_close_after_3s", "v1");
    case.run.sender =
        Sender::new(Settings { flush_timeout: FAST, ..Settings::new() }, case.recorded.first_id);
    case.play();
    case.run.pass(Duration::from_secs(60));
    assert_eq!(case.run.unpublished.map(|(_, reason)| reason), Some(Reason::Close));
    assert_eq!(
        case.run.settled.last().map(|settled| settled.2),
        Some(Fate::Unconfirmed(Cause::Unacknowledged))
    );
}

#[test]
fn v18_without_upstreams_frames_are_left_out_and_the_end_is_told() {
    let steps = Recorded::load("03_reconnect_partial_ack", "v1");
    let mut run = Run::new(fast(true), steps.first_id);
    run.specs.clear();
    for step in &steps.steps {
        run.step(step, true, VIDEO);
    }
    assert_eq!((run.sender.state(), run.sender.held_bytes(), run.dials), (State::Inactive, 0, 0));
    assert_eq!((run.session_dropped, run.unpublished), (None, None));
    run.end(Reason::Close);
    assert_eq!(run.unpublished.map(|(_, reason)| reason), Some(Reason::Close));
}

#[test]
fn v20_a_refused_first_connection_is_asked_for_at_once() {
    each_track("20_upstream_connect_refused_then_republish", |mut case| {
        case.run.refuses = Box::new(|nth| nth == 0);
        case.run.peer = Box::new(|heard, _| good(heard));
        case.play();
        case.assert_as_recorded(0, "main");
        assert_eq!(case.run.asks, [Duration::ZERO]);
    });
}

#[test]
fn v21_idle_upstreams_are_asked_for_on_every_flush() {
    each_track("21_republish_no_limit_when_idle", |mut case| {
        case.run.peer = Box::new(|heard, _| if heard.frames >= 3 { vec![Act::Close] } else { vec![] });
        case.push_all();
        // The recorded receiver took some milliseconds to close; each connection is the whole queue so far.
        let longest = case.recorded.connections["main"].last().cloned().unwrap_or_default();
        let heard = case.heard(0);
        assert_eq!(heard.len(), 1 + case.recorded.steps.len() - 3);
        for (number, heard) in heard.iter().enumerate() {
            assert_eq!(case.run.heard[number].frames as usize, number + 3);
            assert!(longest.starts_with(heard), "connection {number}");
        }
        for recorded in &case.recorded.connections["main"] {
            assert!(heard.last().is_some_and(|all| all.len() >= recorded.len() || longest == *recorded));
        }
        let span = case.run.asks.last().unwrap().saturating_sub(case.run.asks[0]);
        assert!(case.run.asks.len() as u32 > 2 * (1 + span.as_millis() as u32 / 300), "{:?}", case.run.asks);
        assert_eq!(case.run.session_dropped, None);
    });
}

#[test]
fn v21_unless_strict_every_question_keeps_the_interval() {
    let mut case = Case::new("03_reconnect_partial_ack", "a1");
    let settings = Settings { strict: false, flush_timeout: Duration::ZERO, ..fast(false) };
    case.run.sender = Sender::new(settings, case.recorded.first_id);
    case.run.peer = Box::new(|heard, _| if heard.frames >= 3 { vec![Act::Close] } else { vec![] });
    case.push_all();
    assert!(case.run.asks.len() > 3);
    assert!(case.run.asks.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(300)));
    assert_eq!(case.run.session_dropped, None, "a receiver that takes data is not given up");
}

#[test]
fn v22_an_ack_beyond_what_was_sent_kills_the_upstream() {
    let mut case = Case::new("22_bad_ack_beyond_sent", "a1");
    case.run.peer = Box::new(|heard, _| if heard.frames == 5 { vec![ack(heard, 1000)] } else { vec![] });
    case.play();
    case.assert_as_recorded(0, "main");
    assert_eq!(case.run.asks, []);
    assert_eq!(case.run.session_dropped, Some(Reason::UpstreamError));
    assert_eq!(case.run.unpublished.map(|(_, reason)| reason), Some(Reason::UpstreamError));

    // Its sister ends with the session.
    let mut case = Case::new("22_bad_ack_beyond_sent", "v1");
    case.run.peer = Box::new(|heard, _| if heard.end { vec![Act::Close] } else { vec![] });
    case.push_all();
    case.run.end(Reason::Disconnect);
    case.assert_as_recorded(0, "main");
    assert_eq!(case.run.unpublished.map(|(_, reason)| reason), Some(Reason::Disconnect));
}

#[test]
fn v22_an_ack_of_the_frame_under_way_is_beyond_too() {
    let mut case = Case::new("22_bad_ack_beyond_sent", "a1");
    case.run.peer = Box::new(|heard, _| vec![ack(heard, heard.frames)]);
    case.push(4);
    assert_eq!(case.run.session_dropped, None);
    case.run.peer = Box::new(|heard, _| vec![ack(heard, heard.frames + 1)]);
    case.push(1);
    assert_eq!(case.run.session_dropped, Some(Reason::UpstreamError));
}

#[test]
fn v23_last_written_skips_what_came_while_disconnected() {
    each_track("23_resume_last_written", |mut case| {
        case.run.specs[0].resume_from = ResumeFrom::LastWritten;
        case.run.peer = Box::new(|heard, nth| match (nth, heard.frames) {
            (0, 15) => vec![Act::Close],
            _ if heard.end => vec![Act::Close],
            _ => vec![],
        });
        case.run.answer = Box::new(|_| None);
        let resumed = super::harness::first_id(&cut(&case.recorded.connections["main"][1])[0]);
        // The recording has no frames of the gap: any will do.
        let gap = (resumed - case.recorded.first_id) as usize - 15;
        assert!(gap > 0);
        case.push(15);
        let filler = (None, case.recorded.steps[14].1.clone());
        for _ in 0..gap {
            case.run.step(&filler, case.recorded.is_video, case.period);
        }
        case.run.answer_waiting();
        case.play();
        case.assert_as_recorded(0, "main");
        let skipped: u64 =
            case.run.settled.iter().filter(|s| s.2 == Fate::Lost(Cause::Skipped)).map(|s| s.1 - s.0).sum();
        assert_eq!(skipped as usize, gap);
    });
}

#[test]
fn v24_short_of_memory_the_sender_acknowledges_for_itself() {
    let mut case = Case::new("24_mem_watermark_auto_ack", "v1");
    let settings = Settings { block_bytes: 4 << 10, keep: Keep::Memory(Memory::of(64 << 10)), ..fast(true) };
    case.run.sender = Sender::new(settings, case.recorded.first_id);
    case.run.peer = Box::new(|heard, nth| match (nth, heard.frames) {
        (0, 300) => vec![Act::Close],
        _ if heard.end => vec![Act::Close],
        _ => vec![],
    });
    let mut auto_acked = 0;
    while case.next < case.recorded.steps.len() {
        case.push(1);
        let view = case.run.sender.upstreams().next().map(|view| view.totals.auto_acked_frames);
        auto_acked = view.unwrap_or(auto_acked);
        assert!(case.run.sender.free_bytes().unwrap_or(0) >= 16 << 10, "over the high watermark");
    }
    case.run.end(Reason::Close);
    let heard = case.heard(0);
    assert_eq!(heard.len(), 2);
    assert!(heard[0] == case.recorded.connections["main"][0]);
    // Where exactly the second begins depends on the reference's bookkeeping and on the moment of the close.
    let (begins, recorded) = (case.run.heard[1].first_id, &case.recorded.connections["main"][1]);
    let at = (begins - case.recorded.first_id) as usize;
    assert!(at > 100 && at < 300, "{at}");
    assert!(auto_acked >= at as u64);
    let packets = cut(&heard[1]);
    let theirs = cut(recorded);
    assert_eq!(packets[1], theirs[1], "the last acknowledged header comes first");
    let same = packets.len().min(theirs.len()) - 2;
    assert!(
        packets[packets.len() - same..] == theirs[theirs.len() - same..],
        "then the same frames and the end"
    );
    let lost = case.run.settled.iter().find(|settled| settled.2 == Fate::Unconfirmed(Cause::Memory));
    assert_eq!(lost, Some(&(case.recorded.first_id, begins, Fate::Unconfirmed(Cause::Memory))));
}

#[test]
fn v30_questions_keep_the_interval_and_end_after_the_maximum() {
    let mut case = Case::new("30_republish_limit", "a1");
    case.run.refuses = Box::new(|nth| nth > 0);
    case.run.peer = Box::new(|heard, _| if heard.frames == 5 { vec![Act::Close] } else { vec![] });
    case.push_all();
    let filler = (None, case.recorded.steps[4].1.clone());
    for _ in 0..60 {
        case.run.step(&filler, false, AUDIO);
    }
    case.assert_as_recorded(0, "main");
    let pauses: Vec<_> = case.run.asks.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [Duration::from_millis(300); 3]);
    assert_eq!(case.run.session_dropped, Some(Reason::UpstreamError));
    case.run.end(Reason::Disconnect);
    assert_eq!(case.run.unpublished.map(|(_, reason)| reason), Some(Reason::UpstreamError));
}

#[test]
fn v30_a_question_that_is_due_is_still_asked_after_the_end() {
    let mut case = Case::new("30_republish_limit", "v1");
    case.run.refuses = Box::new(|nth| nth > 0);
    case.run.peer = Box::new(|heard, _| if heard.frames == 5 { vec![Act::Close] } else { vec![] });
    case.push_all();
    let filler = (None, case.recorded.steps[4].1.clone());
    case.run.step(&filler, true, VIDEO);
    assert_eq!(case.run.asks.len(), 1);
    case.run.end(Reason::Disconnect);
    assert_eq!(case.run.unpublished, None);
    case.run.pass(Duration::from_secs(1));
    assert_eq!(case.run.asks.len(), 2);
    assert_eq!(case.run.unpublished, Some((case.run.asks[1], Reason::Disconnect)));
}

#[test]
fn v31_the_old_header_comes_before_the_new_one() {
    let mut case = Case::new("31_reconnect_at_header_change", "v1");
    let mut acked = false;
    case.run.peer = Box::new(move |heard, nth| match (nth, heard.frames) {
        (0, 30) if !acked => {
            acked = true;
            vec![ack(heard, 30)]
        }
        (0, 40) => vec![Act::Close],
        (0, _) => vec![],
        _ => good(heard),
    });
    case.play();
    case.assert_as_recorded(0, "main");
}

#[test]
fn v32_an_ack_of_nothing_new_still_brings_its_fields_back() {
    each_track("32_ack_same_id_offset_only", |mut case| {
        let mut acked = false;
        case.run.peer = Box::new(move |heard, nth| match (nth, heard.frames) {
            (0, 3) if !acked => {
                acked = true;
                vec![Act::Ack(Ack { frame_id: heard.first_id, upstream_frame_id: 5, offset: 123 })]
            }
            (0, 6) => vec![Act::Close],
            (0, _) => vec![],
            _ => good(heard),
        });
        case.play();
        case.assert_as_recorded(0, "main");
    });
}

#[test]
fn v33_a_malformed_ack_closes_and_asks() {
    each_track("33_ack_with_long_header", |mut case| {
        case.run.peer = Box::new(|heard, nth| match (nth, heard.frames) {
            (0, 3) => vec![Act::Garbage],
            (0, _) => vec![],
            _ => good(heard),
        });
        case.play();
        case.assert_as_recorded(0, "main");
        assert_eq!(case.run.asks.len(), 1);
        assert_eq!(case.run.session_dropped, None);
    });
}

#[test]
fn v40_silence_asks_for_nothing_and_the_end_does() {
    each_track("40_close_after_last_frame_then_end", |mut case| {
        let frames = case.recorded.steps.len() as u64;
        case.run.peer = Box::new(move |heard, nth| match nth {
            0 if heard.frames == frames => vec![Act::Close],
            0 => vec![],
            _ => good(heard),
        });
        case.push_all();
        case.run.pass(Duration::from_millis(1500));
        assert_eq!(case.run.asks, []);
        case.run.end(Reason::Close);
        case.assert_as_recorded(0, "main");
        assert_eq!(case.run.asks.len(), 1);
        assert!(case.run.unpublished.is_some());
    });
}

#[test]
fn v40_unless_strict_silence_does_not_keep_the_upstream_away() {
    let mut case = Case::new("40_close_after_last_frame_then_end", "v1");
    let settings = Settings { strict: false, flush_timeout: Duration::ZERO, ..fast(true) };
    case.run.sender = Sender::new(settings, case.recorded.first_id);
    let frames = case.recorded.steps.len() as u64;
    case.run.peer = Box::new(move |heard, nth| match nth {
        0 if heard.frames == frames => vec![Act::Close],
        0 => vec![],
        _ => good(heard),
    });
    case.push_all();
    case.run.pass(Duration::from_millis(1500));
    assert_eq!(case.run.heard.len(), 2);
    assert_eq!(case.run.heard[1].frames, frames);
}
