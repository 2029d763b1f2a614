//! What the master is told about streams: queued, one at a time, until it has taken it.

use super::after;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Events that wait; of older ones about the same stream the newest is kept.
pub(super) const WAITING_MAX: usize = 1000;
/// Wait after a failed try, doubled up to a limit.
const RETRY: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];

/// What happened to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// A broadcaster has begun it.
    Start,
    /// It is over.
    Stop,
    /// Another node sends it.
    RelayStart,
    /// That is over.
    RelayStop,
}

impl EventKind {
    const fn word(self) -> &'static str {
        match self {
            EventKind::Start => "start",
            EventKind::Stop => "stop",
            EventKind::RelayStart => "relay_start",
            EventKind::RelayStop => "relay_stop",
        }
    }

    /// Whether the master may refuse the stream.
    pub(super) const fn begins(self) -> bool {
        matches!(self, EventKind::Start | EventKind::RelayStart)
    }
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Its publisher left.
    Eof,
    /// The master refused it.
    Denied,
    /// The master or an operator ended it.
    Dropped,
    /// The node's new role forbids it.
    Role,
}

impl StopReason {
    const fn word(self) -> &'static str {
        match self {
            StopReason::Eof => "eof",
            StopReason::Denied => "denied",
            StopReason::Dropped => "dropped",
            StopReason::Role => "role",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamEvent {
    /// What.
    pub kind: EventKind,
    /// The stream.
    pub stream_id: String,
    /// Who feeds it.
    pub addr: String,
    /// Seconds since 1970.
    pub time: i64,
    /// Of an end.
    pub reason: Option<StopReason>,
}

impl StreamEvent {
    /// The body of the call.
    pub(super) fn body(&self, node_id: &str) -> Vec<u8> {
        let app = match self.kind {
            EventKind::Start | EventKind::Stop => "live",
            EventKind::RelayStart | EventKind::RelayStop => "relay",
        };
        let mut body = json!({
            "event": self.kind.word(), "stream_id": self.stream_id, "node_id": node_id, "app": app,
            "addr": self.addr, "time": self.time,
        });
        if let (Some(reason), Some(body)) = (self.reason, body.as_object_mut()) {
            body.insert("reason".to_owned(), reason.word().into());
        }
        body.to_string().into_bytes()
    }
}

/// What the master said to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is taken; with the version of the tables, if it was told.
    Taken(Option<u64>),
    /// The stream is to go.
    Refused,
    /// To be told again.
    Again,
}

/// Reads the reply to an event.
pub(super) fn heard(status: u16, body: &[u8]) -> Heard {
    match status {
        200..=299 => {
            let reply = match serde_json::from_slice(body) {
                Ok(reply @ Value::Object(_)) => reply,
                // Whatever stands between the master and us has said that.
                _ if !body.is_empty() => return Heard::Again,
                _ => Value::Null,
            };
            match reply.get("accepted").and_then(Value::as_bool) {
                Some(false) => Heard::Refused,
                _ => Heard::Taken(reply.get("table_version").and_then(Value::as_u64)),
            }
        }
        403 | 409 => Heard::Refused,
        500..=599 | 408 | 429 => Heard::Again,
        // Told again it would be no more welcome.
        _ => Heard::Taken(None),
    }
}

/// Events on their way.
#[derive(Debug, Default)]
pub(super) struct Events {
    waiting: VecDeque<StreamEvent>,
    /// The one that the master is being told.
    told: Option<StreamEvent>,
    due: Option<Instant>,
    failures: u32,
}

impl Events {
    /// Queues an event; older ones about the same stream that still wait are of no use any more.
    pub(super) fn push(&mut self, event: StreamEvent) {
        self.waiting.retain(|waiting| waiting.stream_id != event.stream_id);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(event);
    }

    /// The next to tell, if none is being told and it is time.
    pub(super) fn next(&mut self, now: Instant) -> Option<&StreamEvent> {
        if self.told.is_some() || self.due.is_some_and(|due| now < due) {
            return None;
        }
        self.told = self.waiting.pop_front();
        self.told.as_ref()
    }

    /// The one that is being told was taken or refused.
    pub(super) fn done(&mut self) -> Option<StreamEvent> {
        (self.due, self.failures) = (None, 0);
        self.told.take()
    }

