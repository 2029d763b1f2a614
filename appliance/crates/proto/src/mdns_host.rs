//! One name of ours in multicast DNS (RFC 6762), and the page that is under it (RFC 6763): is the name free, here it is,
//! who asks is told. On one interface.
//!
//! ```text
//!  Probing (3 questions, 250 ms apart) --nobody has it--> Announcing (2 answers, 1 s apart) --> Quiet (answers)
//!     ^   somebody has it: the next name: NAME-2, NAME-3 ...  |                                  |
//!     +---------------------------- somebody else answers for it --------------------------------+
//! ```
//!
//! Remembers nothing of what others say, so nobody can fill its memory. Not for asking: that is [`crate::dns_sd`].

mod records;

use crate::dns_sd::{DnsSdError, checked};
use records::{Claim, Records, is_name};
use simple_dns::{Packet, PacketFlag, ResourceRecord};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long others may remember an address (RFC 6762, 10).
const TTL_SECS: u32 = 120;
/// The same for who asks without knowing of multicast DNS (6.7).
const LEGACY_TTL_SECS: u32 = 10;
const PROBES: u8 = 3;
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// Who loses to another one that probes at the same time, asks again after this (8.2).
const YIELD: Duration = Duration::from_secs(1);
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
/// Answers to the group come at most this often (6).
const ANSWER_EVERY: Duration = Duration::from_secs(1);
/// To who probes for our name, they come sooner (6).
const DEFEND_EVERY: Duration = Duration::from_millis(250);
/// Answers to one asker alone, in a second.
const MAX_ALONE: u8 = 20;
/// Names that are tried at most: somebody who takes them all is no neighbour, but an attacker.
const MAX_NAMES: u32 = 16;
/// Then this is waited for, and the first name is tried again.
const GIVE_UP: Duration = Duration::from_secs(300);
/// Addresses that are told at most.
const MAX_ADDRESSES: usize = 8;
/// Longest label, so that a number fits behind it.
const MAX_LABEL: usize = 56;

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To the group.
    Group(Vec<u8>),
    /// To who asked, alone.
    Asker(Vec<u8>),
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The name without `.local`: `a-z A-Z 0-9 -`, 1 to 56 characters; more are cut off.
    pub label: String,
    /// Addresses on this interface. At most 8 are told.
    pub addresses: Vec<IpAddr>,
    /// All addresses of this machine: who tells one of them is this machine, too.
    pub own: Vec<IpAddr>,
    /// TCP port of the page (HTTPS).
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Probing(u8),
    Announcing(u8),
    Quiet,
    /// All names are taken.
    Silent,
}

/// One name on one interface.
#[derive(Debug)]
pub struct Host {
    told: Announcement,
    /// 1: the label itself.
    number: u32,
    records: Records,
    state: State,
    due: Instant,
    /// An answer to the group that waits.
    answer_due: Option<Instant>,
    answered: Option<Instant>,
    /// Since when answers to single askers are counted.
    alone: (Instant, u8),
}

impl Host {
    /// Begins to look whether the name is free.
    pub fn new(mut told: Announcement, now: Instant) -> Self {
        told.label.truncate(MAX_LABEL);
        told.addresses.truncate(MAX_ADDRESSES);
        let records = Records::new(&told.label, &told.addresses, told.port);
        Host {
            told,
            number: 1,
            records,
            state: State::Probing(0),
            due: now,
            answer_due: None,
            answered: None,
            alone: (now, 0),
        }
    }

    /// The name, with `.local`; none while it is not known to be free.
    pub fn name(&self) -> Option<String> {
        self.is_ours().then(|| format!("{}.local", self.label()))
    }

    fn is_ours(&self) -> bool {
        matches!(self.state, State::Announcing(_) | State::Quiet)
    }

    fn label(&self) -> String {
        match self.number {
            1 => self.told.label.clone(),
            number => format!("{}-{number}", self.told.label),
        }
    }

