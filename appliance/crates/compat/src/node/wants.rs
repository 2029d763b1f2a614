//! Streams that viewers want and that are not here: the master is asked to route them.

use super::key::is_stream_id;
use super::{Action, Node, Pending, after};
use crate::{CallOutcome, ExchangeId};
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// How long somebody waits for a stream.
const PATIENCE: Duration = Duration::from_secs(15);
/// The master is asked again if nothing came.
const REPEAT: Duration = Duration::from_secs(10);
/// Streams that may be wanted at once.
const WANTED_MAX: usize = 256;

/// What became of a wish for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    /// It is here.
    Here,
    /// The master knows no such stream.
    Unknown,
    /// It did not come in time, or the master has no way for it.
    Later,
    /// The node's role has no viewers.
    Role,
}

#[derive(Debug)]
struct Want {
    waiting: BTreeMap<ExchangeId, Instant>,
    asked: Option<Instant>,
    is_pending: bool,
}

/// All wanted streams.
#[derive(Debug, Default)]
pub(super) struct Wants(BTreeMap<String, Want>);

impl Wants {
    pub(super) fn due(&self) -> Option<Instant> {
        let dues = self.0.values().flat_map(|want| {
            let again = want.asked.filter(|_| !want.is_pending).map(|asked| after(asked, REPEAT));
            want.waiting.values().copied().chain(again)
        });
        dues.min()
    }

    pub(super) fn withdraw(&mut self, exchange: ExchangeId) {
        self.0.retain(|_, want| {
            want.waiting.remove(&exchange);
            want.is_pending || !want.waiting.is_empty()
        });
    }

    /// A stream is here.
    pub(super) fn arrived(&mut self, stream_id: &str, actions: &mut VecDeque<Action>) {
        self.answer(stream_id, Routed::Here, actions);
    }

    fn answer(&mut self, stream_id: &str, routed: Routed, actions: &mut VecDeque<Action>) {
        let waiting = self.0.remove(stream_id).into_iter().flat_map(|want| want.waiting);
        actions.extend(waiting.map(|(exchange, _)| Action::Routed(exchange, routed)));
    }
}

impl Node {
    /// A viewer who was let in wants a stream; what becomes of it comes as an action, with this id.
    pub fn handle_want(&mut self, exchange: ExchangeId, stream_id: &str, now: Instant) {
        let at_once = if self.streams.has(stream_id) {
            Some(Routed::Here)
        } else if !self.roles.serves_viewers() {
            Some(Routed::Role)
        } else if !is_stream_id(stream_id) || !self.settings.has_master {
            Some(Routed::Unknown)
        } else if self.wants.0.len() >= WANTED_MAX && !self.wants.0.contains_key(stream_id) {
            Some(Routed::Later)
        } else {
            None
        };
        if let Some(routed) = at_once {
            return self.actions.push_back(Action::Routed(exchange, routed));
        }
        let want = self.wants.0.entry(stream_id.to_owned()).or_insert_with(|| Want {
            waiting: BTreeMap::new(),
            asked: None,
            is_pending: false,
        });
        want.waiting.insert(exchange, after(now, PATIENCE));
        self.go_on(now);
    }

    pub(super) fn route_if_due(&mut self, now: Instant) {
        let mut late = Vec::new();
        self.wants.0.retain(|_, want| {
            want.waiting.retain(|exchange, until| {
                let is_late = *until <= now;
                late.extend(is_late.then_some(*exchange));
                !is_late
            });
            want.is_pending || !want.waiting.is_empty()
        });
        self.actions.extend(late.into_iter().map(|exchange| Action::Routed(exchange, Routed::Later)));
        if !self.master.is_announced() {
            return;
        }
        let is_due = |want: &Want| {
            let is_time = want.asked.is_none_or(|asked| after(asked, REPEAT) <= now);
            is_time && !want.is_pending && !want.waiting.is_empty()
        };
        let due = self.wants.0.iter_mut().filter(|(_, want)| is_due(want));
        let due: Vec<String> = due
            .map(|(stream_id, want)| {
                (want.asked, want.is_pending) = (Some(now), true);
                stream_id.clone()
            })
            .collect();
        let path = self.settings.endpoints.route.clone();
        for stream_id in due {
            let body = json!({"stream_id": stream_id, "node_id": self.node_id()}).to_string().into_bytes();
            if let Some(call) = self.authorised("POST", &path, body) {
                self.call(Pending::Route(stream_id), call);
            }
        }
    }

    pub(super) fn on_route(&mut self, stream_id: &str, outcome: CallOutcome, now: Instant) {
        if let Some(want) = self.wants.0.get_mut(stream_id) {
            want.is_pending = false;
        }
        let routed = match outcome {
            CallOutcome::Replied(reply) => match reply.status {
                200..=299 => {
                    let said: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
                    return self.compare_version(said.get("table_version").and_then(|v| v.as_u64()), now);
                }
                401 => {
                    // Asked again as soon as the node is known again.
                    if let Some(want) = self.wants.0.get_mut(stream_id) {
                        want.asked = None;
                    }
                    return self.lose_secret(now);
                }
                404 => Routed::Unknown,
                409 => Routed::Role,
                _ => Routed::Later,
            },
            CallOutcome::Failed(why) => {
                self.lost(&why);
                Routed::Later
            }
        };
        self.wants.answer(stream_id, routed, &mut self.actions);
    }
}
