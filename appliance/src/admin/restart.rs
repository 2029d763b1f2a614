//! `POST /api/v1/mountpoints/NAME/restart` and `POST /api/v1/restart`: what shall begin anew.

use super::api::AdminApi;
use super::head::Method;
use super::reply::Reply;
use super::routes::Route;
use crate::access::{Area, Need, Role};
use serde_json::json;

const PROGRAM: &str = "/api/v1/restart";
const INSTALLER: Need = Need::Role(Role::Installer, Area::Config);

const fn route(path: &'static str) -> Route {
    Route {
        path,
        read: None,
        change: &[(Method::Post, INSTALLER)],
        max_body_len: 4 << 10,
        waits: false,
        looks: false,
        hashes: false,
    }
}

static SOURCE: Route = route("/api/v1/mountpoints/{name}/restart");
static WHOLE: Route = route(PROGRAM);

/// The mountpoint that a path names.
pub(super) fn mountpoint_of(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/api/v1/mountpoints/")?.strip_suffix("/restart")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The route of a path of this module.
pub(super) fn find_route(path: &str) -> Option<&'static Route> {
    match path {
        PROGRAM => Some(&WHOLE),
        _ => mountpoint_of(path).map(|_| &SOURCE),
    }
}

/// Its routes.
pub(super) fn routes() -> impl Iterator<Item = &'static Route> {
    [&SOURCE, &WHOLE].into_iter()
}

/// Answers a request whose route was found here.
pub(super) fn respond(path: &str, api: &dyn AdminApi) -> Reply {
    let begun = Reply::json(202, &json!({"state": "restarting", "watch": "/api/v1/status"}));
    match mountpoint_of(path) {
        Some(name) if api.restart_source(name) => begun,
        Some(name) => {
            Reply::problem(404, &format!("there is no mountpoint {name} with a source that runs"), &[])
        }
        None if api.restart() => begun,
        None => {
            let detail = "nobody would start the gateway again: it was not started by systemd";
            Reply::problem(409, detail, &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_mountpoint_or_the_whole() {
        assert_eq!(mountpoint_of("/api/v1/mountpoints/gate-2/restart"), Some("gate-2"));
        assert_eq!(find_route(PROGRAM).map(|route| route.path), Some(PROGRAM));
        for odd in ["/api/v1/mountpoints//restart", "/api/v1/mountpoints/a/b/restart", "/api/v1/restart/"] {
            assert!(find_route(odd).is_none(), "{odd}");
        }
    }
}
