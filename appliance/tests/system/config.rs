//! Changing the config over HTTP while streams run.

use crate::common::address::own_address;
use crate::common::gateway::Gateway;
use crate::common::healthy::Healthy;
use crate::common::http;
use crate::common::nginx::Nginx;
use crate::common::rtmp::Client;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

fn plain() -> Value {
    json!({ "source": { "kind": "publish" } })
}

#[test]
fn unchanged_mountpoints_lose_no_frame_while_others_change() {
    let nginx = Nginx::start();
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "push": [{ "url": nginx.url("yard") }] },
    }));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    nginx.wait_for_publisher("yard");
    for round in 0..6 {
        let (mut config, tag) = gateway.config();
        let mountpoints = config["mountpoints"].as_object_mut().unwrap();
        for name in ["a", "b", "c"] {
            if round % 2 == 0 {
                let push = json!([{ "url": format!("rtmp://{}/live/{name}", own_address()) }]);
                mountpoints.insert(name.to_owned(), json!({ "source": { "kind": "publish" }, "push": push }));
            } else {
                mountpoints.remove(name);
            }
        }
        let answer = gateway.put_config(&config, Some(&tag));
        assert_eq!(answer.status, 200, "round {round}: {}", answer.text());
        assert_ne!(gateway.config().1, tag, "a new revision");
        if round % 2 == 0 {
            assert!(Client::publishing(gateway.rtmp, "a").is_ok(), "it is there at once");
        }
        healthy.wait_for_more(20);
    }
    assert!(Client::publishing(gateway.rtmp, "a").is_err(), "what was removed is gone");
    let sent = healthy.assert_unharmed();
    drop(gateway);
    sent.assert_same(&nginx.recorded("yard"), "the push");
}

#[test]
fn condition_must_be_there_and_be_current() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": plain() }));
    let (mut config, tag) = gateway.config();
    config["mountpoints"]["more"] = plain();
    assert_eq!(gateway.put_config(&config, None).status, 428, "without a condition");
    assert_eq!(gateway.put_config(&config, Some("\"nonsense\"")).status, 412, "with a wrong one");
    assert_eq!(gateway.put_config(&config, Some(&tag)).status, 200, "with the current one");
    config["mountpoints"]["evenmore"] = plain();
    assert_eq!(gateway.put_config(&config, Some(&tag)).status, 412, "with the one before");
    assert!(gateway.config().0["mountpoints"]["evenmore"].is_null());
}

#[test]
fn invalid_configs_are_refused_with_every_problem_and_change_nothing() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": plain() }));
    let (config, tag) = gateway.config();
    let mut wrong = config.clone();
    wrong["mountpoints"]["a"] =
        json!({ "source": { "kind": "publish" }, "push": [{ "url": "http://h/live/x" }] });
    wrong["mountpoints"]["b b"] = plain();
    let answer = gateway.put_config(&wrong, Some(&tag));
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problems = answer.json()["problems"].as_array().unwrap().clone();
    assert!(problems.len() >= 2, "all problems at once: {problems:#?}");
    let text = answer.text();
    assert!(text.contains("mountpoints.a.push[0].url"), "with the path: {text}");
    for body in ["", "{", "[]", "{\"mountpoints\": 7}", "{\"nonsense\": 1}"] {
        let headers = [("Content-Type", "application/json"), ("If-Match", tag.as_str())];
        let answer = gateway.request("PUT", "/api/v1/config", &headers, body.as_bytes());
        assert!(matches!(answer.status, 400 | 422), "{body:?}: {} {}", answer.status, answer.text());
    }
    assert_eq!(gateway.config(), (config, tag), "nothing has changed");
}

#[test]
fn secrets_read_back_as_set_and_sending_that_keeps_them() {
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish", "key": "s3cret" } },
    }));
    let (mut config, tag) = gateway.config();
    assert_eq!(config["mountpoints"]["yard"]["source"]["key"], json!({ "set": true }));
    config["mountpoints"]["more"] = plain();
    let answer = gateway.put_config(&config, Some(&tag));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(Client::publishing(gateway.rtmp, "yard?key=s3cret").is_ok(), "the key still opens");
    assert!(Client::publishing(gateway.rtmp, "yard?key=").is_err());
}

#[test]
fn change_of_an_existing_upstream_waits_for_its_confirmation() {
    let (one, two) = (Nginx::start(), Nginx::start());
    let gateway = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "push": [{ "id": "up", "url": one.url("yard") }] },
    }));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    one.wait_for_publisher("yard");
    let (mut config, tag) = gateway.config();
    config["mountpoints"]["yard"]["push"][0]["url"] = json!(two.url("yard"));
    let answer = gateway.put_config(&config, Some(&tag));
    assert_eq!(answer.status, 202, "{}", answer.text());
    two.wait_for_publisher("yard");
    assert_eq!(gateway.status()["config"]["phase"], "awaiting_confirm");
    let (_, stale) = gateway.config();
    let busy = gateway.put_config(&config, Some(&stale));
    assert!(matches!(busy.status, 409 | 412), "another change must wait: {} {}", busy.status, busy.text());
    wait::until_true("the confirmation to be taken", secs(20), || {
        let answer = gateway.request("POST", "/api/v1/config/confirm", &[], b"");
        answer.status == 200
    });
    assert_eq!(gateway.status()["config"]["phase"], "confirmed");
    assert_eq!(gateway.config().0["mountpoints"]["yard"]["push"][0]["url"], json!(two.url("yard")));
    wait::until_true("the old upstream to be left", secs(10), || !one.is_publishing("yard"));
    healthy.assert_unharmed();
}

