//! How others reach the supervisor, and what it shows.

use super::desk::Ask;
use super::{ChildKey, Made, RenditionKey, children_of};
use crate::steward::Reconcile;
use fieldgate_model::Config;
use fieldgate_model::config::{Part, Path, Problem, Source};
use fieldgate_model::status::{Activity, State};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// The running side at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// What each child is doing.
    pub children: BTreeMap<ChildKey, Activity>,
    /// The streams under templates, each with its template.
    pub instances: BTreeMap<String, String>,
    /// Children that did not stop, not even when aborted, and were left behind.
    pub stuck: Vec<String>,
}

/// Why a stream cannot exist under a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstantiateError {
    /// No template fits, or the name is a mountpoint of its own.
    #[error("there is no template for {name}")]
    NoTemplate {
        /// The name.
        name: String,
    },
    /// As many as the template permits exist.
    #[error("{template} has its {max} streams already")]
    Full {
        /// The template.
        template: String,
        /// What it permits.
        max: u32,
    },
    /// Its ring would not fit.
    #[error("a ring of {needed} bytes more would exceed the memory budget of {budget} bytes")]
    NoMemory {
        /// What the ring may take.
        needed: u64,
        /// What all may take together.
        budget: u64,
    },
    /// The mountpoint itself did not start.
    #[error("{name} does not start: {cause}")]
    Start {
        /// The stream.
        name: String,
        /// Why.
        cause: String,
    },
    /// The supervisor has too much to do or is stopping.
    #[error("the gateway is busy")]
    Busy,
}

/// Reaches the supervisor; cheap to clone.
#[derive(Clone, Debug)]
pub struct SupervisorHandle {
    inbox: mpsc::Sender<Ask>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    config: watch::Receiver<Arc<Config>>,
}

impl SupervisorHandle {
    pub(super) fn new(
        inbox: mpsc::Sender<Ask>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        config: watch::Receiver<Arc<Config>>,
    ) -> Self {
        SupervisorHandle { inbox, snapshot, config }
    }

    /// Makes the running side fit `to`: stops what is gone or differs, then starts what is new. Answers when all that
    /// must be ready is, or has failed: with one problem for each of those. What failed stays, and is tried again.
    /// Sources and pushes are given a moment ([`super::SETTLE_WITHIN`]) and never fail the change.
    pub async fn reconcile(&self, to: Arc<Config>) -> Result<(), Vec<Problem>> {
        let stopping = || vec![Problem::new(&Path::root(), "the gateway is stopping")];
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Ask::Reconcile(to, reply)).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Lets a stream exist under a template; its mountpoint is in place when this answers. Again is fine.
    pub async fn instantiate(&self, name: &str) -> Result<(), InstantiateError> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Instantiate(name.to_owned(), reply);
        self.inbox.try_send(ask).map_err(|_| InstantiateError::Busy)?;
        answer.await.unwrap_or(Err(InstantiateError::Busy))
    }

    /// Ends a stream under a template, with its pushes. Others are not touched.
    pub async fn retire(&self, name: &str) {
        // A closed inbox means that everything ends anyway.
        self.inbox.send(Ask::Retire(name.to_owned())).await.ok();
    }

    /// Makes these renditions and no others; of mountpoints that there are not, none. Others are not touched.
    pub async fn set_renditions(&self, wanted: BTreeMap<RenditionKey, Made>) {
        self.inbox.send(Ask::Renditions(wanted)).await.ok();
    }

    /// Tries a waiting child at once. Whether there is one that waits is not answered.
    pub async fn retry_now(&self, key: ChildKey) {
        self.inbox.send(Ask::RetryNow(key)).await.ok();
    }

    /// What is running now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// Follows what is running.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// The config that runs, for what is read as one goes: keys, allow-lists, limits on connections.
    pub fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.config.clone()
    }
}

/// The supervisor as the steward sees it. `delivers` says which of the children that are ready really deliver (a camera
/// whose pipeline stands may still be silent), and of a `publish` source whether somebody publishes to it.
pub struct Supervised<F> {
    handle: SupervisorHandle,
    delivers: F,
}

impl<F> Supervised<F> {
    /// For [`crate::steward::Steward::running`].
    pub fn new(handle: SupervisorHandle, delivers: F) -> Self {
        Supervised { handle, delivers }
    }
}

impl<F: Fn(&ChildKey) -> bool + Send + Sync + 'static> Reconcile for Supervised<F> {
    async fn reconcile(&mut self, _from: &Config, to: &Config) -> Result<(), Vec<Problem>> {
        self.handle.reconcile(Arc::new(to.clone())).await
    }

    fn healthy(&self) -> BTreeSet<Part> {
        let snapshot = self.handle.snapshot();
        let config = self.handle.config.borrow().clone();
        let known = children_of(&config);
        let running = snapshot.children.iter().filter(|(_, activity)| activity.state == State::Running);
        let delivering = running.filter(|(key, _)| known.contains_key(*key) && (self.delivers)(key));
        let mut parts: BTreeSet<Part> = delivering.map(|(key, _)| key.part()).collect();
        // A list of listeners is healthy when all of them are.
        let lists = [
            Part::RtmpListen,
            Part::RtmpTls,
            Part::KmpListen,
            Part::KmpTls,
            Part::KmpApi,
            Part::Aggregator,
            Part::MeshNode,
            Part::Coordinator,
            Part::Control,
            Part::AdminListen,
        ];
        for part in lists {
            let mut of_part = known.keys().filter(|key| key.part() == part);
            if of_part
                .any(|key| snapshot.children.get(key).is_none_or(|activity| activity.state != State::Running))
            {
                parts.remove(&part);
            }
        }
        // A source that waits for publishers has no child; it delivers while somebody publishes.
        parts.extend(config.mountpoints.iter().filter_map(|(name, mountpoint)| {
            let is_publish = matches!(mountpoint.source, Source::Publish(_));
            let delivers = is_publish && (self.delivers)(&ChildKey::Source(name.clone()));
            delivers.then(|| Part::Source { name: name.clone() })
        }));
        parts
    }
}
