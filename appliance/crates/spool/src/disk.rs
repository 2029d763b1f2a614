//! The thread that does all disk work of the spool and the ledger.

use crate::abandon;
use crate::backlog::{SpoolBacklog, SpoolKey, SpoolReport};
use crate::core::{Core, Folder, Settings, Shared};
use crate::fs::{DirFs, SpoolFs};
use crate::ledger::{self, Ledger, Log};
use fieldgate_hub::Clock;
use fieldgate_hub::backlog::{BacklogError, Batch};
use std::collections::{BTreeMap, BTreeSet};
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

pub(crate) type Open = Arc<Mutex<Vec<(SpoolKey, Weak<Shared>)>>>;
/// Says whether somebody has this key.
pub(crate) type Wanted = Box<dyn Fn(&SpoolKey) -> bool + Send>;
/// A new one for the thread.
pub(crate) type NextWanted = Arc<Mutex<Option<Wanted>>>;

/// All backlogs on disk and the ledger, below one folder.
pub struct Spool {
    jobs: Jobs,
    open: Open,
    wanted: NextWanted,
    ledger: Arc<Ledger>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Spool {
    /// Starts the thread. The folder is made when it is needed; one that can't be written costs durability, not media.
    pub fn start(folder: PathBuf, clock: Clock) -> Result<Spool, SpoolError> {
        let (jobs, inbox) = sync_channel(MAX_JOBS);
        let (open, wanted) = (Open::default(), NextWanted::default());
        let ledger = Arc::<Ledger>::default();
        ledger.saved_by(Jobs(jobs.clone()));
        let (opened, ledger_there) = sync_channel(1);
        let thread = {
            let (open, wanted, ledger) = (open.clone(), wanted.clone(), ledger.clone());
            let run = move || {
                let mut disk = Disk::new(folder, Arc::new(folder_fs), clock, open, wanted, ledger);
                // The first query shall find what was there.
                opened.send(()).ok();
                disk.run(&inbox);
            };
            std::thread::Builder::new().name("spool".to_owned()).spawn(run).map_err(SpoolError::Thread)?
        };
        ledger_there.recv().ok();
        Ok(Spool { jobs: Jobs(jobs), open, wanted, ledger, thread: Mutex::new(Some(thread)) })
    }

    /// Opens one upstream's backlog, with what it held before. Only one owner at a time.
    pub async fn open(&self, key: SpoolKey, settings: Settings) -> Result<SpoolBacklog, SpoolError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Open { key, settings, reply };
        self.jobs.try_send(job).map_err(|_| SpoolError::Closed)?;
        let (slot, shared) = answer.await.map_err(|_| SpoolError::Closed)??;
        Ok(SpoolBacklog::new(slot, shared, self.jobs.clone(), settings.batch_bytes))
    }

    /// From now on only these backlogs are wanted: what the folders of others hold is written down as lost
    /// ([`LossCause::Abandoned`](fieldgate_hub::backlog::LossCause::Abandoned)), and they are deleted. One that is open
    /// is kept until it is closed; one that is opened later is kept until this is called again.
    pub fn keep_only(&self, wanted: impl Fn(&SpoolKey) -> bool + Send + 'static) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(wanted));
        self.jobs.wake();
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

/// Opens a folder.
pub(crate) type OpenFolder = Arc<dyn Fn(&Path) -> io::Result<Box<dyn SpoolFs>> + Send + Sync>;

/// The thread's own.
pub(crate) struct Disk {
    folder: PathBuf,
    folders: OpenFolder,
    clock: Clock,
    open: Open,
    ledger: Arc<Ledger>,
    /// None while its folder can't be opened.
    log: Option<Log>,
    log_retry: Instant,
    pub(crate) cores: BTreeMap<u64, (SpoolKey, Core)>,
    next_slot: u64,
    next_wanted: NextWanted,
    /// None until it is known.
    wanted: Option<Wanted>,
    /// Opened since although they were not wanted.
    opened_since: BTreeSet<SpoolKey>,
    /// When to look for folders that nobody wants; none if there can be none.
    sweep_at: Option<Instant>,
    /// Folders whose losses are written down and that are not gone yet.
    doomed: BTreeSet<String>,
}

impl Disk {
    pub(crate) fn new(
        folder: PathBuf,
        folders: OpenFolder,
        clock: Clock,
        open: Open,
        next_wanted: NextWanted,
        ledger: Arc<Ledger>,
    ) -> Disk {
        let log_retry = Instant::now();
        let mut disk = Disk {
            folder,
            folders,
            clock,
            open,
            ledger,
            log: None,
            log_retry,
            cores: BTreeMap::new(),
            next_slot: 0,
            next_wanted,
            wanted: None,
            opened_since: BTreeSet::new(),
            sweep_at: None,
            doomed: BTreeSet::new(),
        };
        disk.open_log(log_retry);
        disk
    }

    fn open_log(&mut self, now: Instant) {
        if self.log.is_some() || now < self.log_retry {
            return;
        }
        match (self.folders)(&self.folder).and_then(|fs| Log::open(fs, &self.ledger)) {
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

    pub(crate) fn turn(&mut self) {
        let (now, wall) = (Instant::now(), self.clock.unix_micros());
        self.open_log(now);
        for (key, core) in self.cores.values() {
            if let Some(first) = core.take_first() {
                self.ledger.goes_on(key, first);
            }
        }
        // Before anything that the backlogs write.
        if let Some(log) = &mut self.log {
            log.turn(&self.ledger, now);
        }
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
                // It may have come in this very turn.
                if let Some(first) = core.take_first() {
                    self.ledger.goes_on(&key, first);
                }
                let lost = core.close(now, wall);
                self.ledger.settle_lost(&key, lost);
                // It is closed in order: then the ledger must not know less than its files.
                if let Some(log) = &mut self.log {
                    log.save(&self.ledger);
                }
                if !self.is_wanted(&key) {
                    self.sweep_at = Some(now);
                }
            }
        }
        let wanted = self.next_wanted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if wanted.is_some() {
            self.wanted = wanted;
            self.opened_since.clear();
            self.sweep_at = Some(now);
        }
        if self.sweep_at.is_some_and(|at| now >= at) {
            self.sweep_at = None;
            if !self.sweep() {
                self.sweep_at = Some(now + LOOK_ROUND);
            }
        }
    }

    fn is_wanted(&self, key: &SpoolKey) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted(key)) || self.opened_since.contains(key)
    }

