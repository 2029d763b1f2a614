//! The config's one owner: every change, from wherever, goes through its inbox.
//!
//! ```text
//!                 +------------------ rolled back <------------------+
//!                 v                                                  | deadline, or it does not start
//!   Change --> Confirmed --> Applying --> AwaitingConfirm -----------+
//!                 ^             |               |
//!                 +-- promoted--+---------------+ confirmed over the new way in, and healthy again
//! ```
//!
//! A change is checked, written as a candidate, carried out by [`Reconcile`], and then either promoted at once (it only
//! adds or removes) or provisional: undone by itself unless it is confirmed. While one waits, others are refused, but
//! commands wait with it. What must survive a power cut is on flash before it is answered.

mod handle;
mod pending;
#[cfg(test)]
mod tests;

pub use handle::{Answer, Applied, ChangeError, Edit, Proof, Request, StewardHandle, View};

use crate::clock::timestamp;
use crate::store::{Confirmed, Store, StoreError};
use crate::supervisor::blips;
use fieldgate_hub::{Clock, Pulse};
use fieldgate_model::config::{Changes, Part, Problem, diff, validate_on};
use fieldgate_model::status::{ConfigPhase, ConfigStatus, PendingChange, RolledBack};
use fieldgate_model::{Command, Config};
use handle::Ask;
use pending::Pending;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Asks that may wait in the inbox; more are told that the gateway is busy.
const INBOX: usize = 16;
/// Commands that wait while a change awaits its confirmation; more are refused.
const WAITING_COMMANDS: usize = 64;
/// How often an idle steward shows that it lives.
const IDLE_BEAT: Duration = Duration::from_secs(2);
/// How often the health of a provisional change is looked at.
const HEALTH_POLL: Duration = Duration::from_millis(500);

/// What becomes of a question whether a change is admitted: all that speaks against it.
pub type Admitting = Pin<Box<dyn Future<Output = Vec<Problem>> + Send>>;

/// The running side, as the steward sees it.
pub trait Reconcile: Send + 'static {
    /// Makes the running side fit `to`; what both configs have in common goes on undisturbed. Ends within a bounded
    /// time; an error names all that did not start, and the running side then fits `to` as far as it could.
    fn reconcile(
        &mut self,
        from: &Config,
        to: &Config,
    ) -> impl Future<Output = Result<(), Vec<Problem>>> + Send;

    /// Why this machine is not up to a change, if so. Ends within a bounded time.
    fn admit(&self, _from: &Config, _to: &Config) -> Admitting {
        Box::pin(std::future::ready(Vec::new()))
    }

    /// The parts of the config that deliver at this moment.
    fn healthy(&self) -> BTreeSet<Part>;
}

/// What the steward is made with.
pub struct Steward<R> {
    /// The config's files.
    pub store: Store,
    /// The config that runs from the start on, and was confirmed; its revision is 0 if it was never stored.
    pub confirmed: Confirmed,
    /// The running side, which fits `confirmed` already.
    pub running: R,
    /// For times that are stored and shown.
    pub clock: Clock,
    /// Beaten after every round.
    pub pulse: Pulse,
    /// How long a provisional change waits for its confirmation.
    pub confirm_within: Duration,
    /// The machine's memory, for the default budget of rings.
    pub machine_memory_bytes: Option<u64>,
}

impl<R: Reconcile> Steward<R> {
    /// Puts the steward to work: the returned future is its task, the handle is how others reach it.
    pub fn start(self, cancel: CancellationToken) -> (StewardHandle, impl Future<Output = ()> + Send) {
        let (inbox, asks) = mpsc::channel(INBOX);
        let status = ConfigStatus {
            revision: self.confirmed.meta.revision,
            changed_by: self.confirmed.meta.by.clone(),
            changed_at: self.confirmed.meta.at,
            ..ConfigStatus::default()
        };
        let running = Arc::new(self.confirmed.config.clone());
        let history = self.store.history().clone();
        let (shown, view) =
            watch::channel(View { confirmed: Arc::new(self.confirmed), history, running, status });
        let desk = Desk {
            store: Some(self.store),
            running: self.running,
            clock: self.clock,
            pulse: self.pulse,
            confirm_within: self.confirm_within,
            machine_memory_bytes: self.machine_memory_bytes,
            pending: None,
            waiting: VecDeque::new(),
            shown,
        };
        (StewardHandle::new(inbox, view), desk.run(asks, cancel))
    }
}

