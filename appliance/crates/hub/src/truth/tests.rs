use super::*;
use bytes::Bytes;
use fieldgate_media::{Track, TrackId};

/// A made-up camera in made-up time.
struct Scene {
    truth: Truth,
    now: Instant,
    start: Instant,
    dts: Ticks,
    seed: u64,
    /// Looks are made of this, with a fingerprint of the keyframe's.
    look: Option<Look>,
    said: Vec<(u64, Verdict)>,
}

impl Scene {
    fn new(tracks: &[Codec]) -> Scene {
        let start = Instant::now();
        let mut truth = Truth::new(Settings::default(), start);
        truth.begin(start);
        let tracks = tracks.iter().map(|codec| {
            let id = if codec.kind() == TrackKind::Video { TrackId::VIDEO } else { TrackId::AUDIO };
            let mut track = Track::new(id, *codec, Bytes::new());
            (track.video.width, track.video.height) = (1280, 720);
            track
        });
        truth.on_tracks(&Tracks::new(tracks.collect()));
        let look = Some(Look {
            mean: 110.0,
            deviation: 40.0,
            structure: 30.0,
            edges: 0.2,
            sharpness: 0.6,
            ..Look::default()
        });
        Scene { truth, now: start, start, dts: Ticks::ZERO, seed: 1, look, said: Vec::new() }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.seed >> 33
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.dts += Ticks::from_millis(i64::try_from(millis).unwrap());
        if let Some(finding) = self.assess()
            && self.said.last().is_none_or(|(_, verdict)| *verdict != finding.verdict)
        {
            self.said.push(((self.now - self.start).as_secs(), finding.verdict));
        }
    }

    fn assess(&mut self) -> Option<Finding> {
        self.truth.assess(self.now).0.cloned()
    }

    fn unit(&mut self, codec: Codec, keyframe: bool, payload: &[u8]) {
        let track = if codec.kind() == TrackKind::Video { TrackId::VIDEO } else { TrackId::AUDIO };
        let dts = self.dts;
        let head =
            UnitHead { track, dts, pts: dts, source_dts: dts, source_pts: dts, keyframe, captured: None };
        self.truth.on_unit(&head, codec, payload, self.now);
        if keyframe && codec.kind() == TrackKind::Video && self.truth.wants_look(self.now) {
            self.truth.look_begins(self.now);
            if let Some(look) = self.look {
                let fingerprint = digest(codec, payload);
                self.truth.on_look(&Look { fingerprint, ..look }, self.now);
            }
        }
    }

    /// A keyframe of that content; the same twice is the same picture. Its header is numbered.
    fn keyframe(&mut self, content: u64) {
        let mut nal = vec![0x65, self.random() as u8];
        let mut byte = content * 2 + 1;
        nal.extend((0..4_000).map(|_| {
            byte = byte.wrapping_mul(6364136223846793005).wrapping_add(1);
            (byte >> 40) as u8
        }));
        let payload = [&u32::try_from(nal.len()).unwrap().to_be_bytes()[..], &nal].concat();
        self.unit(Codec::H264, true, &payload);
    }

    fn picture(&mut self, len: usize) {
        self.unit(Codec::H264, false, &vec![1; len]);
    }

    /// Groups of pictures at 10 a second, `keyframe` and `picture` telling content and size.
    fn gops(
        &mut self,
        seconds: u64,
        mut keyframe: impl FnMut(u64) -> u64,
        mut len: impl FnMut(u64) -> usize,
    ) {
        for at in 0..seconds * 10 {
            match at % 20 {
                0 => self.keyframe(keyframe(at / 20)),
                nth => self.picture(len(nth)),
            }
            self.wait(100);
        }
    }

    fn never_alarmed(&self) {
        assert!(self.said.iter().all(|(_, verdict)| *verdict == Verdict::Ok), "{:?}", self.said);
    }

