//! One MQTT 5 session of a client, without its socket.
//!
//! ```text
//!  Opening --CONNACK--> Subscribing --SUBACK--> Ready --+
//!     |                                            |    | messages in, acknowledged when they are dealt with;
//!     +---- any refusal, silence, wrong packet ----+----+ messages out, each until it is acknowledged
//!                        v
//!                     an error: the caller closes, waits, and opens a new one
//! ```
//!
//! Bytes and times are handed in. The packets themselves are read and written by rumqttc's codec; its event loop is not
//! used, as it dials by itself and a gateway dials in one place.

use bytes::{Bytes, BytesMut};
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectProperties, ConnectReturnCode, Filter, LastWill, Login, Packet, PingReq, PubAck,
    PubAckReason, Publish, PublishProperties, RetainForwardRule, Subscribe, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::{Error as CodecError, QoS};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Longest packet that is taken: a bundle that is too long can still be refused in words; what is longer ends the session.
pub const PACKET_MAX: u32 = 2 << 20;
/// Messages from the broker that may wait to be dealt with.
const INCOMING_MAX: u16 = 8;
/// Own messages that may wait for their acknowledgement.
pub const OUTGOING_MAX: usize = 16;
/// How long the broker may take to answer the opening, a subscription or a ping.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the broker keeps what came while the gateway was away.
const KEPT: Duration = Duration::from_secs(24 * 3_600);

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// The client's id at the broker.
    pub client_id: String,
    /// User and password, if any.
    pub login: Option<(String, String)>,
    /// Silence after which the broker is asked whether it lives.
    pub keep_alive: Duration,
    /// What the broker says, retained, when the session ends without a goodbye: topic and text.
    pub will: (String, String),
    /// Topics to listen to.
    pub topics: Vec<String>,
}

/// A message from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it was published.
    pub topic: String,
    /// What it says.
    pub payload: Bytes,
    /// To be handed to [`Session::acknowledge`] once it is dealt with; none if it needs none.
    pub id: Option<u16>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The broker took the session and all subscriptions.
    Ready,
    /// A message came.
    Message(Message),
    /// The broker has a message of ours.
    Delivered(u16),
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The broker said no.
    #[error("the broker refused the session: {0:?}")]
    Refused(ConnectReturnCode),
    /// The broker said no to a topic.
    #[error("the broker refused the subscription: {0:?}")]
    Subscription(SubscribeReasonCode),
    /// The broker ended it.
    #[error("the broker ended the session: {0}")]
    Ended(String),
    /// It does not answer.
    #[error("the broker did not answer within {0:?}")]
    Silent(Duration),
    /// Not MQTT 5.
    #[error("the broker sent what cannot be read: {0}")]
    Unreadable(String),
    /// MQTT 5, but not in its place.
    #[error("the broker sent {0} out of its turn")]
    OutOfTurn(&'static str),
    /// Too many at once.
    #[error("the broker sent more messages than it may")]
    Crowded,
}

/// Why a message cannot be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Not ready yet.
    #[error("the session is not ready")]
    NotReady,
    /// Too many wait for their acknowledgement.
    #[error("{OUTGOING_MAX} messages wait for their acknowledgement already")]
    Full,
    /// The broker takes none that long.
    #[error("the broker takes messages of at most {0} bytes")]
    TooLong(u32),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Subscribing,
    Ready,
}

/// One session.
pub struct Session {
    phase: Phase,
    topics: Vec<String>,
    keep_alive: Duration,
    input: BytesMut,
    output: BytesMut,
    events: VecDeque<SessionEvent>,
    /// Ids of own messages that were not acknowledged.
    unacknowledged: VecDeque<u16>,
    /// Messages of the broker that were not dealt with.
    unanswered: Vec<u16>,
    next_id: u16,
    peer_max: Option<u32>,
    last_sent: Instant,
    /// When the broker must have answered.
    answer_by: Option<Instant>,
}

