//! What is left out when the machine is too hot or too busy, and when it is taken back.
//!
//! ```text
//!             hot or busy for a while: the least important goes, one at a time
//!   all ----------------------------------------------------------------------> fewer
//!       <----------------------------------------------------------------------
//!             cool and calm for longer: the last that went comes back first
//! ```
//!
//! What the plan says does not fit is left out at once. The most important that encodes is never left out.

use super::{Cost, Overload, Plan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Shedding goes on while it stays too hot; temperature follows slowly.
const STEP_HOT: Duration = Duration::from_secs(20);
/// Shedding goes on while it stays too busy.
const STEP_BUSY: Duration = Duration::from_secs(10);
/// All must have been well for this long before anything is taken back, and between two that are.
const CALM: Duration = Duration::from_secs(60);
/// Degrees below the limit at which it counts as cool again.
const COOL_BELOW: i32 = 5;
/// Per cent of the time in which some task waits for a processor: from here on the machine is short of them.
const PRESSURE: u32 = 40;
/// Share of the limit below which the load counts as calm, per cent.
const CALM_BELOW: u32 = 75;

/// What sensors say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Of the hottest zone, degrees Celsius; none where there is no zone.
    pub temperature_c: Option<i32>,
    /// From where on that is too hot.
    pub temperature_limit_c: i32,
    /// Processor time that the gateway with its workers takes, per cent of a core; none where unknown.
    pub cpu_percent: Option<u32>,
    /// What it may take.
    pub cpu_limit_percent: u32,
    /// Per cent of the last ten seconds in which some task waited for a processor; none where the kernel does not
    /// tell.
    pub pressure: Option<u32>,
}

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The plan is more than the machine was measured to do.
    Capacity,
    /// It was too hot.
    Heat,
    /// Processors were short.
    Load,
}

/// Something that is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shed {
    /// The mountpoint.
    pub mountpoint: String,
    /// The rendition of it; none: its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendition: Option<String>,
    /// The mountpoint's.
    pub priority: u8,
    /// Why.
    pub cause: Cause,
    /// With numbers.
    pub reason: String,
}

impl Shed {
    fn is(&self, mountpoint: &str, rendition: Option<&str>) -> bool {
        self.mountpoint == mountpoint && self.rendition.as_deref() == rendition
    }
}

/// What one look changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Left out from now on.
    Shed(Shed),
    /// Runs again.
    TakenBack(Shed),
}

/// Decides what is left out. Pure: readings and time are handed in.
#[derive(Clone, Debug, Default)]
pub struct Shedder {
    shed: Vec<Shed>,
    hot_step: Option<Duration>,
    busy_since: Option<Duration>,
    calm_since: Option<Duration>,
}

/// One thing that encodes, for choosing.
struct Candidate<'a> {
    mountpoint: &'a str,
    rendition: Option<&'a str>,
    priority: u8,
    cost: Cost,
}

impl Shedder {
    /// What is left out, in the order in which it went.
    pub fn shed(&self) -> &[Shed] {
        &self.shed
    }

    /// Looks at the plan and the sensors; `now` is the time since any fixed moment and never goes back. To be called
    /// every few seconds, and when the plan has changed.
    pub fn look(&mut self, now: Duration, plan: &Plan, readings: &Readings) -> Vec<Turn> {
        let mut turns = self.follow(plan);
        let is_hot = readings.temperature_c.is_some_and(|it| it >= readings.temperature_limit_c);
        let is_cool = readings
            .temperature_c
            .is_none_or(|it| it < readings.temperature_limit_c.saturating_sub(COOL_BELOW));
        let is_busy = readings.cpu_percent.is_some_and(|it| it > readings.cpu_limit_percent)
            && readings.pressure.is_some_and(|it| it >= PRESSURE);
        let is_easy = readings.cpu_percent.is_none_or(|it| {
            u64::from(it) * 100 < u64::from(readings.cpu_limit_percent) * u64::from(CALM_BELOW)
        });
        if is_hot {
            self.calm_since = None;
            if self.hot_step.is_none_or(|last| now.saturating_sub(last) >= STEP_HOT) {
                self.hot_step = Some(now);
                let temperature = readings.temperature_c.unwrap_or_default();
                let reason =
                    format!("{temperature} degrees Celsius, the limit is {}", readings.temperature_limit_c);
                turns.extend(self.shed_next(plan, Cause::Heat, reason));
            }
        } else {
            self.hot_step = None;
        }
        if is_busy && !is_hot {
            self.calm_since = None;
            let since = *self.busy_since.get_or_insert(now);
            if now.saturating_sub(since) >= STEP_BUSY {
                self.busy_since = Some(now);
                let reason = format!(
                    "{} % of a core are used, the limit is {} %, and tasks wait {} % of the time",
                    readings.cpu_percent.unwrap_or_default(),
                    readings.cpu_limit_percent,
                    readings.pressure.unwrap_or_default()
                );
                turns.extend(self.shed_next(plan, Cause::Load, reason));
            }
        } else {
            self.busy_since = None;
        }
        if is_cool && is_easy && !is_hot && !is_busy {
            let since = *self.calm_since.get_or_insert(now);
            if now.saturating_sub(since) >= CALM {
                self.calm_since = Some(now);
                let last = self.shed.iter().rposition(|shed| shed.cause != Cause::Capacity);
                turns.extend(last.map(|at| Turn::TakenBack(self.shed.remove(at))));
            }
        } else {
            self.calm_since = None;
        }
        turns
    }

