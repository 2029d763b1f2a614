//! What was recorded of the other sender, its controller and its receivers.

use super::packets::{self, Packet};
use crate::common::flv::{self, Tag};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// One callback as it was recorded.
#[derive(Clone, Debug)]
pub(super) struct Callback {
    /// `POST /publish HTTP/1.0`.
    pub(super) request_line: String,
    /// Without `Content-Length`.
    pub(super) headers: Vec<String>,
    /// The body with what changes from run to run left out.
    pub(super) body: String,
    /// `publish audio` and so on: what comes in order among its like.
    pub(super) key: String,
    /// What the controller answered.
    pub(super) reply: Reply,
}

/// An answer of a controller.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// `200 OK`.
    pub(super) status: String,
    /// `Content-Type`.
    pub(super) content_type: String,
    /// The body, with the recorded ports.
    pub(super) body: String,
}

/// One connection as a receiver recorded it.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// `v1` or `a1`.
    pub(super) track: String,
    /// The receiver's port in the recording.
    pub(super) port: u16,
    /// What came.
    pub(super) packets: Vec<Packet>,
    /// What the receiver sent, each after so many frames (the end counts as one more).
    pub(super) acks: Vec<(usize, Vec<u8>)>,
    /// The receiver closed after so many frames; else at the end, or never.
    pub(super) closed_after: Option<usize>,
    /// From the last that came to the receiver's close.
    pub(super) linger: Duration,
    /// The sender closed first, without an end.
    pub(super) closed_by_sender: bool,
}

/// A recorded case.
pub(super) struct Case {
    folder: PathBuf,
    /// In the order in which they came.
    pub(super) callbacks: Vec<Callback>,
    /// In the order in which they were opened.
    pub(super) connections: Vec<Connection>,
    /// What the publisher said of itself.
    pub(super) publisher: Value,
}

fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/kmp")
}

/// The tags that were published in a case.
pub(super) fn input(case: &str) -> Vec<Tag> {
    let vectors = std::fs::read(testdata().join("inputs/vectors.json")).unwrap();
    let vectors: Value = serde_json::from_slice(&vectors).unwrap();
    flv::read(&testdata().join("inputs").join(vectors[case].as_str().unwrap()))
}

impl Case {
    /// Reads a case's folder.
    pub(super) fn read(name: &str) -> Case {
        let folder = testdata().join(name);
        let json = |file: &str| -> Value {
            serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
        };
        let callbacks: Vec<Value> = serde_json::from_value(json("callbacks.json")).unwrap();
        let connections: Vec<Value> = serde_json::from_value(json("connections.json")).unwrap();
        // Every event but connect tells the stream, too.
        let publisher = callbacks.iter().filter_map(|callback| {
            let body: Value = serde_json::from_str(callback["body_raw"].as_str()?).ok()?;
            Some(body["rtmp"].clone())
        });
        let publisher = publisher.max_by_key(|rtmp| rtmp["name"].is_string()).unwrap_or_default();
        Case {
            callbacks: callbacks.iter().map(callback).collect(),
            connections: connections.iter().map(|about| connection(&folder, about)).collect(),
            publisher,
            folder,
        }
    }

    /// A text of what the publisher said of itself.
    pub(super) fn said(&self, name: &str) -> String {
        self.publisher[name].as_str().unwrap_or_default().to_owned()
    }

    /// A further file of the case.
    pub(super) fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.folder.join(file)).unwrap()).unwrap()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn callback(about: &Value) -> Callback {
    let headers = about["headers"].as_array().unwrap().iter().map(text);
    let response = &about["response"];
    Callback {
        request_line: text(&about["request_line"]),
        headers: headers.filter(|header| !header.starts_with("Content-Length")).collect(),
        body: masked(about["body_raw"].as_str().unwrap()),
        key: key_of(about["body_raw"].as_str().unwrap()),
        reply: Reply {
            status: text(&response["status"]),
            content_type: text(&response["content_type"]),
            body: text(&response["body"]),
        },
    }
}

fn connection(folder: &std::path::Path, about: &Value) -> Connection {
    let file = about["file"].as_str().unwrap();
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let frames_until = |len: usize| {
        let (packets, _) = packets::parse(&bytes[..len]);
        packets.iter().filter(|packet| matches!(packet.kind.as_str(), "fram" | "eost")).count()
    };
    let acks = std::fs::read(folder.join(file.replace(".kmp", ".acks.kmp"))).unwrap_or_default();
    let (mut taken, mut sent, mut last) = (0, 0, 0);
    let mut timed = Vec::new();
    for chunk in about["chunks"].as_array().unwrap() {
        let (at, len) = (chunk[0].as_u64().unwrap(), chunk[2].as_u64().unwrap() as usize);
        if chunk[1] == "rx" {
            (taken, last) = (taken + len, at);
        } else {
            timed.push((frames_until(taken), acks[sent..sent + len].to_vec()));
            sent += len;
        }
    }
    let (packets, used) = packets::parse(&bytes);
    assert_eq!(used, bytes.len(), "{file} ends within a packet");
    let (ended, by_sink) = (about["end_of_stream_seen"] == true, about["closed_by"] == "sink");
    let frames = packets.iter().filter(|packet| packet.kind == "fram").count();
    Connection {
        track: file.split('.').next().unwrap().to_owned(),
        port: about["port"].as_u64().unwrap() as u16,
        packets,
        acks: timed,
        closed_after: (by_sink && !ended).then_some(frames),
        linger: Duration::from_millis(about["closed_ms"].as_u64().unwrap().saturating_sub(last)),
        closed_by_sender: !by_sink,
    }
}

/// What comes in order among its like: `connect`, `publish audio`, ...
pub(super) fn key_of(body: &str) -> String {
    let after = |name: &str| {
        let start = body.find(&format!("\"{name}\":\""))? + name.len() + 4;
        body.get(start..)
    };
    let event = after("event_type").and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let input = after("input_id").unwrap_or_default();
    let ends = |kind: &str| input.find(&format!("/{kind}\",")).unwrap_or(usize::MAX);
    match (ends("video"), ends("audio")) {
        (usize::MAX, usize::MAX) => event.to_owned(),
        (video, audio) if video < audio => format!("{event} video"),
        _ => format!("{event} audio"),
    }
}

/// A callback's body without the connection's number and the port of its address.
pub(super) fn masked(body: &str) -> String {
    let body = without_number(body, "\"connection\":");
    without_number(&body, "\"addr\":\"127.0.0.1:")
}

fn without_number(body: &str, before: &str) -> String {
    match body.split_once(before) {
        Some((start, rest)) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{start}{before}N{rest}")
        }
        None => body.to_owned(),
    }
}
