//! Where log lines go and how they look.
//!
//! Text with times for a terminal, JSON for collectors, and for systemd's journal its own protocol, with every field apart;
//! where its socket is not, lines without times but with the priority in front (`<4>`), as `sd-daemon(3)` says. Whoever logs a fault that may last takes a [`RateLimit`].

mod journal;
mod redact;
mod tail;

pub use redact::redact;
pub use tail::{Line, LogPage, Tail};

use journal::Journal;
use std::fmt;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
    /// For systemd's journal, which has its own times.
    Journald,
}

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a level, nor a filter.
    #[error("--log {given:?} is no level (error, warn, info, debug, trace) or filter: {source}")]
    Filter {
        /// What was given.
        given: String,
        /// What is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else logs already.
    #[error("logging was set up twice")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends all log lines to standard error, and keeps the last of them. `filter` is a level, or directives such as
/// `info,fieldgate_net=debug`.
pub fn start(filter: &str, format: LogFormat) -> Result<Tail, LogError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let filter =
        EnvFilter::try_new(filter).map_err(|source| LogError::Filter { given: filter.to_owned(), source })?;
    let tail = Tail::default();
    if format == LogFormat::Journald
        && let Ok(journal) = Journal::connect(Path::new(journal::SOCKET), tail.clone())
    {
        tracing_subscriber::registry().with(filter).with(journal).with(tail.clone()).try_init()?;
        return Ok(tail);
    }
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => {
            lines.with_ansi(std::io::stderr().is_terminal()).finish().with(tail.clone()).try_init()?
        }
        LogFormat::Json => lines.json().flatten_event(true).finish().with(tail.clone()).try_init()?,
        LogFormat::Journald => {
            let inner = Format::default().without_time().with_level(false).with_ansi(false);
            lines
                .with_ansi(false)
                .event_format(Prioritised { inner })
                .finish()
                .with(tail.clone())
                .try_init()?;
        }
    }
    Ok(tail)
}

struct Prioritised {
    inner: Format<Full, ()>,
}

impl<S, N> FormatEvent<S, N> for Prioritised
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.inner.format_event(context, writer, event)
    }
}

/// syslog's number for a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// Lets one line pass per period and counts the others: a fault that lasts an hour is a line now and then.
#[derive(Debug)]
pub struct RateLimit {
    period: Duration,
    passed: Option<Instant>,
    held_back: u64,
}

impl RateLimit {
    /// At most one line in this time.
    pub fn new(period: Duration) -> Self {
        RateLimit { period, passed: None, held_back: 0 }
    }

    /// Whether a line may be written now; if so, how many were held back since the last.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.passed.is_some_and(|passed| now.duration_since(passed) < self.period) {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.passed = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn journald_gets_the_priority_and_no_time() {
        let lines = Lines::default();
        let writer = lines.clone();
        let inner = Format::default().without_time().with_level(false).with_ansi(false);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Prioritised { inner })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(child = "push a/p", "failed");
            tracing::info!("fine");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "<4>fieldgate::logging::tests: failed child=\"push a/p\"");
        assert_eq!(lines[1], "<6>fieldgate::logging::tests: fine");
    }

    #[test]
    fn a_fault_that_lasts_is_a_line_now_and_then_with_a_count() {
        #[allow(clippy::disallowed_methods, reason = "only differences matter")]
        let start = Instant::now();
        let mut limit = RateLimit::new(Duration::from_secs(60));
        let at = |secs| start + Duration::from_secs(secs);
        assert_eq!(limit.pass(at(0)), Some(0));
        assert!((1..60).all(|secs| limit.pass(at(secs)).is_none()));
        assert_eq!(limit.pass(at(60)), Some(59));
        assert_eq!(limit.pass(at(200)), Some(0));
    }
}
