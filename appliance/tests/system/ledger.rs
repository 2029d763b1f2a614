//! What the ledger says about RTMP upstreams, over the API and over a restart.

use crate::common::address::own_address;
use crate::common::gateway::Gateway;
use crate::common::healthy::Healthy;
use crate::common::nginx::Nginx;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::sync::Arc;

/// The frames of all entries of one state, and whether there is one.
fn frames(gateway: &Gateway, state: &str) -> Option<u64> {
    let entries = gateway.get("/api/v1/ledger?mountpoint=yard&limit=100").json()["entries"].take();
    let of = |entry: &&Value| entry["state"] == state && entry["upstream"] == "up";
    let entries: Vec<Value> = entries.as_array().unwrap().iter().filter(of).cloned().collect();
    let sum = entries.iter().map(|entry| entry["frames"].as_u64().unwrap()).sum();
    (!entries.is_empty()).then_some(sum)
}

fn config(url: &str) -> Value {
    json!({ "mountpoints": {
        "yard": { "source": { "kind": "publish" }, "push": [{ "id": "up", "url": url, "backoff_cap": "1s" }] },
    }})
}

#[test]
fn ledger_tells_what_was_sent_what_fell_into_an_outage_and_survives_a_restart() {
    let address = own_address();
    let (scratch, config) = (Arc::new(Scratch::new()), config(&format!("rtmp://{address}/live/kept")));
    let mut gateway = Gateway::start_in(scratch.clone(), config.clone(), |_| {});
    let healthy = Healthy::start(gateway.rtmp, "yard");
    wait::until_true("the outage is in the ledger", secs(30), || {
        frames(&gateway, "lost").is_some_and(|lost| lost > 50)
    });
    assert_eq!(frames(&gateway, "sent"), None);
    let entry = gateway.get("/api/v1/ledger?mountpoint=yard").json()["entries"][0].clone();
    assert_eq!(
        (entry["state"].as_str(), entry["cause"].as_str()),
        (Some("lost"), Some("unreachable")),
        "{entry}"
    );
    let nginx = Nginx::at(address);
    nginx.wait_for_publisher("kept");
    wait::until_true("units are sent", secs(30), || frames(&gateway, "sent").is_some_and(|sent| sent > 50));
    drop(healthy);
    let lost = frames(&gateway, "lost");
    assert!(gateway.stop().success());
    let gateway = Gateway::start_in(scratch, config, |_| {});
    assert_eq!(frames(&gateway, "lost"), lost);
    assert!(frames(&gateway, "sent").is_some_and(|sent| sent > 50));
    let refused = gateway.get("/api/v1/ledger?from=yesterday");
    assert_eq!((refused.status, refused.header("content-type")), (400, Some("application/problem+json")));
    assert_eq!(refused.json()["problems"][0]["path"], "from");
    assert_eq!(gateway.get("/api/v1/ledger?mountpoint=other").json(), json!({ "entries": [] }));
}
