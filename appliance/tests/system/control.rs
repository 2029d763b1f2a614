//! The running program as a streaming server of a coordinator elsewhere: the contract's numbered checks for a client that
//! need a socket. The other side is a scripted one, written from the contract, or another gateway. Deadlines are held by
//! the core (`fieldgate-compat`), with time handed in; `docs/coordinator.md` lists all.

use crate::common::address::own_address;
use crate::common::amf::Amf;
use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::http;
use crate::common::rtmp::{Client, Refusal};
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use crate::coordinator::peers::{App, Fake, Fault, Peer, SECRET, field, settings, token};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A streaming server of the coordinator there; `more` is laid over its settings.
fn start(at: SocketAddr, more: &Value) -> Gateway {
    let mut control = json!({
        "enabled": true, "url": format!("ws://{at}/"), "secret": SECRET, "play_allow": ["127.0.0.0/8"],
        "external_ip": "127.0.0.1",
    });
    control.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Gateway::start(
        json!({"mountpoints": {"gate": {"source": {"kind": "publish"}}}, "compat": {"control": control}}),
    )
}

type Trying<T> = JoinHandle<Result<T, Refusal>>;

/// Publishes by RTMP; the answer may take a while.
fn publish(gateway: &Gateway, channel: &str, key: &str) -> Trying<Publisher> {
    let (at, channel, key) = (gateway.rtmp, channel.to_owned(), key.to_owned());
    std::thread::spawn(move || {
        let mut client = Client::connected(at, &channel);
        let stream = client.create_stream();
        client.publish(stream, &key)?;
        Ok(Publisher::with(client, stream, &key, Fixture::h264_aac(6).tags(), 0, End::Polite))
    })
}

fn play(gateway: &Gateway, channel: &str, name: &str) -> Trying<Player> {
    let (at, channel, name) = (gateway.rtmp, channel.to_owned(), name.to_owned());
    std::thread::spawn(move || {
        let mut client = Client::connected(at, &channel);
        let stream = client.create_stream();
        client.play(stream, &name)?;
        Ok(Player::with(client))
    })
}

fn code<T>(trying: Trying<T>) -> String {
    trying.join().unwrap().err().expect("refused").code
}

/// Somebody publishes and is let in; the stream has this id.
fn live(gateway: &Gateway, coordinator: &mut Peer, channel: &str, stream_id: &str) -> Publisher {
    let trying = publish(gateway, channel, "channel-key-0001");
    accept(coordinator, channel, stream_id);
    trying.join().unwrap().unwrap()
}

/// Says yes to a request; what was asked.
fn accept(coordinator: &mut Peer, channel: &str, stream_id: &str) -> String {
    let asked = coordinator.expect_of("PUBLISH-REQUEST", channel);
    let request = field(&asked, "Request-ID");
    coordinator.say(&format!(
        "PUBLISH-ACCEPT\nRequest-ID:{request}\nStream-Channel:{channel}\nStream-ID:{stream_id}"
    ));
    asked
}

fn end_of(channel: &str, stream_id: &str) -> String {
    format!("PUBLISH-END\nStream-Channel:{channel}\nStream-ID:{stream_id}")
}

