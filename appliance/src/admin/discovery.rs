//! `/api/v1/discovery`: who is there, and what a person wants done with it.
//!
//! Passwords come in here, go to the camera that was named, and stay in the process; no answer holds one.

mod view;

pub use view::{
    Auth, CameraView, CheckedStream, EncoderView, FoundByView, InterfaceView, ProfileView, RefusalsView,
    SearchView, StreamView,
};

use super::head::Method;
use super::reply::Reply;
use super::routes::{Request, Route, read};
use crate::access::{Area, Need, Role};
use bytes::Bytes;
use fieldgate_model::config::{Path, Problem, Secret};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::net::IpAddr;
use std::time::Duration;

const BASE: &str = "/api/v1/discovery";
/// Longest body of a request, in bytes.
const MAX_BODY_LEN: u64 = 4 << 10;
/// Longest user name or password, in bytes.
const MAX_CREDENTIAL_LEN: usize = 128;
/// Cameras in one answer, unless asked for fewer or more.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 300;

/// Finds cameras and asks them, seen from the admin plane.
pub trait CameraApi: Send + Sync + 'static {
    /// Everybody who is there, by id. Never waits.
    fn cameras(&self) -> Vec<CameraView>;
    /// How the search goes. Never waits.
    fn search(&self) -> SearchView;
    /// Searches now, these addresses included.
    fn scan(&self, addresses: &[IpAddr]) -> Result<(), CameraError>;
    /// A picture of a camera, also of one that nobody has added; taken, with this login if one is given, if none is kept.
    /// Never waits.
    fn picture(&self, id: &str, login: Option<LoginWish>) -> Result<FoundPicture, CameraError>;
    /// Does it, and tells what the camera is like then. May wait, within [`super::api::PATIENCE`].
    fn act(&self, id: &str, wish: CameraWish) -> Result<CameraView, CameraError>;
}

/// How far the picture of a found camera is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundPicture {
    /// It is being taken.
    Looking,
    /// It is there.
    Ready {
        /// The JPEG.
        jpeg: Bytes,
        /// How long it has been there.
        age: Duration,
    },
}

/// What a person wants of a camera.
#[derive(Debug)]
pub enum CameraWish {
    /// Log in and look around.
    Login(LoginWish),
    /// Set a video encoder.
    Encoder(EncoderWish),
    /// Reboot it.
    Reboot,
    /// Set its clock.
    Clock,
}

/// Who logs in, and where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CameraLogin")]
pub struct LoginWish {
    /// The account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The password may be sent in clear text.
    #[serde(default)]
    pub allow_basic: bool,
    /// The address that was seen; the camera must still be there.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

/// How an encoder shall be set; what is left out stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncoderWish {
    /// The profile's token.
    pub profile: String,
    /// `h264`, `hevc`, `mjpeg`.
    #[serde(default)]
    pub codec: Option<String>,
    /// Thousand bits per second.
    #[serde(default)]
    pub bitrate_kbps: Option<u32>,
    /// Pictures from one keyframe to the next.
    #[serde(default)]
    pub gop: Option<u32>,
    /// Pictures per second.
    #[serde(default)]
    pub fps: Option<f32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ScanWish {
    addresses: Vec<IpAddr>,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CameraError {
    /// No such camera, or no more.
    #[error("no camera {0:?} is there; GET /api/v1/discovery lists them")]
    Unknown(String),
    /// A local camera has no login, encoder settings, clock.
    #[error("{0} is a local camera: there is nothing to log in to")]
    Local(String),
    /// Not where it was seen.
    #[error("the camera is at {now}, not at {wanted}; look again before you send it a password")]
    Moved {
        /// Where it was seen.
        wanted: IpAddr,
        /// Where it is.
        now: IpAddr,
    },
    /// In another network.
    #[error(
        "{0} is not in a network of this gateway; name it with POST /api/v1/discovery/scan if it can be reached"
    )]
    Unreachable(IpAddr),
    /// An address that can be no camera's, or too many.
    #[error("{0}")]
    Address(String),
    /// A login must come first.
    #[error("log in to this camera first: POST /api/v1/discovery/{0}/login")]
    LoginFirst(String),
    /// One try too many.
    #[error("{cause}")]
    Wait {
        /// Why.
        cause: String,
        /// How long.
        remaining: Duration,
    },
    /// The login is wrong.
    #[error("the camera refused the credentials; the same ones may be tried again in five minutes")]
    LoginRefused,
    /// Only in clear text.
    #[error("the camera takes the password only in clear text")]
    BasicNeedsConsent,
    /// No picture without a login.
    #[error("the camera shows its picture only after a login")]
    LoginWanted,
    /// A mountpoint has it.
    #[error("mountpoint {0} has this camera; its picture is at /api/v1/mountpoints/{0}/snapshot.jpg")]
    InUse(String),
    /// With a login while it is looked at without one.
    #[error("a picture of {0} is being taken right now; try again when it is there")]
    Looking(String),
    /// Too many wait.
    #[error("{0} pictures wait to be taken already; try again in a moment")]
    ManyPictures(usize),
    /// A gateway that looks at no pictures.
    #[error("this gateway takes no pictures of cameras that are not added")]
    NoPictures,
    /// A setting that the camera does not have.
    #[error("{0}")]
    Setting(String),
    /// It did not do it.
    #[error("{0}")]
    Camera(String),
}