    /// What does not fit goes at once, and comes back as soon as the plan has room; what is not planned any more is
    /// forgotten.
    fn follow(&mut self, plan: &Plan) -> Vec<Turn> {
        let mut turns = Vec::new();
        let known = candidates(plan);
        let still = |shed: &Shed| match shed.cause {
            Cause::Capacity => plan.over.iter().any(|it| shed.is(&it.mountpoint, it.rendition.as_deref())),
            Cause::Heat | Cause::Load => known.iter().any(|it| shed.is(it.mountpoint, it.rendition)),
        };
        while let Some(at) = self.shed.iter().rposition(|shed| !still(shed)) {
            turns.push(Turn::TakenBack(self.shed.remove(at)));
        }
        for Overload { mountpoint, rendition, priority, reason, .. } in &plan.over {
            if !self.shed.iter().any(|shed| shed.is(mountpoint, rendition.as_deref())) {
                let shed = Shed {
                    mountpoint: mountpoint.clone(),
                    rendition: rendition.clone(),
                    priority: *priority,
                    cause: Cause::Capacity,
                    reason: reason.clone(),
                };
                self.shed.push(shed.clone());
                turns.push(Turn::Shed(shed));
            }
        }
        turns
    }

    /// Leaves out the least important that still runs, but never the last.
    fn shed_next(&mut self, plan: &Plan, cause: Cause, reason: String) -> Option<Turn> {
        let running = candidates(plan);
        let mut running =
            running.iter().filter(|it| !self.shed.iter().any(|shed| shed.is(it.mountpoint, it.rendition)));
        let (next, others) = (running.next()?, running.count());
        if others == 0 {
            return None;
        }
        let shed = Shed {
            mountpoint: next.mountpoint.to_owned(),
            rendition: next.rendition.map(str::to_owned),
            priority: next.priority,
            cause,
            reason,
        };
        self.shed.push(shed.clone());
        Some(Turn::Shed(shed))
    }
}

/// All that encodes pictures, the least important first; of equals the later name first, renditions before sources,
/// and what saves most before the rest.
fn candidates(plan: &Plan) -> Vec<Candidate<'_>> {
    let mut all: Vec<Candidate<'_>> = Vec::new();
    for (name, mountpoint) in &plan.mountpoints {
        let of =
            |rendition, cost| Candidate { mountpoint: name, rendition, priority: mountpoint.priority, cost };
        let encodes = |step: &super::Step| step.encodes() && step.encoder.is_some();
        if encodes(&mountpoint.source.video) {
            all.push(of(None, mountpoint.source.video.cost));
        }
        let renditions = mountpoint.renditions.iter().filter(|rendition| encodes(&rendition.video));
        all.extend(renditions.map(|rendition| of(Some(rendition.name.as_str()), rendition.video.cost)));
    }
    all.sort_by_key(|it| {
        let cost = (it.cost.cpu_percent, it.cost.sessions);
        (it.priority, std::cmp::Reverse(it.mountpoint), it.rendition.is_none(), std::cmp::Reverse(cost))
    });
    all
}

#[cfg(test)]
mod tests;
