//! What applications ask of a coordinator over HTTP.

use super::Coordinator;
use super::peers::Role;
use crate::{Reply, Request};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Capacity {
    load: usize,
    capacity: i64,
    encoder_count: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    streaming_servers: Vec<ServerReport>,
    encoders: Vec<EncoderReport>,
    active_streams: Vec<StreamReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerReport {
    id: u64,
    ip: String,
    port: u16,
    ssl: bool,
    server_type: &'static str,
}

#[derive(Serialize)]
struct EncoderReport {
    id: u64,
    capacity: i64,
    load: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamReport {
    channel: String,
    stream_id: String,
    stream_server: u64,
    /// 0: none; nobody has this id.
    encoder: u64,
}

pub(super) fn text(status: u16, text: &str) -> Reply {
    let headers = vec![("content-type".to_owned(), "text/plain".to_owned())];
    Reply { status, headers, body: text.into() }
}

pub(super) fn not_found() -> Reply {
    text(404, "Not found.")
}

fn json(document: &impl Serialize) -> Reply {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![header("content-type", "application/json"), header("cache-control", "no-cache")];
    match serde_json::to_vec(document) {
        Ok(body) => Reply { status: 200, headers, body },
        Err(_) => text(500, "Internal error."),
    }
}

impl Coordinator {
    /// Answers a request that opens no socket.
    pub fn handle_request(&mut self, request: &Request) -> Reply {
        self.next_peer = self.next_peer.saturating_add(1);
        let header = |name: &str| {
            request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        let route = (request.method.as_str(), request.target.as_str());
        match route {
            ("GET", "/") => return text(200, "Coordinator streaming server - Version 1.0.0"),
            ("GET", "/commands/capacity" | "/commands/report") | ("POST", "/commands/close") => {}
            _ => return not_found(),
        }
        if !self.settings.commands.permits(header("authorization")) {
            return text(401, "Invalid authorization header.");
        }
        match route.1 {
            "/commands/capacity" => json(&self.capacity()),
            "/commands/report" => json(&self.report()),
            _ => {
                let stream_id =
                    header("x-streaming-id").map(str::trim).filter(|id| !id.is_empty() && *id != "*");
                self.kill(header("x-streaming-channel").unwrap_or_default().trim(), stream_id);
                text(200, "SUCCESS")
            }
        }
    }

    fn capacity(&self) -> Capacity {
        let capacities: Vec<i64> = self.encoders().map(|(_, capacity)| capacity).collect();
        let sum = capacities.iter().fold(0_i64, |sum, capacity| sum.saturating_add(*capacity));
        Capacity {
            load: self.tasks.len(),
            capacity: if capacities.iter().any(|capacity| *capacity < 0) { -1 } else { sum },
            encoder_count: capacities.len(),
        }
    }

    fn report(&self) -> Report {
        let servers = self.peers.iter().filter_map(|(id, peer)| match peer.role {
            Role::Server { port, is_tls, is_ws } => Some(ServerReport {
                id: *id,
                ip: peer.address.to_string(),
                port,
                ssl: is_tls,
                server_type: if is_ws { "WS" } else { "RTMP" },
            }),
            Role::Encoder { .. } => None,
        });
        let encoders =
            self.encoders().map(|(id, capacity)| EncoderReport { id, capacity, load: self.load(id) });
        let streams = self.channels.iter().filter_map(|(channel, publish)| {
            let stream_id = publish.live()?.to_owned();
            let encoder = self.tasks.get(&stream_id).map_or(0, |task| task.encoder);
            Some(StreamReport { channel: channel.clone(), stream_id, stream_server: publish.server, encoder })
        });
        Report {
            streaming_servers: servers.collect(),
            encoders: encoders.collect(),
            active_streams: streams.collect(),
        }
    }
}
