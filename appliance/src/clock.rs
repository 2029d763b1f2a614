//! Wall-clock time for what is stored and shown. Deadlines use `tokio::time`.

use fieldgate_model::Timestamp;

/// No build of this program is older; a board without a battery boots in 1970.
const FLOOR_UNIX_MICROS: i64 = 1_767_225_600_000_000;

/// The program's clock: never before 2026, nor before `saved`, the last time known from storage.
pub fn wall_clock(saved: Option<Timestamp>) -> fieldgate_hub::Clock {
    let saved = saved.map_or(0, |time| time.unix_millis().saturating_mul(1_000));
    fieldgate_hub::Clock::new(FLOOR_UNIX_MICROS.max(saved))
}

/// What the clock shows, as it is written.
pub fn timestamp(clock: &fieldgate_hub::Clock) -> Timestamp {
    Timestamp::from_unix_millis(clock.unix_micros() / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_before_what_was_saved() {
        let saved = Timestamp::from_unix_millis(4_000_000_000_000);
        assert_eq!(timestamp(&wall_clock(Some(saved))), saved);
        assert!(timestamp(&wall_clock(None)).unix_millis() * 1_000 >= FLOOR_UNIX_MICROS);
    }
}
