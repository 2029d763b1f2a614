//! The numbered checks of the contract, with time handed in.

mod faults;

use super::*;
use crate::{Reply, Request};
use std::net::{IpAddr, Ipv4Addr};

const SECRET: &str = "s3cret";

/// A coordinator and all that it has asked for.
struct Bench {
    coordinator: Coordinator,
    now: Instant,
    sent: Vec<(SocketId, String)>,
    closed: Vec<SocketId>,
    calls: Vec<(ExchangeId, Call)>,
    verdicts: Vec<(ExchangeId, Verdict)>,
    kills: Vec<String>,
    list: String,
    notes: Vec<Note>,
    /// Cannot be sent anything.
    deaf: Option<SocketId>,
}

fn settings() -> Settings {
    Settings {
        control_secret: Some(Key::new(SECRET)),
        id_max: 128,
        verification: Some(CallAuth::Bearer(Key::new("app"))),
        events: Some(CallAuth::None),
        commands: CommandAuth::Basic { user: "u".into(), password: Key::new("p") },
        require_encoder: true,
        own_address: IpAddr::from([10, 0, 0, 1]),
        own_port: 1936,
        own_capacity: None,
        max_sockets: 4,
        max_streams: 100,
        seed: 1,
    }
}

fn upgrade(target: &str, token: Option<&str>) -> Request {
    let headers = token.map(|token| ("x-control-auth-token".to_owned(), token.to_owned()));
    Request {
        method: "GET".into(),
        target: target.into(),
        headers: headers.into_iter().collect(),
        body: vec![],
        peer: IpAddr::from([10, 0, 0, 2]),
    }
}

fn token(subject: &str) -> String {
    token::sign(&Key::new(SECRET), subject, None)
}

impl Bench {
    fn new() -> Bench {
        Bench::with(settings(), "")
    }

    #[allow(clippy::disallowed_methods, reason = "only differences matter")]
    fn with(settings: Settings, list: &str) -> Bench {
        let now = Instant::now();
        let mut bench = Bench {
            coordinator: Coordinator::new(settings, list, now),
            now,
            sent: vec![],
            closed: vec![],
            calls: vec![],
            verdicts: vec![],
            kills: vec![],
            list: list.to_owned(),
            notes: vec![],
            deaf: None,
        };
        bench.coordinator.set_clock(Duration::from_secs(1_000));
        bench.pump();
        bench
    }

    fn pump(&mut self) {
        while let Some(action) = self.coordinator.poll_action() {
            match action {
                Action::Send(socket, message) => self.sent.push((socket, message.text())),
                Action::Start(exchange, socket, message) => {
                    let is_sent = self.deaf != Some(socket);
                    if is_sent {
                        self.sent.push((socket, message.text()));
                    }
                    self.coordinator.handle_started(exchange, is_sent, self.now);
                }
                Action::Close(socket) => self.closed.push(socket),
                Action::Call(exchange, call) => self.calls.push((exchange, call)),
                Action::Verdict(exchange, verdict) => self.verdicts.push((exchange, verdict)),
                Action::Kill { channel, stream_id } => self.kills.push(format!("{channel} {stream_id}")),
                Action::Keep { version, list } => {
                    self.list = list;
                    self.coordinator.handle_kept(version, self.now);
                }
                Action::Note(note) => self.notes.push(note),
            }
        }
    }

    fn open(&mut self, kind: &str) -> SocketId {
        let request = upgrade(&format!("/ws/control/{kind}"), Some(&token(&format!("{kind}-control"))));
        let socket = self.coordinator.handle_upgrade(&request, self.now).unwrap();
        self.pump();
        socket
    }

    fn encoder(&mut self, capacity: i64) -> SocketId {
        let socket = self.open("hls");
        self.say(socket, &format!("REGISTER\nCapacity:{capacity}"));
        socket
    }

    fn say(&mut self, socket: SocketId, text: &str) {
        self.coordinator.handle_text(socket, text, self.now);
        self.pump();
    }

    fn gone(&mut self, socket: SocketId) {
        self.coordinator.handle_gone(socket, self.now);
        self.pump();
    }

    fn request(&mut self, socket: SocketId, channel: &str, key: &str) {
        self.say(
            socket,
            &format!(
                "PUBLISH-REQUEST\nRequest-ID:7\nStream-Channel:{channel}\nStream-Key:{key}\nUser-IP:9.9.9.9"
            ),
        );
    }

    /// The newest call, which is taken out.
    fn take_call(&mut self) -> (ExchangeId, Call) {
        self.calls.pop().expect("a call")
    }

    fn reply(&mut self, exchange: ExchangeId, status: u16, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let outcome = CallOutcome::Replied(Reply { status, headers, body: vec![] });
        self.coordinator.handle_reply(exchange, outcome, self.now);
        self.pump();
    }

    fn answer(&mut self, status: u16) {
        let (exchange, _) = self.take_call();
        self.reply(exchange, status, &[]);
    }

    /// A published channel's stream id.
    fn publish(&mut self, socket: SocketId, channel: &str) -> String {
        self.request(socket, channel, "k1");
        self.answer(200);
        let accepted = self.last_to(socket);
        assert!(accepted.starts_with("PUBLISH-ACCEPT"), "{accepted}");
        field(&accepted, "Stream-ID")
    }

    fn available(&mut self, encoder: SocketId, channel: &str, stream_id: &str, more: &str) {
        self.say(
            encoder,
            &format!(
                "STREAM-AVAILABLE\nStream-Channel:{channel}\nStream-ID:{stream_id}\nStream-Type:HLS-VOD\n\
                 Resolution:1x1-30\nIndex-file:hls/a.m3u8{more}"
            ),
        );
    }

