//! A master, nodes, and what tests ask of them.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Publisher};
use crate::common::http::{self, Response};
use crate::common::process::Process;
use crate::common::rtmp::{Client, Refusal};
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

pub(crate) const KEY: &str = "mesh-announce-key";
/// A broadcaster's token: one character longer than 32.
pub(crate) const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz0123456";
/// A viewer's.
pub(crate) const VIEWER: &str = "0123456789abcdef0123456789abcdef";

/// The test master.
pub(crate) struct Master {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Master {
    pub(crate) fn start() -> Master {
        Master::at(0)
    }

    pub(crate) fn at(port: u16) -> Master {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mesh/master.py");
        let process = Process::start("python3", &[script, &port.to_string(), KEY]);
        let port = wait::until("the master to listen", secs(60), || {
            let first: Value = serde_json::from_str(process.output().lines().next()?).ok()?;
            first["port"].as_u64()
        });
        Master { process, address: SocketAddr::from(([127, 0, 0, 1], port as u16)) }
    }

    pub(crate) fn put(&self, what: &str, value: &Value) {
        let body = value.to_string();
        let answer = http::request(self.address, "PUT", &format!("/_/{what}"), &[], body.as_bytes());
        assert_eq!(answer.status, 200);
    }

    /// The calls to a path so far, by one method.
    pub(crate) fn calls(&self, method: &str, path: &str) -> Vec<Value> {
        let all = http::get(self.address, "/_/calls").json();
        let all = all.as_array().unwrap().iter();
        all.filter(|call| call["method"] == method && call["path"] == path).cloned().collect()
    }

    /// Waits until there are that many.
    pub(crate) fn wait_for(&self, method: &str, path: &str, count: usize) -> Vec<Value> {
        wait::until(&format!("{count} times {method} {path}"), secs(60), || {
            let calls = self.calls(method, path);
            (calls.len() >= count).then_some(calls)
        })
    }

    /// Events of streams, as `start s1`.
    pub(crate) fn events(&self) -> Vec<String> {
        let told = self.calls("POST", "/streams").into_iter().map(|call| {
            let body = &call["body"];
            let reason = body["reason"].as_str().map(|reason| format!(" {reason}")).unwrap_or_default();
            format!("{} {}{reason}", body["event"].as_str().unwrap(), body["stream_id"].as_str().unwrap())
        });
        told.collect()
    }

    pub(crate) fn wait_for_event(&self, event: &str) {
        wait::until_true(event, secs(60), || self.events().iter().any(|told| told == event));
    }
}

/// Waits until a node knows the newest tables and its role: a beat has said so.
pub(crate) fn wait_for_beat(master: &Master, of: &Node, mode: &str, version: u64) {
    wait::until_true(&format!("a beat of {mode} with version {version}"), secs(60), || {
        let uuid = of.uuid();
        let ids: Vec<Value> = master
            .calls("POST", "/announce")
            .into_iter()
            .filter(|call| call["body"]["server_uuid"] == uuid.as_str())
            .map(|call| call["reply"]["id"].clone())
            .collect();
        master.calls("POST", "/heartbeat").iter().any(|call| {
            let body = &call["body"];
            let is_its = ids.iter().any(|id| call["headers"]["Node-ID"] == *id);
            is_its && body["mode"] == mode && body["table_version"] == version
        })
    });
}

/// A gateway that is a node.
pub(crate) struct Node {
    pub(crate) gateway: Gateway,
    pub(crate) http: SocketAddr,
    pub(crate) api: SocketAddr,
}

impl Node {
    pub(crate) fn start(master: &Master, rest: Value) -> Node {
        Node::start_in(Arc::new(Scratch::new()), Some(master), rest)
    }

    pub(crate) fn start_in(scratch: Arc<Scratch>, master: Option<&Master>, rest: Value) -> Node {
        let mut node = json!({
            "enabled": true, "master_key": KEY, "listen": ["127.0.0.1:0"], "announce_retry": "1s", "heartbeat_retry": "1s",
        });
        if let Some(master) = master {
            node["master"] = format!("http://{}", master.address).into();
        }
        for (field, value) in rest.as_object().unwrap() {
            node[field] = value.clone();
        }
        let config = json!({"http": {"listen": ["127.0.0.1:0"]}, "compat": {"node": node}});
        let gateway = Gateway::start_in(scratch, config, |command| {
            command.args(["--log", "debug"]);
        });
        let listens = |what: &str| -> SocketAddr {
            let status = gateway.status();
            status["listeners"][what]["addresses"][0].as_str().unwrap().parse().unwrap()
        };
        let (http, api) = (listens("http"), listens("mesh_node"));
        Node { gateway, http, api }
    }

    /// All that it logged.
    pub(crate) fn log(&mut self) -> String {
        self.gateway.process().log()
    }

    /// Its own id, as it keeps it.
    pub(crate) fn uuid(&self) -> String {
        std::fs::read_to_string(self.gateway.state().join("mesh/id")).unwrap().trim().to_owned()
    }

    /// Its API, with a header.
    pub(crate) fn ask(&self, method: &str, path: &str, header: Option<(&str, &str)>) -> Response {
        let headers: Vec<(&str, &str)> = header.into_iter().collect();
        http::request(self.api, method, path, &headers, b"")
    }

    /// What it says of its streams.
    pub(crate) fn streams(&self) -> String {
        self.ask("GET", "/statistics", None).text()
    }

    pub(crate) fn wait_for_stream(&self, stream: &str, is_there: bool) {
        let name = format!("<name>{stream}</name>");
        wait::until_true(&format!("{stream} to be there: {is_there}"), secs(30), || {
            self.streams().contains(&name) == is_there
        });
    }

    /// The connection that feeds a stream.
    pub(crate) fn feeder(&self, stream: &str) -> String {
        let streams = self.streams();
        let after = streams.split(&format!("<name>{stream}</name>")).nth(1).unwrap().to_owned();
        after.split("<id>").nth(1).unwrap().split('<').next().unwrap().to_owned()
    }

    /// An entry of a table that sends to this node.
    pub(crate) fn hop(&self, key: &str) -> Value {
        json!({"node_id": "", "node_url": format!("rtmp://{}/relay", self.gateway.rtmp), "node_key": key})
    }
}

/// Publishes on an application; the refusal, if there is one.
pub(crate) fn publish(node: &Node, app: &str, name: &str) -> Result<Publisher, Refusal> {
    let mut client = Client::connected(node.gateway.rtmp, app);
    let stream = client.create_stream();
    client.publish(stream, name)?;
    Ok(Publisher::with(client, stream, name, Fixture::h264_aac(6).tags(), 0, End::Polite))
}

/// The code of a refusal.
pub(crate) fn code<T>(outcome: Result<T, Refusal>) -> String {
    outcome.map_or_else(|refusal| refusal.code, |_| "allowed".to_owned())
}