#[test]
fn check_21_nobody_publishes_before_the_coordinator_says_yes() {
    let fake = Fake::start();
    let mut gateway = start(fake.address, &json!({"external_tls": true, "external_port": 1940}));
    let mut coordinator = fake.peer(0);
    let asked = fake.upgrades().remove(0);
    assert_eq!(asked.line, "/ws/control/rtmp");
    for (name, value) in [
        ("x-control-auth-token", token_of_contract().as_str()),
        ("x-external-ip", "127.0.0.1"),
        ("x-custom-port", "1940"),
        ("x-ssl-use", "true"),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }
    // Silence: it takes 20 s, which go by meanwhile.
    let at = gateway.rtmp;
    let silent = std::thread::spawn(move || {
        let mut client = Client::connected(at, "slow");
        let stream = client.create_stream();
        let words = ["channel-key-0001", "live"].map(Amf::text);
        let values = [[Amf::text("publish"), Amf::Number(0.0), Amf::Null].as_slice(), &words].concat();
        client.command(stream, &values).unwrap();
        // A client of a test waits for 15 s.
        std::thread::sleep(secs(12));
        client.status("NetStream.Publish.Start").map(|()| client)
    });
    let silence = coordinator.expect_of("PUBLISH-REQUEST", "slow");
    let trying = publish(&gateway, "c1", "channel-key-0001");
    let request = coordinator.expect_of("PUBLISH-REQUEST", "c1");
    assert_eq!(
        (field(&request, "Stream-Key").as_str(), field(&request, "User-IP").as_str()),
        ("channel-key-0001", "127.0.0.1")
    );
    std::thread::sleep(secs(1));
    assert!(!trying.is_finished(), "not before the answer");
    let number = field(&request, "Request-ID");
    coordinator.say(&format!("PUBLISH-ACCEPT\nRequest-ID:{number}\nStream-Channel:c1\nStream-ID:id-1"));
    let publisher = trying.join().unwrap().unwrap();
    publisher.wait_for_more(20);
    // No.
    let denied = publish(&gateway, "c2", "channel-key-0002");
    let number = field(&coordinator.expect_of("PUBLISH-REQUEST", "c2"), "Request-ID");
    coordinator.say(&format!("PUBLISH-DENY\nRequest-ID:{number}\nStream-Channel:c2"));
    assert_eq!(code(denied), "NetStream.Publish.BadName");
    assert_eq!(code(publish(&gateway, "c1", "channel-key-0001")), "NetStream.Publish.BadName", "it is taken");
    assert_eq!(code(silent), "NetStream.Publish.BadName");
    // A yes that comes too late.
    let number = field(&silence, "Request-ID");
    coordinator.say(&format!("PUBLISH-ACCEPT\nRequest-ID:{number}\nStream-Channel:slow\nStream-ID:late"));
    coordinator.expect(&end_of("slow", "late"));
    publisher.wait_for_more(20);
    publisher.finish();
    coordinator.expect(&end_of("c1", "id-1"));
    assert_eq!(coordinator.count("PUBLISH-END"), 0, "once");
    let log = gateway.process().log();
    for secret in ["channel-key-0001", "channel-key-0002", SECRET] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// Only a subject: clocks of appliances may be wrong.
fn token_of_contract() -> String {
    let made = token(SECRET, &json!({"sub": "rtmp-control"}));
    // The order within the header is the maker's own.
    let (_, rest) = made.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    let signed = format!("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.{claims}");
    crate::coordinator::peers::signed(SECRET, &signed)
}

#[test]
fn check_22_23_kills_and_players() {
    let fake = Fake::start();
    let gateway = start(fake.address, &json!({}));
    let mut coordinator = fake.peer(0);
    // It comes before the publisher, and waits.
    let early = play(&gateway, "c1", "channel-key-0001?cache=clear");
    for (nth, id) in ["id-0", "*", ""].into_iter().enumerate() {
        let stream_id = format!("id-{nth}");
        let publisher = live(&gateway, &mut coordinator, "c1", &stream_id);
        if nth == 0 {
            assert_eq!(code(play(&gateway, "c1", "wrong-key-0001")), "NetStream.Play.StreamNotFound");
        }
        let probe = play(&gateway, "c1", "channel-key-0001").join().unwrap().unwrap();
        probe.wait_for_more(20);
        drop(probe);
        let reader = play(&gateway, "c1", "channel-key-0001?cache=clear").join().unwrap().unwrap();
        reader.wait_for_more(20);
        coordinator.say("STREAM-KILL\nStream-Channel:c1\nStream-ID:another");
        coordinator.say("STREAM-KILL\nStream-Channel:c9\nStream-ID:*");
        publisher.wait_for_more(30);
        assert_eq!(coordinator.count("PUBLISH-END"), 0, "it was not meant");
        coordinator.say(&format!("STREAM-KILL\nStream-Channel:c1\nStream-ID:{id}"));
        coordinator.expect(&end_of("c1", &stream_id));
        wait::until_true("players to be ended", secs(60), || reader.is_closed());
        assert_eq!(coordinator.count("PUBLISH-END"), 0, "once");
    }
    let early = early.join().unwrap().expect("the one that came early");
    wait::until_true("it to be ended, too", secs(60), || early.is_closed());
    assert!(early.got() > 0);
    // Encoders elsewhere are not let in by the key alone.
    let gateway = start(fake.address, &json!({"play_allow": []}));
    let mut coordinator = fake.peer(1);
    let _publisher = live(&gateway, &mut coordinator, "c1", "id");
    assert_eq!(code(play(&gateway, "c1", "channel-key-0001")), "NetStream.Play.StreamNotFound");
}

#[test]
fn check_24_a_lost_coordinator_is_found_again_and_publishers_go_or_stay() {
    let fake = Fake::start();
    let gateway = start(fake.address, &json!({}));
    let staying = start(fake.address, &json!({"grace": "10m"}));
    let mut peers = [fake.peer(0), fake.peer(1)];
    // Which of the two came first is not known.
    let first = publish(&gateway, "c1", "channel-key-0001");
    let owner =
        wait::until("its request", secs(60), || peers.iter().position(|peer| peer.has("PUBLISH-REQUEST")));
    accept(&mut peers[owner], "c1", "id-1");
    let first = first.join().unwrap().unwrap();
    let stays = live(&staying, &mut peers[1 - owner], "c2", "id-2");
    let player = play(&staying, "c2", "channel-key-0001").join().unwrap().unwrap();
    player.wait_for_more(20);
    // Both sockets are cut, and for some time nothing comes of what is tried.
    fake.behave(Fault::Drops);
    drop(peers);
    wait::until_true("the publisher to be sent away", secs(60), || first.is_closed());
    assert_eq!(
        code(publish(&staying, "c3", "channel-key-0003")),
        "NetStream.Publish.BadName",
        "nothing fails open"
    );
    for fault in [Fault::Hangs, Fault::Garbage, Fault::ClosesAtOnce] {
        let before = fake.attempts();
        fake.behave(fault);
        wait::until_true("both to try again", secs(120), || fake.attempts() >= before + 2);
        stays.wait_for_more(20);
        player.wait_for_more(20);
    }
    let shown = |gateway: &Gateway| gateway.status()["elsewhere"]["control"].clone();
    let lost = shown(&gateway);
    assert!(lost["state"] == "connecting" && lost["error"].is_string(), "{lost}");
    let before = fake.upgrades().len();
    fake.behave(Fault::None);
    let mut peers = [fake.peer(before), fake.peer(before + 1)];
    for upgrade in &fake.upgrades()[before..] {
        assert_eq!(upgrade.header("x-control-auth-token"), token_of_contract());
        assert_eq!(upgrade.header("x-external-ip"), "127.0.0.1");
    }
    for gateway in [&gateway, &staying] {
        wait::until_true("the status to say so", secs(30), || shown(gateway)["state"] == "up");
        assert!(shown(gateway)["error"].is_null());
    }
    // What stayed is asked for again, what went is not spoken of.
    let owner =
        wait::until("its request", secs(60), || peers.iter().position(|peer| peer.has("PUBLISH-REQUEST")));
    let asked = accept(&mut peers[owner], "c2", "id-3");
    assert_eq!(field(&asked, "Stream-Key"), "channel-key-0001");
    stays.wait_for_more(20);
    player.wait_for_more(20);
    stays.finish();
    peers[owner].expect(&end_of("c2", "id-3"));
    for peer in &mut peers {
        assert_eq!((peer.count("PUBLISH-END"), peer.count("PUBLISH-REQUEST")), (0, 0));
    }
    // And one that is denied then goes.
    let denied = live(&staying, &mut peers[owner], "c4", "id-4");
    let before = fake.upgrades().len();
    drop(peers);
    let mut peers = [fake.peer(before), fake.peer(before + 1)];
    let owner =
        wait::until("its request", secs(60), || peers.iter().position(|peer| peer.has("PUBLISH-REQUEST")));
    let number = field(&peers[owner].expect_of("PUBLISH-REQUEST", "c4"), "Request-ID");
    peers[owner].say(&format!("PUBLISH-DENY\nRequest-ID:{number}\nStream-Channel:c4"));
    wait::until_true("it to be sent away", secs(60), || denied.is_closed());
}

#[test]
fn check_20_a_coordinator_that_falls_silent_is_given_up_and_found_again() {
    let (fake, files) = (Fake::start(), Scratch::new());
    let url = format!("ws://{}/", fake.address);
    let gateway = Gateway::start(json!({"compat": {
        "control": {"enabled": true, "url": url, "secret": SECRET, "silence": "3s", "play_allow": ["127.0.0.0/8"]},
        "encoder": {"enabled": true, "url": url, "secret": SECRET, "silence": "3s", "capacity": 2, "segment": "1s",
            "folder": files.path()},
    }}));
    let sockets = |from: usize| {
        let (first, second) = (fake.peer(from), fake.peer(from + 1));
        let is_encoder = fake.upgrades()[from].line == "/ws/control/hls";
        let (server, mut encoder) = if is_encoder { (second, first) } else { (first, second) };
        assert_eq!(encoder.expect(""), "REGISTER\nCapacity:2");
        wait::until_true("both to be up", secs(30), || {
            let shown = gateway.status()["elsewhere"].clone();
            ["control", "encoder"].iter().all(|part| shown[part]["state"] == "up")
        });
        (server, encoder)
    };
    let encode = |encoder: &mut Peer, stream_id: &str| {
        encoder.say(&format!(
            "ENCODE-START\nStream-Channel:c1\nStream-ID:{stream_id}\nStream-Source-Type:RTMP\nResolutions:ORIGINAL\n\
             Stream-Source-URI:rtmp://{}/c1/channel-key-0001\nRecord:False\nPreviews:False",
            gateway.rtmp
        ));
        encoder.expect(&format!("STREAM-AVAILABLE\nStream-Channel:c1\nStream-ID:{stream_id}\n"));
    };
    let (mut server, mut encoder) = sockets(0);
    let publisher = live(&gateway, &mut server, "c1", "id-1");
    encode(&mut encoder, "id-1");
    // One that speaks is kept for longer than one that does not.
    for peer in [&mut server, &mut encoder] {
        (0..4).for_each(|_| drop(peer.expect("HEARTBEAT")));
        assert!(!peer.is_closed());
        peer.be_silent();
    }
    wait::until_true("both sockets to be closed", secs(60), || {
        // It still answers and asks, as a computer does whose program is stuck: that is no message.
        [&mut server, &mut encoder].into_iter().for_each(Peer::ping);
        server.is_closed() && encoder.is_closed()
    });
    wait::until_true("the publisher to be sent away", secs(30), || publisher.is_closed());
    assert_eq!(server.count("PUBLISH-END"), 0, "the stream ended with its socket");
    // Both come back by themselves, speak of nothing that was, and work.
    let (mut server, mut encoder) = sockets(2);
    let publisher = live(&gateway, &mut server, "c1", "id-2");
    encode(&mut encoder, "id-2");
    publisher.finish();
    assert_eq!(server.expect("PUBLISH-END"), end_of("c1", "id-2"));
    let closed = encoder.expect("STREAM-CLOSED");
    assert!(closed.starts_with("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:id-2"), "{closed}");
}

#[test]
fn a_gateway_under_another_gateway() {
    let app = App::start();
    // The other one must come back where it was.
    let port = own_address();
    let above = |require_encoder: bool| {
        let more = json!({"listen": [port.to_string()], "require_encoder": require_encoder});
        let config = settings(&app, &more);
        Gateway::start_in(Arc::new(Scratch::new()), config, |_| {})
    };
    let mut coordinator = above(true);
    let report = |coordinator: &Gateway| {
        let headers = [("Authorization", "Basic dTpw")];
        http::request(coordinator.coordinator.unwrap(), "GET", "/commands/report", &headers, b"").json()
    };
    let cameras = json!({"yard": {"mountpoint": "gate", "key": "camera-key-0001"}});
    let gateway = start(port, &json!({"grace": "10m", "cameras": cameras}));
    let mut encoder = Peer::encoder(&coordinator, -1);
    wait::until_true("both to be known", secs(60), || {
        let shown = report(&coordinator);
        shown["encoders"].as_array().unwrap().len() == 1
            && shown["streamingServers"].as_array().unwrap().len() == 2
    });
    app.answer("/key bad", "403 No", 1);
    assert_eq!(code(publish(&gateway, "bad", "wrong-key-0001")), "NetStream.Publish.BadName");
    let publisher = publish(&gateway, "c1", "channel-key-0001").join().unwrap().unwrap();
    let asked = &app.asked("/key", "c1")[0];
    assert_eq!(
        (asked.header("x-streaming-key"), asked.header("x-user-ip")),
        ("channel-key-0001", "127.0.0.1")
    );
    // The encoder comes to where it was told.
    let uri = field(&encoder.expect("ENCODE-START\nStream-Channel:c1"), "Stream-Source-URI");
    assert_eq!(uri, format!("rtmp://{}/c1/channel-key-0001", gateway.rtmp));
    let player = play(&gateway, "c1", "channel-key-0001").join().unwrap().unwrap();
    player.wait_for_more(20);
    // A camera: here somebody publishes to its mountpoint.
    let (mut client, stream) = Client::publishing(gateway.rtmp, "gate").unwrap();
    client.set_chunk_len(4096).unwrap();
    let camera = Publisher::with(client, stream, "gate", Fixture::h264_aac(6).tags(), 0, End::Polite);
    let uri = field(&encoder.expect("ENCODE-START\nStream-Channel:yard"), "Stream-Source-URI");
    assert_eq!(uri, format!("rtmp://{}/yard/camera-key-0001", gateway.rtmp));
    let yard = play(&gateway, "yard", "camera-key-0001").join().unwrap().unwrap();
    yard.wait_for_more(20);
    assert_eq!(code(publish(&gateway, "yard", "camera-key-0001")), "NetStream.Publish.BadName");
    // It sends the camera's players away, not the camera.
    let headers = [("Authorization", "Basic dTpw"), ("x-streaming-channel", "yard"), ("x-streaming-id", "*")];
    let closed = http::request(coordinator.coordinator.unwrap(), "POST", "/commands/close", &headers, b"");
    assert_eq!(closed.status, 200);
    encoder.expect("ENCODE-STOP\nStream-Channel:yard");
    wait::until_true("the camera's player to be ended", secs(60), || yard.is_closed());
    camera.wait_for_more(20);
    // Killed and started again: what was authorised goes on, and is known again.
    coordinator.process().kill();
    player.wait_for_more(20);
    drop(coordinator);
    let coordinator = above(false);
    let known = |channel: &str| {
        let shown = report(&coordinator);
        let streams = shown["activeStreams"].as_array().unwrap().iter();
        streams.filter(|stream| stream["channel"] == channel).count() == 1
    };
    for channel in ["c1", "yard"] {
        wait::until_true(channel, secs(120), || known(channel));
    }
    publisher.wait_for_more(20);
    player.wait_for_more(20);
    camera.finish();
    wait::until_true("the camera's end", secs(60), || !known("yard"));
    assert!(known("c1"));
    publisher.finish();
    wait::until_true("no stream", secs(60), || report(&coordinator)["activeStreams"] == json!([]));
}

#[test]
fn check_24_25_a_killed_gateway_begins_from_nothing_under_a_coordinator_in_trouble() {
    let (fake, state, files) = (Fake::start(), Arc::new(Scratch::new()), Scratch::new());
    let start = || {
        let url = format!("ws://{}/", fake.address);
        let config = json!({"compat": {
            "control": {"enabled": true, "url": url, "secret": SECRET, "play_allow": ["127.0.0.0/8"],
                "external_ip": "127.0.0.1", "grace": "10m"},
            "encoder": {"enabled": true, "url": url, "secret": SECRET, "capacity": 2, "segment": "1s",
                "folder": files.path()},
        }});
        Gateway::start_in(state.clone(), config, |_| {})
    };
    // The streaming server's socket, and the encoder's, which says at once what it can take.
    let sockets = |from: usize| {
        let (first, second) = (fake.peer(from), fake.peer(from + 1));
        let is_encoder = fake.upgrades()[from].line == "/ws/control/hls";
        let (server, mut encoder) = if is_encoder { (second, first) } else { (first, second) };
        assert_eq!(encoder.expect(""), "REGISTER\nCapacity:2");
        (server, encoder)
    };
    let encode = |gateway: &Gateway, encoder: &mut Peer| {
        encoder.say(&format!(
            "ENCODE-START\nStream-Channel:c1\nStream-ID:id-1\nStream-Source-Type:RTMP\nResolutions:ORIGINAL\n\
             Stream-Source-URI:rtmp://{}/c1/channel-key-0001\nRecord:True\nPreviews:False",
            gateway.rtmp
        ));
        let told = encoder.expect("STREAM-AVAILABLE\nStream-Channel:c1\nStream-ID:id-1\n");
        files.join(&field(&told, "Index-file"))
    };
    let mut gateway = start();
    let (mut server, mut encoder) = sockets(0);
    let publisher = live(&gateway, &mut server, "c1", "id-1");
    let list = encode(&gateway, &mut encoder);
    // One more is being asked about when it is killed.
    let asked = publish(&gateway, "c2", "channel-key-0002");
    server.expect_of("PUBLISH-REQUEST", "c2");
    gateway.process().kill();
    drop((gateway, publisher, asked, server, encoder));
    // It comes up without the coordinator, and lets nobody in.
    fake.behave(Fault::Hangs);
    let before = fake.attempts();
    let gateway = start();
    for fault in [Fault::Hangs, Fault::Garbage, Fault::ClosesAtOnce] {
        let before = if fault == Fault::Hangs { before } else { fake.attempts() };
        fake.behave(fault);
        wait::until_true("both to try", secs(120), || fake.attempts() >= before + 2);
        assert_eq!(code(publish(&gateway, "c1", "channel-key-0001")), "NetStream.Publish.BadName");
    }
    for part in ["control", "encoder"] {
        wait::until_true("the status to say so", secs(30), || {
            let shown = gateway.status()["elsewhere"][part].clone();
            shown["state"] == "connecting" && shown["error"].is_string()
        });
    }
    fake.behave(Fault::None);
    let (mut server, mut encoder) = sockets(2);
    assert_eq!(
        server.count("PUBLISH-REQUEST") + server.count("PUBLISH-END"),
        0,
        "it knows nothing of before"
    );
    assert_eq!(encoder.count("STREAM-AVAILABLE") + encoder.count("STREAM-CLOSED"), 0);
    // The same stream again: what is listed is there, and nothing is left half written.
    let publisher = live(&gateway, &mut server, "c1", "id-1");
    assert_eq!(encode(&gateway, &mut encoder), list);
    publisher.wait_for_more(20);
    publisher.finish();
    server.expect(&end_of("c1", "id-1"));
    encoder.expect("STREAM-CLOSED\nStream-Channel:c1\nStream-ID:id-1");
    let folder = list.parent().unwrap();
    let listed = std::fs::read_to_string(&list).unwrap();
    let segments: Vec<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(segments.first() == Some(&"0.ts") && listed.ends_with("#EXT-X-ENDLIST\n"), "{listed}");
    assert!(segments.iter().all(|name| folder.join(name).exists()), "{listed}");
    let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name.ends_with(".part")), "{names:?}");
}