    fn last_to(&self, socket: SocketId) -> String {
        let last = self.sent.iter().rev().find(|(to, _)| *to == socket);
        last.map(|(_, text)| text.clone()).expect("something was sent")
    }

    /// Whatever was sent there, which is taken out.
    fn take_sent(&mut self, socket: SocketId) -> Vec<String> {
        let (its, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| *to == socket);
        self.sent = rest;
        let its: Vec<(SocketId, String)> = its;
        its.into_iter().map(|(_, text)| text).collect()
    }

    /// Time passes, and all that is due happens.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.coordinator.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.coordinator.handle_timeout(self.now);
            self.pump();
        }
        self.now = end;
    }

    fn command(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = upgrade(target, None);
        request.method = method.into();
        request.headers.push(("authorization".into(), "Basic dTpw".into()));
        request.headers.extend(headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        let reply = self.coordinator.handle_request(&request);
        self.pump();
        reply
    }

    fn json(&mut self, target: &str) -> serde_json::Value {
        serde_json::from_slice(&self.command("GET", target, &[]).body).unwrap()
    }
}

fn field(text: &str, name: &str) -> String {
    Message::parse(text).unwrap().get(name).to_owned()
}

fn header(call: &Call, name: &str) -> Option<String> {
    call.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.reveal().to_owned())
}

fn event(call: &Call) -> String {
    assert_eq!(call.purpose, Purpose::Event);
    header(call, "x-event-type").unwrap()
}

#[test]
fn check_01_a_socket_opens_by_its_own_token_alone() {
    let mut bench = Bench::new();
    let mut status = |token: Option<&str>| {
        let opened = bench.coordinator.handle_upgrade(&upgrade("/ws/control/rtmp", token), bench.now);
        opened.map_err(|reply| (reply.status, String::from_utf8(reply.body).unwrap()))
    };
    let refused = Err((403, "Invalid authentication token.".to_owned()));
    let expired = token::sign(&Key::new(SECRET), "rtmp-control", Some((0, 939)));
    let wrong = token::sign(&Key::new("other"), "rtmp-control", None);
    for bad in [None, Some(token("hls-control")), Some(wrong), Some(expired), Some(String::new())] {
        assert_eq!(status(bad.as_deref()), refused, "{bad:?}");
    }
    assert!(status(Some(&token("rtmp-control"))).is_ok());
    bench.pump();
    let told = bench.notes.iter().filter(|note| matches!(note, Note::TokenRefused { .. }));
    assert_eq!(told.count(), 1, "strangers do not fill the log");
    for target in ["/ws/control/rtmp/", "/ws/control/rtmp?a=b", "/ws/control/other", "/"] {
        let reply =
            bench.coordinator.handle_upgrade(&upgrade(target, Some(&token("rtmp-control"))), bench.now);
        assert_eq!(reply.unwrap_err().status, 404, "{target}");
    }
}

#[test]
fn check_01_without_a_secret_only_this_machine_is_let_in() {
    let mut bench = Bench::with(Settings { control_secret: None, ..settings() }, "");
    let mut from = |peer: IpAddr| {
        let request = Request { peer, ..upgrade("/ws/control/hls", None) };
        bench.coordinator.handle_upgrade(&request, bench.now).map_err(|reply| reply.status)
    };
    assert!(from(Ipv4Addr::LOCALHOST.into()).is_ok());
    assert!(from("::ffff:127.0.0.1".parse().unwrap()).is_ok());
    assert_eq!(from([10, 0, 0, 2].into()), Err(403));
}

#[test]
fn sockets_are_as_many_as_may_be() {
    let mut bench = Bench::new();
    let sockets: Vec<SocketId> = (0..4).map(|_| bench.open("rtmp")).collect();
    let request = upgrade("/ws/control/rtmp", Some(&token("rtmp-control")));
    assert_eq!(bench.coordinator.handle_upgrade(&request, bench.now).unwrap_err().status, 503);
    bench.gone(sockets[0]);
    assert!(bench.coordinator.handle_upgrade(&request, bench.now).is_ok());
}

#[test]
fn check_02_a_publish_goes_by_application_encoder_and_back() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    bench.request(server, "c1", "k1");
    let (exchange, call) = bench.take_call();
    assert_eq!(call.purpose, Purpose::Verification);
    let headers: Vec<(&str, &str)> =
        call.headers.iter().map(|(name, value)| (*name, value.reveal())).collect();
    let expected = [
        ("x-streaming-channel", "c1"),
        ("x-streaming-key", "k1"),
        ("x-user-ip", "9.9.9.9"),
        ("authorization", "Bearer app"),
    ];
    assert_eq!(headers, expected);
    assert!(!format!("{call:?}").contains("k1"));
    bench.reply(exchange, 200, &[]);
    let [(to, start), (back, accept)] = &bench.sent[..] else { panic!("{:?}", bench.sent) };
    assert_eq!((*to, *back), (encoder, server), "the encoder first");
    let stream_id = field(accept, "Stream-ID");
    assert!(
        stream_id.len() == 32 && stream_id.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
    );
    assert_eq!(*accept, format!("PUBLISH-ACCEPT\nRequest-ID:7\nStream-Channel:c1\nStream-ID:{stream_id}"));
    assert_eq!(
        *start,
        format!(
            "ENCODE-START\nStream-Channel:c1\nStream-ID:{stream_id}\nStream-Source-Type:RTMP\n\
             Stream-Source-URI:rtmp://10.0.0.2:1935/c1/k1\nResolutions:ORIGINAL\nRecord:False\nPreviews:False"
        )
    );
    assert!(!bench.notes.iter().any(|note| format!("{note:?} {note}").contains("k1")), "{:?}", bench.notes);
}

