//! The promises of the link: what goes in comes out, and no bound can be broken from the other end.

use super::*;
use bytes::Bytes;
use fieldgate_media::{
    Captured, ClockSource, Codec, Draft, HEADROOM, Ticks, Track, TrackId, Tracks, UnitHead,
};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

#[allow(clippy::disallowed_methods, reason = "tests start their time somewhere")]
fn now() -> Instant {
    Instant::now()
}

fn unit_head(dts: i64, keyframe: bool) -> UnitHead {
    UnitHead {
        track: TrackId::VIDEO,
        dts: Ticks::new(dts),
        pts: Ticks::new(dts + 3000),
        source_dts: Ticks::new(dts - 7),
        source_pts: Ticks::new(dts + 3000),
        keyframe,
        captured: Some(Captured { unix_micros: 1_700_000_000_000_000 + dts, by: ClockSource::Camera }),
    }
}

fn audio_head(dts: i64) -> UnitHead {
    UnitHead { track: TrackId::AUDIO, captured: None, ..unit_head(dts, true) }
}

fn tracks() -> Tracks {
    let mut video = Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(b"\x01avcC"));
    video.video = fieldgate_media::VideoShape { width: 1280, height: 720, frame_rate: 30.0 };
    let mut audio = Track::new(TrackId::AUDIO, Codec::Aac, Bytes::from_static(b"\x11\x90"));
    audio.audio = fieldgate_media::AudioShape { sample_rate: 48_000, channels: 2 };
    Tracks::new(vec![video, audio])
}

fn outbox() -> Outbox<Vec<u8>> {
    let mut outbox = Outbox::new(OutboxBound { bytes: 10_000, units: 8, control: 4 });
    outbox.push_tracks(&tracks());
    outbox
}

/// All that waits, as bytes.
fn drain(outbox: &mut Outbox<Vec<u8>>) -> Vec<u8> {
    let mut wire = Vec::new();
    while let Some(sending) = outbox.sending() {
        let (head, body) = (sending.head.to_vec(), sending.body.to_vec());
        wire.extend_from_slice(&head);
        wire.extend_from_slice(&body);
        outbox.advance(head.len() + body.len());
    }
    wire
}

/// Feeds bytes in pieces of `step`, as a socket would.
fn feed(inbound: &mut Inbound, mut wire: &[u8], step: usize, now: Instant) -> Result<Vec<Frame>, LinkError> {
    use bytes::BufMut;
    let mut frames = Vec::new();
    loop {
        while let Some(frame) = inbound.poll_frame(now)? {
            frames.push(frame);
        }
        if wire.is_empty() {
            return Ok(frames);
        }
        let mut room = inbound.room();
        let n = step.min(wire.len()).min(room.remaining_mut());
        assert!(n > 0, "no room although no frame is whole");
        room.put_slice(&wire[..n]);
        wire = &wire[n..];
    }
}

fn units(frames: &[Frame]) -> Vec<&Draft> {
    frames.iter().filter_map(|f| if let Frame::Unit(draft) = f { Some(draft) } else { None }).collect()
}

#[test]
fn what_a_worker_sends_arrives_however_it_is_cut() {
    let mut outbox = outbox();
    assert!(outbox.push_unit(&unit_head(90, true), vec![7; 3000]));
    assert!(outbox.push_unit(&audio_head(95), vec![8; 11]));
    assert!(outbox.push_unit(&unit_head(3090, false), Vec::new()));
    outbox.push_log(LogLevel::Warn, "two\nlines");
    outbox.push_status(Bytes::from_static(b"{}"));
    outbox.push_pulse();
    let wire = drain(&mut outbox);
    for step in [1, 7, 39, 40, 41, 3000, 100_000] {
        let mut inbound = Inbound::from_worker(Limits::CAMERA);
        let frames = feed(&mut inbound, &wire, step, now()).unwrap();
        assert!(!inbound.is_inside_frame());
        assert!(matches!(&frames[0], Frame::Tracks(got) if *got == tracks()));
        let units = units(&frames);
        assert_eq!(
            units.iter().map(|u| u.head).collect::<Vec<_>>(),
            [unit_head(90, true), audio_head(95), unit_head(3090, false)]
        );
        assert_eq!(units[0].payload(), vec![7; 3000]);
        assert_eq!(units[1].payload(), vec![8; 11]);
        assert!(matches!(&frames[4], Frame::Log(LogLevel::Warn, line) if line == "two lines"));
        assert!(matches!(&frames[5], Frame::Status(bytes) if &bytes[..] == b"{}"));
        let Frame::Health(health) = frames[6] else { panic!("no health") };
        assert_eq!((health.dropped_units, health.queued_bytes), (0, 3011));
    }
}

