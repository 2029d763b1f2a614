//! A coordinator of streaming servers and encoders.
//!
//! ```text
//!  PUBLISH-REQUEST -> verifying --200--> an encoder is told --> live -> PUBLISH-END, kill, lost server -> over
//!                        +--else--> PUBLISH-DENY                 |
//!  encoder:                            ENCODE-START --> task <---+-- ENCODE-STOP --> STREAM-CLOSED -> forgotten
//! ```
//! [`Coordinator`] knows neither sockets nor time: it says what to send, whom to call and whom to send away. The gateway's
//! own RTMP server takes part without a socket ([`Coordinator::handle_publish`]), and so can its packager as an encoder of
//! what comes to that server ([`Coordinator::handle_own_files`]). A channel has one publisher in the whole
//! cluster; a task lives until its encoder says that it has ended, or is gone. Not for media.

mod auth;
mod commands;
mod events;
pub mod fuzz;
mod ident;
mod message;
mod note;
mod peers;
mod plays;
mod publish;
#[cfg(test)]
mod tests;
pub mod token;
mod variables;
mod verification;

pub use auth::{CallAuth, CommandAuth};
pub use events::Available;
pub use ident::is_id;
pub(crate) use message::WORDS_MAX;
pub use message::{MESSAGE_MAX, Message, MessageError};
pub use note::{Note, Refused};
pub use variables::take_variables;
pub use verification::Wanted;

use crate::key::Key;
use crate::plays::Plays;
use crate::{CallOutcome, ExchangeId};
use events::{Events, Told};
use ident::StreamIds;
use peers::{Peer, Role};
use publish::{Publish, Task};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Until a call counts as failed.
pub const CALL_WITHIN: Duration = Duration::from_secs(10);

/// `now` so much later.
fn after(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

/// A control socket, as long as it is open; also its peer's id in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// What a coordinator goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Opens control sockets; without one only this machine may open them.
    pub control_secret: Option<Key>,
    /// Longest channel or key, in bytes.
    pub id_max: usize,
    /// Whether an application verifies keys, and how we show ourselves to it; without one every key is good.
    pub verification: Option<CallAuth>,
    /// Whether an application is told of streams, and how we show ourselves to it.
    pub events: Option<CallAuth>,
    /// Who may give commands.
    pub commands: CommandAuth,
    /// Whether nobody may publish while no encoder is free.
    pub require_encoder: bool,
    /// Where the gateway's own RTMP server is, as encoders reach it.
    pub own_address: IpAddr,
    /// Its port.
    pub own_port: u16,
    /// How many streams of it the gateway shows by itself: negative: any number; none: it is no encoder.
    pub own_capacity: Option<i64>,
    /// Control sockets at once.
    pub max_sockets: usize,
    /// Streams at once.
    pub max_streams: usize,
    /// For ids that differ from start to start.
    pub seed: u64,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Is this key good?
    Verification,
    /// A stream has begun or ended.
    Event,
}

/// A call to an application: a POST without a body.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// Which address is called.
    pub purpose: Purpose,
    /// Names and values; the values may be secrets.
    pub headers: Vec<(&'static str, Key)>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} headers)", self.purpose, self.headers.len())
    }
}

/// May somebody publish to, or play from, the gateway's own RTMP server?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allow {
        /// The stream that it is.
        stream_id: String,
    },
    /// No.
    Deny(Refused),
}

/// What a coordinator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a message.
    Send(SocketId, Message),
    /// Send a message, and say at once by [`Coordinator::handle_started`] whether it could be sent.
    Start(ExchangeId, SocketId, Message),
    /// Close a socket.
    Close(SocketId),
    /// Call an application; the outcome comes back under this id.
    Call(ExchangeId, Call),
    /// Answer a question.
    Verdict(ExchangeId, Verdict),
    /// Send the publisher away that our own server has.
    Kill {
        /// Its channel.
        channel: String,
        /// The stream.
        stream_id: String,
    },
    /// Keep this list of streams over a restart, then call [`Coordinator::handle_kept`].
    Keep {
        /// To be told back.
        version: u64,
        /// Lines `channel:id`.
        list: String,
    },
    /// For the log.
    Note(Note),
}

