//! The flight recorder: what happened, in plain words, in a bounded ring that outlives crash and power cut.
//!
//! ```text
//!  witness (looks at the status) --+
//!  whoever knows better -----------+--> Recorder (ring in memory) --> log (files)
//!                                            +--> API, event stream, webhooks, support bundle
//! ```
//! An event is in the kernel's hands within a second and on flash within half a minute, if the budget for flash allows it.

mod hooks;
mod log;
mod outage;
mod probe;
mod watch;
mod witness;

pub use hooks::{HookBoard, Hooks, WebhookStatus};
pub use watch::Watch;

use crate::clock::timestamp;
use fieldgate_hub::Clock;
use fieldgate_model::config::Config;
use fieldgate_model::status::Notice;
use fieldgate_model::{Event, EventKind, Timestamp};
use fieldgate_spool::Wear;
use log::Log;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch as news;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Events in memory.
const KEPT: usize = 1_024;
/// How long an event may wait for the flash.
const SYNC_EVERY: Duration = Duration::from_secs(30);
/// The same when more than half of the day's budget is spent.
const SYNC_SPARINGLY: Duration = Duration::from_secs(300);
/// How often it is looked whether there is something to write.
const ROUND: Duration = Duration::from_millis(500);

/// What the recorder costs, and what it could not keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RecorderStatus {
    /// Bytes written to flash in the last 24 hours, in whole pages.
    pub flash_bytes_per_day: u64,
    /// Events that are in memory alone for now.
    pub unwritten: u64,
    /// Lines of its files that could not be read at the start.
    pub damaged: u64,
}

/// Some of the events, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "EventPage")]
pub struct Page {
    /// The events.
    pub events: Vec<Event>,
    /// Give this as `since` for those after; none when there are none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<u64>,
    /// Events before this one are forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Only those after this one, the oldest first to be told; none: the newest.
    pub since: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// The recorder; shared by all who have something to tell or want to know.
pub struct Recorder {
    state: Mutex<State>,
    news: news::Sender<u64>,
    hooks: OnceLock<HookBoard>,
    clock: Clock,
}

struct State {
    events: VecDeque<Event>,
    next_id: u64,
    /// Events up to this one are in the files.
    written: u64,
    damaged: u64,
    flash_bytes_per_day: u64,
}

impl Recorder {
    /// Reads what was kept. Without a folder that can be used it works in memory; what is wrong is told. Blocks on the disk.
    pub fn open(folder: &Path, clock: Clock) -> (Arc<Recorder>, Keeper, Vec<Notice>) {
        let notice = |text: String| Notice { code: "recorder".to_owned(), text };
        let mut notices = Vec::new();
        let (log, found) = match Log::open(folder) {
            Ok((log, found)) => (Some(log), found),
            Err(error) => {
                notices.push(notice(format!(
                    "the flight recorder cannot use {}: {error}; what happens is kept in memory alone",
                    folder.display()
                )));
                (None, log::Found::default())
            }
        };
        if found.damaged > 0 {
            notices
                .push(notice(format!("damaged entries of the flight recorder, left out: {}", found.damaged)));
        }
        let next_id = found.events.last().map_or(1, |last| last.id + 1 + found.damaged);
        let ended = found.events.last().map(|last| (last.kind, last.at));
        let skip = found.events.len().saturating_sub(KEPT);
        let state = State {
            events: found.events.into_iter().skip(skip).collect(),
            next_id,
            written: next_id - 1,
            damaged: found.damaged,
            flash_bytes_per_day: 0,
        };
        let recorder = Arc::new(Recorder {
            state: Mutex::new(state),
            news: news::Sender::new(next_id - 1),
            hooks: OnceLock::new(),
            clock,
        });
        recorder.note(Event::new(EventKind::Started, start_text(ended, found.damaged)));
        let keeper = Keeper { recorder: recorder.clone(), log, wear: Wear::default() };
        (recorder, keeper, notices)
    }

    /// Adds an event, which gets its number and, unless it has one, its time.
    pub fn note(&self, event: Event) {
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        let at = if event.at == Timestamp::default() { timestamp(&self.clock) } else { event.at };
        // Whoever decided has logged it in its own words.
        debug!(
            id,
            mountpoint = event.mountpoint,
            upstream = event.upstream,
            lost_seconds = event.lost_seconds,
            cause = event.cause.map(fieldgate_model::Cause::name),
            "{}",
            event.text
        );
        if state.events.len() == KEPT {
            state.events.pop_front();
        }
        state.events.push_back(Event { id, at, ..event });
        drop(state);
        self.news.send_replace(id);
    }

