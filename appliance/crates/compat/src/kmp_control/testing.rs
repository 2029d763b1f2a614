//! Recorded callbacks of the connector (`appliance/testdata/kmp`), for tests.

use super::body::{Client, MediaInfo, Publication};
use super::json::Json;
use crate::{CallOutcome, Reply};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the recordings are.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/kmp")
}

/// Reads a recorded file, such as `01_h264_aac_ffmpeg_defaults/api_kmp_out.json`.
pub(super) fn file(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A recorded callback.
pub(super) struct Recorded {
    /// `connect`, `publish`, `unpublish` or `republish`.
    pub(super) callback: String,
    pub(super) raw: String,
    pub(super) body: Json,
    /// What our controller answered.
    pub(super) outcome: CallOutcome,
}

/// The numbered cases that have callbacks, in order of their names.
pub(super) fn cases() -> Vec<(String, Vec<Recorded>)> {
    let names =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .filter(|name| folder().join(name).join("callbacks.json").exists())
        .collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), case(&name))).collect()
}

/// The callbacks of one case.
pub(super) fn case(name: &str) -> Vec<Recorded> {
    let Ok(Json::List(records)) = Json::parse(file(&format!("{name}/callbacks.json")).as_bytes()) else {
        panic!("{name} has no list of callbacks");
    };
    records.iter().map(recorded).collect()
}

fn recorded(record: &Json) -> Recorded {
    let raw = text(record, "body_raw");
    let body = Json::parse(raw.as_bytes()).unwrap();
    let response = field(record, "response");
    let status = text(response, "status");
    let reply = Reply {
        status: status.split(' ').next().unwrap().parse().unwrap(),
        headers: vec![("content-type".to_owned(), text(response, "content_type"))],
        body: text(response, "body").into_bytes(),
    };
    Recorded { callback: text(&body, "event_type"), raw, body, outcome: CallOutcome::Replied(reply) }
}

/// The whole replies to one kind of callback in one case.
pub(super) fn replies(name: &str, callback: &str) -> Vec<Reply> {
    let outcomes = case(name).into_iter().filter(|it| it.callback == callback).map(|it| it.outcome);
    outcomes
        .map(|outcome| match outcome {
            CallOutcome::Replied(reply) => reply,
            CallOutcome::Failed(why) => panic!("{why}"),
        })
        .collect()
}

/// A field that must be there, once.
pub(super) fn field<'a>(json: &'a Json, key: &str) -> &'a Json {
    let Json::Object(fields) = json else { panic!("{key} of {json:?}") };
    let mut found = fields.iter().filter(|(name, _)| name == key);
    let (_, value) = found.next().unwrap_or_else(|| panic!("no {key} in {json:?}"));
    assert!(found.next().is_none());
    value
}

pub(super) fn text(json: &Json, key: &str) -> String {
    let Json::Text(text) = field(json, key) else { panic!("{key} of {json:?}") };
    text.clone()
}

pub(super) fn number(json: &Json, key: &str) -> f64 {
    let Json::Number(number) = field(json, key) else { panic!("{key} of {json:?}") };
    *number
}

pub(super) fn list<'a>(json: &'a Json, key: &str) -> &'a [Json] {
    let Json::List(list) = field(json, key) else { panic!("{key} of {json:?}") };
    list
}

/// The client in an `rtmp` object; its address may lack the port.
pub(super) fn client(rtmp: &Json) -> Client {
    let addr = text(rtmp, "addr");
    Client {
        app: text(rtmp, "app"),
        flashver: text(rtmp, "flashver"),
        swf_url: text(rtmp, "swf_url"),
        tc_url: text(rtmp, "tc_url"),
        page_url: text(rtmp, "page_url"),
        addr: addr.parse().unwrap_or_else(|_| SocketAddr::new(addr.parse().unwrap(), 0)),
        connection: number(rtmp, "connection") as u64,
    }
}

/// The publication in whatever holds an `rtmp` object.
pub(super) fn publication(json: &Json) -> Publication {
    let rtmp = field(json, "rtmp");
    Publication {
        client: client(rtmp),
        name: text(rtmp, "name"),
        kind: text(rtmp, "type"),
        args: text(rtmp, "args"),
    }
}

/// The `media_info` of whatever holds one.
pub(super) fn media_info(json: &Json) -> MediaInfo {
    let info = field(json, "media_info");
    let hex = text(info, "extra_data");
    let bytes = hex
        .as_bytes()
        .chunks(2)
        .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap());
    let (extra_data, bitrate) = (bytes.collect::<Vec<u8>>().into(), number(info, "bitrate") as u32);
    let codec_id = number(info, "codec_id") as u32;
    match text(info, "media_type").as_str() {
        "video" => MediaInfo::Video {
            bitrate,
            codec_id,
            extra_data,
            width: number(info, "width") as u16,
            height: number(info, "height") as u16,
            frame_rate: ((number(info, "frame_rate") * 100.0).round() as u32, 100),
            cea_captions: *field(info, "cea_captions") == Json::Bool(true),
        },
        "audio" => MediaInfo::Audio {
            bitrate,
            codec_id,
            extra_data,
            channels: number(info, "channels") as u16,
            channel_layout: u64::from_str_radix(&text(info, "channel_layout"), 16).unwrap(),
            bits_per_sample: number(info, "bits_per_sample") as u16,
            sample_rate: number(info, "sample_rate") as u32,
        },
        other => panic!("{other}"),
    }
}