#[test]
fn a_payload_is_received_in_place_behind_its_headroom() {
    let mut outbox = outbox();
    outbox.push_unit(&unit_head(0, true), vec![1; 64]);
    let mut inbound = Inbound::from_worker(Limits::CAMERA);
    let mut frames = feed(&mut inbound, &drain(&mut outbox), usize::MAX, now()).unwrap();
    let Some(Frame::Unit(draft)) = frames.pop() else { panic!("no unit") };
    let at = draft.payload().as_ptr();
    let (unit, wire) = draft.finish(|_| HEADROOM);
    assert_eq!(unit.payload.as_ptr(), at);
    assert_eq!(wire.len(), HEADROOM + 64);
}

fn refused(wire: &[u8]) -> LinkError {
    let mut inbound = Inbound::from_worker(Limits::CAMERA);
    feed(&mut inbound, wire, usize::MAX, now()).unwrap_err()
}

#[test]
fn a_head_that_says_four_gigabytes_is_refused_before_its_body() {
    let mut wire = drain(&mut outbox());
    let mut head = Head::unit(&unit_head(0, true), 5).unwrap().encode();
    head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    wire.extend_from_slice(&head);
    assert!(matches!(
        refused(&wire),
        LinkError::TooLong { kind: Kind::Unit, len: 0xffff_ffff, max: UNIT_MAX }
    ));
}

#[test]
fn lengths_are_taken_up_to_their_limit_and_not_one_byte_past_it() {
    assert!(Head::unit(&unit_head(0, true), UNIT_MAX).is_some());
    assert!(Head::unit(&unit_head(0, true), UNIT_MAX + 1).is_none());
    for (kind, len, fits) in [
        (Kind::Status, CONTROL_MAX, true),
        (Kind::Status, CONTROL_MAX + 1, false),
        (Kind::Health, 0, true),
        (Kind::Health, 1, false),
    ] {
        let mut head = Head::control(kind, 0).unwrap().encode();
        head[4..8].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        let mut inbound = Inbound::from_worker(Limits::CAMERA);
        assert_eq!(feed(&mut inbound, &head, 40, now()).is_ok(), fits, "{kind:?} {len}");
    }
}

#[test]
fn unknown_kinds_versions_tracks_and_directions_are_refused() {
    let pulse = Head::health(&Health::default()).encode();
    let with = |at: usize, byte: u8| {
        let mut head = pulse;
        head[at] = byte;
        head
    };
    assert!(matches!(refused(&with(0, 99)), LinkError::UnknownKind(99)));
    assert!(matches!(refused(&with(3, 2)), LinkError::UnknownVersion(2)));
    assert!(matches!(refused(&with(0, 16)), LinkError::WrongWay(Kind::Command)));
    let unit = Head::unit(&unit_head(0, true), 0).unwrap().encode();
    assert!(matches!(refused(&unit), LinkError::UnknownTrack(0)));
    let mut inbound = Inbound::from_gateway();
    let error = feed(&mut inbound, &pulse, 40, now()).unwrap_err();
    assert!(matches!(error, LinkError::WrongWay(Kind::Health)));
}

#[test]
fn time_that_goes_back_within_a_track_is_refused_even_across_new_tracks() {
    let mut outbox = outbox();
    outbox.push_unit(&unit_head(5000, true), vec![0]);
    let audio = tracks().get(TrackId::AUDIO).unwrap().clone();
    let video = tracks().get(TrackId::VIDEO).unwrap().clone();
    outbox.push_tracks(&Tracks::new(vec![audio, video]));
    outbox.push_unit(&audio_head(10), vec![0]);
    outbox.push_unit(&unit_head(4999, true), vec![0]);
    let error = refused(&drain(&mut outbox));
    assert!(matches!(error, LinkError::Backwards { track: 0, .. }), "{error}");
}

