//! Wall-clock times as the API writes them.

use fieldgate_media::civil;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// A moment of wall-clock time, to the millisecond; written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp {
    unix_millis: i64,
}

/// The text is not `YYYY-MM-DDTHH:MM:SS[.mmm]Z`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a time such as 2026-01-31T12:00:00Z")]
pub struct TimestampError;

impl Timestamp {
    /// The last millisecond that is written with four digits of year.
    const MAX_MILLIS: i64 = civil::LAST * 1_000 + 999;

    /// From milliseconds since 1970-01-01 UTC; outside the years 0 to 9999 the nearest of them.
    pub fn from_unix_millis(unix_millis: i64) -> Self {
        Timestamp { unix_millis: unix_millis.clamp(civil::FIRST * 1_000, Self::MAX_MILLIS) }
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub fn unix_millis(self) -> i64 {
        self.unix_millis
    }

    /// This moment and so much later.
    #[must_use]
    pub fn plus(self, span: std::time::Duration) -> Self {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_unix_millis(self.unix_millis.saturating_add(millis))
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "A moment of wall-clock time, RFC 3339 in UTC, such as \"2026-11-21T02:00:00.040Z\".",
        })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&civil::timestamp(self.unix_millis))
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let number = |range: std::ops::Range<usize>| -> Result<i64, TimestampError> {
            let digits = text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|digits| digits.parse().ok()).ok_or(TimestampError)
        };
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        let shaped = separators.iter().all(|(at, byte)| text.as_bytes().get(*at) == Some(byte));
        let millis = match text.len() {
            20 if shaped && text.ends_with('Z') => 0,
            24 if shaped && text.ends_with('Z') && text.as_bytes().get(19) == Some(&b'.') => number(20..23)?,
            _ => return Err(TimestampError),
        };
        let date = [number(0..4)?, number(5..7)?, number(8..10)?];
        let time = [number(11..13)?, number(14..16)?, number(17..19)?];
        // A leap second has no place of its own to come back from.
        let seconds = civil::to_unix(date, time).filter(|_| time[2] < 60).ok_or(TimestampError)?;
        Ok(Timestamp::from_unix_millis(seconds * 1_000 + millis))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = TimestampError;

    fn try_from(text: String) -> Result<Self, TimestampError> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_795_226_400_500, "2026-11-21T02:00:00.500Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (Timestamp::MAX_MILLIS, "9999-12-31T23:59:59.999Z"),
        ] {
            let time = Timestamp::from_unix_millis(millis);
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
        }
        assert_eq!(Timestamp::from_unix_millis(i64::MAX).unix_millis(), Timestamp::MAX_MILLIS);
        assert_eq!("2026-11-21T02:00:00Z".parse::<Timestamp>().unwrap().unix_millis(), 1_795_226_400_000);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:00.0000Z",
            "2026-01-01T00:00:0\u{e9}",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text:?}");
        }
    }
}
