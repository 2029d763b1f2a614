//! `GET /api/v1/mountpoints/NAME/recordings`: what is kept of a stream, and `.../recordings/FILE`: its files.

use super::api::AdminApi;
use super::head::Method;
use super::reply::Reply;
use super::routes::{Request, header};
use fieldgate_media::TrackKind;
use fieldgate_model::Timestamp;
use fieldgate_net::{RecordedSegment, Shelf};
use serde_json::{Value, json};

/// Longest piece of a file in one answer: answers are whole in memory.
const PIECE_MAX: usize = 4 << 20;
/// Stretches in one answer.
const SPANS_MAX: usize = 1_000;
/// Files in one answer.
const FILES_MAX: usize = 2_000;

/// The mountpoint, and the file if one is named.
pub(super) fn place_of(path: &str) -> Option<(&str, Option<&str>)> {
    let (name, rest) = path.strip_prefix("/api/v1/mountpoints/")?.split_once('/')?;
    let rest = rest.strip_prefix("recordings")?;
    let file = match rest.strip_prefix('/') {
        None if rest.is_empty() => None,
        Some(file) if !file.is_empty() && !file.contains('/') => Some(file),
        _ => return None,
    };
    (!name.is_empty()).then_some((name, file))
}

/// Answers a request that reads.
pub(super) fn respond(request: &Request, (name, file): (&str, Option<&str>), api: &dyn AdminApi) -> Reply {
    let Some(shelf) = api.recordings(name) else {
        return Reply::problem(404, &format!("nothing of {name} is recorded"), &[]);
    };
    match file {
        Some(file) => piece(request, file, &shelf),
        None => list(&request.target, name, &shelf),
    }
}

fn list(target: &str, name: &str, shelf: &Shelf) -> Reply {
    let (mut from, mut to, mut files) = (i64::MIN, i64::MAX, false);
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for (field, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let time = || value.replace("%3A", ":").replace("%3a", ":").parse::<Timestamp>();
        match (field, time(), value) {
            ("from", Ok(time), _) => from = time.unix_millis().saturating_mul(1_000),
            ("to", Ok(time), _) => to = time.unix_millis().saturating_mul(1_000),
            ("files", _, "true" | "false") => files = value == "true",
            _ => {
                let detail = "the parameters here are from and to, times such as 2026-11-21T18:00:00Z, and files, true \
                              or false";
                return Reply::problem(400, detail, &[]);
            }
        }
    }
    let excerpt = shelf.excerpt(from, to);
    let entries = &excerpt.entries;
    let mut spans: Vec<Span> = Vec::new();
    for entry in entries {
        match spans.last_mut() {
            Some(span) if span.goes_on_with(entry) => span.add(entry),
            _ => spans.push(Span::of(entry)),
        }
    }
    let report = shelf.report();
    let mut body = json!({
        "bytes": report.bytes,
        "spans": spans.iter().take(SPANS_MAX).map(Span::view).collect::<Vec<Value>>(),
        "complete": spans.len() <= SPANS_MAX && (!files || entries.len() <= FILES_MAX),
        "watch": format!("/rec/{name}/master.m3u8"),
    });
    if files {
        let file = |entry: &RecordedSegment| {
            json!({
                "name": entry.name(),
                "kind": kind(entry.kind),
                "from": time(entry.unix_micros),
                "to": time(entry.ends()),
                "bytes": entry.bytes,
            })
        };
        let inits = excerpt.inits.iter().map(|init| json!({"name": init.name(), "kind": kind(init.kind)}));
        body["init_files"] = inits.collect();
        body["files"] = entries.iter().take(FILES_MAX).map(file).collect();
    }
    Reply::json(200, &body)
}

/// Segments without a gap between them.
struct Span {
    from: i64,
    to: i64,
    last: u64,
    bytes: u64,
    segments: u64,
}

impl Span {
    fn of(entry: &RecordedSegment) -> Span {
        Span {
            from: entry.unix_micros,
            to: entry.ends(),
            last: entry.number,
            bytes: entry.bytes,
            segments: 1,
        }
    }

