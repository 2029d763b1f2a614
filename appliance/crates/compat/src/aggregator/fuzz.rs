//! Fuzz targets: plain functions that take any bytes and must return. `cargo test` runs them over seeds and their
//! mutations; a fuzzer may call them too.

use super::snapshot::Snapshot;
use super::{Exchange, Outcome, StateFile, Step, statistics};
use crate::Request;
use fieldgate_model::config::validate;
use fieldgate_model::status::Status;
use fieldgate_model::{Command, Config};
use std::net::IpAddr;
use std::sync::Arc;

/// A request to the API: method and target in the first line, the body behind it. It ends with a reply of JSON; what it
/// asks for makes a config that can be run, or is refused.
pub fn aggregator_request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (line, body) = text.split_once('\n').unwrap_or((&text, ""));
    let (method, target) = line.split_once(' ').unwrap_or(("GET", line));
    let mut snapshot = empty();
    // The second time everything is there already: the answer is the same, and nothing changes.
    let (first, changed) = exchange(method, target, body, &mut snapshot);
    assert!(serde_json::from_slice::<serde_json::Value>(&first.body).is_ok());
    assert!(first.status != 500);
    if first.status != 200 {
        assert!(!changed, "{line:?} was refused and changed something");
    } else if !target.starts_with("/disconnect") {
        let (second, changed) = exchange(method, target, body, &mut snapshot);
        // Totals and lists show what has come.
        if !matches!(method, "GET") {
            assert_eq!(first, second);
            assert!(!changed, "{line:?} is not idempotent");
        }
    }
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let peer = IpAddr::from([127, 0, 0, 1]);
    let request = Request { method: method.into(), target: target.into(), headers, body: Vec::new(), peer };
    let reply = statistics(&request, &snapshot);
    assert!([200, 404, 405].contains(&reply.status));
}

/// An old state file. What is taken makes a config that can be run.
pub fn aggregator_state_file(data: &[u8]) {
    let Ok(file) = StateFile::parse(&String::from_utf8_lossy(data)) else { return };
    let config =
        file.commands.iter().fold((*empty().config).clone(), |config, command| carry_out(&config, command));
    assert!(config.compat.aggregator.cameras.len() <= file.commands.len());
}

fn exchange(method: &str, target: &str, body: &str, snapshot: &mut Snapshot) -> (crate::Reply, bool) {
    let headers = [("content-type", "application/json"), ("host", "box:5000")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.into(),
        body: body.into(),
        peer: IpAddr::from([127, 0, 0, 1]),
    };
    let before = snapshot.config.clone();
    let mut exchange = Exchange::new(&request, snapshot);
    for _ in 0..=64 {
        match exchange.step(snapshot) {
            Step::Command(command) => {
                let config = carry_out(&snapshot.config, &command);
                snapshot.config = Arc::new(config);
                exchange.handle_outcome(Outcome::Done);
            }
            Step::Reply(reply) => return (reply, before != snapshot.config),
        }
    }
    panic!("no reply to {method} {target}");
}

/// All that a request may ask for fits an empty gateway.
fn carry_out(config: &Config, command: &Command) -> Config {
    match command.apply(config) {
        Ok(config) => {
            assert_eq!(validate(&config), [], "{command:?}");
            config
        }
        Err(error) => panic!("{command:?}: {error}"),
    }
}

fn empty() -> Snapshot {
    let settings = serde_json::json!({"compat": {"aggregator": {"engine": "engine", "max_cameras": 1024, "max_pushes": 32}}});
    Snapshot {
        config: Arc::new(serde_json::from_value(settings).unwrap_or_default()),
        status: Status::default(),
        host_name: "box".to_owned(),
        own_hosts: vec!["127.0.0.1".to_owned(), "::1".to_owned(), "localhost".to_owned(), "box".to_owned()],
        rtmp_ports: vec![1935],
        pid: 1,
        uptime_seconds: 0,
        accepted: 0,
        traffic: Default::default(),
        cameras: Default::default(),
        clients: Vec::new(),
    }
}

/// A function that takes any bytes and must return.
pub type Target = fn(&[u8]);

/// All targets by name, for runners.
pub const TARGETS: [(&str, Target); 2] =
    [("aggregator_request", aggregator_request), ("aggregator_state_file", aggregator_state_file)];
