//! The sending side of one track: its queue of packets and the upstreams that it goes to.
//!
//! ```text
//!   Empty --first frame--> Asking --upstreams--> Active --end--> Ending --all closed--> Over
//!                            |                     |                                     ^
//!                            +-- none / refused ---+--> Inactive ----------end-----------+
//!   each upstream:  Connecting -> Up -> (lost) -> Idle | Waiting | Asking -> Connecting ...
//! ```
//!
//! Pure: who owns it opens connections, asks controllers and tells what happened; see [`Output`]. Payloads are shared,
//! never copied. Packets that nobody acknowledged stay in memory or, with [`Keep::Backlog`], also with the owner, who
//! is asked for those that memory does not hold any more. Source: the KMP contract, section 5; what [`Settings::strict`]
//! leaves out follows its section 13.

mod arrears;
mod connection;
mod link;
mod live;
mod memory;
mod report;
mod settings;
mod upstream;
mod window;

#[cfg(test)]
mod tests;

pub use arrears::{Arrears, Owed};
pub use report::{Kept, Output, Phase, Reason, State, UpstreamView};
pub use settings::{Keep, Memory, Reconnect, Settings};
pub use upstream::{Cause, Fate, ResumeFrom, Totals, UpstreamKey, UpstreamSpec};

use super::packet::{Ack, END_OF_STREAM, Name, PacketKind, Wire};
use bytes::Bytes;
use link::Down;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};
use upstream::{Link, Upstream};
use window::Window;

/// Sends one track. See the module.
#[derive(Debug)]
pub struct Sender {
    settings: Settings,
    state: State,
    channel_id: Name,
    track_id: Name,
    upstreams: Vec<Upstream>,
    next_key: u32,
    window: Window,
    /// Id that the next frame gets.
    next_id: u64,
    /// The newest header, wherever it is now.
    newest_info: Option<Wire>,
    /// Place in the queue up to which it is handed to the sockets.
    flushed: u64,
    flush_due: Option<Instant>,
    /// The packets that were asked for: from here on, and the id that came next then.
    fetching: Option<(u64, u64)>,
    /// A gap in what is kept, seen ahead of what is acknowledged.
    gap: Option<memory::Gap>,
    /// The first upstream begins so.
    begins: Option<live::Begin>,
    /// Frames below this id are in memory alone.
    pinned_id: u64,
    /// Where what is live begins, and since when it is out of reach.
    live: live::Live,
    /// The receiver is one that acknowledges: something was, on whatever connection.
    acknowledges: bool,
    /// `eost` follows once the window has caught up.
    end_due: bool,
    ended_at: Option<Instant>,
    reason: Option<Reason>,
    asked: bool,
    outputs: VecDeque<Output>,
}

impl Sender {
    /// A track without frames. `first_id` is the id of its first frame: higher than any that the receivers have had of
    /// it, thus usually taken from the clock.
    pub fn new(settings: Settings, first_id: u64) -> Self {
        Sender {
            settings,
            state: State::Empty,
            channel_id: Name::default(),
            track_id: Name::default(),
            upstreams: Vec::new(),
            next_key: 0,
            window: Window::new(first_id),
            next_id: first_id,
            newest_info: None,
            flushed: 0,
            flush_due: None,
            fetching: None,
            gap: None,
            begins: None,
            pinned_id: first_id,
            live: live::Live::default(),
            acknowledges: false,
            end_due: false,
            ended_at: None,
            reason: None,
            asked: false,
            outputs: VecDeque::new(),
        }
    }

