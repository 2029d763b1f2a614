//! What is done, in which order and how often, to bring a camera's picture back. Pure: the driver is in `truth`.
//!
//! ```text
//!  fault that may be mended --10 s--> setup --> reconnect --> transport --> reboot --> worker --> given up: visit
//!                                       \__________\______________\____________\___________\___ picture is back
//! ```
//! Each step waits for its effect. A step that does not apply is left out; one that was taken counts against the hour.

use fieldgate_hub::truth::Verdict;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The session is ended as it should be, and another worker sets one up at once.
    Setup,
    /// The same after a pause, in which the camera forgets the old session.
    Reconnect,
    /// The same over the other transport.
    Transport,
    /// The camera is told to reboot.
    Reboot,
    /// Another worker, which begins with nothing: what was remembered of the camera is forgotten.
    Worker,
}

impl Step {
    const ALL: [Step; 5] = [Step::Setup, Step::Reconnect, Step::Transport, Step::Reboot, Step::Worker];

    /// The name used in status and logs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Step::Setup => "setup",
            Step::Reconnect => "reconnect",
            Step::Transport => "transport",
            Step::Reboot => "reboot",
            Step::Worker => "worker",
        }
    }

    /// How long its effect is waited for.
    fn settles_within(self, patience: Patience) -> Duration {
        match self {
            Step::Setup | Step::Worker => patience.step,
            Step::Reconnect | Step::Transport => patience.step + PAUSED,
            Step::Reboot => patience.reboot,
        }
    }
}

/// How long effects are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Of a step.
    pub(super) step: Duration,
    /// Of a reboot.
    pub(super) reboot: Duration,
}

impl Patience {
    /// A picture is back when it has been good for so long: a new session looks good until something speaks against it.
    fn good_for(self) -> Duration {
        self.step * 8 / 9
    }
}

/// Whether a restart of anything could mend this. Nothing of ours lifts a cover.
pub(super) fn is_mendable(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Dead | Verdict::Frozen | Verdict::Repeating | Verdict::NoKeyframe | Verdict::AudioOnly => {
            true
        }
        Verdict::Ok | Verdict::Black | Verdict::Covered | Verdict::OutOfFocus => false,
    }
}

/// A fault may go by itself in this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Added where a step begins with a pause, or asks a camera in a way that takes longer.
const PAUSED: Duration = Duration::from_secs(15);
/// After this long without a fault the next one begins with the first step again.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Cameras that are being mended at once: what took them all down is not theirs to mend.
const AT_ONCE: usize = 4;
/// From giving up to the next climb; doubled each time, up to twelve hours.
const REST: Duration = Duration::from_secs(3600);
const REST_DOUBLINGS: u32 = 4;
const HOUR: Duration = Duration::from_secs(3600);
const REMEMBERED: usize = 8;

/// How a camera is and what may be done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    /// What is said of its picture.
    pub(super) verdict: Verdict,
    /// The steps that make sense for it; none: it is not ours to mend.
    pub(super) steps: Vec<Step>,
    /// Its source is being started again and again already, so that another start adds nothing.
    pub(super) is_retrying: bool,
    /// The most steps within an hour.
    pub(super) per_hour: u32,
    /// How long their effects are waited for.
    pub(super) patience: Patience,
}

/// One step that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// When.
    pub(super) at: Instant,
    /// Which.
    pub(super) step: Step,
    /// What came of it; none while that is waited for.
    pub(super) result: Option<String>,
}

/// One camera's ladder.
#[derive(Debug, Default)]
pub(super) struct Climb {
    fault_since: Option<Instant>,
    good_since: Option<Instant>,
    next: usize,
    waits_until: Option<Instant>,
    hour: VecDeque<Instant>,
    rests_until: Option<Instant>,
    rests: u32,
    taken: VecDeque<Taken>,
    advice: Option<String>,
}

impl Climb {
    /// The last steps, oldest first.
    pub(super) fn taken(&self) -> impl Iterator<Item = &Taken> {
        self.taken.iter()
    }

    /// What a person has to do, if steps do not help.
    pub(super) fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// The step whose effect is waited for.
    pub(super) fn under_way(&self) -> Option<Step> {
        self.waits_until.and(self.taken.back()).map(|taken| taken.step)
    }

