//! `/api/v1/config/history`: the last revisions of the config, who made them, what they changed, and back to one.

use super::api::{AdminApi, Put, Wanted};
use super::head::Method;
use super::reply::Reply;
use super::routes::{Request, applied, condition, dry_run};
use crate::store::{Confirmed, Meta};
use fieldgate_model::config::{diff, differences};
use serde_json::{Value, json};

const BASE: &str = "/api/v1/config/history/";
/// Longest list of differences in one answer, in bytes.
const DIFF_BYTES: usize = 256 << 10;

/// The revision that a path below `/api/v1/config/history` names, and whether it is to be restored.
pub(super) fn split(path: &str) -> Option<(u64, bool)> {
    let rest = path.strip_prefix(BASE)?;
    let (number, restores) = match rest.strip_suffix("/restore") {
        Some(number) => (number, true),
        None => (rest, false),
    };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.parse().ok()).flatten().map(|number| (number, restores))
}

/// Answers for one revision.
pub(super) fn respond(request: &Request, revision: u64, api: &dyn AdminApi) -> Reply {
    if request.method != Method::Post {
        return one(revision, api);
    }
    let over = condition(request, api);
    let (over, dry_run) = match over.and_then(|over| Ok((over, dry_run(request)?))) {
        Ok(asked) => asked,
        Err(reply) => return reply,
    };
    let by = format!("{} from {}", request.who(), request.from());
    applied(api.put_config(Put { wanted: Wanted::Revision(revision), over, dry_run, by }))
}

/// All revisions, newest first, as an answer.
pub(super) fn list(api: &dyn AdminApi) -> Reply {
    Reply::json(200, &json!({"revisions": revisions(api)}))
}

/// All revisions, newest first: number, who, when, what changed.
pub(super) fn revisions(api: &dyn AdminApi) -> Value {
    let mut shown: Vec<Value> = Vec::new();
    let mut before: Option<Confirmed> = None;
    let current = api.confirmed();
    let past = api.history();
    let past = past.iter().map(|past| (past.meta.clone(), past.confirmed().ok()));
    for (meta, confirmed) in past.chain([(current.meta.clone(), Some(current.as_ref().clone()))]) {
        let mut entry = told(&meta);
        entry["current"] = json!(meta.revision == current.meta.revision);
        if let (Some(before), Some(confirmed)) = (&before, &confirmed) {
            entry["changes"] = json!(diff(&before.config, &confirmed.config));
        }
        shown.push(entry);
        before = confirmed;
    }
    shown.reverse();
    Value::Array(shown)
}

fn one(revision: u64, api: &dyn AdminApi) -> Reply {
    let current = api.confirmed();
    let history = api.history();
    let before = history.iter().rev().find(|past| past.meta.revision < revision);
    let found = if current.meta.revision == revision {
        Ok(current.as_ref().clone())
    } else {
        match history.iter().find(|past| past.meta.revision == revision) {
            Some(past) => past.confirmed(),
            None => return Reply::problem(404, &format!("revision {revision} is not kept"), &[]),
        }
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => return Reply::problem(409, &format!("revision {revision} {error}"), &[]),
    };
    let mut shown = told(&found.meta);
    shown["config"] = json!(found.config);
    if let Some(before) = before.and_then(|before| before.confirmed().ok()) {
        let (differences, left_out) = differences(&before.config, &found.config, DIFF_BYTES);
        shown["diff"] = json!(differences);
        shown["diff_left_out"] = json!(left_out);
    }
    Reply::json(200, &shown)
}

fn told(meta: &Meta) -> Value {
    json!({"revision": meta.revision, "by": meta.by, "at": meta.at})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_revision() {
        assert_eq!(split("/api/v1/config/history/7"), Some((7, false)));
        assert_eq!(split("/api/v1/config/history/7/restore"), Some((7, true)));
        for path in ["", "x", "-1", "+1", "7/", "7/x", "/restore", "7/restore/", "99999999999999999999"] {
            assert_eq!(split(&format!("{BASE}{path}")), None, "{path}");
        }
    }
}