#[test]
fn a_flood_of_units_bytes_or_control_is_stopped() {
    let at = now();
    let limits = Limits { units_per_second: 10, unit_bytes_per_second: 1000, control_per_second: 5 };
    let run = |wire: &[u8], times: usize| {
        let mut inbound = Inbound::from_worker(limits);
        feed(&mut inbound, &drain(&mut outbox()), 4096, at).unwrap();
        (0..times).find_map(|_| feed(&mut inbound, wire, 4096, at).err())
    };
    let unit = |len: usize| {
        let mut wire = Head::unit(&unit_head(0, true), len).unwrap().encode().to_vec();
        wire.resize(HEAD_LEN + len, 0);
        wire
    };
    assert!(run(&unit(1), 20).is_none());
    assert!(matches!(run(&unit(1), 21), Some(LinkError::TooFast { what: "units", limit: 10 })));
    assert!(run(&unit(1000), 2).is_none());
    assert!(matches!(run(&unit(1000), 3), Some(LinkError::TooFast { what: "unit bytes", .. })));
    let pulse = Head::health(&Health::default()).encode();
    assert!(matches!(run(&pulse, 10), Some(LinkError::TooFast { what: "control frames", .. })));
}

#[test]
fn a_slow_gateway_makes_video_restart_at_a_keyframe_and_is_told() {
    let mut outbox = outbox();
    assert!(!outbox.push_unit(&unit_head(0, false), vec![0; 10]), "nothing before the first keyframe");
    for n in 0..8 {
        assert!(outbox.push_unit(&unit_head(n, n == 0), vec![0; 10]));
    }
    assert!(!outbox.push_unit(&unit_head(8, false), vec![0; 10]), "the ninth does not fit");
    assert!(!outbox.push_unit(&unit_head(9, false), vec![0; 10]), "and its GOP is lost");
    assert!(outbox.push_unit(&audio_head(9), vec![1; 10]), "sound goes on");
    assert!(outbox.push_unit(&unit_head(10, true), vec![2; 10]));
    let counters = outbox.counters();
    assert_eq!((counters.dropped_units, counters.unusable_units), (10, 1));
    let mut inbound = Inbound::from_worker(Limits::CAMERA);
    let frames = feed(&mut inbound, &drain(&mut outbox), 4096, now()).unwrap();
    assert!(matches!(frames[0], Frame::Tracks(_)), "tracks survive the drop");
    assert_eq!(units(&frames).iter().map(|u| u.head.dts.get()).collect::<Vec<_>>(), [9, 10]);
    assert_eq!(outbox.counters().queued_bytes, 0);
    assert_eq!(outbox.counters().sent_units, 2);
}

#[test]
fn a_frame_that_is_half_sent_is_never_dropped() {
    let mut outbox = outbox();
    drain(&mut outbox);
    outbox.push_unit(&unit_head(0, true), vec![5; 100]);
    outbox.advance(60);
    for n in 1..30 {
        outbox.push_unit(&unit_head(n, n % 4 == 0), vec![6; 100]);
        outbox.push_pulse();
    }
    let first = outbox.sending().unwrap();
    assert!(first.head.is_empty());
    assert_eq!(first.body, [5; 80]);
}

#[test]
fn waiting_control_frames_are_bounded_and_the_newest_stay() {
    let mut outbox = outbox();
    drain(&mut outbox);
    for n in 0..50 {
        outbox.push_status(Bytes::from(format!("{n}")));
    }
    let mut inbound = Inbound::from_worker(Limits::CAMERA);
    let frames = feed(&mut inbound, &drain(&mut outbox), 4096, now()).unwrap();
    assert_eq!(frames.len(), 4);
    assert!(matches!(&frames[3], Frame::Status(bytes) if &bytes[..] == b"49"));
    assert!(!outbox.push_status(Bytes::from(vec![0; CONTROL_MAX + 1])));
}