static LIST: Route = Route::read_only(BASE, Need::Role(Role::Operator, Area::Cameras));
static SCAN: Route = acting("/api/v1/discovery/scan", false);
/// Pictures are taken in the background, so nobody waits here.
static SNAPSHOT: Route = Route {
    read: Some(Need::Role(Role::Operator, Area::Cameras)),
    ..acting("/api/v1/discovery/{id}/snapshot", false)
};
/// What may be done with one camera.
static ACTIONS: [Route; 4] = [
    acting("/api/v1/discovery/{id}/login", true),
    acting("/api/v1/discovery/{id}/encoder", true),
    acting("/api/v1/discovery/{id}/reboot", true),
    acting("/api/v1/discovery/{id}/clock", true),
];

const fn acting(path: &'static str, waits: bool) -> Route {
    Route {
        path,
        read: None,
        change: &[(Method::Post, Need::Role(Role::Installer, Area::Cameras))],
        max_body_len: MAX_BODY_LEN,
        waits,
        looks: false,
        hashes: false,
    }
}

/// The route of a path below `/api/v1/discovery`, that included.
pub(super) fn find_route(path: &str) -> Option<&'static Route> {
    match split(path)? {
        Target::List => Some(&LIST),
        Target::Scan => Some(&SCAN),
        Target::Snapshot(_) => Some(&SNAPSHOT),
        Target::Action { verb, .. } => {
            ACTIONS.iter().find(|action| action.path.rsplit('/').next() == Some(verb))
        }
    }
}

/// All routes of this module.
pub(super) fn routes() -> impl Iterator<Item = &'static Route> {
    [&LIST, &SCAN, &SNAPSHOT].into_iter().chain(&ACTIONS)
}

enum Target<'a> {
    List,
    Scan,
    Snapshot(&'a str),
    Action { id: &'a str, verb: &'a str },
}

fn split(path: &str) -> Option<Target<'_>> {
    match path.strip_prefix(BASE)? {
        "" => Some(Target::List),
        "/scan" => Some(Target::Scan),
        rest => {
            let (id, verb) = rest.strip_prefix('/')?.split_once('/')?;
            if verb == "snapshot" && !id.is_empty() {
                return Some(Target::Snapshot(id));
            }
            let is_verb = matches!(verb, "login" | "encoder" | "reboot" | "clock");
            (is_verb && !id.is_empty()).then_some(Target::Action { id, verb })
        }
    }
}

/// Answers a request whose route was found here and whose method is among its own.
pub(super) fn respond(request: &Request, path: &str, api: Option<&dyn CameraApi>) -> Reply {
    let Some(cameras) = api else {
        return Reply::problem(404, "this gateway does not look for cameras", &[]);
    };
    match split(path) {
        Some(Target::List) => list(&request.target, cameras),
        Some(Target::Scan) => scan(request, cameras),
        Some(Target::Snapshot(id)) => snapshot(request, id, cameras),
        Some(Target::Action { id, verb }) => act(request, id, verb, cameras),
        None => Reply::problem(404, &format!("there is nothing at {path}"), &[]),
    }
}

fn list(target: &str, api: &dyn CameraApi) -> Reply {
    let (mut limit, mut after, mut problems) = (DEFAULT_LIMIT, String::new(), Vec::new());
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match (name, value.parse::<usize>()) {
            ("limit", Ok(wanted)) if (1..=MAX_LIMIT).contains(&wanted) => limit = wanted,
            ("limit", _) => problems.push(
                Problem::new(&Path::root().field("limit"), format!("must be 1 to {MAX_LIMIT}")).got(value),
            ),
            ("cursor", _) => value.clone_into(&mut after),
            _ => {
                let problem = Problem::new(&Path::root().field(name), "there is no such parameter");
                problems.push(problem.remedy("there are limit and cursor"));
            }
        }
    }
    if !problems.is_empty() {
        return Reply::problem(400, "the query cannot be understood", &problems);
    }
    let mut cameras = api.cameras();
    cameras.sort_by(|a, b| a.id.cmp(&b.id));
    cameras.retain(|camera| camera.id > after);
    let has_more = cameras.len() > limit;
    cameras.truncate(limit);
    let mut body = json!({"search": api.search(), "cameras": cameras});
    if let (true, Some(last)) = (has_more, cameras.last()) {
        body["next_cursor"] = json!(last.id);
    }
    Reply::json(200, &body)
}

