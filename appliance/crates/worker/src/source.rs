//! One run of one worker, from its start to its end: reads its link, hands its units on, stops it when it breaks a
//! bound or goes silent.
//!
//! ```text
//!  starting --pulse--> running --stop asked--> stopping --> ended
//!     |                   |
//!     +--- deadline, breach, end of file ---> killed, reaped (or abandoned, named)
//! ```

mod error;
mod watch;

pub use error::WorkerError;

use crate::exit::Exit;
use crate::spawner::{Program, Spawner, Started, reap};
use crate::usage::Usage;
use bytes::Bytes;
use fieldgate_hub::link::{Feeder, Frame, Health, Inbound, Limits, LinkError, LogLevel, read_frame};
use fieldgate_media::{Draft, Tracks};
use fieldgate_model::job::{Job, Phase, WorkerCommand, WorkerStatus};
use std::process::Child;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedWriteHalf, pipe};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use watch::Watch;

const TICK: Duration = Duration::from_millis(200);
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// A worker's share of memory takes milliseconds to add up: it is in each report of the start, later once a minute.
const REPORTS_OF_START: u32 = 6;
const REPORTS_PER_SHARE: u32 = 12;
/// After so many bytes the others on this thread get their turn.
const TURN_BYTES: usize = 256 << 10;
/// Log lines of a worker that are passed on between two reports.
const LOG_LINES: u32 = 10;
const STDERR_TAIL: usize = 600;
const STDERR_PER_TICK: usize = 16 << 10;

/// Where a worker's stream goes. Called on the driver's thread; must not wait.
pub trait Deliver {
    /// All tracks from here on; `same` when nothing differs from the last ones.
    fn tracks(&mut self, tracks: Tracks, same: bool);
    /// One access unit of an announced track; times never go back within a track.
    fn unit(&mut self, unit: Draft);
    /// The units handed in since the last flush are all that is here now.
    fn flush(&mut self);
    /// What the worker is like; after each change and every few seconds.
    fn report(&mut self, report: &Report);
    /// What it answered to an ask; only of workers that are asked.
    fn answer(&mut self, _answer: Bytes) {}
}

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// From the start to the first pulse.
    pub ready: Duration,
    /// From one pulse to the next.
    pub pulse: Duration,
    /// From the first pulse to the first unit; `None` for work that makes none.
    pub first_unit: Option<Duration>,
    /// From one unit to the next.
    pub between_units: Duration,
    /// From the request to stop to the end.
    pub stop: Duration,
    /// From a kill to the end; then it is left behind.
    pub reap: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            ready: Duration::from_secs(10),
            pulse: Duration::from_secs(5),
            first_unit: Some(Duration::from_secs(20)),
            between_units: Duration::from_secs(10),
            stop: Duration::from_secs(2),
            reap: Duration::from_secs(5),
        }
    }
}

/// All that a worker needs to be started.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// What is executed.
    pub program: Program,
    /// What it shall do.
    pub job: Job,
    /// What it may send.
    pub limits: Limits,
    /// How long it may take.
    pub deadlines: Deadlines,
}

/// What a worker is like right now.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its process id.
    pub pid: u32,
    /// What it says about itself.
    pub status: WorkerStatus,
    /// Counters of its last pulse.
    pub health: Health,
    /// What it costs.
    pub usage: Usage,
    /// Units that arrived here.
    pub units: u64,
    /// Since its start.
    pub uptime: Duration,
    /// From its start to its first unit.
    pub first_unit_after: Option<Duration>,
}

/// Drives one worker process for the length of its life.
#[derive(Debug)]
pub struct WorkerSource {
    spec: WorkerSpec,
    spawner: Spawner,
    commands: mpsc::Receiver<WorkerCommand>,
    asks: Option<mpsc::Receiver<Bytes>>,
    cancel: CancellationToken,
    feeder: Feeder,
}

impl WorkerSource {
    /// A worker to be run once; `commands` reach it while it runs, `cancel` stops it cleanly.
    pub fn new(
        spec: WorkerSpec,
        spawner: Spawner,
        commands: mpsc::Receiver<WorkerCommand>,
        cancel: CancellationToken,
    ) -> Self {
        WorkerSource { spec, spawner, commands, asks: None, cancel, feeder: Feeder::default() }
    }

