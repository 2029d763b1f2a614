//! Whether a camera's clock runs at the speed of life: its times are compared with the arrival of its units, some
//! seconds at a time.
//!
//! | seen | done |
//! |---|---|
//! | times stand still for a second | units are timed by their arrival |
//! | times run too fast or too slowly, the same in three windows (a lying frame rate) | steps are scaled |
//! | times are half a second off what they were (a bad crystal, the time before the scale was known) | steps are stretched or shortened until they are not |
//!
//! Bursts, stalls and a slow network change from window to window, so they are none of these.

use super::TICK;
use fieldgate_media::Ticks;
use std::time::Duration;
use tokio::time::Instant;

const WINDOW: Ticks = Ticks::from_millis(4_000);
/// Units in a window that tell something.
const WINDOW_UNITS: u32 = 3;
/// Windows that must say the same.
const WINDOWS: u32 = 3;
/// As near to each other.
const AGREE: f64 = 0.04;
/// Nearer to one is jitter.
const ODD: f64 = 0.08;
const DRIFT_MAX: Ticks = Ticks::from_millis(500);
/// Further off is no matter of a crystal, and mended faster.
const DRIFT_GROSS: Ticks = Ticks::from_millis(1_000);
const SLEW: f64 = 0.02;
const SLEW_GROSS: f64 = 0.5;
const STILL: Duration = Duration::from_secs(1);
const SCALES: std::ops::RangeInclusive<f64> = 0.1..=10.0;

/// How one track's clock runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    /// Stream time per source time: 1 for an honest clock.
    scale: f64,
    slew: f64,
    newest: Option<Ticks>,
    /// Since when the source's time has not moved.
    still_since: Option<Instant>,
    window: Window,
    ratio: f64,
    /// Windows in a row that had about this ratio.
    agreed: u32,
    /// How late units are that are least late, while the clock is honest.
    usual_lag: Option<Ticks>,
    origin: (Ticks, Instant),
}

#[derive(Clone, Copy, Debug)]
struct Window {
    source: Ticks,
    at: Instant,
    units: u32,
    least_lag: Option<Ticks>,
}

impl Window {
    fn new(source: Ticks, at: Instant) -> Window {
        Window { source, at, units: 0, least_lag: None }
    }
}

impl Speed {
    pub(super) fn new(source: Ticks, out: Ticks, now: Instant) -> Speed {
        Speed {
            scale: 1.0,
            slew: 0.0,
            newest: None,
            still_since: None,
            window: Window::new(source, now),
            ratio: 1.0,
            agreed: 0,
            usual_lag: None,
            origin: (out, now),
        }
    }

    /// How much longer a span of the source's time is on the stream's timeline.
    pub(super) fn stretch(&self, span: Ticks) -> Ticks {
        if self.is_honest() { Ticks::ZERO } else { times(span, self.scale - 1.0) }
    }

    /// What a step of the source's time adds to its track's offset.
    pub(super) fn correction(&self, step: Ticks, elapsed: Ticks, now: Instant) -> Ticks {
        let stands = self.still_since.is_some_and(|since| now.saturating_duration_since(since) > STILL);
        if stands && step <= TICK {
            return elapsed - step;
        }
        if self.is_honest() && self.slew.abs() < f64::EPSILON {
            return Ticks::ZERO;
        }
        times(step, self.scale * (1.0 + self.slew) - 1.0)
    }

    fn is_honest(&self) -> bool {
        (self.scale - 1.0).abs() < f64::EPSILON
    }

    /// Notes a unit that was given the time `out`.
    pub(super) fn measure(&mut self, source: Ticks, out: Ticks, now: Instant) {
        match self.newest.replace(source) {
            Some(newest) if source - newest <= TICK => _ = self.still_since.get_or_insert(now),
            _ => self.still_since = None,
        }
        let lag = since(self.origin.1, now) - (out - self.origin.0);
        self.window.units += 1;
        self.window.least_lag = Some(self.window.least_lag.map_or(lag, |least| least.min(lag)));
        let wall = since(self.window.at, now);
        if wall >= WINDOW && self.window.units >= WINDOW_UNITS {
            let (moved, least) = (source - self.window.source, self.window.least_lag);
            self.window = Window::new(source, now);
            // A clock that stands has no speed.
            if let Some(ratio) = share(wall, moved).filter(|ratio| SCALES.contains(ratio)) {
                self.judge(ratio, least.unwrap_or(lag));
            }
        }
    }

    fn judge(&mut self, ratio: f64, lag: Ticks) {
        let agrees = (ratio / self.ratio - 1.0).abs() < AGREE;
        self.agreed = if agrees { self.agreed.saturating_add(1) } else { 1 };
        self.ratio = ratio;
        let odd = (ratio - 1.0).abs() > ODD;
        if self.agreed >= WINDOWS {
            self.scale = if odd { ratio } else { 1.0 };
        }
        if !odd && self.is_honest() {
            self.usual_lag.get_or_insert(lag);
        }
        let drift = lag - self.usual_lag.unwrap_or(Ticks::ZERO);
        let size = drift.max(-drift);
        // A stall makes lag too; what is mended is what a steady clock has.
        let steady = self.agreed >= WINDOWS;
        let share = share(drift, WINDOW).unwrap_or(0.0);
        // Once begun it goes on until little is left.
        let wanted = size > DRIFT_MAX || (self.slew * share > 0.0 && size > SMALL);
        let most = if size > DRIFT_GROSS { SLEW_GROSS } else { SLEW };
        self.slew = if steady && wanted { share.clamp(-most, most) } else { 0.0 };
    }
}

/// Little enough that nobody sees it.
const SMALL: Ticks = Ticks::from_millis(40);

fn since(then: Instant, now: Instant) -> Ticks {
    Ticks::from_duration(now.saturating_duration_since(then))
}

/// `a / b`; `None` when `b` is not positive.
#[expect(clippy::cast_precision_loss, reason = "spans of seconds")]
fn share(a: Ticks, b: Ticks) -> Option<f64> {
    (b > Ticks::ZERO).then(|| a.get() as f64 / b.get() as f64)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "spans of seconds; the cast saturates"
)]
fn times(span: Ticks, factor: f64) -> Ticks {
    Ticks::new((span.get() as f64 * factor).round() as i64)
}
