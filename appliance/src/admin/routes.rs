//! Which resource answers what. Plain functions from a request to a reply.

use super::api::{AdminApi, Outcome, Put, PutError, Wanted, config_schema};
use super::head::Method;
use super::reply::Reply;
use super::{
    acceptance, certificate, discovery, events, fleet, history, ledger, logs, masks, metrics, openapi, page,
    people, plan, previews, recordings, restart, seen, snapshots, support, trials, update,
};
use crate::access::{Access, Area, Need, Principal, Role};
use crate::steward::{Applied, ChangeError};
use crate::wiring::BODY_MAX;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::net::SocketAddr;
use tokio::time::Instant;

/// A whole request, as the front let it through.
#[derive(Clone)]
pub(super) struct Request {
    /// What is wanted.
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: String,
    /// Headers by lower-case name; only those that the front passes on.
    pub(super) headers: Vec<(String, String)>,
    /// Who asks, if that is known.
    pub(super) principal: Option<Principal>,
    /// From where; the front alone can tell.
    pub(super) peer: SocketAddr,
    /// Whether it came over TLS.
    pub(super) is_secure: bool,
    /// When the asking connection was opened.
    pub(super) opened: Instant,
    /// The body, whole.
    pub(super) body: Vec<u8>,
}

impl Request {
    /// Whether it brings something.
    pub(super) fn is_post(&self) -> bool {
        self.method == Method::Post
    }

    /// Who asks, for the record.
    pub(super) fn who(&self) -> String {
        self.principal.as_ref().map_or_else(|| "stranger".to_owned(), |known| known.identity.to_string())
    }

    /// From where, for the record.
    pub(super) fn from(&self) -> String {
        self.peer.ip().to_canonical().to_string()
    }
}

/// One path: who may do what with it. Nothing is answered that has no line here.
pub(super) struct Route {
    pub(super) path: &'static str,
    /// Who may read it; none where there is nothing to read.
    pub(super) read: Option<Need>,
    /// Who may do what else with it.
    pub(super) change: &'static [(Method, Need)],
    /// Longest body, in bytes.
    pub(super) max_body_len: u64,
    /// Changes wait for the steward; only some of the threads may do so at once.
    pub(super) waits: bool,
    /// Pictures wait to be decoded; one request after the other.
    pub(super) looks: bool,
    /// Passwords are hashed; one request after the other.
    pub(super) hashes: bool,
}

impl Route {
    /// For paths that can only be read.
    pub(super) const fn read_only(path: &'static str, read: Need) -> Route {
        Route {
            path,
            read: Some(read),
            change: &[],
            max_body_len: 0,
            waits: false,
            looks: false,
            hashes: false,
        }
    }

    /// Who may do this with it; none where nobody can.
    pub(super) fn need(&self, method: Method) -> Option<Need> {
        let changes = || self.change.iter();
        match method {
            Method::Get | Method::Head => self.read,
            // What may be done is told to whoever may do anything of it.
            Method::Options => {
                let needs = || changes().map(|(_, need)| *need).chain(self.read);
                let open = needs().find(|need| matches!(need, Need::Nothing | Need::Login));
                Some(open.unwrap_or(Need::Known))
            }
            _ => changes().find(|(known, _)| *known == method).map(|(_, need)| *need),
        }
    }

    /// What may be done with it.
    pub(super) fn methods(&self) -> Vec<Method> {
        let reading: &[Method] = if self.read.is_some() { &[Method::Get, Method::Head] } else { &[] };
        let changing = self.change.iter().map(|(method, _)| *method);
        reading.iter().copied().chain([Method::Options]).chain(changing).collect()
    }
}

const OPERATOR_STATUS: Need = Need::Role(Role::Operator, Area::Status);
const OPERATOR_CONFIG: Need = Need::Role(Role::Operator, Area::Config);
const INSTALLER_CERTIFICATE: Need = Need::Role(Role::Installer, Area::Certificate);
/// It tells more of peers and addresses than the status does.
const ADMIN_LOG: Need = Need::Role(Role::Admin, Area::Status);
const INSTALLER_CONFIG: Need = Need::Role(Role::Installer, Area::Config);

/// The body is the config, or what of it changes.
const CONFIG_MAX: u64 = 4 << 20;

