//! `/api/v1/acceptance`: the survey of the site, and its signed certificate; `/api/v1/device-key`.

use super::api::AdminApi;
use super::reply::Reply;
use super::routes::{Request, Route, is_json};
use crate::acceptance::{SurveyError, Wish};
use crate::access::{Area, Need, Role};
use fieldgate_model::config::{Path, Problem};
use serde_json::json;

const BASE: &str = "/api/v1/acceptance";
const KEY: &str = "/api/v1/device-key";
const FILE: &str = "certificate.json";
const OPERATOR: Need = Need::Role(Role::Operator, Area::Status);

static ALL: Route = Route {
    change: &[(super::head::Method::Post, Need::Role(Role::Installer, Area::Config))],
    max_body_len: 8 << 10,
    ..Route::read_only(BASE, OPERATOR)
};
static ONE: Route = Route::read_only("/api/v1/acceptance/{id}", OPERATOR);
static DOCUMENT: Route = Route::read_only("/api/v1/acceptance/{id}/certificate.json", OPERATOR);
static PUBLIC: Route = Route::read_only(KEY, OPERATOR);

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
enum Place<'a> {
    All,
    One(&'a str),
    Document(&'a str),
    Key,
}

fn place(path: &str) -> Option<Place<'_>> {
    if path == KEY {
        return Some(Place::Key);
    }
    let rest = path.strip_prefix(BASE)?;
    if rest.is_empty() {
        return Some(Place::All);
    }
    let (id, file) = match rest.strip_prefix('/')?.split_once('/') {
        None => (rest.strip_prefix('/')?, None),
        Some((id, file)) => (id, Some(file)),
    };
    match file {
        _ if id.is_empty() => None,
        None => Some(Place::One(id)),
        Some(FILE) => Some(Place::Document(id)),
        Some(_) => None,
    }
}

/// The route of a path of this module.
pub(super) fn find_route(path: &str) -> Option<&'static Route> {
    Some(match place(path)? {
        Place::All => &ALL,
        Place::One(_) => &ONE,
        Place::Document(_) => &DOCUMENT,
        Place::Key => &PUBLIC,
    })
}

/// Its routes.
pub(super) fn routes() -> impl Iterator<Item = &'static Route> {
    [&ALL, &ONE, &DOCUMENT, &PUBLIC].into_iter()
}

/// Answers a request whose route was found here and whose method is among its own.
pub(super) fn respond(request: &Request, path: &str, api: &dyn AdminApi) -> Reply {
    let Some(acceptance) = api.acceptance() else {
        return Reply::problem(503, "surveys are not to be had: the log says why", &[]);
    };
    let unknown =
        |id: &str| Reply::problem(404, &format!("there is no survey {id}; the last eight are kept"), &[]);
    match place(path) {
        Some(Place::Key) => {
            Reply::json(200, &json!({"algorithm": "ed25519", "public_key": acceptance.public_key()}))
        }
        Some(Place::One(id)) => {
            acceptance.get(id).map_or_else(|| unknown(id), |it| Reply::json(200, &json!(it)))
        }
        Some(Place::Document(id)) => match (acceptance.document(id), acceptance.get(id)) {
            (Some(document), _) => {
                let name = format!("attachment; filename=\"acceptance-{id}.json\"");
                Reply::json(200, &document).with("content-disposition", name)
            }
            (None, Some(_)) => Reply::problem(409, "this survey has not ended yet", &[]),
            (None, None) => unknown(id),
        },
        _ if request.is_post() => start(request, api),
        _ => Reply::json(200, &json!({"surveys": acceptance.all()})),
    }
}

fn start(request: &Request, api: &dyn AdminApi) -> Reply {
    let Some(acceptance) = api.acceptance() else { return Reply::empty(503) };
    if !is_json(request) {
        return Reply::problem(415, "send it with Content-Type: application/json", &[]);
    }
    let wish: Wish = match serde_json::from_slice(&request.body) {
        Ok(wish) => wish,
        // What stands in the body is not repeated: addresses hold keys.
        Err(error) => {
            let place = format!("line {}, column {}", error.line(), error.column());
            return Reply::problem(400, &format!("the body has not the right shape, at {place}"), &[]);
        }
    };
    match acceptance.start(wish, request.who()) {
        Ok(survey) => {
            let location = format!("{BASE}/{}", survey.id);
            Reply::json(202, &json!(survey)).with("location", location)
        }
        Err(error) => {
            let detail = error.to_string();
            match error {
                SurveyError::Busy(_) | SurveyError::Nothing => Reply::problem(409, &detail, &[]),
                SurveyError::Soak => {
                    let problem = Problem::new(&Path::root().field("soak"), detail.clone());
                    Reply::problem(422, &detail, &[problem])
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_surveys_and_their_documents() {
        assert_eq!(place("/api/v1/acceptance"), Some(Place::All));
        assert_eq!(place("/api/v1/acceptance/7"), Some(Place::One("7")));
        assert_eq!(place("/api/v1/acceptance/7/certificate.json"), Some(Place::Document("7")));
        assert_eq!(place("/api/v1/device-key"), Some(Place::Key));
        for odd in [
            "/api/v1/acceptance/",
            "/api/v1/acceptance//certificate.json",
            "/api/v1/acceptance/7/x",
            "/api/v1/acceptances",
        ] {
            assert_eq!(place(odd), None, "{odd}");
        }
    }
}
