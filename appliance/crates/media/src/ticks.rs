//! The gateway's one unit of time inside a stream.

use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub};
use std::time::Duration;

/// A point or span on a stream's timeline, in 1/90,000 s. Signed, so that differences and offsets need no care.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticks(i64);

impl Ticks {
    /// Ticks per second.
    pub const PER_SECOND: i64 = 90_000;
    /// Ticks per millisecond.
    pub const PER_MILLI: i64 = 90;
    /// The timeline's origin.
    pub const ZERO: Ticks = Ticks(0);

    /// From a raw count of 1/90,000 s.
    pub const fn new(ticks: i64) -> Self {
        Ticks(ticks)
    }

    /// The raw count of 1/90,000 s.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// From milliseconds; saturates at the ends of the range.
    pub const fn from_millis(millis: i64) -> Self {
        Ticks(millis.saturating_mul(Self::PER_MILLI))
    }

    /// Whole milliseconds, rounded towards the past.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(Self::PER_MILLI)
    }

    /// From a duration; saturates.
    pub fn from_duration(span: Duration) -> Self {
        let ticks = span.as_nanos().saturating_mul(9) / 100_000;
        Ticks(i64::try_from(ticks).unwrap_or(i64::MAX))
    }

    /// As a duration; negative spans give zero.
    pub fn to_duration(self) -> Duration {
        let ticks = u64::try_from(self.0).unwrap_or(0);
        Duration::from_secs(ticks / 90_000) + Duration::from_nanos(ticks % 90_000 * 100_000 / 9)
    }
}

impl Add for Ticks {
    type Output = Ticks;
    fn add(self, other: Ticks) -> Ticks {
        Ticks(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Ticks {
    fn add_assign(&mut self, other: Ticks) {
        *self = *self + other;
    }
}

impl Sub for Ticks {
    type Output = Ticks;
    fn sub(self, other: Ticks) -> Ticks {
        Ticks(self.0.saturating_sub(other.0))
    }
}

impl Neg for Ticks {
    type Output = Ticks;
    fn neg(self) -> Ticks {
        Ticks(self.0.saturating_neg())
    }
}

impl fmt::Debug for Ticks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}t", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_survive_the_round_trip() {
        for millis in [-1, 0, 1, 33, 16_777_215, 4_294_967_295] {
            assert_eq!(Ticks::from_millis(millis).as_millis(), millis);
        }
    }

    #[test]
    fn durations_survive_the_round_trip() {
        for ticks in [0, 1, 3003, 90_000, 123_456_789] {
            assert_eq!(
                Ticks::from_duration(Ticks::new(ticks).to_duration() + Duration::from_nanos(1)).get(),
                ticks
            );
        }
        assert_eq!(Ticks::new(-5).to_duration(), Duration::ZERO);
    }

    #[test]
    fn arithmetic_saturates_instead_of_wrapping() {
        assert_eq!(Ticks::new(i64::MAX) + Ticks::new(1), Ticks::new(i64::MAX));
        assert_eq!(Ticks::new(i64::MIN) - Ticks::new(1), Ticks::new(i64::MIN));
    }
}
