//! How others reach the steward.

use super::Reply;
use super::chain;
use crate::store::{Confirmed, History, StoreError};
use crate::supervisor::Blip;
use fieldgate_model::config::{Changes, Problem};
use fieldgate_model::status::ConfigStatus;
use fieldgate_model::{Command, CommandError, Config};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// What shall be changed.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The whole config; secrets may be given as "as it was".
    Replace(Box<Config>),
    /// One durable wish.
    Command(Command),
}

/// A wish to change the config.
#[derive(Clone, Debug)]
pub struct Request {
    /// What.
    pub edit: Edit,
    /// The revision that the sender has seen; a whole config needs it.
    pub over: Option<u64>,
    /// Who wishes, for the record.
    pub by: String,
    /// Only look whether it could be done.
    pub dry_run: bool,
}

/// What shows that the gateway can still be reached after a change.
#[derive(Clone, Copy, Debug)]
pub enum Proof {
    /// An authenticated request on a connection, or a session of ours with a server, that was opened then.
    Opened(Instant),
    /// Nobody needs to come (a change from a USB stick): health alone decides.
    HealthAlone,
}

impl Proof {
    pub(super) fn is_newer_than(self, applied_at: Instant) -> bool {
        match self {
            Proof::Opened(opened) => opened > applied_at,
            Proof::HealthAlone => true,
        }
    }
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is confirmed and on flash.
    Confirmed {
        /// The confirmed config's revision.
        revision: u64,
    },
    /// It runs and is undone unless it is confirmed in time.
    AwaitingConfirm {
        /// The revision that it will have.
        revision: u64,
        /// Time left.
        within: Duration,
        /// What does not deliver again yet; confirmation waits for it.
        unhealthy: Vec<String>,
    },
    /// It could be done.
    WouldApply {
        /// Whether it would need confirming.
        needs_confirm: bool,
        /// What it would change.
        changes: Changes,
        /// What it would interrupt.
        blips: Vec<Blip>,
    },
}

/// Why the config was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It cannot be run, or did not start (HTTP: 422).
    #[error("this config cannot be applied: {}", .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<Problem>),
    /// The config was changed in between (412).
    #[error("the config is at revision {current} by now; read it again and repeat the change")]
    Stale {
        /// The confirmed revision.
        current: u64,
    },
    /// A whole config came without the revision that it is meant to replace (428).
    #[error("say with If-Match which revision is to be changed")]
    MissingRevision,
    /// Another change awaits its confirmation (409).
    #[error("another change awaits its confirmation; confirm it or wait until it is undone")]
    Pending,
    /// There is nothing to confirm (409).
    #[error("no change awaits a confirmation")]
    NothingPending,
    /// The proof is older than the change (403 or 409).
    #[error("a change is confirmed over a connection that was opened after it was applied; open a new one")]
    OldConnection,
    /// The command does not fit the config (404 or 409).
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Too many asks at once (503).
    #[error("the gateway is busy with other changes; try again in a moment")]
    Busy,
    /// The program is stopping (503).
    #[error("the gateway is stopping")]
    Stopping,
    /// It could not be stored; nothing was changed (500).
    #[error("{0}")]
    Store(String),
    /// It is confirmed and runs, but may not outlast a power cut (500).
    #[error("{0}")]
    NotDurable(String),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        ChangeError::Store(chain(&error))
    }
}

/// What the steward shows.
#[derive(Clone, Debug)]
pub struct View {
    /// The confirmed config and its origin.
    pub confirmed: Arc<Confirmed>,
    /// The configs that were confirmed before it.
    pub history: History,
    /// The config that runs: the confirmed one, or a provisional change of it.
    pub running: Arc<Config>,
    /// Where the config stands.
    pub status: ConfigStatus,
}

pub(super) enum Ask {
    Change(Request, Reply),
    Confirm(Proof, Reply),
    RollBack(String, Reply),
}

/// Reaches the steward; cheap to clone. Whoever drops an answer's future leaves the change to go on.
#[derive(Clone)]
pub struct StewardHandle {
    inbox: mpsc::Sender<Ask>,
    view: watch::Receiver<View>,
}

/// An answer to come.
pub struct Answer(oneshot::Receiver<Result<Applied, ChangeError>>);

impl Answer {
    /// Waits for it in a task.
    pub async fn wait(self) -> Result<Applied, ChangeError> {
        self.0.await.unwrap_or(Err(ChangeError::Stopping))
    }

    /// Waits for it on a thread of one's own; must not be called from a task.
    pub fn wait_blocking(self) -> Result<Applied, ChangeError> {
        self.0.blocking_recv().unwrap_or(Err(ChangeError::Stopping))
    }
}

impl StewardHandle {
    pub(super) fn new(inbox: mpsc::Sender<Ask>, view: watch::Receiver<View>) -> Self {
        StewardHandle { inbox, view }
    }

    /// Asks for a change. [`ChangeError::Busy`] at once if too many wait.
    pub fn change(&self, request: Request) -> Result<Answer, ChangeError> {
        self.ask(|reply| Ask::Change(request, reply))
    }

    /// Confirms the change that waits, at once or as soon as it is healthy.
    pub fn confirm(&self, proof: Proof) -> Result<Answer, ChangeError> {
        self.ask(|reply| Ask::Confirm(proof, reply))
    }

    /// Undoes the change that waits, without waiting for its deadline.
    pub fn roll_back(&self, by: &str) -> Result<Answer, ChangeError> {
        self.ask(|reply| Ask::RollBack(by.to_owned(), reply))
    }

    /// Carries out a durable command. Waits for room in the inbox and for a change that awaits its confirmation.
    pub async fn command(&self, command: Command, by: &str) -> Result<Applied, ChangeError> {
        let (reply, answer) = oneshot::channel();
        let request = Request { edit: Edit::Command(command), over: None, by: by.to_owned(), dry_run: false };
        self.inbox.send(Ask::Change(request, reply)).await.map_err(|_| ChangeError::Stopping)?;
        Answer(answer).wait().await
    }

    /// What the steward shows now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Follows what the steward shows.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    fn ask(&self, ask: impl FnOnce(Reply) -> Ask) -> Result<Answer, ChangeError> {
        let (reply, answer) = oneshot::channel();
        match self.inbox.try_send(ask(reply)) {
            Ok(()) => Ok(Answer(answer)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(ChangeError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ChangeError::Stopping),
        }
    }
}
