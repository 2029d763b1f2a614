//! Takes one bundle after the other.
//!
//! A bundle's number is on flash before anything of it is done. If the power fails while it is carried out, the same bundle
//! may come again and is begun anew, at most [`ATTEMPTS_MAX`] times: one that brings the gateway down must not do so for
//! ever.

use super::book::{Last, Outcome};
use super::{Asked, Shared, TakeError, Way};
use crate::steward::{Applied, ChangeError, Edit, Proof, Request, View};
use fieldgate_fleet::{Bundle, Content, Digest, Taken, Target, Variables, Verdict, judge};
use fieldgate_model::Config;
use fieldgate_model::config::{Part, Path, Problem, diff};
use fieldgate_model::status::ConfigPhase;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often one bundle is begun with.
const ATTEMPTS_MAX: u32 = 3;
/// How long a bundle that nobody waits for lets another change come to its end.
const PENDING_PATIENCE: Duration = Duration::from_secs(600);
/// How often a change of the config in between may make a bundle begin anew.
const STALE_MAX: u32 = 5;

/// What became of a bundle that was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The steward has it.
    Applied {
        /// The bundle's number.
        number: u64,
        /// How far it has come.
        applied: Applied,
    },
    /// It was taken before; nothing was done.
    Known(Box<Last>),
}

