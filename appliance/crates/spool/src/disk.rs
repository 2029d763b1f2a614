//! The thread that does all disk work of the spool and the ledger.

use crate::backlog::{SpoolBacklog, SpoolKey, SpoolReport};
use crate::core::{Core, Folder, Settings, Shared};
use crate::fs::{DirFs, SpoolFs};
use crate::ledger::{Ledger, Log};
use fieldgate_hub::Clock;
use fieldgate_hub::backlog::{BacklogError, Batch};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Jobs that wait at most; reads beyond are refused, and the caller tries again.
const MAX_JOBS: usize = 256;
/// How often the thread looks round although nobody asked.
const LOOK_ROUND: Duration = Duration::from_secs(5);

/// Why a backlog can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The thread could not be started.
    #[error("the spool's thread can't be started")]
    Thread(#[source] io::Error),
    /// It has an owner already.
    #[error("the spool of {0} is in use already")]
    InUse(SpoolKey),
    /// The gateway stops.
    #[error("the spool is closed")]
    Closed,
}

/// What the thread is asked for.
pub(crate) enum Job {
    Wake,
    Open { key: SpoolKey, settings: Settings, reply: oneshot::Sender<Result<(u64, Arc<Shared>), SpoolError>> },
    Read { slot: u64, from_id: u64, max_bytes: usize, reply: oneshot::Sender<Result<Batch, BacklogError>> },
    Stop,
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Jobs(SyncSender<Job>);

impl Jobs {
    /// Makes it look at all backlogs. If its inbox is full it will anyway.
    pub(crate) fn wake(&self) {
        self.0.try_send(Job::Wake).ok();
    }

    pub(crate) fn try_send(&self, job: Job) -> Result<(), BacklogError> {
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => BacklogError::Busy,
            TrySendError::Disconnected(_) => BacklogError::Closed,
        })
    }
}

type Open = Arc<Mutex<Vec<(SpoolKey, Weak<Shared>)>>>;

