//! A test binary that is its own worker: started as `BINARY worker` it enters the sandbox and does its job.

use fieldgate_hub::link::{Feeder, Limits};
use fieldgate_media::{Draft, TrackId, Tracks, UnitHead};
use fieldgate_model::job::{Job, Sandbox, Work, WorkerCommand};
use fieldgate_worker::{Deadlines, Deliver, Program, Report, Spawner, WorkerError, WorkerSource, WorkerSpec};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Runs the tests whose name holds one of the arguments (all without), or becomes a worker.
pub(crate) fn main(tests: &[(&str, fn())]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "worker") {
        return worker();
    }
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let (mut passed_count, mut failed) = (0, 0);
    for (name, test) in tests {
        // What only measures runs only when asked for.
        let by_default = filters.is_empty() && !name.starts_with("measure_");
        if !by_default && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        passed_count += usize::from(passed);
        failed += usize::from(!passed);
    }
    println!("\n{passed_count} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[allow(clippy::disallowed_methods, reason = "a main knows the time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

fn worker() -> ExitCode {
    match fieldgate_worker::child::enter(now()) {
        Ok(entered) => {
            let fieldgate_worker::child::Entered { link, commands, job, guards } = entered;
            fieldgate_gst::main(link, commands, &job, guards, now())
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says when a test has seen what it waits for.
pub(crate) type Enough = Box<dyn Fn(&Taken) -> bool>;

/// Everything that a worker delivered.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) tracks: Vec<Tracks>,
    pub(crate) units: Vec<(UnitHead, Vec<u8>)>,
    pub(crate) report: Report,
    pub(crate) enough: Option<(Enough, CancellationToken)>,
}

impl Taken {
    pub(crate) fn of(&self, track: TrackId) -> impl Iterator<Item = &(UnitHead, Vec<u8>)> {
        self.units.iter().filter(move |(head, _)| head.track == track)
    }
}

impl Deliver for Taken {
    fn tracks(&mut self, tracks: Tracks, _same: bool) {
        self.tracks.push(tracks);
    }

    fn unit(&mut self, unit: Draft) {
        self.units.push((unit.head, unit.payload().to_vec()));
    }

    fn flush(&mut self) {
        if let Some((enough, cancel)) = &self.enough
            && enough(self)
        {
            cancel.cancel();
        }
    }

    fn report(&mut self, report: &Report) {
        self.report = report.clone();
    }
}

pub(crate) fn spec(work: Work, sandbox: Sandbox) -> WorkerSpec {
    let program = Program::this_binary();
    let job = Job { name: "test".into(), sandbox, work };
    WorkerSpec { program, job, limits: Limits::CAMERA, deadlines: Deadlines::default() }
}

/// Runs a worker until `enough`, at most 60 s.
pub(crate) fn run(
    spec: WorkerSpec,
    enough: impl Fn(&Taken) -> bool + 'static,
) -> (Taken, Result<(), WorkerError>) {
    run_with(spec, enough, |_| ())
}

/// The same; `ask` gets the way to send commands.
pub(crate) fn run_with(
    spec: WorkerSpec,
    enough: impl Fn(&Taken) -> bool + 'static,
    ask: impl FnOnce(mpsc::Sender<WorkerCommand>),
) -> (Taken, Result<(), WorkerError>) {
    run_all(spec, Feeder::default(), enough, ask)
}

/// The same for a worker that is fed.
pub(crate) fn run_fed(
    spec: WorkerSpec,
    feeder: Feeder,
    enough: impl Fn(&Taken) -> bool + 'static,
) -> (Taken, Result<(), WorkerError>) {
    run_all(spec, feeder, enough, |_| ())
}

fn run_all(
    spec: WorkerSpec,
    feeder: Feeder,
    enough: impl Fn(&Taken) -> bool + 'static,
    ask: impl FnOnce(mpsc::Sender<WorkerCommand>),
) -> (Taken, Result<(), WorkerError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cancel = CancellationToken::new();
        let spawner = Spawner::start().unwrap();
        let (commands, inbox) = mpsc::channel(4);
        ask(commands.clone());
        let source = WorkerSource::new(spec, spawner, inbox, cancel.clone()).fed_by(feeder);
        let mut taken = Taken { enough: Some((Box::new(enough), cancel)), ..Taken::default() };
        let outcome = tokio::time::timeout(Duration::from_secs(60), source.run(&mut taken)).await;
        let outcome = outcome.unwrap_or_else(|_| panic!("not enough after 60 s: {:?}", taken.report));
        (taken, outcome)
    })
}