    /// With asks that go to the worker as they come, each of at most [`fieldgate_hub::link::ASK_MAX`] bytes; when their
    /// sender is gone the worker is stopped.
    pub fn with_asks(self, asks: mpsc::Receiver<Bytes>) -> Self {
        WorkerSource { asks: Some(asks), ..self }
    }

    /// The worker also gets what is put into `feeder`: the stream that it shall look into. It counts what a slow worker
    /// missed.
    pub fn fed_by(self, feeder: Feeder) -> Self {
        WorkerSource { feeder, ..self }
    }

    /// Runs it until it ends or is stopped. `Ok` only after a stop or when its work is done.
    ///
    /// Dropping the future kills the process.
    pub async fn run<D: Deliver>(self, deliver: &mut D) -> Result<(), WorkerError> {
        let name = self.spec.job.name.clone();
        let deadlines = self.spec.deadlines;
        let Started { child, link, stderr } = self.spawner.spawn(self.spec.program.clone()).await?;
        let mut process = Process { child: Some(child), name, spawner: self.spawner.clone() };
        let link = UnixStream::from_std(link).map_err(LinkError::Io)?;
        let stderr = pipe::Receiver::from_owned_fd(stderr).map_err(LinkError::Io)?;
        let pid = process.id();
        let (from, to) = link.into_split();
        let mut run = Run {
            from,
            to,
            feeder: self.feeder,
            sent: Sent::default(),
            inbound: Inbound::from_worker(self.spec.limits),
            watch: Watch::new(deadlines, Instant::now().into_std()),
            report: Report { pid, ..Report::default() },
            reported_at: None,
            reports: 0,
            tracks: None,
            name: process.name.clone(),
            log_lines: 0,
            stderr: Stderr { pipe: Some(stderr), tail: Vec::new(), budget: STDERR_PER_TICK },
            deliver,
        };
        let ended = run.drive(self.spec.job, self.commands, self.asks, &self.cancel).await;
        let grace = match &ended {
            // It ends by itself; its last words and its exit are worth a moment.
            Ok(()) | Err(WorkerError::Link(LinkError::Closed { .. })) => deadlines.stop,
            Err(_) => Duration::ZERO,
        };
        let exit = process.reap(grace, deadlines.reap).await;
        run.stderr.drain();
        let report = &run.report;
        run.deliver.report(report);
        let stopped = self.cancel.is_cancelled();
        conclude(ended, exit, stopped, &report.status, run.stderr.tail()).map_err(|error| {
            if exit == Exit::Stuck { WorkerError::Stuck { pid, after: Box::new(error) } } else { error }
        })
    }
}

/// What the end of the link, the end of the process and the worker's own words mean together.
fn conclude(
    ended: Result<(), WorkerError>,
    exit: Exit,
    stopped: bool,
    status: &WorkerStatus,
    stderr: String,
) -> Result<(), WorkerError> {
    match ended {
        Ok(()) => Ok(()),
        Err(WorkerError::Link(LinkError::Closed { .. })) => match (&status.failure, exit) {
            (Some(failure), Exit::Code(_)) => {
                Err(WorkerError::Failed { cause: failure.cause.clone(), permanent: failure.permanent })
            }
            (None, Exit::Code(0)) if stopped || status.phase == Phase::Done => Ok(()),
            _ => Err(WorkerError::Ended { exit, stderr }),
        },
        Err(error) => Err(error),
    }
}

/// Kills its process when dropped.
struct Process {
    child: Option<Child>,
    name: String,
    spawner: Spawner,
}

impl Process {
    fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    async fn reap(&mut self, grace: Duration, patience: Duration) -> Exit {
        let Some(child) = &mut self.child else { return Exit::Code(-1) };
        let exit = reap(child, grace, patience).await;
        if exit != Exit::Stuck {
            self.child = None;
        }
        exit
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.spawner.bury(std::mem::take(&mut self.name), child);
        }
    }
}