    /// Appends a frame, and before it its header if one is due; the frame's id, or `None` if nobody wants it.
    ///
    /// `keyframe`: a receiver can begin with it; true for all sound.
    pub fn push(&mut self, info: Option<Wire>, frame: Wire, keyframe: bool, now: Instant) -> Option<u64> {
        if !matches!(self.state, State::Empty | State::Asking | State::Active) {
            return None;
        }
        let id = self.next_id;
        let before = match &info {
            // It has its own.
            Some(info) => {
                self.newest_info = Some(info.clone());
                None
            }
            None => self.newest_info.clone(),
        };
        if self.has_room(info.as_ref(), &frame) {
            if let Some(info) = info {
                self.window.push(PacketKind::MediaInfo, false, info);
            }
            self.window.push(PacketKind::Frame, keyframe, frame);
        }
        self.next_id = id.saturating_add(1);
        if self.state == State::Empty {
            self.ask_publish();
        }
        self.admit(keyframe, before, now);
        self.keep_live(id, keyframe, now);
        self.appended(now);
        self.guard_memory(now);
        Some(id)
    }

    /// The controller's answer, or the config's. Without upstreams the track is inactive.
    pub fn published(
        &mut self,
        channel_id: Name,
        track_id: Name,
        upstreams: Vec<UpstreamSpec>,
        now: Instant,
    ) {
        if self.state != State::Asking {
            return;
        }
        (self.channel_id, self.track_id) = (channel_id, track_id);
        if upstreams.is_empty() {
            return self.deactivate();
        }
        self.state = State::Active;
        let (seq, id) = (self.window.base(), self.window.id_at(self.window.base()));
        for spec in upstreams {
            self.add(spec, seq, id, None, now);
        }
        self.begin();
        self.live.lost(now);
    }

    /// The receiver has acknowledged frames of this track on other connections. Where one ends without any ack, after the end
    /// of the track as well, something else has ended it (a router, a proxy without its server): it is tried again, however
    /// often that is.
    pub fn expect_acks(&mut self) {
        self.acknowledges = true;
    }

    /// The controller refused, or could not be understood or reached. The session is dropped.
    pub fn publish_failed(&mut self, reason: Reason) {
        if self.state == State::Asking {
            self.reason.get_or_insert(reason);
            self.deactivate();
            self.outputs.push_back(Output::DropSession(reason));
        }
    }

    /// Where an upstream goes on. Without `connect_data` the old ones stay.
    pub fn republished(&mut self, key: UpstreamKey, url: String, connect_data: Option<Bytes>, now: Instant) {
        let Some(upstream) = self.upstream_mut(key) else { return };
        if matches!(upstream.link, Link::Asking) {
            upstream.spec.url = url;
            upstream.spec.connect_data =
                connect_data.unwrap_or(std::mem::take(&mut upstream.spec.connect_data));
            upstream.link = Link::Connecting { since: now };
            self.outputs.push_back(Output::Connect(key));
        }
    }

    /// The controller gave no address to go on with: the upstream is given up.
    pub fn republish_failed(&mut self, key: UpstreamKey) {
        if self.upstream(key).is_some_and(|upstream| matches!(upstream.link, Link::Asking)) {
            self.give_up(key, Cause::Abandoned);
        }
    }

    /// Adds an upstream to a track that is sent. It begins where `like` is, or the one furthest behind; `None` if there
    /// is no such upstream.
    pub fn add_upstream(
        &mut self,
        spec: UpstreamSpec,
        like: Option<UpstreamKey>,
        now: Instant,
    ) -> Option<UpstreamKey> {
        if self.state != State::Active {
            return None;
        }
        let source = match like {
            Some(key) => self.upstream(key),
            None => self.upstreams.iter().min_by_key(|upstream| upstream.seq),
        }?;
        let (seq, id, info) = (source.seq, source.acked_id, source.info.clone());
        Some(self.add(spec, seq, id, info, now))
    }

    /// Removes an upstream without `eost`; without any the track is inactive. False if there is none.
    pub fn remove_upstream(&mut self, key: UpstreamKey) -> bool {
        let Some(index) = self.index(key) else { return false };
        self.outputs.push_back(Output::Close(key));
        let upstream = self.upstreams.remove(index);
        self.settle_rest(upstream, Cause::Abandoned);
        if self.upstreams.is_empty() {
            match self.state {
                State::Ending => self.finish(),
                _ => self.deactivate(),
            }
        }
        true
    }

