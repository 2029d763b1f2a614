//! How much is written to the flash: it wears out by that.

const HOUR_MICROS: i64 = 3_600_000_000;

/// Bytes written in each of the last 24 hours.
#[derive(Debug, Default)]
pub struct Wear {
    hours: [u64; 24],
    hour: i64,
    total: u64,
}

impl Wear {
    /// A meter that continues a total.
    pub fn new(total: u64) -> Wear {
        Wear { total, ..Wear::default() }
    }

    /// Counts bytes at a time of day, microseconds since 1970.
    pub fn add(&mut self, bytes: u64, unix_micros: i64) {
        self.turn(unix_micros);
        self.total += bytes;
        if let Some(hour) = self.hours.get_mut(slot(self.hour)) {
            *hour += bytes;
        }
    }

    /// Bytes of the last 24 hours.
    pub fn per_day(&mut self, unix_micros: i64) -> u64 {
        self.turn(unix_micros);
        self.hours.iter().sum()
    }

    /// Bytes since the meter was first made.
    pub fn total(&self) -> u64 {
        self.total
    }

    fn turn(&mut self, unix_micros: i64) {
        let now = unix_micros.div_euclid(HOUR_MICROS);
        // A clock that was set back goes on with the hour that it had.
        for passed in (self.hour + 1..=now).rev().take(24) {
            if let Some(hour) = self.hours.get_mut(slot(passed)) {
                *hour = 0;
            }
        }
        self.hour = self.hour.max(now);
    }
}

fn slot(hour: i64) -> usize {
    usize::try_from(hour.rem_euclid(24)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_24_hours_are_counted_and_a_clock_that_is_set_does_no_harm() {
        let mut wear = Wear::new(7);
        let start = 1_795_226_400_000_000;
        for hour in 0..48 {
            wear.add(100, start + hour * HOUR_MICROS);
        }
        assert_eq!((wear.per_day(start + 47 * HOUR_MICROS), wear.total()), (2_400, 4_807));
        wear.add(100, start);
        assert_eq!(wear.per_day(start), 2_500);
        assert_eq!(wear.per_day(start + 60 * HOUR_MICROS), 1_200);
        assert_eq!(wear.per_day(start + 1_000 * HOUR_MICROS), 0);
    }
}
