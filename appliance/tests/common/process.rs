//! Child processes: what they say is kept, and they end with their owner.

use super::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Most lines kept of one child.
const KEPT_LINES: usize = 4_000;

/// A running program.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    lines: Arc<Mutex<Vec<String>>>,
    out_lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `program` with `args`. A missing program fails the test: `scripts/setup` installs them all.
    pub(crate) fn start(program: &str, args: &[&str]) -> Process {
        Process::start_with(program, args, |_| {})
    }

    /// As [`Process::start`], with a last word on the command (environment, folder).
    pub(crate) fn start_with(program: &str, args: &[&str], adapt: impl FnOnce(&mut Command)) -> Process {
        let path = find(program);
        // A child must not outlive a test run that is itself killed; the kernel sees to it.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", &path]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        adapt(&mut command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {program}: {e}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let out_lines = Arc::new(Mutex::new(Vec::new()));
        let readers = vec![
            keep_lines(child.stderr.take().unwrap(), vec![lines.clone()]),
            keep_lines(child.stdout.take().unwrap(), vec![lines.clone(), out_lines.clone()]),
        ];
        let name = program.rsplit('/').next().unwrap().to_owned();
        Process { name, child, status: None, lines, out_lines, readers }
    }

    /// Runs it to its end; panics where it fails or takes longer than `within`. Returns its standard output.
    pub(crate) fn run(program: &str, args: &[&str], within: Duration) -> String {
        let mut process = Process::start(program, args);
        let status = process.end_within(within);
        assert!(status.success(), "{program} {args:?} ended with {status}:\n{}", process.log());
        process.output()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has said so far, both channels.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Its standard output so far.
    pub(crate) fn output(&self) -> String {
        self.out_lines.lock().unwrap().join("\n")
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
            if self.status.is_some() {
                self.hear_out();
            }
        }
        self.status
    }

    /// Waits for its last words. Children of its own may keep the pipes open: they are not waited for.
    fn hear_out(&self) {
        let start = std::time::Instant::now();
        let is_said = || self.readers.iter().all(JoinHandle::is_finished);
        while !is_said() && start.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Panics if it has ended.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended with {status}:\n{}", self.name, self.log());
        }
    }

    /// Waits for its end.
    pub(crate) fn end_within(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        wait::until(&what, within, || self.ended())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).unwrap();
        }
    }

    /// Lets it end by itself within `within`, else asks it to (SIGINT), and waits for that.
    pub(crate) fn finish(&mut self, within: Duration) -> ExitStatus {
        let start = std::time::Instant::now();
        while start.elapsed() < within {
            if let Some(status) = self.ended() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // ffmpeg takes the first signal as "stop when you can" and hears it only after the next read.
        wait::until(&format!("the end of {}", self.name), wait::secs(15), || {
            self.signal(Signal::INT);
            std::thread::sleep(Duration::from_millis(300));
            self.ended()
        })
    }

    /// Kills it at once and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().unwrap();
            self.status = Some(self.child.wait().unwrap());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let status = self.ended();
        if status.is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let lines = self.lines.lock().unwrap();
            let tail = lines.iter().skip(lines.len().saturating_sub(150)).cloned().collect::<Vec<_>>();
            let ended = status.map_or_else(|| "was running".to_owned(), |s| s.to_string());
            eprintln!("--- {} ({ended}) said last:\n{}\n---", self.name, tail.join("\n"));
        }
    }
}

/// Where a program is; panics with how to get it.
pub(crate) fn find(program: &str) -> String {
    if program.contains('/') {
        return program.to_owned();
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/bin:/sbin:/bin";
    path.split(':')
        .map(|folder| format!("{folder}/{program}"))
        .find(|candidate| std::path::Path::new(candidate).is_file())
        .unwrap_or_else(|| panic!("{program} is not installed; scripts/setup installs what tests need"))
}

fn keep_lines(pipe: impl Read + Send + 'static, sinks: Vec<Arc<Mutex<Vec<String>>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            for sink in &sinks {
                let mut kept = sink.lock().unwrap();
                if kept.len() < KEPT_LINES {
                    kept.push(text.clone());
                }
            }
            line.clear();
        }
    })
}