#[test]
fn check_02_servers_say_where_they_are() {
    for (kind, headers, uri) in [
        (
            "rtmp",
            vec![("x-external-ip", "8.8.8.8"), ("x-custom-port", "1940"), ("x-ssl-use", "true")],
            "rtmps://8.8.8.8:1940/c1/k1",
        ),
        (
            "rtmp",
            vec![("x-external-ip", "host.example"), ("x-custom-port", "x"), ("x-ssl-use", "True")],
            "rtmp://10.0.0.2:1935/c1/k1",
        ),
        ("rtmp", vec![("x-external-ip", "2001:db8::1")], "rtmp://[2001:db8::1]:1935/c1/k1"),
        ("wss", vec![], "ws://10.0.0.2:80/c1/k1"),
        ("wss", vec![("x-ssl-use", "true"), ("x-custom-port", "443")], "wss://10.0.0.2:443/c1/k1"),
    ] {
        let mut bench = Bench::new();
        let mut request = upgrade(&format!("/ws/control/{kind}"), Some(&token(&format!("{kind}-control"))));
        request.headers.extend(headers.into_iter().map(|(n, v)| (n.to_owned(), v.to_owned())));
        let server = bench.coordinator.handle_upgrade(&request, bench.now).unwrap();
        let encoder = bench.encoder(1);
        bench.publish(server, "c1");
        assert_eq!(field(&bench.last_to(encoder), "Stream-Source-URI"), uri);
    }
}

#[test]
fn check_03_only_200_is_a_yes_and_nothing_waits_meanwhile() {
    let mut bench = Bench::new();
    let server = bench.open("rtmp");
    bench.encoder(-1);
    for status in [403, 302, 204, 201, 500] {
        bench.request(server, "c1", "k1");
        bench.answer(status);
        assert!(
            bench.last_to(server).starts_with("PUBLISH-DENY\nRequest-ID:7\nStream-Channel:c1"),
            "{status}"
        );
    }
    bench.request(server, "c1", "k1");
    let (hanging, _) = bench.take_call();
    let other = bench.publish(server, "c2");
    assert_eq!(other.len(), 32, "another is served while the first hangs");
    bench.sent.clear();
    bench.pass(9);
    assert!(!bench.sent.iter().any(|(_, text)| text.starts_with("PUBLISH")));
    bench.pass(1);
    assert!(bench.last_to(server).starts_with("PUBLISH-DENY\nRequest-ID:7\nStream-Channel:c1"));
    bench.sent.clear();
    bench.reply(hanging, 200, &[]);
    assert!(bench.sent.is_empty(), "too late");
    bench.publish(server, "c1");
}

#[test]
fn check_04_an_application_says_what_is_made() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    bench.request(server, "c1", "k1");
    let (exchange, _) = bench.take_call();
    let headers =
        [("x-resolutions", "1280x720-30~2000, ORIGINAL"), ("x-record", "TRUE"), ("x-previews", "256x144, 3")];
    bench.reply(exchange, 200, &headers);
    let start = bench.last_to(encoder);
    assert!(
        start.ends_with("\nResolutions:ORIGINAL,1280x720-30~2000\nRecord:True\nPreviews:256x144,3"),
        "{start}"
    );
}

#[test]
fn check_05_a_channel_has_one_publisher_in_the_whole_cluster() {
    let mut bench = Bench::new();
    let (one, two) = (bench.open("rtmp"), bench.open("rtmp"));
    bench.encoder(-1);
    // Both ask before either is verified.
    bench.request(one, "c1", "k1");
    bench.request(two, "c1", "k1");
    assert_eq!(bench.calls.len(), 1);
    assert!(bench.last_to(two).starts_with("PUBLISH-DENY"));
    bench.answer(200);
    assert!(bench.last_to(one).starts_with("PUBLISH-ACCEPT"));
    bench.sent.clear();
    for server in [one, two] {
        bench.request(server, "c1", "k1");
        assert!(bench.last_to(server).starts_with("PUBLISH-DENY"));
    }
    assert!(!bench.sent.iter().any(|(_, text)| text.starts_with("STREAM-KILL")), "it goes on");
    assert!(bench.calls.is_empty());
    // Its socket is gone: it is free at once.
    bench.gone(one);
    bench.publish(two, "c1");
}

#[test]
fn check_06_bad_names_are_denied_without_a_question() {
    let mut bench = Bench::new();
    let server = bench.open("rtmp");
    bench.encoder(-1);
    let long = "a".repeat(129);
    for (channel, key) in [("a b", "k"), ("c1", ""), (&long, "k"), ("c1", &long), ("", "k"), ("c/1", "k")] {
        bench.request(server, channel, key);
        assert!(bench.last_to(server).starts_with("PUBLISH-DENY\nRequest-ID:7"), "{channel} {key}");
    }
    assert!(bench.calls.is_empty());
    bench.publish(server, &"a".repeat(128));
}

#[test]
fn check_07_without_an_encoder_it_is_a_setting() {
    let mut bench = Bench::new();
    let server = bench.open("rtmp");
    bench.request(server, "c1", "k1");
    bench.answer(200);
    assert!(bench.last_to(server).starts_with("PUBLISH-DENY"));
    // One that has not said what it can, or can nothing.
    let encoder = bench.open("hls");
    bench.request(server, "c1", "k1");
    bench.answer(200);
    assert!(bench.last_to(server).starts_with("PUBLISH-DENY"));
    bench.say(encoder, "REGISTER\nCapacity:0");
    bench.request(server, "c1", "k1");
    bench.answer(200);
    assert!(bench.last_to(server).ends_with("Error-Code:NO_ENCODER"));
    let mut bench = Bench::with(Settings { require_encoder: false, ..settings() }, "");
    let server = bench.open("rtmp");
    bench.publish(server, "c1");
    assert_eq!(bench.json("/commands/report")["activeStreams"][0]["encoder"], 0, "none");
}

