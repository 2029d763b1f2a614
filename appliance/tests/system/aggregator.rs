//! The aggregator API of the running program: the contract's numbered checks that need a socket. The others are beside
//! the API's core (`fieldgate-compat`); `docs/aggregator.md` lists all.

use crate::common::address::own_address;
use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Player, Publisher};
use crate::common::http::{self, Response};
use crate::common::nginx::Nginx;
use crate::common::rtmp::Client;
use crate::common::scratch::Scratch;
use crate::common::take::Take;
use crate::common::tools::ffmpeg_publish;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn config(more: &Value) -> Value {
    let mut aggregator =
        json!({"listen": ["127.0.0.1:0"], "stat_listen": ["127.0.0.1:0"], "publish_allow": ["127.0.0.1"]});
    aggregator.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"compat": {"aggregator": aggregator}})
}

fn gateway() -> Gateway {
    Gateway::start(config(&json!({})))
}

/// What its content manager asks.
trait Manager {
    fn ask(&self, method: &str, path: &str, body: &Value) -> Response;

    /// Must be answered 200.
    fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.ask(method, path, &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    fn connect_stream(&self, key: &str, app: &str, engine: SocketAddr) -> Value {
        self.done("PUT", "/connectStream", stream(key, app, engine))
    }

    /// The state of a camera's pushes by URL.
    fn pushes(&self, camera: &str) -> Vec<(String, String)> {
        let cameras = self.done("GET", "/cameras", Value::Null);
        let all = cameras["cameras"].as_array().unwrap();
        let camera = all.iter().find(|known| known["name"] == camera).expect("it is registered");
        let text = |push: &Value, field: &str| push[field].as_str().unwrap().to_owned();
        let pushes = camera["pushes"].as_array().unwrap().iter();
        pushes.map(|push| (text(push, "url"), text(push, "state"))).collect()
    }
}

impl Manager for Gateway {
    fn ask(&self, method: &str, path: &str, body: &Value) -> Response {
        ask(self.aggregator.expect("the API is on"), method, path, body)
    }
}

fn ask(address: SocketAddr, method: &str, path: &str, body: &Value) -> Response {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let headers: &[(&str, &str)] =
        if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
    http::request(address, method, path, headers, &body)
}

fn stream(key: &str, app: &str, engine: SocketAddr) -> Value {
    json!({"stream_key": key, "stream_app": app, "stream_engine_IP": engine.to_string()})
}

/// A camera that publishes in real time.
fn camera(gateway: &Gateway, app: &str) -> Publisher {
    let mut client = Client::connected(gateway.rtmp, app);
    let stream = client.create_stream();
    client.publish(stream, app).unwrap();
    // Long enough never to repeat.
    Publisher::with(client, stream, app, Fixture::h264_aac(40).tags(), 0, End::Polite)
}

fn player(gateway: &Gateway, app: &str) -> Player {
    let mut client = Client::connected(gateway.rtmp, app);
    let stream = client.create_stream();
    client.play(stream, app).unwrap();
    Player::with(client)
}

#[test]
fn check_01_a_connected_camera_is_published_and_no_other() {
    let gateway = gateway();
    let refused = Client::open(gateway.rtmp).connect("cam1").unwrap_err();
    assert_eq!(refused.code, "NetConnection.Connect.Rejected");

    let answer = gateway.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    let url = format!("rtmp://127.0.0.1:{}/cam1/cam1", gateway.rtmp.port());
    assert_eq!((&answer["code"], &answer["endpoint"]), (&json!(200), &json!(url)));
    let mut publisher = ffmpeg_publish(&Fixture::h264_aac(6), &url);
    wait::until_true("the camera", secs(20), || {
        gateway.done("GET", "/cameras", Value::Null)["cameras"][0]["publishing"] == json!(true)
    });

    // A second publisher is told so, whatever it calls its stream.
    let mut second = Client::connected(gateway.rtmp, "cam1");
    let stream = second.create_stream();
    let refused = second.publish(stream, "other").unwrap_err();
    assert_eq!(refused.code, "NetStream.Publish.BadName");

    // What else runs is told, too: check 12 and the statistics in XML.
    let stat = gateway.aggregator_stat.unwrap();
    wait::until_true("rates", secs(10), || {
        let stats = gateway.done("GET", "/stats", Value::Null);
        assert_eq!((&stats["input_conn"], &stats["publishing"]), (&json!(1), &json!(1)));
        stats["bw_in"].as_str().unwrap().parse::<u64>().unwrap() > 0
    });
    let xml = http::get(stat, "/stat").text();
    for part in ["<application><name>cam1</name>", "<width>", "<codec>", "<publishing/>"] {
        assert!(xml.contains(part), "{part} is not in {xml}");
    }
    assert!(publisher.end_within(secs(30)).success());

    // A camera that is removed takes its publisher with it.
    let mut client = Client::connected(gateway.rtmp, "cam1");
    let stream = client.create_stream();
    wait::until_true("the name to be free", secs(20), || client.publish(stream, "cam1").is_ok());
    gateway.done("PUT", "/disconnectCamera", json!({"stream_app": "cam1"}));
    assert!(client.is_closed_within(secs(10)), "its publisher is gone");
    assert!(Client::open(gateway.rtmp).connect("cam1").is_err());
}

#[test]
fn check_03_04_05_07_21_pushes_come_and_go_beside_a_live_camera() {
    let (gateway, first, second) = (gateway(), Nginx::start(), Nginx::start());
    gateway.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    let answer = gateway.connect_stream("k1", "cam1", first.rtmp);
    assert_eq!(answer["message"], "http://127.0.0.1:8080/hls/k1.m3u8", "check 3: without the test's port");
    let player = player(&gateway, "cam1");
    let publisher = camera(&gateway, "cam1");
    first.wait_for_publisher("k1");
    publisher.wait_for_more(60);

    // Check 4: a second target, while the camera is live.
    let asked = Instant::now();
    gateway.connect_stream("k2", "cam1", second.rtmp);
    second.wait_for_publisher("k2");
    println!("a new push is accepted by its target {:?} after the call", asked.elapsed());
    assert!(asked.elapsed() < secs(5), "two seconds, and what a busy machine takes");
    // Check 5: the same again is the same push. Check 7: another camera leaves them alone.
    for _ in 0..3 {
        assert_eq!(gateway.connect_stream("k1", "cam1", first.rtmp), answer);
    }
    gateway.done("PUT", "/connectCamera", json!({"stream_app": "cam2"}));
    gateway.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    assert_eq!(gateway.pushes("cam1").len(), 2);
    publisher.wait_for_more(100);
    wait::until_true("both to be told live", secs(10), || {
        gateway.pushes("cam1").iter().all(|(_, state)| state == "live")
    });

    // Check 21: one goes, and goes at its target; camera and other push stay. A repeat is fine.
    let gone = gateway.done("PUT", "/disconnectStream", stream("k2", "cam1", second.rtmp));
    assert_eq!(gone["message"], "disconnected");
    wait::until_true("the end of k2", secs(10), || !second.is_publishing("k2"));
    assert!(first.is_publishing("k1"));
    let again = gateway.done("PUT", "/disconnectStream", stream("k2", "cam1", second.rtmp));
    assert_eq!(again["message"], "not connected");
    publisher.wait_for_more(60);
    let sent = publisher.finish();

    // The camera has gone; what comes after is the end. One publication each, without a gap.
    gateway.done("PUT", "/disconnectStream", json!({"stream_app": "cam1"}));
    sent.assert_joined_late(&first.recorded("k1"), "the first target");
    let late = second.recorded("k2");
    sent.assert_pieces(&late, "the second target");
    assert!(
        late.video.frames[0].keyframe && !late.video.headers.is_empty() && !late.audio.headers.is_empty()
    );
    let heard: Take = player.finish();
    sent.assert_joined_late(&heard, "a player of the camera");
}

#[test]
fn check_02_06_08_09_10_11_12_13_14_15_16_every_route_answers_as_it_did() {
    let gateway = Gateway::start(config(&json!({"engine": "127.0.0.9"})));
    let cameras = || {
        let known = gateway.done("GET", "/cameras", Value::Null);
        let known = known["cameras"].as_array().unwrap().iter();
        known.map(|camera| camera["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let pushed = |camera: &str| gateway.pushes(camera).into_iter().map(|(url, _)| url).collect::<Vec<_>>();
    assert_eq!(gateway.done("GET", "/stats", Value::Null)["input_conn"], 0);
    for path in ["/Status", "/status"] {
        assert_eq!(gateway.done("GET", path, Value::Null)["status"], "ok", "{path}");
    }
    gateway.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    let stats = gateway.done("GET", "/stats", Value::Null);
    assert_eq!(stats["input_conn"], 1);
    for total in ["bw_in", "bw_out"] {
        assert!(stats[total].as_str().unwrap().bytes().all(|byte| byte.is_ascii_digit()), "{stats}");
    }
    let of =
        |key: &str, app: &str| json!({"stream_key": key, "stream_app": app, "stream_engine_IP": "127.0.0.1"});
    let answer = gateway.done("PUT", "/connectStream", of("k1", "cam1"));
    assert_eq!(answer["message"], "http://127.0.0.1:8080/hls/k1.m3u8");
    gateway.done("PUT", "/connectStream", of("k2", "ghost"));
    let registered = gateway.done("POST", "/registerCamera", json!({"name": "c", "type": "plane"}));
    let endpoint = registered["endpoint"].as_str().unwrap();
    assert!(endpoint.ends_with(&format!(":{}/c/c", gateway.rtmp.port())), "{endpoint}");
    let asked = gateway.done("GET", "/getStream", json!({"name": "c", "se_ip": "127.0.0.5:5000"}));
    assert_eq!(asked["url"], "http://127.0.0.5:80/hls/c.m3u8");
    assert_eq!(pushed("c"), ["rtmp://127.0.0.5/plane/c"]);
    assert_eq!(gateway.done("GET", "/getStream", json!("c"))["url"], "http://127.0.0.9:80/hls/c.m3u8");
    assert_eq!(pushed("c").len(), 2);
    let unknown = gateway.ask("GET", "/getStream", &json!({"name": "nope", "se_ip": "127.0.0.5"}));
    assert!(unknown.status == 404 && unknown.json()["error"].as_str().unwrap().contains("nope"));
    // What is wrong is said, and changes nothing.
    let before = cameras();
    assert_eq!(before, ["c", "cam1", "ghost"]);
    assert_eq!(gateway.ask("PUT", "/connectCamera", &json!({"app": "x"})).status, 400);
    let broken = [("Content-Type", "application/json")];
    let broken =
        http::request(gateway.aggregator.unwrap(), "PUT", "/connectCamera", &broken, b"{\"stream_app\"");
    assert!(broken.status == 400 && broken.json()["code"] == 400, "{}", broken.text());
    assert_eq!(gateway.ask("POST", "/connectCamera", &json!({"stream_app": "cam3"})).status, 405);
    for name in ["a; push rtmp://x", "../x"] {
        assert_eq!(gateway.ask("PUT", "/connectCamera", &json!({"stream_app": name})).status, 400, "{name}");
    }
    assert_eq!(cameras(), before);
}

#[test]
fn check_17_what_was_answered_survives_a_kill() {
    let scratch = Arc::new(Scratch::new());
    let mut gateway = Gateway::start_in(scratch.clone(), config(&json!({})), |_| {});
    let engine: SocketAddr = "127.0.0.1:9".parse().unwrap();
    gateway.done("POST", "/registerCamera", json!({"name": "c", "type": "360"}));
    gateway.done("GET", "/getStream", json!({"name": "c", "se_ip": "10.255.255.1:5000"}));
    gateway.connect_stream("k1", "cam1", engine);
    gateway.process().kill();
    drop(gateway);
    let gateway = Gateway::start_in(scratch, config(&json!({})), |_| {});
    let names: Vec<Value> = gateway.done("GET", "/cameras", Value::Null)["cameras"]
        .as_array()
        .unwrap()
        .iter()
        .map(|camera| json!([camera["name"], camera["type"]]))
        .collect();
    assert_eq!(names, [json!(["c", "360"]), json!(["cam1", "live"])]);
    assert_eq!(gateway.pushes("c")[0].0, "rtmp://10.255.255.1/360/c");
    assert_eq!(gateway.pushes("cam1")[0].0, "rtmp://127.0.0.1:9/live/k1");
    let (stored, _) = gateway.config();
    assert!(stored["mountpoints"]["cam1"].is_object());
}

#[test]
fn check_18_twenty_calls_at_once_are_all_carried_out() {
    let gateway = Gateway::start(config(&json!({"max_pushes": 32})));
    let address = gateway.aggregator.unwrap();
    gateway.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    let calls: Vec<_> = (0..20)
        .map(|nth| {
            std::thread::spawn(move || {
                let wish = stream(&format!("k{nth}"), "cam1", "127.0.0.1:9".parse().unwrap());
                let answer = ask(address, "PUT", "/connectStream", &wish);
                assert_eq!(answer.status, 200, "{}", answer.text());
            })
        })
        .collect();
    calls.into_iter().for_each(|call| call.join().unwrap());
    let mut urls: Vec<String> = gateway.pushes("cam1").into_iter().map(|(url, _)| url).collect();
    urls.sort();
    let mut wanted: Vec<String> = (0..20).map(|nth| format!("rtmp://127.0.0.1:9/live/k{nth}")).collect();
    wanted.sort();
    assert_eq!(urls, wanted);
    // Exactly as many as may be, whoever comes first.
    let statuses: Vec<u16> = (20..40)
        .map(|nth| {
            std::thread::spawn(move || {
                ask(
                    address,
                    "PUT",
                    "/connectStream",
                    &stream(&format!("k{nth}"), "cam1", "127.0.0.1:9".parse().unwrap()),
                )
                .status
            })
        })
        .collect::<Vec<_>>()
        .into_iter()
        .map(|call| call.join().unwrap())
        .collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 12, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 507).count(), 8, "{statuses:?}");
}

#[test]
fn check_19_a_target_that_returns_gets_the_stream_and_the_camera_never_waits() {
    let (gateway, target) = (gateway(), own_address());
    gateway.connect_stream("k1", "cam1", target);
    let player = player(&gateway, "cam1");
    let publisher = camera(&gateway, "cam1");
    wait::until_true("a failed try", secs(20), || gateway.pushes("cam1")[0].1 == "retrying");
    let error = gateway.done("GET", "/cameras", Value::Null)["cameras"][0]["pushes"][0]["error"].clone();
    assert!(error.as_str().is_some_and(|error| !error.is_empty()), "why is told");
    std::thread::sleep(secs(5));
    let nginx = Nginx::at(target);
    wait::until_true("the stream at the target", secs(35), || nginx.is_publishing("k1"));
    publisher.wait_for_more(60);
    let sent = publisher.finish();
    gateway.done("PUT", "/disconnectCamera", json!({"stream_app": "cam1"}));
    sent.assert_joined_late(&player.finish(), "a player beside the dead push");
    sent.assert_pieces(&nginx.recorded("k1"), "the target");
}

#[test]
fn check_20_without_the_token_nothing_changes() {
    let gateway = Gateway::start(config(&json!({"token": "s3cret"})));
    let (before, _) = gateway.config();
    for (method, path) in [("PUT", "/connectCamera"), ("GET", "/stats"), ("GET", "/cameras")] {
        assert_eq!(gateway.ask(method, path, &json!({"stream_app": "cam1"})).status, 401, "{path}");
    }
    assert_eq!(http::get(gateway.aggregator_stat.unwrap(), "/stat").status, 401);
    assert_eq!(gateway.config().0, before);
    let headers = [("Content-Type", "application/json"), ("Authorization", "Bearer s3cret")];
    let body = br#"{"stream_app": "cam1"}"#;
    let answer = http::request(gateway.aggregator.unwrap(), "PUT", "/connectCamera", &headers, body);
    assert_eq!(answer.status, 200);
    // What is too long is told as JSON, and far longer is not even read.
    let long = [b"{\"stream_app\": \"cam1\"}".as_slice(), &vec![b' '; 16 << 10]].concat();
    for body in [&long[..(16 << 10) + 1], &vec![b' '; 64 << 10]] {
        let answer = http::request(gateway.aggregator.unwrap(), "PUT", "/connectCamera", &headers, body);
        assert_eq!(answer.status, 413);
    }
}

/// Answers each call with the next status; the last again and again.
fn manager_that_answers(statuses: &'static [u16]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let heard = calls.clone();
    std::thread::spawn(move || {
        for (nth, socket) in listener.incoming().enumerate() {
            let mut socket = socket.unwrap();
            socket.set_read_timeout(Some(secs(10))).unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !String::from_utf8_lossy(&request).contains("\"StreamingEngines\":[]}") {
                match socket.read(&mut piece) {
                    Ok(len) if len > 0 => request.extend_from_slice(&piece[..len]),
                    _ => break,
                }
            }
            heard.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
            let status = statuses.get(nth).or(statuses.last()).unwrap();
            write!(socket, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        }
    });
    (address, calls)
}

#[test]
fn check_22_a_manager_that_refuses_twice_is_asked_again_while_the_api_is_open() {
    let (manager, calls) = manager_that_answers(&[503, 500, 200]);
    let cms = json!({"address": manager.to_string(), "own_address": "10.0.0.2", "name": "gate-7", "location": "hall"});
    let gateway = Gateway::start(config(&json!({"cms": cms})));
    wait::until_true("the first call", secs(20), || !calls.lock().unwrap().is_empty());
    assert_eq!(gateway.done("GET", "/status", Value::Null)["status"], "ok", "the API is open meanwhile");
    gateway.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    wait::until_true("the third call", secs(60), || calls.lock().unwrap().len() >= 3);
    std::thread::sleep(Duration::from_secs(1));
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 3, "who was told is not told again");
    for call in calls.iter() {
        assert!(call.starts_with("POST /configure HTTP/1."), "{call}");
        assert!(call.to_ascii_lowercase().contains("content-type: application/json\r\n"), "{call}");
        let body: Value = serde_json::from_str(call.split_once("\r\n\r\n").unwrap().1).unwrap();
        let own = json!([{"name": "gate-7", "location": "hall", "ip": "10.0.0.2:5000"}]);
        assert_eq!(body, json!({"Aggregators": own, "StreamingEngines": []}));
    }
}
