//! Durations as people write them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration, written as a whole number with its unit: `"50ms"`, `"90s"`, `"2m"`, `"1h"`, `"7d"`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

/// Why a text is no [`Span`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// No digits, or no known unit after them.
    #[error("must be a whole number with a unit (ms, s, m, h or d), such as \"90s\"")]
    Shape,
    /// More than [`Span::MAX_DAYS`].
    #[error("must be at most {} days", Span::MAX_DAYS)]
    TooLong,
}

impl Span {
    /// The longest span, in days.
    pub const MAX_DAYS: u64 = 3_650;
    /// No time at all.
    pub const ZERO: Span = Span(Duration::ZERO);

    /// From whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Span(Duration::from_secs(secs))
    }

    /// From whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Span(Duration::from_millis(millis))
    }

    /// As the standard library's type.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        span.0
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let millis_per_unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(SpanError::Shape),
        };
        if number.is_empty() {
            return Err(SpanError::Shape);
        }
        let number: u64 = number.parse().map_err(|_| SpanError::TooLong)?;
        match number.checked_mul(millis_per_unit) {
            Some(millis) if millis <= Self::MAX_DAYS * 86_400_000 => Ok(Span::from_millis(millis)),
            _ => Err(SpanError::TooLong),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = SpanError;

    fn try_from(text: String) -> Result<Self, SpanError> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match (millis % 1_000, millis / 1_000) {
            (0, secs) if secs >= 120 && secs % 60 == 0 => write!(f, "{}m", secs / 60),
            (0, secs) => write!(f, "{secs}s"),
            _ => write!(f, "{millis}ms"),
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "fieldgate-span",
            "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "description": "A duration: a whole number with its unit (ms, s, m, h or d), such as \"90s\".",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_as_the_same_span() {
        for text in ["0s", "50ms", "1500ms", "1s", "90s", "2m", "119s", "120m"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string(), text);
        }
        assert_eq!("1h".parse::<Span>().unwrap(), Span::from_secs(3_600));
        assert_eq!("7d".parse::<Span>().unwrap().get(), Duration::from_secs(7 * 86_400));
    }

    #[test]
    fn a_number_without_unit_or_without_bound_is_refused() {
        for text in ["", "s", "90", "1.5s", "-1s", " 1s", "1s ", "1S", "1min"] {
            assert_eq!(text.parse::<Span>(), Err(SpanError::Shape), "{text:?}");
        }
        assert_eq!("3651d".parse::<Span>(), Err(SpanError::TooLong));
        assert_eq!("99999999999999999999999s".parse::<Span>(), Err(SpanError::TooLong));
        assert!("3650d".parse::<Span>().is_ok());
    }
}