#[test]
fn mutated_bytes_never_panic_and_never_ask_for_more_than_a_unit() {
    let mut outbox = outbox();
    outbox.push_unit(&unit_head(0, true), vec![9; 300]);
    outbox.push_pulse();
    outbox.push_status(Bytes::from_static(b"{\"a\":1}"));
    let good = drain(&mut outbox);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let at = now();
    for _ in 0..20_000 {
        let mut wire = good.clone();
        for _ in 0..=next() % 4 {
            let at = usize::try_from(next()).unwrap() % wire.len();
            wire[at] = u8::try_from(next() & 0xff).unwrap();
        }
        let mut inbound = Inbound::from_worker(Limits::CAMERA);
        let _ = feed(&mut inbound, &wire, usize::try_from(next() % 64 + 1).unwrap(), at);
        assert!(bytes::BufMut::remaining_mut(&inbound.room()) <= UNIT_MAX + HEAD_LEN);
    }
}

#[test]
fn tracks_with_too_many_twins_or_unknown_codecs_are_refused() {
    let good = encode_tracks(&tracks());
    assert_eq!(decode_tracks(&good).unwrap(), tracks());
    for cut in 0..good.len() {
        assert!(decode_tracks(&good.slice(..cut)).is_err(), "cut at {cut}");
    }
    let change = |at: usize, byte: u8| {
        let mut body = good.to_vec();
        body[at] = byte;
        decode_tracks(&Bytes::from(body)).unwrap_err()
    };
    assert_eq!(change(0, 9), TracksError::TooMany(9));
    assert_eq!(change(3, b'x'), TracksError::Codec(0));
    let one = Track::new(TrackId(3), Codec::Opus, Bytes::new());
    let twins = encode_tracks(&Tracks::new(vec![one.clone(), one]));
    assert_eq!(decode_tracks(&twins), Err(TracksError::Twice(3)));
}