#[test]
fn an_encoder_that_cannot_be_told_takes_nothing() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    bench.deaf = Some(encoder);
    bench.request(server, "c1", "k1");
    bench.answer(200);
    assert!(bench.last_to(server).starts_with("PUBLISH-DENY"));
    bench.deaf = None;
    bench.publish(server, "c1");
    assert_eq!(bench.json("/commands/capacity")["load"], 1);
}

#[test]
fn check_08_events_say_where_a_part_begins() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let stream_id = bench.publish(server, "c1");
    bench.available(encoder, "c1", &stream_id, "\nStart-Time:30");
    let (exchange, call) = bench.take_call();
    let expected = [
        ("x-streaming-channel", "c1"),
        ("x-streaming-id", &stream_id),
        ("x-event-type", "stream-available"),
        ("x-stream-type", "HLS-VOD"),
        ("x-resolution", "1x1-30"),
        ("x-index-file", "hls/a.m3u8"),
        ("x-start-time", "30"),
    ];
    let headers: Vec<(&str, &str)> =
        call.headers.iter().map(|(name, value)| (*name, value.reveal())).collect();
    assert_eq!(headers, expected);
    bench.reply(exchange, 200, &[]);
    bench.available(encoder, "c1", &stream_id, "");
    assert_eq!(header(&bench.take_call().1, "x-start-time"), None);
}

#[test]
fn check_09_an_event_is_tried_again_every_ten_seconds() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let stream_id = bench.publish(server, "c1");
    bench.available(encoder, "c1", &stream_id, "");
    let (first, call) = bench.take_call();
    bench.reply(first, 500, &[]);
    for _ in 0..2 {
        bench.say(encoder, "HEARTBEAT");
        bench.say(server, "HEARTBEAT");
        bench.pass(9);
        assert!(bench.calls.is_empty());
        bench.pass(1);
        let (again, same) = bench.take_call();
        assert_eq!(same, call);
        bench.reply(again, 404, &[]);
    }
    // One that is not answered at all counts as failed after ten seconds.
    bench.pass(10);
    assert_eq!(bench.take_call().1, call);
    bench.say(encoder, "HEARTBEAT");
    bench.say(server, "HEARTBEAT");
    bench.pass(19);
    assert!(bench.calls.is_empty());
    bench.pass(1);
    let (last, same) = bench.take_call();
    assert_eq!(same, call);
    bench.reply(last, 200, &[]);
    bench.pass(30);
    assert!(bench.calls.is_empty());
    let told = bench.notes.iter().filter(|note| matches!(note, Note::NotTold { .. }));
    assert_eq!(told.count(), 1, "a fault that lasts is one line");
}

#[test]
fn check_10_an_end_takes_the_place_of_what_waits() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let stream_id = bench.publish(server, "c1");
    bench.available(encoder, "c1", &stream_id, "");
    bench.answer(500);
    bench.available(encoder, "c1", &stream_id, "\nStart-Time:9");
    bench.say(encoder, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{stream_id}"));
    let (exchange, call) = bench.take_call();
    assert_eq!((event(&call).as_str(), bench.calls.len()), ("stream-closed", 0));
    assert_eq!(header(&call, "x-index-file"), None);
    bench.reply(exchange, 200, &[]);
    bench.pass(30);
    assert!(bench.calls.is_empty());
}

#[test]
fn check_10_events_of_one_stream_come_in_order() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let stream_id = bench.publish(server, "c1");
    bench.available(encoder, "c1", &stream_id, "");
    bench.available(encoder, "c1", &stream_id, "\nStart-Time:9");
    assert_eq!(bench.calls.len(), 1, "one at a time");
    // The end waits for the call that is being made, which may still arrive.
    bench.say(encoder, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{stream_id}"));
    assert_eq!(bench.calls.len(), 1);
    bench.answer(200);
    assert_eq!(event(&bench.take_call().1), "stream-closed");
}

#[test]
fn check_11_an_end_is_told_once_and_only_of_what_was_told() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let first = bench.publish(server, "c1");
    bench.say(encoder, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{first}"));
    assert!(bench.calls.is_empty());
    bench.say(server, &format!("PUBLISH-END\nStream-Channel:c1\nStream-ID:{first}"));
    let second = bench.publish(server, "c1");
    bench.available(encoder, "c1", &second, "");
    bench.answer(200);
    for _ in 0..2 {
        bench.say(encoder, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{second}"));
    }
    let (exchange, call) = bench.take_call();
    assert_eq!((event(&call).as_str(), bench.calls.len()), ("stream-closed", 0));
    bench.reply(exchange, 200, &[]);
    bench.pass(30);
    assert!(bench.calls.is_empty());
}

#[test]
fn check_12_streams_are_listed_from_their_first_event_to_their_end() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let stream_id = bench.publish(server, "c1");
    assert_eq!(bench.list, "");
    bench.available(encoder, "c1", &stream_id, "");
    assert_eq!(bench.list, format!("c1:{stream_id}\n"));
    // It is killed there; the next one begins with the list alone.
    let mut again = Bench::with(settings(), &bench.list);
    let (exchange, call) = again.take_call();
    assert_eq!(event(&call), "stream-closed");
    assert_eq!(header(&call, "x-streaming-id").as_ref(), Some(&stream_id));
    again.reply(exchange, 500, &[]);
    assert_eq!(again.list, bench.list, "it has to be told first");
    again.pass(10);
    again.answer(200);
    assert_eq!(again.list, "");
    assert!(Bench::with(settings(), &again.list).calls.is_empty());
}

