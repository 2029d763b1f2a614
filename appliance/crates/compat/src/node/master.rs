//! The talk with the master: announcement, heartbeat, events, tables.

use super::Key;
use super::announce::{self, Announced};
use super::beat::{self, Outcome, Said, Send};
use super::events::{Heard, StopReason, heard};
use super::role::{Role, Roles};
use super::tables::Tables;
use super::{Action, Call, Node, Note, Pending, TableError, after};
use crate::{CallOutcome, ExchangeId};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Longest wait between two announcements.
const ANNOUNCE_MAX: Duration = Duration::from_secs(60);
/// Wait after tables could not be fetched.
const FETCH_RETRY: Duration = Duration::from_secs(5);

/// How the node stands with its master.
#[derive(Debug)]
pub(super) struct Master {
    known_as: Option<Announced>,
    announcing: Announcing,
    failures: u32,
    announced_at: Option<Instant>,
    is_lost: bool,
    fetch: Option<Instant>,
    is_fetching: bool,
    jitter: u64,
    /// The role that the last beat told.
    told: Option<Role>,
    /// Questions that were answered 401: asked again after the announcement.
    pub(super) again: Vec<ExchangeId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Announcing {
    /// Not wanted.
    No,
    /// Due then.
    At(Instant),
    /// Our address is being found out.
    Address,
    /// On its way.
    Sent,
}

impl Master {
    /// Announced from `start` on; never, if that is nothing.
    pub(super) fn new(start: Option<Instant>) -> Master {
        Master {
            known_as: None,
            announcing: start.map_or(Announcing::No, Announcing::At),
            failures: 0,
            announced_at: None,
            is_lost: false,
            fetch: None,
            is_fetching: false,
            jitter: 0,
            told: None,
            again: Vec::new(),
        }
    }

    pub(super) fn is_announced(&self) -> bool {
        self.known_as.is_some()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    pub(super) fn secret(&self) -> Option<&Key> {
        self.known_as.as_ref().map(|known| &known.secret)
    }

    pub(super) fn announce_due(&self) -> Option<Instant> {
        match self.announcing {
            Announcing::At(due) => Some(due),
            _ => None,
        }
    }

    pub(super) fn fetch_due(&self) -> Option<Instant> {
        self.fetch.filter(|_| !self.is_fetching)
    }
}

impl Node {
    /// Our address as the master sees us; `None`: it could not be found out.
    pub fn handle_address(&mut self, address: Option<Ipv4Addr>, now: Instant) {
        if self.master.announcing != Announcing::Address {
            return;
        }
        match address {
            Some(address) => self.announce(address),
            None => {
                self.announce_failed(Note::AnnounceFailed("the master's name has no address".into()), now)
            }
        }
        self.go_on(now);
    }

    /// Gives the node a role, as a master or an operator does.
    pub fn set_role(&mut self, role: Role, now: Instant) {
        self.change_role(role, now);
        self.go_on(now);
    }

    /// Takes tables that the master sends by itself.
    pub fn handle_tables(&mut self, document: &[u8], now: Instant) -> Result<(), TableError> {
        let taken = self.take_tables(document);
        self.go_on(now);
        taken
    }

    pub(super) fn announce_if_due(&mut self, now: Instant) {
        if self.master.announce_due().is_none_or(|due| now < due) {
            return;
        }
        match self.settings.external_ip {
            Some(address) => self.announce(address),
            None => {
                self.master.announcing = Announcing::Address;
                self.actions.push_back(Action::FindAddress);
            }
        }
    }

    fn announce(&mut self, address: Ipv4Addr) {
        let settings = &self.settings;
        self.own.addresses.insert(format!("{address}:{}", settings.rtmp_port));
        let body = announce::body(address, settings.rtmp_port, settings.http_port, &settings.server_uuid);
        let call = Call {
            method: "POST",
            path: settings.endpoints.announce.clone(),
            headers: vec![("Authorization", settings.master_key.clone())],
            body,
        };
        self.master.announcing = Announcing::Sent;
        self.call(Pending::Announce, call);
    }

    pub(super) fn on_announce(&mut self, outcome: CallOutcome, now: Instant) {
        let note = match outcome {
            CallOutcome::Replied(reply) if reply.status == 200 => match announce::reply(&reply.body) {
                Ok(announced) => return self.announced(announced, now),
                Err(error) => Note::AnnounceNonsense(error),
            },
            CallOutcome::Replied(reply) if reply.status == 401 => Note::KeyRefused,
            CallOutcome::Replied(reply) => Note::AnnounceFailed(format!("status {}", reply.status)),
            CallOutcome::Failed(text) => Note::AnnounceFailed(text),
        };
        self.announce_failed(note, now);
    }

