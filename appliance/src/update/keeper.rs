//! Follows an update from its installation to its end, and fetches what the config wants.

use super::book::{Last, Phase};
use super::fetch::{Fetch, FetchError, Piece};
use super::{Origin, UpdateError, Updates, judge, lock, stick};
use crate::machine::{AskError, Firmware};
use crate::steward::chain;
use crate::supervisor::{Backoff, random_jitter};
use fieldgate_model::config::Update;
use fieldgate_model::{Config, Status};
use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::Ordering as Atomic;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How old an answer of RAUC's may be for somebody who looks.
pub(super) const FRESH: Duration = Duration::from_secs(10);
/// From one look to the next while something goes on, and while nothing does.
const BUSY: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(600);
/// Ends of the gateway in one start of the machine after which new firmware is given up.
pub(super) const MAX_CRASHES: usize = 4;

/// What a trial has seen so far.
#[derive(Default)]
struct Trial {
    /// When the gateway began to look.
    since: Option<Instant>,
    /// Since when all delivers.
    whole: Option<Instant>,
}

impl Updates {
    /// Works until cancelled.
    pub async fn run(
        self,
        status: impl Fn() -> Status + Send + Sync,
        config: watch::Receiver<Arc<Config>>,
        cancel: CancellationToken,
    ) {
        tokio::join!(
            Box::pin(self.take_sticks(&status, cancel.clone())),
            Box::pin(self.keep(&status, config, cancel.clone())),
        );
    }