#[test]
fn check_12_nothing_is_told_before_it_is_listed() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let stream_id = bench.publish(server, "c1");
    let text = format!(
        "STREAM-AVAILABLE\nStream-Channel:c1\nStream-ID:{stream_id}\nStream-Type:HLS-LIVE\nIndex-file:a"
    );
    bench.coordinator.handle_text(encoder, &text, bench.now);
    let Some(Action::Keep { version, .. }) = bench.coordinator.poll_action() else { panic!() };
    assert_eq!(bench.coordinator.poll_action(), None, "the disk is slow");
    bench.coordinator.handle_kept(version, bench.now);
    bench.pump();
    assert_eq!(event(&bench.take_call().1), "stream-available");
}

#[test]
fn check_13_an_encoder_is_free_again_after_each_stream() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(2));
    for _ in 0..10 {
        let stream_id = bench.publish(server, "c1");
        bench.say(server, &format!("PUBLISH-END\nStream-Channel:c1\nStream-ID:{stream_id}"));
        assert!(bench.last_to(encoder).starts_with("ENCODE-STOP"));
        bench.say(encoder, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{stream_id}"));
    }
    let capacity = serde_json::json!({"load": 0, "capacity": 2, "encoderCount": 1});
    assert_eq!(bench.json("/commands/capacity"), capacity);
}

#[test]
fn check_13_the_least_loaded_encoder_that_is_free_is_chosen() {
    let mut bench = Bench::new();
    let (server, small, large) = (bench.open("rtmp"), bench.encoder(1), bench.encoder(-1));
    for channel in ["a", "b", "c"] {
        bench.publish(server, channel);
    }
    let starts = |bench: &Bench, to| {
        bench.sent.iter().filter(|(socket, text)| *socket == to && text.starts_with("ENCODE-START")).count()
    };
    assert_eq!((starts(&bench, small), starts(&bench, large)), (1, 2));
    // Registering anew changes what it may take, not what it has.
    bench.say(small, "REGISTER\nCapacity:2");
    let report = bench.json("/commands/report");
    let encoder = serde_json::json!({"id": small.0, "capacity": 2, "load": 1});
    assert_eq!(report["encoders"][0], encoder);
    bench.say(small, "REGISTER\nCapacity:many");
    assert!(bench.last_to(small).starts_with("ERROR\nError-Code:INVALID_CAPACITY"));
    assert_eq!(bench.json("/commands/report")["encoders"][0], encoder);
    assert_eq!(
        bench.json("/commands/capacity"),
        serde_json::json!({"load": 3, "capacity": -1, "encoderCount": 2})
    );
}

#[test]
fn check_14_close_sends_the_very_stream_away() {
    let mut bench = Bench::new();
    let server = bench.open("rtmp");
    bench.encoder(-1);
    let stream_id = bench.publish(server, "c1");
    let kill = format!("STREAM-KILL\nStream-Channel:c1\nStream-ID:{stream_id}");
    for id in ["*", "", stream_id.as_str()] {
        bench.sent.clear();
        let headers = [("x-streaming-channel", "c1"), ("x-streaming-id", id)];
        let reply = bench.command("POST", "/commands/close", &headers);
        assert_eq!((reply.status, reply.body.as_slice()), (200, &b"SUCCESS"[..]));
        assert_eq!(bench.take_sent(server), std::slice::from_ref(&kill), "{id}");
    }
    for (channel, id) in [("c1", "0123"), ("c2", "*"), ("", "")] {
        let headers = [("x-streaming-channel", channel), ("x-streaming-id", id)];
        let reply = bench.command("POST", "/commands/close", &headers);
        assert_eq!((reply.status, reply.body.as_slice()), (200, &b"SUCCESS"[..]));
        assert_eq!(bench.take_sent(server), [""; 0]);
    }
}

#[test]
fn check_15_commands_are_closed_until_they_are_opened() {
    let mut bench = Bench::with(Settings { commands: CommandAuth::Closed, ..settings() }, "");
    let reply = bench.command("GET", "/commands/capacity", &[]);
    assert_eq!((reply.status, reply.body.as_slice()), (401, &b"Invalid authorization header."[..]));
    let mut bench = Bench::new();
    let nothing = serde_json::json!({"load": 0, "capacity": 0, "encoderCount": 0});
    assert_eq!(bench.json("/commands/capacity"), nothing);
    let reply = bench.command("GET", "/commands/capacity", &[]);
    assert!(reply.headers.contains(&("cache-control".to_owned(), "no-cache".to_owned())));
    let unauthorised = |bench: &mut Bench, target: &str, method: &str| {
        bench.coordinator.handle_request(&Request { method: method.into(), ..upgrade(target, None) }).status
    };
    // First the route, then who asks.
    for (method, target, status) in [
        ("GET", "/commands/capacity", 401),
        ("GET", "/commands/capacity/", 404),
        ("GET", "/commands/capacity?x=1", 404),
        ("POST", "/commands/capacity", 404),
        ("GET", "/commands/close", 404),
        ("POST", "/commands/close", 401),
        ("GET", "/commands/report", 401),
        ("GET", "/", 200),
        ("GET", "/x", 404),
    ] {
        assert_eq!(unauthorised(&mut bench, target, method), status, "{method} {target}");
    }
    assert_eq!(bench.command("GET", "/", &[]).body, b"Coordinator streaming server - Version 1.0.0");
    assert_eq!(bench.command("GET", "/x", &[]).body, b"Not found.");
}

