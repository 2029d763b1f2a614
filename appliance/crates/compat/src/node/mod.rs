//! A node of an RTMP mesh, and its talk with the mesh's master.
//!
//! ```text
//!  start -> announce (again and again until it succeeds) -> heartbeat, tables, events
//!              ^                                                |
//!              +------- 401: the node is not known any more ----+
//! ```
//! [`Node`] knows neither sockets nor time: it says which calls to make, whom to let in, where streams are to be sent and
//! what is to end. Whatever happens to the master, streams that are here go on, and nobody gets in who was not let in by
//! it. Not for media, and not for the gateway's own cameras, which are no part of a mesh.

mod admission;
mod announce;
pub mod api;
mod auth;
mod beat;
mod certificate;
mod events;
pub mod fuzz;
mod hook;
mod key;
mod master;
mod note;
mod role;
mod streams;
mod tables;
#[cfg(test)]
mod tests;
mod variables;
mod wants;

pub use crate::key::Key;
pub use admission::{Question, Refused, Verdict, Wish};
pub use auth::AuthError;
pub use beat::{Report, StreamReport};
pub use events::StopReason;
pub use hook::judged;
pub use key::{is_key, is_publish_token, is_stream_id};
pub use note::Note;
pub use role::{PeerKind, Role, Roles, TokenType};
pub use tables::{PushId, TableError, Tables};
pub use variables::take_variables;
pub use wants::Routed;

use crate::{CallOutcome, ExchangeId};
use admission::Asking;
use auth::Answers;
use beat::Beat;
use certificate::Certificate;
use events::Events;
use master::Master;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use streams::Streams;
use tables::Own;
use wants::Wants;

/// `now` so much later.
fn after(now: Instant, span: Duration) -> Instant {
    now.checked_add(span).unwrap_or(now)
}

/// Paths at the master; put behind its base address as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Who the node is.
    pub announce: String,
    /// That it lives.
    pub heartbeat: String,
    /// Events, and the tables.
    pub streams: String,
    /// Tokens.
    pub auth: String,
    /// Streams that are wanted here.
    pub route: String,
    /// The certificate of the node's API; `None`: it is not the master's.
    pub cert: Option<String>,
}

/// What a node goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Without one nobody is called, and the roles stay as they are.
    pub has_master: bool,
    /// The shared key of announcements.
    pub master_key: Key,
    /// Where the master is asked what.
    pub endpoints: Endpoints,
    /// First wait after a failed announcement.
    pub announce_retry: Duration,
    /// Wait after a failed beat.
    pub heartbeat_retry: Duration,
    /// How long a token that was good lets in while the master cannot be asked.
    pub offline_grace: Duration,
    /// The role until the master says another.
    pub role: Role,
    /// Joined to it, where there is no master.
    pub standalone: Vec<Role>,
    /// Our address as others reach us; without one it is found out before each announcement.
    pub external_ip: Option<Ipv4Addr>,
    /// As announced.
    pub rtmp_port: u16,
    /// As announced.
    pub http_port: u16,
    /// Our own id, the same over restarts.
    pub server_uuid: String,
    /// Streams that may be here at once.
    pub max_streams: usize,
    /// For waits that differ from node to node.
    pub seed: u64,
}

/// A call to the master.
#[derive(Clone, PartialEq, Eq)]
pub struct Call {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// To be put behind the master's base address.
    pub path: String,
    /// Names and values; the values are secrets.
    pub headers: Vec<(&'static str, Key)>,
    /// JSON; holds secrets.
    pub body: Vec<u8>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method, self.path, self.body.len())
    }
}

/// What a node wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find out the address that we reach the master from, for [`Node::handle_address`].
    FindAddress,
    /// Call the master; the outcome comes back under this id.
    Call(ExchangeId, Call),
    /// Answer a question.
    Verdict(ExchangeId, Verdict),
    /// What became of a wish for a stream that is not here.
    Routed(ExchangeId, Routed),
    /// Send a stream on, with this key.
    StartPush(PushId, Key),
    /// Send it there no more.
    StopPush(PushId),
    /// End a stream: publisher, pushes and viewers.
    Drop {
        /// The stream.
        stream_id: String,
        /// Why.
        reason: StopReason,
    },
    /// The role is another one. What it forbids is dropped by actions of its own, viewers aside.
    RoleChanged(Roles),
    /// Show this certificate (PEM) to those who come to the node's API. If that cannot be, tell
    /// [`Node::certificate_refused`].
    UseCertificate {
        /// The chain, the node's own first.
        chain: String,
        /// Its key.
        key: Key,
    },
    /// Keep these tables over a restart.
    KeepTables(Vec<u8>),
    /// For the log.
    Note(Note),
}