    async fn keep(
        &self,
        status: &(impl Fn() -> Status + Send + Sync),
        mut config: watch::Receiver<Arc<Config>>,
        cancel: CancellationToken,
    ) {
        let mut trial = Trial::default();
        let mut fetch = Fetch::default();
        let (mut backoff, mut jitter) = (Backoff::new(Backoff::CAP), random_jitter());
        let mut is_counted = false;
        let mut known: Option<(Instant, Firmware)> = None;
        loop {
            let running = config.borrow_and_update().clone();
            let wants = running.update.wanted.is_some();
            let is_open = self.book().last.as_ref().is_some_and(Last::is_open);
            let is_watched = lock(&self.shared.seen).looked.is_some_and(|at| at.elapsed() < FRESH);
            let mut pause = if is_open || is_watched { BUSY } else { IDLE };
            let before = self.book().last.clone();
            let is_calling = self.shared.is_calling.load(Atomic::SeqCst);
            // Most machines have no RAUC: they are not asked in vain.
            let firmware = if is_open || is_watched || wants {
                // Not for each piece that is fetched.
                known.take_if(|(at, _)| is_open || at.elapsed() >= FRESH);
                match &known {
                    Some((_, firmware)) => Some(firmware.clone()),
                    None => self.look().await.inspect(|told| known = Some((Instant::now(), told.clone()))),
                }
            } else {
                None
            };
            if let Some(firmware) = firmware {
                if !std::mem::replace(&mut is_counted, true) {
                    self.count_start(&firmware);
                }
                // What was said before an installation began says nothing of it.
                let is_about_this = !is_calling && before == self.book().last;
                if is_about_this {
                    self.follow(&firmware, &running, status, &mut trial).await;
                }
                match self.fetch(&mut fetch, &firmware, &running.update, status).await {
                    Ok(Some(())) => (pause, backoff) = (Duration::ZERO, Backoff::new(Backoff::CAP)),
                    Ok(None) => {}
                    Err(error) => {
                        let wait = backoff.next(Duration::ZERO, jitter());
                        let error = chain(&error);
                        warn!(error, retry_in = ?wait, "the firmware that is wanted is not fetched");
                        lock(&self.shared.seen).fetch_failed = Some(error);
                        pause = wait;
                    }
                }
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = config.changed() => if changed.is_err() {
                    break;
                },
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.kept(|last| {
            if let Some(start) = last.starts.last_mut().filter(|_| is_counted) {
                start.orderly = true;
            }
        });
    }

    async fn look(&self) -> Option<Firmware> {
        let told = self.shared.machine.firmware().await;
        let mut seen = lock(&self.shared.seen);
        match told {
            Ok(firmware) => {
                let firmware = firmware.or_slots_of(seen.firmware.as_ref());
                (seen.firmware, seen.cause) = (Some(firmware.clone()), None);
                Some(firmware)
            }
            Err(error) => {
                (seen.firmware, seen.cause) = (None, Some(error.to_string()));
                None
            }
        }
    }

    /// Changes the last update, if it is open. What cannot be stored is tried again with the next look.
    fn kept(&self, change: impl FnOnce(&mut Last)) {
        let outcome = self.edit(|book| {
            if let Some(last) = book.last.as_mut().filter(|last| last.is_open()) {
                change(last);
            }
        });
        if let Err(error) = outcome {
            warn!(error = chain(&error), "the state of the update cannot be stored");
        }
    }

    fn count_start(&self, firmware: &Firmware) {
        let boot = self.shared.boot.clone();
        self.kept(|last| {
            if matches!(last.phase, Phase::Installed | Phase::Trial) && firmware.booted != last.from_slot {
                last.started(&boot);
            }
        });
    }

    async fn follow(
        &self,
        firmware: &Firmware,
        config: &Config,
        status: &impl Fn() -> Status,
        trial: &mut Trial,
    ) {
        let Some(last) = self.book().last.clone().filter(Last::is_open) else { return };
        let is_back = firmware.booted == last.from_slot;
        let is_same_boot = last.boot == self.shared.boot;
        match last.phase {
            Phase::Installing if firmware.is_installing() => {}
            Phase::Installing if !is_back => self.enter(Phase::Trial),
            Phase::Installing if !firmware.last_error.is_empty() => {
                self.over(Phase::Refused, Some(firmware.last_error.clone()));
            }
            Phase::Installing if is_same_boot && firmware.percent == 100 => self.enter(Phase::Installed),
            Phase::Installing => {
                let text = "the installation was cut off, by a power cut or by RAUC's end; install it again";
                self.over(Phase::Refused, Some(text.to_owned()));
                // It is not the bundle's fault: a medium that is still in may bring it once more.
                let forgotten = self.edit(|book| {
                    book.stick.take_if(|_| last.by == stick::BY);
                });
                if let Err(error) = forgotten {
                    warn!(error = chain(&error), "the state of the update cannot be stored");
                }
            }
            Phase::Installed if !is_back => self.enter(Phase::Trial),
            Phase::Installed if is_same_boot => {
                if last.restart
                    && let Err(error) = self.shared.machine.restart_machine().await
                {
                    warn!(error = chain(&error), "the machine is not started anew");
                }
            }
            _ if is_back => {
                // It comes first again, with all its tries.
                if let Err(error) = self.shared.machine.mark_slot(true).await {
                    warn!(
                        error = chain(&error),
                        "the slot from before is not marked good; its next start does it"
                    );
                }
                // Whoever reads that it failed reads which slot comes first now.
                self.look().await;
                self.over(Phase::Failed, Some(judge::why_back(&last)));
            }
            _ => self.judge(&last, config, &status(), trial).await,
        }
    }

    async fn judge(&self, last: &Last, config: &Config, status: &Status, trial: &mut Trial) {
        let now = Instant::now();
        let since = *trial.since.get_or_insert(now);
        let Update { hold, within, .. } = &config.update;
        let missing = judge::missing(&last.before, status, config);
        trial.whole = if missing.is_empty() { trial.whole.or(Some(now)) } else { None };
        let crashes = last.crashes(&self.shared.boot);
        let verdict = if last.verdict.is_some() {
            last.verdict.clone()
        } else if crashes >= MAX_CRASHES {
            Some(format!("the gateway ended by itself {crashes} times in it"))
        } else if trial.whole.is_some_and(|whole| now.duration_since(whole) >= hold.get()) {
            match self.shared.machine.mark_slot(true).await {
                Ok(()) => return self.over(Phase::Good, None),
                Err(error) => warn!(error = chain(&error), "the slot is not marked good"),
            }
            None
        } else if now.duration_since(since) >= within.get() && !missing.is_empty() {
            Some(format!("these delivered before and did not within {within}: {}", judge::named(&missing)))
        } else {
            None
        };
        self.kept(|last| (last.missing, last.verdict) = (missing, verdict.clone()));
        if let Some(verdict) = verdict {
            warn!(verdict, "this firmware is not kept; the machine starts the one from before");
            let marked = self.shared.machine.mark_slot(false).await;
            let restarted = match marked {
                Ok(()) => self.shared.machine.restart_machine().await,
                refused => refused,
            };
            if let Err(error) = restarted {
                warn!(error = chain(&error), "the machine is not started anew");
            }
        }
    }

    fn enter(&self, phase: Phase) {
        let (at, boot) = (self.now(), self.shared.boot.clone());
        self.kept(|last| {
            if phase == Phase::Trial && last.starts.is_empty() {
                last.started(&boot);
            }
            (last.phase, last.at) = (phase, at);
        });
        info!(?phase, "the update goes on");
    }

    fn over(&self, phase: Phase, reason: Option<String>) {
        info!(?phase, reason, "the update is over");
        if let Err(error) = self.end(phase, reason).and_then(|()| self.clear()) {
            warn!(error = chain(&error), "the state of the update cannot be stored");
        }
    }

    /// Fetches a piece of what the config wants, or has it installed. None: there is nothing to do.
    async fn fetch(
        &self,
        fetch: &mut Fetch,
        firmware: &Firmware,
        update: &Update,
        status: &impl Fn() -> Status,
    ) -> Result<Option<()>, FetchError> {
        let is_done = {
            let book = self.book();
            book.last.as_ref().is_some_and(Last::is_open)
                || book.tried == update.wanted
                || self.shared.is_taking.load(Atomic::SeqCst)
        };
        let wanted =
            update.wanted.as_ref().filter(|wanted| firmware.version.as_deref() != Some(&wanted.version));
        let Some(wanted) = wanted.filter(|_| !is_done) else {
            lock(&self.shared.seen).fetch_failed = None;
            return Ok(None);
        };
        let by = "the config's update.wanted";
        let running = firmware.version.as_deref().unwrap_or_default();
        if !wanted.downgrade && judge::compare(&wanted.version, running) != Ordering::Greater {
            let version = wanted.version.clone();
            let error = UpdateError::NotNewer { version, running: running.to_owned() };
            self.refuse(wanted, firmware, by, &error)?;
            return Ok(None);
        }
        match self.fetch_piece(fetch, wanted, by).await? {
            Piece::More => {}
            Piece::Whole => {
                match self.install(wanted.downgrade, Origin::Config(wanted), &status(), by).await {
                    Ok(()) => {}
                    Err(error) if is_lasting(&error) => self.refuse(wanted, firmware, by, &error)?,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        lock(&self.shared.seen).fetch_failed = None;
        Ok(Some(()))
    }

    fn refuse(
        &self,
        wanted: &fieldgate_model::config::WantedFirmware,
        firmware: &Firmware,
        by: &str,
        error: &UpdateError,
    ) -> Result<(), FetchError> {
        let last = Last {
            version: wanted.version.clone(),
            from: firmware.version.clone().unwrap_or_default(),
            from_slot: firmware.booted.clone(),
            reason: Some(chain(error)),
            by: by.to_owned(),
            at: self.now(),
            ..Last::default()
        };
        self.edit(|book| (book.last, book.tried) = (Some(last), Some(wanted.clone())))?;
        Ok(self.clear()?)
    }
}

/// Whether another try of the same bundle would end in the same way: what it is does not change.
pub(super) fn is_lasting(error: &UpdateError) -> bool {
    matches!(
        error,
        UpdateError::Machine(AskError::Refused(_))
            | UpdateError::OtherMachine { .. }
            | UpdateError::OtherVersion { .. }
            | UpdateError::OddVersion
            | UpdateError::NotNewer { .. }
    )
}