struct Run<'a, D> {
    from: tokio::net::unix::OwnedReadHalf,
    to: OwnedWriteHalf,
    feeder: Feeder,
    sent: Sent,
    inbound: Inbound,
    watch: Watch,
    report: Report,
    reported_at: Option<Instant>,
    reports: u32,
    tracks: Option<Tracks>,
    name: String,
    log_lines: u32,
    stderr: Stderr,
    deliver: &'a mut D,
}

impl<D: Deliver> Run<'_, D> {
    async fn drive(
        &mut self,
        job: Job,
        mut commands: mpsc::Receiver<WorkerCommand>,
        mut asks: Option<mpsc::Receiver<Bytes>>,
        cancel: &CancellationToken,
    ) -> Result<(), WorkerError> {
        self.command(&WorkerCommand::Start(Box::new(job)))?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn_bytes = 0;
        let mut stopping = false;
        loop {
            tokio::select! {
                frame = read_frame(&mut self.from, &mut self.inbound, || Instant::now().into_std()) => {
                    match frame {
                        Ok(frame) => turn_bytes += self.take(frame)?,
                        Err(LinkError::Closed { .. }) if stopping => return Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                    if turn_bytes >= TURN_BYTES {
                        turn_bytes = 0;
                        tokio::task::yield_now().await;
                    }
                }
                ended = self.feeder.send(&mut self.to), if !self.sent.is_over => {
                    let Err(error) = ended;
                    if error.kind() != std::io::ErrorKind::BrokenPipe {
                        return Err(LinkError::Io(error).into());
                    }
                    // It is gone: what it said last and how it ended is still to be read from the link.
                    self.sent.is_over = true;
                }
                _ = tick.tick() => {
                    turn_bytes = 0;
                    self.sent.check(&self.feeder, self.watch.deadlines().pulse)?;
                    self.stderr.budget = STDERR_PER_TICK;
                    self.watch.check(Instant::now().into_std())?;
                    self.report_if_due();
                }
                () = self.stderr.read() => {}
                Some(command) = commands.recv(), if !stopping => self.command(&command)?,
                ask = next(&mut asks), if !stopping => match ask {
                    Some(ask) => self.taken(self.feeder.ask(ask))?,
                    None => {
                        stopping = true;
                        self.watch.stopping(Instant::now().into_std());
                        self.command(&WorkerCommand::Stop)?;
                    }
                },
                () = cancel.cancelled(), if !stopping => {
                    stopping = true;
                    self.watch.stopping(Instant::now().into_std());
                    self.command(&WorkerCommand::Stop)?;
                }
            }
        }
    }

    fn command(&mut self, command: &WorkerCommand) -> Result<(), WorkerError> {
        let json = serde_json::to_vec(command).map_err(|error| LinkError::Io(error.into()))?;
        self.taken(self.feeder.command(json.into()))
    }

    /// A worker that does not read is as dead as one that does not beat.
    fn taken(&self, is_taken: bool) -> Result<(), WorkerError> {
        if is_taken { Ok(()) } else { Err(WorkerError::Deaf { limit: self.watch.deadlines().pulse }) }
    }

    /// Handles one frame; returns how many bytes of media it held.
    fn take(&mut self, frame: Frame) -> Result<usize, WorkerError> {
        let now = Instant::now().into_std();
        match frame {
            Frame::Unit(draft) => {
                let len = draft.payload().len();
                self.report.units += 1;
                if let Some(after) = self.watch.unit(now) {
                    self.report.first_unit_after = Some(after);
                    self.reported_at = None;
                }
                self.deliver.unit(draft);
                self.deliver.flush();
                return Ok(len);
            }
            Frame::Tracks(tracks) => {
                let same = self.tracks.as_ref() == Some(&tracks);
                self.tracks = Some(tracks.clone());
                self.deliver.tracks(tracks, same);
            }
            Frame::Health(health) => {
                self.watch.beat(now);
                self.report.health = health;
            }
            Frame::Status(json) => {
                self.report.status = serde_json::from_slice(&json).map_err(|_| WorkerError::BadStatus)?;
                self.reported_at = None;
                self.report_if_due();
            }
            Frame::Log(level, line) => {
                self.log_lines = self.log_lines.saturating_add(1);
                if self.log_lines <= LOG_LINES {
                    log(&self.name, level, &line);
                }
            }
            Frame::Answer(answer) => {
                let len = answer.len();
                self.deliver.answer(answer);
                return Ok(len);
            }
            Frame::Command(_) | Frame::Ask(_) => {}
        }
        Ok(0)
    }

    fn report_if_due(&mut self) {
        let now = Instant::now();
        if self.reported_at.is_some_and(|at| now.saturating_duration_since(at) < REPORT_EVERY) {
            return;
        }
        self.reported_at = Some(now);
        if self.log_lines > LOG_LINES {
            tracing::warn!(worker = self.name, left_out = self.log_lines - LOG_LINES, "worker logs too much");
        }
        self.log_lines = 0;
        // One that has just ended uses nothing any more; its last figures say more.
        if let Some(usage) = Usage::of(self.report.pid).filter(|usage| usage.rss_bytes > 0) {
            let is_due = self.reports < REPORTS_OF_START || self.reports.is_multiple_of(REPORTS_PER_SHARE);
            let share = if is_due { Usage::share_of(self.report.pid) } else { None };
            self.report.usage = Usage { pss_bytes: share.unwrap_or(self.report.usage.pss_bytes), ..usage };
        }
        self.reports = self.reports.wrapping_add(1);
        self.report.uptime = self.watch.uptime(now.into_std());
        self.deliver.report(&self.report);
    }
}