/// A coordinator.
///
/// After every call the owner takes actions until there are none, then sleeps until [`Coordinator::next_timeout`] or the
/// next input. Inputs for sockets and exchanges that are not open are ignored.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    peers: BTreeMap<u64, Peer>,
    /// Our own server's id.
    own: u64,
    /// Our own encoder's.
    own_encoder: Option<u64>,
    next_peer: u64,
    channels: BTreeMap<String, Publish>,
    /// What encoders do, by stream.
    tasks: BTreeMap<String, Task>,
    plays: Plays,
    /// The channel that a key is verified for, and until when.
    verifying: BTreeMap<ExchangeId, (String, Instant)>,
    /// The channel that an encoder is told of.
    starting: BTreeMap<ExchangeId, String>,
    events: Events,
    ids: StreamIds,
    next_call: u64,
    /// Until then no more lines about sockets that are refused: strangers may come as often as they like.
    quiet_until: Option<Instant>,
    /// As last told.
    since_1970: Duration,
    actions: VecDeque<Action>,
}

impl Coordinator {
    /// A coordinator that begins now, with the streams that were listed when the last one ended.
    pub fn new(settings: Settings, listed: &str, now: Instant) -> Coordinator {
        let own = Peer {
            role: Role::Server { port: settings.own_port, is_tls: false, is_ws: false },
            address: settings.own_address,
            talk: None,
        };
        let events = if settings.events.is_some() { Events::of_list(listed, now) } else { Events::default() };
        let encoder = settings.own_capacity.map(|capacity| Peer {
            role: Role::Encoder { capacity: Some(capacity) },
            address: settings.own_address,
            talk: None,
        });
        let mut coordinator = Coordinator {
            own: 1,
            own_encoder: encoder.is_some().then_some(2),
            peers: BTreeMap::from_iter([(1, own)].into_iter().chain(encoder.map(|encoder| (2, encoder)))),
            next_peer: 3,
            channels: BTreeMap::new(),
            tasks: BTreeMap::new(),
            plays: Plays::default(),
            verifying: BTreeMap::new(),
            starting: BTreeMap::new(),
            events,
            ids: StreamIds::new(settings.seed),
            next_call: 0,
            quiet_until: None,
            since_1970: Duration::ZERO,
            actions: VecDeque::new(),
            settings,
        };
        coordinator.go_on(now);
        coordinator
    }

    /// The time of day, since 1970; to be told before what needs it.
    pub fn set_clock(&mut self, since_1970: Duration) {
        self.since_1970 = since_1970;
    }

    /// A call has ended.
    pub fn handle_reply(&mut self, exchange: ExchangeId, outcome: CallOutcome, now: Instant) {
        if let Some((channel, _)) = self.verifying.remove(&exchange) {
            self.on_verified(&channel, &outcome, now);
        } else if let Some((stream_id, told, is_shorter)) = self.events.handle_reply(exchange, &outcome, now)
        {
            if let Told::Failed(Some(cause)) = told {
                self.note(Note::NotTold { stream_id, cause });
            }
            if is_shorter {
                self.keep();
            }
        }
        self.go_on(now);
    }

    /// A list of this version is on disk, or cannot be.
    pub fn handle_kept(&mut self, version: u64, now: Instant) {
        self.events.handle_kept(version);
        self.go_on(now);
    }

    /// [`Coordinator::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = self.verifying.iter().filter(|(_, (_, until))| *until <= now);
        let mut late: Vec<ExchangeId> = late.map(|(exchange, _)| *exchange).collect();
        late.extend(self.events.overdue(now));
        for exchange in late {
            let cause = format!("no answer within {CALL_WITHIN:?}");
            self.handle_reply(exchange, CallOutcome::Failed(cause), now);
        }
        self.look_after_peers(now);
        self.forget_stopped(now);
        self.expire_plays(now);
        self.go_on(now);
    }

    /// When [`Coordinator::handle_timeout`] shall be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let verifying = self.verifying.values().map(|(_, until)| *until).min();
        let stopped = self.tasks.values().filter_map(|task| task.stop_by).min();
        [verifying, stopped, self.plays.due(), self.peers_due(), self.events.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Makes the calls whose time has come.
    fn go_on(&mut self, now: Instant) {
        let Some(auth) = self.settings.events.as_ref().map(CallAuth::header) else { return };
        while let Some(headers) = self.events.poll(ExchangeId(self.next_call), auth.as_ref(), now) {
            self.call(Call { purpose: Purpose::Event, headers });
        }
    }

    fn call(&mut self, call: Call) -> ExchangeId {
        let exchange = ExchangeId(self.next_call);
        self.next_call = self.next_call.saturating_add(1);
        self.actions.push_back(Action::Call(exchange, call));
        exchange
    }

    fn keep(&mut self) {
        let (version, list) = self.events.list();
        self.actions.push_back(Action::Keep { version, list });
    }

    fn send(&mut self, peer: u64, message: Message) {
        self.actions.push_back(Action::Send(SocketId(peer), message));
    }

    fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }
}
