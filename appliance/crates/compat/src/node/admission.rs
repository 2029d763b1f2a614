//! Who may publish and watch.

use super::Key;
use super::auth::{self, Answer, Item};
use super::key::{is_key, is_publish_token, is_stream_id};
use super::role::{PeerKind, TokenType};
use super::{Action, Node, Pending, after};
use crate::{CallOutcome, ExchangeId};
use std::time::{Duration, Instant};

/// No answer in this time is a no.
const DEADLINE: Duration = Duration::from_secs(10);
/// Questions that may be open.
const OPEN_MAX: usize = 256;

/// What a peer wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To broadcast: publish on `live`.
    Broadcast,
    /// To send as another node: publish on `relay`.
    Relay,
    /// To watch.
    View,
}

/// A question about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What it wants.
    pub wish: Wish,
    /// The name that it gave: a token, a stream, or a node's key.
    pub name: Key,
    /// The key or token beside the name.
    pub key: Option<Key>,
    /// How it comes: `live`, `relay`, `hls`.
    pub app: String,
    /// Its address.
    pub addr: String,
    /// Its connection's number.
    pub client_id: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allow {
        /// The stream.
        stream_id: String,
        /// What the peer is.
        peer: PeerKind,
    },
    /// The name is none that this node has a say about.
    NotMine,
    /// It may not.
    Refuse(Refused),
}

/// Why not; the text is for the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The node's role forbids it.
    #[error("this node's role does not serve that")]
    Role,
    /// None was shown.
    #[error("a token is needed: add ?token=TOKEN")]
    NoToken,
    /// It has a form that no token has.
    #[error("that is no token")]
    Malformed,
    /// The master says no.
    #[error("the token is not good for this stream")]
    Denied,
    /// The master cannot be asked.
    #[error("the token cannot be checked now; try again later")]
    Unreachable,
    /// There are as many streams or questions as there may be.
    #[error("this node is full; try again later")]
    Full,
}

/// A question that the master is being asked.
#[derive(Debug)]
pub(super) struct Asking {
    question: Question,
    items: Vec<Item>,
    pub(super) deadline: Instant,
    /// It was asked once more after a 401.
    is_second: bool,
}

impl Node {
    /// Asks whether a peer may do what it wants; the verdict comes as an action, with this id.
    pub fn handle_question(&mut self, exchange: ExchangeId, question: Question, now: Instant) {
        match self.judge(&question, now) {
            Ok(verdict) => self.actions.push_back(Action::Verdict(exchange, verdict)),
            Err(items) => {
                let asking = Asking { question, items, deadline: after(now, DEADLINE), is_second: false };
                self.asking.insert(exchange, asking);
                self.ask_master(exchange, now);
            }
        }
    }

    /// Nobody waits for this verdict any more.
    pub fn withdraw(&mut self, exchange: ExchangeId) {
        self.asking.remove(&exchange);
        self.wants.withdraw(exchange);
    }

    /// The verdict, or what the master must be asked.
    fn judge(&self, question: &Question, now: Instant) -> Result<Verdict, Vec<Item>> {
        let refuse = |why| Ok(Verdict::Refuse(why));
        let name = question.name.reveal();
        let key = question.key.as_ref().map(Key::reveal).filter(|key| !key.is_empty());
        let (token, types, stream_id): (&str, &[TokenType], Option<&str>) = match question.wish {
            Wish::Broadcast => {
                if !is_publish_token(name) {
                    return Ok(Verdict::NotMine);
                }
                (name, &[TokenType::Broadcaster], None)
            }
            Wish::Relay => {
                let accepted = match key {
                    Some(key) => self.tables.accepts(name, key).map(|entry| (name, entry)),
                    None => self.tables.stream_of(name),
                };
                if let Some((stream_id, entry)) = accepted.filter(|_| self.roles.takes_nodes()) {
                    let (stream_id, peer) = (stream_id.to_owned(), PeerKind::of(entry.role));
                    return Ok(self.allow(stream_id, peer));
                }
                match key {
                    Some(_) if !is_stream_id(name) => return refuse(Refused::Malformed),
                    Some(key) => (key, &[TokenType::RootRelay, TokenType::Relay], Some(name)),
                    None => (name, &[TokenType::RootRelay, TokenType::Relay], None),
                }
            }
            Wish::View => match key {
                _ if !is_stream_id(name) => return refuse(Refused::Malformed),
                Some(key) => (key, &[TokenType::Viewer], Some(name)),
                None if self.roles.serves_viewers() => return refuse(Refused::NoToken),
                None => return refuse(Refused::Role),
            },
        };
        if !self.may(question.wish) {
            return refuse(Refused::Role);
        }
        if question.wish != Wish::Broadcast && !is_key(token) {
            return refuse(Refused::Malformed);
        }
        let item = |kind: &TokenType| Item {
            token: Key::new(token),
            kind: *kind,
            stream_id: stream_id.map(str::to_owned),
            app: question.app.clone(),
            addr: question.addr.clone(),
            client_id: question.client_id.clone(),
        };
        let items: Vec<Item> = types.iter().map(item).collect();
        let fresh: Option<Vec<(TokenType, Answer)>> =
            items.iter().map(|item| Some((item.kind, self.answers.fresh(item, now)?.clone()))).collect();
        match fresh {
            Some(fresh) => Ok(self.conclude(question, &fresh)),
            None if self.asking.len() >= OPEN_MAX => refuse(Refused::Full),
            None => Err(items),
        }
    }