    /// Names what unwanted folders hold, and deletes them once that is on disk; false if it can't be put there now.
    fn sweep(&mut self) -> bool {
        if self.log.is_none() {
            return false;
        }
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return true };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names: Vec<String> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let mut unwanted = Vec::new();
        for name in names {
            let Some(key) = abandon::owner(&name, &self.ledger) else { continue };
            let is_open = self.cores.values().any(|(open, _)| *open == key);
            if !is_open && !self.is_wanted(&key) {
                unwanted.push((name, key));
            }
        }
        for (name, key) in &unwanted {
            if self.doomed.contains(name) {
                continue;
            }
            let wall = self.clock.unix_micros();
            let named = (self.folders)(&self.folder.join(name))
                .and_then(|fs| abandon::name_losses(fs, key, &self.ledger, wall));
            match named {
                Ok(frames) => {
                    tracing::info!(%key, frames, "nobody has this spool any more; it is deleted");
                    self.doomed.insert(name.clone());
                }
                Err(error) => tracing::warn!(%key, %error, "an abandoned spool can't be read; it stays"),
            }
        }
        if !self.log.as_mut().is_some_and(|log| log.save(&self.ledger)) {
            return false;
        }
        for (name, key) in &unwanted {
            if !self.doomed.contains(name) {
                continue;
            }
            let path = self.folder.join(name);
            let gone = (self.folders)(&path)
                .and_then(|mut fs| abandon::clear(fs.as_mut()))
                .and_then(|()| std::fs::remove_dir(&path));
            match gone {
                Ok(()) => {
                    self.doomed.remove(name);
                }
                Err(error) => tracing::warn!(%key, %error, "an abandoned spool can't be deleted"),
            }
        }
        true
    }

    pub(crate) fn open_backlog(
        &mut self,
        key: SpoolKey,
        settings: Settings,
    ) -> Result<(u64, Arc<Shared>), SpoolError> {
        // One that its owner has just dropped is closed first.
        self.turn();
        if self.cores.values().any(|(open, _)| *open == key) {
            return Err(SpoolError::InUse(key));
        }
        let path = self.folder.join(key.folder());
        self.doomed.remove(&key.folder());
        if !self.is_wanted(&key) {
            self.opened_since.insert(key.clone());
        }
        let folders = self.folders.clone();
        let folder: Folder = Box::new(move || folders(&path));
        let mut core = Core::open(settings, folder, Instant::now());
        let shared = core.shared().clone();
        // What the last stop may have cost is written down before anything else is.
        if let Some(interrupted) = core.found() {
            let found = ledger::stretch(&shared.lock().held());
            self.ledger.begin(&key, found, interrupted, self.clock.unix_micros());
            let told = self.log.as_mut().is_some_and(|log| log.save(&self.ledger));
            if interrupted {
                core.announce_first(told);
            }
        }
        let slot = self.next_slot;
        self.next_slot += 1;
        lock(&self.open).push((key.clone(), Arc::downgrade(&shared)));
        self.cores.insert(slot, (key, core));
        Ok((slot, shared))
    }

    pub(crate) fn stop(&mut self) {
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