/// The next ask; for ever none for a worker that is not asked.
async fn next(asks: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match asks {
        Some(asks) => asks.recv().await,
        None => std::future::pending().await,
    }
}

/// How far the worker has taken what is sent to it.
#[derive(Debug, Default)]
struct Sent {
    bytes: u64,
    stands_since: Option<Instant>,
    is_over: bool,
}

impl Sent {
    /// Fails when something has waited for `limit` and the worker took none of it.
    fn check(&mut self, feeder: &Feeder, limit: Duration) -> Result<(), WorkerError> {
        let (bytes, waits) = feeder.progress();
        if self.is_over || !waits || bytes != self.bytes {
            self.bytes = bytes;
            self.stands_since = None;
            return Ok(());
        }
        let since = *self.stands_since.get_or_insert_with(Instant::now);
        if Instant::now().saturating_duration_since(since) < limit {
            return Ok(());
        }
        Err(WorkerError::Deaf { limit })
    }
}

fn log(worker: &str, level: LogLevel, line: &str) {
    match level {
        LogLevel::Warn => tracing::warn!(worker, "{line}"),
        LogLevel::Info => tracing::info!(worker, "{line}"),
        LogLevel::Debug => tracing::debug!(worker, "{line}"),
    }
}

/// The worker's standard error: the last of it is shown when the worker dies. One that writes much is not read on, so
/// that it blocks and its pulse stops.
struct Stderr {
    pipe: Option<pipe::Receiver>,
    tail: Vec<u8>,
    budget: usize,
}

impl Stderr {
    /// Waits for the next piece; for ever when there is none to come or the budget is used up.
    async fn read(&mut self) {
        let Some(pipe) = self.pipe.as_ref().filter(|_| self.budget > 0) else {
            return std::future::pending().await;
        };
        if pipe.readable().await.is_err() {
            self.pipe = None;
        }
        self.read_once();
    }

    fn drain(&mut self) {
        for _ in 0..8 {
            if !self.read_once() {
                return;
            }
        }
    }

    fn read_once(&mut self) -> bool {
        let mut piece = [0; 2048];
        let Some(pipe) = &self.pipe else { return false };
        match pipe.try_read(&mut piece) {
            Ok(0) => self.pipe = None,
            Ok(n) => {
                self.budget = self.budget.saturating_sub(n);
                self.tail.extend_from_slice(piece.get(..n).unwrap_or_default());
                let surplus = self.tail.len().saturating_sub(STDERR_TAIL);
                self.tail.drain(..surplus);
                return true;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.pipe = None,
        }
        false
    }

    fn tail(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.trim().to_owned()
    }
}