/// A node.
///
/// After every call the owner takes actions until there are none, then sleeps until [`Node::next_timeout`] or the next
/// input. Inputs for exchanges that are not open are ignored.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    roles: Roles,
    own: Own,
    master: Master,
    beat: Beat,
    certificate: Certificate,
    events: Events,
    tables: Tables,
    answers: Answers,
    asking: BTreeMap<ExchangeId, Asking>,
    wants: Wants,
    streams: Streams,
    pushes: BTreeMap<PushId, Key>,
    report: Report,
    calls: BTreeMap<ExchangeId, Pending>,
    next_call: u64,
    /// Seconds since 1970, as last told.
    unix_now: i64,
    actions: VecDeque<Action>,
}

/// What a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pending {
    Announce,
    Beat,
    Event,
    Tables,
    Certificate,
    /// The question of this exchange.
    Auth(ExchangeId),
    Route(String),
}

impl Node {
    /// A node that begins now, with the tables that it had kept.
    pub fn new(settings: Settings, kept: Option<&[u8]>, now: Instant) -> Node {
        let roles = match settings.has_master {
            true => Roles::one(settings.role),
            false => Roles::joined(settings.role, &settings.standalone),
        };
        let mut own = Own { ids: [settings.server_uuid.clone()].into(), ..Own::default() };
        if let Some(ip) = settings.external_ip {
            own.addresses.insert(format!("{ip}:{}", settings.rtmp_port));
        }
        let mut node = Node {
            master: Master::new(settings.has_master.then_some(now)),
            beat: Beat::new(settings.heartbeat_retry),
            certificate: Certificate::new(settings.endpoints.cert.is_some().then_some(now)),
            roles,
            own,
            events: Events::default(),
            tables: Tables::default(),
            answers: Answers::default(),
            asking: BTreeMap::new(),
            wants: Wants::default(),
            streams: Streams::default(),
            pushes: BTreeMap::new(),
            report: Report::default(),
            calls: BTreeMap::new(),
            next_call: 0,
            unix_now: 0,
            actions: VecDeque::new(),
            settings,
        };
        if let Some(kept) = kept {
            match Tables::parse(kept) {
                Ok(tables) => node.tables = tables,
                Err(error) => node.note(Note::TablesRefused(error)),
            }
        }
        node
    }

    /// The roles that it has now.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Whether this is the master's present secret.
    pub fn is_secret(&self, offered: &str) -> bool {
        self.master.secret().is_some_and(|secret| secret.matches(offered))
    }

    /// The version of the tables in force.
    pub fn table_version(&self) -> u64 {
        self.tables.version
    }

    /// Whether the master knows this node and was heard when it was last called.
    pub fn has_contact(&self) -> bool {
        self.master.is_announced() && !self.master.is_lost()
    }

    /// What the next beats report, and the time of day in seconds since 1970.
    pub fn set_report(&mut self, report: Report, unix_now: i64) {
        self.report = report;
        self.unix_now = unix_now;
    }

    /// A call has ended.
    pub fn handle_reply(&mut self, exchange: ExchangeId, outcome: CallOutcome, now: Instant) {
        let Some(pending) = self.calls.remove(&exchange) else { return };
        match pending {
            Pending::Announce => self.on_announce(outcome, now),
            Pending::Beat => self.on_beat(outcome, now),
            Pending::Event => self.on_event(outcome, now),
            Pending::Tables => self.on_tables(outcome, now),
            Pending::Certificate => self.on_certificate(outcome, now),
            Pending::Auth(question) => self.on_auth(question, outcome, now),
            Pending::Route(stream_id) => self.on_route(&stream_id, outcome, now),
        }
        self.go_on(now);
    }

    /// [`Node::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.answers.sweep(self.settings.offline_grace, now);
        self.expire_questions(now);
        self.go_on(now);
    }

    /// When [`Node::handle_timeout`] shall be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        let questions = self.asking.values().map(|asking| asking.deadline).min();
        let talk = self.master.is_announced().then(|| {
            let certificate = self.certificate.due();
            let dues = [self.beat.due(), self.events.due(), self.master.fetch_due(), certificate];
            dues.into_iter().flatten().min()
        });
        let all = [self.master.announce_due(), talk.flatten(), self.wants.due(), questions];
        all.into_iter().flatten().min()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Makes the calls whose time has come.
    fn go_on(&mut self, now: Instant) {
        self.announce_if_due(now);
        if self.master.is_announced() {
            self.beat_if_due(now);
            self.tell_if_due(now);
            self.fetch_if_due(now);
            self.fetch_certificate_if_due(now);
        }
        self.route_if_due(now);
    }

    fn call(&mut self, pending: Pending, call: Call) {
        let exchange = ExchangeId(self.next_call);
        self.next_call = self.next_call.saturating_add(1);
        self.calls.insert(exchange, pending);
        self.actions.push_back(Action::Call(exchange, call));
    }

    fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }
}
