use super::*;
use crate::rtmp::events::Event;
use crate::rtmp::wire::{MetadataStyle, RtmpWire};
use crate::rtmp::{PlayRefusal, PublishRefusal, ServerSession, ServerSettings, amf};
use bytes::Bytes;
use fieldgate_media::{Codec, Ticks, Track, TrackId, Tracks};

fn settings(mode: ClientMode) -> ClientSettings {
    ClientSettings {
        app: "live".into(),
        tc_url: "rtmp://h/live".into(),
        stream_key: "yard?key=s3cret".into(),
        mode,
        flash_ver: "FMLE/3.0 (compatible; fieldgate)".into(),
        chunk_len: 65_536,
        limits: Limits::default(),
        enhanced: true,
    }
}

fn read(client: &mut ClientSession, mut input: &[u8]) -> Vec<ClientEvent> {
    let mut events = Vec::new();
    while let Some(event) = client.read(&mut input).unwrap() {
        events.push(event);
    }
    events
}

/// Carries bytes both ways until nobody says anything more.
fn converse(
    client: &mut ClientSession,
    server: &mut ServerSession,
    mut answer: impl FnMut(&mut ServerSession, &Event),
) -> (Vec<ClientEvent>, Vec<Event>) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut wire = BytesMut::new();
    while client.has_output() || server.has_output() {
        wire.clear();
        client.poll_output(&mut wire);
        let mut input = &wire[..];
        while let Some(event) = server.read(&mut input).unwrap() {
            answer(server, &event);
            theirs.push(event);
        }
        wire.clear();
        server.poll_output(&mut wire);
        ours.extend(read(client, &wire));
    }
    (ours, theirs)
}

fn yes(server: &mut ServerSession, event: &Event) {
    match event {
        Event::ConnectRequested(_) => server.accept_connect(),
        Event::PublishRequested(request) => server.accept_publish(request.stream_id),
        Event::PlayRequested(request) => server.accept_play(request.stream_id),
        _ => {}
    }
}

fn tracks() -> Tracks {
    Tracks::new(vec![Track::new(TrackId::AUDIO, Codec::Aac, Bytes::from_static(&[0x12, 0x10]))])
}

#[test]
fn our_push_is_accepted_by_our_server_and_ends_politely() {
    let mut client = ClientSession::new(settings(ClientMode::Publish));
    let mut server = ServerSession::new(ServerSettings::default());
    let (ours, theirs) = converse(&mut client, &mut server, yes);
    assert!(matches!(ours[..], [ClientEvent::Ready { stream_id: 1 }]), "{ours:?}");
    let Event::ConnectRequested(connect) = &theirs[0] else { panic!("{theirs:?}") };
    assert_eq!((connect.app.as_str(), connect.fourcc.len()), ("live", 11));
    let Event::PublishRequested(publish) = &theirs[1] else { panic!("{theirs:?}") };
    assert_eq!((publish.name.as_str(), publish.param("key").as_deref()), ("yard", Some("s3cret")));
    let mut wire = BytesMut::new();
    RtmpWire::tracks(&mut wire, &tracks(), Ticks::ZERO, client.chunk_len(), 1, MetadataStyle::SetDataFrame);
    let mut input = &wire[..];
    assert!(matches!(server.read(&mut input), Ok(Some(Event::Metadata { .. }))));
    assert!(matches!(server.read(&mut input), Ok(Some(Event::Tracks { same: false, .. }))));
    client.finish();
    let (_, theirs) = converse(&mut client, &mut server, yes);
    assert!(matches!(theirs[..], [Event::Unpublished { stream_id: 1 }]), "{theirs:?}");
}

#[test]
fn our_pull_is_served_by_our_server() {
    let mut client = ClientSession::new(settings(ClientMode::Play));
    let mut server = ServerSession::new(ServerSettings::default());
    let (ours, _) = converse(&mut client, &mut server, yes);
    assert!(matches!(ours[..], [ClientEvent::Ready { stream_id: 1 }]), "{ours:?}");
    let mut wire = BytesMut::new();
    RtmpWire::tracks(&mut wire, &tracks(), Ticks::ZERO, server.chunk_len(), 1, MetadataStyle::Plain);
    let events = read(&mut client, &wire);
    assert!(matches!(events[..], [ClientEvent::Metadata { .. }, ClientEvent::Tracks { same: false, .. }]));
    server.notify_unpublish(1);
    let (ours, _) = converse(&mut client, &mut server, yes);
    assert!(
        matches!(&ours[..], [ClientEvent::Ended { code }] if code == "NetStream.Play.UnpublishNotify"),
        "{ours:?}"
    );
}

#[test]
fn refusals_are_told_with_their_code_and_words() {
    type Answer = fn(&mut ServerSession, &Event);
    let cases: [(ClientMode, Answer, &str); 3] = [
        (
            ClientMode::Publish,
            |server, event| match event {
                Event::ConnectRequested(_) => server.reject_connect("words"),
                _ => panic!(),
            },
            "NetConnection.Connect.Rejected",
        ),
        (
            ClientMode::Publish,
            |server, event| match event {
                Event::PublishRequested(_) => server.reject_publish(1, PublishRefusal::BadName, "words"),
                event => yes(server, event),
            },
            "NetStream.Publish.BadName",
        ),
        (
            ClientMode::Play,
            |server, event| match event {
                Event::PlayRequested(_) => server.reject_play(1, PlayRefusal::StreamNotFound, "words"),
                event => yes(server, event),
            },
            "NetStream.Play.StreamNotFound",
        ),
    ];
    for (mode, answer, expected) in cases {
        let mut client = ClientSession::new(settings(mode));
        let (ours, _) = converse(&mut client, &mut ServerSession::new(ServerSettings::default()), answer);
        let [ClientEvent::Rejected { code, description }] = &ours[..] else { panic!("{ours:?}") };
        assert_eq!((code.as_str(), description.as_str()), (expected, "words"));
    }
}

