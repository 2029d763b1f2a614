//! The heartbeat: a rolling key, neither too early nor too late.
//!
//! ```text
//!  Off --begin--> Create --GET--> Beating --POST every interval--> Beating
//!                   ^                |
//!                   +-- 403, 404, 409, 410 (lost reply, forgotten, dead)
//! ```
//! Too early is a strike as well as too late: after a stall nothing is caught up, and no two beats come closer than the
//! master permits.

use super::Key;
use super::after;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The numbers of masters that name none.
const INTERVAL: u64 = 5;
const FRAME_OF_ERROR: u64 = 2;
/// What a master may set.
const INTERVAL_MAX: u64 = 300;
/// Commands of one reply that are looked at.
const COMMANDS_MAX: usize = 1000;

/// What the master knows this heartbeat by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    id: String,
    key: Key,
    interval: Duration,
    frame_of_error: Duration,
}

impl Session {
    /// In the middle of what is neither too early nor late.
    fn safe_gap(&self) -> Duration {
        self.interval.saturating_sub(self.frame_of_error.checked_div(2).unwrap_or_default())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Off,
    Create,
    Beating(Session),
}

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Send {
    /// `GET`: begin a heartbeat.
    Create,
    /// `POST` with these.
    Beat {
        /// The heartbeat.
        id: String,
        /// The last key received.
        key: Key,
    },
}

/// What a reply says that others must know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The role that the node is to have.
    pub mode: Option<String>,
    /// The version of the tables.
    pub table_version: Option<u64>,
    /// Streams to be dropped.
    pub drop: Vec<String>,
    /// The beat was a strike: too late or too soon.
    pub strike: bool,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A heartbeat has begun.
    Begun,
    /// A beat was taken.
    Taken(Said),
    /// The heartbeat is dead or unknown: a new one is begun at once.
    Lost,
    /// The node is not known any more: it must announce itself.
    Unknown,
    /// No sensible answer; tried again later.
    Failed,
}

/// One node's heartbeat.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    state: State,
    retry: Duration,
    due: Option<Instant>,
    /// A call is on its way.
    pending: Option<Instant>,
    last_sent: Option<Instant>,
}

impl Beat {
    /// Off; `retry` is the wait after a failure.
    pub(super) fn new(retry: Duration) -> Beat {
        Beat { state: State::Off, retry, due: None, pending: None, last_sent: None }
    }

    /// The node has announced itself: begins anew. Answers that are on their way are of no meaning any more.
    pub(super) fn begin(&mut self, now: Instant) {
        self.state = State::Create;
        (self.due, self.pending) = (Some(now), None);
    }

    /// No more beats.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
        (self.due, self.pending) = (None, None);
    }

    /// When something is to be sent; never while a call is on its way.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.pending.is_none())
    }

    /// What is to be sent now, if it is time.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Send> {
        if self.due().is_none_or(|due| now < due) {
            return None;
        }
        let send = match &self.state {
            State::Off => return None,
            State::Create => Send::Create,
            State::Beating(session) => {
                self.last_sent = Some(now);
                Send::Beat { id: session.id.clone(), key: session.key.clone() }
            }
        };
        (self.pending, self.due) = (Some(now), None);
        Some(send)
    }

    /// A call has been answered.
    pub(super) fn handle_reply(&mut self, status: u16, body: &[u8], now: Instant) -> Outcome {
        let Some(sent) = self.pending.take() else { return Outcome::Failed };
        match (status, &self.state) {
            (401, _) => {
                self.stop();
                Outcome::Unknown
            }
            (200, State::Create) => match created(body) {
                Some(session) => {
                    // Within one interval, and not as early as would be a strike.
                    let first = session.safe_gap();
                    self.due = Some(after(now, first).max(self.earliest(&session, now)));
                    self.state = State::Beating(session);
                    Outcome::Begun
                }
                None => self.fail(now),
            },
            (200, State::Beating(session)) => match taken(body) {
                Some((key, said)) => {
                    let session = Session { key, ..session.clone() };
                    // A slow master may count from when it answered.
                    let quiet = session.safe_gap();
                    self.due = Some(after(sent, session.interval).max(after(now, quiet)));
                    self.state = State::Beating(session);
                    Outcome::Taken(said)
                }
                None => self.fail(now),
            },
            (403 | 404 | 409 | 410, State::Beating(_)) => {
                self.state = State::Create;
                self.due = Some(now);
                Outcome::Lost
            }
            _ => self.fail(now),
        }
    }

    /// A call has failed: tried again later, with the same key. If the master took the beat and its reply was lost, it
    /// will say 403.
    pub(super) fn handle_failure(&mut self, now: Instant) -> Outcome {
        if self.pending.take().is_none() {
            return Outcome::Failed;
        }
        self.fail(now)
    }

    fn fail(&mut self, now: Instant) -> Outcome {
        let at = after(now, self.retry);
        self.due = Some(match &self.state {
            State::Off => return Outcome::Failed,
            State::Create => at,
            State::Beating(session) => at.max(self.earliest(session, now)),
        });
        Outcome::Failed
    }

    /// No beat before this.
    fn earliest(&self, session: &Session, now: Instant) -> Instant {
        let gap = session.interval.saturating_sub(session.frame_of_error);
        let gap = gap.saturating_add(Duration::from_millis(200)).min(session.interval);
        self.last_sent.map_or(now, |sent| after(sent, gap))
    }
}