    fn announce_failed(&mut self, note: Note, now: Instant) {
        self.note(note);
        // The first two waits are as set; then it doubles.
        let doublings = self.master.failures.saturating_sub(1).min(8);
        let wait = self.settings.announce_retry.saturating_mul(1 << doublings).min(ANNOUNCE_MAX);
        let wait = wait.max(self.settings.announce_retry);
        self.master.failures = self.master.failures.saturating_add(1);
        self.master.jitter = self
            .master
            .jitter
            .wrapping_add(self.settings.seed)
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Up to a tenth more: a hundred nodes do not come back at the same moment.
        let share = u32::try_from(self.master.jitter >> 56).unwrap_or(0);
        let jitter = wait.checked_div(2560).unwrap_or_default().saturating_mul(share);
        self.master.announcing = Announcing::At(after(now, wait.saturating_add(jitter)));
        for exchange in std::mem::take(&mut self.master.again) {
            self.decide_offline(exchange, now);
        }
    }

    fn announced(&mut self, announced: Announced, now: Instant) {
        self.note(Note::Announced {
            id: announced.id.clone(),
            name: announced.name.clone(),
            slug: announced.slug.clone(),
            role: announced.role,
        });
        self.own.ids.insert(announced.id.clone());
        self.own.addresses.extend(announced.rtmp_address.clone());
        let role = announced.role;
        self.master.announcing = Announcing::No;
        self.master.failures = 0;
        self.master.announced_at = Some(now);
        self.master.is_lost = false;
        self.master.known_as = Some(announced);
        self.change_role(role, now);
        self.beat.begin(now);
        self.tell_all_again(now);
        for exchange in std::mem::take(&mut self.master.again) {
            self.ask_master(exchange, now);
        }
    }

    /// A call was answered 401: the secret is dead.
    pub(super) fn lose_secret(&mut self, now: Instant) {
        if self.master.known_as.take().is_none() {
            return;
        }
        self.note(Note::Unknown);
        self.beat.stop();
        self.master.is_fetching = false;
        // Not in a circle without rest, if the master knows nobody however often it is told.
        let rested = self.master.announced_at.map_or(now, |at| after(at, self.settings.announce_retry));
        self.master.announcing = Announcing::At(rested.max(now));
    }

    /// The master did not answer.
    pub(super) fn lost(&mut self, why: &str) {
        if !self.master.is_lost {
            self.master.is_lost = true;
            self.note(Note::Lost(why.chars().take(200).collect()));
        }
    }

    /// The master has answered; if it had been lost, it is told all that it may have missed.
    fn found(&mut self, now: Instant) {
        if self.master.is_lost {
            self.master.is_lost = false;
            self.note(Note::Back);
            self.tell_all_again(now);
        }
    }

    fn tell_all_again(&mut self, now: Instant) {
        for event in self.streams.starts(self.unix_now) {
            self.events.push(event);
        }
        self.events.hurry();
        self.master.fetch = Some(now);
    }

    /// A call as the announced node makes it; nothing before that.
    pub(super) fn authorised(&self, method: &'static str, path: &str, body: Vec<u8>) -> Option<Call> {
        let known = self.master.known_as.as_ref()?;
        let headers = vec![("Authorization", known.secret.clone()), ("Node-ID", Key::new(known.id.clone()))];
        Some(Call { method, path: path.to_owned(), headers, body })
    }

    /// The master's id of this node.
    pub(super) fn node_id(&self) -> &str {
        self.master.known_as.as_ref().map_or("", |known| &known.id)
    }

    pub(super) fn beat_if_due(&mut self, now: Instant) {
        let Some(send) = self.beat.poll(now) else { return };
        let path = self.settings.endpoints.heartbeat.clone();
        let call = match send {
            Send::Create => self.authorised("GET", &path, Vec::new()),
            Send::Beat { id, key } => {
                let role = self.roles.shown();
                self.master.told = Some(role);
                let body = beat::body(&id, &key, role.word(), self.tables.version, &self.report);
                self.authorised("POST", &path, body)
            }
        };
        if let Some(call) = call {
            self.call(Pending::Beat, call);
        }
    }

    pub(super) fn on_beat(&mut self, outcome: CallOutcome, now: Instant) {
        let (outcome, why) = match outcome {
            CallOutcome::Replied(reply) => {
                let why = format!("status {}", reply.status);
                (self.beat.handle_reply(reply.status, &reply.body, now), why)
            }
            CallOutcome::Failed(why) => (self.beat.handle_failure(now), why),
        };
        match outcome {
            Outcome::Begun => self.found(now),
            Outcome::Taken(said) => {
                self.found(now);
                self.obey(said, now);
            }
            Outcome::Lost => self.note(Note::HeartbeatLost),
            Outcome::Unknown => self.lose_secret(now),
            Outcome::Failed => self.lost(&why),
        }
    }

