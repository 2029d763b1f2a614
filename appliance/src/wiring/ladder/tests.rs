use super::*;

struct Bench {
    ladders: Ladders,
    start: Instant,
    now: Instant,
    taken: Vec<(u64, Step)>,
    gave_up: Vec<u64>,
}

fn situation(verdict: Verdict) -> Situation {
    let steps = vec![Step::Setup, Step::Reconnect, Step::Transport];
    let patience = Patience { step: Duration::from_secs(45), reboot: Duration::from_secs(240) };
    Situation { verdict, steps, is_retrying: false, per_hour: 6, patience }
}

impl Bench {
    fn new() -> Bench {
        let start = Instant::now();
        Bench { ladders: Ladders::default(), start, now: start, taken: Vec::new(), gave_up: Vec::new() }
    }

    fn run(&mut self, seconds: u64, situation: &Situation) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            let outcome = self.ladders.look("gate", situation, self.now);
            let at = (self.now - self.start).as_secs();
            self.taken.extend(outcome.step.map(|step| (at, step)));
            self.gave_up.extend(outcome.gave_up.then_some(at));
        }
    }

    fn steps(&self) -> Vec<Step> {
        self.taken.iter().map(|(_, step)| *step).collect()
    }
}

#[test]
fn the_steps_come_one_after_the_other_and_end_with_a_visit() {
    let mut bench = Bench::new();
    let frozen = Situation { steps: Step::ALL.to_vec(), ..situation(Verdict::Frozen) };
    bench.run(1000, &frozen);
    assert_eq!(bench.steps(), Step::ALL);
    let times: Vec<u64> = bench.taken.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [11, 56, 116, 176, 416], "each waits for its effect");
    assert_eq!(bench.gave_up, [461]);
    let climb = bench.ladders.of("gate").unwrap();
    assert!(climb.advice().unwrap().starts_with("visit the camera: its picture is frozen"));
    assert!(climb.taken().all(|taken| taken.result.as_deref() == Some("still frozen")));
}

#[test]
fn steps_that_do_not_apply_are_left_out() {
    let mut bench = Bench::new();
    bench.run(600, &Situation { steps: vec![Step::Setup], ..situation(Verdict::Dead) });
    assert_eq!((bench.steps(), bench.gave_up.len()), (vec![Step::Setup], 1));

    // The waits are settings: a camera may take its time.
    let mut bench = Bench::new();
    let patience = Patience { step: Duration::from_secs(120), reboot: Duration::from_secs(600) };
    bench.run(2000, &Situation { patience, steps: Step::ALL.to_vec(), ..situation(Verdict::Dead) });
    let times: Vec<u64> = bench.taken.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [11, 131, 266, 401, 1001]);

    // What the supervisor starts again and again needs no other start.
    let mut bench = Bench::new();
    let retrying = Situation { is_retrying: true, ..situation(Verdict::Dead) };
    bench.run(600, &retrying);
    assert_eq!((bench.steps(), bench.gave_up.len()), (vec![], 1));
    let mut bench = Bench::new();
    bench.run(600, &Situation { steps: Step::ALL.to_vec(), ..retrying });
    assert_eq!(bench.steps(), [Step::Reboot]);

    let mut bench = Bench::new();
    bench.run(600, &Situation { steps: Vec::new(), ..situation(Verdict::Dead) });
    assert!(bench.taken.is_empty() && bench.ladders.of("gate").is_none(), "publishers are not ours");
}

#[test]
fn no_restart_lifts_a_cover() {
    for verdict in [Verdict::Black, Verdict::Covered, Verdict::OutOfFocus] {
        let mut bench = Bench::new();
        bench.run(3600, &situation(verdict));
        assert!(bench.taken.is_empty() && bench.gave_up.is_empty());
        assert!(bench.ladders.of("gate").unwrap().advice().unwrap().contains("lens"));
        bench.run(1, &situation(Verdict::Ok));
        assert_eq!(bench.ladders.of("gate").unwrap().advice(), None);
    }
}

#[test]
fn it_stops_when_the_picture_is_back() {
    let mut bench = Bench::new();
    bench.run(12, &situation(Verdict::Dead));
    bench.run(300, &situation(Verdict::Ok));
    assert_eq!(bench.steps(), [Step::Setup]);
    let climb = bench.ladders.of("gate").unwrap();
    assert_eq!(climb.taken().next().unwrap().result.as_deref(), Some("the picture is back"));
    assert_eq!(climb.under_way(), None);
}

#[test]
fn a_new_session_that_looks_good_for_a_moment_is_not_back() {
    let mut bench = Bench::new();
    bench.run(12, &situation(Verdict::Frozen));
    // The watch has forgotten all and needs some seconds to see it again.
    bench.run(20, &situation(Verdict::Ok));
    bench.run(40, &situation(Verdict::Frozen));
    assert_eq!(bench.steps(), [Step::Setup, Step::Reconnect], "it goes on with the next step");
}

#[test]
fn a_fault_that_passes_by_itself_is_left_alone() {
    let mut bench = Bench::new();
    for _ in 0..50 {
        bench.run(8, &situation(Verdict::Dead));
        bench.run(8, &situation(Verdict::Ok));
    }
    assert!(bench.taken.is_empty());
}

#[test]
fn a_camera_that_fails_all_day_is_not_stormed() {
    let mut bench = Bench::new();
    for _ in 0..24 * 60 {
        bench.run(30, &situation(Verdict::Frozen));
        bench.run(30, &situation(Verdict::Ok));
    }
    for hour in 0..24 {
        let within = bench.taken.iter().filter(|(at, _)| (hour * 3600..(hour + 1) * 3600).contains(at));
        assert!(within.count() <= 6, "{:?}", bench.taken);
    }
    // Given up again and again, after longer and longer rests.
    let mut bench = Bench::new();
    bench.run(48 * 3600, &situation(Verdict::Dead));
    assert!(bench.gave_up.len() <= 8, "{:?}", bench.gave_up);
    assert!(bench.taken.len() <= 3 * bench.gave_up.len());
}

#[test]
fn only_so_many_cameras_are_mended_at_once() {
    let mut ladders = Ladders::default();
    let start = Instant::now();
    for second in 0..12 {
        for camera in 0..20 {
            ladders.look(&camera.to_string(), &situation(Verdict::Dead), start + Duration::from_secs(second));
        }
    }
    let busy = (0..20).filter(|camera| ladders.of(&camera.to_string()).unwrap().under_way().is_some());
    assert_eq!(busy.count(), AT_ONCE);
    ladders.keep(|name| name == "3");
    assert!(ladders.of("4").is_none() && ladders.of("3").is_some());
}

#[test]
fn what_a_step_says_of_itself_stands_before_its_effect() {
    let mut bench = Bench::new();
    bench.run(12, &situation(Verdict::Dead));
    bench.ladders.note("gate", "the camera said no");
    bench.run(60, &situation(Verdict::Dead));
    let first = bench.ladders.of("gate").unwrap().taken().next().unwrap().clone();
    assert_eq!(first.result.as_deref(), Some("the camera said no; still dead"));
}