fn created(body: &[u8]) -> Option<Session> {
    let reply: Value = serde_json::from_slice(body).ok()?;
    let seconds = |field: &str, default: u64| reply.get(field).and_then(Value::as_u64).unwrap_or(default);
    let interval = seconds("interval", INTERVAL).clamp(1, INTERVAL_MAX);
    Some(Session {
        id: text(&reply, "heartbeat_id")?,
        key: Key::new(text(&reply, "key")?),
        interval: Duration::from_secs(interval),
        frame_of_error: Duration::from_secs(seconds("frame_of_error", FRAME_OF_ERROR).min(interval)),
    })
}

fn taken(body: &[u8]) -> Option<(Key, Said)> {
    let reply: Value = serde_json::from_slice(body).ok()?;
    let key = Key::new(text(&reply, "key")?);
    let commands = reply.get("commands").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let drops = commands
        .iter()
        .take(COMMANDS_MAX)
        .filter(|command| command.get("cmd").and_then(Value::as_str) == Some("drop"));
    let said = Said {
        mode: reply.get("mode").and_then(Value::as_str).map(str::to_owned),
        table_version: reply.get("table_version").and_then(Value::as_u64),
        drop: drops.filter_map(|command| Some(command.get("stream_id")?.as_str()?.to_owned())).collect(),
        strike: matches!(reply.get("status").and_then(Value::as_u64), Some(1 | 2)),
    };
    Some((key, said))
}

fn text(reply: &Value, field: &str) -> Option<String> {
    let text = reply.get(field)?.as_str()?;
    (!text.is_empty() && text.len() <= 256).then(|| text.to_owned())
}

/// What a node reports with each beat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The streams that are here.
    pub streams: Vec<StreamReport>,
    /// Percent of all cores.
    pub cpu: f64,
    /// Percent of the memory.
    pub ram: f64,
    /// Megabits per second received.
    pub rx_mbps: f64,
    /// Megabits per second sent.
    pub tx_mbps: f64,
    /// Seconds since the start.
    pub uptime: u64,
}

/// One stream in a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Its id.
    pub stream_id: String,
    /// `live` or `relay`.
    pub app: String,
    /// Who watch it here.
    pub clients: u64,
    /// Bits per second that come in.
    pub bw_in: u64,
    /// Seconds since 1970.
    pub since: i64,
}

/// The body of a beat.
pub(super) fn body(id: &str, key: &Key, mode: &str, table_version: u64, report: &Report) -> Vec<u8> {
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let streams: Vec<Value> = report
        .streams
        .iter()
        .map(|stream| {
            json!({"stream_id": stream.stream_id, "app": stream.app, "clients": stream.clients,
                "bw_in": stream.bw_in, "since": stream.since})
        })
        .collect();
    json!({
        "heartbeat_id": id, "key": key.reveal(), "mode": mode, "table_version": table_version, "streams": streams,
        "stats": {"cpu": tenths(report.cpu), "ram": tenths(report.ram), "rx_mbps": tenths(report.rx_mbps),
            "tx_mbps": tenths(report.tx_mbps), "uptime": report.uptime},
    })
    .to_string()
    .into_bytes()
}

#[cfg(test)]
mod tests;