    /// Until when something is waited for.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.waits_until.or(self.rests_until)
    }

    fn conclude(&mut self, result: &str) -> Option<Taken> {
        self.waits_until = None;
        let last = self.taken.back_mut()?;
        let text = match last.result.take() {
            Some(said) => format!("{said}; {result}"),
            None => result.to_owned(),
        };
        last.result = Some(text);
        Some(last.clone())
    }

    /// How the camera is now; what came of the last step, and whether it is time for another.
    fn look(&mut self, situation: &Situation, now: Instant) -> (Option<Taken>, bool) {
        let passed = |since: Instant| now.saturating_duration_since(since);
        if !is_mendable(situation.verdict) {
            self.fault_since = None;
            let good_since = *self.good_since.get_or_insert(now);
            let is_good = situation.verdict == Verdict::Ok;
            self.advice = (!is_good).then(|| {
                format!(
                    "no restart mends a picture that is {}: look at the lens and the light",
                    situation.verdict.name()
                )
            });
            if passed(good_since) >= FORGET_AFTER {
                (self.next, self.rests_until, self.rests) = (0, None, 0);
            }
            let is_back = self.waits_until.is_some() && passed(good_since) >= situation.patience.good_for();
            return (is_back.then(|| self.conclude("the picture is back")).flatten(), false);
        }
        self.good_since = None;
        let fault_since = *self.fault_since.get_or_insert(now);
        if self.waits_until.is_some_and(|until| now < until) {
            return (None, false);
        }
        let still = format!("still {}", situation.verdict.name());
        let concluded = self.waits_until.is_some().then(|| self.conclude(&still)).flatten();
        if self.rests_until.is_some_and(|until| now >= until) {
            (self.rests_until, self.next) = (None, 0);
        }
        while self.hour.front().is_some_and(|at| passed(*at) >= HOUR) {
            self.hour.pop_front();
        }
        let per_hour = usize::try_from(situation.per_hour).unwrap_or(usize::MAX);
        let may = passed(fault_since) >= PATIENCE && self.rests_until.is_none() && self.hour.len() < per_hour;
        (concluded, may)
    }

    /// The next step that applies; gives up after the last.
    fn take(&mut self, situation: &Situation, now: Instant) -> Option<Step> {
        while let Some(step) = Step::ALL.get(self.next).copied() {
            self.next += 1;
            let adds_nothing = situation.is_retrying && step != Step::Reboot;
            if situation.steps.contains(&step) && !adds_nothing {
                self.waits_until = Some(now + step.settles_within(situation.patience));
                self.hour.push_back(now);
                if self.taken.len() == REMEMBERED {
                    self.taken.pop_front();
                }
                self.taken.push_back(Taken { at: now, step, result: None });
                return Some(step);
            }
        }
        self.rests_until = Some(now + REST * 2_u32.pow(self.rests.min(REST_DOUBLINGS)).min(12));
        self.rests = self.rests.saturating_add(1);
        self.advice = Some(format!(
            "visit the camera: its picture is {}, and nothing that can be done from here has helped",
            situation.verdict.name()
        ));
        None
    }
}

/// What came of one look at one camera.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The step before has had its effect, or none.
    pub(super) concluded: Option<Taken>,
    /// To be done now.
    pub(super) step: Option<Step>,
    /// All steps have failed, just now.
    pub(super) gave_up: bool,
}

/// All cameras' ladders.
#[derive(Debug, Default)]
pub(super) struct Ladders {
    cameras: BTreeMap<String, Climb>,
}

impl Ladders {
    /// How one camera is now; to be told every second or so.
    pub(super) fn look(&mut self, name: &str, situation: &Situation, now: Instant) -> Outcome {
        let busy = self.cameras.values().filter(|climb| climb.waits_until.is_some()).count();
        if situation.steps.is_empty() && !self.cameras.contains_key(name) {
            return Outcome::default();
        }
        let climb = self.cameras.entry(name.to_owned()).or_default();
        let (concluded, may) = climb.look(situation, now);
        if !may || busy >= AT_ONCE || situation.steps.is_empty() {
            return Outcome { concluded, ..Outcome::default() };
        }
        let step = climb.take(situation, now);
        Outcome { concluded, step, gave_up: step.is_none() }
    }

    /// What a step said of itself before its effect can be known.
    pub(super) fn note(&mut self, name: &str, said: &str) {
        let last = self.cameras.get_mut(name).and_then(|climb| climb.taken.back_mut());
        if let Some(last) = last.filter(|last| last.result.is_none()) {
            last.result = Some(said.to_owned());
        }
    }

    /// Only these exist.
    pub(super) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.cameras.retain(|name, _| exists(name));
    }

    /// One camera's.
    pub(super) fn of(&self, name: &str) -> Option<&Climb> {
        self.cameras.get(name)
    }
}

#[cfg(test)]
mod tests;
