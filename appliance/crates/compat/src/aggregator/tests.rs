//! The contract's numbered checks, as far as they need no socket, and what lies between them.

use super::*;
use crate::mutation::run_with;
use crate::{CallOutcome, Reply, Request};
use fieldgate_model::config::{AggregatorCms, validate};
use fieldgate_model::status::{
    Activity, ListenerStatus, MountpointStatus, PushStatus, State, Status, StreamStatus, TrackStatus,
};
use fieldgate_model::{Command, CommandError, Config};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An aggregator without sockets: commands change its config as the gateway would.
struct Aggregator {
    snapshot: Snapshot,
    /// Commands carried out so far.
    commands: usize,
}

impl Aggregator {
    fn new() -> Self {
        Aggregator::with(json!({}))
    }

    fn with(settings: Value) -> Self {
        let config: Config = serde_json::from_value(json!({"compat": {"aggregator": settings}})).unwrap();
        assert_eq!(validate(&config), []);
        let mut status = Status { version: "1.2.3".to_owned(), ..Status::default() };
        let activity = Activity { state: State::Running, ..Activity::default() };
        status.listeners.insert("rtmp".to_owned(), ListenerStatus { activity, ..Default::default() });
        let snapshot = Snapshot {
            config: Arc::new(config),
            status,
            host_name: "gate-7".to_owned(),
            own_hosts: ["127.0.0.1", "::1", "localhost", "gate-7", "10.0.0.2"].map(str::to_owned).into(),
            rtmp_ports: vec![1935],
            pid: 77,
            uptime_seconds: 5,
            accepted: 3,
            traffic: Traffic {
                into: Rate { bits_per_second: 4_396_944, bytes: 10 },
                out: Rate { bits_per_second: 4_399_488, bytes: 20 },
            },
            cameras: Default::default(),
            clients: Vec::new(),
        };
        Aggregator { snapshot, commands: 0 }
    }

