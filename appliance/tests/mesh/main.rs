//! The gateway as a node of a mesh, with a test master: the numbered checks of the contract that need real sockets.
//! Deadlines are held by the node's core, with time handed in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![allow(clippy::disallowed_methods, reason = "real peers run in real time")]
#![allow(dead_code, reason = "the common parts are more than one target needs")]

mod bench;
#[path = "../common/mod.rs"]
mod common;

use bench::{KEY, Master, Node, TOKEN, VIEWER, code, publish, wait_for_beat};
use common::http;
use common::rtmp::Client;
use common::scratch::Scratch;
use common::wait::{self, secs};
use serde_json::json;
use std::sync::Arc;

fn tokens() -> serde_json::Value {
    json!({
        TOKEN: {"type": "BROADCASTER", "stream_id": "s1"},
        VIEWER: {"type": "VIEWER", "stream_id": "s1", "ttl": 30},
        "root-relay-key-0001": {"type": "ROOT_RELAY", "stream_id": "s1"},
    })
}

#[test]
fn check_01_to_06_announcement_role_and_heartbeat() {
    let master = Master::start();
    master.put("faults", &json!({"/announce": {"status": 500, "times": 2}}));
    master.put("modes", &json!({"*": "RR"}));
    let scratch = Arc::new(Scratch::new());
    let mut node = Node::start_in(scratch.clone(), Some(&master), json!({}));
    // It listens while the master refuses, and others are refused meanwhile.
    assert_ne!(code(publish(&node, "live", TOKEN)), "allowed");
    let announced = master.wait_for("POST", "/announce", 3);
    for call in &announced {
        assert_eq!(call["headers"]["Authorization"], KEY);
        let body = call["body"].as_object().unwrap();
        assert_eq!(body.len(), 5);
        assert!(body.values().all(|value| value.is_string()), "ports are texts: {body:?}");
        assert_eq!(body["rtmp_port"], node.gateway.rtmp.port().to_string());
        assert_eq!(body["rtmp_ip"], "127.0.0.1", "the address that the master is reached from");
    }
    let beats = master.wait_for("POST", "/heartbeat", 3);
    let mut key = master.calls("GET", "/heartbeat")[0]["reply"]["key"].clone();
    for beat in &beats {
        assert_eq!(beat["body"]["key"], key, "the key of the reply before");
        assert_eq!(beat["body"]["mode"], "root_relay");
        assert_eq!(beat["headers"]["Authorization"], announced[2]["reply"]["secret"]);
        assert_eq!(beat["headers"]["Node-ID"], announced[2]["reply"]["id"]);
        assert_eq!(beat["reply"]["status"], 0, "neither early nor late");
        key = beat["reply"]["key"].clone();
    }
    // A dead heartbeat is begun anew; a forgotten node announces itself and uses the new secret.
    master.put("faults", &json!({"/heartbeat": {"status": 410, "body": "{\"status\":3}", "times": 1}}));
    master.wait_for("GET", "/heartbeat", 2);
    master.put("forget", &json!({}));
    let announced = master.wait_for("POST", "/announce", 4);
    let begun = master.wait_for("GET", "/heartbeat", 3);
    assert_eq!(begun.last().unwrap()["headers"]["Authorization"], announced[3]["reply"]["secret"]);
    // The node's id outlives a restart.
    let uuid = announced[0]["body"]["server_uuid"].clone();
    assert!(node.gateway.stop().success());
    drop(node);
    let _again = Node::start_in(scratch, Some(&master), json!({}));
    assert_eq!(master.wait_for("POST", "/announce", 5)[4]["body"]["server_uuid"], uuid);
}

