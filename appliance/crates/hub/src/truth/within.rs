//! Each fault is named within half a minute, with the default settings, watched as the gateway watches: a round a second,
//! and a decoded keyframe's figures a second after they were asked for.

use super::*;
use bytes::Bytes;
use fieldgate_media::{Track, TrackId, Unit};

const WITHIN: Duration = Duration::from_secs(30);
const PICTURE: Duration = Duration::from_millis(100);
/// The camera is good for about so long before its fault.
const GOOD_FOR: u64 = 40;

/// What a camera shows at a moment.
#[derive(Clone, Copy, Debug)]
enum Shown {
    /// This picture, with these figures.
    Picture(u64, Look),
    SoundAlone,
    Nothing,
}

fn sharp() -> Look {
    Look { mean: 110.0, deviation: 40.0, structure: 30.0, edges: 0.2, sharpness: 0.6, ..Look::default() }
}

/// A camera with a fault from some moment on; the fault's moment, and when which verdicts were said.
struct Take {
    began: Instant,
    said: Vec<(Instant, Verdict, Instant)>,
}

/// `gop`: seconds from keyframe to keyframe. `phase`: the fault begins so many pictures later. `fault`: what is shown
/// `n` pictures after that.
fn film(gop: u64, phase: u64, fault: impl Fn(u64) -> Shown) -> Take {
    let start = Instant::now();
    let tap = Tap::new(start);
    tap.set(Settings::default(), true, start);
    tap.begin(start);
    let track = |id, codec| Track::new(id, codec, Bytes::new());
    tap.tracks(&Tracks::new(vec![track(TrackId::VIDEO, Codec::H264), track(TrackId::AUDIO, Codec::PcmA)]));
    let (from, each) = (GOOD_FOR * 10 + phase, gop * 10);
    let mut take = Take { began: start + PICTURE * u32::try_from(from).unwrap(), said: Vec::new() };
    let mut figures = sharp();
    let mut asked: Option<(Keyframe, Look, Instant)> = None;
    for n in 0..from + 450 {
        let now = start + PICTURE * u32::try_from(n).unwrap();
        let dts = Ticks::from_millis(i64::try_from(n * 100).unwrap());
        let shown = match n.checked_sub(from) {
            None => Shown::Picture(n, sharp()),
            Some(after) => fault(after),
        };
        let unit = |track, keyframe, payload: Vec<u8>| {
            let head =
                UnitHead { track, dts, pts: dts, source_dts: dts, source_pts: dts, keyframe, captured: None };
            Unit { head, payload: payload.into() }
        };
        if let Shown::Picture(content, look) = shown {
            if n % each == 0 {
                let payload = keyframe(content);
                let own =
                    if look.fingerprint == 0 { digest(Codec::H264, &payload) } else { look.fingerprint };
                figures = Look { fingerprint: own, ..look };
                tap.unit(&unit(TrackId::VIDEO, true, payload), now);
            } else {
                tap.unit(&unit(TrackId::VIDEO, false, vec![1; 40]), now);
            }
        }
        if !matches!(shown, Shown::Nothing) {
            tap.unit(&unit(TrackId::AUDIO, true, vec![0; 80]), now);
        }
        if n % 10 == 3 {
            if let Some((keyframe, look, _)) = asked.take_if(|(.., at)| now - *at >= Duration::from_secs(1)) {
                tap.on_look(&keyframe, &look, now);
            }
            if let (Some(finding), true) = tap.assess(now) {
                take.said.push((now, finding.verdict, finding.since));
            }
            if let Some(keyframe) = tap.keyframe_to_look_at(now) {
                asked = Some((keyframe, figures, now));
            }
        }
    }
    take
}

/// One slice of bytes that are the picture's.
fn keyframe(content: u64) -> Vec<u8> {
    let mut byte = content * 2 + 1;
    let body = (0..2_000).map(|_| {
        byte = byte.wrapping_mul(6364136223846793005).wrapping_add(1);
        (byte >> 40) as u8
    });
    let nal: Vec<u8> = [0x65, 0x88].into_iter().chain(body).collect();
    [&u32::try_from(nal.len()).unwrap().to_be_bytes()[..], &nal].concat()
}

/// For keyframes a second, two, five and eight apart, and faults that begin at any moment between two of them.
fn assert_named(verdict: Verdict, fault: impl Fn(u64) -> Shown) {
    let mut slowest = Duration::ZERO;
    for gop in [1, 2, 5, 8] {
        for phase in (0..160).step_by(13) {
            let take = film(gop, phase, &fault);
            let before = take.said.iter().filter(|(at, ..)| *at < take.began);
            assert!(before.clone().all(|(_, said, _)| *said == Verdict::Ok), "{:?}", take.said);
            let named = take.said.iter().find(|(at, said, _)| *at >= take.began && *said != Verdict::Ok);
            let (at, said, since) = named.unwrap_or_else(|| panic!("{gop} {phase}: never {verdict:?}"));
            assert_eq!(*said, verdict, "{gop} {phase}: {:?}", take.said);
            assert!(*since >= take.began - Duration::from_secs(1), "a fault is not older than it is");
            slowest = slowest.max(*at - take.began);
        }
    }
    assert!(slowest <= WITHIN, "{verdict:?} after {slowest:?}");
}

#[test]
fn dead_is_named_within_half_a_minute() {
    assert_named(Verdict::Dead, |_| Shown::Nothing);
}

#[test]
fn audio_only_is_named_within_half_a_minute() {
    assert_named(Verdict::AudioOnly, |_| Shown::SoundAlone);
}

#[test]
fn frozen_is_named_within_half_a_minute() {
    assert_named(Verdict::Frozen, |_| Shown::Picture(7, sharp()));
    // Coded to other bytes each time, but decoded to the same picture.
    let same = Look { fingerprint: 9, ..sharp() };
    assert_named(Verdict::Frozen, |n| Shown::Picture(1_000_000 + n, same));
}

#[test]
fn black_is_named_within_half_a_minute() {
    let black = Look { mean: 16.0, black: 1.0, ..Look::default() };
    assert_named(Verdict::Black, |_| Shown::Picture(7, black));
}

#[test]
fn covered_and_out_of_focus_are_named_within_half_a_minute() {
    let covered = Look { mean: 90.0, deviation: 6.0, structure: 1.0, ..Look::default() };
    let blurred = Look { mean: 90.0, structure: 30.0, sharpness: 0.1, edges: 0.02, ..Look::default() };
    assert_named(Verdict::Covered, |n| Shown::Picture(1_000_000 + n, covered));
    assert_named(Verdict::OutOfFocus, |n| Shown::Picture(1_000_000 + n, blurred));
}

/// From the moment on that something comes for the second time.
#[test]
fn a_repeated_group_is_named_within_half_a_minute() {
    for gop in [1_u64, 2, 5, 8] {
        let round = gop * 20;
        let take = film(gop, 0, |n| match n % round < gop * 10 {
            true => Shown::Picture(1_000_000, sharp()),
            false => Shown::Picture(2_000_000, sharp()),
        });
        let again = take.began + PICTURE * u32::try_from(round).unwrap();
        let named = take.said.iter().find(|(_, said, _)| *said != Verdict::Ok);
        let (at, said, _) = named.unwrap_or_else(|| panic!("{gop}: never named"));
        assert!(matches!(said, Verdict::Repeating | Verdict::Frozen), "{gop}: {:?}", take.said);
        assert!(*at <= again + WITHIN, "{gop}: after {:?}", *at - again);
    }
}