static ROUTES: [Route; 19] = [
    Route::read_only("/healthz", Need::Nothing),
    Route::read_only("/metrics", Need::Role(Role::Operator, Area::Metrics)),
    Route::read_only("/api/v1/openapi.json", Need::Known),
    Route::read_only("/api/v1/status", Need::Role(Role::Viewer, Area::Status)),
    Route::read_only("/api/v1/events", Need::Role(Role::Viewer, Area::Status)),
    Route::read_only("/api/v1/events/stream", Need::Role(Role::Viewer, Area::Status)),
    Route::read_only("/api/v1/logs", ADMIN_LOG),
    Route::read_only("/api/v1/logs/stream", ADMIN_LOG),
    Route::read_only("/api/v1/config/schema", OPERATOR_CONFIG),
    Route::read_only("/api/v1/support-bundle", OPERATOR_CONFIG),
    Route::read_only("/api/v1/config/history", OPERATOR_CONFIG),
    Route::read_only("/api/v1/ledger", OPERATOR_STATUS),
    Route::read_only("/api/v1/network", OPERATOR_STATUS),
    Route::read_only("/api/v1/time", OPERATOR_STATUS),
    Route::read_only("/api/v1/devices", Need::Role(Role::Operator, Area::Cameras)),
    Route {
        change: &[(Method::Put, INSTALLER_CONFIG), (Method::Patch, INSTALLER_CONFIG)],
        // A thousand mountpoints with ten pushes each fit.
        max_body_len: CONFIG_MAX,
        waits: true,
        ..Route::read_only("/api/v1/config", OPERATOR_CONFIG)
    },
    Route {
        change: &[(Method::Post, INSTALLER_CONFIG)],
        max_body_len: CONFIG_MAX,
        waits: true,
        ..Route::read_only("/api/v1/plan", OPERATOR_CONFIG)
    },
    Route {
        change: &[(Method::Put, INSTALLER_CERTIFICATE), (Method::Delete, INSTALLER_CERTIFICATE)],
        // A chain of several certificates with large keys.
        max_body_len: 64 << 10,
        waits: true,
        ..Route::read_only("/api/v1/certificate", Need::Role(Role::Operator, Area::Certificate))
    },
    Route {
        path: "/api/v1/config/confirm",
        read: None,
        change: &[(Method::Post, INSTALLER_CONFIG)],
        max_body_len: 4 << 10,
        waits: true,
        looks: false,
        hashes: false,
    },
];

/// `/api/v1/mountpoints/NAME/snapshot.jpg`.
static SNAPSHOT: Route = Route {
    looks: true,
    ..Route::read_only("/api/v1/mountpoints/{name}/snapshot.jpg", Need::Role(Role::Viewer, Area::Watch))
};

/// `/api/v1/mountpoints/NAME/recordings`.
static RECORDINGS: Route =
    Route::read_only("/api/v1/mountpoints/{name}/recordings", Need::Role(Role::Viewer, Area::Watch));

/// `/api/v1/mountpoints/NAME/recordings/FILE`.
static RECORDED: Route =
    Route::read_only("/api/v1/mountpoints/{name}/recordings/{file}", Need::Role(Role::Viewer, Area::Watch));

/// `/api/v1/mountpoints/NAME/previews`.
static PREVIEWS: Route =
    Route::read_only("/api/v1/mountpoints/{name}/previews", Need::Role(Role::Viewer, Area::Watch));

/// `/api/v1/mountpoints/NAME/previews/NUMBER.jpg`.
static PREVIEW: Route = Route {
    looks: true,
    ..Route::read_only("/api/v1/mountpoints/{name}/previews/{picture}", Need::Role(Role::Viewer, Area::Watch))
};

/// `/api/v1/mountpoints/NAME/masks`.
static MASKS: Route = Route {
    change: &[(Method::Put, INSTALLER_CONFIG)],
    max_body_len: BODY_MAX,
    waits: true,
    ..Route::read_only("/api/v1/mountpoints/{name}/masks", OPERATOR_CONFIG)
};

/// `/api/v1/config/history/N`.
static REVISION: Route = Route::read_only("/api/v1/config/history/{revision}", OPERATOR_CONFIG);

/// `/api/v1/config/history/N/restore`.
static RESTORE: Route = Route {
    path: "/api/v1/config/history/{revision}/restore",
    read: None,
    change: &[(Method::Post, INSTALLER_CONFIG)],
    max_body_len: 4 << 10,
    waits: true,
    looks: false,
    hashes: false,
};

