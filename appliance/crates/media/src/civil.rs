//! Calendar dates of the years 0 to 9999, and seconds since 1970.

/// Seconds since 1970 of the first moment that has a date here.
pub const FIRST: i64 = -62_167_219_200;
/// Seconds since 1970 of the last.
pub const LAST: i64 = 253_402_300_799;

/// Seconds since 1970 of a UTC date and time; `None` if there is no such day or time. A leap second counts as the one
/// before.
pub fn to_unix([year, month, day]: [i64; 3], [hour, minute, second]: [i64; 3]) -> Option<i64> {
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    if !is_time || !(0..=9_999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    (from_days(days) == [year, month, day]).then_some(())?;
    days.checked_mul(86_400)?
        .checked_add(hour.checked_mul(3_600)?)?
        .checked_add(minute.checked_mul(60)?)?
        .checked_add(second.min(59))
}

/// Year, month, day and hour, minute, second of seconds since 1970, within the years 0 to 9999.
pub fn from_unix(seconds: i64) -> ([i64; 3], [i64; 3]) {
    let seconds = seconds.clamp(FIRST, LAST);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let date = from_days(days);
    (date, [rest.div_euclid(3_600), rest.div_euclid(60).rem_euclid(60), rest.rem_euclid(60)])
}

/// Like `2026-01-31T12:00:00.250Z`.
pub fn timestamp(unix_millis: i64) -> String {
    let ([year, month, day], [hour, minute, second]) = from_unix(unix_millis.div_euclid(1_000));
    let millis = unix_millis.rem_euclid(1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Source of both: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
#[allow(clippy::arithmetic_side_effects, reason = "years are at most 9999")]
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[allow(clippy::arithmetic_side_effects, reason = "days are those of years 0 to 9999")]
fn from_days(days: i64) -> [i64; 3] {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    [year, month, day_of_year - (153 * shifted + 2) / 5 + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_both_ways() {
        for (seconds, date, time) in [
            (0, [1970, 1, 1], [0, 0, 0]),
            (951_782_400, [2000, 2, 29], [0, 0, 0]),
            (1_795_226_400, [2026, 11, 21], [2, 0, 0]),
            (253_402_300_799, [9999, 12, 31], [23, 59, 59]),
        ] {
            assert_eq!(to_unix(date, time), Some(seconds));
            assert_eq!(from_unix(seconds), (date, time));
        }
        assert_eq!(timestamp(1_795_226_400_250), "2026-11-21T02:00:00.250Z");
        assert_eq!(to_unix([2016, 12, 31], [23, 59, 60]), to_unix([2016, 12, 31], [23, 59, 59]));
    }

    #[test]
    fn days_that_are_none_are_refused() {
        for (date, time) in [
            ([2026, 2, 30], [0, 0, 0]),
            ([2026, 13, 1], [0, 0, 0]),
            ([-1, 1, 1], [0, 0, 0]),
            ([i64::MAX, 1, 1], [0, 0, 0]),
            ([2026, 1, 1], [24, 0, 0]),
            ([2026, 1, 1], [0, -1, 0]),
        ] {
            assert_eq!(to_unix(date, time), None);
        }
        assert_eq!((from_unix(i64::MIN).0, from_unix(FIRST).0), ([0, 1, 1], [0, 1, 1]));
        assert_eq!(to_unix([0, 1, 1], [0, 0, 0]), Some(FIRST));
    }
}
