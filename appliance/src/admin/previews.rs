//! `GET /api/v1/mountpoints/NAME/previews`: an index of pictures at an interval, of what is recorded, and
//! `.../previews/NUMBER.jpg`: one of them. They are made of the recorded segments when they are asked for, so they take no
//! room on the disk and are gone when what they show is.

use super::api::AdminApi;
use super::reply::Reply;
use super::routes::{Request, is_known};
use crate::wiring::{SnapshotError, WIDTHS};
use fieldgate_media::TrackKind;
use fieldgate_model::Timestamp;
use fieldgate_model::config::Span;
use fieldgate_net::{RecordedSegment, Shelf};
use serde_json::{Value, json};
use std::time::Duration;

/// Previews in one index.
const LISTED_MAX: usize = 1_000;
/// Time from one to the next, where nothing else is asked.
const EVERY: Span = Span::from_secs(60);
/// The least that may be asked for.
const EVERY_MIN: Duration = Duration::from_secs(1);
/// Width of one, where nothing else is asked.
const WIDTH: u32 = 320;

/// The mountpoint, and the segment whose first picture is asked for, if one is.
pub(super) fn place_of(path: &str) -> Option<(&str, Option<u64>)> {
    let (name, rest) = path.strip_prefix("/api/v1/mountpoints/")?.split_once('/')?;
    let rest = rest.strip_prefix("previews")?;
    let number = match rest.strip_prefix('/') {
        None if rest.is_empty() => None,
        Some(file) => {
            let digits = file.strip_suffix(".jpg")?;
            Some(digits.parse().ok().filter(|number: &u64| number.to_string() == digits)?)
        }
        None => return None,
    };
    (!name.is_empty()).then_some((name, number))
}

/// Answers a request that reads.
pub(super) fn respond(request: &Request, (name, number): (&str, Option<u64>), api: &dyn AdminApi) -> Reply {
    let Some(shelf) = api.recordings(name) else {
        return Reply::problem(404, &format!("nothing of {name} is recorded"), &[]);
    };
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    match number {
        Some(number) => picture(request, query, (name, number), api),
        None => index(query, name, &shelf),
    }
}

fn index(query: &str, name: &str, shelf: &Shelf) -> Reply {
    let (mut from, mut to, mut every) = (i64::MIN, i64::MAX, EVERY);
    for (field, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let time = || value.replace("%3A", ":").replace("%3a", ":").parse::<Timestamp>();
        match (field, time(), value.parse::<Span>()) {
            ("from", Ok(time), _) => from = time.unix_millis().saturating_mul(1_000),
            ("to", Ok(time), _) => to = time.unix_millis().saturating_mul(1_000),
            ("every", _, Ok(span)) if span.get() >= EVERY_MIN => every = span,
            _ => {
                let detail = "the parameters here are from and to, times such as 2026-11-21T18:00:00Z, and every, a \
                              span from 1s on";
                return Reply::problem(400, detail, &[]);
            }
        }
    }
    let step = i64::try_from(every.get().as_micros()).unwrap_or(i64::MAX);
    let entries = shelf.excerpt(from, to).entries;
    let mut chosen = apart(&entries, step);
    let listed: Vec<Value> = chosen
        .by_ref()
        .take(LISTED_MAX)
        .map(|entry| {
            let at = Timestamp::from_unix_millis(entry.unix_micros.div_euclid(1_000));
            let number = entry.number;
            json!({"at": at, "picture": format!("/api/v1/mountpoints/{name}/previews/{number}.jpg")})
        })
        .collect();
    let complete = chosen.next().is_none();
    Reply::json(200, &json!({"every": every, "previews": listed, "complete": complete}))
}

/// Segments with pictures that begin at least so many microseconds after the one before.
fn apart(entries: &[RecordedSegment], step: i64) -> impl Iterator<Item = &RecordedSegment> {
    let mut next = i64::MIN;
    entries.iter().filter(|entry| entry.kind == TrackKind::Video).filter(move |entry| {
        let is_due = entry.unix_micros >= next;
        if is_due {
            next = entry.unix_micros.saturating_add(step);
        }
        is_due
    })
}

fn picture(request: &Request, query: &str, (name, number): (&str, u64), api: &dyn AdminApi) -> Reply {
    let mut width = WIDTH;
    for (field, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match (field, value.parse()) {
            ("width", Ok(wanted)) if WIDTHS.contains(&wanted) => width = wanted,
            _ => {
                let (min, max) = (WIDTHS.start(), WIDTHS.end());
                return Reply::problem(400, &format!("the parameter here is width, {min} to {max}"), &[]);
            }
        }
    }
    match api.preview(name, number, width) {
        Ok(snapshot) if is_known(request, &snapshot.etag) => Reply::empty(304).with("etag", snapshot.etag),
        Ok(snapshot) => Reply::new(200, "image/jpeg", snapshot.jpeg).with("etag", snapshot.etag),
        Err(error @ (SnapshotError::Unknown(_) | SnapshotError::NotKept)) => {
            Reply::problem(404, &error.to_string(), &[])
        }
        Err(error) => Reply::problem(503, &error.to_string(), &[]).with("retry-after", "5"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_mountpoint_and_perhaps_a_number() {
        assert_eq!(place_of("/api/v1/mountpoints/yard/previews"), Some(("yard", None)));
        assert_eq!(place_of("/api/v1/mountpoints/yard/previews/7.jpg"), Some(("yard", Some(7))));
        for path in ["//previews", "/yard/previews/", "/yard/previewsx", "/yard/previews/07.jpg", "/previews"]
        {
            assert_eq!(place_of(&format!("/api/v1/mountpoints{path}")), None, "{path}");
        }
        for file in ["x.jpg", "7", "7.png", "a/7.jpg", "99999999999999999999999.jpg", "-7.jpg"] {
            assert_eq!(place_of(&format!("/api/v1/mountpoints/yard/previews/{file}")), None, "{file}");
        }
    }

    #[test]
    fn previews_are_at_least_so_far_apart() {
        let entry = |number: u64, kind, secs: i64| RecordedSegment {
            number,
            kind,
            unix_micros: secs * 1_000_000,
            duration: 540_000,
            init: 1,
            is_discontinuity: false,
            bytes: 1,
        };
        let mut entries: Vec<_> = (0..10).map(|n| entry(n, TrackKind::Video, 6 * n as i64)).collect();
        entries.push(entry(11, TrackKind::Audio, 90));
        let numbers = |step: i64| apart(&entries, step * 1_000_000).map(|it| it.number).collect::<Vec<_>>();
        assert_eq!(numbers(1), (0..10).collect::<Vec<_>>());
        assert_eq!(numbers(15), [0, 3, 6, 9]);
        assert_eq!(numbers(3_600), [0]);
    }
}