#[test]
fn check_16_the_report_names_streams_by_their_ids() {
    let mut bench = Bench::new();
    let own =
        serde_json::json!({"id": 1, "ip": "10.0.0.1", "port": 1936, "ssl": false, "serverType": "RTMP"});
    let empty = serde_json::json!({"streamingServers": [own], "encoders": [], "activeStreams": []});
    assert_eq!(bench.json("/commands/report"), empty);
    let (server, encoder) = (bench.open("wss"), bench.encoder(8));
    let stream_id = bench.publish(server, "c1");
    let report = bench.json("/commands/report");
    let ws =
        serde_json::json!({"id": server.0, "ip": "10.0.0.2", "port": 80, "ssl": false, "serverType": "WS"});
    assert_eq!(report["streamingServers"][1], ws);
    let stream = serde_json::json!({
        "channel": "c1", "streamId": stream_id, "streamServer": server.0, "encoder": encoder.0,
    });
    assert_eq!(report["activeStreams"], serde_json::json!([stream]));
    bench.gone(server);
    assert_ne!(bench.open("wss"), server, "a new id after each reconnect");
}

#[test]
fn check_17_a_lost_encoder_ends_its_streams() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let told = bench.publish(server, "c1");
    bench.available(encoder, "c1", &told, "");
    bench.answer(200);
    let untold = bench.publish(server, "c2");
    let over = bench.publish(server, "c3");
    bench.available(encoder, "c3", &over, "");
    bench.answer(200);
    // Published no more, but its files are still being made.
    bench.say(server, &format!("PUBLISH-END\nStream-Channel:c3\nStream-ID:{over}"));
    bench.sent.clear();
    bench.gone(encoder);
    let kill = |channel: &str, id: &str| format!("STREAM-KILL\nStream-Channel:{channel}\nStream-ID:{id}");
    let mut sent = bench.take_sent(server);
    sent.sort();
    assert_eq!(sent, [kill("c1", &told), kill("c2", &untold)]);
    let mut closed: Vec<_> =
        bench.calls.iter().map(|(_, call)| (event(call), header(call, "x-streaming-id"))).collect();
    closed.sort();
    let end = |id: &String| ("stream-closed".to_owned(), Some(id.clone()));
    assert_eq!(closed, [end(&told), end(&over)]);
}

#[test]
fn check_17_a_lost_server_stops_encoding() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let stream_id = bench.publish(server, "c1");
    // Another of its publishers is still being verified.
    bench.request(server, "c2", "k1");
    let (exchange, _) = bench.take_call();
    bench.sent.clear();
    bench.gone(server);
    assert_eq!(bench.take_sent(encoder), [format!("ENCODE-STOP\nStream-Channel:c1\nStream-ID:{stream_id}")]);
    bench.reply(exchange, 200, &[]);
    assert!(bench.sent.is_empty(), "undone");
    assert_eq!(bench.json("/commands/report")["activeStreams"], serde_json::json!([]));
    assert_eq!(bench.json("/commands/capacity")["load"], 1, "until it says that it has ended");
}

#[test]
fn an_encoder_that_never_ends_is_not_waited_for_for_ever() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(1));
    let stream_id = bench.publish(server, "c1");
    bench.say(server, &format!("PUBLISH-END\nStream-Channel:c1\nStream-ID:{stream_id}"));
    for _ in 0..30 {
        bench.say(encoder, "HEARTBEAT");
        bench.say(server, "HEARTBEAT");
        assert_eq!(bench.json("/commands/capacity")["load"], 1);
        bench.pass(20);
    }
    assert_eq!(bench.json("/commands/capacity")["load"], 0);
    assert!(bench.notes.iter().any(|note| matches!(note, Note::NotEnded { .. })));
}

