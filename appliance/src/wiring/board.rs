//! Where children leave what the status and the metrics show of them.

use crate::admin::Load;
use crate::clock::timestamp;
use crate::supervisor::ChildKey;
use fieldgate_hub::Clock;
use fieldgate_hub::link::Feeder;
use fieldgate_model::status::{ElsewhereState, ElsewhereStatus};
use fieldgate_net::{KmpPushReport, PushPhase, PushReport};
use fieldgate_worker::Report;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// A worker as its driver last saw it.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// What it reported.
    pub report: Report,
    /// When that was.
    pub at: Instant,
}

/// Tells how busy the admin plane is.
type AdminLoad = Box<dyn Fn() -> Load + Send + Sync>;

#[derive(Default)]
struct Notes {
    admin_load: Option<AdminLoad>,
    addresses: BTreeMap<ChildKey, Vec<SocketAddr>>,
    pushes: BTreeMap<ChildKey, Arc<PushReport>>,
    kmp_pushes: BTreeMap<ChildKey, KmpPushReport>,
    workers: BTreeMap<String, WorkerView>,
    feeders: BTreeMap<String, Feeder>,
    missing: BTreeMap<String, String>,
    elsewhere: BTreeMap<String, ElsewhereStatus>,
}

/// Notes of the children that run, by child.
#[derive(Default)]
pub struct Board {
    notes: Mutex<Notes>,
}

/// Bytes of a reason that are shown.
const REASON_MAX: usize = 300;

/// Tells the status how a connection to a coordinator or a master elsewhere is; gone with it.
pub struct ElsewhereSign {
    board: Arc<Board>,
    clock: Clock,
    part: &'static str,
}

impl ElsewhereSign {
    /// `part` is that of the config which wants the connection. It is looked for now.
    pub fn new(board: Arc<Board>, clock: Clock, part: &'static str) -> Self {
        let sign = ElsewhereSign { board, clock, part };
        sign.show(ElsewhereState::Connecting, None);
        sign
    }

    /// It is there.
    pub fn up(&self) {
        self.show(ElsewhereState::Up, None);
    }

    /// It is not, or not any more.
    pub fn lost(&self, why: &str) {
        self.show(ElsewhereState::Connecting, Some(why.chars().take(REASON_MAX).collect()));
    }

    fn show(&self, state: ElsewhereState, error: Option<String>) {
        let mut notes = self.board.lock();
        let before = notes.elsewhere.get(self.part).filter(|before| before.state == state);
        let since = before.map_or_else(|| timestamp(&self.clock), |before| before.since);
        notes.elsewhere.insert(self.part.to_owned(), ElsewhereStatus { state, since, error });
    }
}

impl Drop for ElsewhereSign {
    fn drop(&mut self) {
        self.board.lock().elsewhere.remove(self.part);
    }
}

impl Board {
    /// The connections to coordinators and masters elsewhere.
    pub fn elsewhere(&self) -> BTreeMap<String, ElsewhereStatus> {
        self.lock().elsewhere.clone()
    }

    /// Where a listener really listens.
    pub fn set_addresses(&self, key: ChildKey, addresses: Vec<SocketAddr>) {
        self.lock().addresses.insert(key, addresses);
    }

    /// How the admin plane's load is asked for, as long as it runs.
    pub fn set_admin_load(&self, load: AdminLoad) {
        self.lock().admin_load = Some(load);
    }

    /// How busy the admin plane is; nothing while it does not run.
    pub fn admin_load(&self) -> Load {
        self.lock().admin_load.as_ref().map(|load| load()).unwrap_or_default()
    }

    /// The report of a push; the same over all its tries.
    pub fn push_report(&self, key: &ChildKey) -> Arc<PushReport> {
        self.lock().pushes.entry(key.clone()).or_default().clone()
    }

    /// The report of a KMP push; the same over all its runs.
    pub fn kmp_report(&self, key: &ChildKey) -> KmpPushReport {
        self.lock().kmp_pushes.entry(key.clone()).or_default().clone()
    }

    /// What a push does now, by whatever protocol.
    pub fn push_phase(&self, key: &ChildKey) -> Option<PushPhase> {
        let notes = self.lock();
        let rtmp = notes.pushes.get(key).map(|report| report.phase());
        rtmp.or_else(|| notes.kmp_pushes.get(key).map(KmpPushReport::phase))
    }

    /// What a source's worker is like.
    pub fn set_worker(&self, mountpoint: &str, report: Report, now: Instant) {
        self.lock().workers.insert(mountpoint.to_owned(), WorkerView { report, at: now });
    }

    /// A worker has ended; what it was like at last.
    pub fn remove_worker(&self, mountpoint: &str) -> Option<WorkerView> {
        let mut notes = self.lock();
        notes.feeders.remove(mountpoint);
        notes.workers.remove(mountpoint)
    }

    /// How a rendition's worker is fed, until it ends.
    pub fn set_feeder(&self, mountpoint: &str, feeder: Feeder) {
        self.lock().feeders.insert(mountpoint.to_owned(), feeder);
    }

    /// Units that a rendition's worker, the one that runs now, was too slow for.
    pub fn dropped_units(&self, mountpoint: &str) -> u64 {
        let notes = self.lock();
        let fed = notes.feeders.get(mountpoint).map_or(0, |feeder| feeder.counters().dropped_units);
        fed + notes.workers.get(mountpoint).map_or(0, |worker| worker.report.health.dropped_units)
    }

    /// Why a source waits for its device; `None` when it is there.
    pub fn set_missing(&self, mountpoint: &str, why: Option<String>) {
        let mut notes = self.lock();
        match why {
            Some(why) => notes.missing.insert(mountpoint.to_owned(), why),
            None => notes.missing.remove(mountpoint),
        };
    }

    /// Why a source waits for its device, if it does.
    pub fn missing(&self, mountpoint: &str) -> Option<String> {
        self.lock().missing.get(mountpoint).cloned()
    }

    /// A child has ended for good.
    pub fn forget(&self, key: &ChildKey) {
        let mut notes = self.lock();
        notes.addresses.remove(key);
        notes.pushes.remove(key);
        notes.kmp_pushes.remove(key);
        if *key == ChildKey::Admin {
            notes.admin_load = None;
        }
    }

    /// All listeners.
    pub fn addresses(&self) -> BTreeMap<ChildKey, Vec<SocketAddr>> {
        self.lock().addresses.clone()
    }

    /// All pushes.
    pub fn pushes(&self) -> BTreeMap<ChildKey, Arc<PushReport>> {
        self.lock().pushes.clone()
    }

    /// All KMP pushes.
    pub fn kmp_pushes(&self) -> BTreeMap<ChildKey, KmpPushReport> {
        self.lock().kmp_pushes.clone()
    }

    /// All workers, by mountpoint.
    pub fn workers(&self) -> BTreeMap<String, WorkerView> {
        self.lock().workers.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
