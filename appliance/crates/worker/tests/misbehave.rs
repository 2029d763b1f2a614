//! Workers that crash, hang, leak, flood and lie: each is ended and named, and a healthy one beside it loses nothing.
//!
//! Started as `BINARY worker` this binary is such a worker; its job's name says how it misbehaves. No GStreamer.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test with a main of its own")]

#[path = "misbehave/child.rs"]
mod child;

use fieldgate_hub::Retry;
use fieldgate_hub::link::{Limits, LinkError};
use fieldgate_media::{Draft, Ticks, Tracks};
use fieldgate_model::job::{EncoderWish, Job, Sandbox, TestCamera, Work, WorkerCommand};
use fieldgate_worker::{
    Deadlines, Deliver, Exit, Program, Report, Spawner, WorkerError, WorkerSource, WorkerSpec, probe_encoders,
};
use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "worker") {
        return child::main();
    }
    if args.first().is_some_and(|arg| arg == "gateway") {
        return gateway(&args[1]);
    }
    let tests: [(&str, fn()); 13] = [
        ("a_crash_is_named_by_its_signal", a_crash_is_named_by_its_signal),
        ("a_worker_that_hangs_is_killed", a_worker_that_hangs_is_killed),
        ("a_worker_that_leaks_ends_at_its_own_limit", a_worker_that_leaks_ends_at_its_own_limit),
        ("a_flood_ends_the_worker_that_floods", a_flood_ends_the_worker_that_floods),
        ("a_lying_head_ends_the_worker_that_lies", a_lying_head_ends_the_worker_that_lies),
        ("silence_before_and_between_units_is_named", silence_before_and_between_units_is_named),
        ("a_worker_that_ignores_stop_is_killed", a_worker_that_ignores_stop_is_killed),
        (
            "commands_reach_a_worker_and_stop_ends_it_cleanly",
            commands_reach_a_worker_and_stop_ends_it_cleanly,
        ),
        ("a_dropped_driver_leaves_no_process", a_dropped_driver_leaves_no_process),
        ("workers_end_with_a_gateway_that_is_killed", workers_end_with_a_gateway_that_is_killed),
        ("an_encoder_that_hangs_or_crashes_is_left_out", an_encoder_that_hangs_or_crashes_is_left_out),
        ("a_program_that_is_not_there_is_an_error", a_program_that_is_not_there_is_an_error),
        ("the_sandbox_denies_what_a_worker_does_not_need", the_sandbox_denies_what_a_worker_does_not_need),
    ];
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let (mut passed_count, mut failed) = (0, 0);
    for (name, test) in tests.into_iter().filter(|(name, _)| wanted(name)) {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        passed_count += usize::from(passed);
        failed += usize::from(!passed);
    }
    println!("\n{passed_count} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Clone, Default)]
struct Seen(Rc<RefCell<SeenInner>>);

#[derive(Default)]
struct SeenInner {
    dts: Vec<i64>,
    bytes: usize,
    report: Report,
}

impl Deliver for Seen {
    fn tracks(&mut self, _tracks: Tracks, _same: bool) {}

    fn unit(&mut self, unit: Draft) {
        let mut seen = self.0.borrow_mut();
        seen.dts.push(unit.head.dts.get());
        seen.bytes += unit.payload().len();
    }

    fn flush(&mut self) {}

    fn report(&mut self, report: &Report) {
        self.0.borrow_mut().report = report.clone();
    }
}

impl Seen {
    /// Every unit of the healthy worker arrived: they are numbered by their times.
    fn assert_nothing_lost(&self, at_least: usize) {
        let seen = self.0.borrow();
        let expected: Vec<i64> = (0..).map(|n| n * child::STEP_TICKS).take(seen.dts.len()).collect();
        assert_eq!(seen.dts, expected);
        assert!(seen.dts.len() >= at_least, "only {} units", seen.dts.len());
        assert_eq!(seen.report.health.dropped_units, 0);
    }
}

fn spec(how: &str) -> WorkerSpec {
    let job = Job { name: how.into(), sandbox: Sandbox::default(), work: Work::Test(TestCamera::default()) };
    let deadlines = Deadlines {
        pulse: Duration::from_millis(2500),
        first_unit: Some(Duration::from_secs(4)),
        between_units: Duration::from_secs(3),
        stop: Duration::from_secs(1),
        ..Deadlines::default()
    };
    WorkerSpec { program: Program::this_binary(), job, limits: Limits::CAMERA, deadlines }
}

/// Runs one worker, with a healthy one beside it on the same thread from before to after.
fn run_beside_healthy(spec: WorkerSpec) -> (Seen, WorkerError) {
    block_on(async {
        let spawner = Spawner::start().unwrap();
        let (healthy, seen) = (Seen::default(), Seen::default());
        let cancel = CancellationToken::new();
        let (_keep, commands) = mpsc::channel(1);
        let beside = WorkerSource::new(self::spec("healthy"), spawner.clone(), commands, cancel.clone());
        let mut deliver = healthy.clone();
        let beside = async move { beside.run(&mut deliver).await };
        let watched = async {
            while healthy.0.borrow().dts.len() < 5 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (_keep, commands) = mpsc::channel(1);
            let source = WorkerSource::new(spec, spawner.clone(), commands, CancellationToken::new());
            let error = source.run(&mut seen.clone()).await.unwrap_err();
            let until = healthy.0.borrow().dts.len() + 20;
            while healthy.0.borrow().dts.len() < until {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
            error
        };
        let (beside, error) = tokio::join!(beside, watched);
        beside.unwrap();
        healthy.assert_nothing_lost(25);
        assert!(spawner.abandoned().is_empty());
        println!("  {}: {error}", seen.0.borrow().report.pid);
        (seen, error)
    })
}

fn block_on<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), what).await.unwrap() })
}

