//! A fleet manager and gateways: signed bundles by every way, with mosquitto as the broker.

use crate::common::gateway::{Gateway, program};
use crate::common::http::Response;
use crate::common::mosquitto::Mosquitto;
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use fieldgate_fleet::{Draft, SigningKey};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KEY_NAME: &str = "fleet-1";

/// Who signs.
struct Manager {
    key: SigningKey,
}

impl Manager {
    fn new() -> Self {
        Manager { key: SigningKey::parse(&SigningKey::generate().unwrap()).unwrap() }
    }

    fn bundle(&self, number: u64, to: Value, patch: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now = fieldgate_model::Timestamp::from_unix_millis(now as i64);
        let draft = json!({
            "number": number, "issued": now, "expires": now.plus(Duration::from_secs(3_600)), "to": to, "patch": patch,
        });
        serde_json::from_value::<Draft>(draft).unwrap().sign(KEY_NAME, &self.key).unwrap()
    }

    fn trusted_by(&self, gateway: &Gateway) {
        let ring = json!({KEY_NAME: self.key.public()}).to_string();
        let headers = [("Content-Type", "application/json"), ("If-Match", "*")];
        let answer = gateway.request("PUT", "/api/v1/fleet/keys", &headers, ring.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn everybody() -> Value {
    json!({"groups": ["all"]})
}

fn picture(width: u32) -> Value {
    json!({"kind": "test", "width": width, "height": 64, "frame_rate": 10})
}

fn device_of(gateway: &Gateway) -> String {
    gateway.get("/api/v1/fleet").json()["device"].as_str().unwrap().to_owned()
}

fn push(gateway: &Gateway, bundle: &str) -> Response {
    gateway.request("POST", "/api/v1/bundle", &[("Content-Type", "text/plain")], bundle.as_bytes())
}

fn write(scratch: &Scratch, name: &str, text: &str) -> PathBuf {
    let file = scratch.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

fn with_result(number: u64, result: &'static str) -> impl Fn(&Value) -> bool {
    move |it| it["bundle"]["number"] == number && it["bundle"]["result"] == result
}

/// The whole story of one gateway under a broker.
#[test]
fn bundles_come_by_mqtt_are_proven_by_a_new_session_and_bad_ones_go_back_by_video() {
    let (manager, mut broker, scratch) = (Manager::new(), Mosquitto::start(), Arc::new(Scratch::new()));
    let heard = broker.listen("site/#");
    let config = json!({
        "fleet": {
            "groups": ["north"],
            "mqtt": {"url": broker.url(), "topic_prefix": "site", "spread": "0s", "keep_alive": "5s", "status_interval": "2s"},
        },
        "mountpoints": {"yard": {"source": picture(96)}},
    });
    let gateway = Gateway::start_in(scratch.clone(), config, |command| {
        command.args(["--confirm-within", "15s"]);
    });
    manager.trusted_by(&gateway);
    let device = device_of(&gateway);
    let reported = format!("{device}/reported");
    heard.wait_for("presence", "/presence", |it| it == "online");
    heard.wait_for("a live picture", &reported, |it| {
        it["health"]["live"] == 1 && it["keys"] == json!([KEY_NAME])
    });
    let sessions = gateway.get("/api/v1/fleet").json()["mqtt"]["sessions"].as_u64().unwrap();

    // A change of a source is provisional: it stands, as the gateway comes back over a new session by itself.
    let desired = format!("site/{device}/desired");
    let send = |name: &str, topic: &str, bundle: &str| broker.publish(topic, &write(&scratch, name, bundle));
    let first = manager.bundle(
        10,
        json!({"devices": [device]}),
        json!({"mountpoints": {"yard": {"source": {"width": 128}}}}),
    );
    send("first", &desired, &first);
    let told = heard.wait_for("the change", &reported, with_result(10, "applied"));
    assert_eq!((told["revision"].as_u64(), told["phase"].as_str()), (Some(2), Some("confirmed")));
    let view = gateway.get("/api/v1/fleet").json();
    assert!(view["mqtt"]["sessions"].as_u64().unwrap() > sessions, "no new session: {view}");
    assert_eq!(gateway.config().0["mountpoints"]["yard"]["source"]["width"], 128);
    heard.wait_for("an event", "/events", |it| it["mountpoint"] == "yard" && it["event"] == "live");
    heard.wait_for("health", "/health", |it| it["state"] == "healthy" && it["mountpoints"] == 1);

    // A bad revision: the session is proven, the video is not there.
    let mut dead = json!({"kind": "pull", "url": "rtmp://127.0.0.1:9/live/none"});
    // A merge patch removes what a source of another kind has no use for.
    for setting in ["audio", "bitrate", "frame_rate", "height", "keyframe_interval", "microphone", "width"] {
        dead[setting] = Value::Null;
    }
    let bad =
        manager.bundle(11, json!({"groups": ["north"]}), json!({"mountpoints": {"yard": {"source": dead}}}));
    send("bad", "site/groups/north/desired", &bad);
    let told = heard.wait_for("the way back", &reported, with_result(11, "rolled_back"));
    let why = told["bundle"]["reasons"][0].as_str().unwrap();
    assert!(why.contains("source of yard delivered before the change and does not any more"), "{told}");
    assert!(told["rolled_back"]["causes"][0].as_str().unwrap().contains("yard"), "{told}");
    assert_eq!(
        (gateway.config().0["mountpoints"]["yard"]["source"]["kind"].as_str(), told["revision"].as_u64()),
        (Some("test"), Some(2))
    );

    // What must not be taken, each with its reason.
    let refused = |code: &'static str| heard.wait_for(code, &reported, |it| it["refused"]["code"] == code);
    send("replay", &desired, &first);
    assert!(refused("older")["refused"]["reason"].as_str().unwrap().contains("number 11 was taken already"));
    let nothing = json!({"limits": {}});
    send("other", &desired, &manager.bundle(20, json!({"devices": ["fg-somebody-else"]}), nothing.clone()));
    refused("other_device");
    send("forged", &desired, &Manager::new().bundle(20, everybody(), nothing.clone()));
    refused("bad_signature");
    send("same", &desired, &manager.bundle(11, everybody(), nothing.clone()));
    refused("same_number");
    send("long", &desired, &"x".repeat((1 << 20) + 1));
    refused("too_large");
    send("hole", &desired, &manager.bundle(12, everybody(), json!({"mountpoints": {"{{gate}}": {}}})));
    refused("template");
    assert_eq!(gateway.config().1, "\"2\"");

    // A broker that is down for a while: what happens meanwhile is told when it is back.
    broker.stop();
    let added = json!({"mountpoints": {"{{device_id}}": {"source": {"kind": "publish"}}}});
    let answer = push(&gateway, &manager.bundle(30, everybody(), added));
    assert_eq!(
        (answer.status, answer.json()["state"].as_str()),
        (200, Some("confirmed")),
        "{}",
        answer.text()
    );
    wait::until_true("the loss to show", secs(30), || {
        gateway.get("/api/v1/fleet").json()["mqtt"]["connected"] == false
    });
    broker.restart();
    let told = heard.wait_for("what happened meanwhile", &reported, with_result(30, "applied"));
    assert_eq!(told["revision"], 3);

    // The last will.
    drop(gateway);
    heard.wait_for("the last will", "/presence", |it| it == "offline");
}

/// Key ring and number stand outside of revisions, and outlast a restart.
#[test]
fn bundles_are_pushed_by_http_and_their_number_is_never_forgotten() {
    let (manager, scratch) = (Manager::new(), Arc::new(Scratch::new()));
    let mountpoints = json!({"yard": {"source": {"kind": "publish"}}});
    let mut gateway = Gateway::start_in(scratch.clone(), json!({"mountpoints": mountpoints}), |_| {});
    let add = |name: &str| json!({"mountpoints": {name: {"source": {"kind": "publish"}}}});
    let first = manager.bundle(5, everybody(), add("one"));
    let unknown = push(&gateway, &first);
    assert_eq!(unknown.status, 403);
    assert!(unknown.text().contains("does not know"), "{}", unknown.text());
    manager.trusted_by(&gateway);
    let taken = push(&gateway, &format!("{first}\n"));
    assert_eq!((taken.status, taken.json()["bundle"].as_u64()), (200, Some(5)), "{}", taken.text());
    assert_eq!(push(&gateway, &first).json()["state"], "known");
    // Who may not change the config may not push; nobody may do either without an account.
    let stranger = crate::common::http::request(
        gateway.admin,
        "POST",
        "/api/v1/bundle",
        &[("Content-Type", "text/plain")],
        first.as_bytes(),
    );
    assert_eq!(stranger.status, 403, "nobody has claimed it");
    assert_eq!(
        gateway.request("POST", "/api/v1/bundle", &[("Content-Type", "application/json")], b"{}").status,
        415
    );
    assert_eq!(push(&gateway, "fgb1.x").status, 422);
    assert_eq!(push(&gateway, &"x".repeat((1 << 20) + 65)).status, 413);
    let wrong = push(&gateway, &manager.bundle(6, everybody(), json!({"mountpoints": {"a b": {}}})));
    assert_eq!(wrong.status, 422);
    assert!(wrong.json()["problems"][0]["path"].as_str().unwrap().contains("a b"), "{}", wrong.text());
    let view = gateway.get("/api/v1/fleet").json();
    assert_eq!(
        (view["bundle"]["number"].as_u64(), view["bundle"]["result"].as_str()),
        (Some(6), Some("refused"))
    );

    // A provisional change is confirmed by its sender, over a new connection.
    let changed = push(&gateway, &manager.bundle(7, everybody(), json!({"admin": {"tls": null, "listen": ["127.0.0.1:0"]}, "rtmp": {"listen": ["127.0.0.1:0", "127.0.0.1:0"]}})));
    assert_eq!(
        (changed.status, changed.json()["state"].as_str()),
        (202, Some("awaiting_confirm")),
        "{}",
        changed.text()
    );
    let late = push(&gateway, &manager.bundle(8, everybody(), add("two")));
    assert_eq!(late.status, 409, "{}", late.text());
    let confirmed = gateway.request("POST", "/api/v1/config/confirm", &[], b"");
    assert_eq!(confirmed.status, 200, "{}", confirmed.text());
    wait::until_true("bundle 7 to be settled", secs(20), || {
        with_result(7, "applied")(&gateway.get("/api/v1/fleet").json())
    });

    gateway.stop();
    drop(gateway);
    let gateway = Gateway::start_in(scratch, json!({}), |_| {});
    let old = push(&gateway, &manager.bundle(6, everybody(), add("three")));
    assert_eq!(old.status, 409);
    assert!(
        old.text().contains("number 7 was taken already") || old.text().contains("number 8"),
        "{}",
        old.text()
    );
    let keys = gateway.get("/api/v1/fleet/keys");
    assert_eq!(keys.json(), json!({KEY_NAME: manager.key.public()}));
    let stale = [("Content-Type", "application/json"), ("If-Match", "\"99\"")];
    assert_eq!(gateway.request("PUT", "/api/v1/fleet/keys", &stale, b"{}").status, 412);
    assert_eq!(gateway.request("PUT", "/api/v1/fleet/keys", &stale[..1], b"{}").status, 428);
    let no_key = [("Content-Type", "application/json"), ("If-Match", keys.header("etag").unwrap())];
    assert_eq!(gateway.request("PUT", "/api/v1/fleet/keys", &no_key, br#"{"a": "short"}"#).status, 422);
    // Without the key the next one is not believed.
    assert_eq!(gateway.request("PUT", "/api/v1/fleet/keys", &no_key, b"{}").status, 200);
    assert_eq!(push(&gateway, &manager.bundle(50, everybody(), add("four"))).status, 403);
}

/// A web server with one document; keeps the heads of all questions.
fn document(text: Arc<Mutex<String>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let heads = asked.clone();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|read| read > 0) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let text = text.lock().unwrap().clone();
            let tag = format!("\"{:x}\"", text.len() * 31 + text.bytes().map(usize::from).sum::<usize>());
            let answer = if head.contains(&format!("If-None-Match: {tag}")) {
                format!("HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n")
            } else {
                format!("HTTP/1.1 200 OK\r\nETag: {tag}\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            };
            heads.lock().unwrap().push(head);
            socket.write_all(answer.as_bytes()).ok();
        }
    });
    (format!("http://{address}"), asked)
}

#[test]
fn bundles_are_pulled_by_https_once_and_the_next_question_proves_the_way() {
    let manager = Manager::new();
    let text = Arc::new(Mutex::new(String::new()));
    let (url, asked) = document(text.clone());
    *text.lock().unwrap() = "no bundle at all".to_owned();
    let config = json!({
        "fleet": {"pull": {"url": format!("{url}/desired/{{device_id}}?key=CANARY"), "token": "TOKEN", "interval": "10s"}},
        "mountpoints": {"yard": {"source": picture(96)}},
    });
    let gateway = Gateway::start(config);
    let device = device_of(&gateway);
    let view = || gateway.get("/api/v1/fleet").json();
    wait::until_true("the first question", secs(60), || view()["refused"]["code"] == "not_a_bundle");
    let first = asked.lock().unwrap()[0].clone();
    assert!(first.starts_with(&format!("GET /desired/{device}?key=CANARY HTTP/1.0")), "{first}");
    assert!(first.contains("Authorization: Bearer TOKEN") && !first.contains("If-None-Match"), "{first}");
    manager.trusted_by(&gateway);
    wait::until_true("the source to deliver", secs(60), || {
        gateway.status()["mountpoints"]["yard"]["stream"].is_object()
    });
    // Provisional: confirmed by the next question, without anybody.
    let change = json!({"mountpoints": {"yard": {"source": {"width": 160}}}});
    *text.lock().unwrap() = manager.bundle(3, everybody(), change);
    wait::until_true("the change", secs(90), || with_result(3, "applied")(&view()));
    let before = asked.lock().unwrap().len();
    wait::until_true("a question that was answered before", secs(60), || {
        asked.lock().unwrap()[before..].iter().any(|head| head.contains("If-None-Match: "))
    });
    assert_eq!(view()["pull"]["connected"], true);
    assert_eq!(gateway.config().0["mountpoints"]["yard"]["source"]["width"], 160);
}

#[test]
fn a_stick_changes_streams_but_neither_network_nor_admin() {
    let (manager, stick) = (Manager::new(), Scratch::new());
    let gateway = Gateway::start(json!({
        "fleet": {"folder": stick.path()},
        "mountpoints": {"yard": {"source": {"kind": "publish"}}},
    }));
    manager.trusted_by(&gateway);
    let result = stick.join(&format!("fieldgate-{}.txt", device_of(&gateway)));
    let put = |bundle: &str| {
        write(&stick, "part", bundle);
        std::fs::rename(stick.join("part"), stick.join("fieldgate.fgb")).unwrap();
    };
    let says = |wanted: &str| {
        wait::until_true(wanted, secs(60), || {
            std::fs::read_to_string(&result).is_ok_and(|text| text.contains(wanted))
        });
    };
    put(&manager.bundle(1, everybody(), json!({"mountpoints": {"new": {"source": {"kind": "publish"}}}})));
    says("applied: revision 2");
    put(&manager.bundle(2, everybody(), json!({"admin": {"tls": {"listen": ["127.0.0.1:0"]}}})));
    says("admin.listen is not changed by a bundle from a folder");
    put(&manager.bundle(3, everybody(), json!({"fleet": {"folder": "/elsewhere"}})));
    says("fleet is not changed by a bundle from a folder");
    put("what is no bundle");
    says("refused: this is no bundle");
    // Health alone confirms what is provisional; there was no video before, so there is none to wait for.
    put(&manager.bundle(4, everybody(), json!({"mountpoints": {"yard": {"source": {"key": "k"}}}})));
    says("applied: revision 3");
    assert_eq!(gateway.config().1, "\"3\"");
}

/// A gateway of its own folder without any config.
fn fresh(scratch: &Scratch, provision: &str) -> Process {
    let (state, file) = (scratch.join("state"), write(scratch, "provision.json", provision));
    let args = ["run", "--state", state.to_str().unwrap(), "--provision-file", file.to_str().unwrap()];
    let args = [&args[..], &["--rtmp-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]].concat();
    Process::start(&program(), &args)
}

#[test]
fn a_provisioning_file_gives_a_new_gateway_to_its_fleet_without_a_phone() {
    let (manager, broker, scratch) = (Manager::new(), Mosquitto::start(), Scratch::new());
    let heard = broker.listen("fieldgate/#");
    let file = json!({
        "provision": 1,
        "keys": {KEY_NAME: manager.key.public()},
        "fleet": {"groups": ["new"], "mqtt": {"url": broker.url(), "spread": "0s"}},
        "claim": "closed",
    });
    let mut gateway = fresh(&scratch, &file.to_string());
    heard
        .wait_for("the new gateway", "/reported", |it| it["groups"] == json!(["new"]) && it["revision"] == 1);
    let bundle = manager.bundle(
        1,
        json!({"groups": ["new"]}),
        json!({"mountpoints": {"gate": {"source": {"kind": "publish"}}}}),
    );
    broker.publish("fieldgate/groups/new/desired", &write(&scratch, "bundle", &bundle));
    heard.wait_for("its first config", "/reported", with_result(1, "applied"));
    gateway.assert_running();
    let code =
        Process::start(&program(), &["claim-code", "--state", scratch.join("state").to_str().unwrap()])
            .finish(secs(20));
    assert!(!code.success(), "it is the fleet's, there is no code");
}

#[test]
fn a_torn_or_hostile_provisioning_file_is_refused_in_words_and_the_gateway_starts() {
    for (file, said) in [
        ("{\"provision\": 1, \"keys\": {", "it is no provisioning file"),
        ("{\"provision\": 1, \"keys\": {}}", "keys must name at least one key"),
    ] {
        let scratch = Scratch::new();
        let mut gateway = fresh(&scratch, file);
        wait::until_true("it to listen", secs(60), || gateway.output().contains("listening"));
        gateway.assert_running();
        assert!(gateway.log().contains(said), "{}", gateway.log());
        let code = Process::run(
            &program(),
            &["claim-code", "--state", scratch.join("state").to_str().unwrap()],
            secs(20),
        );
        assert!(code.trim().len() > 7, "it is claimed by its code as ever: {code}");
    }
}

/// The reference script with few gateways; `scripts/slow fleet` runs it with twenty.
#[test]
fn the_demo_of_a_fleet_holds_with_three_gateways() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/fleet-demo");
    let args =
        [script, "--gateways", "3", "--program", &program(), "--spread", "2", "--confirm-within", "12"];
    let said = Process::run("python3", &args, secs(400));
    assert!(said.contains("summary"), "{said}");
}