    /// Events that pass `sees`.
    pub fn page(&self, wanted: Wanted, sees: impl Fn(&Event) -> bool) -> Page {
        let state = self.state();
        let seen = state.events.iter().filter(|event| sees(event));
        let oldest = state.events.front().map(|event| event.id);
        let (events, next_cursor): (Vec<Event>, Option<u64>) = match wanted.since {
            Some(since) => {
                let after = seen.filter(|event| event.id > since);
                let events: Vec<Event> = after.take(wanted.limit).cloned().collect();
                let next = match events.last() {
                    Some(last) if events.len() == wanted.limit => last.id,
                    // Nothing that may be seen is left: what may not be need not be looked at again.
                    _ => state.next_id.saturating_sub(1).max(since),
                };
                (events, Some(next))
            }
            None => {
                let mut events: Vec<Event> = seen.rev().take(wanted.limit).cloned().collect();
                events.reverse();
                (events, Some(state.next_id.saturating_sub(1)))
            }
        };
        Page { events, next_cursor, oldest }
    }

    /// The number of the newest event, as it rises.
    pub fn follow(&self) -> news::Receiver<u64> {
        self.news.subscribe()
    }

    /// What it costs.
    pub fn status(&self) -> RecorderStatus {
        let state = self.state();
        RecorderStatus {
            flash_bytes_per_day: state.flash_bytes_per_day,
            unwritten: state.next_id - 1 - state.written,
            damaged: state.damaged,
        }
    }

    /// Tells how webhooks do, from now on.
    pub fn show_hooks(&self, board: HookBoard) {
        self.hooks.set(board).ok();
    }

    /// How webhooks do, by name.
    pub fn hooks(&self) -> BTreeMap<String, WebhookStatus> {
        self.hooks.get().map(HookBoard::all).unwrap_or_default()
    }

    fn unwritten(&self) -> Vec<Event> {
        let state = self.state();
        state.events.iter().filter(|event| event.id > state.written).cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_text(ended: Option<(EventKind, Timestamp)>, damaged: u64) -> String {
    let mut text = match ended {
        None => "the gateway started".to_owned(),
        Some((EventKind::Stopped, _)) => "the gateway started, after it had been stopped".to_owned(),
        Some((_, at)) => format!(
            "the gateway started; the run before it ended without a word (power cut, crash, or killed): its last \
             entry is of {at}"
        ),
    };
    if damaged > 0 {
        text.push_str(&format!("; damaged entries of this recorder, left out: {damaged}"));
    }
    text
}

/// Writes what is recorded.
pub struct Keeper {
    recorder: Arc<Recorder>,
    log: Option<Log>,
    wear: Wear,
}

impl Keeper {
    /// Until cancelled; then once more, with the word that the gateway was stopped.
    pub async fn run(mut self, config: news::Receiver<Arc<Config>>, cancel: CancellationToken) {
        let mut dirty_since: Option<Instant> = None;
        let mut has_failed = false;
        loop {
            let is_last = tokio::select! {
                () = cancel.cancelled() => true,
                () = tokio::time::sleep(ROUND) => false,
            };
            if is_last {
                self.recorder.note(Event::new(EventKind::Stopped, "the gateway was stopped"));
            }
            let budget = config.borrow().events.flash_bytes_per_day;
            let now = self.recorder.clock.unix_micros();
            let spent = self.wear.per_day(now);
            let patience = if spent * 2 > budget { SYNC_SPARINGLY } else { SYNC_EVERY };
            let is_due = is_last || dirty_since.is_some_and(|since| since.elapsed() >= patience);
            // The kernel writes by itself what it holds for long: beyond the budget it gets nothing.
            let may = spent < budget;
            let Some(mut log) = self.log.take() else {
                if is_last {
                    return;
                }
                continue;
            };
            let events = if may { self.recorder.unwritten() } else { Vec::new() };
            let last = events.last().map(|event| event.id);
            let work = move || {
                let written = if events.is_empty() { Ok(()) } else { log.append(&events) };
                let due = is_due && log.is_dirty();
                let cost = if due { log.sync_cost() } else { 0 };
                let written = written.and_then(|()| if due { log.sync() } else { Ok(()) });
                (log, written, cost)
            };
            let Ok((log, written, cost)) = tokio::task::spawn_blocking(work).await else { return };
            let is_dirty = log.is_dirty();
            self.log = Some(log);
            self.wear.add(cost, now);
            match written {
                Ok(()) => {
                    has_failed = false;
                    let mut state = self.recorder.state();
                    state.written = last.unwrap_or(state.written).max(state.written);
                    state.flash_bytes_per_day = self.wear.per_day(now);
                }
                Err(error) => {
                    if !has_failed {
                        warn!(%error, "the flight recorder cannot be written; it goes on in memory");
                    }
                    has_failed = true;
                }
            }
            dirty_since = is_dirty.then(|| dirty_since.unwrap_or_else(Instant::now));
            if is_last {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