#[tokio::test]
async fn frames_and_commands_pass_a_real_socket_pair() {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let (mut from_worker, mut to_worker) = ours.into_split();
    let mut outbox = outbox();
    for n in 0..5 {
        outbox.push_unit(&unit_head(n * 3000, n == 0), vec![3; 1500]);
    }
    let wire = drain(&mut outbox);
    let (mut commands, mut out) = theirs.into_split();
    let send = async {
        out.write_all(&wire).await.unwrap();
        let mut inbound = Inbound::from_gateway();
        let frame = read_frame(&mut commands, &mut inbound, now).await.unwrap();
        assert!(matches!(frame, Frame::Command(bytes) if &bytes[..] == b"stop"));
        out.write_all(&[1; 20]).await.unwrap();
        drop((commands, out));
    };
    let receive = async {
        let feeder = Feeder::default();
        assert!(feeder.command(Bytes::from_static(b"stop")));
        assert!(!feeder.command(Bytes::from(vec![0; CONTROL_MAX + 1])));
        let sending = async {
            let _ = feeder.send(&mut to_worker).await;
            std::future::pending::<()>().await;
        };
        tokio::pin!(sending);
        let mut inbound = Inbound::from_worker(Limits::CAMERA);
        let mut seen = 0;
        loop {
            let frame = tokio::select! {
                frame = read_frame(&mut from_worker, &mut inbound, now) => frame,
                () = &mut sending => continue,
            };
            match frame {
                Ok(Frame::Unit(draft)) => {
                    assert_eq!(draft.payload().len(), 1500);
                    seen += 1;
                }
                Ok(_) => {}
                Err(LinkError::Closed { in_frame }) => return (seen, in_frame),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let both = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(send, receive) }).await;
    assert_eq!(both.unwrap().1, (5, true));
}

#[tokio::test]
async fn asks_and_answers_may_be_as_long_as_a_unit_with_its_header() {
    let feeder = Feeder::default();
    let ask = Bytes::from(vec![7; ASK_MAX]);
    assert!(feeder.ask(ask.clone()));
    assert!(!feeder.ask(Bytes::from(vec![7; ASK_MAX + 1])));
    let taken = fed(&feeder, 64 << 10).await;
    assert!(matches!(&taken[..], [Frame::Ask(bytes)] if *bytes == ask));

    let mut outbox = outbox();
    assert!(outbox.push_answer(Bytes::from(vec![9; ASK_MAX])));
    assert!(!outbox.push_answer(Bytes::from(vec![9; ASK_MAX + 1])));
    let wire = drain(&mut outbox);
    let frames = feed(&mut Inbound::from_worker(Limits::CAMERA), &wire, 9_000, now()).unwrap();
    assert!(matches!(frames.last(), Some(Frame::Answer(bytes)) if bytes.len() == ASK_MAX));
    // Each only in its own direction.
    let backwards = feed(&mut Inbound::from_gateway(), &wire, 9_000, now()).unwrap_err();
    assert!(matches!(backwards, LinkError::WrongWay(Kind::Answer)));
}

/// Everything that a worker would read until the feeder has nothing left; cut into writes of at most `piece` bytes.
async fn fed(feeder: &Feeder, piece: usize) -> Vec<Frame> {
    let (mut ours, mut theirs) = tokio::io::duplex(piece);
    let mut inbound = Inbound::from_gateway();
    let mut frames = Vec::new();
    loop {
        tokio::select! {
            biased;
            _ = feeder.send(&mut ours) => panic!("the feeder ended"),
            frame = read_frame(&mut theirs, &mut inbound, now) => frames.push(frame.unwrap()),
            () = tokio::task::yield_now(), if !feeder.progress().1 && !inbound.is_inside_frame() => break,
        }
    }
    // What the pipe still holds.
    drop(ours);
    while let Ok(frame) = read_frame(&mut theirs, &mut inbound, now).await {
        frames.push(frame);
    }
    frames
}

#[tokio::test]
async fn a_worker_gets_tracks_units_and_commands_whole_and_in_order() {
    let feeder = Feeder::default();
    assert!(!feeder.unit(&unit_head(0, true), Bytes::from_static(&[1; 9])), "no tracks yet");
    feeder.tracks(&tracks());
    assert!(!feeder.unit(&unit_head(0, false), Bytes::from_static(&[1; 9])), "video begins with a keyframe");
    for n in 0..4 {
        assert!(feeder.unit(&unit_head(n * 3000, n == 0), Bytes::from(vec![n as u8; 700])));
    }
    assert!(feeder.command(Bytes::from_static(b"one")));
    assert!(feeder.command(Bytes::from_static(b"two")));
    let frames = fed(&feeder, 64).await;
    assert!(
        matches!(&frames[..2], [Frame::Command(a), Frame::Command(b)] if &a[..] == b"one" && &b[..] == b"two")
    );
    assert!(matches!(&frames[2], Frame::Tracks(seen) if *seen == tracks()));
    let units: Vec<u8> = frames[3..]
        .iter()
        .map(|frame| match frame {
            Frame::Unit(unit) => {
                assert_eq!(unit.payload().len(), 700);
                unit.payload()[0]
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(units, [0, 1, 2, 3]);
    assert_eq!(feeder.counters().sent_units, 4);
}

#[tokio::test]
async fn a_worker_that_takes_units_too_slowly_misses_up_to_a_keyframe_and_it_is_counted() {
    let feeder = Feeder::new(OutboxBound { bytes: 10_000, units: 8, control: 4 });
    feeder.tracks(&tracks());
    let taken: Vec<bool> = (0..20)
        .map(|n| feeder.unit(&unit_head(n * 3000, n % 10 == 0), Bytes::from(vec![n as u8; 100])))
        .collect();
    assert!(taken[..8].iter().all(|taken| *taken));
    assert!(!taken[8] && !taken[9], "after the drop video waits for a keyframe");
    assert!(taken[10..18].iter().all(|taken| *taken));
    assert!(feeder.command(Bytes::from_static(b"stop")));
    let frames = fed(&feeder, 4096).await;
    let Some(Frame::Command(_)) = frames.first() else { panic!("commands overtake: {frames:?}") };
    let health = feeder.counters();
    assert_eq!((health.dropped_units, health.sent_units), (20 - health.sent_units, health.sent_units));
}

#[test]
fn commands_wait_only_in_a_number_that_a_live_worker_takes() {
    let feeder = Feeder::default();
    let taken = (0..100).filter(|_| feeder.command(Bytes::from_static(b"x"))).count();
    assert_eq!(taken, 64);
}
