//! `/api/v1/update`: the machine's firmware, a bundle that is sent in pieces, and its installation.

use super::api::AdminApi;
use super::head::Method;
use super::reply::Reply;
use super::routes::{Request, Route, has_media_type, is_json};
use crate::access::{Area, Need, Role};
use crate::machine::AskError;
use crate::update::{InstallWish, PIECE_MAX, UpdateError, Updates};
use fieldgate_model::config::parse_strict;
use serde::de::DeserializeOwned;
use serde_json::json;

const VIEW: &str = "/api/v1/update";
const UPLOAD: &str = "/api/v1/update/upload";
const INSTALL: &str = "/api/v1/update/install";
const INSTALLER: Need = Need::Role(Role::Installer, Area::Config);

static VIEW_ROUTE: Route = Route::read_only(VIEW, Need::Role(Role::Operator, Area::Status));
static UPLOAD_ROUTE: Route = Route {
    path: UPLOAD,
    read: None,
    change: &[(Method::Post, INSTALLER), (Method::Put, INSTALLER), (Method::Delete, INSTALLER)],
    max_body_len: PIECE_MAX,
    waits: true,
    looks: false,
    hashes: false,
};
static INSTALL_ROUTE: Route = Route {
    path: INSTALL,
    read: None,
    change: &[(Method::Post, INSTALLER)],
    max_body_len: 4 << 10,
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
    [&VIEW_ROUTE, &UPLOAD_ROUTE, &INSTALL_ROUTE].into_iter()
}

/// Answers a request whose route was found here and whose method is among its own.
pub(super) fn respond(request: &Request, path: &str, api: &dyn AdminApi) -> Reply {
    let Some(updates) = api.updates() else {
        return Reply::problem(503, "the gateway is starting; try again", &[]);
    };
    let answer = match (request.method, path) {
        (Method::Post, UPLOAD) => begin(request, updates),
        (Method::Put, _) => piece(request, updates),
        (Method::Delete, _) => updates.drop_upload().map(|()| Reply::empty(204)).map_err(|it| refused(&it)),
        (Method::Post, _) => install(request, api),
        _ => Ok(Reply::json(200, &json!(updates.view()))),
    };
    answer.unwrap_or_else(|refused| refused)
}

fn who(request: &Request) -> String {
    format!("{} from {}", request.who(), request.from())
}

fn begin(request: &Request, updates: &Updates) -> Result<Reply, Reply> {
    let upload = updates.begin_upload(read(request)?, &who(request)).map_err(|error| refused(&error))?;
    Ok(Reply::json(201, &json!(upload)))
}

fn piece(request: &Request, updates: &Updates) -> Result<Reply, Reply> {
    if !has_media_type(request, "application/octet-stream") {
        return Err(Reply::problem(415, "send a piece with Content-Type: application/octet-stream", &[]));
    }
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let offset = query.strip_prefix("offset=").and_then(|offset| offset.parse().ok());
    let offset = offset.ok_or_else(|| {
        Reply::problem(400, "say with ?offset=N, and nothing else, where the piece begins", &[])
    })?;
    updates
        .take_piece(offset, &request.body)
        .map(|upload| Reply::json(200, &json!(upload)))
        .map_err(|error| refused(&error))
}

fn install(request: &Request, api: &dyn AdminApi) -> Result<Reply, Reply> {
    let wish = if request.body.is_empty() { InstallWish::default() } else { read(request)? };
    api.install_update(wish, &who(request)).map_err(|error| refused(&error))?;
    Ok(Reply::json(202, &json!({"state": "installing", "watch": VIEW})))
}

fn read<T: DeserializeOwned>(request: &Request) -> Result<T, Reply> {
    if !is_json(request) {
        return Err(Reply::problem(415, "send this with Content-Type: application/json", &[]));
    }
    let text = std::str::from_utf8(&request.body).unwrap_or_default();
    let wish = parse_strict(text).and_then(serde_json::from_value);
    wish.map_err(|error| Reply::problem(422, &format!("this is not understood: {error}"), &[]))
}

fn refused(error: &UpdateError) -> Reply {
    let status = match error {
        UpdateError::Wrong | UpdateError::OddVersion => 422,
        UpdateError::TooMuch(_) | UpdateError::NoSpace { .. } => 413,
        UpdateError::Io(_) => 500,
        UpdateError::Machine(AskError::Silent(_)) => 503,
        UpdateError::NoUpload
        | UpdateError::Offset(_)
        | UpdateError::NotWhole { .. }
        | UpdateError::UnderWay(_)
        | UpdateError::OtherMachine { .. }
        | UpdateError::NotNewer { .. }
        | UpdateError::OtherVersion { .. }
        | UpdateError::Replaced
        | UpdateError::Machine(_) => 409,
    };
    Reply::problem(status, &crate::steward::chain(error), &[])
}
