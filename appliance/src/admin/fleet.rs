//! `/api/v1/fleet`: what came from the fleet manager, and the keys that are believed. `/api/v1/bundle`: hands one in.
//!
//! A bundle needs the role that a config needs, beside its signature: whoever may not change the config shall not decide
//! when a signed change happens either, and the change must be confirmed by somebody who is known.

use super::api::{AdminApi, Outcome};
use super::head::Method;
use super::reply::Reply;
use super::routes::{self, Request, Route, etag, is_json, is_known};
use crate::access::{Area, Need, Role};
use crate::fleet::{BookError, Fleet, Pushed, TakeError};
use crate::steward::Applied;
use fieldgate_fleet::{KeyRing, TEXT_MAX};
use fieldgate_model::config::parse_strict;
use serde_json::json;

const VIEW: &str = "/api/v1/fleet";
const KEYS: &str = "/api/v1/fleet/keys";
const BUNDLE: &str = "/api/v1/bundle";
const ADMIN: Need = Need::Role(Role::Admin, Area::People);

static VIEW_ROUTE: Route = Route::read_only(VIEW, Need::Role(Role::Operator, Area::Config));
static KEYS_ROUTE: Route = Route {
    change: &[(Method::Put, ADMIN)],
    max_body_len: 16 << 10,
    waits: true,
    ..Route::read_only(KEYS, ADMIN)
};
static BUNDLE_ROUTE: Route = Route {
    path: BUNDLE,
    read: None,
    change: &[(Method::Post, Need::Role(Role::Installer, Area::Config))],
    // A line break at the end is fine.
    max_body_len: TEXT_MAX as u64 + 64,
    waits: true,
    looks: false,
    hashes: false,
};

/// The route of a path of this module.
pub(super) fn find_route(path: &str) -> Option<&'static Route> {
    routes().find(|route| route.path == path)
}

/// Its routes.
pub(super) fn routes() -> impl Iterator<Item = &'static Route> {
    [&VIEW_ROUTE, &KEYS_ROUTE, &BUNDLE_ROUTE].into_iter()
}

/// Answers a request whose route was found here and whose method is among its own.
pub(super) fn respond(request: &Request, path: &str, api: &dyn AdminApi) -> Reply {
    let Some(fleet) = api.fleet() else {
        return Reply::problem(503, "the gateway is starting; try again", &[]);
    };
    match (request.method, path) {
        (Method::Post, _) => push(request, api),
        (Method::Put, _) => set_keys(request, fleet).unwrap_or_else(|refused| refused),
        (_, KEYS) => {
            let (revision, keys) = fleet.keys();
            let tag = etag(revision);
            if is_known(request, &tag) {
                return Reply::empty(304).with("etag", tag);
            }
            Reply::json(200, &json!(keys)).with("etag", tag)
        }
        _ => Reply::json(200, &json!(fleet.view())),
    }
}

fn set_keys(request: &Request, fleet: &Fleet) -> Result<Reply, Reply> {
    if !is_json(request) {
        return Err(Reply::problem(415, "send the key ring with Content-Type: application/json", &[]));
    }
    let Some(wanted) = routes::header(request, "if-match") else {
        let detail = format!("say with If-Match which key ring you changed: the ETag of GET {KEYS}");
        return Err(Reply::problem(428, &detail, &[]));
    };
    let stale = |current: u64| {
        let detail = BookError::Stale { current }.to_string();
        Reply::problem(412, &detail, &[]).with("etag", etag(current))
    };
    let over = match wanted.trim() {
        "*" => None,
        tag => Some(routes::revision(tag).ok_or_else(|| stale(fleet.keys().0))?),
    };
    let text = std::str::from_utf8(&request.body).unwrap_or_default();
    let keys = parse_strict(text).and_then(serde_json::from_value::<KeyRing>);
    let keys = keys.map_err(|error| Reply::problem(422, &format!("this is no key ring: {error}"), &[]))?;
    match fleet.set_keys(keys, over) {
        Ok(revision) => Ok(Reply::json(200, &json!(fleet.keys().1)).with("etag", etag(revision))),
        Err(BookError::Stale { current }) => Err(stale(current)),
        Err(error @ BookError::Io(_)) => Err(Reply::problem(500, &error.to_string(), &[])),
    }
}

fn push(request: &Request, api: &dyn AdminApi) -> Reply {
    if !routes::has_media_type(request, "text/plain")
        && !routes::has_media_type(request, "application/octet-stream")
    {
        let detail =
            "send the bundle's text with Content-Type: text/plain; charset=utf-8 or application/octet-stream";
        return Reply::problem(415, detail, &[]);
    }
    let text = String::from_utf8_lossy(&request.body).into_owned();
    let by = format!("{} from {}", request.who(), request.from());
    match api.push_bundle(text, &by) {
        Ok(Some(Pushed::Applied { number, applied })) => numbered(number, applied),
        Ok(Some(Pushed::Known(last))) => {
            let mut told = json!({"state": "known", "bundle": last.taken.number});
            told["outcome"] = json!(last.outcome);
            Reply::json(200, &told)
        }
        Ok(None) => Reply::json(202, &json!({"state": "under_way", "watch": VIEW})),
        Err(error) => refused(&error),
    }
}

fn numbered(number: u64, applied: Applied) -> Reply {
    let mut reply = routes::applied(Ok(Outcome::Settled(applied)));
    if let Ok(mut told) = serde_json::from_slice::<serde_json::Value>(&reply.body) {
        told["bundle"] = json!(number);
        reply.body = told.to_string().into_bytes();
    }
    reply
}

fn refused(error: &TakeError) -> Reply {
    let detail = error.to_string();
    match error {
        TakeError::Refused(refusal) => {
            let status = match refusal.code() {
                "too_large" => 413,
                "unknown_key" | "bad_signature" | "other_device" => 403,
                "expired" | "older" | "same_number" => 409,
                _ => 422,
            };
            Reply::problem(status, &detail, &[])
        }
        TakeError::Config(problems) => Reply::problem(422, "the bundle's config cannot be applied", problems),
        TakeError::Change(error) => routes::refused(&error.clone().into()),
        TakeError::Pending => Reply::problem(409, &detail, &[]),
        TakeError::Busy | TakeError::Stopping => Reply::problem(503, &detail, &[]).with("retry-after", "1"),
        TakeError::Store(_) => Reply::problem(500, &detail, &[]),
    }
}