fn is_gone(pid: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{pid}")).exists()
}

fn a_crash_is_named_by_its_signal() {
    // A real fault: Rust's own handler swallows the first SIGSEGV that is only sent.
    let (seen, error) = run_beside_healthy(spec("segfault"));
    assert!(matches!(error, WorkerError::Ended { exit: Exit::Signal(11), .. }), "{error}");
    assert!(error.to_string().contains("SIGSEGV"), "{error}");
    assert!(!seen.0.borrow().dts.is_empty(), "what it sent before arrived");
    assert_eq!(error.retry(), Retry::Backoff);
    assert!(is_gone(seen.0.borrow().report.pid));

    let (_, error) = run_beside_healthy(spec("abort"));
    assert!(matches!(error, WorkerError::Ended { exit: Exit::Signal(6), .. }), "{error}");
    assert!(error.to_string().contains("last words"), "{error}");

    let (_, error) = run_beside_healthy(spec("exit"));
    assert!(matches!(error, WorkerError::Ended { exit: Exit::Code(7), .. }), "{error}");
}

fn a_worker_that_hangs_is_killed() {
    let (seen, error) = run_beside_healthy(spec("hang"));
    assert!(matches!(error, WorkerError::NoPulse { .. }), "{error}");
    assert!(is_gone(seen.0.borrow().report.pid));
}

fn a_worker_that_leaks_ends_at_its_own_limit() {
    let mut spec = spec("leak");
    spec.job.sandbox.memory_bytes = 64 << 20;
    let (seen, error) = run_beside_healthy(spec);
    assert!(matches!(error, WorkerError::Ended { exit: Exit::Signal(6), .. }), "{error}");
    assert!(error.to_string().contains("memory allocation"), "{error}");
    assert!(is_gone(seen.0.borrow().report.pid));
}

fn a_flood_ends_the_worker_that_floods() {
    for how in ["flood-small", "flood-large", "flood-status"] {
        let (seen, error) = run_beside_healthy(spec(how));
        assert!(matches!(error, WorkerError::Link(LinkError::TooFast { .. })), "{how}: {error}");
        let seen = seen.0.borrow();
        assert!(seen.dts.len() <= 2500 && seen.bytes <= 40 << 20, "{} units", seen.dts.len());
    }
    // One that writes to standard error without end is not read on, so it blocks and its pulse stops.
    let (_, error) = run_beside_healthy(spec("flood-stderr"));
    assert!(matches!(error, WorkerError::NoPulse { .. }), "{error}");
}