    /// The connection is there.
    pub fn connected(&mut self, key: UpstreamKey, now: Instant) {
        let Some(upstream) = self.upstream_mut(key) else { return };
        if matches!(upstream.link, Link::Connecting { .. }) {
            upstream.link = Link::Open;
            self.leave_behind(now);
            self.open_ready(now);
            self.gap = None;
            self.fetch();
        }
    }

    /// The connection failed, could not be opened, or was closed by the peer.
    pub fn disconnected(&mut self, key: UpstreamKey, now: Instant) {
        self.down(key, Down::Lost, now);
    }

    /// The peer sent something that is no ack.
    pub fn malformed(&mut self, key: UpstreamKey, now: Instant) {
        self.down(key, Down::Lost, now);
    }

    /// The peer acknowledged.
    pub fn acked(&mut self, key: UpstreamKey, ack: &Ack, now: Instant) {
        let Sender { upstreams, window, outputs, .. } = self;
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { return };
        if upstream.connection().is_none() {
            return;
        }
        if upstream.spec.resume_from != ResumeFrom::LastAcked {
            upstream.totals.ignored_acks = upstream.totals.ignored_acks.saturating_add(1);
            return;
        }
        let sent_id = upstream.sent_id(window);
        if ack.frame_id > sent_id {
            return self.down(key, Down::BadAck, now);
        }
        upstream.note(ack);
        if ack.frame_id > upstream.acked_id {
            upstream.release_to_id(ack.frame_id, window);
            upstream.pause = None;
            upstream.end_attempts = 0;
        }
        if ack.frame_id > upstream.told_id {
            self.acknowledges = true;
            upstream.tell(ack.frame_id, Fate::Acknowledged, outputs);
            let waits = sent_id > ack.frame_id;
            if let Some(connection) = upstream.connection_mut() {
                connection.acks = true;
                connection.unacked_since = waits.then_some(now);
            }
        }
        self.live.heard();
        self.release();
        self.fetch();
    }

    /// Whether there are bytes for this upstream's socket.
    pub fn has_pending(&self, key: UpstreamKey) -> bool {
        let connection = self.upstream(key).and_then(Upstream::connection);
        connection.is_some_and(|connection| connection.has_pending(&self.window, self.flushed))
    }

    /// The bytes to be written next, as they lie in memory; how many of `out` are used.
    pub fn slices<'a>(&'a self, key: UpstreamKey, out: &mut [IoSlice<'a>]) -> usize {
        let connection = self.upstream(key).and_then(Upstream::connection);
        connection.map_or(0, |connection| connection.slices(&self.window, self.flushed, out))
    }

    /// The socket took the first `len` of those bytes.
    pub fn written(&mut self, key: UpstreamKey, len: usize, now: Instant) {
        let Sender { upstreams, window, outputs, flushed, .. } = self;
        let Some(upstream) = upstreams.iter_mut().find(|upstream| upstream.key == key) else { return };
        let acked_id = upstream.acked_id;
        let Some(connection) = upstream.connection_mut().filter(|_| len > 0) else { return };
        connection.written(len as u64, window, now);
        connection.stalled_since = connection.has_pending(window, *flushed).then_some(now);
        let seq = connection.seq;
        let sent_id = window.id_at(seq);
        if sent_id > acked_id {
            connection.unacked_since.get_or_insert(now);
        }
        upstream.handed_id = upstream.handed_id.max(sent_id);
        if upstream.spec.resume_from != ResumeFrom::LastAcked {
            upstream.release_to(seq, window);
            upstream.tell(upstream.acked_id, Fate::Sent, outputs);
            self.release();
        }
        self.fetch();
    }