    /// The first time it was said.
    fn first(&self, verdict: Verdict) -> u64 {
        let first = self.said.iter().find(|(_, said)| *said == verdict);
        first.unwrap_or_else(|| panic!("{verdict:?} was never said: {:?}", self.said)).0
    }
}

#[test]
fn a_still_scene_of_half_an_hour_is_not_frozen() {
    let mut scene = Scene::new(&[Codec::H264]);
    // The camera's noise reduction is so strong that its pictures say "as before"; keyframes differ all the same.
    scene.gops(1800, |gop| gop, |_| 32);
    scene.never_alarmed();
}

#[test]
fn a_picture_that_stands_still_is_frozen() {
    let mut scene = Scene::new(&[Codec::H264]);
    scene.gops(60, |gop| gop, |nth| 4000 + nth as usize * 13);
    scene.gops(30, |_| 7_000, |_| 40);
    assert!((68..80).contains(&scene.first(Verdict::Frozen)), "{:?}", scene.said);
    let since = scene.assess().unwrap().since;
    assert_eq!((since - scene.start).as_secs(), 60, "since it stands still");
    // Until the next look, which shows another picture.
    scene.gops(10, |gop| 9_000 + gop, |_| 4000);
    assert_eq!(scene.assess().unwrap().verdict, Verdict::Ok);
}

#[test]
fn an_encoder_that_has_settled_on_large_pictures_is_frozen_all_the_same() {
    let mut scene = Scene::new(&[Codec::H264]);
    scene.gops(40, |_| 5, |nth| 4870 + (nth % 2) as usize * 3);
    assert!(scene.first(Verdict::Frozen) < 30, "{:?}", scene.said);
}

#[test]
fn a_keyframe_again_and_again_with_motion_between_is_repeating() {
    let mut scene = Scene::new(&[Codec::H264]);
    scene.gops(40, |_| 5, |nth| 800 * nth as usize);
    assert!(scene.first(Verdict::Repeating) < 30, "{:?}", scene.said);
}

#[test]
fn a_loop_of_many_groups_is_repeating() {
    let mut scene = Scene::new(&[Codec::H264]);
    scene.gops(60, |gop| gop % 8, |nth| 800 * nth as usize);
    let told = scene.first(Verdict::Repeating);
    assert!((16..30).contains(&told), "{:?}", scene.said);
}

#[test]
fn a_camera_of_one_picture_in_five_seconds_is_neither_dead_nor_frozen() {
    let mut scene = Scene::new(&[Codec::H264]);
    for at in 0..360 {
        scene.keyframe(at);
        scene.wait(2500);
        scene.wait(2500);
    }
    scene.never_alarmed();
    // Its encoder may also repeat each picture until the next.
    let mut scene = Scene::new(&[Codec::H264]);
    for at in 0..3000 {
        scene.keyframe(at / 10);
        scene.wait(500);
    }
    scene.never_alarmed();
}

#[test]
fn a_slow_camera_may_be_silent_for_three_of_its_pictures() {
    let mut scene = Scene::new(&[Codec::H264]);
    for at in 0..4 {
        scene.keyframe(at);
        (0..12).for_each(|_| scene.wait(1000));
    }
    scene.never_alarmed();
    (0..40).for_each(|_| scene.wait(1000));
    assert_eq!(scene.first(Verdict::Dead), 72, "{:?}", scene.said);
}

#[test]
fn a_camera_that_sends_nothing_is_dead_and_comes_back() {
    let mut scene = Scene::new(&[Codec::H264, Codec::Aac]);
    scene.gops(20, |gop| gop, |_| 3000);
    (0..20).for_each(|_| scene.wait(1000));
    assert!((34..=35).contains(&scene.first(Verdict::Dead)), "{:?}", scene.said);
    assert!(scene.assess().unwrap().cause.contains("nothing has come for 20 s"));
    scene.gops(2, |gop| 100 + gop, |_| 3000);
    assert_eq!(scene.assess().unwrap().verdict, Verdict::Ok);
}

