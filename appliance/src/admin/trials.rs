//! `/api/v1/upstream-tests`: whether an upstream works, step by step.

use super::api::AdminApi;
use super::head::Method;
use super::reply::Reply;
use super::routes::{Request, Route, is_json};
use crate::access::{Area, Need, Role};
use crate::wiring::{TrialError, TrialWish};
use fieldgate_model::config::{Path, Problem};
use fieldgate_model::status::State;
use serde_json::json;

const BASE: &str = "/api/v1/upstream-tests";
const INSTALLER: Need = Need::Role(Role::Installer, Area::Config);

static ALL: Route = Route {
    path: BASE,
    read: None,
    change: &[(Method::Post, INSTALLER)],
    max_body_len: 8 << 10,
    waits: false,
    looks: false,
    hashes: false,
};
static ONE: Route = Route::read_only("/api/v1/upstream-tests/{id}", INSTALLER);

/// The test that a path names; none for all.
fn split(path: &str) -> Option<Option<&str>> {
    match path.strip_prefix(BASE)? {
        "" => Some(None),
        rest => rest.strip_prefix('/').filter(|id| !id.is_empty() && !id.contains('/')).map(Some),
    }
}

/// The route of a path of this module.
pub(super) fn find_route(path: &str) -> Option<&'static Route> {
    split(path).map(|id| if id.is_some() { &ONE } else { &ALL })
}

/// Its routes.
pub(super) fn routes() -> impl Iterator<Item = &'static Route> {
    [&ALL, &ONE].into_iter()
}

/// Answers a request whose route was found here and whose method is among its own.
pub(super) fn respond(request: &Request, path: &str, api: &dyn AdminApi) -> Reply {
    let Some(trials) = api.trials() else {
        return Reply::problem(503, "the gateway is starting; try again", &[]);
    };
    if let Some(id) = split(path).flatten() {
        return match trials.get(id) {
            Some(trial) => Reply::json(200, &json!(trial)),
            None => Reply::problem(404, &format!("there is no test {id}; the last eight are kept"), &[]),
        };
    }
    if !is_json(request) {
        return Reply::problem(415, "send it with Content-Type: application/json", &[]);
    }
    let wish: TrialWish = match serde_json::from_slice(&request.body) {
        Ok(wish) => wish,
        // What stands in the body is not repeated: addresses hold keys.
        Err(error) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            return Reply::problem(400, &format!("the body has not the right shape, at {place}"), &[]);
        }
    };
    let status = api.status();
    let delivers = |mountpoint: &str, push: &str| {
        let push = status.mountpoints.get(mountpoint).and_then(|it| it.pushes.get(push));
        push.is_some_and(|push| push.activity.state == State::Running)
    };
    match trials.start(wish, &api.running(), delivers) {
        Ok(trial) => {
            let location = format!("{BASE}/{}", trial.id);
            Reply::json(202, &json!(trial)).with("location", location)
        }
        Err(error) => {
            let detail = error.to_string();
            let at = Problem::new(&Path::root().field("url"), detail.clone());
            match error {
                TrialError::Busy => Reply::problem(409, &detail, &[]),
                TrialError::Unknown { .. } => Reply::problem(404, &detail, &[]),
                TrialError::Neither => Reply::problem(422, &detail, &[at]),
            }
        }
    }
}