    fn may(&self, wish: Wish) -> bool {
        match wish {
            Wish::Broadcast => self.roles.takes_broadcasters(),
            Wish::Relay => self.roles.takes_nodes(),
            Wish::View => self.roles.serves_viewers(),
        }
    }

    fn allow(&self, stream_id: String, peer: PeerKind) -> Verdict {
        match self.streams.len() >= self.settings.max_streams && !self.streams.has(&stream_id) {
            true => Verdict::Refuse(Refused::Full),
            false => Verdict::Allow { stream_id, peer },
        }
    }

    /// What follows from the master's answers.
    fn conclude(&self, question: &Question, answers: &[(TokenType, Answer)]) -> Verdict {
        if !self.may(question.wish) {
            return Verdict::Refuse(Refused::Role);
        }
        let named = match (question.wish, &question.key) {
            (Wish::Broadcast, _) | (Wish::Relay, None) => None,
            (Wish::Relay | Wish::View, _) => Some(question.name.reveal()),
        };
        let good = answers.iter().find_map(|(kind, answer)| match answer {
            Answer::Ok { stream_id, .. } if named.is_none_or(|named| named == stream_id) => {
                Some((*kind, stream_id.clone()))
            }
            _ => None,
        });
        let Some((kind, stream_id)) = good else { return Verdict::Refuse(Refused::Denied) };
        match kind {
            TokenType::Viewer => Verdict::Allow { stream_id, peer: PeerKind::Unknown },
            TokenType::Broadcaster => self.allow(stream_id, PeerKind::Broadcaster),
            TokenType::RootRelay => self.allow(stream_id, PeerKind::RootRelay),
            TokenType::Relay => self.allow(stream_id, self.roles.sender_of_relay_token()),
        }
    }

    /// Asks the master; if that cannot be, decides by what it said before.
    pub(super) fn ask_master(&mut self, exchange: ExchangeId, now: Instant) {
        let Some(asking) = self.asking.get(&exchange) else { return };
        let path = self.settings.endpoints.auth.clone();
        match self.authorised("POST", &path, auth::question(&asking.items)) {
            Some(call) => self.call(Pending::Auth(exchange), call),
            None => self.decide_offline(exchange, now),
        }
    }

    pub(super) fn on_auth(&mut self, exchange: ExchangeId, outcome: CallOutcome, now: Instant) {
        let Some(asking) = self.asking.get_mut(&exchange) else { return };
        let reply = match outcome {
            CallOutcome::Replied(reply) if reply.status == 200 => reply,
            CallOutcome::Replied(reply) if reply.status == 401 && !asking.is_second => {
                asking.is_second = true;
                self.master.again.push(exchange);
                return self.lose_secret(now);
            }
            CallOutcome::Replied(reply) => {
                self.lost(&format!("status {} about a token", reply.status));
                return self.decide_offline(exchange, now);
            }
            CallOutcome::Failed(why) => {
                self.lost(&why);
                return self.decide_offline(exchange, now);
            }
        };
        match auth::answers(&asking.items, &reply.body) {
            Ok(answers) => {
                let Some(asking) = self.asking.remove(&exchange) else { return };
                for (item, answer) in asking.items.iter().zip(&answers) {
                    self.answers.keep(item, answer.clone(), now);
                }
                let answers: Vec<(TokenType, Answer)> =
                    asking.items.iter().map(|item| item.kind).zip(answers).collect();
                let verdict = self.conclude(&asking.question, &answers);
                self.actions.push_back(Action::Verdict(exchange, verdict));
            }
            Err(error) => {
                self.lost(&error.to_string());
                self.decide_offline(exchange, now);
            }
        }
    }

    /// The master cannot be asked: who was let in not long ago still is, nobody else.
    pub(super) fn decide_offline(&mut self, exchange: ExchangeId, now: Instant) {
        let Some(asking) = self.asking.remove(&exchange) else { return };
        let grace = self.settings.offline_grace;
        let known: Vec<(TokenType, Answer)> = asking
            .items
            .iter()
            .filter_map(|item| {
                let stream_id = self.answers.within(item, grace, now)?.to_owned();
                Some((item.kind, Answer::Ok { stream_id, ttl: Duration::ZERO }))
            })
            .collect();
        let verdict = match known.is_empty() {
            true => Verdict::Refuse(Refused::Unreachable),
            false => self.conclude(&asking.question, &known),
        };
        self.actions.push_back(Action::Verdict(exchange, verdict));
    }

    pub(super) fn expire_questions(&mut self, now: Instant) {
        let late = self.asking.iter().filter(|(_, asking)| asking.deadline <= now);
        for exchange in late.map(|(exchange, _)| *exchange).collect::<Vec<_>>() {
            self.decide_offline(exchange, now);
        }
    }
}