/// All backlogs on disk and the ledger, below one folder.
pub struct Spool {
    jobs: Jobs,
    open: Open,
    ledger: Arc<Ledger>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Spool {
    /// Starts the thread. The folder is made when it is needed; one that can't be written costs durability, not media.
    pub fn start(folder: PathBuf, clock: Clock) -> Result<Spool, SpoolError> {
        let (jobs, inbox) = sync_channel(MAX_JOBS);
        let open = Open::default();
        let ledger = Arc::<Ledger>::default();
        let (opened, ledger_there) = sync_channel(1);
        let thread = {
            let (open, ledger) = (open.clone(), ledger.clone());
            let run = move || {
                let mut disk = Disk::new(folder, clock, open, ledger);
                // The first query shall find what was there.
                opened.send(()).ok();
                disk.run(&inbox);
            };
            std::thread::Builder::new().name("spool".to_owned()).spawn(run).map_err(SpoolError::Thread)?
        };
        ledger_there.recv().ok();
        Ok(Spool { jobs: Jobs(jobs), open, ledger, thread: Mutex::new(Some(thread)) })
    }

    /// Opens one upstream's backlog, with what it held before. Only one owner at a time.
    pub async fn open(&self, key: SpoolKey, settings: Settings) -> Result<SpoolBacklog, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Open { key, settings, reply };
        self.jobs.try_send(job).map_err(|_| SpoolError::Closed)?;
        let (slot, shared) = answer.await.map_err(|_| SpoolError::Closed)??;
        Ok(SpoolBacklog::new(slot, shared, self.jobs.clone(), settings.batch_bytes))
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What the open backlogs hold and cost.
    pub fn reports(&self) -> Vec<SpoolReport> {
        let report = |(key, shared): &(SpoolKey, Weak<Shared>)| {
            let shared = shared.upgrade()?;
            let tail = shared.lock();
            Some(SpoolReport {
                key: key.clone(),
                held: tail.held(),
                keeping: tail.keeping,
                appended_bytes: tail.appended_bytes,
                written_bytes: tail.written_bytes,
                flash_bytes_per_day: tail.flash_bytes_per_day,
                flash_bytes: tail.flash_bytes,
            })
        };
        lock(&self.open).iter().filter_map(report).collect()
    }

    /// Writes everything, closes it in order and ends the thread. Blocks on the disk.
    pub fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            self.jobs.0.send(Job::Stop).ok();
            thread.join().ok();
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(open: &Open) -> MutexGuard<'_, Vec<(SpoolKey, Weak<Shared>)>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's own.
struct Disk {
    folder: PathBuf,
    clock: Clock,
    open: Open,
    ledger: Arc<Ledger>,
    /// None while its folder can't be opened.
    log: Option<Log>,
    log_retry: Instant,
    cores: BTreeMap<u64, (SpoolKey, Core)>,
    next_slot: u64,
}

impl Disk {
    fn new(folder: PathBuf, clock: Clock, open: Open, ledger: Arc<Ledger>) -> Disk {
        let cores = BTreeMap::new();
        let log_retry = Instant::now();
        let mut disk = Disk { folder, clock, open, ledger, log: None, log_retry, cores, next_slot: 0 };
        disk.open_log(log_retry);
        disk
    }

    fn open_log(&mut self, now: Instant) {
        if self.log.is_some() || now < self.log_retry {
            return;
        }
        match folder_fs(&self.folder).and_then(|fs| Log::open(fs, &self.ledger)) {
            Ok(log) => self.log = Some(log),
            Err(error) => {
                tracing::warn!(%error, "the ledger can't be opened; it is kept in memory");
                self.log_retry = now + Duration::from_secs(60);
            }
        }
    }

    fn run(&mut self, inbox: &Receiver<Job>) {
        loop {
            let now = Instant::now();
            let dues = self.cores.values().filter_map(|(_, core)| core.next());
            let dues = dues.chain(self.log.as_ref().and_then(Log::due));
            let wait =
                dues.min().map_or(LOOK_ROUND, |due| due.saturating_duration_since(now).min(LOOK_ROUND));
            match inbox.recv_timeout(wait) {
                Ok(Job::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Job::Open { key, settings, reply }) => {
                    reply.send(self.open_backlog(key, settings)).ok();
                }
                Ok(Job::Read { slot, from_id, max_bytes, reply }) => {
                    let core = self.cores.get_mut(&slot);
                    let read =
                        core.map_or(Err(BacklogError::Closed), |(_, core)| core.read(from_id, max_bytes));
                    reply.send(read).ok();
                }
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => return self.stop(),
            }
            self.turn();
        }
    }

    fn turn(&mut self) {
        let (now, wall) = (Instant::now(), self.clock.unix_micros());
        let mut closed = Vec::new();
        for (slot, (_, core)) in &mut self.cores {
            core.turn(now, wall);
            if core.shared().lock().closed {
                closed.push(*slot);
            }
        }
        for slot in closed {
            if let Some((key, core)) = self.cores.remove(&slot) {
                lock(&self.open).retain(|(open, _)| *open != key);
                let lost = core.close(now, wall);
                self.ledger.settle_lost(&key, lost);
            }
        }
        self.open_log(now);
        if let Some(log) = &mut self.log {
            log.turn(&self.ledger, now);
        }
    }

    fn open_backlog(&mut self, key: SpoolKey, settings: Settings) -> Result<(u64, Arc<Shared>), SpoolError> {
        // One that its owner has just dropped is closed first.
        self.turn();
        if self.cores.values().any(|(open, _)| *open == key) {
            return Err(SpoolError::InUse(key));
        }
        let path = self.folder.join(key.folder());
        let folder: Folder = Box::new(move || folder_fs(&path));
        let core = Core::open(settings, folder, Instant::now());
        let shared = core.shared().clone();
        let slot = self.next_slot;
        self.next_slot += 1;
        lock(&self.open).push((key.clone(), Arc::downgrade(&shared)));
        self.cores.insert(slot, (key, core));
        Ok((slot, shared))
    }

    fn stop(&mut self) {
        for (_, core) in self.cores.values() {
            core.shared().lock().closed = true;
        }
        self.turn();
        if let Some(log) = self.log.take() {
            log.close(&self.ledger);
        }
    }
}

fn folder_fs(path: &Path) -> io::Result<Box<dyn SpoolFs>> {
    DirFs::open(path).map(|fs| Box::new(fs) as Box<dyn SpoolFs>)
}