    fn goes_on_with(&self, entry: &RecordedSegment) -> bool {
        entry.number == self.last || (entry.number == self.last + 1 && !entry.is_discontinuity)
    }

    fn add(&mut self, entry: &RecordedSegment) {
        self.to = self.to.max(entry.ends());
        self.segments += u64::from(entry.number != self.last);
        self.last = entry.number;
        self.bytes += entry.bytes;
    }

    fn view(&self) -> Value {
        json!({"from": time(self.from), "to": time(self.to), "bytes": self.bytes, "segments": self.segments})
    }
}

fn kind(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => "video",
        TrackKind::Audio => "audio",
    }
}

fn time(unix_micros: i64) -> Timestamp {
    Timestamp::from_unix_millis(unix_micros.div_euclid(1_000))
}

fn piece(request: &Request, file: &str, shelf: &Shelf) -> Reply {
    let bytes = match shelf.read(file) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Reply::problem(404, "this file is not kept any more, or never was", &[]),
        Err(error) => return Reply::problem(503, &format!("the disk does not give this file: {error}"), &[]),
    };
    let len = bytes.len();
    let media_type = match RecordedSegment::parse(file).map(|entry| entry.kind) {
        Some(TrackKind::Audio) => "audio/mp4",
        _ => "video/mp4",
    };
    let with_headers =
        |reply: Reply| reply.with("accept-ranges", "bytes").with("etag", format!("\"{file}\""));
    let Some(range) = header(request, "range").filter(|_| request.method == Method::Get) else {
        if len > PIECE_MAX && request.method == Method::Get {
            let detail =
                format!("the file has {len} bytes; ask for pieces of at most {PIECE_MAX} with Range");
            return Reply::problem(400, &detail, &[]).with("accept-ranges", "bytes");
        }
        return with_headers(Reply::new(200, media_type, bytes));
    };
    match range_of(range, len) {
        Some((from, to)) => {
            // Less than was asked for may be sent, and the head says so.
            let to = to.min(from.saturating_add(PIECE_MAX));
            let part = bytes.slice(from..to);
            let reply = with_headers(Reply::new(206, media_type, part));
            reply.with("content-range", format!("bytes {from}-{}/{len}", to - 1))
        }
        None => Reply::problem(416, "this range lies outside of the file", &[])
            .with("content-range", format!("bytes */{len}")),
    }
}

/// The first and the last but one byte of a single range; `None` if it is none, or outside.
fn range_of(text: &str, len: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().ok())?;
    let (from, to) = match (first, last) {
        ("", suffix) => (len.saturating_sub(number(suffix)?), len),
        (first, "") => (number(first)?, len),
        (first, last) => (number(first)?, number(last)?.saturating_add(1).min(len)),
    };
    (from < to && to <= len).then_some((from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_mountpoint_and_perhaps_a_file() {
        assert_eq!(place_of("/api/v1/mountpoints/yard/recordings"), Some(("yard", None)));
        assert_eq!(place_of("/api/v1/mountpoints/yard/recordings/a.m4s"), Some(("yard", Some("a.m4s"))));
        for path in
            ["//recordings", "/yard/recordings/", "/yard/recordingsx", "/yard/recordings/a/b", "/recordings"]
        {
            assert_eq!(place_of(&format!("/api/v1/mountpoints{path}")), None, "{path}");
        }
    }

    #[test]
    fn a_range_lies_in_the_file_or_is_none() {
        for (text, range) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=2-5", Some((2, 6))),
            ("bytes=5-", Some((5, 10))),
            ("bytes=-3", Some((7, 10))),
            ("bytes=-99", Some((0, 10))),
            ("bytes=0-99", Some((0, 10))),
            ("bytes=10-", None),
            ("bytes=-0", None),
            ("bytes=5-2", None),
            ("bytes=-", None),
            ("bytes=a-", None),
            ("bytes=0-1,3-4", None),
            ("bytes=99999999999999999999-", None),
        ] {
            assert_eq!(range_of(text, 10), range, "{text}");
        }
    }
}