#[test]
fn check_07_08_12_25_tokens_of_broadcasters() {
    let master = Master::start();
    master.put("tokens", &tokens());
    let mut node = Node::start(&master, json!({}));
    master.wait_for("GET", "/streams", 1);
    let publisher = publish(&node, "live", TOKEN).unwrap();
    master.wait_for_event("start s1");
    node.wait_for_stream("s1", true);
    assert_eq!(code(publish(&node, "live", TOKEN)), "NetStream.Publish.BadName", "it is being published");
    publisher.finish();
    master.wait_for_event("stop s1 eof");
    let asked = master.calls("POST", "/auth").len();
    for name in [&TOKEN[..32], &format!("{}-", &TOKEN[..32]), "s1"] {
        assert_ne!(code(publish(&node, "live", name)), "allowed", "{name}");
    }
    assert_eq!(master.calls("POST", "/auth").len(), asked, "what is no token is not asked about");
    let denied = format!("{TOKEN}Z");
    assert_ne!(code(publish(&node, "live", &denied)), "allowed");
    assert_eq!(master.calls("POST", "/auth").len(), asked + 1);
    // The old hook is answered like a publisher of our own.
    let hook = |name: &str| {
        let form = format!("call=publish&app=live&name={name}&addr=192.0.2.9&clientid=7&type=live");
        http::request(node.api, "POST", "/private/publish", &[], form.as_bytes()).status
    };
    assert_eq!((hook(TOKEN), hook(&denied), hook("s1")), (200, 403, 400));
    assert_eq!(node.ask("GET", "/private/publish?call=publish", None).status, 400);
    // An ingest has no viewers and takes no nodes.
    assert_ne!(code(Client::playing(node.gateway.rtmp, &format!("s1?token={VIEWER}"))), "allowed");
    let hls = http::get(node.http, &format!("/hls/s1/index.m3u8?token={VIEWER}"));
    assert_eq!(hls.status, 403, "{}", hls.text());
    assert_eq!(code(publish(&node, "relay", "s1?key=root-relay-key-0001")), "NetStream.Publish.BadName");
    // Garbage and errors are no yes.
    for fault in
        [json!({"body": "garbage"}), json!({"status": 500}), json!({"body": "[{\"status\":\"ok\"}]"})]
    {
        master.put("faults", &json!({"/auth": fault}));
        let unseen = format!("{TOKEN}{}", fault.to_string().len());
        assert_ne!(code(publish(&node, "live", &unseen)), "allowed", "{fault}");
    }
    let log = node.log();
    let secret = master.calls("POST", "/announce")[0]["reply"]["secret"].as_str().unwrap().to_owned();
    for shown in [TOKEN, VIEWER, KEY, secret.as_str(), "root-relay-key-0001"] {
        assert!(!log.contains(shown), "{shown} is in the log");
    }
    assert!(log.contains("DEBUG"), "the log is at level debug");
}

#[test]
fn check_09_10_11_24_streams_go_by_the_tables() {
    let master = Master::start();
    master.put("tokens", &tokens());
    let ingest = Node::start(&master, json!({}));
    master.put("modes", &json!({"*": "RR", ingest.uuid(): "I"}));
    let [one, two] = [0, 1].map(|_| Node::start(&master, json!({})));
    let accept =
        json!({"s1": [{"node_id": "", "node_key": "K1", "mode": "I"}, {"node_id": "", "node_key": "K2"}]});
    let own = ingest.hop("K9");
    let table = |hops: serde_json::Value| json!({"ingest": {"s1": hops}, "accept": accept, "relay": {"s1": [own.clone()]}});
    master.put("tables", &table(json!([one.hop("K1"), own.clone()])));
    for (node, mode) in [(&ingest, "ingest"), (&one, "root_relay"), (&two, "root_relay")] {
        wait_for_beat(&master, node, mode, 2);
    }
    let publisher = publish(&ingest, "live", TOKEN).unwrap();
    one.wait_for_stream("s1", true);
    master.wait_for_event("relay_start s1");
    let feeder = one.feeder("s1");
    master.put("tables", &table(json!([one.hop("K1"), two.hop("K2")])));
    two.wait_for_stream("s1", true);
    assert_eq!(one.feeder("s1"), feeder, "the first push was not interrupted");
    for name in ["s1?key=BAD", "s1", "s1?key=K9", "BAD"] {
        assert_eq!(code(publish(&two, "relay", name)), "NetStream.Publish.BadName", "{name}");
    }
    master.put("tables", &table(json!([one.hop("K1")])));
    two.wait_for_stream("s1", false);
    assert_eq!(one.feeder("s1"), feeder);
    // The bare key is a name, too.
    let bare = publish(&two, "relay", "K2").unwrap();
    two.wait_for_stream("s1", true);
    drop(bare);
    publisher.finish();
    one.wait_for_stream("s1", false);
}

