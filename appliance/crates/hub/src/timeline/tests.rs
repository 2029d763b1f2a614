use super::*;

fn unit(track: TrackId, millis: i64, composition_millis: i64) -> UnitHead {
    let dts = Ticks::from_millis(millis);
    let pts = dts + Ticks::from_millis(composition_millis);
    UnitHead { track, dts, pts, source_dts: dts, source_pts: pts, keyframe: true, captured: None }
}

fn clean(timeline: &mut Timeline, mut head: UnitHead, now: Instant) -> (i64, i64) {
    timeline.clean(&mut head, now);
    (head.dts.as_millis(), head.pts.as_millis())
}

fn camera() -> Timeline {
    let mut timeline = Timeline::default();
    timeline.set_pace(Pace::Arrival);
    timeline
}

#[test]
fn a_well_behaved_source_is_passed_unchanged() {
    let (mut timeline, now) = (Timeline::default(), Instant::now());
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 1000, 80), now), (1000, 1080));
    assert_eq!(clean(&mut timeline, unit(TrackId::AUDIO, 980, 0), now), (980, 980));
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 1040, 0), now), (1040, 1040));
    assert_eq!(timeline.jumps(), 0);
}

#[test]
fn what_the_source_said_stays_as_it_was() {
    let (mut timeline, now) = (Timeline::default(), Instant::now());
    let mut head = unit(TrackId::VIDEO, -10, -40);
    timeline.clean(&mut head, now);
    assert_eq!((head.dts.as_millis(), head.pts.as_millis()), (200, 200));
    assert_eq!((head.source_dts.as_millis(), head.source_pts.as_millis()), (-10, -50));
}

#[test]
fn a_source_that_begins_below_zero_is_moved_above_it_with_both_tracks() {
    let (mut timeline, now) = (Timeline::default(), Instant::now());
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, -10, 80), now), (200, 280));
    assert_eq!(clean(&mut timeline, unit(TrackId::AUDIO, -21, 0), now), (189, 189));
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 30, 0), now), (240, 240));
    assert_eq!(timeline.jumps(), 0);
}

#[test]
fn a_reconnected_source_continues_after_the_time_that_passed() {
    let (mut timeline, now) = (Timeline::default(), Instant::now());
    clean(&mut timeline, unit(TrackId::VIDEO, 5000, 0), now);
    clean(&mut timeline, unit(TrackId::AUDIO, 4990, 0), now);
    timeline.restart();
    let later = now + Duration::from_millis(700);
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 0, 20), later), (5700, 5720));
    // One offset for both tracks: 20 ms between them stay 20 ms.
    assert_eq!(clean(&mut timeline, unit(TrackId::AUDIO, 20, 0), later), (5720, 5720));
    assert_eq!(timeline.jumps(), 0);
}

#[test]
fn a_source_that_resumes_keeps_its_times() {
    let (mut timeline, now) = (Timeline::default(), Instant::now());
    clean(&mut timeline, unit(TrackId::VIDEO, 5000, 0), now);
    timeline.restart();
    timeline.resume();
    let later = now + Duration::from_secs(60);
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 5040, 0), later), (5040, 5040));
}

#[test]
fn small_steps_back_are_held_and_large_ones_are_a_new_origin() {
    let (mut timeline, now) = (Timeline::default(), Instant::now());
    clean(&mut timeline, unit(TrackId::VIDEO, 10_000, 0), now);
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 9_990, 0), now), (10_000, 10_000));
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 0, 0), now), (10_040, 10_040));
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 40, 0), now), (10_080, 10_080));
    assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, 37_600_000, 0), now), (10_120, 10_120));
    assert_eq!(timeline.jumps(), 2);
}

#[test]
fn a_stream_that_comes_faster_than_life_is_believed() {
    let (mut timeline, now) = (Timeline::default(), Instant::now());
    for second in 0..3_600 {
        assert_eq!(clean(&mut timeline, unit(TrackId::VIDEO, second * 1_000, 0), now).0, second * 1_000);
    }
    assert_eq!(timeline.jumps(), 0);
}

