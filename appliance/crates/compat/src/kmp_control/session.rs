//! One RTMP connection under a controller: which callbacks are made, what their replies mean, why its tracks end.
//!
//! ```text
//!  start_track        reply with upstreams                 end_track, fail_track        upstreams_gone
//! ------------> Waiting -----------------> Active ----------------------------> Ended ----------------> unpublish
//!                  |  |  none wanted         | upstreams_gone                                             ^   |
//!                  |  +-----------------> Inactive -------------------------------------------------------+   v
//!                  +--------------------------------------------------------------------------------------+  done
//! ```
//!
//! Whoever holds a track's KMP sender is told by [`Output`] what it shall do, and tells what became of it. When an
//! upstream is asked for again, and when that ends, the sender decides; here such a question becomes a call. A track of
//! which only headers have come is not known here: the controller never hears of it.

mod output;
mod reason;

pub use output::Output;
pub use reason::Reason;

use super::body::{self, Client, MediaInfo, MediaKind, Publication};
use super::call::{Call, Next, denial};
use super::reply::{Published, Reader, ReplyError};
use crate::CallOutcome;
use fieldgate_model::config::KmpApplication;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names a track within its session; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackKey(pub u32);

/// Names a callback within its session, over all its tries; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Which of an application's URLs is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callback {
    /// `connect_url`.
    Connect,
    /// `publish_url`.
    Publish,
    /// `unpublish_url`.
    Unpublish,
    /// `republish_url`.
    Republish,
}

impl Callback {
    /// Its name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Callback::Connect => "connect",
            Callback::Publish => "publish",
            Callback::Unpublish => "unpublish",
            Callback::Republish => "republish",
        }
    }
}

/// How one application's controller is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is a `connect_url`; else everyone is let in.
    pub asks_connect: bool,
    /// Whether there is an `unpublish_url`.
    pub tells_unpublish: bool,
    /// Whether there is a `republish_url`; else a lost upstream has failed.
    pub asks_republish: bool,
    /// Tries after the first.
    pub retries: u32,
    /// From a failed try to the next.
    pub retry_interval: Duration,
    /// How replies are read.
    pub reader: Reader,
}

impl From<&KmpApplication> for Settings {
    fn from(application: &KmpApplication) -> Settings {
        Settings {
            asks_connect: application.connect_url.is_some(),
            tells_unpublish: application.unpublish_url.is_some(),
            asks_republish: application.republish_url.is_some(),
            retries: application.retries,
            retry_interval: application.retry_interval.get(),
            reader: Reader { buffer_bytes: application.buffer_bytes, strict: application.strict },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `publish` is asked.
    Waiting,
    /// It has upstreams.
    Active,
    /// Its frames go nowhere.
    Inactive,
    /// What it has left is being sent.
    Ended,
    /// `unpublish` is told.
    Telling,
}

#[derive(Debug)]
struct Track {
    publication: Arc<Publication>,
    kind: MediaKind,
    state: State,
    channel_id: String,
    track_id: String,
    /// The first cause of its end.
    cause: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Connect,
    Publish(TrackKey),
    Unpublish(TrackKey),
    Republish(TrackKey, u32),
}

impl Purpose {
    fn callback(self) -> Callback {
        match self {
            Purpose::Connect => Callback::Connect,
            Purpose::Publish(_) => Callback::Publish,
            Purpose::Unpublish(_) => Callback::Unpublish,
            Purpose::Republish(..) => Callback::Republish,
        }
    }

    fn track(self) -> Option<TrackKey> {
        match self {
            Purpose::Connect => None,
            Purpose::Publish(track) | Purpose::Unpublish(track) | Purpose::Republish(track, _) => Some(track),
        }
    }
}

/// One RTMP connection under a controller.
///
/// After every call the owner takes outputs until there are none, then sleeps until [`Session::next_timeout`] or the next
/// input. What is said about tracks or calls that are no more is ignored: it may have crossed with their end.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    tracks: BTreeMap<TrackKey, Track>,
    calls: BTreeMap<CallId, (Purpose, Call)>,
    next_track: u32,
    next_call: u64,
    is_dropped: bool,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A connection that has not yet been let in.
    pub fn new(settings: Settings) -> Self {
        Session {
            settings,
            tracks: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_track: 0,
            next_call: 0,
            is_dropped: false,
            outputs: VecDeque::new(),
        }
    }

    /// The peer wants to connect. Leads to [`Output::Admit`] or [`Output::Deny`].
    pub fn connect(&mut self, client: &Client) {
        if self.settings.asks_connect {
            self.call(Purpose::Connect, body::connect(client), self.settings.retries);
        } else {
            self.outputs.push_back(Output::Admit);
        }
    }

    /// The first frame of a track has come. Its frames wait for [`Output::Published`]. `None` once the session is
    /// dropped: the track goes nowhere, and nobody hears of it.
    pub fn start_track(&mut self, publication: &Arc<Publication>, info: &MediaInfo) -> Option<TrackKey> {
        if self.is_dropped {
            return None;
        }
        let key = TrackKey(self.next_track);
        self.next_track = self.next_track.checked_add(1)?;
        let track = Track {
            publication: publication.clone(),
            kind: info.kind(),
            state: State::Waiting,
            channel_id: String::new(),
            track_id: String::new(),
            cause: None,
        };
        self.tracks.insert(key, track);
        self.call(Purpose::Publish(key), body::publish(publication, info), self.settings.retries);
        Some(key)
    }

    /// An upstream of the track is lost: where does it go on? `upstream` is the caller's name for it, `id` the
    /// controller's, `info` the track's newest. Leads to [`Output::Republished`] or [`Output::RepublishFailed`].
    pub fn republish(&mut self, key: TrackKey, upstream: u32, id: &str, info: &MediaInfo) {
        let Some(track) =
            self.tracks.get(&key).filter(|track| matches!(track.state, State::Active | State::Ended))
        else {
            return;
        };
        if !self.settings.asks_republish {
            self.outputs.push_back(Output::RepublishFailed { track: key, upstream });
            return;
        }
        let body = body::republish(&track.publication, info, id, &track.channel_id, &track.track_id);
        self.call(Purpose::Republish(key, upstream), body, self.settings.retries);
    }

    /// An upstream is no more: what was asked for it need not be answered.
    pub fn forget_upstream(&mut self, key: TrackKey, upstream: u32) {
        self.cancel(|purpose| purpose == Purpose::Republish(key, upstream));
    }

    /// The track's stream has ended by itself.
    pub fn end_track(&mut self, key: TrackKey, reason: Reason) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        let state = track.state;
        if matches!(state, State::Ended | State::Telling) {
            return;
        }
        track.state = State::Ended;
        track.cause = Some(reason);
        self.outputs.push_back(Output::EndTrack { track: key, reason });
        if state != State::Active {
            self.cancel(|purpose| purpose == Purpose::Publish(key));
            self.unpublish(key);
        }
    }