impl Session {
    /// Begins a session on a connection that was just opened.
    pub fn open(settings: SessionSettings, now: Instant) -> Self {
        let SessionSettings { client_id, login, keep_alive, will, topics } = settings;
        let properties = ConnectProperties {
            session_expiry_interval: Some(u32::try_from(KEPT.as_secs()).unwrap_or(u32::MAX)),
            receive_maximum: Some(INCOMING_MAX),
            max_packet_size: Some(PACKET_MAX),
            ..ConnectProperties::new()
        };
        let connect = Connect {
            keep_alive: u16::try_from(keep_alive.as_secs()).unwrap_or(u16::MAX),
            client_id,
            clean_start: false,
            properties: Some(properties),
        };
        let will = LastWill::new(will.0, will.1, QoS::AtLeastOnce, true, None);
        let login = login.map(|(user, password)| Login::new(user, password));
        let mut session = Session {
            phase: Phase::Opening,
            topics,
            keep_alive,
            input: BytesMut::new(),
            output: BytesMut::new(),
            events: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            unanswered: Vec::new(),
            next_id: 0,
            peer_max: None,
            last_sent: now,
            answer_by: Some(now + PATIENCE),
        };
        session.write(&Packet::Connect(connect, Some(will), login), now);
        session
    }

    /// Whether messages can be sent.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Own messages under way.
    pub fn under_way(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Takes bytes of the broker.
    pub fn handle_input(&mut self, bytes: &[u8], now: Instant) -> Result<(), SessionError> {
        self.input.extend_from_slice(bytes);
        while let Some(packet) = self.next_packet()? {
            self.handle_packet(packet, now)?;
        }
        Ok(())
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, SessionError> {
        let before = self.input.len();
        let input = &mut self.input;
        // The codec slices what a broker says is there.
        let read = catch_unwind(AssertUnwindSafe(|| Packet::read(input, Some(PACKET_MAX))));
        match read {
            Ok(Ok(packet)) => Ok(Some(packet)),
            // Also said of a whole packet that ends inside of one of its fields.
            Ok(Err(CodecError::InsufficientBytes(_))) if self.input.len() == before => Ok(None),
            Ok(Err(error)) => Err(SessionError::Unreadable(error.to_string())),
            Err(_) => Err(SessionError::Unreadable("a packet that is not what it says".to_owned())),
        }
    }

    fn handle_packet(&mut self, packet: Packet, now: Instant) -> Result<(), SessionError> {
        match (self.phase, packet) {
            (Phase::Opening, Packet::ConnAck(answer)) => {
                if answer.code != ConnectReturnCode::Success {
                    return Err(SessionError::Refused(answer.code));
                }
                if let Some(properties) = answer.properties {
                    self.peer_max = properties.max_packet_size;
                    if let Some(seconds) = properties.server_keep_alive {
                        self.keep_alive = Duration::from_secs(u64::from(seconds.max(1)));
                    }
                }
                self.phase = Phase::Subscribing;
                let filters = self.topics.iter().map(|topic| Filter {
                    path: topic.clone(),
                    qos: QoS::AtLeastOnce,
                    nolocal: false,
                    preserve_retain: true,
                    retain_forward_rule: RetainForwardRule::OnEverySubscribe,
                });
                let mut subscribe = Subscribe::new_many(filters.collect::<Vec<_>>(), None);
                subscribe.pkid = self.fresh_id();
                self.write(&Packet::Subscribe(subscribe), now);
                self.answer_by = Some(now + PATIENCE);
            }
            (Phase::Subscribing, Packet::SubAck(answer)) => {
                let refused =
                    answer.return_codes.iter().find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
                if let Some(code) = refused {
                    return Err(SessionError::Subscription(*code));
                }
                self.phase = Phase::Ready;
                self.answer_by = None;
                self.events.push_back(SessionEvent::Ready);
            }
            // What was kept for us may come before the answer to the subscription.
            (Phase::Subscribing | Phase::Ready, Packet::Publish(publish)) => self.handle_publish(publish)?,
            (Phase::Ready, Packet::PubAck(answer)) => {
                if let Some(index) = self.unacknowledged.iter().position(|id| *id == answer.pkid) {
                    self.unacknowledged.remove(index);
                    self.events.push_back(SessionEvent::Delivered(answer.pkid));
                }
            }
            (Phase::Ready, Packet::PingResp(_)) => self.answer_by = None,
            (_, Packet::Disconnect(goodbye)) => {
                return Err(SessionError::Ended(format!("{:?}", goodbye.reason_code)));
            }
            (_, packet) => return Err(SessionError::OutOfTurn(name_of(&packet))),
        }
        Ok(())
    }

    fn handle_publish(&mut self, publish: Publish) -> Result<(), SessionError> {
        let topic = String::from_utf8(publish.topic.to_vec());
        let topic = topic.map_err(|_| SessionError::Unreadable("a topic is no UTF-8".to_owned()))?;
        let id = match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(publish.pkid),
            QoS::ExactlyOnce => return Err(SessionError::OutOfTurn("a message that must come exactly once")),
        };
        if self.unanswered.len() >= usize::from(INCOMING_MAX)
            || self.events.len() >= OUTGOING_MAX + 4 * usize::from(INCOMING_MAX)
        {
            return Err(SessionError::Crowded);
        }
        self.unanswered.extend(id);
        self.events.push_back(SessionEvent::Message(Message { topic, payload: publish.payload, id }));
        Ok(())
    }

    /// What has happened, in its order.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Bytes for the broker.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| self.output.split().freeze())
    }