#[test]
fn change_that_nobody_confirms_is_undone() {
    let (one, two) = (Nginx::start(), Nginx::start());
    let config = json!({ "mountpoints": {
        "yard": { "source": { "kind": "publish" }, "push": [{ "id": "up", "url": one.url("yard") }] },
    } });
    let gateway = Gateway::start_in(Arc::new(Scratch::new()), config, |command| {
        command.args(["--confirm-within", "3s"]);
    });
    let healthy = Healthy::start(gateway.rtmp, "yard");
    one.wait_for_publisher("yard");
    let (before, tag) = gateway.config();
    let mut wanted = before.clone();
    wanted["mountpoints"]["yard"]["push"][0]["url"] = json!(two.url("yard"));
    assert_eq!(gateway.put_config(&wanted, Some(&tag)).status, 202);
    two.wait_for_publisher("yard");
    wait::until_true("the change to be undone", secs(30), || {
        gateway.status()["config"]["phase"] == "confirmed"
    });
    one.wait_for_publisher("yard");
    assert_eq!(gateway.config().0, before, "the config before runs again");
    assert!(gateway.status()["config"]["rolled_back"]["causes"].is_array(), "the status says so");
    healthy.assert_unharmed();
}

#[test]
fn status_health_and_metrics_tell_what_runs() {
    let gateway = Gateway::with_mountpoints(json!({ "yard": plain() }));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    healthy.wait_for_more(200);
    assert_eq!(gateway.get("/healthz").status, 200);
    let status = gateway.status();
    let yard = &status["mountpoints"]["yard"];
    assert_eq!(yard["players"], 1, "{yard:#}");
    assert!(yard["counters"]["units"].as_u64() > Some(100), "{yard:#}");
    let tracks = yard["stream"]["tracks"].as_array().expect("tracks").clone();
    let video = tracks.iter().find(|track| track["kind"] == "video").expect("a picture");
    assert_eq!((&video["width"], &video["height"]), (&json!(320), &json!(180)), "{video:#}");
    let audio = tracks.iter().find(|track| track["kind"] == "audio").expect("sound");
    assert_eq!(audio["sample_rate"], 44_100, "{audio:#}");
    let metrics = gateway.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("yard"), "{}", metrics.text());
    assert!(metrics.text().lines().any(|line| line.starts_with("# TYPE fieldgate_")), "{}", metrics.text());
    let schema = gateway.get("/api/v1/config/schema");
    assert_eq!(schema.status, 200);
    assert!(schema.json()["properties"]["mountpoints"].is_object());
    assert_eq!(gateway.get("/nonsense").status, 404);
    healthy.assert_unharmed();
}

#[test]
fn foreign_host_names_are_refused() {
    let gateway = Gateway::with_mountpoints(json!({}));
    let mut socket = TcpStream::connect(gateway.admin).unwrap();
    socket.set_read_timeout(Some(secs(20))).unwrap();
    socket
        .write_all(b"GET /api/v1/config HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(!answer.contains("mountpoints"), "{answer}");
}

#[test]
fn hostile_http_neither_kills_nor_blocks_the_api() {
    let mut gateway = Gateway::with_mountpoints(json!({ "yard": plain() }));
    let healthy = Healthy::start(gateway.rtmp, "yard");
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(1 << 20));
    let inputs: [&[u8]; 6] = [
        b"\0\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
        b"PUT /api/v1/config HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\nabc",
        b"PUT /api/v1/config HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        long.as_bytes(),
        endless.as_bytes(),
    ];
    let mut open = Vec::new();
    for input in inputs {
        let mut socket = TcpStream::connect(gateway.admin).unwrap();
        socket.set_write_timeout(Some(secs(5))).unwrap();
        drop(socket.write_all(input));
        open.push(socket);
    }
    for _ in 0..100 {
        if let Ok(mut socket) = TcpStream::connect(gateway.admin) {
            drop(socket.write_all(b"GET /api/v1/status HT"));
            open.push(socket);
        }
    }
    // Half-sent requests may hold their own places for a while, never the process or the streams.
    wait::until_true("the API to answer again", secs(60), || {
        http::try_get(gateway.admin, "/healthz").is_some_and(|answer| answer.status == 200)
    });
    gateway.assert_running();
    healthy.assert_unharmed();
}