async fn admitted(admitting: Admitting) -> Result<(), ChangeError> {
    let problems = admitting.await;
    if problems.is_empty() { Ok(()) } else { Err(ChangeError::Invalid(problems)) }
}

type Reply = oneshot::Sender<Result<Applied, ChangeError>>;

struct Desk<R> {
    /// Lent to the thread that works on the disk; always there between two steps.
    store: Option<Store>,
    running: R,
    clock: Clock,
    pulse: Pulse,
    confirm_within: Duration,
    machine_memory_bytes: Option<u64>,
    pending: Option<Pending>,
    waiting: VecDeque<(Command, String, Reply)>,
    shown: watch::Sender<View>,
}

impl<R: Reconcile> Desk<R> {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>, cancel: CancellationToken) {
        loop {
            self.pulse.beat();
            let wake = self.pending.as_ref().map_or(IDLE_BEAT, |pending| {
                HEALTH_POLL.min(pending.deadline.saturating_duration_since(Instant::now()))
            });
            tokio::select! {
                // Seen between two asks only: a change that has begun is finished or undone.
                biased;
                () = cancel.cancelled() => return,
                ask = asks.recv() => match ask {
                    Some(ask) => self.answer(ask).await,
                    None => return,
                },
                () = tokio::time::sleep(wake) => {}
            }
            self.look_at_pending().await;
            while self.pending.is_none()
                && let Some((command, by, reply)) = self.waiting.pop_front()
            {
                let outcome = self.command(&command, &by).await;
                reply.send(outcome).ok();
            }
        }
    }

    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Change(Request { edit: Edit::Command(command), by, over: None, dry_run: false }, reply) => {
                if self.pending.is_none() && self.waiting.is_empty() {
                    let outcome = self.command(&command, &by).await;
                    reply.send(outcome).ok();
                } else if self.waiting.len() < WAITING_COMMANDS {
                    self.waiting.push_back((command, by, reply));
                } else {
                    reply.send(Err(ChangeError::Busy)).ok();
                }
            }
            Ask::Change(request, reply) => {
                let outcome = self.change(request).await;
                reply.send(outcome).ok();
            }
            Ask::Confirm(proof, reply) => {
                let outcome = self.confirm(proof).await;
                reply.send(outcome).ok();
            }
            Ask::RollBack(by, reply) => {
                let outcome = match self.pending.take() {
                    Some(pending) => {
                        let cause =
                            Problem::new(&fieldgate_model::config::Path::root(), format!("undone by {by}"));
                        self.roll_back(pending, vec![cause]).await;
                        Ok(Applied::Confirmed { revision: self.revision() })
                    }
                    None => Err(ChangeError::NothingPending),
                };
                reply.send(outcome).ok();
            }
        }
    }

    /// A whole config or an edit with a known revision: architecture, "One configuration change".
    async fn change(&mut self, request: Request) -> Result<Applied, ChangeError> {
        let confirmed = self.confirmed();
        if self.pending.is_some() {
            return Err(ChangeError::Pending);
        }
        match (request.over, &request.edit) {
            (Some(over), _) if over != confirmed.meta.revision => {
                return Err(ChangeError::Stale { current: confirmed.meta.revision });
            }
            (None, Edit::Replace(_)) => return Err(ChangeError::MissingRevision),
            _ => {}
        }
        let candidate = self.checked(request.edit, &confirmed.config)?;
        admitted(self.running.admit(&confirmed.config, &candidate)).await?;
        let changes = diff(&confirmed.config, &candidate);
        if request.dry_run {
            let blips = blips(&confirmed.config, &candidate);
            return Ok(Applied::WouldApply { needs_confirm: changes.is_provisional(), changes, blips });
        }
        if changes.is_empty() {
            return Ok(Applied::Confirmed { revision: confirmed.meta.revision });
        }
        self.write_candidate(candidate.clone(), &request.by).await?;
        let baseline = self.running.healthy();
        self.show(&candidate, ConfigPhase::Applying);
        if let Err(causes) = self.running.reconcile(&confirmed.config, &candidate).await {
            warn!(by = request.by, causes = causes.len(), first = %first(&causes), "the change does not start");
            self.undo(&candidate, &request.by, causes.clone()).await;
            return Err(ChangeError::Invalid(causes));
        }
        if changes.is_provisional() {
            return Ok(self.await_confirm(candidate, changes, &baseline, request.by));
        }
        match self.promote(candidate.clone()).await {
            Ok(revision) => Ok(Applied::Confirmed { revision }),
            Err(error @ ChangeError::NotDurable(_)) => Err(error),
            Err(error) => {
                self.undo(&candidate, &request.by, vec![problem_of(&error)]).await;
                Err(error)
            }
        }
    }

    /// A durable wish: persisted first, so that its answer holds; how it starts is in the status.
    async fn command(&mut self, command: &Command, by: &str) -> Result<Applied, ChangeError> {
        let before = self.confirmed();
        let candidate = self.checked(Edit::Command(command.clone()), &before.config)?;
        if candidate == before.config {
            return Ok(Applied::Confirmed { revision: before.meta.revision });
        }
        admitted(self.running.admit(&before.config, &candidate)).await?;
        self.write_candidate(candidate.clone(), by).await?;
        let outcome = self.promote(candidate.clone()).await;
        match &outcome {
            Ok(_) | Err(ChangeError::NotDurable(_)) => {
                if let Err(causes) = self.running.reconcile(&before.config, &candidate).await {
                    warn!(by, first = %first(&causes), "what was added does not start yet");
                }
            }
            Err(_) => self.drop_candidate().await,
        }
        outcome.map(|revision| Applied::Confirmed { revision })
    }

    fn checked(&self, edit: Edit, before: &Config) -> Result<Config, ChangeError> {
        let (candidate, mut problems) = match edit {
            Edit::Replace(mut config) => {
                let problems = config.keep_secrets(before);
                (*config, problems)
            }
            Edit::Command(command) => (command.apply(before)?, Vec::new()),
        };
        if problems.is_empty() {
            problems = validate_on(&candidate, self.machine_memory_bytes);
        }
        if problems.is_empty() { Ok(candidate) } else { Err(ChangeError::Invalid(problems)) }
    }

    fn await_confirm(
        &mut self,
        candidate: Config,
        changes: Changes,
        baseline: &BTreeSet<Part>,
        by: String,
    ) -> Applied {
        let (applied_at, within) = (Instant::now(), self.confirm_within);
        let required = pending::required(&changes.scope(), baseline, &candidate);
        let shown = PendingChange {
            by: by.clone(),
            deadline: timestamp(&self.clock).plus(within),
            unhealthy: Vec::new(),
        };
        info!(by, ?within, "a change runs and waits for its confirmation");
        self.pending = Some(Pending {
            candidate,
            by,
            applied_at,
            deadline: applied_at + within,
            required,
            proven: false,
        });
        self.shown.send_modify(|view| {
            view.status.phase = ConfigPhase::AwaitingConfirm;
            view.status.pending = Some(shown);
        });
        Applied::AwaitingConfirm { revision: self.revision() + 1, within, unhealthy: Vec::new() }
    }

    async fn confirm(&mut self, proof: Proof) -> Result<Applied, ChangeError> {
        let pending = self.pending.as_mut().ok_or(ChangeError::NothingPending)?;
        if !proof.is_newer_than(pending.applied_at) {
            return Err(ChangeError::OldConnection);
        }
        pending.proven = true;
        let within = pending.deadline.saturating_duration_since(Instant::now());
        let unhealthy = pending.unhealthy(&self.running.healthy());
        if unhealthy.is_empty() {
            return self.settle().await;
        }
        let waiting =
            Applied::AwaitingConfirm { revision: self.revision() + 1, within, unhealthy: unhealthy.clone() };
        self.show_unhealthy(unhealthy);
        Ok(waiting)
    }

    /// A provisional change may have become healthy, or run out of time.
    async fn look_at_pending(&mut self) {
        let Some(pending) = &self.pending else { return };
        let unhealthy = pending.unhealthy(&self.running.healthy());
        if pending.proven && unhealthy.is_empty() {
            if let Err(error) = self.settle().await {
                error!(%error, "a confirmed change could not be kept");
            }
        } else if Instant::now() >= pending.deadline {
            let mut causes: Vec<Problem> = unhealthy.iter().map(|part| pending::not_healthy(part)).collect();
            if !pending.proven {
                let cause = format!("was not confirmed within {} s", self.confirm_within.as_secs());
                causes.push(Problem::new(&fieldgate_model::config::Path::root(), cause));
            }
            if let Some(pending) = self.pending.take() {
                self.roll_back(pending, causes).await;
            }
        } else {
            self.show_unhealthy(unhealthy);
        }
    }

    /// Promotes the provisional change.
    async fn settle(&mut self) -> Result<Applied, ChangeError> {
        let pending = self.pending.take().ok_or(ChangeError::NothingPending)?;
        match self.promote(pending.candidate.clone()).await {
            Ok(revision) => Ok(Applied::Confirmed { revision }),
            Err(error @ ChangeError::NotDurable(_)) => Err(error),
            Err(error) => {
                self.roll_back(pending, vec![problem_of(&error)]).await;
                Err(error)
            }
        }
    }

    async fn roll_back(&mut self, pending: Pending, causes: Vec<Problem>) {
        warn!(by = pending.by, first = %first(&causes), "the change is undone");
        self.undo(&pending.candidate, &pending.by, causes).await;
    }

    /// Brings the running side back to the confirmed config and says why.
    async fn undo(&mut self, candidate: &Config, by: &str, causes: Vec<Problem>) {
        let confirmed = self.confirmed();
        self.show(&confirmed.config, ConfigPhase::RollingBack);
        if let Err(left) = self.running.reconcile(candidate, &confirmed.config).await {
            // The confirmed config ran before; what does not start again is retried and shows in the status.
            error!(first = %first(&left), "not everything is back after a change was undone");
        }
        self.drop_candidate().await;
        let undone = RolledBack { at: timestamp(&self.clock), by: by.to_owned(), causes };
        self.shown.send_modify(|view| {
            view.status.phase = ConfigPhase::Confirmed;
            view.status.pending = None;
            view.status.rolled_back = Some(undone);
        });
    }

    async fn write_candidate(&mut self, config: Config, by: &str) -> Result<(), ChangeError> {
        let (by, at) = (by.to_owned(), timestamp(&self.clock));
        self.on_disk(move |store| store.write_candidate(&config, &by, at)).await?;
        Ok(())
    }

    async fn promote(&mut self, config: Config) -> Result<u64, ChangeError> {
        let before = self.confirmed();
        let promote = |store: &mut Store| {
            let candidate = store.candidate().cloned();
            let promoted = store.promote();
            Ok((candidate, promoted, store.history().clone()))
        };
        let (candidate, promoted, history) = self.on_disk(promote).await?;
        let (meta, not_durable) = match (candidate, promoted) {
            (_, Ok(meta)) => (meta, None),
            (Some(meta), Err(error @ StoreError::NotDurable(_))) => {
                (meta, Some(ChangeError::NotDurable(chain(&error))))
            }
            (_, Err(error)) => return Err(error.into()),
        };
        info!(revision = meta.revision, by = meta.by, "config confirmed");
        let needs_restart = diff(&before.config, &config).needs_restart();
        let confirmed = Arc::new(Confirmed { config, meta });
        let revision = confirmed.meta.revision;
        self.shown.send_modify(|view| {
            view.running = Arc::new(confirmed.config.clone());
            view.status = ConfigStatus {
                revision,
                changed_by: confirmed.meta.by.clone(),
                changed_at: confirmed.meta.at,
                needs_restart: needs_restart || view.status.needs_restart,
                ..ConfigStatus::default()
            };
            view.confirmed = confirmed;
            view.history = history;
        });
        not_durable.map_or(Ok(revision), Err)
    }

    async fn drop_candidate(&mut self) {
        if let Err(error) = self.on_disk(Store::drop_candidate).await {
            // Harmless: the next boot drops it.
            warn!(%error, "the undone change could not be removed");
        }
    }

    /// Runs on a thread that may block. The store comes back with the outcome.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let mut store = self.store.take().expect("the store is back after each step");
        let (store, outcome) = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut store);
            (store, outcome)
        })
        .await
        .expect("a panic of the store ends the program, as one of the steward does");
        self.store = Some(store);
        outcome
    }

    fn confirmed(&self) -> Arc<Confirmed> {
        self.shown.borrow().confirmed.clone()
    }

    fn revision(&self) -> u64 {
        self.shown.borrow().confirmed.meta.revision
    }

    fn show(&self, running: &Config, phase: ConfigPhase) {
        self.shown.send_modify(|view| {
            view.running = Arc::new(running.clone());
            view.status.phase = phase;
        });
    }

    fn show_unhealthy(&self, unhealthy: Vec<String>) {
        self.shown.send_if_modified(|view| match &mut view.status.pending {
            Some(pending) if pending.unhealthy != unhealthy => {
                pending.unhealthy = unhealthy;
                true
            }
            _ => false,
        });
    }
}

fn problem_of(error: &ChangeError) -> Problem {
    Problem::new(&fieldgate_model::config::Path::root(), error.to_string())
}

fn first(problems: &[Problem]) -> String {
    problems.first().map(ToString::to_string).unwrap_or_default()
}

/// An error with all its causes, for the status and the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