    fn obey(&mut self, said: Said, now: Instant) {
        if said.strike {
            self.note(Note::Strike);
        }
        for stream_id in said.drop {
            if self.streams.has(&stream_id) {
                self.note(Note::DropAsked(stream_id.clone()));
                self.drop_stream(&stream_id, StopReason::Dropped);
            }
        }
        match said.mode.as_deref().map(Role::parse) {
            // What it was told, said back: if an operator has given another role since, the next beat tells it that first.
            Some(Some(role)) if self.master.told == Some(role) => {}
            Some(Some(role)) => self.change_role(role, now),
            Some(None) => {
                self.note(Note::UnknownRole(said.mode.unwrap_or_default().chars().take(40).collect()))
            }
            None => {}
        }
        self.compare_version(said.table_version, now);
    }

    pub(super) fn compare_version(&mut self, version: Option<u64>, now: Instant) {
        if version.is_some_and(|version| version != self.tables.version) && self.master.fetch.is_none() {
            self.master.fetch = Some(now);
        }
    }

    fn change_role(&mut self, role: Role, now: Instant) {
        let roles = Roles::one(role);
        let is_same = match self.settings.has_master {
            true => roles == self.roles,
            // Without a master the joined roles stay as long as the first does.
            false => role == self.roles.shown(),
        };
        if is_same {
            return;
        }
        self.note(Note::Role { from: self.roles.shown(), to: role });
        self.roles = roles.clone();
        // Outputs first: nothing forbidden is sent while inputs are being closed.
        self.update_pushes();
        self.actions.push_back(Action::RoleChanged(roles));
        for stream_id in self.streams.forbidden(&self.roles) {
            self.drop_stream(&stream_id, StopReason::Role);
        }
        self.master.fetch = Some(now);
    }

    pub(super) fn tell_if_due(&mut self, now: Instant) {
        if !self.events.is_ready(now) {
            return;
        }
        let (node_id, path) = (self.node_id().to_owned(), self.settings.endpoints.streams.clone());
        let Some(body) = self.events.next(now).map(|event| event.body(&node_id)) else { return };
        if let Some(call) = self.authorised("POST", &path, body) {
            self.call(Pending::Event, call);
        }
    }

    pub(super) fn on_event(&mut self, outcome: CallOutcome, now: Instant) {
        let reply = match outcome {
            CallOutcome::Replied(reply) => reply,
            CallOutcome::Failed(why) => {
                self.lost(&why);
                return self.events.failed(now);
            }
        };
        if reply.status == 401 {
            self.events.back();
            return self.lose_secret(now);
        }
        match heard(reply.status, &reply.body) {
            Heard::Again => self.events.failed(now),
            Heard::Taken(version) => {
                self.events.done();
                self.compare_version(version, now);
            }
            Heard::Refused => {
                if let Some(event) = self.events.done().filter(|event| event.kind.begins())
                    && self.streams.has(&event.stream_id)
                {
                    self.note(Note::StreamRefused(event.stream_id.clone()));
                    self.drop_stream(&event.stream_id, StopReason::Denied);
                }
            }
        }
    }

    pub(super) fn fetch_if_due(&mut self, now: Instant) {
        if self.master.fetch_due().is_none_or(|due| now < due) {
            return;
        }
        let path = self.settings.endpoints.streams.clone();
        if let Some(call) = self.authorised("GET", &path, Vec::new()) {
            self.master.is_fetching = true;
            self.call(Pending::Tables, call);
        }
    }

    pub(super) fn on_tables(&mut self, outcome: CallOutcome, now: Instant) {
        self.master.is_fetching = false;
        match outcome {
            CallOutcome::Replied(reply) if reply.status == 200 => {
                self.master.fetch = None;
                if let Err(error) = self.take_tables(&reply.body) {
                    self.note(Note::TablesRefused(error));
                }
            }
            CallOutcome::Replied(reply) if reply.status == 401 => self.lose_secret(now),
            CallOutcome::Replied(reply) if reply.status < 500 => {
                // The next beat tells whether there is something to fetch.
                self.master.fetch = None;
                self.note(Note::TablesMissing(format!("status {}", reply.status)));
            }
            CallOutcome::Replied(_) | CallOutcome::Failed(_) => {
                self.master.fetch = Some(after(now, FETCH_RETRY));
            }
        }
    }

    fn take_tables(&mut self, document: &[u8]) -> Result<(), TableError> {
        let tables = Tables::parse(document)?;
        self.tables.may_become(&tables)?;
        if tables != self.tables {
            self.note(Note::Tables(tables.version));
            self.tables = tables;
            self.actions.push_back(Action::KeepTables(document.to_vec()));
            self.update_pushes();
        }
        Ok(())
    }
}
