//! What the machine cannot encode is refused, or left out by priority.

use crate::common::gateway::Gateway;
use crate::common::http;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};

/// A camera that costs little, but more than is left where nothing is left.
fn camera(priority: u8) -> Value {
    let source = json!({ "kind": "test", "width": 160, "height": 96, "frame_rate": 15, "bitrate": 100_000 });
    json!({ "source": source, "priority": priority })
}

/// So little that one camera alone is too much.
fn hardly_any() -> Value {
    json!({ "cpu_percent": 1 })
}

fn is_live(status: &Value, name: &str) -> bool {
    status["mountpoints"][name]["stream"].is_object()
}

fn shed(status: &Value) -> Vec<&str> {
    let shed = status["capacity"]["shed"].as_array().unwrap();
    shed.iter().map(|shed| shed["mountpoint"].as_str().unwrap()).collect()
}

fn post_plan(gateway: &Gateway, config: &Value, query: &str) -> http::Response {
    let headers = [("Content-Type", "application/json")];
    let path = format!("/api/v1/plan{query}");
    gateway.request("POST", &path, &headers, config.to_string().as_bytes())
}

#[test]
fn what_does_not_fit_at_boot_is_left_out_by_priority_and_comes_back_with_room() {
    let gateway = Gateway::start(json!({
        "limits": hardly_any(),
        "mountpoints": { "roof": camera(10), "door": camera(90), "yard": camera(50) },
    }));
    let status = wait::until("the most important to be live", secs(60), || {
        let status = gateway.status();
        (is_live(&status, "door") && shed(&status).len() == 2).then_some(status)
    });
    assert_eq!(shed(&status), ["roof", "yard"], "{:#}", status["capacity"]);
    let events = status["capacity"]["events"].as_array().unwrap();
    assert!(events.len() == 2 && events.iter().all(|event| event["event"] == "load_shed"), "{events:#?}");
    for name in ["roof", "yard"] {
        let activity = &status["mountpoints"][name]["source"]["activity"];
        assert_eq!(activity["state"], "waiting", "{activity:#}");
        assert!(activity["cause"].as_str().unwrap().starts_with("left out: "), "{activity:#}");
        assert!(!is_live(&status, name), "it never ran");
    }
    let metrics = gateway.get("/metrics").text();
    assert!(metrics.contains("fieldgate_load_shed 2"), "{metrics}");

    let (mut config, tag) = gateway.config();
    config["limits"]["cpu_percent"] = 100.into();
    let answer = gateway.put_config(&config, Some(&tag));
    assert_eq!(answer.status, 200, "{}", answer.text());
    wait::until_true("all to be live", secs(60), || {
        let status = gateway.status();
        shed(&status).is_empty() && ["roof", "yard", "door"].iter().all(|name| is_live(&status, name))
    });
}

#[test]
fn a_change_that_overloads_is_refused_and_told_what_to_drop() {
    let gateway = Gateway::start(json!({ "limits": hardly_any(), "mountpoints": { "door": camera(90) } }));
    let (before, tag) = gateway.config();
    let mut config = before.clone();
    config["mountpoints"]["roof"] = camera(10);

    let plan = post_plan(&gateway, &config, "").json();
    assert_eq!(plan["load"]["measured"], true, "{plan:#}");
    assert_eq!(plan["over"][0]["mountpoint"], "roof", "{plan:#}");
    assert_eq!(plan["problems"][0]["path"], "mountpoints.roof.source", "{plan:#}");
    let text = post_plan(&gateway, &config, "?format=text").text();
    assert!(
        text.contains("too much: roof (priority 10)") && text.contains("refused: mountpoints.roof"),
        "{text}"
    );

    let answer = gateway.put_config(&config, Some(&tag));
    assert_eq!(answer.status, 422, "{}", answer.text());
    let problem = &answer.json()["problems"][0];
    assert_eq!(problem["path"], "mountpoints.roof.source", "{problem:#}");
    let remedy = problem["remedy"].as_str().unwrap();
    assert!(remedy.contains("drop this") && remedy.contains("limits.cpu_percent"), "{remedy}");
    assert_eq!(gateway.config().0, before, "nothing was applied");

    // A more important one pushes the other out of the plan, and that one is named.
    let mut config = before.clone();
    config["mountpoints"]["vault"] = camera(100);
    let answer = gateway.put_config(&config, Some(&tag));
    assert_eq!(answer.json()["problems"][0]["path"], "mountpoints.door.source", "{}", answer.text());

    // What costs nothing is taken.
    let mut config = before;
    config["mountpoints"]["yard"] = json!({ "source": { "kind": "publish" } });
    assert_eq!(gateway.put_config(&config, Some(&tag)).status, 200);
}

#[test]
fn the_plan_of_what_runs_tells_each_leg_without_secrets() {
    let gateway = Gateway::with_mountpoints(json!({
        "gate": { "source": { "kind": "rtsp", "url": "rtsp://user:s3cret@127.0.0.1:9/main" },
                  "push": [{ "url": "rtmp://127.0.0.1:9/live/gate?key=s3cret", "id": "up",
                             "accepts": { "video": ["h264"], "audio": ["aac"] } }] },
    }));
    let plan = gateway.get("/api/v1/plan").json();
    let gate = &plan["mountpoints"][0];
    assert_eq!(gate["name"], "gate");
    assert_eq!(gate["source"]["video"]["action"], "pass_or_transcode", "{gate:#}");
    let outputs: Vec<&str> =
        gate["legs"].as_array().unwrap().iter().filter_map(|leg| leg["output"].as_str()).collect();
    assert_eq!(outputs, ["players", "push"]);
    let text = gateway.get("/api/v1/plan?format=text").text();
    assert!(text.contains("gate\n  source   camera rtsp://user:***@127.0.0.1:9/main"), "{text}");
    for secret in [plan.to_string(), text] {
        assert!(!secret.contains("s3cret"), "{secret}");
    }
}
