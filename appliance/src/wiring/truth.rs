//! Watches every mountpoint's picture: asks its tap once a second, has keyframes decoded, climbs the ladder.
//!
//! No verdict withholds a ping from systemd: a restart of the gateway mends no camera. What a restart could mend is this
//! watch itself, when it is stuck; so its rounds are one of the pulses.

use super::Wiring;
use super::inspector::{InspectError, Seen};
use super::ladder::{Climb, Ladders, Patience, Situation, Step};
use super::mending::steps_of;
use super::sources::login_of;
use crate::clock::timestamp;
use crate::supervisor::{ChildKey, Snapshot as Supervised, SupervisorHandle};
use fieldgate_hub::truth::{Finding, Keyframe, Settings, Verdict};
use fieldgate_hub::{Mountpoint, Pulse, origin_of};
use fieldgate_model::Timestamp;
use fieldgate_model::config::{Config, Source, Truth};
use fieldgate_model::status::{LadderStatus, LadderStep, PictureStatus, State};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

const ROUND: Duration = Duration::from_secs(1);

/// What is known of the pictures, for the status.
#[derive(Debug, Default)]
pub struct Pictures {
    views: Mutex<BTreeMap<String, View>>,
}

#[derive(Clone, Debug, Default)]
struct View {
    picture: Option<PictureStatus>,
    ladder: Option<LadderStatus>,
    checked_at: Option<Timestamp>,
    check_error: Option<String>,
    checks: u64,
    failed_checks: u64,
}

impl Pictures {
    /// What is said of a mountpoint's picture.
    pub fn picture(&self, name: &str) -> Option<PictureStatus> {
        self.lock().get(name).and_then(|view| view.picture.clone())
    }