    /// The track's sender has nothing left to do: it ended, for this reason if no other is known, and its last upstream
    /// is no more.
    pub fn finish_track(&mut self, key: TrackKey, reason: Reason) {
        self.end_track(key, reason);
        self.upstreams_gone(key);
    }

    /// The track cannot go on, and with it the whole session ends.
    pub fn fail_track(&mut self, key: TrackKey, reason: Reason) {
        if self.tracks.contains_key(&key) {
            self.end_track(key, reason);
            self.drop_session(reason.of_sisters(), reason);
        }
    }

    /// The RTMP connection is gone, or shall go, for a reason that is no track's own.
    pub fn end(&mut self, reason: Reason) {
        self.drop_session(reason, reason);
    }

    /// The last upstream of the track is no more.
    pub fn upstreams_gone(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        match track.state {
            State::Active => track.state = State::Inactive,
            State::Ended => self.unpublish(key),
            State::Waiting | State::Inactive | State::Telling => return,
        }
        self.cancel(|purpose| matches!(purpose, Purpose::Republish(track, _) if track == key));
    }

    /// What became of a call.
    pub fn handle_reply(&mut self, id: CallId, outcome: &CallOutcome, now: Instant) {
        let Some((purpose, call)) = self.calls.get(&id) else { return };
        if !call.is_open() {
            return;
        }
        let purpose = *purpose;
        let reader = self.settings.reader;
        let reply = match outcome {
            CallOutcome::Replied(reply) => Ok(reply),
            CallOutcome::Failed(why) => Err(ReplyError::None(why.clone())),
        };
        match purpose {
            Purpose::Connect => match reply.and_then(|reply| reader.connect(reply)) {
                Ok(()) => {
                    self.calls.remove(&id);
                    self.outputs.push_back(Output::Admit);
                }
                Err(error) => self.try_failed(id, error, now),
            },
            Purpose::Publish(key) => match reply.and_then(|reply| reader.publish(reply)) {
                Ok(published) => {
                    self.calls.remove(&id);
                    self.published(key, published);
                }
                Err(error) => self.try_failed(id, error, now),
            },
            Purpose::Republish(track, upstream) => match reply.and_then(|reply| reader.republish(reply)) {
                Ok(place) => {
                    self.calls.remove(&id);
                    self.outputs.push_back(Output::Republished { track, upstream, place });
                }
                Err(error) => self.try_failed(id, error, now),
            },
            // Whatever it says, the track is over.
            Purpose::Unpublish(_) => match reply {
                Ok(_) => self.give_up(id, purpose),
                Err(error) => self.try_failed(id, error, now),
            },
        }
    }