    /// Tells the broker that a message was dealt with and need not come again.
    pub fn acknowledge(&mut self, id: u16, now: Instant) {
        if let Some(index) = self.unanswered.iter().position(|known| *known == id) {
            self.unanswered.swap_remove(index);
            self.write(
                &Packet::PubAck(PubAck { pkid: id, reason: PubAckReason::Success, properties: None }),
                now,
            );
        }
    }

    /// Sends a message, to be delivered at least once. Returns the id by which its delivery is told.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: Vec<u8>,
        retain: bool,
        now: Instant,
    ) -> Result<u16, SendError> {
        if self.phase != Phase::Ready {
            return Err(SendError::NotReady);
        }
        if self.unacknowledged.len() >= OUTGOING_MAX {
            return Err(SendError::Full);
        }
        let properties = PublishProperties {
            content_type: Some("application/json".to_owned()),
            ..PublishProperties::default()
        };
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload, Some(properties));
        publish.retain = retain;
        publish.pkid = self.fresh_id();
        let packet = Packet::Publish(publish.clone());
        if let Some(max) =
            self.peer_max.filter(|max| packet.size() > usize::try_from(*max).unwrap_or(usize::MAX))
        {
            return Err(SendError::TooLong(max));
        }
        self.unacknowledged.push_back(publish.pkid);
        self.write(&packet, now);
        Ok(publish.pkid)
    }

    /// When [`Session::handle_timeout`] wants to be called at the latest.
    pub fn next_timeout(&self) -> Instant {
        let ping = self.last_sent + self.keep_alive;
        self.answer_by.map_or(ping, |by| by.min(ping))
    }

    /// Looks at the time.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        if self.answer_by.is_some_and(|by| now >= by) {
            return Err(SessionError::Silent(PATIENCE));
        }
        if now >= self.last_sent + self.keep_alive {
            self.write(&Packet::PingReq(PingReq), now);
            self.answer_by.get_or_insert(now + PATIENCE);
        }
        Ok(())
    }

    fn fresh_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.wrapping_add(1).max(1);
            if !self.unacknowledged.contains(&self.next_id) {
                return self.next_id;
            }
        }
    }

    fn write(&mut self, packet: &Packet, now: Instant) {
        // Fails only for lengths that no packet of ours has.
        if packet.write(&mut self.output, None).is_ok() {
            self.last_sent = now;
        }
    }
}

fn name_of(packet: &Packet) -> &'static str {
    match packet {
        Packet::Auth(_) => "AUTH",
        Packet::Connect(..) => "CONNECT",
        Packet::ConnAck(_) => "CONNACK",
        Packet::Publish(_) => "PUBLISH",
        Packet::PubAck(_) => "PUBACK",
        Packet::PingReq(_) => "PINGREQ",
        Packet::PingResp(_) => "PINGRESP",
        Packet::Subscribe(_) => "SUBSCRIBE",
        Packet::SubAck(_) => "SUBACK",
        Packet::PubRec(_) => "PUBREC",
        Packet::PubRel(_) => "PUBREL",
        Packet::PubComp(_) => "PUBCOMP",
        Packet::Unsubscribe(_) => "UNSUBSCRIBE",
        Packet::UnsubAck(_) => "UNSUBACK",
        Packet::Disconnect(_) => "DISCONNECT",
    }
}

#[cfg(test)]
mod tests;