/// A camera with picture and sound, and what the timeline made of it.
struct Scene {
    timeline: Timeline,
    start: Instant,
    /// Real time, milliseconds.
    now: i64,
    /// Per track: (arrival, out), milliseconds.
    seen: [Vec<(i64, f64)>; 2],
}

impl Scene {
    fn new() -> Scene {
        Scene { timeline: camera(), start: Instant::now(), now: 0, seen: [Vec::new(), Vec::new()] }
    }

    fn take(&mut self, track: TrackId, at: i64, source_millis: i64) {
        self.now = at;
        let now = self.start + Duration::from_millis(u64::try_from(at).unwrap());
        let mut head = unit(track, source_millis, 0);
        self.timeline.clean(&mut head, now);
        #[expect(clippy::cast_precision_loss)]
        self.seen[usize::from(track.0 != TrackId::VIDEO.0)].push((at, head.dts.get() as f64 / 90.0));
    }

    /// Picture and sound 25 times a second, times by these clocks, from now on.
    fn run(&mut self, seconds: i64, video: impl Fn(i64) -> i64, audio: impl Fn(i64) -> i64) {
        let from = self.now + 40;
        for n in 0..seconds * 25 {
            let at = from + n * 40;
            self.take(TrackId::VIDEO, at, video(at));
            self.take(TrackId::AUDIO, at, audio(at));
        }
    }

    fn check(&self, step_max: f64) {
        for track in &self.seen {
            for pair in track.windows(2) {
                let (passed, step) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
                assert!(step > 0.0, "{pair:?}");
                #[expect(clippy::cast_precision_loss)]
                let most = step_max.max(passed as f64 * 2.0);
                assert!(step <= most, "{pair:?}: a step of {step} ms");
            }
        }
    }

    /// Sound minus picture of what arrived last together.
    fn skew(&self) -> f64 {
        self.seen[1].last().unwrap().1 - self.seen[0].last().unwrap().1
    }

    /// How much more the last `millis` took on the timeline than they did.
    #[expect(clippy::cast_precision_loss)]
    fn error_over(&self, millis: i64) -> f64 {
        let last = *self.seen[0].last().unwrap();
        let first = *self.seen[0].iter().find(|(at, _)| last.0 - at <= millis).unwrap();
        (last.1 - first.1) - (last.0 - first.0) as f64
    }
}

#[test]
fn jumps_resets_and_wraps_of_the_cameras_clock_do_not_show() {
    let wrap_90_khz = (1_i64 << 32) / 90;
    for (name, before, after) in [
        ("+37,600 s", 0, 37_600_000),
        ("-9,800 s", 9_800_000 + 5_000, 5_000),
        ("reset to zero", 60_000, 0),
        ("32-bit wrap at 90 kHz, 13 hours", wrap_90_khz, 0),
        ("32-bit wrap of milliseconds", 1_i64 << 32, 0),
    ] {
        let mut scene = Scene::new();
        scene.run(30, |at| at + before, |at| at + before + 17);
        let jump = scene.now;
        scene.run(30, |at| at - jump + after, |at| at - jump + after + 17);
        scene.check(80.0);
        assert!((scene.skew() - 17.0).abs() < 0.1, "{name}: {}", scene.skew());
        assert!(scene.error_over(59_000).abs() < 41.0, "{name}");
        assert_eq!(scene.timeline.jumps(), 2, "{name}");
    }
}

#[test]
fn a_jump_of_one_track_before_the_other_is_one_jump() {
    let mut scene = Scene::new();
    scene.run(10, |at| at, |at| at);
    scene.run(2, |at| at + 37_600_000, |at| at);
    scene.run(10, |at| at + 37_600_000, |at| at + 37_600_000);
    scene.check(80.0);
    assert!(scene.skew().abs() < 0.1, "{}", scene.skew());
    assert_eq!(scene.timeline.jumps(), 2);
}