    /// [`Session::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for (id, (purpose, call)) in &mut self.calls {
            if call.start(now) {
                let (call, body) = (*id, call.body());
                self.outputs.push_back(Output::Call { call, callback: purpose.callback(), body });
            }
        }
    }

    /// When [`Session::handle_timeout`] shall be called; never, if none.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.calls.values().filter_map(|(_, call)| call.due()).min()
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether all its tracks are over and nothing is asked or told any more.
    pub fn is_idle(&self) -> bool {
        self.tracks.is_empty() && self.calls.is_empty() && self.outputs.is_empty()
    }

    fn published(&mut self, key: TrackKey, published: Published) {
        let Published { channel_id, track_id, upstreams } = published;
        let upstreams = match upstreams {
            Ok(upstreams) => upstreams,
            Err(error) => {
                let error = ReplyError::from(error);
                self.note(Purpose::Publish(key), error, None);
                return self.fail_track(key, Reason::CreateUpstreamFailed);
            }
        };
        let Some(track) = self.tracks.get_mut(&key) else { return };
        track.state = if upstreams.is_empty() { State::Inactive } else { State::Active };
        track.channel_id.clone_from(&channel_id);
        track.track_id.clone_from(&track_id);
        self.outputs.push_back(Output::Published { track: key, channel_id, track_id, upstreams });
    }

    fn drop_session(&mut self, of_tracks: Reason, reason: Reason) {
        let keys: Vec<TrackKey> = self.tracks.keys().copied().collect();
        keys.into_iter().for_each(|key| self.end_track(key, of_tracks));
        if !self.is_dropped {
            self.is_dropped = true;
            self.cancel(|purpose| purpose == Purpose::Connect);
            self.outputs.push_back(Output::DropSession { reason });
        }
    }

    fn unpublish(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get_mut(&key) else { return };
        track.state = State::Telling;
        if self.settings.tells_unpublish {
            let reason = track.cause.unwrap_or(Reason::Unexpected);
            let body = body::unpublish(&track.publication, track.kind, reason);
            self.call(Purpose::Unpublish(key), body, 0);
        } else {
            self.done(key);
        }
    }

    fn done(&mut self, key: TrackKey) {
        if self.tracks.remove(&key).is_some() {
            self.outputs.push_back(Output::TrackDone { track: key });
        }
    }

    fn call(&mut self, purpose: Purpose, body: String, retries: u32) {
        let id = CallId(self.next_call);
        self.next_call = self.next_call.saturating_add(1);
        let call = Call::new(body, retries);
        self.outputs.push_back(Output::Call { call: id, callback: purpose.callback(), body: call.body() });
        self.calls.insert(id, (purpose, call));
    }

    fn cancel(&mut self, is_unwanted: impl Fn(Purpose) -> bool) {
        let outputs = &mut self.outputs;
        self.calls.retain(|id, (purpose, call)| {
            let unwanted = is_unwanted(*purpose);
            if unwanted && call.is_open() {
                outputs.push_back(Output::Cancel { call: *id });
            }
            !unwanted
        });
    }

    fn try_failed(&mut self, id: CallId, error: ReplyError, now: Instant) {
        let Some((purpose, call)) = self.calls.get_mut(&id) else { return };
        let purpose = *purpose;
        let is_final = purpose == Purpose::Connect && matches!(error, ReplyError::Refused { .. });
        let next = if is_final { Next::GiveUp } else { call.failed(self.settings.retry_interval, now) };
        match next {
            Next::Retry(after) => self.note(purpose, error, Some(after)),
            Next::GiveUp => {
                let text = denial(&error).to_owned();
                self.note(purpose, error, None);
                if purpose == Purpose::Connect {
                    self.outputs.push_back(Output::Deny { text });
                }
                self.give_up(id, purpose);
            }
        }
    }

    fn give_up(&mut self, id: CallId, purpose: Purpose) {
        self.calls.remove(&id);
        match purpose {
            Purpose::Connect => {}
            Purpose::Publish(key) => self.fail_track(key, Reason::ParsePublishFailed),
            Purpose::Republish(track, upstream) => {
                self.outputs.push_back(Output::RepublishFailed { track, upstream });
            }
            Purpose::Unpublish(key) => self.done(key),
        }
    }

    fn note(&mut self, purpose: Purpose, error: ReplyError, retry_in: Option<Duration>) {
        let (callback, track) = (purpose.callback(), purpose.track());
        self.outputs.push_back(Output::TryFailed { callback, track, error, retry_in });
    }
}

#[cfg(test)]
mod tests;