    /// It did not arrive: it is told again, unless something newer about its stream waits.
    pub(super) fn failed(&mut self, now: Instant) {
        self.back();
        let [first, most] = RETRY;
        let wait = first.saturating_mul(1 << self.failures.min(8)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(after(now, wait));
    }

    /// It was not sent after all: it waits again, with no penalty.
    pub(super) fn back(&mut self) {
        if let Some(told) = self.told.take()
            && !self.waiting.iter().any(|waiting| waiting.stream_id == told.stream_id)
        {
            self.waiting.push_front(told);
        }
    }

    /// The master is back: no more waiting.
    pub(super) fn hurry(&mut self) {
        (self.due, self.failures) = (None, 0);
    }

    /// When the next may be told.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.told.is_none() && !self.waiting.is_empty())
    }

    /// Whether something waits that could be told now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        self.told.is_none() && !self.waiting.is_empty() && self.due.is_none_or(|due| due <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(stream: &str, kind: EventKind) -> StreamEvent {
        let reason = (!kind.begins()).then_some(StopReason::Eof);
        StreamEvent { kind, stream_id: stream.into(), addr: "192.0.2.1".into(), time: 1_700_000_000, reason }
    }

    fn start() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "only differences matter")]
        Instant::now()
    }

    #[test]
    fn check_07_an_event_says_what_where_and_why() {
        let body: Value = serde_json::from_slice(&event("s1", EventKind::Start).body("n1")).unwrap();
        let expected = json!({"event": "start", "stream_id": "s1", "node_id": "n1", "app": "live",
            "addr": "192.0.2.1", "time": 1_700_000_000});
        assert_eq!(body, expected);
        let body: Value = serde_json::from_slice(&event("s1", EventKind::RelayStop).body("n1")).unwrap();
        assert_eq!((&body["reason"], &body["app"]), (&json!("eof"), &json!("relay")));
    }

    #[test]
    fn a_refusal_is_told_from_a_failure() {
        assert_eq!(heard(200, br#"{"accepted":true,"table_version":13}"#), Heard::Taken(Some(13)));
        assert_eq!(heard(204, b""), Heard::Taken(None));
        assert_eq!(heard(200, br#"{"accepted":false}"#), Heard::Refused);
        assert_eq!([heard(403, b""), heard(409, b"")], [Heard::Refused; 2]);
        assert_eq!([heard(500, b""), heard(503, b""), heard(429, b"")], [Heard::Again; 3]);
        assert_eq!(heard(404, b""), Heard::Taken(None));
        assert_eq!(
            [heard(200, b"<html>Log in"), heard(200, b"[]")],
            [Heard::Again; 2],
            "no master says that"
        );
    }

    #[test]
    fn check_19_an_event_is_told_until_it_is_taken() {
        let (mut events, t) = (Events::default(), start());
        events.push(event("s1", EventKind::Stop));
        for wait in [5, 10, 20, 30, 30] {
            let now = events.due().unwrap_or(t);
            assert!(events.next(now).is_some() && events.next(now).is_none(), "one at a time");
            events.failed(now);
            assert_eq!(events.due(), Some(now + Duration::from_secs(wait)));
        }
        events.hurry();
        assert!(events.next(t).is_some());
        assert_eq!(events.done().map(|event| event.stream_id), Some("s1".into()));
        assert!(events.next(t).is_none() && events.due().is_none());
    }

    #[test]
    fn waiting_events_are_bounded_and_only_the_newest_of_a_stream_is_kept() {
        let (mut events, t) = (Events::default(), start());
        for number in 0..=WAITING_MAX {
            events.push(event(&format!("s{number}"), EventKind::Start));
        }
        assert_eq!(events.waiting.len(), WAITING_MAX);
        events.push(event("s5", EventKind::Stop));
        assert_eq!(events.waiting.len(), WAITING_MAX);
        assert_eq!(events.next(t).map(|event| event.stream_id.clone()), Some("s1".into()), "s0 had to go");
        events.push(event("s1", EventKind::Stop));
        events.failed(t);
        let of_s1: Vec<_> = events.waiting.iter().filter(|event| event.stream_id == "s1").collect();
        assert_eq!(of_s1.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Stop]);
    }
}