    fn request(method: &str, target: &str, body: &str) -> Request {
        let headers = [("host", "10.0.0.2:5000"), ("content-type", "application/json")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Request {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.into(),
            body: body.into(),
            peer: [10, 0, 0, 9].into(),
        }
    }

    fn carry_out(&mut self, command: &Command) -> Outcome {
        let refusal = |error: &CommandError| match error {
            CommandError::NoCamera { .. } | CommandError::NoMountpoint { .. } => Refusal::Unknown,
            CommandError::Full { .. } => Refusal::Full,
            _ => Refusal::Conflict,
        };
        match command.apply(&self.snapshot.config) {
            Ok(config) if validate(&config).is_empty() => {
                self.commands += usize::from(config != *self.snapshot.config);
                self.snapshot.config = Arc::new(config);
                Outcome::Done
            }
            Ok(_) => Outcome::Refused(Refusal::Conflict, "it would feed itself".to_owned()),
            Err(error) => Outcome::Refused(refusal(&error), error.to_string()),
        }
    }

    fn reply(&mut self, request: &Request) -> Reply {
        let mut exchange = Exchange::new(request, &self.snapshot);
        for _ in 0..40 {
            match exchange.step(&self.snapshot) {
                Step::Command(command) => exchange.handle_outcome(self.carry_out(&command)),
                Step::Reply(reply) => return reply,
            }
        }
        panic!("no reply");
    }

    fn ask(&mut self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.reply(&Self::request(method, target, &body));
        (reply.status, serde_json::from_slice(&reply.body).unwrap())
    }

    /// Must be answered 200.
    fn done(&mut self, method: &str, target: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, target, &body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Must be refused with this status and change nothing; the text is JSON of the agreed shape.
    fn refused(&mut self, method: &str, target: &str, body: Value) -> u16 {
        let before = self.snapshot.config.clone();
        let (status, answer) = self.ask(method, target, &body);
        assert!(status >= 400, "{answer}");
        assert_eq!(answer["code"], status);
        assert_eq!((&answer["type"], &answer["message"]), (&json!("error"), &answer["error"]));
        assert_eq!(self.snapshot.config, before, "refused, and changed something");
        status
    }

    fn pushes(&self, camera: &str) -> Vec<&str> {
        self.snapshot.config.mountpoints[camera].push.iter().map(|push| push.url.reveal()).collect()
    }

    fn cameras(&self) -> Vec<&str> {
        self.snapshot.config.compat.aggregator.cameras.keys().map(String::as_str).collect()
    }
}

fn stream(key: &str, app: &str, engine: &str) -> Value {
    json!({"stream_key": key, "stream_app": app, "stream_engine_IP": engine})
}

#[test]
fn check_01_a_camera_is_connected() {
    let mut box_ = Aggregator::new();
    let answer = box_.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    assert_eq!(
        answer,
        json!({"code": 200, "type": "ok", "message": "cam1 registered", "endpoint": "rtmp://10.0.0.2:1935/cam1/cam1"})
    );
    assert_eq!(box_.cameras(), ["cam1"]);
}

#[test]
fn check_02_the_hls_address_is_in_the_message() {
    let mut box_ = Aggregator::new();
    box_.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    let answer = box_.done("PUT", "/connectStream", stream("k1", "cam1", "127.0.0.1"));
    assert_eq!(answer["message"], "http://127.0.0.1:8080/hls/k1.m3u8");
    assert_eq!(box_.pushes("cam1"), ["rtmp://127.0.0.1:1935/live/k1"]);
}

#[test]
fn check_03_a_port_is_for_the_push_alone() {
    let mut box_ = Aggregator::new();
    let answer = box_.done("PUT", "/connectStream", stream("k1", "cam1", "127.0.0.1:19350"));
    assert_eq!(answer["message"], "http://127.0.0.1:8080/hls/k1.m3u8");
    assert_eq!(box_.pushes("cam1"), ["rtmp://127.0.0.1:19350/live/k1"]);
}

#[test]
fn check_05_the_same_call_again_changes_nothing() {
    let mut box_ = Aggregator::new();
    let first = box_.done("PUT", "/connectStream", stream("k1", "cam1", "127.0.0.1"));
    let commands = box_.commands;
    for _ in 0..3 {
        assert_eq!(box_.done("PUT", "/connectStream", stream("k1", "cam1", "127.0.0.1:1935")), first);
    }
    assert_eq!((box_.commands, box_.pushes("cam1").len()), (commands, 1));
}

#[test]
fn check_06_an_unknown_application_is_created_unless_strict() {
    let mut box_ = Aggregator::new();
    let request = Aggregator::request("PUT", "/connectStream", &stream("k", "ghost", "10.0.0.5").to_string());
    let exchange = Exchange::new(&request, &box_.snapshot);
    assert_eq!(exchange.registers_unasked(&box_.snapshot), Some("ghost"), "the owner logs it");
    box_.done("PUT", "/connectStream", stream("k", "ghost", "10.0.0.5"));
    assert_eq!(box_.cameras(), ["ghost"]);
    let mut strict = Aggregator::with(json!({"strict": true}));
    assert_eq!(strict.refused("PUT", "/connectStream", stream("k", "ghost", "10.0.0.5")), 404);
}

#[test]
fn check_07_a_new_camera_leaves_the_pushes_of_others_alone() {
    let mut box_ = Aggregator::new();
    box_.done("PUT", "/connectStream", stream("k1", "cam1", "10.0.0.5"));
    let before = box_.snapshot.config.mountpoints["cam1"].clone();
    box_.done("PUT", "/connectCamera", json!({"stream_app": "cam2"}));
    box_.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    assert_eq!(box_.snapshot.config.mountpoints["cam1"], before);
}

#[test]
fn check_08_a_registered_camera_is_told_its_endpoint() {
    let mut box_ = Aggregator::new();
    let answer = box_.done("POST", "/registerCamera", json!({"name": "c", "type": "plane", "thumbnail": 7}));
    assert_eq!(answer, json!({"endpoint": "rtmp://10.0.0.2:1935/c/c", "code": 200, "type": "plane"}));
    let again = box_.done("POST", "/resgisterCamera", json!({"name": "c"}));
    assert_eq!(again["type"], "plane", "as it was");
    assert_eq!(box_.done("POST", "/registerCamera", json!({"name": "d"}))["type"], "live");
    assert_eq!(box_.refused("POST", "/registerCamera", json!({"name": "c", "type": "round"})), 400);
    let mut named = Aggregator::with(json!({"address": "[2001:db8::2]:1936"}));
    let answer = named.done("POST", "/registerCamera", json!({"name": "c"}));
    assert_eq!(answer["endpoint"], "rtmp://[2001:db8::2]:1936/c/c");
}

#[test]
fn check_09_an_engines_api_port_is_not_pushed_to() {
    let mut box_ = Aggregator::new();
    box_.done("POST", "/registerCamera", json!({"name": "c", "type": "plane"}));
    let answer = box_.done("GET", "/getStream", json!({"name": "c", "se_ip": "10.0.0.5:5000"}));
    assert_eq!(answer["url"], "http://10.0.0.5:80/hls/c.m3u8");
    assert_eq!(box_.pushes("c"), ["rtmp://10.0.0.5/plane/c"]);
    // Another port is kept; the same engine again is the same push.
    box_.done("POST", "/getStream", json!({"name": "c", "se_ip": "10.0.0.6:1936"}));
    box_.done("GET", "/getStream?name=c&se_ip=10.0.0.6%3A1936", Value::Null);
    assert_eq!(box_.pushes("c"), ["rtmp://10.0.0.5/plane/c", "rtmp://10.0.0.6:1936/plane/c"]);
}

#[test]
fn check_10_a_name_alone_is_enough_with_a_configured_engine() {
    let mut box_ = Aggregator::with(json!({"engine": "mse"}));
    box_.done("POST", "/registerCamera", json!({"name": "c"}));
    assert_eq!(box_.done("GET", "/getStream", json!("c"))["url"], "http://mse:80/hls/c.m3u8");
    assert_eq!(box_.pushes("c"), ["rtmp://mse/live/c"]);
    let mut without = Aggregator::new();
    without.done("POST", "/registerCamera", json!({"name": "c"}));
    assert_eq!(without.refused("GET", "/getStream", json!("c")), 400);
}

#[test]
fn check_11_an_unknown_camera_is_named() {
    let mut box_ = Aggregator::new();
    let wanted = json!({"name": "nope", "se_ip": "10.0.0.5"});
    assert_eq!(box_.refused("GET", "/getStream", wanted.clone()), 404);
    let (_, answer) = box_.ask("GET", "/getStream", &wanted);
    assert_eq!(answer["error"], "The camera nope is not registered in this Media Aggregator.");
    let mut legacy = Aggregator::with(json!({"legacy_unknown_ok": true}));
    let answer = legacy.done("GET", "/getStream", wanted);
    assert_eq!(answer, json!({"error": "The camera nope is not registered in this Media Aggregator."}));
    assert_eq!(legacy.cameras(), [""; 0]);
}

#[test]
fn check_12_totals_are_texts_and_applications_a_number() {
    let mut box_ = Aggregator::new();
    box_.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    assert_eq!(
        box_.done("GET", "/stats", Value::Null),
        json!({
            "resource_id": "gate-7", "container_id": "gate-7", "bw_in": "4396944", "bw_out": "4399488",
            "input_conn": 1, "publishing": 0, "push_conn": 0,
        })
    );
}

#[test]
fn check_13_an_empty_aggregator_has_totals() {
    let mut box_ = Aggregator::with(json!({"resource_id": "ma-1"}));
    let answer = box_.done("GET", "/stats", Value::Null);
    assert_eq!((&answer["input_conn"], &answer["resource_id"]), (&json!(0), &json!("ma-1")));
}

#[test]
fn check_14_status_is_told_however_it_is_spelt() {
    let mut box_ = Aggregator::new();
    for path in ["/Status", "/status", "/STATUS"] {
        let answer = box_.done("GET", path, Value::Null);
        assert_eq!(answer, json!({"resource_id": "gate-7", "status": "ok"}));
    }
    box_.snapshot.status.listeners.clear();
    assert_eq!(box_.done("GET", "/status", Value::Null)["status"], "down", "never an error");
}

#[test]
fn check_15_what_is_wrong_with_a_request_is_told() {
    let mut box_ = Aggregator::new();
    assert_eq!(box_.refused("PUT", "/connectCamera", json!({"app": "x"})), 400);
    assert_eq!(box_.refused("PUT", "/connectCamera", json!({"stream_app": null})), 400);
    assert_eq!(box_.refused("PUT", "/connectCamera", json!({"stream_app": 7})), 400);
    assert_eq!(box_.refused("PUT", "/connectCamera", json!(["cam1"])), 400);
    assert_eq!(box_.refused("PUT", "/connectCamera", Value::Null), 400, "no body");
    assert_eq!(box_.refused("PUT", "/connectStream", json!({"stream_app": "a", "stream_key": "k"})), 400);
    assert_eq!(box_.refused("POST", "/registerCamera", json!("c")), 400);
    assert_eq!(box_.refused("GET", "/getStream", json!([])), 400);
    for (method, path) in [
        ("POST", "/connectCamera"),
        ("GET", "/connectCamera"),
        ("DELETE", "/connectStream"),
        ("PUT", "/registerCamera"),
        ("PUT", "/stats"),
        ("POST", "/Status"),
        ("HEAD", "/cameras"),
    ] {
        assert_eq!(box_.refused(method, path, json!({})), 405, "{method} {path}");
    }
    for path in ["/", "/connectcamera", "/connectCamera/", "/stat", "/console", "*"] {
        assert_eq!(box_.refused("GET", path, json!({})), 404, "{path}");
    }
    let broken = Aggregator::request("PUT", "/connectCamera", r#"{"stream_app": "cam1""#);
    assert_eq!(box_.reply(&broken).status, 400);
    let mut untyped = Aggregator::request("PUT", "/connectCamera", r#"{"stream_app": "cam1"}"#);
    untyped.headers.pop();
    assert_eq!(box_.reply(&untyped).status, 400);
    let reply = box_.reply(&Aggregator::request("GET", "/connectCamera", ""));
    assert!(reply.headers.contains(&("allow".to_owned(), "PUT".to_owned())));
    let body = |len: usize| format!(r#"{{"stream_app": "cam1"{}}}"#, " ".repeat(len - 22));
    assert_eq!(box_.reply(&Aggregator::request("PUT", "/connectCamera", &body(BODY_MAX))).status, 200);
    assert_eq!(box_.reply(&Aggregator::request("PUT", "/connectCamera", &body(BODY_MAX + 1))).status, 413);
}

#[test]
fn check_16_no_name_gets_into_what_it_should_not() {
    let mut box_ = Aggregator::new();
    for name in ["a; push rtmp://x", "../x", "", "a b", "a/b", "-a", "a\n", "é", "a?b", &"a".repeat(65)] {
        assert_eq!(box_.refused("PUT", "/connectCamera", json!({"stream_app": name})), 400, "{name:?}");
        assert_eq!(box_.refused("POST", "/registerCamera", json!({"name": name})), 400, "{name:?}");
        assert_eq!(box_.refused("PUT", "/connectStream", stream(name, "cam1", "10.0.0.5")), 400, "{name:?}");
        assert_eq!(box_.refused("PUT", "/connectStream", stream("k", name, "10.0.0.5")), 400, "{name:?}");
    }
    for engine in ["a b", "10.0.0.256", "h:0", "h:99999", "h/x", "u@h", "[::1", "", "h;x"] {
        assert_eq!(box_.refused("PUT", "/connectStream", stream("k", "cam1", engine)), 400, "{engine:?}");
    }
    for name in ["live", "relay"] {
        assert_eq!(box_.refused("PUT", "/connectCamera", json!({"stream_app": name})), 409, "{name}");
        assert_eq!(box_.refused("POST", "/registerCamera", json!({"name": name})), 409, "{name}");
        assert_eq!(box_.refused("PUT", "/connectStream", stream("k", name, "10.0.0.5")), 409, "{name}");
    }
    box_.done("PUT", "/connectCamera", json!({"stream_app": "a".repeat(64)}));
}

#[test]
fn check_20_without_the_token_nothing_changes() {
    let mut box_ = Aggregator::with(json!({"token": "s3cret"}));
    assert_eq!(box_.refused("PUT", "/connectCamera", json!({"stream_app": "cam1"})), 401);
    assert_eq!(box_.refused("GET", "/stats", Value::Null), 401);
    let mut request = Aggregator::request("PUT", "/connectCamera", r#"{"stream_app": "cam1"}"#);
    request.headers.push(("authorization".to_owned(), "Bearer s3cret".to_owned()));
    assert_eq!(box_.reply(&request).status, 200);
}

#[test]
fn check_21_a_disconnected_push_is_gone_and_a_repeat_is_fine() {
    let mut box_ = Aggregator::new();
    box_.done("PUT", "/connectStream", stream("k1", "cam1", "10.0.0.5"));
    box_.done("PUT", "/connectStream", stream("k1", "cam1", "10.0.0.5:1936"));
    box_.done("PUT", "/connectStream", stream("k2", "cam1", "10.0.0.6"));
    let answer = box_.done("PUT", "/disconnectStream", stream("k1", "cam1", "10.0.0.5"));
    assert_eq!(answer, json!({"code": 200, "type": "ok", "message": "disconnected"}));
    let left = ["rtmp://10.0.0.5:1936/live/k1", "rtmp://10.0.0.6:1935/live/k2"];
    assert_eq!(box_.pushes("cam1"), left);
    let again = box_.done("PUT", "/disconnectStream", stream("k1", "cam1", "10.0.0.5"));
    assert_eq!(again["message"], "not connected");
    assert_eq!(box_.refused("PUT", "/disconnectStream", stream("k1", "ghost", "10.0.0.5")), 404);
    box_.done("PUT", "/disconnectStream", json!({"stream_app": "cam1", "stream_key": "k1"}));
    assert_eq!(box_.pushes("cam1"), [left[1]]);
    box_.done("PUT", "/disconnectStream", json!({"stream_app": "cam1", "stream_engine_IP": "10.0.0.6"}));
    assert_eq!(box_.pushes("cam1"), [""; 0]);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "only differences matter")]
fn check_22_a_manager_is_told_until_it_says_200() {
    let cms: AggregatorCms =
        serde_json::from_value(json!({"address": "cms", "own_address": "10.0.0.2", "location": "hall"}))
            .unwrap();
    let start = Instant::now();
    let mut registration = Registration::new(&cms, "gate-7", start).unwrap();
    assert_eq!(registration.next_timeout(), Some(start), "at once");
    let call = registration.handle_timeout(start).unwrap();
    assert_eq!((call.host.as_str(), call.port, call.target), ("cms", 50_000, "/configure"));
    assert_eq!(
        serde_json::from_slice::<Value>(&call.body).unwrap(),
        json!({
            "Aggregators": [{"name": "gate-7", "location": "hall", "ip": "10.0.0.2:5000"}],
            "StreamingEngines": [],
        })
    );
    assert_eq!(registration.handle_timeout(start), None, "one call at a time");
    let status = |status| CallOutcome::Replied(Reply { status, headers: Vec::new(), body: Vec::new() });
    let mut now = start;
    // Nothing but 200 counts.
    let outcomes = [CallOutcome::Failed("refused".to_owned()), status(503), status(201), status(204)];
    let waits = [5, 10, 20, 40, 80, 160, 300, 300, 300];
    for (nth, wait) in waits.into_iter().enumerate() {
        let (_, told) = registration.handle_reply(outcomes[nth % 4].clone(), now).unwrap_err();
        assert_eq!(told, Duration::from_secs(wait));
        let next = registration.next_timeout().unwrap();
        assert_eq!(next, now + told);
        assert_eq!(registration.handle_timeout(next - Duration::from_millis(1)), None);
        assert_eq!(registration.handle_timeout(next).as_ref(), Some(&call), "the same call");
        now = next;
    }
    assert_eq!(registration.handle_reply(status(200), now), Ok(()));
    assert!(registration.is_told());
    assert_eq!(registration.next_timeout(), None);
    assert_eq!(registration.handle_timeout(now + Duration::from_secs(9_999)), None);
}

#[test]
fn the_first_push_is_found_and_an_unknown_one_not() {
    let mut box_ = Aggregator::new();
    assert_eq!(box_.refused("GET", "/connectStream?stream_id=cam1", Value::Null), 404);
    box_.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    assert_eq!(box_.refused("GET", "/connectStream?stream_id=cam1", Value::Null), 404);
    assert_eq!(box_.refused("GET", "/connectStream", Value::Null), 400);
    box_.done("PUT", "/connectStream", stream("k1", "cam1", "10.0.0.5"));
    box_.done("PUT", "/connectStream", stream("k2", "cam1", "10.0.0.6"));
    let url = "http://10.0.0.5:8080/hls/k1.m3u8";
    assert_eq!(
        box_.done("GET", "/connectStream?stream_id=cam1", Value::Null),
        json!({"code": 200, "type": "ok", "message": url, "url": url})
    );
}

#[test]
fn the_printed_example_works_where_it_is_sent() {
    let mut box_ = Aggregator::with(json!({"strict": true}));
    let answer = box_.done("PUT", "/connectCamera", stream("k1", "cam1", "10.0.0.5"));
    assert_eq!(answer["message"], "http://10.0.0.5:8080/hls/k1.m3u8");
    assert_eq!(box_.pushes("cam1"), ["rtmp://10.0.0.5:1935/live/k1"]);
}

#[test]
fn a_managers_disconnect_is_answered_as_it_did() {
    let mut box_ = Aggregator::new();
    box_.done("PUT", "/connectStream", stream("k1", "cam1", "10.0.0.5"));
    box_.done("PUT", "/connectStream", stream("k2", "cam1", "10.0.0.5"));
    let wish = json!({"stream_id": "cam1", "Aggregator_id": 7});
    assert_eq!(box_.done("POST", "/disconnectStream", wish), json!("Stream removed successfully."));
    assert_eq!(box_.pushes("cam1"), [""; 0]);
    assert_eq!(box_.refused("POST", "/disconnectStream", json!({"stream_id": "ghost"})), 404);
    assert_eq!(box_.refused("POST", "/disconnectStream", json!({})), 400);
    box_.done("PUT", "/disconnectCamera", json!({"name": "cam1"}));
    assert_eq!(box_.cameras(), [""; 0]);
    assert_eq!(box_.refused("PUT", "/disconnectCamera", json!({"stream_app": "cam1"})), 404);
}

#[test]
fn another_type_moves_the_pushes_to_engines_alone() {
    let mut box_ = Aggregator::new();
    box_.done("POST", "/registerCamera", json!({"name": "c", "type": "plane"}));
    box_.done("GET", "/getStream", json!({"name": "c", "se_ip": "10.0.0.5"}));
    box_.done("PUT", "/connectStream", stream("k", "c", "10.0.0.6"));
    box_.done("POST", "/registerCamera", json!({"name": "c", "type": "360"}));
    assert_eq!(box_.pushes("c"), ["rtmp://10.0.0.5/360/c", "rtmp://10.0.0.6:1935/live/k"]);
    assert_eq!(box_.done("POST", "/registerCamera", json!({"name": "c", "type": "live"}))["type"], "live");
}

#[test]
fn a_transcoder_takes_the_push_and_the_engine_the_viewers() {
    let mut box_ = Aggregator::with(json!({"transcoder": "10.0.0.8"}));
    box_.done("POST", "/registerCamera", json!({"name": "c", "type": "360"}));
    let answer = box_.done("GET", "/getStream", json!({"name": "c", "se_ip": "10.0.0.5"}));
    assert_eq!(answer["url"], "http://10.0.0.5:80/hls/c.m3u8");
    assert_eq!(box_.pushes("c"), ["rtmp://10.0.0.8/360/c"]);
}

#[test]
fn a_stream_is_not_pushed_to_itself() {
    let mut box_ = Aggregator::new();
    box_.done("PUT", "/connectCamera", json!({"stream_app": "cam1"}));
    for target in ["rtmp://127.0.0.1/cam1/x", "rtmp://gate-7:1935/cam1/cam1", "rtmp://10.0.0.2/live/cam1"] {
        let wish = json!({"stream_app": "cam1", "target_url": target});
        assert_eq!(box_.refused("PUT", "/connectStream", wish), 409, "{target}");
    }
    let to_come = json!({"stream_app": "cam9", "target_url": "rtmp://localhost/cam9/cam9"});
    assert_eq!(box_.refused("PUT", "/connectStream", to_come), 409);
    // In a circle.
    box_.done(
        "PUT",
        "/connectStream",
        json!({"stream_app": "cam2", "target_url": "rtmp://127.0.0.1/cam1/a"}),
    );
    let circle = json!({"stream_app": "cam1", "target_url": "rtmp://127.0.0.1/cam2/b"});
    assert_eq!(box_.refused("PUT", "/connectStream", circle), 409);
    // Another aggregator is no circle.
    let other = json!({"stream_app": "cam1", "target_url": "rtmp://10.0.0.3:1935/cam1/cam1"});
    let answer = box_.done("PUT", "/connectStream", other.clone());
    assert_eq!(answer["message"], "http://10.0.0.3:8080/hls/cam1.m3u8");
    assert_eq!(box_.done("PUT", "/disconnectStream", other)["message"], "disconnected");
    assert_eq!(
        box_.refused("PUT", "/connectStream", json!({"stream_app": "c", "target_url": "http://h/a/b"})),
        400
    );
}

#[test]
fn cameras_and_pushes_are_counted() {
    let mut box_ = Aggregator::with(json!({"max_cameras": 2, "max_pushes": 2}));
    for key in ["a", "b"] {
        box_.done("PUT", "/connectStream", stream(key, "cam1", "10.0.0.5"));
    }
    assert_eq!(box_.refused("PUT", "/connectStream", stream("c", "cam1", "10.0.0.5")), 507);
    box_.done("PUT", "/connectCamera", json!({"stream_app": "cam2"}));
    assert_eq!(box_.refused("PUT", "/connectCamera", json!({"stream_app": "cam3"})), 507);
}

#[test]
fn a_failure_of_the_gateway_is_told() {
    for (refusal, status) in [(Refusal::Busy, 503), (Refusal::Failed, 500), (Refusal::Conflict, 409)] {
        let box_ = Aggregator::new();
        let request = Aggregator::request("PUT", "/connectCamera", r#"{"stream_app": "cam1"}"#);
        let mut exchange = Exchange::new(&request, &box_.snapshot);
        assert!(matches!(exchange.step(&box_.snapshot), Step::Command(_)));
        exchange.handle_outcome(Outcome::Refused(refusal, "why".to_owned()));
        let Step::Reply(reply) = exchange.step(&box_.snapshot) else { panic!("no reply") };
        assert_eq!(reply.status, status);
        assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap()["error"], "why");
    }
}

fn live_camera() -> Aggregator {
    let mut box_ = Aggregator::new();
    for (key, engine) in [("k1", "10.0.0.5"), ("k2", "10.0.0.6"), ("k3", "10.0.0.7")] {
        box_.done("PUT", "/connectStream", stream(key, "cam1", engine));
    }
    let tracks = vec![
        TrackStatus {
            kind: "video".into(),
            codec: "h264".into(),
            width: 640,
            height: 360,
            frame_rate: 29.97,
            ..Default::default()
        },
        TrackStatus {
            kind: "audio".into(),
            codec: "aac".into(),
            sample_rate: 48_000,
            channels: 2,
            ..Default::default()
        },
    ];
    let mut mountpoint = MountpointStatus {
        stream: Some(StreamStatus { tracks, ..Default::default() }),
        ..Default::default()
    };
    let states = [State::Running, State::Retrying, State::Waiting];
    for (push, state) in box_.snapshot.config.mountpoints["cam1"].push.iter().zip(states) {
        let activity = Activity { state, cause: Some("connection refused".to_owned()), ..Default::default() };
        let status = PushStatus { url: push.url.redacted(), enabled: true, activity, ..Default::default() };
        mountpoint.pushes.insert(push.effective_id(), status);
    }
    box_.snapshot.status.mountpoints.insert("cam1".to_owned(), mountpoint);
    let client = |connection, publishes: Option<&str>| Client {
        connection,
        app: "cam1".to_owned(),
        peer: "10.0.0.20:40000".parse().unwrap(),
        flash_ver: "FMLE/3.0 <&>".to_owned(),
        time_ms: 1_234,
        publishes: publishes.map(str::to_owned),
        audio: Rate { bits_per_second: 128_000, bytes: 1 },
        video: Rate { bits_per_second: 1_000_000, bytes: 2 },
    };
    box_.snapshot.clients = vec![client(1, Some("foo")), client(2, None)];
    box_
}

#[test]
fn the_state_of_each_push_is_shown_as_it_is() {
    let mut box_ = live_camera();
    let answer = box_.done("GET", "/cameras", Value::Null);
    let camera = &answer["cameras"][0];
    assert_eq!(
        (&camera["name"], &camera["type"], &camera["publishing"]),
        (&json!("cam1"), &json!("live"), &json!(true))
    );
    let states: Vec<(&str, &Value)> = camera["pushes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|push| (push["state"].as_str().unwrap(), &push["error"]))
        .collect();
    let refused = json!("connection refused");
    assert_eq!(states, [("live", &Value::Null), ("retrying", &refused), ("idle", &refused)]);
    assert_eq!(camera["pushes"][0]["url"], "rtmp://10.0.0.5:1935/live/k1");
    assert!(camera["pushes"][0]["since"].as_str().unwrap().ends_with('Z'));
    let totals = box_.done("GET", "/stats", Value::Null);
    assert_eq!((&totals["publishing"], &totals["push_conn"]), (&json!(1), &json!(1)));
}

#[test]
fn the_xml_has_the_old_shape_and_no_text_breaks_it() {
    let mut box_ = live_camera();
    box_.done("PUT", "/connectCamera", json!({"stream_app": "dark"}));
    for path in ["/stat", "/static/stat.xsl", "/stat?x=1"] {
        let reply = statistics(&Aggregator::request("GET", path, ""), &box_.snapshot);
        assert_eq!((reply.status, reply.headers[0].1.as_str()), (200, "text/xml"));
        let xml = String::from_utf8(reply.body).unwrap();
        for part in [
            "<rtmp><nginx_version>fieldgate 1.2.3</nginx_version>",
            "<pid>77</pid>",
            "<uptime>5</uptime>",
            "<naccepted>3</naccepted>",
            "<bw_in>4396944</bw_in>",
            "<server><application><name>cam1</name>\r\n<live><stream><name>foo</name>",
            "<bw_audio>128000</bw_audio>",
            "<bw_video>1000000</bw_video>",
            "<flashver>FMLE/3.0 &lt;&amp;&gt;</flashver>",
            "<address>10.0.0.20</address>",
            "<publishing/><active/></client>",
            "<address>10.0.0.5/live/k1</address>",
            "<flashver>ngx-local-relay</flashver>",
            "<meta><video><width>640</width>",
            "<frame_rate>30</frame_rate>",
            "<sample_rate>48000</sample_rate>",
            "<nclients>3</nclients>\r\n<publishing/><active/></stream>",
            "<application><name>dark</name>\r\n<live><nclients>0</nclients>\r\n</live>",
        ] {
            assert!(xml.contains(part), "{part} is not in\n{xml}");
        }
        assert!(!xml.contains("10.0.0.6"), "a push that is not connected is no client");
    }
    assert_eq!(statistics(&Aggregator::request("GET", "/", ""), &box_.snapshot).status, 404);
    assert_eq!(statistics(&Aggregator::request("POST", "/stat", ""), &box_.snapshot).status, 405);
    let mut stranger = Aggregator::request("GET", "/stat", "");
    stranger.peer = [8, 8, 8, 8].into();
    assert_eq!(statistics(&stranger, &box_.snapshot).status, 403);
}

#[test]
fn every_fuzz_target_holds_over_seeds_and_their_mutations() {
    let seeds: [&[u8]; 11] = [
        b"export CMS_IP=10.0.0.3\nname=a\nvendor=\"b\"\nversion=c\na_b_c_rtmp_ip=[::1]:7\nSTREAMING_ENGINE=h",
        b"PUT /connectCamera\n{\"stream_app\": \"cam1\"}",
        b"PUT /connectStream\n{\"stream_key\": \"k1\", \"stream_app\": \"cam1\", \"stream_engine_IP\": \"[::2]:19\"}",
        b"PUT /connectStream\n{\"stream_app\": \"cam1\", \"target_url\": \"rtmp://10.0.0.1:1936/app/name\"}",
        b"PUT /connectCamera\n{\"stream_key\": \"k\", \"stream_app\": \"c\", \"stream_engine_IP\": \"h\"}",
        b"GET /connectStream?stream_id=cam1",
        b"POST /registerCamera\n{\"name\": \"c\", \"type\": \"360\"}",
        b"GET /getStream?name=c&se_ip=10.0.0.5%3a5000\n{\"name\": \"c\"}",
        b"PUT /disconnectStream\n{\"stream_app\": \"cam1\"}",
        b"GET /stat",
        br#"{"cameras": [{"name": "c", "type": "plane", "streamingEngines": ["10.0.0.5", "h:5000"]}]}"#,
    ];
    let seeds: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    let targets = fuzz::TARGETS.into_iter().chain([("env_file", crate::env::env_file as fuzz::Target)]);
    for (_, target) in targets {
        target(b"");
        run_with(b"{}[]\",:/%?&=.;\\x0a", target, &seeds, 40, 0x9E37_79B9_7F4A_7C15);
    }
}
