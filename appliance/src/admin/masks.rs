//! `GET` and `PUT /api/v1/mountpoints/NAME/masks`: the privacy masks of one mountpoint.

use super::api::AdminApi;
use super::head::Method;
use super::reply::Reply;
use super::routes::{Request, etag, header, is_json, revision};
use crate::wiring::MaskError;
use fieldgate_model::config::Source;
use fieldgate_model::masks::Masks;
use serde::Deserialize;
use serde_json::json;

/// The mountpoint whose masks are at this path.
pub(super) fn mountpoint_of(path: &str) -> Option<&str> {
    path.strip_prefix("/api/v1/mountpoints/")?.strip_suffix("/masks").filter(|name| !name.contains('/'))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    masks: Masks,
}

/// Answers for this mountpoint.
pub(super) fn respond(request: &Request, name: &str, api: &dyn AdminApi) -> Reply {
    let running = api.running();
    let Some(mountpoint) = running.mountpoints.get(name).filter(|_| !name.ends_with('*')) else {
        return Reply::problem(404, &format!("there is no mountpoint {name}"), &[]);
    };
    let Some(desk) = api.masks() else {
        return Reply::problem(503, "the gateway is starting; try again", &[]);
    };
    if request.method != Method::Put {
        let view = desk.view(name);
        return Reply::json(200, &json!({"masks": view.masks})).with("etag", etag(view.revision));
    }
    if !is_json(request) {
        return Reply::problem(415, "send the masks with Content-Type: application/json", &[]);
    }
    let Some(wanted) = header(request, "if-match") else {
        let detail = format!("say with If-Match which masks you changed: the ETag of GET {}", request.target);
        return Reply::problem(428, &detail, &[]);
    };
    let body: Body = match serde_json::from_slice(&request.body) {
        Ok(body) => body,
        Err(error) => return Reply::problem(400, &format!("these are no masks: {error}"), &[]),
    };
    let is_camera = !matches!(mountpoint.source, Source::Publish(_) | Source::Pull(_) | Source::Kmp(_));
    if !is_camera && !body.masks.is_empty() {
        let detail =
            "only a camera's pictures can be masked, not what others publish: take the camera in by itself";
        return Reply::problem(422, detail, &[]);
    }
    let over = revision(wanted).unwrap_or_else(|| desk.view(name).revision);
    if revision(wanted).is_none() && wanted.trim() != "*" {
        let current = desk.view(name).revision;
        return Reply::problem(412, &MaskError::Stale { current }.to_string(), &[])
            .with("etag", etag(current));
    }
    match desk.set(name, over, body.masks) {
        Ok(_) if !api.masks_in_force(name) => {
            let detail = "the masks are set; what a push keeps from before is still being dropped: ask again";
            Reply::problem(503, detail, &[])
        }
        Ok(revision) => {
            Reply::json(200, &json!({"masks": desk.view(name).masks})).with("etag", etag(revision))
        }
        Err(error) => {
            let status = match &error {
                MaskError::Stale { .. } => 412,
                MaskError::TooMany => 422,
                MaskError::Io(_) | MaskError::Lost { .. } => 500,
            };
            Reply::problem(status, &error.to_string(), &[])
        }
    }
}