fn scan(request: &Request, api: &dyn CameraApi) -> Reply {
    // Nothing to say is said with no body at all.
    let wish = if request.body.is_empty() { Ok(ScanWish::default()) } else { read(request) };
    let wish: ScanWish = match wish {
        Ok(wish) => wish,
        Err(reply) => return reply,
    };
    match api.scan(&wish.addresses) {
        Ok(()) => Reply::json(202, &json!({"state": "searching", "watch": BASE})),
        Err(error) => refused(&error),
    }
}

fn act(request: &Request, id: &str, verb: &str, api: &dyn CameraApi) -> Reply {
    let wish = match verb {
        "login" => read::<LoginWish>(request).and_then(check_login).map(CameraWish::Login),
        "encoder" => read::<EncoderWish>(request).map(CameraWish::Encoder),
        "reboot" => Ok(CameraWish::Reboot),
        _ => Ok(CameraWish::Clock),
    };
    let done = match wish {
        Ok(wish) => api.act(id, wish),
        Err(reply) => return reply,
    };
    match done {
        Ok(camera) => Reply::json(200, &json!({"camera": camera})),
        Err(error) => refused(&error),
    }
}

/// The picture; while it is being taken 202, and the same question again brings it.
fn snapshot(request: &Request, id: &str, api: &dyn CameraApi) -> Reply {
    let login = if request.method == Method::Post {
        match read::<LoginWish>(request).and_then(check_login) {
            Ok(login) => Some(login),
            Err(reply) => return reply,
        }
    } else {
        // Browsers show the picture before again unless its address differs.
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !query.is_empty() && !query.strip_prefix("at=").is_some_and(is_number) {
            let detail = format!("the one parameter here is at, a number; not {query:?}");
            return Reply::problem(400, &detail, &[]);
        }
        None
    };
    match api.picture(id, login) {
        Ok(FoundPicture::Ready { jpeg, age }) => {
            Reply::new(200, "image/jpeg", jpeg).with("age", age.as_secs().to_string())
        }
        Ok(FoundPicture::Looking) => {
            let watch = format!("{BASE}/{id}/snapshot");
            Reply::json(202, &json!({"state": "looking", "watch": watch})).with("retry-after", "1")
        }
        Err(error) => refused(&error),
    }
}

fn check_login(login: LoginWish) -> Result<LoginWish, Reply> {
    let mut problems = Vec::new();
    let is_bad = |text: &str| text.len() > MAX_CREDENTIAL_LEN || text.chars().any(char::is_control);
    for (name, text) in [("user", login.user.as_str()), ("password", login.password.reveal())] {
        if is_bad(text) {
            let problem = format!("must be at most {MAX_CREDENTIAL_LEN} bytes, without control characters");
            problems.push(Problem::new(&Path::root().field(name), problem));
        }
    }
    if login.user.is_empty() || login.user.contains(':') {
        problems.push(Problem::new(&Path::root().field("user"), "must be a name without a colon"));
    }
    if login.password.is_kept() {
        problems.push(Problem::new(&Path::root().field("password"), "must be the password itself"));
    }
    if problems.is_empty() {
        Ok(login)
    } else {
        Err(Reply::problem(422, "these credentials cannot be sent", &problems))
    }
}

fn refused(error: &CameraError) -> Reply {
    let detail = error.to_string();
    let at = |field: &str| Problem::new(&Path::root().field(field), detail.clone());
    match error {
        CameraError::Unknown(_) | CameraError::NoPictures => Reply::problem(404, &detail, &[]),
        CameraError::Moved { .. } | CameraError::LoginFirst(_) => Reply::problem(409, &detail, &[]),
        CameraError::InUse(_) => Reply::problem(409, &detail, &[]),
        CameraError::Looking(_) => Reply::problem(409, &detail, &[]).with("retry-after", "1"),
        CameraError::ManyPictures(_) => Reply::problem(503, &detail, &[]).with("retry-after", "5"),
        CameraError::Local(_) | CameraError::Unreachable(_) | CameraError::LoginWanted => {
            Reply::problem(422, &detail, &[])
        }
        CameraError::Address(_) => Reply::problem(422, &detail, &[at("addresses")]),
        CameraError::LoginRefused => {
            let remedy = "check user and password on the camera's own page";
            Reply::problem(422, &detail, &[at("password").remedy(remedy)])
        }
        CameraError::BasicNeedsConsent => {
            let remedy = "true sends it so that anyone on the network can read it";
            Reply::problem(422, &detail, &[at("allow_basic").remedy(remedy)])
        }
        CameraError::Setting(_) => Reply::problem(422, &detail, &[]),
        CameraError::Wait { remaining, .. } => {
            Reply::problem(429, &detail, &[]).with("retry-after", remaining.as_secs().max(1).to_string())
        }
        CameraError::Camera(_) => Reply::problem(502, &detail, &[]),
    }
}

#[cfg(test)]
mod tests;