#[test]
fn where_nobody_publishes_only_a_source_of_ours_is_dead() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut truth = Truth::new(Settings::default(), start);
    assert_eq!(truth.assess(at(100)).0, None);
    truth.set(Settings::default(), true, at(100));
    assert_eq!(truth.assess(at(110)), (None, false), "nothing is known yet");
    assert_eq!(truth.assess(at(115)).0.unwrap().verdict, Verdict::Dead);
    // Connections that bring nothing do not make it better.
    truth.begin(at(120));
    truth.end();
    let (finding, changed) = truth.assess(at(122));
    assert_eq!(finding.map(|finding| (finding.verdict, finding.since)), Some((Verdict::Dead, at(100))));
    assert!(!changed);
    truth.begin(at(123));
    assert_eq!(truth.assess(at(124)).0.unwrap().verdict, Verdict::Dead, "no picture has come yet");
    truth.set(Settings { enabled: false, ..Settings::default() }, true, at(130));
    assert_eq!(truth.assess(at(130)), (None, true));
}

/// A camera that is silent after PLAY, asked anew again and again, was never said to be dead.
#[test]
fn sessions_that_bring_nothing_do_not_begin_the_silence_anew() {
    let mut scene = Scene::new(&[Codec::H264]);
    scene.truth.set(Settings::default(), true, scene.now);
    scene.gops(20, |gop| gop, |_| 3000);
    for _ in 0..3 {
        (0..10).for_each(|_| scene.wait(1000));
        scene.truth.end();
        scene.wait(1000);
        scene.truth.begin(scene.now);
        scene.truth.on_tracks(&Tracks::new(vec![Track::new(TrackId::VIDEO, Codec::H264, Bytes::new())]));
    }
    assert!((34..=36).contains(&scene.first(Verdict::Dead)), "{:?}", scene.said);
    assert_eq!(scene.said.last().unwrap().1, Verdict::Dead, "all along");

    // A slow camera is slow after a reconnect too.
    let mut scene = Scene::new(&[Codec::H264]);
    scene.truth.set(Settings::default(), true, scene.now);
    for at in 0..4 {
        scene.keyframe(at);
        (0..12).for_each(|_| scene.wait(1000));
    }
    scene.truth.end();
    scene.truth.begin(scene.now);
    (0..12).for_each(|_| scene.wait(1000));
    scene.never_alarmed();
}

#[test]
fn sound_alone_is_told_apart_from_silence() {
    let mut scene = Scene::new(&[Codec::Aac]);
    for _ in 0..30 {
        scene.unit(Codec::Aac, true, &[0; 100]);
        scene.wait(1000);
    }
    assert!(scene.first(Verdict::AudioOnly) < 20, "{:?}", scene.said);

    let mut scene = Scene::new(&[Codec::H264, Codec::Aac]);
    scene.gops(20, |gop| gop, |_| 3000);
    for _ in 0..30 {
        scene.unit(Codec::Aac, true, &[0; 100]);
        scene.wait(1000);
    }
    assert!((34..=35).contains(&scene.first(Verdict::AudioOnly)), "{:?}", scene.said);
    assert!(scene.assess().unwrap().cause.starts_with("sound goes on"));
}

#[test]
fn pictures_without_any_keyframe_are_told() {
    let mut scene = Scene::new(&[Codec::H264]);
    (0..300).for_each(|_| {
        scene.picture(3000);
        scene.wait(100);
    });
    assert_eq!(scene.first(Verdict::NoKeyframe), 20, "{:?}", scene.said);

    // Keyframes that stop after they came every two seconds.
    let mut scene = Scene::new(&[Codec::H264]);
    scene.gops(20, |gop| gop, |_| 3000);
    (0..300).for_each(|_| {
        scene.picture(3000);
        scene.wait(100);
    });
    assert!((38..=39).contains(&scene.first(Verdict::NoKeyframe)), "{:?}", scene.said);
}