/// Carries bundles out.
pub struct Desk {
    shared: Arc<Shared>,
    asked: mpsc::Receiver<Asked>,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, asked: mpsc::Receiver<Asked>) -> Self {
        Desk { shared, asked }
    }

    /// Works until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut config = self.shared.steward.watch();
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                asked = self.asked.recv() => match asked {
                    // What has begun is finished by the steward, also if nobody waits for it here any more.
                    Some(asked) => tokio::select! {
                        () = self.handle(asked) => {}
                        () = cancel.cancelled() => return,
                    },
                    None => return,
                },
                changed = config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    config.borrow_and_update();
                    self.shared.show();
                }
            }
        }
    }

    async fn handle(&self, asked: Asked) {
        let Asked { text, way, by, reply } = asked;
        let mut reply = Some(reply);
        if let Err(error) = self.take(&text, way, &by, &mut reply).await {
            warn!(way = way.name(), by, code = error.code(), %error, "a bundle is not carried out");
            self.shared.refused(&Digest::of(&text), &error, way);
            if let Some(reply) = reply.take() {
                reply.send(Err(error)).ok();
            }
        }
    }

    async fn take(&self, text: &str, way: Way, by: &str, reply: &mut Reply) -> Result<(), TakeError> {
        let shared = &self.shared;
        let keys = shared.book().keys.clone();
        let bundle = Bundle::open(text, &keys)?;
        let (device, last) = {
            let book = shared.book();
            (book.device.clone(), book.last.clone())
        };
        let groups = shared.groups();
        let taken = last.as_ref().map(|last| &last.taken);
        let target = Target { device: &device, groups: &groups, now: shared.now(), taken };
        let mut attempts = 1;
        if let (Verdict::Known, Some(last)) = (judge(&bundle, &target)?, last) {
            if last.outcome != Outcome::UnderWay {
                answer(reply, Ok(Pushed::Known(Box::new(last))));
                return Ok(());
            }
            if last.attempts >= ATTEMPTS_MAX {
                let reason = format!("the gateway went down {ATTEMPTS_MAX} times while it was carried out");
                self.settle(Outcome::rolled_back([reason])).await;
                return Ok(());
            }
            attempts = last.attempts + 1;
        }
        self.wait_for_others(way).await?;
        let number = bundle.draft.number;
        let begun = Last {
            taken: Taken { number, digest: bundle.digest.clone(), issued: bundle.draft.issued },
            key: bundle.key.clone(),
            way,
            at: shared.now(),
            attempts,
            outcome: Outcome::UnderWay,
        };
        self.keep(begun).await.map_err(TakeError::Store)?;
        info!(number, key = bundle.key, way = way.name(), by, "a bundle is carried out");
        let by = format!("bundle {number} of {} by {}", bundle.key, way.name());
        let applied = match self.carry_out(&bundle, &device, way, &by).await {
            Ok(applied) => applied,
            Err(error) => {
                let outcome = match &error {
                    TakeError::Config(problems) | TakeError::Change(ChangeError::Invalid(problems)) => {
                        Outcome::refused(problems.iter().map(ToString::to_string))
                    }
                    other => Outcome::refused([other.to_string()]),
                };
                self.settle(outcome).await;
                return Err(error);
            }
        };
        answer(reply, Ok(Pushed::Applied { number, applied: applied.clone() }));
        match applied {
            Applied::Confirmed { revision } => self.settle(Outcome::Applied { revision }).await,
            Applied::AwaitingConfirm { revision, within, .. } => {
                self.await_confirm(way, revision, within).await
            }
            Applied::WouldApply { .. } => {}
        }
        Ok(())
    }

    /// Who waits for an answer is told to come again; what comes by itself waits.
    async fn wait_for_others(&self, way: Way) -> Result<(), TakeError> {
        let mut view = self.shared.steward.watch();
        let waits = |view: &View| view.status.pending.is_some();
        if !waits(&view.borrow()) {
            return Ok(());
        }
        if way == Way::Http {
            return Err(TakeError::Pending);
        }
        let over = view.wait_for(|view| !waits(view));
        match timeout_at(Instant::now() + PENDING_PATIENCE, over).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(TakeError::Stopping),
            Err(_) => Err(TakeError::Pending),
        }
    }

    async fn carry_out(
        &self,
        bundle: &Bundle,
        device: &str,
        way: Way,
        by: &str,
    ) -> Result<Applied, TakeError> {
        let variables = built_in(device, &self.shared.hostname);
        let content = bundle.content_for(device, &variables)?;
        let mut stale = 0;
        loop {
            let confirmed = self.shared.steward.view().confirmed;
            let mut config = config_of(&content, &confirmed.config).map_err(TakeError::Config)?;
            if way == Way::Folder {
                keep_ways_in(&mut config, &confirmed.config).map_err(TakeError::Config)?;
            }
            let request = Request {
                edit: Edit::Replace(Box::new(config)),
                over: Some(confirmed.meta.revision),
                by: by.to_owned(),
                dry_run: false,
            };
            let outcome = match self.shared.steward.change(request) {
                Ok(answer) => answer.wait().await,
                Err(error) => Err(error),
            };
            match outcome {
                Err(ChangeError::Stale { .. } | ChangeError::Pending | ChangeError::Busy)
                    if stale < STALE_MAX =>
                {
                    stale += 1;
                    self.wait_for_others(if way == Way::Http { Way::Pull } else { way }).await?;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                other => return other.map_err(TakeError::Change),
            }
        }
    }

    /// Waits until the change is confirmed or undone, and asks for the proof that its way needs.
    async fn await_confirm(&self, way: Way, revision: u64, within: Duration) {
        let steward = &self.shared.steward;
        let mut view = steward.watch();
        if way == Way::Folder {
            if let Ok(answer) = steward.confirm(Proof::HealthAlone) {
                answer.wait().await.ok();
            }
        } else {
            self.shared.proof.send_replace(Some((way, Instant::now())));
        }
        let is_over =
            |view: &View| view.status.phase == ConfigPhase::Confirmed && view.status.pending.is_none();
        // The steward keeps its own deadline; this one is for a steward that does not.
        let late = Instant::now() + within + PENDING_PATIENCE;
        let outcome = match timeout_at(late, view.wait_for(is_over)).await {
            Ok(Ok(view)) if view.confirmed.meta.revision == revision => Outcome::Applied { revision },
            Ok(Ok(view)) => {
                let causes = view.status.rolled_back.iter().flat_map(|undone| &undone.causes);
                Outcome::rolled_back(causes.map(ToString::to_string))
            }
            // The program ends: what is not confirmed is dropped at the next start, and the bundle comes again.
            Ok(Err(_)) | Err(_) => return,
        };
        self.shared.proof.send_replace(None);
        self.settle(outcome).await;
    }

    /// On flash before it is true.
    async fn keep(&self, last: Last) -> Result<(), String> {
        let shared = self.shared.clone();
        let kept = tokio::task::spawn_blocking(move || {
            shared.change(|book| {
                book.last = Some(last);
                Ok(())
            })
        });
        kept.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    async fn settle(&self, outcome: Outcome) {
        info!(?outcome, "a bundle has come to its end");
        let Some(last) = self.shared.book().last.clone() else { return };
        let last = Last { outcome, ..last };
        if let Err(error) = self.keep(last.clone()).await {
            // The bundle may come again after the next start, and ends the same way.
            warn!(%error, "the outcome of a bundle cannot be kept");
            self.shared.book().last = Some(last);
            self.shared.show();
        }
    }
}

type Reply = Option<oneshot::Sender<Result<Pushed, TakeError>>>;

fn answer(reply: &mut Reply, outcome: Result<Pushed, TakeError>) {
    if let Some(reply) = reply.take() {
        reply.send(outcome).ok();
    }
}

/// The variables that every gateway has.
pub(crate) fn built_in(device: &str, hostname: &str) -> Variables {
    let of = |name: &str, value: &str| (name.to_owned(), Value::from(value));
    Variables::from([of("device_id", device), of("hostname", hostname)])
}

fn config_of(content: &Content, confirmed: &Config) -> Result<Config, Vec<Problem>> {
    match content {
        Content::Config(config) => Config::from_value(config.clone()),
        Content::Patch(patch) => confirmed.patched(&patch.to_string()),
    }
}

/// What came from a stick changes neither the network nor who may manage the gateway: whoever holds the stick is at the
/// site, and nobody proves that the way in still works.
fn keep_ways_in(config: &mut Config, confirmed: &Config) -> Result<(), Vec<Problem>> {
    let problems = config.keep_secrets(confirmed);
    if !problems.is_empty() {
        return Err(problems);
    }
    let is_way_in = |part: &Part| matches!(part, Part::AdminListen | Part::Fleet | Part::Network);
    let touched = diff(confirmed, config).0.into_iter().map(|change| change.part).filter(is_way_in);
    let problems: Vec<Problem> = touched
        .map(|part| {
            let text = format!("{part} is not changed by a bundle from a folder; send it another way");
            Problem::new(&Path::root(), text)
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