#[test]
fn check_18_a_late_end_is_its_own_streams_alone() {
    let mut bench = Bench::new();
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    let first = bench.publish(server, "c1");
    bench.available(encoder, "c1", &first, "");
    bench.answer(200);
    bench.say(server, &format!("PUBLISH-END\nStream-Channel:c1\nStream-ID:{first}"));
    let second = bench.publish(server, "c1");
    bench.available(encoder, "c1", &second, "");
    bench.answer(500);
    bench.sent.clear();
    bench.say(encoder, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{first}"));
    assert!(bench.take_sent(server).is_empty(), "the second lives");
    let (_, call) = bench.take_call();
    assert_eq!(header(&call, "x-streaming-id"), Some(first));
    bench.pass(10);
    let again = bench.calls.iter().find(|(_, call)| event(call) == "stream-available");
    assert_eq!(
        again.and_then(|(_, call)| header(call, "x-streaming-id")).as_ref(),
        Some(&second),
        "and so do its events"
    );
    // Without an id the current one is meant.
    bench.say(encoder, "STREAM-CLOSED\nStream-Channel:c1\nStream-ID:");
    assert_eq!(field(&bench.last_to(server), "Stream-ID"), second);
}

#[test]
fn check_19_only_its_own_server_ends_a_publish() {
    let mut bench = Bench::new();
    let (one, two) = (bench.open("rtmp"), bench.open("rtmp"));
    let (encoder, other) = (bench.encoder(-1), bench.encoder(0));
    let stream_id = bench.publish(one, "c1");
    bench.sent.clear();
    bench.say(two, &format!("PUBLISH-END\nStream-Channel:c1\nStream-ID:{stream_id}"));
    bench.say(one, "PUBLISH-END\nStream-Channel:c1\nStream-ID:0123");
    bench.say(other, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{stream_id}"));
    // A message on a socket of another kind means nothing.
    bench.say(encoder, &format!("PUBLISH-END\nStream-Channel:c1\nStream-ID:{stream_id}"));
    bench.say(one, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{stream_id}"));
    assert!(bench.sent.is_empty());
    bench.say(one, "PUBLISH-END\nStream-Channel:c1\nStream-ID:");
    assert!(bench.last_to(encoder).starts_with("ENCODE-STOP"));
}

#[test]
fn check_20_silence_closes_and_heartbeats_keep_open() {
    let mut bench = Bench::new();
    let (silent, talking) = (bench.open("rtmp"), bench.open("rtmp"));
    for round in 1..=9 {
        bench.pass(20);
        bench.say(talking, "HEARTBEAT");
        assert_eq!(bench.take_sent(talking), ["HEARTBEAT"], "every 20 s");
        assert_eq!(bench.closed.contains(&silent), round >= 3, "after {} s", round * 20);
    }
    assert_eq!(bench.take_sent(silent), ["HEARTBEAT"; 2]);
    assert!(!bench.closed.contains(&talking));
    // Whatever has data in it counts.
    bench.pass(59);
    bench.coordinator.handle_binary(talking, bench.now);
    bench.pass(59);
    assert!(!bench.closed.contains(&talking));
    bench.pass(1);
    assert!(bench.closed.contains(&talking));
}

#[test]
fn what_is_no_message_is_told_and_closed() {
    let mut bench = Bench::new();
    let server = bench.open("rtmp");
    bench.encoder(-1);
    bench.say(server, "NOTHING-KNOWN\nA:b");
    bench.say(server, "ERROR\nError-Code:X\nError-Message:it\u{7} burns");
    assert!(bench.closed.is_empty());
    let reported = bench.notes.iter().find(|note| matches!(note, Note::Reported { .. }));
    assert!(reported.is_some_and(|note| note.to_string().ends_with("X it burns")), "{reported:?}");
    bench.say(server, &format!("PUBLISH-REQUEST\nRequest-ID:{}", "7".repeat(200)));
    assert!(bench.last_to(server).starts_with("ERROR\nError-Code:INVALID_REQUEST"));
    let stream_id = bench.publish(server, "c1");
    bench.say(server, &"a".repeat(MESSAGE_MAX + 1));
    assert!(bench.last_to(server).starts_with("ERROR\nError-Code:MESSAGE_TOO_LONG"));
    assert_eq!(bench.closed, [server]);
    bench.say(server, "HEARTBEAT");
    let report = bench.json("/commands/report");
    assert!(report["activeStreams"] == serde_json::json!([]), "{stream_id} ended with its server");
}

#[test]
fn verifications_and_streams_are_bounded() {
    let mut bench = Bench::with(Settings { max_streams: 1_000, ..settings() }, "");
    let server = bench.open("rtmp");
    bench.encoder(-1);
    for nth in 0..257 {
        bench.request(server, &format!("c{nth}"), "k");
    }
    assert_eq!(bench.calls.len(), 256);
    assert!(bench.last_to(server).ends_with("Error-Code:TOO_MANY_STREAMS"));
    let mut bench = Bench::new();
    let server = bench.open("rtmp");
    let encoder = bench.encoder(-1);
    for nth in 0..100 {
        bench.publish(server, &format!("c{nth}"));
        bench.say(server, &format!("PUBLISH-END\nStream-Channel:c{nth}\nStream-ID:"));
    }
    bench.request(server, "more", "k");
    assert!(bench.last_to(server).ends_with("Error-Code:TOO_MANY_STREAMS"), "what encoders still do counts");
    bench.say(encoder, "STREAM-CLOSED\nStream-Channel:c0\nStream-ID:");
    bench.publish(server, "more");
}

#[test]
fn our_own_server_takes_part_without_a_socket() {
    let mut bench = Bench::new();
    let encoder = bench.encoder(-1);
    bench.coordinator.handle_publish(ExchangeId(90), "c1", "k1", IpAddr::from([7, 7, 7, 7]), bench.now);
    bench.pump();
    let (exchange, call) = bench.take_call();
    assert_eq!(header(&call, "x-user-ip").as_deref(), Some("7.7.7.7"));
    assert!(bench.verdicts.is_empty());
    bench.reply(exchange, 200, &[]);
    let Some((ExchangeId(90), Verdict::Allow { stream_id })) = bench.verdicts.pop() else { panic!() };
    assert_eq!(field(&bench.last_to(encoder), "Stream-Source-URI"), "rtmp://10.0.0.1:1936/c1/k1");
    assert_eq!(bench.json("/commands/report")["activeStreams"][0]["streamServer"], 1);
    bench.command("POST", "/commands/close", &[("x-streaming-channel", "c1"), ("x-streaming-id", "*")]);
    assert_eq!(bench.kills, [format!("c1 {stream_id}")]);
    bench.coordinator.handle_publish_end("c1", &stream_id, bench.now);
    bench.pump();
    assert!(bench.last_to(encoder).starts_with("ENCODE-STOP"));
    // Who leaves before the answer gives the channel free.
    bench.coordinator.handle_publish(ExchangeId(91), "c1", "k1", IpAddr::from([7, 7, 7, 7]), bench.now);
    bench.pump();
    bench.coordinator.withdraw(ExchangeId(91), bench.now);
    bench.coordinator.handle_publish(ExchangeId(92), "c1", "k1", IpAddr::from([7, 7, 7, 7]), bench.now);
    bench.pump();
    bench.answer(403);
    assert_eq!(bench.verdicts, [(ExchangeId(92), Verdict::Deny(Refused::Key))]);
}

#[test]
fn our_own_packager_takes_part_without_a_socket() {
    let mut bench = Bench::with(Settings { own_capacity: Some(1), ..settings() }, "");
    let server = bench.open("rtmp");
    assert_eq!(
        bench.json("/commands/capacity"),
        serde_json::json!({"load": 0, "capacity": 1, "encoderCount": 1})
    );
    bench.request(server, "c0", "k1");
    bench.answer(200);
    assert!(bench.last_to(server).ends_with("NO_ENCODER"), "it takes nothing from elsewhere");
    let publish = |bench: &mut Bench, id: u64, channel: &str| {
        bench.coordinator.handle_publish(
            ExchangeId(id),
            channel,
            "k1",
            IpAddr::from([7, 7, 7, 7]),
            bench.now,
        );
        bench.pump();
        bench.answer(200);
        match bench.verdicts.pop() {
            Some((_, Verdict::Allow { stream_id })) => Some(stream_id),
            _ => None,
        }
    };
    let stream_id = publish(&mut bench, 90, "c1").unwrap();
    assert_eq!(publish(&mut bench, 91, "c2"), None, "it is full");
    assert!(bench.coordinator.is_own_task(&stream_id));
    assert_eq!(
        bench.json("/commands/report")["encoders"][0],
        serde_json::json!({"id": 2, "capacity": 1, "load": 1})
    );
    let files = Available::read("HLS-LIVE", "640x360-30", &format!("hls/{stream_id}/index.m3u8"), "");
    bench.coordinator.handle_own_files(&stream_id, files, bench.now);
    bench.pump();
    let (exchange, call) = bench.take_call();
    assert_eq!(event(&call), "stream-available");
    bench.reply(exchange, 200, &[]);
    // What others say of it means nothing.
    let encoder = bench.encoder(-1);
    bench.say(encoder, &format!("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:{stream_id}"));
    assert!(bench.coordinator.is_own_task(&stream_id) && bench.kills.is_empty());
    bench.coordinator.handle_publish_end("c1", &stream_id, bench.now);
    bench.pump();
    assert_eq!(event(&bench.take_call().1), "stream-closed", "with its publisher");
    bench.gone(encoder);
    let stream_id = publish(&mut bench, 92, "c1").unwrap();
    bench.coordinator.handle_own_files(&stream_id, None, bench.now);
    bench.pump();
    assert_eq!(bench.kills, [format!("c1 {stream_id}")], "there is nothing to be seen");
}

#[test]
fn players_of_our_own_server_wait_for_their_stream() {
    let mut bench = Bench::new();
    let server = bench.open("rtmp");
    bench.encoder(-1);
    let play = |bench: &mut Bench, id: u64, channel: &str, key: &str| {
        bench.coordinator.handle_play(ExchangeId(id), channel, key, bench.now);
        bench.pump();
        bench.verdicts.pop().map(|(_, verdict)| verdict)
    };
    assert_eq!(play(&mut bench, 1, "c1", "k1"), None, "it comes before the stream");
    assert_eq!(play(&mut bench, 2, "c1", "wrong"), None);
    assert_eq!(play(&mut bench, 3, "c 1", "k1"), Some(Verdict::Deny(Refused::Syntax)));
    bench.coordinator.handle_publish(ExchangeId(90), "c1", "k1", IpAddr::from([7, 7, 7, 7]), bench.now);
    bench.pump();
    assert_eq!(
        play(&mut bench, 4, "c1", "wrong"),
        Some(Verdict::Deny(Refused::Unknown)),
        "nothing is told by waiting"
    );
    assert_eq!(play(&mut bench, 5, "c1", "k1"), None);
    bench.answer(200);
    let verdicts = std::mem::take(&mut bench.verdicts);
    let of = |id| {
        verdicts.iter().find(|(exchange, _)| *exchange == ExchangeId(id)).map(|(_, verdict)| verdict.clone())
    };
    let Some(Verdict::Allow { stream_id }) = of(90) else { panic!("{verdicts:?}") };
    let allowed = Some(Verdict::Allow { stream_id });
    assert_eq!(
        (of(1), of(5), of(2)),
        (allowed.clone(), allowed.clone(), Some(Verdict::Deny(Refused::Unknown)))
    );
    assert_eq!(play(&mut bench, 6, "c1", "k1"), allowed);
    bench.publish(server, "c2");
    assert_eq!(play(&mut bench, 7, "c2", "k1"), Some(Verdict::Deny(Refused::Unknown)), "it is elsewhere");
    // Nobody waits for ever, and not too many at once.
    (100..356).for_each(|id| assert_eq!(play(&mut bench, id, "c3", "k"), None));
    assert_eq!(play(&mut bench, 400, "c3", "k"), Some(Verdict::Deny(Refused::Full)));
    bench.pass(19);
    assert!(bench.verdicts.is_empty());
    bench.pass(1);
    assert_eq!(bench.verdicts.len(), 256);
    assert!(
        bench.coordinator.is_encoders([10, 0, 0, 2].into())
            && !bench.coordinator.is_encoders([10, 0, 0, 3].into())
    );
}

#[test]
fn without_applications_every_key_is_good_and_nobody_is_told() {
    let mut bench = Bench::with(Settings { verification: None, events: None, ..settings() }, "c1:old\n");
    let (server, encoder) = (bench.open("rtmp"), bench.encoder(-1));
    bench.request(server, "c1", "any");
    let stream_id = field(&bench.last_to(server), "Stream-ID");
    assert!(bench.last_to(encoder).ends_with("Resolutions:ORIGINAL\nRecord:False\nPreviews:False"));
    bench.available(encoder, "c1", &stream_id, "");
    bench.say(encoder, "STREAM-CLOSED\nStream-Channel:c1\nStream-ID:");
    assert!(bench.calls.is_empty());
}
