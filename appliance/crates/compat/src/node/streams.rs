//! The streams that are here, and where they are sent.

use super::events::{EventKind, StopReason, StreamEvent};
use super::role::{PeerKind, Roles};
use super::{Action, Node};
use std::collections::BTreeMap;
use std::time::Instant;

#[derive(Clone, Debug)]
struct Stream {
    peer: PeerKind,
    addr: String,
    /// It is to end, for this reason.
    ending: Option<StopReason>,
}

impl Stream {
    fn event(&self, stream_id: &str, begins: bool, time: i64) -> StreamEvent {
        let kind = match (self.peer == PeerKind::Broadcaster, begins) {
            (true, true) => EventKind::Start,
            (true, false) => EventKind::Stop,
            (false, true) => EventKind::RelayStart,
            (false, false) => EventKind::RelayStop,
        };
        let reason = (!begins).then(|| self.ending.unwrap_or(StopReason::Eof));
        StreamEvent { kind, stream_id: stream_id.to_owned(), addr: self.addr.clone(), time, reason }
    }
}

/// All streams by id.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<String, Stream>);

impl Streams {
    pub(super) fn has(&self, stream_id: &str) -> bool {
        self.0.get(stream_id).is_some_and(|stream| stream.ending.is_none())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The beginnings of all that go on.
    pub(super) fn starts(&self, time: i64) -> Vec<StreamEvent> {
        let live = self.0.iter().filter(|(_, stream)| stream.ending.is_none());
        live.map(|(stream_id, stream)| stream.event(stream_id, true, time)).collect()
    }

    /// What may not be here with these roles.
    pub(super) fn forbidden(&self, roles: &Roles) -> Vec<String> {
        let forbidden = self.0.iter().filter(|(_, stream)| !roles.takes(stream.peer));
        forbidden.map(|(stream_id, _)| stream_id.clone()).collect()
    }
}

impl Node {
    /// A publisher that was let in has begun.
    pub fn stream_began(&mut self, stream_id: &str, peer: PeerKind, addr: &str, now: Instant) {
        let stream = Stream { peer, addr: addr.to_owned(), ending: None };
        let event = stream.event(stream_id, true, self.unix_now);
        self.streams.0.insert(stream_id.to_owned(), stream);
        // Its role may have changed since it was let in.
        let is_allowed = self.roles.takes(peer) || peer == PeerKind::Unknown && self.roles.takes_nodes();
        if self.settings.has_master {
            self.events.push(event);
        }
        self.wants.arrived(stream_id, &mut self.actions);
        if is_allowed {
            self.update_pushes();
        } else {
            self.drop_stream(stream_id, StopReason::Role);
        }
        self.go_on(now);
    }

    /// It is over.
    pub fn stream_ended(&mut self, stream_id: &str, now: Instant) {
        let Some(stream) = self.streams.0.remove(stream_id) else { return };
        if self.settings.has_master {
            self.events.push(stream.event(stream_id, false, self.unix_now));
        }
        self.update_pushes();
        self.go_on(now);
    }

    /// Ends a stream; false if there is none of that name.
    pub fn end_stream(&mut self, stream_id: &str) -> bool {
        let has = self.streams.has(stream_id);
        if has {
            self.drop_stream(stream_id, StopReason::Dropped);
        }
        has
    }

    pub(super) fn drop_stream(&mut self, stream_id: &str, reason: StopReason) {
        let Some(stream) = self.streams.0.get_mut(stream_id).filter(|stream| stream.ending.is_none()) else {
            return;
        };
        stream.ending = Some(reason);
        self.update_pushes();
        self.actions.push_back(Action::Drop { stream_id: stream_id.to_owned(), reason });
    }

    /// Starts and stops what the tables, the roles and the streams that are here ask for. What stays is not touched.
    pub(super) fn update_pushes(&mut self) {
        let live = self.streams.0.iter().filter(|(_, stream)| stream.ending.is_none());
        let wanted = self.tables.pushes(&self.roles, live.map(|(id, _)| id.as_str()), &self.own);
        let stops = self.pushes.iter().filter(|(id, key)| wanted.get(id) != Some(key));
        let stops: Vec<Action> = stops.map(|(id, _)| Action::StopPush(id.clone())).collect();
        let starts = wanted.iter().filter(|(id, key)| self.pushes.get(id) != Some(key));
        let starts: Vec<Action> =
            starts.map(|(id, key)| Action::StartPush(id.clone(), key.clone())).collect();
        self.actions.extend(stops);
        self.actions.extend(starts);
        self.pushes = wanted;
    }
}
