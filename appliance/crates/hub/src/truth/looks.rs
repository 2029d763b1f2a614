//! From decoded keyframes: is there anything to be seen?

use super::{Look, Verdict};
use std::time::Duration;
use tokio::time::Instant;

/// Looks in a row that must agree.
const AGREEING: u32 = 2;
/// A dark scene is not covered: light is needed to tell.
const LIGHT_MIN: f32 = 40.0;
/// A picture with less large forms than this shows nothing.
const STRUCTURE_MIN: f32 = 3.0;
/// A picture with more than this shows something, sharp or not.
const STRUCTURE_FORMS: f32 = 10.0;
/// A place with an edge in every two hundred, at least, or nothing is said about sharpness.
const EDGES_MIN: f32 = 0.005;
/// Edges over more than about five pixels of 320: nothing in the picture is in focus.
const SHARPNESS_MIN: f32 = 0.22;
/// The share of a black picture without light.
const BLACK_SHARE: f32 = 0.995;
/// Equal pictures in a row that make a frozen one, whatever their bytes say.
const EQUAL_MIN: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Looks {
    newest: Option<(Look, Instant)>,
    begun: Option<Instant>,
    /// What the newest ones agree on: since when, how many.
    agreed: Option<(Verdict, Instant, u32)>,
    /// Since when, and how often, they were equal in every pixel.
    equal: Option<(Instant, u32)>,
}

impl Looks {
    pub(super) fn forget(&mut self) {
        // The moment of the last stays: a camera that comes and goes is not looked at more often.
        *self = Looks { begun: self.begun, ..Looks::default() };
    }

    /// Whether the keyframe that came at `newest` is to be looked at: no keyframe is looked at twice.
    pub(super) fn is_due(&self, newest: Instant, interval: Duration, now: Instant) -> bool {
        let rested = |begun| now.saturating_duration_since(begun) >= interval && newest > begun;
        self.begun.is_none_or(rested)
    }

    pub(super) fn begins(&mut self, now: Instant) {
        self.begun = Some(now);
    }

    pub(super) fn take(&mut self, look: &Look, now: Instant) {
        let said = judge(look);
        self.agreed = match self.agreed {
            Some((verdict, since, count)) if verdict == said => {
                Some((verdict, since, count.saturating_add(1)))
            }
            _ => Some((said, now, 1)),
        };
        let is_equal = self.newest.is_some_and(|(before, _)| before.fingerprint == look.fingerprint);
        self.equal = match self.equal.filter(|_| is_equal) {
            Some((since, count)) => Some((since, count.saturating_add(1))),
            None => Some((now, 1)),
        };
        self.newest = Some((*look, now));
    }

    pub(super) fn newest(&self) -> Option<(Look, Instant)> {
        self.newest
    }

    /// Since when pictures are equal in every pixel, if that has been seen often enough.
    pub(super) fn equal_since(&self) -> Option<Instant> {
        self.equal.filter(|(_, count)| *count >= EQUAL_MIN).map(|(since, _)| since)
    }

    /// What the pictures show to be wrong. One that is black must also be the same each time (`stands_still`, or seen
    /// here): a sensor in the dark is not.
    pub(super) fn verdict(&self, stands_still: bool) -> Option<(Verdict, Instant, String)> {
        let ((verdict, since, count), (look, _)) = (self.agreed?, self.newest?);
        let is_equal = self.equal.is_some_and(|(_, count)| count >= AGREEING);
        let is_sure = match verdict {
            Verdict::Ok => false,
            Verdict::Black => stands_still || is_equal,
            _ => count >= AGREEING,
        };
        if !is_sure {
            return None;
        }
        let cause = match verdict {
            Verdict::Black => {
                let share = look.black * 100.0;
                format!("{share:.0} % of the picture is without light, and without a sensor's noise")
            }
            Verdict::Covered => format!(
                "nothing to be seen: light ({:.0} of 255), but no forms ({:.1})",
                look.mean, look.structure
            ),
            _ => format!("no sharp edge anywhere (sharpness {:.2})", look.sharpness),
        };
        Some((verdict, since, cause))
    }
}

fn judge(look: &Look) -> Verdict {
    if look.black >= BLACK_SHARE {
        Verdict::Black
    } else if look.mean >= LIGHT_MIN && look.structure < STRUCTURE_MIN && look.edges < EDGES_MIN {
        Verdict::Covered
    } else if look.structure >= STRUCTURE_FORMS && look.sharpness < SHARPNESS_MIN {
        Verdict::OutOfFocus
    } else {
        Verdict::Ok
    }
}