/// A server by hand.
struct Script {
    client: ClientSession,
    link: Link,
}

impl Script {
    fn new(mode: ClientMode) -> Script {
        Script { client: ClientSession::new(settings(mode)), link: Link::new(1 << 20) }
    }

    fn say(&mut self, fields: &[Field<'_>]) -> Vec<ClientEvent> {
        self.link.command(0, fields);
        let mut wire = BytesMut::new();
        self.link.poll_output(&mut wire);
        read(&mut self.client, &wire)
    }

    fn sent(&mut self) -> Vec<String> {
        let mut wire = BytesMut::new();
        self.client.poll_output(&mut wire);
        let mut reader = ChunkReader::new(Limits::default());
        let (mut input, mut names) = (&wire[..], Vec::new());
        while let Some(message) = reader.read(&mut input).unwrap() {
            if message.kind == kind::COMMAND {
                names.extend(amf::decode(message.body(), kind::COMMAND).unwrap().remove(0).get_string());
            }
        }
        names
    }
}

#[test]
fn servers_that_skip_answers_or_say_too_much_are_tolerated() {
    let mut script = Script::new(ClientMode::Publish);
    assert_eq!(script.sent(), ["connect"]);
    let info = [("code", Field::Text("NetConnection.Connect.Success")), ("level", Field::Text("status"))];
    let bw_done = [Field::Text("onBWDone"), Field::Number(0.0), Field::Null];
    assert!(script.say(&bw_done).is_empty());
    assert!(script.say(&bw_done).is_empty());
    // A bare notice of two values.
    assert!(script.say(&[Field::Text("onBWDone"), Field::Number(0.0)]).is_empty());
    assert_eq!(script.sent(), ["_checkbw"]);
    let success = [Field::Text("_result"), Field::Number(1.0), Field::Null, Field::Object(&info)];
    assert!(script.say(&success).is_empty());
    assert_eq!(script.sent(), ["releaseStream", "FCPublish", "createStream"]);
    let no = [("level", Field::Text("error")), ("code", Field::Text("NetConnection.Call.Failed"))];
    assert!(
        script.say(&[Field::Text("_error"), Field::Number(2.0), Field::Null, Field::Object(&no)]).is_empty()
    );
    assert!(
        script
            .say(&[Field::Text("onFCPublish"), Field::Number(0.0), Field::Null, Field::Object(&info)])
            .is_empty()
    );
    assert!(script.say(&[Field::Text("_checkbw"), Field::Number(9.0), Field::Null]).is_empty());
    assert_eq!(script.sent(), ["_result"]);
    assert!(
        script.say(&[Field::Text("_result"), Field::Number(4.0), Field::Null, Field::Number(5.0)]).is_empty()
    );
    assert_eq!(script.sent(), ["publish"]);
    let start = [("level", Field::Text("status")), ("code", Field::Text("NetStream.Publish.Start"))];
    let events =
        script.say(&[Field::Text("onStatus"), Field::Number(0.0), Field::Null, Field::Object(&start)]);
    assert!(matches!(events[..], [ClientEvent::Ready { stream_id: 5 }]));
    let events = script.say(&[Field::Text("close"), Field::Number(0.0), Field::Null]);
    assert!(matches!(&events[..], [ClientEvent::Ended { code }] if code == "close"));
    assert!(script.say(&[Field::Text("close"), Field::Number(0.0), Field::Null]).is_empty());
}

#[test]
fn r01_a_broken_server_cannot_kill_us_either() {
    let mut client = ClientSession::new(settings(ClientMode::Play));
    let mut body = vec![2, 0, 7, b'_', b'r', b'e', b's', b'u', b'l', b't', 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..3000 {
        body.extend([3, 0, 1, b'a']);
    }
    let mut wire = BytesMut::new();
    crate::rtmp::ChunkWriter::new().write(&mut wire, 3, 0, kind::COMMAND, 0, &body);
    let error = client.read(&mut &wire[..]).unwrap_err();
    assert!(matches!(error, SessionError::Amf(AmfError::TooDeep)));
}

#[test]
fn nginx_rtmp_serves_a_pull() {
    let recording =
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/nginx-rtmp-1.2.2-play.bin"));
    let mut client = ClientSession::new(settings(ClientMode::Play));
    let mut events = Vec::new();
    for piece in recording.chunks(1000) {
        events.extend(read(&mut client, piece));
    }
    let units = events.iter().filter(|event| matches!(event, ClientEvent::Unit { .. })).count();
    let tracks = events.iter().filter(|event| matches!(event, ClientEvent::Tracks { .. })).count();
    assert!(matches!(events[0], ClientEvent::Ready { stream_id: 1 }), "{:?}", events[0]);
    assert!(units > 150 && tracks >= 2, "{units} {tracks}");
    assert!(matches!(&events[events.len() - 1], ClientEvent::Ended { code } if code == "StreamEOF"));
}

#[test]
fn settings_do_not_show_keys() {
    let shown = format!("{:?}", settings(ClientMode::Publish));
    assert!(!shown.contains("s3cret") && shown.contains("live"), "{shown}");
}
