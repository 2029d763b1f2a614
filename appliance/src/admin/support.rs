//! `GET /api/v1/support-bundle`: what somebody needs who is asked for help, in one file and without secrets.

use super::api::AdminApi;
use super::reply::Reply;
use super::{history, metrics};
use crate::recorder::Wanted;
use serde_json::{Map, Value, json};
use std::io::Read as _;

/// Longest bundle, in bytes; what does not fit is named and left out.
const MAX_LEN: usize = 6 << 20;
/// Most that is taken of one of the kernel's files, in bytes.
const MAX_FILE_LEN: u64 = 16 << 10;
/// What the kernel tells about the machine. None of them holds anything that was typed in.
const KERNEL_FILES: [&str; 9] = [
    "/proc/version",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/mounts",
    "/proc/net/dev",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
];

/// The bundle as a JSON file.
pub(super) fn get(api: &dyn AdminApi) -> Reply {
    let status = api.status();
    let made_at = status.at;
    let counters = metrics::render(&status);
    let config: Value = serde_json::from_slice(&api.config().json).unwrap_or_default();
    let newest = Wanted { since: None, limit: usize::MAX };
    let events = api.recorder().map(|recorder| recorder.page(newest, |_| true));
    let parts = [
        ("version", json!(status.version)),
        ("made_at", json!(made_at)),
        ("health", json!(api.health())),
        ("machine", json!(machine())),
        ("notices", json!(status.notices)),
        ("revisions", history::revisions(api)),
        ("events", json!(events)),
        ("devices", json!(api.devices())),
        ("config", config),
        ("metrics", json!(counters)),
        ("status", json!(status)),
    ];
    let name = format!("fieldgate-{}.json", made_at.to_string().replace(':', "-"));
    Reply::json(200, &bundle(parts)).with("content-disposition", format!("attachment; filename=\"{name}\""))
}

fn bundle<const N: usize>(parts: [(&str, Value); N]) -> Value {
    let (mut whole, mut left_out, mut len) = (Map::new(), Vec::new(), 0);
    for (name, part) in parts {
        let part_len = part.to_string().len();
        if len + part_len > MAX_LEN {
            left_out.push(name);
        } else {
            len += part_len;
            whole.insert(name.to_owned(), part);
        }
    }
    whole.insert("left_out".to_owned(), json!(left_out));
    Value::Object(whole)
}

fn machine() -> Map<String, Value> {
    let read = |path: &&str| {
        let mut text = Vec::new();
        let file = std::fs::File::open(path).ok()?;
        file.take(MAX_FILE_LEN).read_to_end(&mut text).ok()?;
        Some(((*path).to_owned(), json!(String::from_utf8_lossy(&text))))
    };
    KERNEL_FILES.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named_and_the_rest_is_there() {
        let bundle =
            bundle([("small", json!(1)), ("large", json!("x".repeat(MAX_LEN))), ("last", json!("y"))]);
        assert_eq!(bundle, json!({"small": 1, "last": "y", "left_out": ["large"]}));
    }

    #[test]
    fn the_machine_tells_what_it_is() {
        let told = machine();
        assert!(told["/proc/meminfo"].as_str().is_some_and(|text| text.contains("MemTotal")));
    }
}