    /// What was done about it.
    pub fn ladder(&self, name: &str) -> Option<LadderStatus> {
        self.lock().get(name).and_then(|view| view.ladder.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Checked = (String, Keyframe, Result<Seen, InspectError>);
type Rebooted = (String, Result<(), String>);

/// The watch over all pictures.
pub struct Watch {
    wiring: Wiring,
    supervisor: SupervisorHandle,
    ladders: Ladders,
    /// One keyframe per mountpoint at most.
    looking: JoinSet<Checked>,
    rebooting: JoinSet<Rebooted>,
    pulse: Pulse,
}

impl Watch {
    /// Over the mountpoints of this wiring.
    pub fn new(wiring: Wiring, supervisor: SupervisorHandle, pulse: Pulse) -> Self {
        let (looking, rebooting) = (JoinSet::new(), JoinSet::new());
        Watch { wiring, supervisor, ladders: Ladders::default(), looking, rebooting, pulse }
    }

    /// Watches until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = rounds.tick() => {
                    self.round(Instant::now());
                    self.pulse.beat();
                }
                Some(Ok(checked)) = self.looking.join_next() => self.checked(checked),
                Some(Ok((name, result))) = self.rebooting.join_next() => {
                    let said = match result {
                        Ok(()) => "the camera said that it reboots".to_owned(),
                        Err(cause) => format!("not rebooted: {cause}"),
                    };
                    info!(mountpoint = name, said, "reboot");
                    self.ladders.note(&name, &said);
                }
            }
        }
    }

    fn round(&mut self, now: Instant) {
        let config = self.supervisor.config().borrow().clone();
        let snapshot = self.supervisor.snapshot();
        let mut mountpoints = self.wiring.context.registry.all();
        // A rendition shows what is watched already.
        mountpoints.retain(|mountpoint| origin_of(mountpoint.name()) == mountpoint.name());
        self.wiring.sight.snapshots.forget_ended();
        let exists = |name: &str| mountpoints.iter().any(|mountpoint| mountpoint.name() == name);
        self.ladders.keep(exists);
        self.wiring.sight.pictures.lock().retain(|name, _| exists(name));
        for mountpoint in &mountpoints {
            self.watch(mountpoint, &config, &snapshot, now);
        }
    }

    fn watch(&mut self, mountpoint: &Arc<Mountpoint>, config: &Config, snapshot: &Supervised, now: Instant) {
        let name = mountpoint.name();
        let Some((_, settings)) = config.mountpoint_for(name) else { return };
        let is_ours = !matches!(settings.source, Source::Publish(_) | Source::Kmp(_));
        let tap = mountpoint.tap();
        tap.set(settings_of(&settings.truth, &settings.source), is_ours, now);
        let (finding, changed) = tap.assess(now);
        let source = snapshot.children.get(&ChildKey::Source(name.to_owned()));
        if let Some(finding) = finding.as_ref().filter(|_| changed) {
            let Finding { verdict, cause, .. } = finding;
            match verdict {
                Verdict::Ok => info!(mountpoint = name, "the picture is good"),
                _ => {
                    warn!(mountpoint = name, verdict = verdict.name(), cause, "the picture is not the truth")
                }
            }
        }
        if let Some(keyframe) = tap.keyframe_to_look_at(now) {
            let (inspector, name) = (self.wiring.sight.inspector.clone(), name.to_owned());
            self.looking.spawn(async move {
                let seen = inspector.look(&name, keyframe.clone(), None).await;
                (name, keyframe, seen)
            });
        }
        let is_retrying = source.is_some_and(|activity| activity.state == State::Retrying);
        if let Some(finding) = &finding {
            let is_mended = is_ours && settings.truth.mend.enabled;
            let steps = match is_mended {
                true => steps_of(&settings.source, settings.truth.mend.reboot),
                false => Vec::new(),
            };
            let mend = &settings.truth.mend;
            let patience = Patience { step: mend.wait.get(), reboot: mend.reboot_wait.get() };
            let per_hour = mend.steps_per_hour;
            let situation = Situation { verdict: finding.verdict, steps, is_retrying, per_hour, patience };
            self.climb(name, &settings.source, &situation, now);
        }
        let cause = source.and_then(|activity| activity.cause.clone()).filter(|_| is_retrying);
        self.show(mountpoint, finding, cause, now);
    }

    fn climb(&mut self, name: &str, source: &Source, situation: &Situation, now: Instant) {
        let outcome = self.ladders.look(name, situation, now);
        if let Some(taken) = outcome.concluded {
            let result = taken.result.unwrap_or_default();
            info!(mountpoint = name, step = taken.step.name(), result, "step to bring the picture back");
        }
        if outcome.gave_up {
            let advice = self.ladders.of(name).and_then(Climb::advice).unwrap_or_default();
            warn!(mountpoint = name, advice, "the picture cannot be brought back from here");
        }
        let Some(step) = outcome.step else { return };
        let verdict = situation.verdict.name();
        info!(mountpoint = name, step = step.name(), verdict, "step to bring the picture back begins");
        if step == Step::Reboot {
            let login = match source {
                Source::Rtsp(rtsp) => login_of(rtsp),
                _ => None,
            };
            let (cameras, name) = (self.wiring.cameras.clone(), name.to_owned());
            self.rebooting.spawn(async move {
                let result = match login {
                    Some((host, credentials)) => {
                        cameras.reboot(&host, &credentials).await.map_err(|error| error.to_string())
                    }
                    None => Err("its URL has no user".to_owned()),
                };
                (name, result)
            });
        } else if !self.wiring.sight.mending.order(name, step) {
            self.ladders.note(name, "its source was not running");
        }
    }

    fn checked(&mut self, (name, keyframe, seen): Checked) {
        let at = timestamp(&self.wiring.context.clock);
        let mountpoint = self.wiring.context.registry.get(&name);
        if let (Some(mountpoint), Ok(seen)) = (&mountpoint, &seen) {
            mountpoint.tap().on_look(&keyframe, &seen.look, Instant::now());
        }
        let mut views = self.wiring.sight.pictures.lock();
        let Some(view) = views.get_mut(&name) else { return };
        view.checked_at = Some(at);
        match seen {
            Ok(_) => {
                view.checks += 1;
                view.check_error = None;
            }
            // Says nothing about the picture.
            Err(InspectError::Busy | InspectError::Stopping) => {}
            Err(error) => {
                view.failed_checks += 1;
                let text = error.to_string();
                if view.check_error.as_ref() != Some(&text) {
                    warn!(mountpoint = name, error = text, "a keyframe cannot be looked at");
                }
                view.check_error = Some(text);
            }
        }
    }

    fn show(&self, mountpoint: &Mountpoint, finding: Option<Finding>, cause: Option<String>, now: Instant) {
        let name = mountpoint.name();
        let wall = timestamp(&self.wiring.context.clock);
        let ladder = self.ladders.of(name).and_then(|climb| ladder_status(climb, wall, now));
        let look = mountpoint.tap().newest_look().map(|(look, _)| look);
        let mut views = self.wiring.sight.pictures.lock();
        let view = views.entry(name.to_owned()).or_default();
        view.ladder = ladder;
        let before = view.picture.take();
        view.picture = finding.map(|finding| {
            let same = before.filter(|before| before.verdict == finding.verdict.name());
            let told = same.map_or(wall, |before| before.told);
            let of_source = cause.filter(|_| finding.verdict == Verdict::Dead);
            let cause = match of_source {
                Some(of_source) => format!("{}: {of_source}", finding.cause),
                None => finding.cause,
            };
            PictureStatus {
                verdict: finding.verdict.name().to_owned(),
                since: back(wall, finding.since, now),
                told,
                cause: (!cause.is_empty()).then_some(cause),
                checked_at: view.checked_at,
                check_error: view.check_error.clone(),
                checks: view.checks,
                failed_checks: view.failed_checks,
                brightness: look.map(|look| look.mean),
                sharpness: look.map(|look| look.sharpness),
            }
        });
    }
}