fn a_lying_head_ends_the_worker_that_lies() {
    let (seen, error) = run_beside_healthy(spec("four-gigabytes"));
    assert!(matches!(error, WorkerError::Link(LinkError::TooLong { len: 0xffff_ffff, .. })), "{error}");
    assert!(is_gone(seen.0.borrow().report.pid));
    let (_, error) = run_beside_healthy(spec("bad-frame"));
    assert!(matches!(error, WorkerError::Link(LinkError::UnknownVersion(_))), "{error}");
    let (_, error) = run_beside_healthy(spec("bad-status"));
    assert!(matches!(error, WorkerError::BadStatus), "{error}");
    let (_, error) = run_beside_healthy(spec("backwards"));
    assert!(
        matches!(error, WorkerError::Link(LinkError::Backwards { last, .. }) if last > Ticks::ZERO),
        "{error}"
    );
}

fn silence_before_and_between_units_is_named() {
    let (_, error) = run_beside_healthy(spec("no-units"));
    assert!(matches!(error, WorkerError::NoFirstUnit { .. }), "{error}");
    let (_, error) = run_beside_healthy(spec("falls-silent"));
    assert!(matches!(error, WorkerError::Silent { .. }), "{error}");
    let mut spec = spec("no-pulse-at-all");
    spec.deadlines.ready = Duration::from_secs(1);
    let (_, error) = run_beside_healthy(spec);
    assert!(matches!(error, WorkerError::NotReady { .. }), "{error}");
}

fn a_worker_that_ignores_stop_is_killed() {
    block_on(async {
        let cancel = CancellationToken::new();
        let (_keep, commands) = mpsc::channel(1);
        let spawner = Spawner::start().unwrap();
        let source = WorkerSource::new(spec("ignores-stop"), spawner, commands, cancel.clone());
        let seen = Seen::default();
        let stop = async {
            while seen.0.borrow().dts.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        };
        let mut deliver = seen.clone();
        let (outcome, ()) = tokio::join!(source.run(&mut deliver), stop);
        assert!(matches!(outcome, Err(WorkerError::NoStop { .. })), "{outcome:?}");
        assert!(is_gone(seen.0.borrow().report.pid));
    });
}

fn commands_reach_a_worker_and_stop_ends_it_cleanly() {
    block_on(async {
        let cancel = CancellationToken::new();
        let (to_worker, commands) = mpsc::channel(1);
        let spawner = Spawner::start().unwrap();
        let source = WorkerSource::new(spec("healthy"), spawner, commands, cancel.clone());
        let seen = Seen::default();
        let ask = async {
            to_worker.send(WorkerCommand::Bitrate(123_456)).await.unwrap();
            while seen.0.borrow().report.status.source != "bitrate 123456" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        };
        let mut deliver = seen.clone();
        let (outcome, ()) = tokio::join!(source.run(&mut deliver), ask);
        outcome.unwrap();
        seen.assert_nothing_lost(1);
        let seen = seen.0.borrow();
        assert!(seen.report.usage.rss_bytes > 0 && seen.report.first_unit_after.is_some());
        assert!(is_gone(seen.report.pid));
    });
}

