//! What the gateway records of what happens, and who gets to know it.

mod hooks;
mod streams;

use crate::common::address::own_address;
use crate::common::gateway::Gateway;
use crate::common::healthy::Healthy;
use crate::common::nginx::Nginx;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::sync::Arc;

fn events(gateway: &Gateway) -> Vec<Value> {
    let answer = gateway.get("/api/v1/events?since=0&limit=1000");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["events"].as_array().unwrap().clone()
}

/// The first event of this kind about `yard`.
fn find(gateway: &Gateway, kind: &str) -> Option<Value> {
    events(gateway).into_iter().find(|event| event["event"] == kind && event["mountpoint"] == "yard")
}

fn text(event: &Value) -> &str {
    event["text"].as_str().unwrap()
}

#[test]
fn an_outage_is_told_in_plain_words_and_outlives_a_kill() {
    let address = own_address();
    let url = format!("rtmp://user:CANARY-url@{address}/live/kept?key=CANARY-key");
    let config = json!({ "mountpoints": {
        "yard": { "source": { "kind": "publish" }, "push": [{ "id": "up", "url": url, "backoff_cap": "1s" }] },
    }});
    let scratch = Arc::new(Scratch::new());
    let mut gateway = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    let healthy = Healthy::start(gateway.rtmp, "yard");
    let refused =
        wait::until("why the upstream does not take it", secs(30), || find(&gateway, "upstream_trouble"));
    assert!(text(&refused).contains("refused"), "{refused}");
    let nginx = Nginx::at(address);
    wait::until("that the upstream takes it", secs(30), || find(&gateway, "upstream_back"));
    drop(nginx);
    wait::until("that the upstream is lost", secs(30), || find(&gateway, "upstream_lost"));
    drop(healthy);
    let lost = wait::until("that the publisher is gone", secs(30), || find(&gateway, "stream_lost"));
    assert_eq!(text(&lost), "the publisher is gone");
    let again = Healthy::start(gateway.rtmp, "yard");
    let back = wait::until("that it is back", secs(30), || find(&gateway, "stream_back"));
    assert_eq!(back["cause"], "publisher");
    assert!(back["lost_seconds"].as_u64().is_some_and(|lost| (1..60).contains(&lost)), "{back}");
    assert!(text(&back).ends_with("s lost; cause: publisher"), "{back}");
    let before = events(&gateway);
    drop(again);
    // What was told a moment ago is in the kernel's hands.
    std::thread::sleep(secs(2));
    gateway.process().kill();
    let file = std::fs::read_dir(gateway.state().join("recorder")).unwrap().next().unwrap().unwrap().path();
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("the publisher is gone") && !kept.contains("CANARY"), "{kept}");
    // And a power cut in the middle of a line.
    std::fs::write(&file, format!("{kept}00000000 {{\"id\":")).unwrap();

    let mut gateway = Gateway::start_in(scratch, config, |_| {});
    let after = events(&gateway);
    assert_eq!(after[..before.len()], before[..]);
    let ids: Vec<u64> = after.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let start = after.iter().rev().find(|event| event["event"] == "started").unwrap();
    assert!(text(start).contains("without a word") && text(start).ends_with("left out: 1"), "{start}");
    let status = gateway.status();
    let notices = status["notices"].as_array().unwrap();
    assert!(notices.iter().any(|notice| notice["code"] == "recorder"), "{notices:?}");
    let bundle = gateway.get("/api/v1/support-bundle");
    assert!(bundle.json()["events"]["events"].as_array().unwrap().len() >= before.len());
    assert!(!bundle.text().contains("CANARY"));
    assert_eq!(gateway.get("/api/v1/events?since=x").json()["problems"][0]["path"], "since");
    assert!(gateway.stop().success());
}
