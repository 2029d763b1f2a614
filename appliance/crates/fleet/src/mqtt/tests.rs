use super::*;
use rumqttc::v5::mqttbytes::v5::{ConnAck, ConnAckProperties, SubAck};

fn settings() -> SessionSettings {
    SessionSettings {
        client_id: "fg-1".to_owned(),
        login: Some(("user".to_owned(), "password".to_owned())),
        keep_alive: Duration::from_secs(60),
        will: ("f/fg-1/presence".to_owned(), "gone".to_owned()),
        topics: vec!["f/fg-1/desired".to_owned(), "f/group/all/desired".to_owned()],
    }
}

#[allow(clippy::disallowed_methods, reason = "an origin for times that are handed in")]
fn start() -> Instant {
    Instant::now()
}

fn wire(packets: &[Packet]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for packet in packets {
        packet.write(&mut bytes, None).unwrap();
    }
    bytes.to_vec()
}

fn said(session: &mut Session) -> Vec<Packet> {
    let mut bytes = BytesMut::new();
    while let Some(output) = session.poll_output() {
        bytes.extend_from_slice(&output);
    }
    std::iter::from_fn(|| Packet::read(&mut bytes, None).ok()).collect()
}

fn connack(code: ConnectReturnCode, max_packet_size: Option<u32>) -> Packet {
    let properties = ConnAckProperties {
        session_expiry_interval: None,
        receive_max: None,
        max_qos: None,
        retain_available: None,
        max_packet_size,
        assigned_client_identifier: None,
        topic_alias_max: None,
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: None,
        subscription_identifiers_available: None,
        shared_subscription_available: None,
        server_keep_alive: None,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    };
    Packet::ConnAck(ConnAck { session_present: false, code, properties: Some(properties) })
}

fn suback(codes: &[SubscribeReasonCode]) -> Packet {
    Packet::SubAck(SubAck { pkid: 1, return_codes: codes.to_vec(), properties: None })
}

const TAKEN: [SubscribeReasonCode; 2] =
    [SubscribeReasonCode::Success(QoS::AtLeastOnce), SubscribeReasonCode::Success(QoS::AtLeastOnce)];

fn incoming(id: u16, payload: &str) -> Packet {
    let mut publish = Publish::new("f/fg-1/desired", QoS::AtLeastOnce, payload.as_bytes().to_vec(), None);
    publish.pkid = id;
    Packet::Publish(publish)
}

fn ready(now: Instant) -> Session {
    let mut session = Session::open(settings(), now);
    let bytes = wire(&[connack(ConnectReturnCode::Success, Some(1_000)), suback(&TAKEN)]);
    // In pieces, as a network may bring it.
    for byte in bytes {
        session.handle_input(&[byte], now).unwrap();
    }
    assert_eq!(session.poll_event(), Some(SessionEvent::Ready));
    said(&mut session);
    session
}

#[test]
fn a_session_opens_with_its_will_and_subscribes_to_all_its_topics() {
    let now = start();
    let mut session = Session::open(settings(), now);
    let [Packet::Connect(connect, Some(will), Some(login))] = &said(&mut session)[..] else {
        panic!("no CONNECT")
    };
    assert!(!connect.clean_start && connect.client_id == "fg-1" && connect.keep_alive == 60);
    assert!(will.retain && will.topic == "f/fg-1/presence" && login.username == "user");
    let properties = connect.properties.as_ref().unwrap();
    assert_eq!(
        (properties.max_packet_size, properties.receive_maximum),
        (Some(PACKET_MAX), Some(INCOMING_MAX))
    );
    assert_eq!(session.publish("f/x", Vec::new(), false, now), Err(SendError::NotReady));
    session.handle_input(&wire(&[connack(ConnectReturnCode::Success, None)]), now).unwrap();
    let [Packet::Subscribe(subscribe)] = &said(&mut session)[..] else { panic!("no SUBSCRIBE") };
    let topics: Vec<&str> = subscribe.filters.iter().map(|filter| filter.path.as_str()).collect();
    assert_eq!(topics, settings().topics);
    // What was kept comes first at some brokers.
    session.handle_input(&wire(&[incoming(9, "early"), suback(&TAKEN)]), now).unwrap();
    assert!(matches!(session.poll_event(), Some(SessionEvent::Message(message)) if message.id == Some(9)));
    assert_eq!((session.poll_event(), session.is_ready()), (Some(SessionEvent::Ready), true));
}

#[test]
fn messages_are_acknowledged_when_they_are_dealt_with_and_not_before() {
    let now = start();
    let mut session = ready(now);
    session.handle_input(&wire(&[incoming(7, "bundle")]), now).unwrap();
    let Some(SessionEvent::Message(message)) = session.poll_event() else { panic!("no message") };
    assert_eq!((message.topic.as_str(), &message.payload[..]), ("f/fg-1/desired", &b"bundle"[..]));
    assert_eq!(said(&mut session), []);
    session.acknowledge(7, now);
    session.acknowledge(7, now);
    session.acknowledge(8, now);
    assert!(matches!(&said(&mut session)[..], [Packet::PubAck(ack)] if ack.pkid == 7));
    // A broker that does not wait for that is cut off.
    let crowd: Vec<Packet> = (1..=INCOMING_MAX + 1).map(|id| incoming(id, "x")).collect();
    assert!(matches!(session.handle_input(&wire(&crowd), now), Err(SessionError::Crowded)));
}