    /// When [`Host::handle_timeout`] is to be called; none: not before something else happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = (self.state != State::Quiet).then_some(self.due);
        due.into_iter().chain(self.answer_due).min()
    }

    /// What is due to be sent.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Output> {
        if self.answer_due.is_some_and(|due| due <= now) {
            self.answer_due = None;
            if self.is_ours() {
                self.answered = Some(now);
                return Some(Output::Group(self.answer(TTL_SECS)));
            }
        }
        if self.state == State::Quiet || now < self.due {
            return None;
        }
        match self.state {
            State::Probing(sent) if sent < PROBES => {
                self.state = State::Probing(sent.saturating_add(1));
                self.due = after(now, PROBE_EVERY);
                Some(Output::Group(written(&self.records.probe())))
            }
            State::Probing(_) => {
                self.state = State::Announcing(0);
                self.handle_timeout(now)
            }
            State::Announcing(sent) => {
                let sent = sent.saturating_add(1);
                self.state = if sent < ANNOUNCEMENTS { State::Announcing(sent) } else { State::Quiet };
                self.due = after(now, ANNOUNCE_EVERY);
                self.answered = Some(now);
                Some(Output::Group(self.answer(TTL_SECS)))
            }
            State::Silent => {
                self.take(1);
                self.state = State::Probing(0);
                self.handle_timeout(now)
            }
            State::Quiet => None,
        }
    }

    /// A message from the network. `is_peer`: it comes from the port of multicast DNS, so its sender speaks it.
    pub fn handle_message(
        &mut self,
        bytes: &[u8],
        is_peer: bool,
        now: Instant,
    ) -> Result<Option<Output>, DnsSdError> {
        checked(bytes)?;
        let packet = Packet::parse(bytes).map_err(|error| DnsSdError::Malformed(error.to_string()))?;
        if packet.has_flags(PacketFlag::RESPONSE) {
            let all = packet.answers.iter().chain(&packet.additional_records);
            if is_peer && self.is_somebody_elses(all) {
                self.give_way(now);
            }
            return Ok(None);
        }
        if !packet.questions.iter().any(|question| self.records.answer(question)) {
            return Ok(None);
        }
        match self.state {
            State::Probing(_) => {
                // Both look whether it is free: the greater claim wins (8.2), the other one asks again a little later.
                if is_peer && self.loses_to(&packet.name_servers) {
                    self.state = State::Probing(0);
                    self.due = after(now, YIELD);
                }
                return Ok(None);
            }
            State::Silent => return Ok(None),
            State::Announcing(_) | State::Quiet => {}
        }
        if !is_peer {
            return Ok(self.may_answer_alone(now).then(|| Output::Asker(self.legacy_answer(&packet))));
        }
        let mut asked = packet.questions.iter().filter(|question| self.records.answer(question));
        if asked.clone().all(|question| self.records.is_known(question, &packet.answers, TTL_SECS / 2)) {
            return Ok(None);
        }
        // Who probes must hear us at once.
        let is_probe = !packet.name_servers.is_empty();
        if !is_probe && asked.all(|question| question.unicast_response) {
            return Ok(self.may_answer_alone(now).then(|| Output::Asker(self.answer(TTL_SECS))));
        }
        let (pause, delay) =
            if is_probe { (DEFEND_EVERY, Duration::ZERO) } else { (ANSWER_EVERY, self.delay()) };
        let earliest = self.answered.map_or(now, |last| after(last, pause));
        let due = earliest.max(after(now, delay));
        self.answer_due = Some(self.answer_due.map_or(due, |waiting| waiting.min(due)));
        Ok(self.handle_timeout(now))
    }

    /// Takes the name back, before the interface or the gateway goes.
    pub fn goodbye(&self) -> Option<Vec<u8>> {
        self.is_ours().then(|| {
            let mut packet = self.reply();
            // That there is such a kind of service is not ours to take back.
            let is_ours_alone = |record: &ResourceRecord<'_>| !is_name(&record.name, &self.records.kinds);
            packet.answers = self.records.all(0, true).into_iter().filter(is_ours_alone).collect();
            written(&packet)
        })
    }

    /// Many may answer for all pages of the network; each waits for another 20 to 120 ms (6).
    fn delay(&self) -> Duration {
        let sum =
            self.told.label.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Duration::from_millis(20_u64.saturating_add(sum.checked_rem(100).unwrap_or_default()))
    }

    fn may_answer_alone(&mut self, now: Instant) -> bool {
        let (since, count) = self.alone;
        let is_new = now.saturating_duration_since(since) >= ANSWER_EVERY;
        self.alone = if is_new { (now, 1) } else { (since, count.saturating_add(1)) };
        self.alone.1 <= MAX_ALONE
    }

    /// Whether somebody answers for our name with what is none of ours.
    fn is_somebody_elses<'a>(&self, said: impl Iterator<Item = &'a ResourceRecord<'a>> + Clone) -> bool {
        let own = |claim: &Claim| claim.address().is_some_and(|address| self.told.own.contains(&address));
        let live = said.filter(|record| record.ttl > 0);
        let claims = live.filter_map(|record| Some((record, Claim::of(record)?)));
        // Our own word, from another interface of this machine or another program on it.
        if claims.clone().any(|(_, claim)| own(&claim)) {
            return false;
        }
        let mut claims = claims;
        claims.any(|(record, claim)| match claim.address() {
            Some(_) => is_name(&record.name, &self.records.host),
            None => is_name(&record.name, &self.records.instance) && !self.records.claims().contains(&claim),
        })
    }

    fn loses_to(&self, proposed: &[ResourceRecord<'_>]) -> bool {
        let ours = |record: &&ResourceRecord<'_>| {
            is_name(&record.name, &self.records.host) || is_name(&record.name, &self.records.instance)
        };
        let mut theirs: Vec<Claim> = proposed.iter().filter(ours).filter_map(Claim::of).collect();
        theirs.sort();
        let is_own = theirs.iter().filter_map(Claim::address).any(|address| self.told.own.contains(&address));
        !is_own && theirs > self.records.claims()
    }

    fn give_way(&mut self, now: Instant) {
        if self.state == State::Silent {
            return;
        }
        self.answer_due = None;
        if self.number < MAX_NAMES {
            self.take(self.number.saturating_add(1));
            self.state = State::Probing(0);
            self.due = after(now, PROBE_EVERY);
        } else {
            self.state = State::Silent;
            self.due = after(now, GIVE_UP);
        }
    }

    fn take(&mut self, number: u32) {
        self.number = number;
        self.records = Records::new(&self.label(), &self.told.addresses, self.told.port);
    }

    fn reply(&self) -> Packet<'static> {
        let mut packet = Packet::new_reply(0);
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        packet
    }

    fn answer(&self, ttl: u32) -> Vec<u8> {
        let mut packet = self.reply();
        packet.answers = self.records.all(ttl, true);
        written(&packet)
    }

    /// For who knows plain DNS alone: his question and number again, and nothing to remember for long (6.7).
    fn legacy_answer(&self, asked: &Packet<'_>) -> Vec<u8> {
        let mut packet = self.reply();
        packet.set_id(asked.id());
        let ours = asked.questions.iter().find(|question| self.records.answer(question));
        packet.questions.extend(ours.cloned().map(|question| {
            let mut question = question.into_owned();
            question.unicast_response = false;
            question
        }));
        let (answers, more) = self.records.for_question(packet.questions.first(), LEGACY_TTL_SECS);
        (packet.answers, packet.additional_records) = (answers, more);
        written(&packet)
    }
}

fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}

/// Our own records fit every message; an empty one would tell nobody and harm nobody.
fn written(packet: &Packet<'_>) -> Vec<u8> {
    packet.build_bytes_vec_compressed().unwrap_or_default()
}

/// A fuzz target: any bytes, in any state.
pub fn fuzz(data: &[u8], now: Instant) {
    let address = IpAddr::from([10, 0, 0, 7]);
    let told = Announcement {
        label: "fieldgate-7f3a".to_owned(),
        addresses: vec![address],
        own: vec![address],
        port: 8_443,
    };
    let mut host = Host::new(told, now);
    for step in 0..8 {
        let now = after(now, PROBE_EVERY.saturating_mul(step));
        host.handle_message(data, step % 2 == 0, now).ok();
        if let Some(Output::Group(sent) | Output::Asker(sent)) = host.handle_timeout(now) {
            assert!(sent.len() < 1_200);
        }
    }
}

#[cfg(test)]
mod tests;
