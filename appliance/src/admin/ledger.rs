//! `GET /api/v1/ledger`: what became of what was sent to upstreams.

use super::api::AdminApi;
use super::reply::Reply;
use fieldgate_model::Timestamp;
use fieldgate_model::config::{Path, Problem};
use fieldgate_spool::{Line, Query};
use serde_json::{Value, json};

/// Lines in one answer, unless asked for fewer or more.
const DEFAULT_LIMIT: usize = 500;
const MAX_LIMIT: usize = 5_000;

/// Answers from the query part of `target`.
pub(super) fn get(target: &str, api: &dyn AdminApi) -> Reply {
    let query = match parse(target.split_once('?').map_or("", |(_, query)| query)) {
        Ok(query) => query,
        Err(problems) => return Reply::problem(400, "the query cannot be understood", &problems),
    };
    let answer = api.ledger(&query);
    let mut body = json!({"entries": answer.lines.iter().map(line).collect::<Vec<Value>>()});
    if let Some(next) = answer.next {
        body["next_cursor"] = json!(next.to_string());
    }
    if let Some(before) = answer.forgotten_before_unix_micros {
        body["forgotten_before"] = json!(time(before));
    }
    Reply::json(200, &body)
}

fn line(line: &Line) -> Value {
    let mut entry = json!({
        "mountpoint": line.key.mountpoint,
        "upstream": line.key.upstream,
        "state": line.state.as_str(),
        "from": time(line.stretch.from_unix_micros),
        "to": time(line.stretch.to_unix_micros),
        "frames": line.stretch.frames,
    });
    if !line.key.track.is_empty() {
        entry["track"] = json!(line.key.track);
    }
    if line.stretch.bytes > 0 {
        entry["bytes"] = json!(line.stretch.bytes);
    }
    if let Some(cause) = line.state.cause() {
        entry["cause"] = json!(cause.as_str());
    }
    entry
}

fn time(unix_micros: i64) -> Timestamp {
    Timestamp::from_unix_millis(unix_micros.div_euclid(1_000))
}

/// Reads the parameters, or tells all that is wrong with them.
fn parse(text: &str) -> Result<Query, Vec<Problem>> {
    let mut query = Query { limit: DEFAULT_LIMIT, ..Query::default() };
    let mut problems = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let path = Path::root().field(name);
        let Some(value) = decode(value) else {
            problems.push(Problem::new(&path, "is not percent-encoded UTF-8").got(value));
            continue;
        };
        let mut problem = |text: String| problems.push(Problem::new(&path, text).got(value.as_str()));
        let moment = value.parse::<Timestamp>().map(|time| time.unix_millis().saturating_mul(1_000));
        match name {
            "mountpoint" => query.mountpoint = Some(value),
            "from" => match moment {
                Ok(micros) => query.from_unix_micros = Some(micros),
                Err(error) => problem(error.to_string()),
            },
            "to" => match moment {
                Ok(micros) => query.to_unix_micros = Some(micros),
                Err(error) => problem(error.to_string()),
            },
            "cursor" => match value.parse() {
                Ok(cursor) => query.cursor = Some(cursor),
                Err(error) => problem(error.to_string()),
            },
            "limit" => match value.parse() {
                Ok(limit @ 1..=MAX_LIMIT) => query.limit = limit,
                _ => problem(format!("must be 1 to {MAX_LIMIT}")),
            },
            _ => problem("is no parameter here; there are mountpoint, from, to, cursor and limit".to_owned()),
        }
    }
    if problems.is_empty() { Ok(query) } else { Err(problems) }
}

/// Undoes percent-encoding; `+` stays, as it is no space in a query of ours.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_and_every_wrong_one_is_named() {
        let query = parse(
            "mountpoint=gate%2D2&from=2026-11-21T02:00:00Z&to=2026-11-21T03%3A00:00.500Z&limit=7&cursor=5.1",
        );
        let query = query.unwrap();
        assert_eq!(query.mountpoint.as_deref(), Some("gate-2"));
        assert_eq!(query.from_unix_micros, Some(1_795_226_400_000_000));
        assert_eq!(query.to_unix_micros, Some(1_795_230_000_500_000));
        assert_eq!((query.limit, query.cursor.map(|cursor| cursor.to_string())), (7, Some("5.1".to_owned())));
        assert!(parse("").is_ok());
        let problems = parse("from=now&to=%zz&limit=0&cursor=x&page=2").unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["from", "to", "limit", "cursor", "page"]);
    }
}
