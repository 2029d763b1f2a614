use super::*;
use TrackKind::{Audio, Video};
use fieldgate_media::{Codec, TrackId, UnitHead};

const WAIT: Duration = Duration::from_secs(5);

struct Rig {
    merge: Merge,
    now: Instant,
    is_paced: bool,
}

impl Rig {
    fn new() -> Rig {
        let now = Instant::now();
        Rig { merge: Merge::new(WAIT, 10, now), now, is_paced: false }
    }

    fn push(&mut self, kind: TrackKind, millis: impl IntoIterator<Item = i64>) {
        for millis in millis {
            let dts = Ticks::from_millis(millis);
            let track = if kind == Video { TrackId::VIDEO } else { TrackId::AUDIO };
            let (pts, source_dts, source_pts) = (dts, dts, dts);
            let head = UnitHead { track, dts, pts, source_dts, source_pts, keyframe: true, captured: None };
            self.merge.push(kind, FrameRef::default(), Draft::copied(head, b"unit"), self.now);
        }
    }

    /// What goes out now: `v` or `a`, the time in milliseconds, `!` if it is late, the epoch if it is not the first.
    fn out(&mut self) -> String {
        let mut out = Vec::new();
        loop {
            if !self.is_paced {
                self.merge.pace.newest = None;
            }
            let (kind, waiting, late) = match self.merge.next(self.now) {
                Next::Publish(kind, waiting) => (kind, waiting, ""),
                Next::Late(kind, waiting) => (kind, waiting, "!"),
                Next::WaitUntil(when) => {
                    assert!(when > self.now);
                    break;
                }
                Next::Empty => break,
            };
            let epoch = if waiting.epoch == 0 { String::new() } else { format!("@{}", waiting.epoch) };
            let letter = if kind == Video { "v" } else { "a" };
            out.push(format!("{letter}{}{late}{epoch}", waiting.draft.head.dts.as_millis()));
        }
        out.join(" ")
    }