    /// No more frames come. What was sent is delivered as far as the settings allow, then [`Output::AskUnpublish`] comes
    /// and the track is over.
    pub fn end(&mut self, reason: Reason, now: Instant) {
        match self.state {
            State::Ending | State::Over => return,
            _ => {}
        }
        self.reason.get_or_insert(reason);
        if self.state != State::Active || self.upstreams.is_empty() {
            return self.finish();
        }
        self.state = State::Ending;
        self.ended_at = Some(now);
        self.end_due = true;
        self.push_end(now);
        self.fetch();
    }

    /// The track cannot go on: connections are closed without `eost` and the session is dropped.
    pub fn fail(&mut self, reason: Reason) {
        if matches!(self.state, State::Inactive | State::Over) {
            return;
        }
        self.reason.get_or_insert(reason);
        for upstream in std::mem::take(&mut self.upstreams) {
            self.outputs.push_back(Output::Close(upstream.key));
            self.settle_rest(upstream, Cause::Abandoned);
        }
        self.deactivate();
        self.outputs.push_back(Output::DropSession(reason));
    }

    /// What is to be done; call until `None` after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Id that the next frame gets.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Bytes appended so far, as far as they went through memory.
    pub fn appended_bytes(&self) -> u64 {
        self.window.end_at()
    }

    /// Bytes of packets in memory.
    pub fn held_bytes(&self) -> u64 {
        self.window.bytes()
    }