/// Every route there is; where a name is part of the path, it stands in braces.
pub(super) fn all() -> impl Iterator<Item = &'static Route> {
    ROUTES
        .iter()
        .chain([&SNAPSHOT, &RECORDINGS, &RECORDED, &PREVIEWS, &PREVIEW, &MASKS, &REVISION, &RESTORE])
        .chain(discovery::routes())
        .chain(people::routes())
        .chain(trials::routes())
        .chain(acceptance::routes())
        .chain(restart::routes())
        .chain(fleet::routes())
        .chain(update::routes())
}

/// The route that answers at a path.
pub(super) fn route(path: &str) -> Option<&'static Route> {
    if masks::mountpoint_of(path).is_some() {
        return Some(&MASKS);
    }
    if let Some((_, file)) = recordings::place_of(path) {
        return Some(if file.is_some() { &RECORDED } else { &RECORDINGS });
    }
    if let Some((_, picture)) = previews::place_of(path) {
        return Some(if picture.is_some() { &PREVIEW } else { &PREVIEWS });
    }
    if snapshots::mountpoint_of(path).is_some() {
        return Some(&SNAPSHOT);
    }
    if let Some((_, restores)) = history::split(path) {
        return Some(if restores { &RESTORE } else { &REVISION });
    }
    let fixed = ROUTES.iter().find(|route| route.path == path);
    fixed
        .or_else(|| discovery::find_route(path))
        .or_else(|| people::find_route(path))
        .or_else(|| trials::find_route(path))
        .or_else(|| acceptance::find_route(path))
        .or_else(|| restart::find_route(path))
        .or_else(|| fleet::find_route(path))
        .or_else(|| update::find_route(path))
        .or_else(|| page::find_route(path))
}

/// What the front must know of a request before its body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission<'a> {
    /// Who may.
    pub(super) need: Need,
    /// The mountpoint that it is about.
    pub(super) mountpoint: Option<&'a str>,
    /// Longest body, in bytes.
    pub(super) max_body_len: u64,
    /// It may take long.
    pub(super) waits: bool,
    /// It waits for a picture.
    pub(super) looks: bool,
    /// It hashes a password.
    pub(super) hashes: bool,
}

/// Who may ask this, and how much of it is taken in.
pub(super) fn admission(method: Method, path: &str) -> Admission<'_> {
    let known = route(path);
    let need = known.and_then(|route| route.need(method));
    let changes = known.filter(|_| need.is_some() && !method.is_safe());
    Admission {
        // What is there is not told to strangers.
        need: need.unwrap_or(Need::Known),
        mountpoint: snapshots::mountpoint_of(path)
            .or_else(|| masks::mountpoint_of(path))
            .or_else(|| recordings::place_of(path).map(|(name, _)| name))
            .or_else(|| previews::place_of(path).map(|(name, _)| name)),
        // What will be refused in words may come with a small body.
        max_body_len: changes.map_or(4 << 10, |route| route.max_body_len),
        waits: changes.is_some_and(|route| route.waits),
        looks: known.is_some_and(|route| route.looks && method.is_safe() && method != Method::Options),
        hashes: changes.is_some_and(|route| route.hashes),
    }
}