#[test]
fn check_13_14_15_16_17_viewers_of_a_relay() {
    let master = Master::start();
    master.put("tokens", &tokens());
    master.put("modes", &json!({"*": "R"}));
    master.put("routes", &json!({"s1": 202}));
    let accept = json!({"s1": [{"node_key": "K1", "mode": "R"}], "s2": [{"node_key": "K2", "mode": "RR"}]});
    master.put("tables", &json!({"accept": accept}));
    let mut node = Node::start(&master, json!({}));
    wait_for_beat(&master, &node, "relay", 2);
    let path = |stream: &str, token: &str| format!("/hls/{stream}/index.m3u8?token={token}");
    assert_eq!(http::get(node.http, "/hls/s1/index.m3u8").status, 401);
    assert_eq!(http::get(node.http, &path("s1", "not-a-good-token-00")).status, 403);
    assert_eq!(http::get(node.http, &path("s2", VIEWER)).status, 403, "good for another stream");
    // Five want what is not here: the master is asked once, and all see it when it comes.
    let http = node.http;
    let viewers: Vec<_> =
        (0..5).map(|_| std::thread::spawn(move || http::get(http, &path("s1", VIEWER)))).collect();
    assert_eq!(master.wait_for("POST", "/route", 1)[0]["body"]["stream_id"], "s1");
    let feed = publish(&node, "relay", "s1?key=K1").unwrap();
    let opened: Vec<_> = viewers.into_iter().map(|viewer| viewer.join().unwrap()).collect();
    for answer in &opened {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    assert_eq!(master.calls("POST", "/route").len(), 1);
    assert_eq!(http::get(http, &format!("/dash/s1/manifest.mpd?token={VIEWER}")).status, 200);
    let list = opened[0].text().lines().find(|line| line.contains("video.m3u8")).unwrap().to_owned();
    let list = format!("/hls/s1/{}", list.trim_start_matches("./"));
    assert_eq!(http::get(http, &list).status, 200);
    let log = node.log();
    assert_eq!(log.matches("the stream is cut into segments").count(), 1, "one for all viewers");
    let mut player = Client::playing(node.gateway.rtmp, &format!("s1?token={VIEWER}")).unwrap();
    assert!(player.tag(secs(20)).is_ok());
    // Its publisher, five by HLS, one by DASH, one by RTMP.
    let streams = node.streams();
    let shown = streams.split("<name>s1</name>").nth(1).unwrap().split("</stream>").next().unwrap();
    assert_eq!(
        (shown.matches("<client>").count(), shown.matches("<flashver>HTTP<").count()),
        (8, 6),
        "{shown}"
    );
    assert!(shown.contains("<nclients>8</nclients>") && shown.contains("<height>180</height>"), "{shown}");
    // Of two applications only the one that is named; a viewer's own is `live`, its stream's `relay`.
    let dropped = |app: &str| node.ask("GET", &format!("/control/drop/client?{app}name=s1"), None).text();
    assert_eq!(dropped("app=nowhere&"), "0");
    assert!(player.tag(secs(20)).is_ok());
    assert_eq!(dropped("app=live&"), "1", "not those of HLS and DASH");
    assert!(player.is_closed_within(secs(20)));
    assert_eq!(http::get(http, &list).status, 200);
    let mut player = Client::playing(node.gateway.rtmp, &format!("s1?token={VIEWER}")).unwrap();
    assert!(player.tag(secs(20)).is_ok());
    assert_eq!(dropped("app=relay&"), "7");
    assert!(player.is_closed_within(secs(20)));
    let again = http::get(http, &path("s1", VIEWER));
    assert_eq!(again.status, 200, "{}", again.text());
    let list = again.text().lines().find(|line| line.contains("video.m3u8")).unwrap().to_owned();
    let list = format!("/hls/s1/{}", list.trim_start_matches("./"));
    let mut player = Client::playing(node.gateway.rtmp, &format!("s1?token={VIEWER}")).unwrap();
    assert!(player.tag(secs(20)).is_ok());
    let stays = publish(&node, "relay", "s2?key=K2").unwrap();
    node.wait_for_stream("s2", true);
    // What the master does not know is said at once.
    let began = std::time::Instant::now();
    master.put("tokens", &json!({VIEWER: {"type": "VIEWER", "stream_id": "s9"}}));
    assert_eq!(http::get(http, &path("s9", VIEWER)).status, 404);
    assert!(began.elapsed() < secs(10));
    // The same role again: nothing happens. Another one: all that it forbids ends, the rest stays.
    let beats = master.calls("POST", "/heartbeat").len();
    master.wait_for("POST", "/heartbeat", beats + 2);
    let kept = node.feeder("s2");
    assert!(node.streams().contains("<name>s1</name>"));
    master.put("modes", &json!({"*": "RR"}));
    node.wait_for_stream("s1", false);
    wait::until_true("HLS to be gone", secs(20), || http::get(http, &list).status == 410);
    assert!(player.is_closed_within(secs(20)));
    assert_eq!(node.feeder("s2"), kept, "a feed of a root relay stays");
    master.wait_for_event("relay_stop s1 role");
    wait_for_beat(&master, &node, "root_relay", 2);
    drop((feed, stays));
}

#[test]
fn check_18_19_a_bad_table_and_a_dead_master_end_nothing() {
    let mut master = Master::start();
    master.put("tokens", &tokens());
    let ingest = Node::start(&master, json!({}));
    master.put("modes", &json!({"*": "RR", ingest.uuid(): "I"}));
    let root = Node::start(&master, json!({}));
    // The tables as old masters wrote them.
    let hop = root.hop("K1");
    master.put(
        "tables",
        &json!({"ingest": [{"s1": [hop]}], "accept": [{"s1": [{"node_key": "K1", "mode": "I"}]}]}),
    );
    wait_for_beat(&master, &ingest, "ingest", 2);
    wait_for_beat(&master, &root, "root_relay", 2);
    let publisher = publish(&ingest, "live", TOKEN).unwrap();
    root.wait_for_stream("s1", true);
    let feeder = root.feeder("s1");
    master.put("faults", &json!({"/streams": {"body": "garbage"}}));
    let beats = master.calls("POST", "/heartbeat").len();
    master.put("tables", &json!({}));
    master.wait_for("POST", "/heartbeat", beats + 4);
    assert_eq!(root.feeder("s1"), feeder, "garbage changes nothing");
    let port = master.address.port();
    master.process.kill();
    std::thread::sleep(secs(12));
    publisher.wait_for_more(60);
    assert_eq!(root.feeder("s1"), feeder, "what was authorised goes on");
    assert_ne!(code(publish(&ingest, "live", &format!("{TOKEN}9"))), "allowed", "nothing fails open");
    let master = Master::at(port);
    master.put("modes", &json!({"*": "RR", ingest.uuid(): "I"}));
    master.wait_for("POST", "/announce", 2);
    master.wait_for_event("start s1");
    master.wait_for_event("relay_start s1");
    master.wait_for("GET", "/streams", 2);
    drop(publisher);
}

/// All that a master is asked, with this trouble.
fn at_every_step(fault: &serde_json::Value) -> serde_json::Value {
    let steps = ["/announce", "/heartbeat", "/streams", "/auth", "/route", "/cert"];
    steps.into_iter().map(|step| (step.to_owned(), fault.clone())).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn a_master_that_hangs_is_slow_or_talks_nonsense_ends_nothing_and_lets_nobody_in() {
    let master = Master::start();
    master.put("tokens", &tokens());
    let scratch = Arc::new(Scratch::new());
    let mut ingest = Node::start_in(scratch.clone(), Some(&master), json!({}));
    master.put("modes", &json!({"*": "RR", ingest.uuid(): "I"}));
    let root = Node::start(&master, json!({}));
    let accept = json!({"s1": [{"node_key": "K1", "mode": "I"}]});
    master.put("tables", &json!({"ingest": {"s1": [root.hop("K1")]}, "accept": accept}));
    wait_for_beat(&master, &ingest, "ingest", 2);
    wait_for_beat(&master, &root, "root_relay", 2);
    let publisher = publish(&ingest, "live", TOKEN).unwrap();
    root.wait_for_stream("s1", true);
    let feeder = root.feeder("s1");
    let unseen = format!("{TOKEN}0");
    master.put("tokens", &json!({unseen.as_str(): {"type": "BROADCASTER", "stream_id": "s2"}}));
    for fault in [json!({"body": "<html>\u{0} no"}), json!({"status": 503}), json!({"delay": 25})] {
        master.put("faults", &at_every_step(&fault));
        let beats = master.calls("POST", "/heartbeat").len() + master.calls("GET", "/heartbeat").len();
        assert_ne!(code(publish(&ingest, "live", &unseen)), "allowed", "{fault}");
        publisher.wait_for_more(20);
        wait::until_true("a beat meanwhile", secs(30), || {
            master.calls("POST", "/heartbeat").len() + master.calls("GET", "/heartbeat").len() > beats
        });
        assert_eq!(root.feeder("s1"), feeder, "{fault}: what was authorised goes on");
    }
    wait::until_true("the status to say so", secs(30), || {
        let shown = ingest.gateway.status()["elsewhere"]["node"].clone();
        shown["state"] == "connecting" && shown["error"].is_string()
    });
    // Killed while the master hangs: it comes up without it, and lets nobody in.
    ingest.gateway.process().kill();
    drop((publisher, ingest));
    let ingest = Node::start_in(scratch, Some(&master), json!({}));
    assert_ne!(code(publish(&ingest, "live", &unseen)), "allowed");
    // Slow is not dead.
    master.put("tokens", &tokens());
    master.put("faults", &json!({}));
    let known = master.calls("POST", "/announce").len();
    master.wait_for("POST", "/announce", known + 1);
    wait::until_true("it to be in the mesh", secs(60), || {
        ingest.gateway.status()["elsewhere"]["node"]["state"] == "up"
    });
    master.put("slow", &json!(2));
    let publisher = publish(&ingest, "live", TOKEN).unwrap();
    root.wait_for_stream("s1", true);
    master.wait_for_event("start s1");
    publisher.finish();
}

#[test]
fn the_masters_certificate_is_shown_to_those_who_come_to_the_nodes_api() {
    let mut master = Master::start();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    master.put("certificate", &json!({"cert": chain, "key": key, "not_after": "2999-01-01T00:00:00Z"}));
    let scratch = Arc::new(Scratch::new());
    let trusted = scratch.join("trusted.pem");
    std::fs::write(&trusted, &chain).unwrap();
    let settings =
        json!({"cert_from_master": true, "tls": {"listen": ["127.0.0.1:0"], "reload_interval": "1s"}});
    // Nothing else than the master's certificate is trusted, and the API behind it is the node's.
    let is_shown = |node: &Node| {
        let status = node.gateway.status();
        let at: std::net::SocketAddr =
            status["listeners"]["mesh_node"]["addresses"][1].as_str().unwrap().parse().unwrap();
        let url = format!("https://localhost:{}/public/logs", at.port());
        let key = format!("Authorization: {KEY}");
        let args = ["-sf", "--cacert", trusted.to_str().unwrap(), "-H", &key, &url];
        let mut curl = common::process::Process::start("curl", &args);
        curl.end_within(secs(20)).success() && curl.output().contains("fieldgate.log")
    };
    let mut node = Node::start_in(scratch.clone(), Some(&master), settings.clone());
    wait::until_true("the master's certificate", secs(60), || is_shown(&node));
    assert_eq!(master.calls("GET", "/cert").len(), 1);
    // It is kept: neither a kill nor a dead master takes it away.
    master.process.kill();
    node.gateway.process().kill();
    drop(node);
    let mut node = Node::start_in(scratch, Some(&master), settings);
    assert!(is_shown(&node));
    let log = node.log();
    assert!(!log.contains("PRIVATE KEY") && !log.contains(KEY));
}

#[test]
fn check_20_21_22_the_nodes_own_api() {
    let master = Master::start();
    master.put("modes", &json!({"*": "R"}));
    master.put("faults", &json!({"/announce": {"status": 500, "times": 2}}));
    let node = Node::start(&master, json!({}));
    assert_eq!(node.ask("GET", "/public/logs", None).status, 401, "before any announcement");
    let announced = master.wait_for("POST", "/announce", 3);
    let secret = announced[2]["reply"]["secret"].as_str().unwrap().to_owned();
    master.wait_for("GET", "/streams", 1);
    for (header, status) in [
        (("NodeSecret", secret.as_str()), 200),
        (("Authorization", KEY), 200),
        (("NodeSecret", KEY), 401),
        (("Authorization", "Bearer mesh-announce-key"), 401),
        (("NodeSecret", ""), 401),
    ] {
        let answer = node.ask("GET", "/public/logs", Some(header));
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (status, Some("*")),
            "{header:?}"
        );
    }
    let with = Some(("NodeSecret", secret.as_str()));
    let chart = wait::until("three seconds", secs(30), || {
        let chart = node.ask("GET", "/public/statistics/server", with).json();
        (chart["data"]["labels"].as_array().unwrap().len() >= 3).then_some(chart)
    });
    assert_eq!(chart["message"], "Success");
    let sets = chart["data"]["datasets"].as_array().unwrap();
    let names: Vec<_> = sets.iter().map(|set| set["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["CPU%", "RAM%", "NET RX (Mbps)", "NET TX (Mbps)"]);
    assert!(sets.iter().all(|set| set["values"].as_array().unwrap().len() <= 10));
    assert_eq!(node.ask("GET", "/public/logs/..%2f..%2fetc%2fpasswd", with).status, 404);
    let log = node.ask("GET", "/public/logs/latest?end=1000", with).text();
    assert!(log.contains("mesh's master knows this node"), "{log}");
    assert!(!log.contains(&secret) && !log.contains(KEY));
    let statistics = node.ask("GET", "/public/statistics/nginx", with).json();
    assert!(statistics["rtmp"]["server"]["application"].is_array());
    // Tables that the master pushes by itself.
    let tables = json!({"version": 7, "accept": {"s1": [{"node_key": "K1", "mode": "RR"}]}}).to_string();
    let put = |body: &str| {
        http::request(
            node.api,
            "PUT",
            "/public/relay_table",
            &[("NodeSecret", secret.as_str())],
            body.as_bytes(),
        )
        .status
    };
    assert_eq!((put(&tables), put("garbage")), (204, 400));
    let publisher = publish(&node, "relay", "s1?key=K1").unwrap();
    node.wait_for_stream("s1", true);
    let dropped = node.ask("GET", "/control/drop/publisher?app=relay&name=s1", None);
    assert_eq!(dropped.text(), "1");
    node.wait_for_stream("s1", false);
    drop(publisher);
}

#[test]
fn check_23_without_a_master_nobody_is_called() {
    let master = Master::start();
    let node = Node::start_in(Arc::new(Scratch::new()), None, json!({"mode": "relay"}));
    let tables = json!({"version": 1, "accept": {"s1": [{"node_key": "K1"}]}}).to_string();
    let put =
        http::request(node.api, "PUT", "/public/relay_table", &[("Authorization", KEY)], tables.as_bytes());
    assert_eq!(put.status, 204);
    let publisher = publish(&node, "relay", "s1?key=K1").unwrap();
    node.wait_for_stream("s1", true);
    assert_ne!(code(publish(&node, "live", TOKEN)), "allowed");
    // An operator gives another role, and what it forbids ends.
    let give = |mode: &str| {
        let body = json!({"mode": mode}).to_string();
        http::request(node.api, "PUT", "/public/role", &[("Authorization", KEY)], body.as_bytes()).status
    };
    assert_eq!((give("boss"), give("relay")), (400, 204));
    publisher.wait_for_more(20);
    assert_eq!(give("ingest"), 204);
    wait::until_true("the feed to be ended", secs(20), || publisher.is_closed());
    assert_eq!(
        node.ask("GET", "/public/role", Some(("Authorization", KEY))).json(),
        json!({"mode": "ingest"})
    );
    assert!(master.calls("POST", "/announce").is_empty());
}