    fn later(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// Both tracks have been there.
    fn begun() -> Rig {
        let mut rig = Rig::new();
        rig.push(Video, [0]);
        rig.push(Audio, [0]);
        assert_eq!(rig.out(), "v0 a0");
        rig
    }
}

#[test]
fn both_tracks_go_out_in_order_of_time() {
    let mut rig = Rig::new();
    rig.push(Video, [0, 1000, 2000]);
    rig.push(Audio, [10, 990, 1010, 2500]);
    assert_eq!(rig.out(), "v0 a10 a990 v1000 a1010 v2000 a2500");
}

#[test]
fn a_track_alone_at_the_start_waits_a_little_and_then_not_any_more() {
    let mut rig = Rig::new();
    rig.push(Video, [0, 40]);
    assert_eq!(rig.out(), "");
    rig.later(1_999);
    assert_eq!(rig.out(), "");
    rig.later(1);
    assert_eq!(rig.out(), "v0 v40");
    rig.push(Video, [80]);
    assert_eq!(rig.out(), "v80");
}

#[test]
fn what_is_little_ahead_of_the_other_track_goes_out_at_once() {
    let mut rig = Rig::begun();
    rig.push(Audio, [480, 500, 520]);
    assert_eq!(rig.out(), "a480 a500");
    rig.push(Video, [1000]);
    assert_eq!(rig.out(), "a520 v1000");
}

#[test]
fn a_track_that_stays_away_is_waited_for_once() {
    let mut rig = Rig::begun();
    rig.push(Video, [2000, 2040]);
    assert_eq!(rig.out(), "");
    rig.later(4_999);
    assert_eq!(rig.out(), "");
    rig.later(1);
    assert_eq!(rig.out(), "v2000 v2040");
    rig.push(Video, [4000]);
    assert_eq!(rig.out(), "v4000");
    // It is back: now it is waited for again.
    rig.push(Audio, [4000]);
    rig.push(Video, [6000]);
    assert_eq!(rig.out(), "a4000");
}

#[test]
fn a_track_that_has_ended_is_not_waited_for() {
    let mut rig = Rig::begun();
    rig.merge.end(Audio);
    rig.push(Video, [2000]);
    assert_eq!(rig.out(), "v2000");
}

#[test]
fn backlogs_that_come_one_after_the_other_are_put_in_order() {
    let mut rig = Rig::begun();
    rig.merge.begin(Video, true);
    rig.push(Video, (1..=60).map(|n| n * 1000));
    assert_eq!(rig.out(), "");
    rig.later(3_000);
    rig.merge.begin(Audio, true);
    rig.push(Audio, (1..=60).map(|n| n * 1000 + 1));
    let expected: Vec<String> = (1..=60).map(|n| format!("v{} a{}", n * 1000, n * 1000 + 1)).collect();
    assert_eq!(rig.out(), expected.join(" "));
}

#[test]
fn what_comes_far_behind_the_other_track_is_left_out_and_its_header_is_not() {
    let mut rig = Rig::begun();
    rig.push(Video, [1000, 20_000]);
    rig.later(5_000);
    assert_eq!(rig.out(), "v1000 v20000");
    let track = Track::new(TrackId::AUDIO, Codec::Aac, bytes::Bytes::new());
    rig.merge.track(Audio, track.clone(), false);
    rig.push(Audio, [17_400, 17_450]);
    rig.push(Audio, [17_500]);
    let mut told = Vec::new();
    while let Next::Publish(_, waiting) | Next::Late(_, waiting) = rig.merge.next(rig.now) {
        told.push((waiting.draft.head.dts.as_millis(), waiting.track));
    }
    assert_eq!(told.last(), Some(&(17_500, Some((track, false)))));
}

#[test]
fn a_new_session_is_an_epoch_that_both_tracks_enter() {
    let mut rig = Rig::begun();
    rig.push(Video, [100_000]);
    rig.push(Audio, [100_000]);
    assert_eq!(rig.out(), "v100000 a100000");
    rig.merge.begin(Video, false);
    rig.push(Video, [0, 40]);
    rig.push(Audio, [100_020]);
    assert_eq!(rig.out(), "a100020");
    rig.merge.begin(Audio, false);
    rig.push(Audio, [20]);
    assert_eq!(rig.out(), "v0@1 a20@1 v40@1");
    rig.merge.begin(Audio, false);
    rig.push(Audio, [0]);
    rig.push(Video, [80]);
    assert_eq!(rig.out(), "v80@1");
    rig.later(5_000);
    assert_eq!(rig.out(), "a0@2");
}

#[test]
fn ids_that_do_not_join_are_no_new_session_if_the_times_go_on() {
    let mut rig = Rig::begun();
    rig.merge.begin(Video, false);
    rig.push(Video, [20_000]);
    rig.merge.begin(Audio, false);
    rig.push(Audio, [20_000]);
    assert_eq!(rig.out(), "v20000 a20000");
}

#[test]
fn a_backlog_is_taken_in_no_faster_than_allowed_and_live_is_not_held_up() {
    let mut rig = Rig::new();
    rig.is_paced = true;
    rig.merge.end(Audio);
    rig.push(Video, (0..=60).map(|n| n * 500));
    let mut went = rig.out().split(' ').count();
    assert_eq!(went, 5, "two seconds at once");
    let mut passed = 0;
    while went < 61 {
        rig.later(10);
        passed += 10;
        went += rig.out().split_whitespace().count();
    }
    assert!((2_700..3_000).contains(&passed), "28 s at ten times their pace took {passed} ms");
    for n in 0..100 {
        rig.later(40);
        rig.push(Video, [30_000 + n * 40]);
        assert_ne!(rig.out(), "");
    }
    // A jump of the source is no backlog.
    rig.push(Video, [5_000_000]);
    assert_eq!(rig.out(), "v5000000");
}

#[test]
fn a_lane_has_a_bound() {
    let mut rig = Rig::begun();
    rig.push(Video, (0..MAX_LANE_UNITS as i64).map(|n| 10_000 + n));
    assert!(!rig.merge.has_room(Video) && rig.merge.has_room(Audio));
    rig.later(5_000);
    rig.out();
    assert!(rig.merge.has_room(Video) && rig.merge.is_empty(Video));
    rig.push(Video, [20_000]);
    rig.merge.clear();
    assert!(rig.merge.is_empty(Video));
}
