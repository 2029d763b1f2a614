//! The survey of a site by the API: a good one, a bad one, and what can go wrong with asking.

use crate::common::gateway::{Gateway, program};
use crate::common::healthy::Healthy;
use crate::common::nginx::Nginx;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

fn ask(gateway: &Gateway, body: &Value) -> (u16, Value) {
    let headers = [("Content-Type", "application/json")];
    let answer = gateway.request("POST", "/api/v1/acceptance", &headers, body.to_string().as_bytes());
    (answer.status, answer.json())
}

fn done(gateway: &Gateway, id: &str) -> Value {
    wait::until("the survey to end", secs(60), || {
        let survey = gateway.get(&format!("/api/v1/acceptance/{id}")).json();
        (survey["phase"] == "done").then_some(survey)
    })
}

fn verdict<'a>(checks: &'a Value, name: &str) -> &'a str {
    let check = checks.as_array().unwrap().iter().find(|check| check["check"] == name);
    check.unwrap_or_else(|| panic!("{name} in {checks}"))["verdict"].as_str().unwrap()
}

#[test]
fn a_survey_measures_what_is_there_and_its_certificate_is_signed() {
    let nginx = Nginx::start();
    let config = json!({"mountpoints": {
        "good": {"source": {"kind": "publish"}, "push": [{"id": "up", "url": nginx.url("good")}]},
        "none": {"source": {"kind": "publish"}, "push": [{"id": "up", "url": "rtmp://u:CANARY@127.0.0.1:9/live/none"}]},
    }});
    let scratch = Arc::new(Scratch::new());
    let mut gateway = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    let healthy = Healthy::start(gateway.rtmp, "good");
    nginx.wait_for_publisher("good");
    assert_eq!(ask(&gateway, &json!({"soak": "1s"})).0, 422);
    assert_eq!(ask(&gateway, &json!({"soak": 3})).0, 400);
    let wish = json!({"soak": "4s", "bandwidth_url": nginx.url("spare")});
    let (status, survey) = ask(&gateway, &wish);
    assert_eq!(status, 202, "{survey}");
    let id = survey["id"].as_str().unwrap().to_owned();
    assert_eq!(ask(&gateway, &wish).0, 409, "one at a time");
    let document = format!("/api/v1/acceptance/{id}/certificate.json");
    assert_eq!(gateway.get(&document).status, 409, "not yet");
    let survey = done(&gateway, &id);
    let certificate = &survey["certificate"];
    assert_eq!(certificate["verdict"], "failed", "one camera sends nothing");
    let camera = |name: &str| {
        let cameras = certificate["cameras"].as_array().unwrap();
        cameras.iter().find(|camera| camera["mountpoint"] == name).unwrap()["checks"].clone()
    };
    for check in ["delivers", "frame_rate", "gop", "silence", "codec"] {
        assert_eq!(verdict(&camera("good"), check), "passed", "{check}: {certificate}");
    }
    assert_eq!(verdict(&camera("none"), "delivers"), "failed");
    let upstreams = &certificate["upstreams"];
    assert_eq!(
        (verdict(&upstreams[0]["checks"], "delivers"), &upstreams[0]["mountpoint"]),
        ("passed", &json!("good"))
    );
    assert_eq!(verdict(&certificate["uplink"], "bandwidth"), "passed", "{certificate}");
    drop(healthy);

    let answer = gateway.get(&document);
    assert!(answer.header("content-disposition").is_some_and(|value| value.contains("attachment")));
    assert!(!answer.text().contains("CANARY"), "{}", answer.text());
    let file = scratch.join("certificate.json");
    std::fs::write(&file, &answer.body).unwrap();
    let key = gateway.get("/api/v1/device-key").json()["public_key"].as_str().unwrap().to_owned();
    let run = |file: &std::path::Path| {
        let out =
            std::process::Command::new(program()).arg("verify").arg(file).args(["--key", &key]).output();
        out.unwrap().status.success()
    };
    assert!(run(&file));
    let forged = answer.text().replace("\\\"verdict\\\":\\\"failed\\\"", "\\\"verdict\\\":\\\"passed\\\"");
    assert_ne!(forged, answer.text());
    std::fs::write(&file, forged).unwrap();
    assert!(!run(&file), "what was changed does not verify");
    let private = gateway.state().join("acceptance/device-key.der");
    assert_eq!(std::fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o600);
    let events = gateway.get("/api/v1/events").text();
    assert!(events.contains("the survey of the site failed: 2 cameras"), "{events}");

    // It is there after a restart, and the key is the same.
    assert!(gateway.stop().success());
    let gateway = Gateway::start_in(scratch, config, |_| {});
    assert_eq!(gateway.get(&document).json(), answer.json());
    assert_eq!(gateway.get("/api/v1/device-key").json()["public_key"], key.as_str());
}

#[test]
fn a_source_and_the_gateway_are_restarted_when_somebody_asks() {
    let mut gateway = Gateway::start_in(
        Arc::new(Scratch::new()),
        json!({"mountpoints": {"yard": {"source": {"kind": "publish"}}}}),
        |command| {
            command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
        },
    );
    let healthy = Healthy::start(gateway.rtmp, "yard");
    let restart = |path: &str| gateway.request("POST", path, &[], b"").status;
    assert_eq!(restart("/api/v1/mountpoints/none/restart"), 404);
    assert_eq!(restart("/api/v1/mountpoints/yard/restart"), 202);
    wait::until_true("the publisher is sent away", secs(20), || {
        gateway.status()["mountpoints"]["yard"]["stream"].is_null()
    });
    drop(healthy);
    assert_eq!(restart("/api/v1/restart"), 202);
    assert!(gateway.process().end_within(secs(30)).success());
    // Who was started by hand would not come back.
    let gateway = Gateway::start_in(Arc::new(Scratch::new()), json!({}), |command| {
        command.env_remove("INVOCATION_ID");
    });
    assert_eq!(gateway.request("POST", "/api/v1/restart", &[], b"").status, 409);
    assert_eq!(gateway.get("/healthz").status, 200);
}
