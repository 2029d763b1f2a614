//! The coordinator of the running program: the contract's numbered checks that need a socket. Deadlines are held by its
//! core (`fieldgate-compat`), with time handed in; `docs/coordinator.md` lists all.

pub(crate) mod peers;

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::http::{self, Response};
use crate::common::process::Process;
use crate::common::rtmp::{Client, Refusal};
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use peers::{App, Peer, SECRET, field, settings, token};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

fn start(app: &App, more: &Value) -> Gateway {
    start_in(Arc::new(Scratch::new()), app, more)
}

fn start_in(scratch: Arc<Scratch>, app: &App, more: &Value) -> Gateway {
    Gateway::start_in(scratch, settings(app, more), |command| {
        command.args(["--log", "debug"]);
    })
}

fn command(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let headers = [headers, &[("Authorization", "Basic dTpw")]].concat();
    http::request(gateway.coordinator.unwrap(), method, path, &headers, b"")
}

fn report(gateway: &Gateway) -> Value {
    command(gateway, "GET", "/commands/report", &[]).json()
}

fn capacity(gateway: &Gateway) -> Value {
    command(gateway, "GET", "/commands/capacity", &[]).json()
}

fn close(gateway: &Gateway, channel: &str, stream_id: &str) {
    let headers = [("x-streaming-channel", channel), ("X-Streaming-ID", stream_id)];
    let answer = command(gateway, "POST", "/commands/close", &headers);
    assert_eq!((answer.status, answer.text().as_str()), (200, "SUCCESS"));
}

/// Publishes by RTMP to the gateway itself.
fn publish(gateway: &Gateway, channel: &str, key: &str) -> Result<Publisher, Refusal> {
    let mut client = Client::connected(gateway.rtmp, channel);
    let stream = client.create_stream();
    client.publish(stream, key)?;
    Ok(Publisher::with(client, stream, key, Fixture::h264_aac(6).tags(), 0, End::Polite))
}

fn play(gateway: &Gateway, channel: &str, name: &str) -> Result<Client, Refusal> {
    let mut client = Client::connected(gateway.rtmp, channel);
    let stream = client.create_stream();
    client.play(stream, name)?;
    Ok(client)
}

#[test]
fn check_01_15_who_is_let_in() {
    let app = App::start();
    let gateway = start(&app, &json!({"max_sockets": 3}));
    let refused = |token: Option<&str>| Peer::try_open(&gateway, "rtmp", token, &[]).err().expect("refused");
    let of = |secret: &str, claims: Value| token(secret, &claims);
    let good = of(SECRET, json!({"sub": "rtmp-control"}));
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJydG1wLWNvbnRyb2wifQ.".to_owned();
    for bad in [
        None,
        Some(of(SECRET, json!({"sub": "hls-control"}))),
        Some(of("other", json!({"sub": "rtmp-control"}))),
        Some(of(SECRET, json!({"sub": "rtmp-control", "exp": 1_000_000_000}))),
        Some(of(SECRET, json!({"sub": 7}))),
        Some(unsigned),
        Some("garbage".to_owned()),
        Some("a".repeat(8_000)),
    ] {
        assert_eq!(refused(bad.as_deref()), (403, "Invalid authentication token.".to_owned()), "{bad:?}");
    }
    let sockets: Vec<Peer> =
        (0..3).map(|_| Peer::try_open(&gateway, "rtmp", Some(&good), &[]).unwrap()).collect();
    assert_eq!(refused(Some(&good)).0, 503, "as many as there may be");
    drop(sockets);
    wait::until_true("a place to be free", secs(30), || {
        Peer::try_open(&gateway, "rtmp", Some(&good), &[]).is_ok()
    });
    // Commands: without a login nothing, and the route first.
    let at = gateway.coordinator.unwrap();
    assert_eq!(http::get(at, "/").text(), "Coordinator streaming server - Version 1.0.0");
    assert_eq!(
        (http::get(at, "/ws/control/rtmp").status, http::get(at, "/commands/report?x").status),
        (404, 404)
    );
    let closed = http::get(at, "/commands/capacity");
    assert_eq!((closed.status, closed.text().as_str()), (401, "Invalid authorization header."));
    let wrong = http::request(at, "GET", "/commands/capacity", &[("Authorization", "Basic dTp4")], b"");
    assert_eq!(wrong.status, 401);
    assert_eq!(capacity(&gateway), json!({"load": 0, "capacity": 0, "encoderCount": 0}));
    drop(gateway);
    let gateway = start(&app, &json!({"commands": {"token": "tok"}, "control_secret": null}));
    let at = gateway.coordinator.unwrap();
    let bearer = http::request(at, "GET", "/commands/capacity", &[("Authorization", "bearer tok")], b"");
    assert_eq!((bearer.status, bearer.header("cache-control")), (200, Some("no-cache")));
    assert!(
        Peer::try_open(&gateway, "wss", None, &[]).is_ok(),
        "this machine needs no token where there is no secret"
    );
    drop(gateway);
    let gateway = start(&app, &json!({"commands": {}}));
    assert_eq!(command(&gateway, "GET", "/commands/capacity", &[]).status, 401, "closed, not open");
}