/// Answers one request.
pub(super) fn respond(request: &Request, api: &dyn AdminApi, access: &Access) -> Reply {
    let path = request.target.split('?').next().unwrap_or_default();
    if request.target == "*" {
        return Reply::empty(204).with("allow", "GET, HEAD, OPTIONS, PUT, POST, PATCH, DELETE");
    }
    let Some(route) = route(path) else {
        return Reply::problem(404, &format!("there is nothing at {path}; the page is at /"), &[]);
    };
    if route.need(request.method).is_none() {
        let detail = format!("{} does not work on {path}", request.method.name());
        return Reply::problem(405, &detail, &[]).with("allow", allow(route));
    }
    if let Some(name) = masks::mountpoint_of(path).filter(|_| request.method != Method::Options) {
        return masks::respond(request, name, api);
    }
    if let Some(place) = recordings::place_of(path).filter(|_| request.method != Method::Options) {
        access.note_watch(&request.who(), &request.from(), place.0, Instant::now());
        return recordings::respond(request, place, api);
    }
    if let Some(place) = previews::place_of(path).filter(|_| request.method != Method::Options) {
        access.note_watch(&request.who(), &request.from(), place.0, Instant::now());
        return previews::respond(request, place, api);
    }
    if people::find_route(path).is_some() && request.method != Method::Options {
        return people::respond(request, path, access);
    }
    if let Some((revision, _)) = history::split(path).filter(|_| request.method != Method::Options) {
        return history::respond(request, revision, api);
    }
    match (request.method, path) {
        (Method::Options, _) => Reply::empty(204).with("allow", allow(route)),
        _ if acceptance::find_route(path).is_some() => acceptance::respond(request, path, api),
        _ if restart::find_route(path).is_some() => restart::respond(path, api),
        _ if fleet::find_route(path).is_some() => fleet::respond(request, path, api),
        _ if update::find_route(path).is_some() => update::respond(request, path, api),
        _ if trials::find_route(path).is_some() => trials::respond(request, path, api),
        _ if discovery::find_route(path).is_some() => discovery::respond(request, path, api.cameras()),
        (_, "/api/v1/certificate") => certificate::respond(request, api),
        (Method::Put | Method::Patch, _) => change_config(request, api),
        (_, "/api/v1/plan") => plan::respond(request, api),
        (Method::Post, _) => applied(api.confirm(request.opened)),
        _ if route.looks => snapshots::get(request, api, access),
        _ if page::find_route(path).is_some() => page::get(path),
        (_, "/healthz") => healthz(api),
        (_, "/metrics") => {
            Reply::new(200, "text/plain; version=0.0.4; charset=utf-8", metrics::render(&api.status()))
        }
        (_, "/api/v1/openapi.json") => Reply::json(200, &openapi::document()),
        (_, "/api/v1/status") => Reply::json(200, &json!(seen::by(request, api.status()))),
        (_, "/api/v1/network") => Reply::json(200, &json!(api.network())),
        (_, "/api/v1/time") => Reply::json(200, &json!(api.time())),
        (_, "/api/v1/devices") => Reply::json(200, &json!({"devices": api.devices()})),
        (_, "/api/v1/support-bundle") => support::get(api),
        (_, "/api/v1/config/history") => history::list(api),
        (_, "/api/v1/events") => events::get(request, api),
        // The front serves the streams themselves; what comes here asks only for their head.
        (_, "/api/v1/events/stream" | "/api/v1/logs/stream") => {
            Reply::new(200, "text/event-stream", Vec::new())
        }
        (_, "/api/v1/logs") => logs::get(request, api),
        (_, "/api/v1/ledger") => ledger::get(&request.target, api),
        (_, "/api/v1/config/schema") => Reply::new(200, "application/schema+json", config_schema()),
        _ => get_config(request, api),
    }
}

fn allow(route: &Route) -> String {
    route.methods().iter().map(|method| method.name()).collect::<Vec<_>>().join(", ")
}

fn healthz(api: &dyn AdminApi) -> Reply {
    let health = api.health();
    if health.silent.is_empty() {
        Reply::json(200, &json!({"status": "ok"}))
    } else {
        Reply::json(503, &json!({"status": "stuck", "silent": health.silent}))
    }
}

pub(super) fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn get_config(request: &Request, api: &dyn AdminApi) -> Reply {
    let view = api.config();
    let tag = etag(view.revision);
    if is_known(request, &tag) {
        return Reply::empty(304).with("etag", tag);
    }
    Reply::new(200, "application/json", view.json).with("etag", tag)
}

/// Whether the asker has what this tag names.
pub(super) fn is_known(request: &Request, tag: &str) -> bool {
    let known = header(request, "if-none-match").unwrap_or_default();
    known.split(',').map(|part| part.trim().trim_start_matches("W/")).any(|part| part == tag || part == "*")
}

/// The body as JSON of this shape, or the refusal. What stands in the body is not repeated: it may be a password.
pub(super) fn read<T: DeserializeOwned>(request: &Request) -> Result<T, Reply> {
    if !is_json(request) {
        // Also what keeps a foreign page's plain form from being taken for it.
        return Err(Reply::problem(415, "send it with Content-Type: application/json", &[]));
    }
    serde_json::from_slice(&request.body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let detail = match error.classify() {
            serde_json::error::Category::Data => format!("the body has not the right shape, at {place}"),
            _ => format!("the body is no JSON, at {place}"),
        };
        Reply::problem(400, &detail, &[])
    })
}

/// Whether its body is said to be JSON.
pub(super) fn is_json(request: &Request) -> bool {
    has_media_type(request, "application/json")
}

/// Whether its body is said to be of this type.
pub(super) fn has_media_type(request: &Request, wanted: &str) -> bool {
    let content_type = header(request, "content-type").unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case(wanted)
}