    /// Its upstreams, in the order in which they were named.
    pub fn upstreams(&self) -> impl Iterator<Item = UpstreamView<'_>> {
        self.upstreams.iter().map(|upstream| {
            let (position, sent_bytes) = match upstream.connection() {
                Some(connection) => (connection.position(&self.window), connection.sent_bytes),
                None => (self.window.at(upstream.seq), 0),
            };
            UpstreamView {
                key: upstream.key,
                spec: &upstream.spec,
                phase: match upstream.link {
                    Link::Idle | Link::Waiting { .. } => Phase::Waiting,
                    Link::Asking => Phase::Asking,
                    Link::Connecting { .. } => Phase::Connecting,
                    Link::Open | Link::Up(_) => Phase::Connected,
                },
                acked_id: upstream.acked_id,
                told_id: upstream.told_id,
                handed_id: upstream.handed_id,
                position,
                sent_bytes,
                totals: upstream.totals,
            }
        })
    }

    /// Where an upstream is to be reached.
    pub fn url(&self, key: UpstreamKey) -> Option<&str> {
        self.upstream(key).map(|upstream| upstream.spec.url.as_str())
    }

    fn ask_publish(&mut self) {
        self.state = State::Asking;
        self.asked = true;
        self.outputs.push_back(Output::AskPublish);
    }

    fn add(
        &mut self,
        spec: UpstreamSpec,
        seq: u64,
        id: u64,
        info: Option<Wire>,
        now: Instant,
    ) -> UpstreamKey {
        let key = UpstreamKey(self.next_key);
        self.next_key = self.next_key.saturating_add(1);
        let mut upstream = Upstream::new(key, spec, seq, id, now);
        upstream.info = info;
        self.upstreams.push(upstream);
        self.outputs.push_back(Output::Connect(key));
        key
    }

    /// After a frame was appended: it ends the wait for a keyframe, or is left out where one is waited for. `before`: the
    /// header in force, if the frame does not bring its own.
    fn admit(&mut self, keyframe: bool, before: Option<Wire>, now: Instant) {
        let Sender { upstreams, window, outputs, next_id, .. } = self;
        if window.end_id() != *next_id {
            // Kept frames come before it.
            return;
        }
        for upstream in upstreams.iter_mut() {
            let Some(cause) = upstream.waits else { continue };
            if keyframe {
                upstream.waits = None;
                // The header in force may be gone with what was dropped.
                upstream.info = before.clone().or(upstream.info.take());
            } else {
                upstream.release_to(window.end(), window);
                upstream.tell_gone(cause, outputs);
            }
        }
        self.open_ready(now);
        self.release();
    }

    /// Begins on connections that are up and have something to begin with.
    fn open_ready(&mut self, now: Instant) {
        let (channel_id, track_id) = (self.channel_id, self.track_id);
        let ready =
            |upstream: &&mut Upstream| matches!(upstream.link, Link::Open) && upstream.waits.is_none();
        for upstream in self.upstreams.iter_mut().filter(ready) {
            upstream.open(channel_id, track_id, now);
        }
    }

    /// Something was appended: hands out what is due.
    fn appended(&mut self, now: Instant) {
        let end = self.window.end_at();
        if self.settings.flush_timeout.is_zero() {
            return self.flush_to(end, now);
        }
        let full = self.settings.full_blocks(end).saturating_mul(self.settings.block());
        if full > self.flushed {
            self.flush_to(full, now);
            self.flush_due = None;
        }
        if end > self.flushed && self.flush_due.is_none() {
            self.flush_due = Some(after(now, self.settings.flush_timeout));
        }
    }

    /// Hands the queue up to `place` to the sockets.
    fn flush_to(&mut self, place: u64, now: Instant) {
        self.flushed = place;
        self.flush_due = self.flush_due.filter(|_| place < self.window.end_at());
        let Sender { upstreams, window, outputs, .. } = self;
        for upstream in upstreams {
            let has_data = window.at(upstream.seq) < place;
            let skips = upstream.spec.resume_from == ResumeFrom::LastWritten;
            match &mut upstream.link {
                Link::Up(connection) if connection.has_pending(window, place) => {
                    connection.stalled_since.get_or_insert(now);
                }
                Link::Idle if has_data => {
                    upstream.ask(now, outputs);
                }
                _ => {}
            }
            if skips && upstream.connection().is_none() && upstream.totals.connections > 0 {
                upstream.skip(place, window, outputs);
            }
        }
        self.release();
    }

    /// Appends `eost` once everything before it is in the window.
    fn push_end(&mut self, now: Instant) {
        if self.end_due && self.window.end_id() == self.next_id {
            self.end_due = false;
            let wire = Wire { head: Bytes::from_static(&END_OF_STREAM), body: Bytes::new() };
            self.window.push(PacketKind::EndOfStream, false, wire);
            self.upstreams.iter_mut().for_each(|upstream| upstream.waits = None);
            self.open_ready(now);
            self.flush_to(self.window.end_at(), now);
        }
    }

    /// Lets go of packets that no upstream needs.
    fn release(&mut self) {
        let with_head = self.settings.live_within.is_some();
        let needed = |upstream: &Upstream| match with_head {
            true => upstream.head_seq.min(upstream.seq),
            false => upstream.seq,
        };
        if let Some(seq) = self.upstreams.iter().map(needed).min() {
            self.window.release(seq);
        }
    }

    /// Nobody is sent anything any more.
    fn deactivate(&mut self) {
        self.state = State::Inactive;
        self.window.restart(self.next_id);
        self.flushed = self.window.end_at();
        self.flush_due = None;
    }

    /// All is said.
    fn finish(&mut self) {
        self.deactivate();
        self.state = State::Over;
        if self.asked {
            self.outputs.push_back(Output::AskUnpublish(self.reason.unwrap_or(Reason::Close)));
        }
    }

    fn index(&self, key: UpstreamKey) -> Option<usize> {
        self.upstreams.iter().position(|upstream| upstream.key == key)
    }

    fn upstream(&self, key: UpstreamKey) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| upstream.key == key)
    }

    fn upstream_mut(&mut self, key: UpstreamKey) -> Option<&mut Upstream> {
        self.upstreams.iter_mut().find(|upstream| upstream.key == key)
    }
}

/// `now + by`; so far away that it overflows means never, which a clock does not reach either.
fn after(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now)
}
