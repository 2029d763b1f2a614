//! The last lines of the log, in memory, for who manages the gateway from afar.
//!
//! Secrets have no business in a log. Should one get there all the same, it is taken out here: passwords in URLs, tokens of
//! ours, and every secret text of the config that runs.

use super::redact::redact;
use crate::clock::{timestamp, wall_clock};
use fieldgate_hub::Clock;
use fieldgate_model::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Lines that are kept.
const LINES: usize = 2_000;
/// Bytes that they may take together.
const BYTES: usize = 384 << 10;
/// Longest line, in bytes.
const LINE_MAX: usize = 2_000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "LogLine")]
pub struct Line {
    /// Its number since the program started, from 1.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// The part of the program that says it.
    pub target: String,
    /// What, with the fields behind it.
    pub text: String,
}

/// Some of the lines, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "LogPage")]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<Line>,
    /// Give this as `since` for those after.
    pub next_cursor: u64,
    /// Lines before this one are forgotten.
    pub oldest: u64,
}

/// The last lines; cheap to clone.
#[derive(Clone)]
pub struct Tail {
    state: Arc<Mutex<State>>,
    news: watch::Sender<u64>,
}

struct State {
    lines: VecDeque<Line>,
    bytes: usize,
    next_id: u64,
    secrets: Vec<String>,
    clock: Clock,
}

impl Default for Tail {
    fn default() -> Self {
        let state = State {
            lines: VecDeque::new(),
            bytes: 0,
            next_id: 1,
            secrets: Vec::new(),
            clock: wall_clock(None),
        };
        Tail { state: Arc::new(Mutex::new(state)), news: watch::Sender::new(0) }
    }
}

impl Tail {
    /// Texts to be taken out of every line from now on.
    pub fn set_secrets(&self, secrets: Vec<String>) {
        self.state().secrets = secrets;
    }

    /// A text as it may be shown.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        redact(text, &self.state().secrets)
    }

    /// Lines after `since`, or without it the newest; at most `limit`.
    pub fn page(&self, since: Option<u64>, limit: usize) -> LogPage {
        let state = self.state();
        let oldest = state.lines.front().map_or(state.next_id, |line| line.id);
        let newest = state.next_id - 1;
        let lines: Vec<Line> = match since {
            Some(since) => state.lines.iter().filter(|line| line.id > since).take(limit).cloned().collect(),
            None => state.lines.iter().skip(state.lines.len().saturating_sub(limit)).cloned().collect(),
        };
        let next_cursor = lines.last().map_or(newest.max(since.unwrap_or(0)), |line| line.id);
        LogPage { lines, next_cursor, oldest }
    }

    /// The number of the newest line, as it rises.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn add(&self, level: Level, target: &str, text: &str) {
        let mut state = self.state();
        let mut text = redact(text, &state.secrets);
        if text.len() > LINE_MAX {
            text.truncate(text.floor_char_boundary(LINE_MAX));
            text.push('\u{2026}');
        }
        let id = state.next_id;
        state.next_id += 1;
        let at = timestamp(&state.clock);
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        state.bytes += text.len() + target.len();
        state.lines.push_back(Line { id, at, level, target: target.to_owned(), text });
        while state.lines.len() > LINES || state.bytes > BYTES {
            let Some(gone) = state.lines.pop_front() else { break };
            state.bytes -= gone.text.len() + gone.target.len();
        }
        drop(state);
        self.news.send_replace(id);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Tail {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let metadata = event.metadata();
        self.add(*metadata.level(), metadata.target(), &(words.message + &words.fields));
    }
}

/// A line's message, and its fields as ` name=value`.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A text takes whatever is written.
        match field.name() {
            "message" => write!(self.message, "{value:?}").ok(),
            name => write!(self.fields, " {name}={value:?}").ok(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn texts(tail: &Tail) -> Vec<String> {
        tail.page(Some(0), usize::MAX).lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_kept_with_their_fields_and_without_secrets() {
        let tail = Tail::default();
        tail.set_secrets(vec!["s3cret-key".to_owned()]);
        let subscriber = tracing_subscriber::registry().with(tail.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(child = "push a/p", "failed");
            tracing::info!(url = %"rtsp://u:pa55@10.0.0.7/main?key=k1", "asked with s3cret-key");
        });
        assert_eq!(
            texts(&tail),
            ["failed child=\"push a/p\"", "asked with *** url=rtsp://u:***@10.0.0.7/main?key=***"]
        );
        let page = tail.page(None, 1);
        assert_eq!((page.lines[0].level, page.lines[0].id, page.next_cursor, page.oldest), ("info", 2, 2, 1));
        assert_eq!(*tail.follow().borrow(), 2);
    }

    #[test]
    fn the_tail_is_bounded_in_lines_and_bytes() {
        let tail = Tail::default();
        for number in 0..LINES + 5 {
            tail.add(Level::INFO, "t", &number.to_string());
        }
        assert_eq!((texts(&tail).len(), tail.page(None, 1).oldest), (LINES, 6));
        for _ in 0..500 {
            tail.add(Level::INFO, "t", &"\u{e4}".repeat(5_000));
        }
        let total: usize = texts(&tail).iter().map(String::len).sum();
        assert!(total <= BYTES, "{total}");
        let page = tail.page(Some(0), 10);
        assert_eq!(page.next_cursor, page.oldest + 9, "what is forgotten is left out");
    }
}