#[test]
fn own_messages_have_a_limit_until_they_are_acknowledged() {
    let now = start();
    let mut session = ready(now);
    let ids: Vec<u16> =
        (0..OUTGOING_MAX).map(|_| session.publish("f/x", b"{}".to_vec(), true, now).unwrap()).collect();
    assert_eq!(session.publish("f/x", Vec::new(), true, now), Err(SendError::Full));
    assert_eq!(said(&mut session).len(), OUTGOING_MAX);
    let ack = Packet::PubAck(PubAck { pkid: ids[3], reason: PubAckReason::Success, properties: None });
    session.handle_input(&wire(&[ack.clone(), ack]), now).unwrap();
    assert_eq!((session.poll_event(), session.poll_event()), (Some(SessionEvent::Delivered(ids[3])), None));
    let long = session.publish("f/x", vec![b'x'; 1_000], false, now);
    assert_eq!(long, Err(SendError::TooLong(1_000)), "the broker's limit");
    assert!(session.publish("f/x", vec![b'x'; 900], false, now).is_ok());
    assert_eq!(session.under_way(), OUTGOING_MAX);
}

#[test]
fn every_refusal_says_what_it_was() {
    let now = start();
    let told = |packets: &[Packet]| {
        Session::open(settings(), now).handle_input(&wire(packets), now).unwrap_err().to_string()
    };
    let good = connack(ConnectReturnCode::Success, None);
    assert!(told(&[connack(ConnectReturnCode::NotAuthorized, None)]).contains("NotAuthorized"));
    assert!(
        told(&[good.clone(), suback(&[TAKEN[0], SubscribeReasonCode::NotAuthorized])])
            .contains("subscription")
    );
    assert_eq!(told(&[suback(&TAKEN)]), "the broker sent SUBACK out of its turn");
    assert_eq!(told(&[good.clone(), good]), "the broker sent CONNACK out of its turn");
    // Written by hand, with and without properties: the codec writes no goodbye of a broker.
    for goodbye in [&[0xe0, 0x02, 0x8b, 0x00][..], &[0xe0, 0x01, 0x8b]] {
        let ended = ready(now).handle_input(goodbye, now).unwrap_err().to_string();
        assert!(ended.contains("ServerShuttingDown") || ended.contains("cannot be read"), "{ended}");
    }
    let mut session = ready(now);
    let longer = [0x30, 0x80, 0x80, 0x80, 0x02];
    let refused = session.handle_input(&longer, now).unwrap_err();
    assert!(matches!(refused, SessionError::Unreadable(_)), "4 MiB are announced: {refused}");
}

#[test]
fn a_silent_broker_is_given_up() {
    let now = start();
    let mut session = Session::open(settings(), now);
    assert_eq!(session.next_timeout(), now + PATIENCE);
    assert!(session.handle_timeout(now + PATIENCE - Duration::from_millis(1)).is_ok());
    assert!(matches!(session.handle_timeout(now + PATIENCE), Err(SessionError::Silent(_))));
    let mut session = ready(now);
    let ping = now + Duration::from_secs(60);
    assert_eq!(session.next_timeout(), ping);
    session.handle_timeout(ping).unwrap();
    assert_eq!(said(&mut session), [Packet::PingReq(PingReq)]);
    assert_eq!(session.next_timeout(), ping + PATIENCE);
    let mut answered = ready(now);
    answered.handle_timeout(ping).unwrap();
    // Written by hand: the codec writes no answer of a broker.
    answered.handle_input(&[0xd0, 0x00], ping).unwrap();
    assert_eq!(answered.next_timeout(), ping + Duration::from_secs(60));
    assert!(session.handle_timeout(ping + PATIENCE).is_err());
}

#[test]
fn no_bytes_of_a_broker_make_a_session_panic() {
    let now = start();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    let whole = wire(&[
        connack(ConnectReturnCode::Success, Some(9)),
        suback(&TAKEN),
        incoming(7, "x"),
        Packet::PubAck(PubAck { pkid: 1, reason: PubAckReason::Success, properties: None }),
    ]);
    // What the codec would panic at is caught; its message is of no interest here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut failed = 0;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + roll(3) {
            let at = roll(bytes.len());
            match roll(3) {
                0 => bytes[at] ^= 1 << roll(8),
                1 => bytes[at] = [0, 0xff, 0x7f, 0x80][roll(4)],
                _ => bytes.truncate(at.max(1)),
            }
        }
        failed += usize::from(Session::open(settings(), now).handle_input(&bytes, now).is_err());
    }
    std::panic::set_hook(hook);
    assert!(failed > 5_000, "{failed}");
}