fn settings_of(truth: &Truth, source: &Source) -> Settings {
    // A file that is played again and again repeats what it shows.
    let loops = matches!(source, Source::File(file) if file.repeat);
    let ignored = |verdict: &Verdict| {
        truth.ignore.iter().any(|fault| fault.name() == verdict.name())
            || (loops && *verdict == Verdict::Repeating)
    };
    Settings {
        enabled: truth.enabled,
        interval: truth.interval.get(),
        dead_after: truth.dead_after.get(),
        still_after: truth.still_after.get(),
        keyframe_after: truth.keyframe_after.get(),
        ignore: Verdict::ALL.into_iter().filter(ignored).collect(),
    }
}

/// Nothing to show of a camera that never had a fault.
fn ladder_status(climb: &Climb, wall: Timestamp, now: Instant) -> Option<LadderStatus> {
    let steps: Vec<LadderStep> = climb
        .taken()
        .map(|taken| LadderStep {
            at: back(wall, taken.at, now),
            step: taken.step.name().to_owned(),
            result: taken.result.clone().unwrap_or_else(|| "waiting for the picture".to_owned()),
        })
        .collect();
    let advice = climb.advice().map(str::to_owned);
    if steps.is_empty() && advice.is_none() {
        return None;
    }
    let next = climb.next_at().map(|at| wall.plus(at.saturating_duration_since(now)));
    Some(LadderStatus { step: climb.under_way().map(|step| step.name().to_owned()), next, advice, steps })
}

/// The wall-clock time of a moment that has passed.
fn back(wall: Timestamp, at: Instant, now: Instant) -> Timestamp {
    let ago = i64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_unix_millis(wall.unix_millis().saturating_sub(ago))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldgate_model::config::PictureFault;

    #[test]
    fn every_fault_that_can_be_ignored_is_one_that_can_be_said() {
        let faults = [
            PictureFault::Dead,
            PictureFault::Frozen,
            PictureFault::Black,
            PictureFault::Covered,
            PictureFault::OutOfFocus,
            PictureFault::AudioOnly,
            PictureFault::Repeating,
            PictureFault::NoKeyframe,
        ];
        let all = Truth { ignore: faults.to_vec(), ..Truth::default() };
        let ignored = settings_of(&all, &published()).ignore;
        assert_eq!(ignored.len(), Verdict::ALL.len() - 1, "all but ok");
    }

    fn published() -> Source {
        serde_json::from_value(serde_json::json!({"kind": "publish"})).unwrap()
    }

    #[test]
    fn the_defaults_of_config_and_core_are_the_same() {
        assert_eq!(settings_of(&Truth::default(), &published()), Settings::default());
    }

    #[test]
    fn a_file_in_a_loop_is_not_called_repeating() {
        let ignored = |repeat: bool| {
            let source = serde_json::json!({"kind": "file", "path": "/a.mp4", "loop": repeat});
            settings_of(&Truth::default(), &serde_json::from_value(source).unwrap()).ignore
        };
        assert_eq!((ignored(true), ignored(false)), (vec![Verdict::Repeating], vec![]));
    }
}