fn a_dropped_driver_leaves_no_process() {
    block_on(async {
        let spawner = Spawner::start().unwrap();
        let (_keep, commands) = mpsc::channel(1);
        let source = WorkerSource::new(spec("ignores-stop"), spawner, commands, CancellationToken::new());
        let seen = Seen::default();
        let mut deliver = seen.clone();
        let running = source.run(&mut deliver);
        let until = async {
            while seen.0.borrow().report.pid == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            outcome = running => panic!("{outcome:?}"),
            () = until => {}
        }
        let pid = seen.0.borrow().report.pid;
        while !is_gone(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

fn a_program_that_is_not_there_is_an_error() {
    block_on(async {
        let mut spec = spec("healthy");
        spec.program.path = "/nowhere/fieldgate".into();
        let (_keep, commands) = mpsc::channel(1);
        let spawner = Spawner::start().unwrap();
        let source = WorkerSource::new(spec, spawner, commands, CancellationToken::new());
        let error = source.run(&mut Seen::default()).await.unwrap_err();
        assert!(matches!(error, WorkerError::Spawn(_)), "{error}");
    });
}

fn the_sandbox_denies_what_a_worker_does_not_need() {
    let listener = |_: &str| std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (allowed, other) = (listener("camera"), listener("other"));
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    let readable = std::env::temp_dir().join(format!("fieldgate-sandbox-{}", std::process::id()));
    std::fs::write(&readable, "secret").unwrap();
    let how =
        format!("probe {} {} {} {}", port(&allowed), port(&other), std::process::id(), readable.display());
    let mut spec = spec(&how);
    spec.job.sandbox.tcp_connect = vec![port(&allowed)];
    let (seen, error) = run_beside_healthy(spec);
    std::fs::remove_file(&readable).unwrap();
    assert!(matches!(error, WorkerError::Failed { permanent: false, .. }), "{error}");
    let report = error.to_string();
    let seen = seen.0.borrow();
    let guards = &seen.report.status.sandbox;
    assert_eq!(guards.len(), 5);
    for guard in guards {
        assert!(guard.on || !guard.note.is_empty());
        if !guard.on {
            println!("  not in force here: {}: {}", guard.name, guard.note);
        }
    }
    let landlock = guards.iter().any(|guard| guard.name == "files and ports" && guard.on);
    let denied = |what: &str| report.contains(&format!("{what}=denied"));
    for what in [
        "exec",
        "fork",
        "udp",
        "unix",
        "netlink",
        "packet",
        "kill-parent",
        "parent-memory",
        "handle-of-parent",
        "raise-limits",
    ] {
        assert!(denied(what), "{what}: {report}");
    }
    if landlock {
        for what in ["read-elsewhere", "write", "list-root", "tcp-other-port", "read-parent-environment"] {
            assert!(denied(what), "{what}: {report}");
        }
    } else {
        println!("skipped: files and ports, no Landlock here");
    }
    for what in ["tcp-camera-port", "thread", "read-library"] {
        assert!(report.contains(&format!("{what}=allowed")), "{what}: {report}");
    }
}

/// A gateway of one worker; prints the worker's process id.
fn gateway(how: &str) -> ExitCode {
    block_on(async {
        let (_keep, commands) = mpsc::channel(1);
        let spawner = Spawner::start().unwrap();
        let source = WorkerSource::new(spec(how), spawner, commands, CancellationToken::new());
        let seen = Seen::default();
        let tell = async {
            while seen.0.borrow().dts.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            println!("worker {}", seen.0.borrow().report.pid);
        };
        let mut deliver = seen.clone();
        let _ = tokio::join!(source.run(&mut deliver), tell);
    });
    ExitCode::SUCCESS
}

fn workers_end_with_a_gateway_that_is_killed() {
    // The healthy one sees the end of its link; the one that hangs is ended by the kernel.
    for how in ["healthy", "hang"] {
        let mut gateway = Command::new("/proc/self/exe")
            .args(["gateway", how])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(gateway.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let worker: u32 = line.trim().strip_prefix("worker ").unwrap().parse().unwrap();
        assert!(!is_gone(worker));
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        block_on(async {
            while !is_over(worker) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
}

/// Gone, or a zombie that whoever inherited it has not reaped.
fn is_over(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, fields)| fields.trim_start().starts_with(['Z', 'X']))
}

fn an_encoder_that_hangs_or_crashes_is_left_out() {
    block_on(async {
        let spawner = Spawner::start().unwrap();
        let deadlines = spec("").deadlines;
        let wish = EncoderWish::default();
        let cancel = CancellationToken::new();
        let program = Program::this_binary();
        let probed = probe_encoders(&spawner, program, wish, Vec::new(), deadlines, cancel).await;
        let words: Vec<&str> = probed.trials.iter().map(|trial| &trial.reason[..]).collect();
        assert!(words[0].contains("no pulse"), "{words:?}");
        assert!(words[1].contains("SIGSEGV"), "{words:?}");
        assert_eq!(words[2], "works");
        let wish = probed.wish.unwrap();
        assert_eq!((&wish.name[..], wish.skip), ("third", vec!["first".to_owned(), "second".to_owned()]));
        assert!(probed.error.is_none());
    });
}