fn change_config(request: &Request, api: &dyn AdminApi) -> Reply {
    let (media_type, wanted) = match request.method {
        Method::Patch => ("application/merge-patch+json", Wanted::Patch(&request.body)),
        _ => ("application/json", Wanted::Whole(&request.body)),
    };
    if !has_media_type(request, media_type) {
        // Also what keeps a foreign page's plain form from being taken for a config.
        return Reply::problem(415, &format!("send the config with Content-Type: {media_type}"), &[]);
    }
    let (over, dry_run) = match dry_run(request).and_then(|dry_run| Ok((condition(request, api)?, dry_run))) {
        Ok(asked) => asked,
        Err(reply) => return reply,
    };
    let by = format!("{} from {}", request.who(), request.from());
    applied(api.put_config(Put { wanted, over, dry_run, by }))
}

/// Whether a change is only to be tried, its one parameter.
pub(super) fn dry_run(request: &Request) -> Result<bool, Reply> {
    match request.target.split_once('?').map_or("", |(_, query)| query) {
        "" => Ok(false),
        "dry_run" | "dry_run=" | "dry_run=true" | "dry_run=1" => Ok(true),
        other => {
            let detail = format!("the only parameter here is dry_run, not {other:?}");
            Err(Reply::problem(400, &detail, &[]))
        }
    }
}

/// The revision that a change is made over, as `If-Match` says.
pub(super) fn condition(request: &Request, api: &dyn AdminApi) -> Result<u64, Reply> {
    let Some(wanted) = header(request, "if-match") else {
        let detail = "say with If-Match which revision you changed: the ETag of GET /api/v1/config";
        return Err(Reply::problem(428, detail, &[]));
    };
    match revision(wanted) {
        Some(revision) => Ok(revision),
        None => {
            let current = api.config().revision;
            if wanted.trim() != "*" {
                return Err(refused(&ChangeError::Stale { current }.into()));
            }
            Ok(current)
        }
    }
}

/// The revision of a strong tag as we give them out.
pub(super) fn revision(tag: &str) -> Option<u64> {
    let digits = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

pub(super) fn applied(outcome: Result<Outcome, PutError>) -> Reply {
    let settled = match outcome {
        Ok(Outcome::Settled(applied)) => applied,
        Ok(Outcome::UnderWay) => {
            return Reply::json(202, &json!({"state": "under_way", "watch": "/api/v1/status"}));
        }
        Err(error) => return refused(&error),
    };
    match settled {
        Applied::Confirmed { revision } => {
            Reply::json(200, &json!({"state": "confirmed", "revision": revision}))
                .with("etag", etag(revision))
        }
        Applied::AwaitingConfirm { revision, within, unhealthy } => Reply::json(
            202,
            &json!({
                "state": "awaiting_confirm",
                "revision": revision,
                "confirm_within": format!("{}s", within.as_secs()),
                "confirm": "/api/v1/config/confirm",
                "unhealthy": unhealthy,
            }),
        ),
        Applied::WouldApply { needs_confirm, changes, blips } => Reply::json(
            200,
            &json!({
                "state": "would_apply",
                "needs_confirm": needs_confirm,
                "changes": changes,
                "blips": blips,
            }),
        ),
    }
}

pub(super) fn refused(error: &PutError) -> Reply {
    let detail = error.to_string();
    let error = match error {
        PutError::Unreadable(problems) => return Reply::problem(400, &detail, problems),
        PutError::NoRevision(_) => return Reply::problem(404, &detail, &[]),
        PutError::OldRevision(..) => return Reply::problem(409, &detail, &[]),
        PutError::Refused(error) => error,
    };
    match error {
        ChangeError::Invalid(problems) => Reply::problem(422, "this config cannot be applied", problems),
        ChangeError::Stale { current } => Reply::problem(412, &detail, &[]).with("etag", etag(*current)),
        ChangeError::MissingRevision => Reply::problem(428, &detail, &[]),
        ChangeError::Pending
        | ChangeError::NothingPending
        | ChangeError::OldConnection
        | ChangeError::Command(_) => Reply::problem(409, &detail, &[]),
        ChangeError::Busy | ChangeError::Stopping => {
            Reply::problem(503, &detail, &[]).with("retry-after", "1")
        }
        ChangeError::Store(_) | ChangeError::NotDurable(_) => Reply::problem(500, &detail, &[]),
    }
}

pub(super) fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests;
