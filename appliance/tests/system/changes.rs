//! Seven streams stay whole while an eighth is changed again and again.
//!
//! `FIELDGATE_CHANGES` says how often; `scripts/slow changes` a thousand times.

use crate::common::gateway::Gateway;
use crate::common::healthy::Healthy;
use crate::common::http::Response;
use serde_json::{Value, json};
use std::time::Instant;

const UNTOUCHED: usize = 7;

fn patch(gateway: &Gateway, eighth: Value) -> Response {
    let headers = [("Content-Type", "application/merge-patch+json"), ("If-Match", "*")];
    let body = json!({"mountpoints": {"eighth": eighth}}).to_string();
    gateway.request("PATCH", "/api/v1/config", &headers, body.as_bytes())
}

/// One change after the other: each part of a mountpoint has its turn, also one that must be confirmed.
fn change(number: usize) -> Value {
    match number % 5 {
        0 => json!({"push": [{"id": "up", "url": format!("rtmp://127.0.0.1:9/live/n{number}")}]}),
        1 => json!({"play": {"key": format!("k{number}")}}),
        2 => json!({"push": []}),
        3 => json!({"ring": {"bytes": 1_048_576 + number}}),
        _ => json!({"source": {"kind": "publish", "key": format!("s{number}")}}),
    }
}

#[test]
fn seven_mountpoints_lose_nothing_while_an_eighth_is_changed() {
    let wanted = std::env::var("FIELDGATE_CHANGES").map_or(50, |text| text.parse().expect("a number"));
    let names: Vec<String> = (0..UNTOUCHED).map(|number| format!("m{number}")).collect();
    let mut mountpoints = json!({"eighth": {"source": {"kind": "publish", "key": "first"}}});
    for name in &names {
        mountpoints[name] = json!({"source": {"kind": "publish"}});
    }
    let gateway = Gateway::with_mountpoints(mountpoints);
    let untouched: Vec<Healthy> = names.iter().map(|name| Healthy::start(gateway.rtmp, name)).collect();
    let began = Instant::now();
    for number in 0..wanted {
        let answer = patch(&gateway, change(number));
        let answer = match answer.status {
            202 => gateway.request("POST", "/api/v1/config/confirm", &[], b""),
            _ => answer,
        };
        assert_eq!(answer.status, 200, "change {number}: {}", answer.text());
    }
    let took = began.elapsed();
    let revision = gateway.config().1;
    assert!(revision.trim_matches('"').parse::<usize>().unwrap() > wanted, "each was a change: {revision}");
    let mut frames = 0;
    for healthy in untouched {
        let sent = healthy.assert_unharmed();
        frames += sent.video.frames.len() + sent.audio.frames.len();
    }
    println!("{wanted} changes in {took:?}; {frames} frames of {UNTOUCHED} mountpoints, each as it was sent");
}
