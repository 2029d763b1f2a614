use super::*;
use crate::rtmp::amf::{self, Amf0Value, Field};
use crate::rtmp::events::*;
use crate::rtmp::{ChunkError, ChunkWriter, SessionError};
use fieldgate_media::{Codec, Ticks, TrackKind};

/// A peer that writes what it likes and reads our answers.
struct Peer {
    session: ServerSession,
    wire: BytesMut,
    writer: ChunkWriter,
    reader: ChunkReader,
}

impl Peer {
    fn new() -> Peer {
        Peer {
            session: ServerSession::new(ServerSettings::default()),
            wire: BytesMut::new(),
            writer: ChunkWriter::new(),
            reader: ChunkReader::new(Limits::default()),
        }
    }

    fn connected() -> Peer {
        let mut peer = Peer::new();
        peer.connect("live");
        peer.session.accept_connect();
        peer.answers();
        peer
    }

    fn connect(&mut self, app: &str) -> Vec<Event> {
        let object = [("app", Field::Text(app)), ("tcUrl", Field::Text("rtmp://h/live"))];
        self.command(0, &[Field::Text("connect"), Field::Number(1.0), Field::Object(&object)])
    }

    fn create_stream(&mut self) -> f64 {
        self.command(0, &[Field::Text("createStream"), Field::Number(2.0), Field::Null]);
        match self.answers().pop().unwrap().values.pop().unwrap() {
            Amf0Value::Number(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn request(&mut self, name: &str, stream_id: u32, arg: &str) -> Vec<Event> {
        self.command(stream_id, &[Field::Text(name), Field::Number(0.0), Field::Null, Field::Text(arg)])
    }

    fn command(&mut self, stream_id: u32, fields: &[Field<'_>]) -> Vec<Event> {
        let mut body = BytesMut::new();
        fields.iter().for_each(|&field| amf::put(&mut body, field));
        self.send(kind::COMMAND, stream_id, &body).unwrap()
    }

    fn send(&mut self, kind: u8, stream_id: u32, body: &[u8]) -> Result<Vec<Event>, SessionError> {
        self.writer.write(&mut self.wire, 3, 0, kind, stream_id, body);
        let wire = self.wire.split();
        read(&mut self.session, &wire)
    }

    fn answers(&mut self) -> Vec<Answer> {
        let mut out = BytesMut::new();
        self.session.poll_output(&mut out);
        let (mut input, mut answers) = (&out[..], Vec::new());
        while let Some(message) = self.reader.read(&mut input).unwrap() {
            let values = match message.kind {
                kind::COMMAND | kind::DATA => amf::decode(message.body(), kind::DATA).unwrap(),
                _ => Vec::new(),
            };
            let (kind, stream_id, body) = (message.kind, message.stream_id, message.body().to_vec());
            answers.push(Answer { kind, stream_id, body, values });
        }
        answers
    }

    fn codes(&mut self) -> Vec<String> {
        self.answers().iter().filter_map(Answer::code).collect()
    }
}

struct Answer {
    kind: u8,
    stream_id: u32,
    body: Vec<u8>,
    values: Vec<Amf0Value>,
}

impl Answer {
    fn property(&self, name: &str) -> Option<Amf0Value> {
        self.values.iter().find_map(|value| match value {
            Amf0Value::Object(object) => object.get(name).cloned(),
            _ => None,
        })
    }

    fn code(&self) -> Option<String> {
        self.property("code")?.get_string()
    }
}

fn read(session: &mut ServerSession, mut input: &[u8]) -> Result<Vec<Event>, SessionError> {
    let mut events = Vec::new();
    while let Some(event) = session.read(&mut input)? {
        events.push(event);
    }
    assert!(input.is_empty());
    Ok(events)
}

#[test]
fn connect_is_asked_and_answered_with_our_codecs() {
    let mut peer = Peer::new();
    let events = peer.connect("live?key=s3cret");
    let [Event::ConnectRequested(request)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((request.app.as_str(), request.query.as_str()), ("live", "key=s3cret"));
    assert!(peer.answers().is_empty());
    peer.session.accept_connect();
    let answers = peer.answers();
    let kinds: Vec<u8> = answers.iter().map(|answer| answer.kind).collect();
    // The chunk size change in between is kept by the reader.
    assert_eq!(kinds, [kind::WINDOW_ACK_SIZE, kind::SET_PEER_BANDWIDTH, kind::COMMAND]);
    assert_eq!((peer.reader.chunk_len(), peer.session.chunk_len()), (1 << 20, 1 << 20));
    let result = &answers[2];
    assert_eq!(result.values[0], Amf0Value::Utf8String("_result".into()));
    assert_eq!(result.values[1], Amf0Value::Number(1.0));
    assert_eq!(result.code().as_deref(), Some("NetConnection.Connect.Success"));
    // R13: the offer of Enhanced RTMP.
    let Some(Amf0Value::StrictArray(list)) = result.property("fourCcList") else { panic!("no fourCcList") };
    assert!(list.contains(&Amf0Value::Utf8String("hvc1".into())) && list.len() == 11);
    let Some(Amf0Value::Object(map)) = result.property("videoFourCcInfoMap") else { panic!("no map") };
    assert_eq!(map["av01"], Amf0Value::Number(4.0));
    assert_eq!(result.property("capsEx"), Some(Amf0Value::Number(12.0)));
}

#[test]
fn r13_fourccs_of_the_peer_are_read() {
    let mut peer = Peer::new();
    let list = [Field::Text("hvc1"), Field::Text("av01"), Field::Number(3.0)];
    let map = [("vp09", Field::Number(1.0))];
    let object = [
        ("app", Field::Text("live")),
        ("objectEncoding", Field::Number(3.0)),
        ("fourCcList", Field::Array(&list)),
        ("videoFourCcInfoMap", Field::Object(&map)),
    ];
    let events = peer.command(0, &[Field::Text("connect"), Field::Number(1.0), Field::Object(&object)]);
    let [Event::ConnectRequested(request)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (&request.fourcc[..], request.object_encoding),
        (&["av01", "hvc1", "vp09"].map(String::from)[..], 3)
    );
}

#[test]
fn a_rejected_connect_says_so() {
    let mut peer = Peer::new();
    peer.connect("nope");
    peer.session.reject_connect("no such application");
    let answers = peer.answers();
    assert_eq!(answers[0].values[0], Amf0Value::Utf8String("_error".into()));
    assert_eq!(answers[0].code().as_deref(), Some("NetConnection.Connect.Rejected"));
    peer.command(0, &[Field::Text("createStream"), Field::Number(2.0), Field::Null]);
    assert_eq!(peer.answers()[0].values[0], Amf0Value::Utf8String("_error".into()));
}

#[test]
fn a_connect_that_a_controller_refuses_is_answered_as_recorded() {
    let mut peer = Peer::new();
    peer.connect("live");
    peer.session.refuse_connect("bad key");
    let mut out = BytesMut::new();
    peer.session.poll_output(&mut out);
    let (mut input, mut messages) = (&out[..], Vec::new());
    while let Some(message) = peer.reader.read(&mut input).unwrap() {
        messages.push((message.kind, message.body().to_vec()));
    }
    assert_eq!(messages[0], (kind::USER_CONTROL, vec![0; 6]));
    let values: Vec<_> =
        messages[1..].iter().map(|(_, body)| amf::decode(body, kind::COMMAND).unwrap()).collect();
    let info = |code: &str, text: &str| {
        let property = |name: &str, value: &str| (name.to_owned(), Amf0Value::Utf8String(value.to_owned()));
        let pairs = [property("level", "error"), property("code", code), property("description", text)];
        Amf0Value::Object(pairs.into_iter().collect())
    };
    let command = |name: &str, transaction, info| {
        vec![Amf0Value::Utf8String(name.into()), Amf0Value::Number(transaction), Amf0Value::Null, info]
    };
    let rejected = "Connection failed: Application rejected connection.";
    assert_eq!(
        values,
        [
            command("onStatus", 0.0, info("NetStream.Play.Failed", "bad key")),
            command("_error", 1.0, info("NetConnection.Connect.Rejected", rejected)),
        ]
    );
    peer.command(0, &[Field::Text("createStream"), Field::Number(2.0), Field::Null]);
    assert_eq!(peer.answers()[0].values[0], Amf0Value::Utf8String("_error".into()));
}

#[test]
fn received_bytes_are_counted_by_kind() {
    let mut peer = Peer::connected();
    let id = peer.create_stream() as u32;
    peer.request("publish", id, "yard");
    peer.send(kind::VIDEO, id, &[0x57; 100]).unwrap();
    assert_eq!(peer.session.received().video_bytes, 0, "not accepted yet");
    peer.session.accept_publish(id);
    let before = peer.session.received().bytes;
    peer.send(kind::VIDEO, id, &[0x57; 100]).unwrap();
    peer.send(kind::AUDIO, id, &[0xAF; 10]).unwrap();
    let Received { bytes, audio_bytes, video_bytes } = peer.session.received();
    assert_eq!((audio_bytes, video_bytes), (10, 100));
    assert!(bytes - before >= 110 + 2 * 8);
}

#[test]
fn a_second_connect_is_refused_and_the_first_holds() {
    let mut peer = Peer::connected();
    assert!(peer.connect("other").is_empty());
    assert_eq!(peer.codes(), ["NetConnection.Connect.Rejected"]);
    assert_eq!(peer.create_stream(), 1.0);
}

#[test]
fn media_with_a_wrong_stream_id_goes_to_the_only_stream() {
    let mut peer = Peer::connected();
    let id = peer.create_stream() as u32;
    peer.request("publish", id, "yard");
    peer.session.accept_publish(id);
    assert_eq!(peer.send(kind::AUDIO, 0, &[0x72, 1]).unwrap().len(), 2);
    peer.create_stream();
    assert!(peer.send(kind::AUDIO, 0, &[0x72, 1]).unwrap().is_empty());
}

#[test]
fn publish_and_play_before_connect_are_refused() {
    let mut peer = Peer::new();
    assert!(peer.request("publish", 1, "yard").is_empty());
    assert!(peer.request("play", 1, "yard").is_empty());
    assert_eq!(peer.codes(), ["NetStream.Publish.Denied", "NetStream.Play.Failed"]);
}

#[test]
fn a_publish_is_asked_accepted_and_ended() {
    let mut peer = Peer::connected();
    let id = peer.create_stream() as u32;
    assert_eq!(id, 1);
    let events = peer.request("publish", id, "yard?key=s%33cret&x");
    let [Event::PublishRequested(request)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((request.name.as_str(), request.param("key").as_deref()), ("yard", Some("s3cret")));
    assert_eq!(request.kind, PublishKind::Live);
    // Media before the answer is dropped.
    assert!(peer.send(kind::AUDIO, id, &[0x72, 1]).unwrap().is_empty());
    peer.session.accept_publish(id);
    let answers = peer.answers();
    assert_eq!((answers[0].kind, &answers[0].body[..]), (kind::USER_CONTROL, &[0, 0, 0, 0, 0, 1][..]));
    assert_eq!(answers[1].code().as_deref(), Some("NetStream.Publish.Start"));
    assert_eq!(answers[1].stream_id, id);
    let events = peer.send(kind::AUDIO, id, &[0x72, 1]).unwrap();
    assert!(matches!(&events[..], [Event::Tracks { same: false, .. }, Event::Unit { stream_id: 1, .. }]));
    let fields = [Field::Text("deleteStream"), Field::Number(0.0), Field::Null, Field::Number(1.0)];
    assert!(matches!(peer.command(0, &fields)[..], [Event::Unpublished { stream_id: 1 }]));
    assert_eq!(peer.codes(), ["NetStream.Unpublish.Success"]);
    assert!(peer.send(kind::AUDIO, id, &[0x72, 1]).unwrap().is_empty());
    assert_eq!(peer.create_stream(), 1.0, "the id is free again");
}

#[test]
fn refusals_carry_the_codes_that_encoders_know() {
    for (why, code) in [
        (PublishRefusal::BadName, "NetStream.Publish.BadName"),
        (PublishRefusal::Denied, "NetStream.Publish.Denied"),
    ] {
        let mut peer = Peer::connected();
        let id = peer.create_stream() as u32;
        peer.request("publish", id, "yard");
        peer.session.reject_publish(id, why, "no");
        assert_eq!(peer.codes(), [code]);
        assert_eq!(peer.request("publish", id, "gate").len(), 1, "it may try again");
    }
    for (why, code) in [
        (PlayRefusal::StreamNotFound, "NetStream.Play.StreamNotFound"),
        (PlayRefusal::Failed, "NetStream.Play.Failed"),
    ] {
        let mut peer = Peer::connected();
        let id = peer.create_stream() as u32;
        peer.request("play", id, "yard");
        peer.session.reject_play(id, why, "no");
        assert_eq!(peer.codes(), [code]);
    }
}

#[test]
fn play_gets_begin_reset_start_and_sample_access() {
    let mut peer = Peer::connected();
    let id = peer.create_stream() as u32;
    let events = peer.request("play", id, "yard?key=v1ew");
    let [Event::PlayRequested(request)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (request.name.as_str(), request.start, request.param("key").as_deref()),
        ("yard", -2.0, Some("v1ew"))
    );
    peer.session.accept_play(id);
    let answers = peer.answers();
    assert_eq!(answers[0].body, [0, 0, 0, 0, 0, 1]);
    assert_eq!(answers[1].code().as_deref(), Some("NetStream.Play.Reset"));
    assert_eq!(answers[2].code().as_deref(), Some("NetStream.Play.Start"));
    assert_eq!(answers[3].values[0], Amf0Value::Utf8String("|RtmpSampleAccess".into()));
    assert_eq!(answers[4].code().as_deref(), Some("NetStream.Data.Start"));
    peer.session.notify_unpublish(id);
    peer.session.notify_publish(id);
    let answers = peer.answers();
    assert_eq!(answers[0].code().as_deref(), Some("NetStream.Play.UnpublishNotify"));
    assert_eq!(answers[1].body, [0, 1, 0, 0, 0, 1]);
    assert_eq!(answers[3].code().as_deref(), Some("NetStream.Play.PublishNotify"));
    let pause =
        [Field::Text("pause"), Field::Number(0.0), Field::Null, Field::Bool(true), Field::Number(0.0)];
    assert!(matches!(peer.command(id, &pause)[..], [Event::PauseRequested { pause: true, .. }]));
    let receive = [Field::Text("receiveVideo"), Field::Number(0.0), Field::Null, Field::Bool(false)];
    assert!(matches!(
        peer.command(id, &receive)[..],
        [Event::ReceiveRequested { kind: TrackKind::Video, wanted: false, .. }]
    ));
    let close = [Field::Text("closeStream"), Field::Number(0.0), Field::Null];
    assert!(matches!(peer.command(id, &close)[..], [Event::PlayStopped { stream_id: 1 }]));
}

#[test]
fn a_stream_in_use_takes_no_second_role() {
    let mut peer = Peer::connected();
    let id = peer.create_stream() as u32;
    peer.request("publish", id, "yard");
    assert!(peer.request("play", id, "yard").is_empty());
    peer.session.accept_publish(id);
    assert!(peer.request("play", id, "yard").is_empty());
    assert!(peer.request("publish", id, "gate").is_empty());
    assert!(peer.request("publish", 9, "gate").is_empty());
    let play = "NetStream.Play.Failed";
    let (start, name, denied) =
        ("NetStream.Publish.Start", "NetStream.Publish.BadName", "NetStream.Publish.Denied");
    assert_eq!(peer.codes(), [play, start, play, name, denied]);
}

#[test]
fn r06_eight_message_streams_and_not_one_more() {
    let mut peer = Peer::connected();
    for expected in 1..=8 {
        assert_eq!(peer.create_stream(), f64::from(expected));
    }
    let mut body = BytesMut::new();
    [Field::Text("createStream"), Field::Number(2.0), Field::Null]
        .into_iter()
        .for_each(|f| amf::put(&mut body, f));
    let error = peer.send(kind::COMMAND, 0, &body).unwrap_err();
    assert!(matches!(error, SessionError::TooMany { max: 8, .. }));
}

#[test]
fn r02_commands_with_fewer_than_three_values_end_the_session() {
    let mut peer = Peer::new();
    let error =
        peer.send(kind::COMMAND, 0, &[2, 0, 7, b'c', b'o', b'n', b'n', b'e', b'c', b't']).unwrap_err();
    assert!(matches!(error, SessionError::Amf(amf::AmfError::TooFewValues { count: 1, need: 3 })));
}

#[test]
fn r01_deep_nesting_in_connect_ends_the_session_not_the_process() {
    let mut peer = Peer::new();
    let mut body = vec![2, 0, 7, b'c', b'o', b'n', b'n', b'e', b'c', b't', 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..3000 {
        body.extend([3, 0, 1, b'a']);
    }
    let error = peer.send(kind::COMMAND, 0, &body).unwrap_err();
    assert!(matches!(error, SessionError::Amf(amf::AmfError::TooDeep)));
}

#[test]
fn r07_an_unknown_marker_in_metadata_does_not_end_the_session() {
    let mut peer = Peer::connected();
    let id = peer.create_stream() as u32;
    peer.request("publish", id, "yard");
    peer.session.accept_publish(id);
    let mut body = vec![2, 0, 10];
    body.extend(b"onMetaData");
    body.extend([3, 0, 1, b'x', 14]);
    assert!(peer.send(kind::DATA, id, &body).unwrap().is_empty());
    assert_eq!(peer.session.unparsable(id), 1);
    assert_eq!(peer.send(kind::AUDIO, id, &[0x72, 1]).unwrap().len(), 2);
}

#[test]
fn r08_unknown_user_control_events_are_swallowed() {
    let mut peer = Peer::connected();
    for body in [&[0, 31, 1, 2, 3, 4][..], &[0xFF, 0xFF], &[0], &[], &[0, 6], &[0, 3, 0, 0, 0, 1, 0, 0, 1, 0]]
    {
        assert!(peer.send(kind::USER_CONTROL, 0, body).unwrap().is_empty());
    }
    for kind in [0, 7, 10, 16, 19, 23, 255] {
        assert!(peer.send(kind, 0, b"??").unwrap().is_empty());
    }
    assert!(peer.answers().is_empty());
}

#[test]
fn pings_are_answered_and_ours_come_back() {
    let mut peer = Peer::connected();
    peer.send(kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]).unwrap();
    peer.session.ping(77);
    let answers = peer.answers();
    assert_eq!(answers[0].body, [0, 7, 1, 2, 3, 4]);
    assert_eq!(answers[1].body, [0, 6, 0, 0, 0, 77]);
    let events = peer.send(kind::USER_CONTROL, 0, &[0, 7, 0, 0, 0, 77]).unwrap();
    assert!(matches!(events[..], [Event::PingAnswered { timestamp: 77 }]));
    let events = peer.send(kind::ACKNOWLEDGEMENT, 0, &[0, 0, 1, 0]).unwrap();
    assert!(matches!(events[..], [Event::PeerAcknowledged { total: 256 }]));
}

#[test]
fn r10_acknowledgements_carry_the_running_total() {
    let mut peer = Peer::connected();
    peer.send(kind::WINDOW_ACK_SIZE, 0, &4096u32.to_be_bytes()).unwrap();
    let mut totals = Vec::new();
    for _ in 0..20 {
        peer.send(kind::DATA, 1, &[5; 1000]).unwrap();
        totals.extend(
            peer.answers()
                .iter()
                .filter(|answer| answer.kind == kind::ACKNOWLEDGEMENT)
                .map(|answer| u32::from_be_bytes(*answer.body.first_chunk().unwrap())),
        );
    }
    assert!(totals.len() >= 4 && totals.is_sorted(), "{totals:?}");
    assert!(*totals.last().unwrap() > 16_000, "a total, not a difference: {totals:?}");
}

#[test]
fn a_peer_that_asks_without_reading_is_closed() {
    let mut peer = Peer::connected();
    let mut result = Ok(Vec::new());
    for _ in 0..20_000 {
        result = peer.send(kind::USER_CONTROL, 0, &[0, 6, 1, 2, 3, 4]);
        if result.is_err() {
            break;
        }
    }
    assert!(matches!(result, Err(SessionError::OutputBacklog { .. })));
}

#[test]
fn side_commands_are_answered_when_an_answer_is_wanted() {
    let mut peer = Peer::connected();
    for (name, transaction, answers) in [
        ("releaseStream", 3.0, 1),
        ("FCPublish", 4.0, 2),
        ("FCUnpublish", 5.0, 2),
        ("FCSubscribe", 5.0, 2),
        ("getStreamLength", 6.0, 1),
        ("_checkbw", 7.0, 1),
        ("neverHeard", 8.0, 1),
        ("neverHeard", 0.0, 0),
        ("releaseStream", 0.0, 0),
        ("_result", 9.0, 0),
    ] {
        let fields = [Field::Text(name), Field::Number(transaction), Field::Null, Field::Text("yard")];
        assert!(peer.command(0, &fields).is_empty());
        let got = peer.answers();
        assert_eq!(got.len(), answers, "{name}");
        if let Some(first) = got.first() {
            let word = if name == "neverHeard" { "_error" } else { "_result" };
            assert_eq!(first.values[0], Amf0Value::Utf8String(word.into()));
            assert_eq!(first.values[1], Amf0Value::Number(transaction));
        }
    }
}

#[test]
fn closing_tells_every_stream_why() {
    let mut peer = Peer::connected();
    for (name, id) in [("publish", 1), ("play", 2), ("publish", 3)] {
        peer.create_stream();
        peer.request(name, id, "yard");
    }
    peer.session.accept_publish(1);
    peer.session.accept_play(2);
    peer.answers();
    peer.session.close("stalled");
    let codes = peer.codes();
    let expected = [
        "NetStream.Publish.Failed",
        "NetStream.Play.Stop",
        "NetStream.Publish.Denied",
        "NetConnection.Connect.Closed",
    ];
    assert_eq!(codes, expected);
}

#[test]
fn media_limits_hold_until_a_publish_is_accepted() {
    let mut peer = Peer::connected();
    let error = peer.send(kind::VIDEO, 1, &vec![0; 70_000]).unwrap_err();
    assert!(matches!(error, SessionError::Chunk(ChunkError::MessageTooLong { max: 65_536, .. })));
    let mut peer = Peer::connected();
    let id = peer.create_stream() as u32;
    peer.request("publish", id, "yard");
    peer.session.accept_publish(id);
    assert!(peer.send(kind::VIDEO, id, &vec![0x57; 70_000]).is_ok());
}

/// Plays a recording of a peer's bytes, saying yes to all; returns what happened.
fn replay(recording: &[u8], step: usize) -> (Vec<Event>, ServerSession) {
    let mut handshake = crate::rtmp::ServerHandshake::new();
    let mut session = ServerSession::new(ServerSettings::default());
    let (mut events, mut out, mut done) = (Vec::new(), BytesMut::new(), false);
    for mut piece in recording.chunks(step) {
        if !done {
            done = handshake.handle_input(&mut piece, &mut out).unwrap();
        }
        while let Some(event) = if done { session.read(&mut piece).unwrap() } else { None } {
            match &event {
                Event::ConnectRequested(_) => session.accept_connect(),
                Event::PublishRequested(request) => session.accept_publish(request.stream_id),
                Event::PlayRequested(request) => session.accept_play(request.stream_id),
                _ => {}
            }
            events.push(event);
        }
        session.poll_output(&mut out);
        out.clear();
    }
    (events, session)
}

macro_rules! recording {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/", $name))
    };
}

fn units(events: &[Event]) -> Vec<&fieldgate_media::Draft> {
    events
        .iter()
        .filter_map(|event| if let Event::Unit { draft, .. } = event { Some(draft) } else { None })
        .collect()
}

#[test]
fn ffmpeg_publishes_b_frames_and_sound() {
    let recording = recording!("ffmpeg-5.1-publish-h264-bframes-aac.bin");
    let (events, _) = replay(recording, 1400);
    let Event::ConnectRequested(connect) = &events[0] else { panic!() };
    assert_eq!(
        (connect.app.as_str(), connect.flash_ver.as_str()),
        ("live", "FMLE/3.0 (compatible; Lavf59.27.100)")
    );
    let Event::PublishRequested(publish) = &events[1] else { panic!() };
    assert_eq!((publish.name.as_str(), publish.param("key").as_deref()), ("yard", Some("s3cret")));
    let tracks = events
        .iter()
        .rev()
        .find_map(|event| if let Event::Tracks { tracks, .. } = event { Some(tracks) } else { None });
    let tracks = tracks.unwrap();
    let (video, audio) = (tracks.first(TrackKind::Video).unwrap(), tracks.first(TrackKind::Audio).unwrap());
    assert_eq!(
        (video.codec, video.video.width, video.video.height, video.video.frame_rate),
        (Codec::H264, 160, 120, 25.0)
    );
    assert_eq!((audio.codec, audio.audio.sample_rate, audio.audio.channels), (Codec::Aac, 44_100, 1));
    let units = units(&events);
    let pictures: Vec<_> = units.iter().filter(|unit| unit.head.track == video.id).collect();
    assert_eq!((units.len(), pictures.len()), (206, 75));
    assert_eq!(pictures.iter().filter(|unit| unit.head.keyframe).count(), 3);
    assert!(pictures.iter().any(|unit| unit.head.pts > unit.head.dts));
    assert!(pictures.windows(2).all(|pair| pair[1].head.dts - pair[0].head.dts == Ticks::from_millis(40)));
    // NAL lengths add up to the payload: nothing was lost or shifted.
    for unit in &pictures {
        let mut rest = unit.payload();
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            rest = &after[u32::from_be_bytes(*len) as usize..];
        }
        assert!(rest.is_empty());
    }
    assert!(matches!(events.last(), Some(Event::Unpublished { .. })));
    // The same whatever the pieces.
    for step in [1, 7, 129, usize::MAX] {
        let (other, _) = replay(recording, step);
        let same = self::units(&other)
            .iter()
            .zip(&units)
            .all(|(a, b)| a.head == b.head && a.payload() == b.payload());
        assert!(same && other.len() == events.len());
    }
}

#[test]
fn ffmpeg_publishes_mp3_and_g711() {
    for (recording, codec, rate, count) in [
        (&recording!("ffmpeg-5.1-publish-mp3.bin")[..], Codec::Mp3, 44_100, 78),
        (recording!("ffmpeg-5.1-publish-g711.bin"), Codec::PcmA, 8_000, 16),
    ] {
        let (events, _) = replay(recording, 1400);
        let tracks = events
            .iter()
            .find_map(|event| if let Event::Tracks { tracks, .. } = event { Some(tracks) } else { None });
        let track = tracks.unwrap().first(TrackKind::Audio).unwrap();
        assert_eq!((track.codec, track.audio.sample_rate, track.audio.channels), (codec, rate, 1));
        assert_eq!(units(&events).len(), count);
    }
}

#[test]
fn gstreamer_and_librtmp_publish() {
    let (events, session) = replay(recording!("gstreamer-1.22-rtmp2sink-publish.bin"), 1400);
    assert_eq!((units(&events).len(), session.skipped(1), session.unparsable(1)), (196, 0, 0));
    let (events, session) = replay(recording!("librtmp-2.4-publish.bin"), 1400);
    assert!(units(&events).len() > 20);
    assert_eq!((session.skipped(1), session.unparsable(1)), (0, 0));
}

#[test]
fn rtmpdump_and_gstreamer_play() {
    for (recording, query) in [
        (&recording!("rtmpdump-2.4-play.bin")[..], "key=v1ew"),
        (recording!("gstreamer-1.22-rtmp2src-play.bin"), ""),
    ] {
        let (events, _) = replay(recording, 1400);
        let request = events
            .iter()
            .find_map(|event| if let Event::PlayRequested(request) = event { Some(request) } else { None });
        let request = request.unwrap();
        assert_eq!((request.name.as_str(), request.query.as_str()), ("yard", query));
    }
}

#[test]
fn requests_do_not_show_keys() {
    let mut peer = Peer::new();
    let mut shown = format!("{:?}", peer.connect("live?key=s3cret"));
    peer.session.accept_connect();
    peer.answers();
    let (a, b) = (peer.create_stream() as u32, peer.create_stream() as u32);
    shown += &format!(
        "{:?}{:?}",
        peer.request("publish", a, "yard?key=s3cret"),
        peer.request("play", b, "yard?key=s3cret")
    );
    assert!(!shown.contains("s3cret") && shown.contains("yard") && shown.contains("live"), "{shown}");
}