#[test]
fn a_track_that_jumps_alone_stays_with_the_other() {
    let mut scene = Scene::new();
    scene.run(10, |at| at, |at| at);
    scene.run(30, |at| at - 9_000, |at| at);
    scene.check(80.0);
    assert!(scene.skew().abs() <= 41.0, "{}", scene.skew());
}

#[test]
fn a_lying_frame_rate_is_found_out() {
    // Times as of 25 pictures a second, while 15 come, and the other way round; the sound is honest.
    for (percent, limit) in [(167, 120_000), (60, 120_000)] {
        let mut scene = Scene::new();
        scene.run(limit / 1000, |at| at * percent / 100, |at| at);
        scene.check(120.0);
        assert!(scene.skew().abs() < 600.0, "{percent} %: {}", scene.skew());
        assert!(scene.error_over(20_000).abs() < 600.0, "{percent} %: {}", scene.error_over(20_000));
        assert_eq!(scene.timeline.jumps(), 0);
    }
}

#[test]
fn a_clock_that_stands_is_replaced_by_arrival() {
    let mut scene = Scene::new();
    scene.run(60, |_| 1_234, |at| at);
    scene.check(1_100.0);
    assert!(scene.error_over(50_000).abs() < 50.0, "{}", scene.error_over(50_000));
    assert!(scene.skew().abs() < 2_000.0, "{}", scene.skew());
}

#[test]
fn a_clock_that_drifts_is_kept_near() {
    // 500 ppm, for two hours.
    let mut scene = Scene::new();
    scene.run(2 * 3600, |at| at + at / 2_000, |at| at);
    scene.check(80.0);
    assert!(scene.skew().abs() < 700.0, "{}", scene.skew());
}

#[test]
fn bursts_and_stalls_are_no_reason_to_move_anything() {
    let mut scene = Scene::new();
    let mut source = 0;
    for round in 0..40 {
        // Five seconds' worth at once, every five seconds; every tenth time ten seconds late.
        let at = round * 5_000 + if round % 10 == 9 { 10_000 } else { 0 };
        for _ in 0..125 {
            scene.take(TrackId::VIDEO, at.max(scene.now), source);
            source += 40;
        }
    }
    let outs: Vec<f64> = scene.seen[0].iter().map(|(_, out)| *out).collect();
    assert!(outs.windows(2).all(|pair| (pair[1] - pair[0] - 40.0).abs() < 0.1));
    assert_eq!(scene.timeline.jumps(), 0);
}

#[test]
fn a_picture_every_five_seconds_is_a_stream() {
    let mut scene = Scene::new();
    for n in 0..200 {
        scene.take(TrackId::VIDEO, n * 5_000, n * 5_000 + n % 3);
    }
    scene.check(5_010.0);
    assert_eq!((scene.timeline.jumps(), scene.error_over(900_000).abs() < 20.0), (0, true));
}

#[test]
fn whatever_a_camera_says_times_rise_by_bounded_steps() {
    for seed in 1..150_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: i64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            i64::try_from(state >> 1).unwrap() % below
        };
        let mut scene = Scene::new();
        let mut clocks = [random(1 << 40), random(1 << 40)];
        for _ in 0..2_000 {
            let at = scene.now + [0, 20, 40, 40, 40, random(3_000)][usize::try_from(random(6)).unwrap()];
            let which = usize::try_from(random(2)).unwrap();
            clocks[which] += match random(60) {
                0 => random(1 << 33) - (1 << 32),
                1 => -random(400),
                2 => 0,
                3 => random(20_000),
                _ => 40,
            };
            if random(300) == 0 {
                scene.timeline.restart();
            }
            scene.take([TrackId::VIDEO, TrackId::AUDIO][which], at, clocks[which]);
        }
        for track in &scene.seen {
            for pair in track.windows(2) {
                let (passed, step) = (pair[1].0 - pair[0].0, pair[1].1 - pair[0].1);
                assert!(step > 0.0, "seed {seed}: {pair:?}");
                #[expect(clippy::cast_precision_loss)]
                let most = 60_000.0 + passed as f64;
                assert!(step < most, "seed {seed}: {pair:?}");
            }
        }
    }
}