#[test]
fn a_camera_with_a_keyframe_a_minute_is_fine() {
    let mut scene = Scene::new(&[Codec::H264]);
    for at in 0..6000 {
        match at % 600 {
            0 => scene.keyframe(at),
            _ => scene.picture(32),
        }
        scene.wait(100);
    }
    scene.never_alarmed();
}

#[test]
fn black_is_told_and_a_dark_night_is_not() {
    let black = Look { mean: 16.0, black: 1.0, ..Look::default() };
    let mut scene = Scene::new(&[Codec::H264]);
    scene.look = Some(black);
    scene.gops(40, |_| 5, |_| 30);
    assert!(scene.first(Verdict::Black) < 30, "{:?}", scene.said);
    assert!(scene.said.iter().all(|(_, verdict)| *verdict != Verdict::Frozen), "{:?}", scene.said);

    // The same, but with the noise of a sensor: no two keyframes are equal.
    let mut scene = Scene::new(&[Codec::H264]);
    scene.look = Some(Look { deviation: 0.8, ..black });
    scene.gops(1800, |gop| gop, |_| 30);
    scene.never_alarmed();
}

#[test]
fn covered_and_out_of_focus_need_two_looks() {
    let covered = Look { mean: 90.0, deviation: 6.0, structure: 1.0, ..Look::default() };
    let blurred = Look { mean: 90.0, structure: 30.0, sharpness: 0.1, edges: 0.02, ..Look::default() };
    for (look, verdict) in [(covered, Verdict::Covered), (blurred, Verdict::OutOfFocus)] {
        let mut scene = Scene::new(&[Codec::H264]);
        scene.gops(20, |gop| gop, |_| 3000);
        let good = scene.look.replace(look);
        scene.gops(30, |gop| 100 + gop, |_| 3000);
        assert!((28..50).contains(&scene.first(verdict)), "{:?}", scene.said);
        scene.look = good;
        scene.gops(12, |gop| 200 + gop, |_| 3000);
        assert_eq!(scene.assess().unwrap().verdict, Verdict::Ok);
    }
}

#[test]
fn without_decoded_pictures_the_bytes_decide_alone() {
    let mut scene = Scene::new(&[Codec::H264]);
    scene.look = None;
    scene.gops(40, |_| 5, |_| 30);
    assert!(scene.first(Verdict::Frozen) < 30, "{:?}", scene.said);
}

#[test]
fn at_most_one_keyframe_per_interval_is_decoded_and_none_twice() {
    let mut scene = Scene::new(&[Codec::H264]);
    let mut begun = Vec::new();
    for at in 0..60 {
        scene.keyframe(at);
        begun.push(scene.truth.newest_look().map(|(_, when)| when));
        scene.wait(1000);
    }
    begun.dedup();
    assert_eq!(begun.len(), 8);
    // None comes any more.
    let mut scene = Scene::new(&[Codec::H264]);
    scene.keyframe(1);
    assert!(!scene.truth.wants_look(scene.now + Duration::from_secs(100)));
}

#[test]
fn what_is_ignored_is_not_said() {
    let mut scene = Scene::new(&[Codec::H264]);
    let ignore = vec![Verdict::Frozen, Verdict::Repeating];
    scene.truth.set(Settings { ignore, ..Settings::default() }, true, scene.now);
    scene.gops(120, |_| 5, |_| 30);
    scene.never_alarmed();
}

#[test]
fn any_units_in_any_order_are_only_looked_at() {
    let mut scene = Scene::new(&[Codec::H264, Codec::Aac]);
    for round in 0..20_000 {
        match scene.random() % 7 {
            0 => scene.truth.begin(scene.now),
            1 => scene.truth.end(),
            2 => scene.unit(Codec::Aac, true, &[]),
            3 => scene.unit(Codec::H264, true, &[255; 5]),
            4 => scene.dts = Ticks::new(i64::from(round) - 10_000),
            5 => scene.picture(round as usize % 100),
            _ => scene.keyframe(u64::from(round % 3 == 0)),
        }
        let millis = scene.random() % 3000;
        scene.now += Duration::from_millis(millis);
        scene.assess();
    }
}