#[test]
fn check_02_04_05_06_a_stream_from_request_to_encoder() {
    let app = App::start();
    let mut gateway = start(&app, &json!({}));
    let mut server = Peer::open(&gateway, "rtmp");
    let tls = [("x-external-ip", "198.51.100.7"), ("x-custom-port", "1940"), ("x-ssl-use", "true")];
    let good = token(SECRET, &json!({"sub": "wss-control", "iat": 1, "exp": 4_000_000_000_u64}));
    let mut other = Peer::try_open(&gateway, "wss", Some(&good), &tls).unwrap();
    let mut encoder = Peer::encoder(&gateway, -1);
    wait::until_true("the encoder to be known", secs(30), || capacity(&gateway)["encoderCount"] == 1);
    let stream_id = server.publish(1, "c1", "k1-of-the-publisher");
    assert!(
        stream_id.len() == 32 && stream_id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    let start = encoder.expect("ENCODE-START");
    assert_eq!(
        start.trim_end(),
        format!(
            "ENCODE-START\nStream-Channel:c1\nStream-ID:{stream_id}\nStream-Source-Type:RTMP\n\
             Stream-Source-URI:rtmp://127.0.0.1:1935/c1/k1-of-the-publisher\nResolutions:ORIGINAL\nRecord:False\n\
             Previews:False"
        )
    );
    let asked = &app.asked("/key", "c1")[0];
    assert!(asked.line.starts_with("POST /key HTTP/1."), "{}", asked.line);
    for (name, value) in [
        ("x-streaming-key", "k1-of-the-publisher"),
        ("x-user-ip", "192.0.2.7"),
        ("content-length", "0"),
        ("authorization", "Basic YXBwOnBhc3M="),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    assert_eq!(asked.body, b"");
    // It is taken now, for its own server, too.
    for peer in [&mut server, &mut other] {
        peer.request(2, "c1", "k1");
        peer.expect("PUBLISH-DENY\nRequest-ID:2\nStream-Channel:c1");
    }
    // Two at once.
    server.request(3, "c3", "k");
    other.request(3, "c3", "k");
    let outcome = |peer: &mut Peer| {
        wait::until("an answer", secs(30), || {
            let (yes, no) =
                (peer.count("PUBLISH-ACCEPT\nRequest-ID:3"), peer.count("PUBLISH-DENY\nRequest-ID:3"));
            (yes + no == 1).then_some(yes)
        })
    };
    assert_eq!(outcome(&mut server) + outcome(&mut other), 1);
    // What cannot be a channel or a key is not asked about.
    let long = "a".repeat(129);
    for (channel, key) in [("a b", "k"), ("c9", ""), (long.as_str(), "k"), ("c9", long.as_str())] {
        server.request(4, channel, key);
        server.expect("PUBLISH-DENY\nRequest-ID:4");
    }
    assert_eq!(app.asked("/key", "c9").len() + app.asked("/key", "a b").len(), 0);
    let wanted =
        "200 OK\r\nX-Resolutions: 1280x720-30~2000, ORIGINAL\r\nX-Record: TRUE\r\nX-Previews: 256x144, 3";
    app.answer("/key c5", wanted, 1);
    let fifth = other.publish(5, "c5", "k5");
    let start = encoder.expect(&format!("ENCODE-START\nStream-Channel:c5\nStream-ID:{fifth}"));
    assert_eq!(field(&start, "Stream-Source-URI"), "wss://198.51.100.7:1940/c5/k5");
    assert_eq!(field(&start, "Resolutions"), "ORIGINAL,1280x720-30~2000");
    assert_eq!((field(&start, "Record").as_str(), field(&start, "Previews").as_str()), ("True", "256x144,3"));
    let log = gateway.process().log();
    for secret in ["k1-of-the-publisher", SECRET, "event-token", "rtmp://127.0.0.1:1935"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    assert!(log.contains("DEBUG") && log.contains("/ws/control/wss"), "requests are logged");
}

#[test]
fn check_03_07_09_only_200_counts_and_nothing_hangs() {
    let app = App::start();
    let gateway = start(&app, &json!({}));
    let mut server = Peer::open(&gateway, "rtmp");
    server.request(1, "c1", "k");
    server.expect("PUBLISH-DENY\nRequest-ID:1\nStream-Channel:c1\nError-Code:NO_ENCODER");
    let mut encoder = Peer::encoder(&gateway, -1);
    wait::until_true("the encoder to be known", secs(30), || capacity(&gateway)["encoderCount"] == 1);
    for (number, head) in [
        (2, "403 No"),
        (3, "302 Found\r\nLocation: /key"),
        (4, "204 No Content"),
        (5, "500 Oops"),
        (6, "garbage"),
    ] {
        app.answer("/key c1", head, 1);
        server.request(number, "c1", "k");
        server.expect(&format!("PUBLISH-DENY\nRequest-ID:{number}\n"));
    }
    app.answer("/key slow", "hang", 1);
    app.answer("/events c2", "500 Oops", 2);
    server.request(7, "slow", "k");
    let began = Instant::now();
    let stream_id = server.publish(8, "c2", "k");
    encoder.available("c2", &stream_id, "HLS-LIVE", "");
    assert_eq!(server.count("PUBLISH-DENY\nRequest-ID:7"), 0, "others are served while one hangs");
    server.expect("PUBLISH-DENY\nRequest-ID:7\nStream-Channel:slow");
    assert!(began.elapsed() >= secs(9));
    // The third try succeeds; about ten seconds lie between two.
    let told = app.wait_for_events("c2", 3);
    for pair in told.windows(2) {
        let waited = pair[1].at.duration_since(pair[0].at);
        assert!(waited >= secs(9), "{waited:?}");
        assert_eq!(pair[0].headers, pair[1].headers);
    }
    assert_eq!(told[0].header("authorization"), "Bearer event-token");
    // It is free again, and nothing is told twice.
    server.publish(9, "slow", "k");
    std::thread::sleep(secs(11));
    assert_eq!(app.asked("/events", "c2").len(), 3);
    drop(gateway);
    let gateway = start(&app, &json!({"require_encoder": false}));
    Peer::open(&gateway, "rtmp").publish(1, "c1", "k");
}

#[test]
fn check_08_10_11_14_16_18_19_events_kills_and_reports() {
    let app = App::start();
    let gateway = start(&app, &json!({}));
    let own =
        json!({"id": 1, "ip": "127.0.0.1", "port": gateway.rtmp.port(), "ssl": false, "serverType": "RTMP"});
    assert_eq!(report(&gateway), json!({"streamingServers": [own], "encoders": [], "activeStreams": []}));
    let (mut server, mut other) = (Peer::open(&gateway, "rtmp"), Peer::open(&gateway, "rtmp"));
    let mut encoder = Peer::encoder(&gateway, -1);
    wait::until_true("the encoder to be known", secs(30), || capacity(&gateway)["encoderCount"] == 1);
    let first = server.publish(1, "c1", "k");
    let shown = report(&gateway);
    let stream = &shown["activeStreams"][0];
    assert_eq!((&stream["channel"], &stream["streamId"]), (&json!("c1"), &json!(first)));
    assert!(stream["streamServer"].is_u64() && shown["encoders"][0]["load"] == 1, "{shown}");
    encoder.available("c1", &first, "HLS-VOD", "\nStart-Time:30");
    let told = &app.wait_for_events("c1", 1)[0];
    for (name, value) in [
        ("x-streaming-id", first.as_str()),
        ("x-event-type", "stream-available"),
        ("x-stream-type", "HLS-VOD"),
        ("x-resolution", "640x360-30"),
        ("x-index-file", &format!("hls/c1/{first}/640x360-30/live.m3u8")),
        ("x-start-time", "30"),
    ] {
        assert_eq!(told.header(name), value, "{name}");
    }
    assert!(told.body.is_empty());
    // Not the application's business twice.
    encoder.available("c1", &first, "HLS-VOD", "\nStart-Time:30");
    encoder.available("c1", &first, "HLS-LIVE", "");
    assert!(!app.wait_for_events("c1", 2)[1].headers.contains_key("x-start-time"));
    close(&gateway, "c1", "0123456789abcdef0123456789abcdef");
    close(&gateway, "nobody", "*");
    other.end("c1", &first);
    for (nth, id) in ["*", "", first.as_str()].into_iter().enumerate() {
        close(&gateway, "c1", id);
        assert_eq!(field(&server.expect("STREAM-KILL\nStream-Channel:c1"), "Stream-ID"), first, "{nth}");
    }
    assert_eq!(
        (server.count("STREAM-KILL"), encoder.count("ENCODE-STOP")),
        (0, 0),
        "neither stale nor another's"
    );
    server.end("c1", &first);
    assert_eq!(field(&encoder.expect("ENCODE-STOP\nStream-Channel:c1"), "Stream-ID"), first);
    // Another one begins before the encoder has ended the first.
    let second = server.publish(2, "c1", "k");
    app.answer("/events c1", "500 Oops", 1);
    encoder.closed("c1", &first);
    let ends = |app: &App| app.events("c1").iter().filter(|event| *event == "stream-closed").count();
    wait::until_true("the end of the first", secs(60), || ends(&app) == 2);
    assert_eq!(server.count("STREAM-KILL"), 0, "the second lives");
    // Nothing was told of the second, so its end is not either.
    encoder.closed("c1", &second);
    assert_eq!(field(&server.expect("STREAM-KILL\nStream-Channel:c1"), "Stream-ID"), second);
    encoder.closed("c1", &second);
    server.end("c1", &second);
    // What still waits is dropped for the end.
    let third = server.publish(3, "c3", "k");
    app.answer("/events c3", "503 Later", 1);
    encoder.available("c3", &third, "HLS-LIVE", "");
    app.wait_for_events("c3", 1);
    encoder.closed("c3", &third);
    app.wait_for_events("c3", 2);
    assert_eq!(app.events("c3"), ["stream-available HLS-LIVE", "stream-closed"]);
    assert_eq!(ends(&app), 2);
}

#[test]
fn check_12_an_end_is_told_after_a_kill_and_a_restart() {
    let app = App::start();
    let scratch = Arc::new(Scratch::new());
    let mut gateway = start_in(scratch.clone(), &app, &json!({}));
    let (mut server, mut encoder) = (Peer::open(&gateway, "rtmp"), Peer::encoder(&gateway, -1));
    wait::until_true("the encoder to be known", secs(30), || capacity(&gateway)["encoderCount"] == 1);
    let told = server.publish(1, "c1", "k");
    server.publish(2, "c2", "k");
    encoder.available("c1", &told, "HLS-LIVE", "");
    app.wait_for_events("c1", 1);
    let list = || std::fs::read_to_string(scratch.join("state/coordinator/active_streams.txt")).unwrap();
    assert_eq!(list(), format!("c1:{told}\n"));
    gateway.process().kill();
    drop(gateway);
    let mut gateway = start_in(scratch.clone(), &app, &json!({}));
    let events = app.wait_for_events("c1", 2);
    assert_eq!(
        (events[1].header("x-event-type"), events[1].header("x-streaming-id")),
        ("stream-closed", told.as_str())
    );
    wait::until_true("the list to be empty", secs(30), || list().is_empty());
    assert!(gateway.stop().success());
    drop(gateway);
    let _gateway = start_in(scratch, &app, &json!({}));
    std::thread::sleep(secs(2));
    assert_eq!((app.asked("/events", "c1").len(), app.asked("/events", "c2").len()), (2, 0), "once");
}

#[test]
fn check_13_17_load_and_lost_peers() {
    let app = App::start();
    let gateway = start(&app, &json!({}));
    let (mut server, mut encoder) = (Peer::open(&gateway, "rtmp"), Peer::encoder(&gateway, 2));
    wait::until_true("the encoder to be known", secs(30), || capacity(&gateway)["encoderCount"] == 1);
    for number in 0..10 {
        let stream_id = server.publish(number, "c1", "k");
        server.end("c1", &stream_id);
        encoder.expect(&format!("ENCODE-STOP\nStream-Channel:c1\nStream-ID:{stream_id}"));
        encoder.closed("c1", &stream_id);
        wait::until_true("no load", secs(30), || capacity(&gateway)["load"] == 0);
    }
    assert_eq!(capacity(&gateway), json!({"load": 0, "capacity": 2, "encoderCount": 1}));
    let [one, two] = [(20, "a"), (21, "b")].map(|(number, channel)| server.publish(number, channel, "k"));
    server.request(22, "c", "k");
    server.expect("PUBLISH-DENY\nRequest-ID:22");
    encoder.available("a", &one, "HLS-LIVE", "");
    app.wait_for_events("a", 1);
    // The encoder is lost without a word.
    drop(encoder);
    for (channel, stream_id) in [("a", &one), ("b", &two)] {
        assert_eq!(
            field(&server.expect(&format!("STREAM-KILL\nStream-Channel:{channel}")), "Stream-ID"),
            *stream_id
        );
        server.end(channel, stream_id);
    }
    app.wait_for_events("a", 2);
    assert_eq!(app.events("a"), ["stream-available HLS-LIVE", "stream-closed"]);
    assert_eq!(app.events("b"), [""; 0], "nothing was told of it");
    // And then the server.
    let mut encoder = Peer::encoder(&gateway, -1);
    wait::until_true("the encoder to be known", secs(30), || capacity(&gateway)["encoderCount"] == 1);
    let stream_id = server.publish(30, "a", "k");
    drop(server);
    assert_eq!(field(&encoder.expect("ENCODE-STOP\nStream-Channel:a"), "Stream-ID"), stream_id);
    let mut server = Peer::open(&gateway, "rtmp");
    server.publish(1, "a", "k");
}

#[test]
fn check_20_the_silent_are_closed_and_pings_are_no_words() {
    let app = App::start();
    let gateway = start(&app, &json!({}));
    let (mut silent, mut talking) = (Peer::open(&gateway, "rtmp"), Peer::open(&gateway, "hls"));
    silent.be_silent();
    talking.be_silent();
    let began = Instant::now();
    wait::until_true("the silent one to be closed", secs(120), || {
        silent.ping();
        talking.say("HEARTBEAT");
        std::thread::sleep(secs(1));
        silent.is_closed()
    });
    assert!(began.elapsed() >= secs(55), "after {:?}", began.elapsed());
    assert!(!talking.is_closed());
    assert!((2..=6).contains(&talking.count("HEARTBEAT")), "every 20 s: {}", talking.count("HEARTBEAT"));
    assert!(silent.count("HEARTBEAT") >= 2);
}

#[test]
fn what_is_too_long_is_told_and_closed_and_bytes_are_left_out() {
    let app = App::start();
    let gateway = start(&app, &json!({}));
    let (mut hostile, mut server) = (Peer::open(&gateway, "rtmp"), Peer::open(&gateway, "rtmp"));
    Peer::encoder(&gateway, -1);
    hostile.say("ERROR\nError-Code:X");
    hostile.say(&"\n".repeat(1_000));
    hostile.say("PUBLISH-REQUEST\n{\"not\": \"parameters\"}");
    hostile.expect("PUBLISH-DENY");
    assert!(!hostile.is_closed());
    hostile.say(&format!("PUBLISH-REQUEST\nRequest-ID:{}", "7".repeat(70_000)));
    hostile.expect("ERROR\nError-Code:MESSAGE_TOO_LONG");
    wait::until_true("it to be closed", secs(30), || hostile.is_closed());
    let mut hostile = Peer::open(&gateway, "hls");
    hostile.say(&format!("REGISTER{}", "\nA:b".repeat(65)));
    hostile.expect("ERROR\nError-Code:TOO_MANY_PARAMETERS");
    wait::until_true("it to be closed", secs(30), || hostile.is_closed());
    // No WebSocket at all: the other side says nothing sensible, or nothing.
    let mut raw = TcpStream::connect(gateway.coordinator.unwrap()).unwrap();
    raw.write_all(b"GET /ws/control/rtmp HTTP/1.1\r\nUpgrade: websocket\r\n").unwrap();
    raw.set_read_timeout(Some(secs(60))).unwrap();
    let mut rest = Vec::new();
    raw.read_to_end(&mut rest).ok();
    assert!(!String::from_utf8_lossy(&rest).contains("101"), "a question without an end opens nothing");
    assert!(!server.is_closed());
    server.say("HEARTBEAT");
}

#[test]
fn check_02_14_17_23_the_gateways_own_server_takes_part() {
    let app = App::start();
    let mut gateway = start(&app, &json!({}));
    let mut encoder = Peer::encoder(&gateway, -1);
    wait::until_true("the encoder to be known", secs(30), || capacity(&gateway)["encoderCount"] == 1);
    app.answer("/key bad", "403 No", 9);
    let refused = publish(&gateway, "bad", "wrong-key-0001").err().expect("refused");
    assert_eq!(refused.code, "NetStream.Publish.BadName");
    // An encoder comes before the stream, and waits for it.
    let at = gateway.rtmp;
    let early = std::thread::spawn(move || {
        let mut client = Client::connected(at, "c1");
        let stream = client.create_stream();
        client.play(stream, "channel-key-0001?cache=clear").map(|()| client)
    });
    let publisher = publish(&gateway, "c1", "channel-key-0001").unwrap();
    let start = encoder.expect("ENCODE-START\nStream-Channel:c1");
    let uri = field(&start, "Stream-Source-URI");
    assert_eq!(uri, format!("rtmp://127.0.0.1:{}/c1/channel-key-0001", gateway.rtmp.port()));
    let stream_id = field(&start, "Stream-ID");
    assert_eq!(app.asked("/key", "c1")[0].header("x-user-ip"), "127.0.0.1");
    let early = Player::with(early.join().unwrap().expect("the one that came early"));
    let probe = Player::with(play(&gateway, "c1", "channel-key-0001").unwrap());
    early.wait_for_more(20);
    probe.wait_for_more(20);
    assert_eq!(
        play(&gateway, "c1", "wrong-key-0001").err().map(|refusal| refusal.code).as_deref(),
        Some("NetStream.Play.StreamNotFound")
    );
    assert_eq!(
        publish(&gateway, "c1", "channel-key-0001").err().map(|r| r.code).as_deref(),
        Some("NetStream.Publish.BadName")
    );
    let shown = report(&gateway);
    assert_eq!(shown["activeStreams"][0]["streamServer"], 1, "{shown}");
    publisher.wait_for_more(50);
    close(&gateway, "c1", "*");
    assert_eq!(field(&encoder.expect("ENCODE-STOP\nStream-Channel:c1"), "Stream-ID"), stream_id);
    wait::until_true("players to be ended", secs(30), || early.is_closed() || probe.is_closed());
    drop(publisher);
    // Its encoder is lost: the publisher is sent away, and the channel is free again.
    encoder.closed("c1", &stream_id);
    let publisher = publish(&gateway, "c1", "channel-key-0001").unwrap();
    encoder.expect("ENCODE-START\nStream-Channel:c1");
    drop(encoder);
    wait::until_true("no stream", secs(30), || report(&gateway)["activeStreams"] == json!([]));
    drop(publisher);
    // Nobody is there who may play, and nobody who could encode.
    let stranger = play(&gateway, "c1", "channel-key-0001").err().expect("refused");
    assert_eq!(stranger.code, "NetStream.Play.StreamNotFound");
    assert!(publish(&gateway, "c1", "channel-key-0001").is_err());
    // What the config has is not touched, and no key is in the log.
    assert!(Client::open(gateway.rtmp).connect("a/b").is_err());
    let log = gateway.process().log();
    for secret in ["channel-key-0001", "wrong-key-0001"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn sockets_over_tls_outlive_a_new_certificate() {
    let app = App::start();
    let scratch = Arc::new(Scratch::new());
    super::tls::make_certificate(scratch.path(), "first");
    let tls = json!({
        "listen": ["127.0.0.1:0"], "cert": scratch.join("cert.pem"), "key": scratch.join("key.pem"), "reload_interval": "1s",
    });
    let gateway = start_in(scratch.clone(), &app, &json!({"tls": tls}));
    let at = gateway.coordinator_tls.expect("it listens for TLS");
    assert!(super::tls::shown_name(at).contains("first"));
    let good = token(SECRET, &json!({"sub": "hls-control"}));
    // Spoken by hand through a TLS client: a control socket that registers.
    let register = "REGISTER\nCapacity:7";
    let mut frame = vec![0x81, 0x80 | register.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(register.as_bytes());
    let head = format!(
        "GET /ws/control/hls HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-control-auth-token: {good}\r\n\r\n"
    );
    let words = scratch.join("words");
    std::fs::write(&words, [head.as_bytes(), &frame].concat()).unwrap();
    let mut client =
        Process::start_with("openssl", &["s_client", "-quiet", "-connect", &at.to_string()], |client| {
            client.stdin(std::fs::File::open(words).unwrap());
        });
    wait::until_true("the encoder over TLS", secs(30), || capacity(&gateway)["capacity"] == 7);
    super::tls::make_certificate(scratch.path(), "second");
    wait::until_true("the new certificate", secs(60), || super::tls::shown_name(at).contains("second"));
    assert_eq!(capacity(&gateway)["encoderCount"], 1, "its socket is still open");
    client.kill();
    wait::until_true("it to be gone", secs(30), || capacity(&gateway)["encoderCount"] == 0);
}

#[test]
fn check_04_25_the_gateway_as_an_encoder_of_its_own_coordinator_makes_what_is_asked_for() {
    let (app, scratch) = (App::start(), Arc::new(Scratch::new()));
    let mut config = settings(&app, &json!({}));
    let folder = scratch.join("files");
    config["compat"]["encoder"] = json!({"enabled": true, "capacity": 2, "segment": "1s", "folder": folder});
    let mut gateway = Gateway::start_in(scratch.clone(), config, |_| {});
    wait::until_true("it to be known", secs(30), || {
        capacity(&gateway) == json!({"load": 0, "capacity": 2, "encoderCount": 1})
    });
    assert_eq!(gateway.status()["elsewhere"]["encoder"]["state"], "up");
    let wanted = "200 OK\r\nX-Resolutions: ORIGINAL, 161x91-15~300\r\nX-Record: true\r\nX-Previews: 64x64, 1";
    app.answer("/key c1", wanted, 1);
    let publisher = publish(&gateway, "c1", "channel-key-0001").unwrap();
    assert_eq!(capacity(&gateway)["load"], 1);
    let told = app.wait_for_events("c1", 5);
    let stream_id = told[0].header("x-streaming-id").to_owned();
    let mut resolutions: Vec<String> = told
        .iter()
        .map(|asked| format!("{} {}", asked.header("x-stream-type"), asked.header("x-resolution")))
        .collect();
    resolutions.sort();
    assert_eq!(
        resolutions,
        [
            "HLS-LIVE 162x92-15~300",
            "HLS-LIVE 320x180-30",
            "HLS-VOD 162x92-15~300",
            "HLS-VOD 320x180-30",
            "IMG-PREVIEW 64x64-1"
        ]
    );
    for asked in &told {
        let file = asked.header("x-index-file");
        assert!(folder.join(file).exists() && file.contains(&stream_id), "{file}");
    }
    publisher.wait_for_more(20);
    publisher.finish();
    assert_eq!(app.wait_for_events("c1", 6)[5].header("x-event-type"), "stream-closed");
    let list = folder.join(format!("hls/c1/{stream_id}/320x180-30/vod-0.m3u8"));
    let list = std::fs::read_to_string(list).unwrap();
    assert!(list.ends_with("#EXT-X-ENDLIST\n") && list.contains("\n0.ts\n"), "{list}");
    assert_eq!(capacity(&gateway)["load"], 0);
    // The next one on that channel is another stream, of the size that the application says now.
    let again = publish(&gateway, "c1", "channel-key-0002").unwrap();
    let next = app.wait_for_events("c1", 7)[6].clone();
    assert_eq!((next.header("x-stream-type"), next.header("x-resolution")), ("HLS-LIVE", "320x180-30"));
    assert_ne!(next.header("x-streaming-id"), stream_id);
    close(&gateway, "c1", "*");
    wait::until_true("its publisher to be sent away", secs(60), || again.is_closed());
    assert_eq!(app.wait_for_events("c1", 8)[7].header("x-event-type"), "stream-closed");
    let log = gateway.process().log();
    assert!(!log.contains("channel-key-000") && !log.contains(SECRET));
}

#[test]
fn the_gateways_own_packager_takes_part() {
    let app = App::start();
    let mut config = settings(&app, &json!({"own_encoder": 1}));
    config["http"] = json!({"listen": ["127.0.0.1:0"]});
    let gateway = Gateway::start(config);
    let status = gateway.status();
    let viewers = status["listeners"]["http"]["addresses"][0].as_str().unwrap().parse().unwrap();
    assert_eq!(capacity(&gateway), json!({"load": 0, "capacity": 1, "encoderCount": 1}));
    let mut server = Peer::open(&gateway, "rtmp");
    server.request(1, "far", "k");
    server.expect("PUBLISH-DENY\nRequest-ID:1");
    let publisher = publish(&gateway, "c1", "channel-key-0001").unwrap();
    let told = &app.wait_for_events("c1", 1)[0];
    assert_eq!((told.header("x-event-type"), told.header("x-stream-type")), ("stream-available", "HLS-LIVE"));
    let shape = told.header("x-resolution").split(['x', '-']).map(|part| part.parse::<u32>().unwrap());
    assert!(
        shape.clone().count() >= 2 && shape.clone().all(|number| number > 0),
        "{}",
        told.header("x-resolution")
    );
    let index = format!("/{}", told.header("x-index-file"));
    let list = http::get(viewers, &index);
    assert_eq!(list.status, 200, "{}", list.text());
    assert!(list.text().contains("#EXTM3U"));
    assert_eq!(http::get(viewers, "/hls/0123456789abcdef0123456789abcdef/index.m3u8").status, 404);
    assert!(publish(&gateway, "c2", "k").is_err(), "it is full");
    publisher.finish();
    app.wait_for_events("c1", 2);
    assert_eq!(app.events("c1"), ["stream-available HLS-LIVE", "stream-closed"]);
    assert_eq!(capacity(&gateway)["load"], 0);
    assert_eq!(http::get(viewers, &index).status, 404);
}
