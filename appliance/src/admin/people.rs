//! The claim, sessions, users, tokens and the audit log.
//!
//! Passwords and codes come in here; what is made goes out once. No answer holds a password.

use super::gate::{session, set_cookie};
use super::head::Method;
use super::reply::Reply;
use super::routes::{Request, Route, etag, header, read, revision};
use crate::access::{
    Access, Area, BookError, ChangeError, EntryError, Identity, Need, Principal, Role, Streams, TokenWish,
    csrf,
};
use fieldgate_model::Timestamp;
use fieldgate_model::config::{Path, Problem, Secret};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

/// Longest body of a request, in bytes.
const MAX_BODY_LEN: u64 = 32 << 10;
/// Entries of the audit log in one answer, unless asked for fewer or more.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
const USERS: &str = "/api/v1/users/";
const TOKENS: &str = "/api/v1/tokens/";

const ADMIN: Need = Need::Role(Role::Admin, Area::People);

/// For requests that bring a small body and write a file.
const fn writing(
    path: &'static str,
    read: Option<Need>,
    change: &'static [(Method, Need)],
    hashes: bool,
) -> Route {
    // Who hashes has a queue of its own; a slow login must not keep changes of the config waiting.
    Route { path, read, change, max_body_len: MAX_BODY_LEN, waits: !hashes, looks: false, hashes }
}

/// For the page, before anybody is known: an answer that is none of the refusals that the rest would give.
static START: Route = Route::read_only("/api/v1/start", Need::Nothing);
static CLAIM: Route = writing("/api/v1/claim", None, &[(Method::Post, Need::Nothing)], true);
static SESSION: Route = writing(
    "/api/v1/session",
    Some(Need::Known),
    &[(Method::Post, Need::Login), (Method::Delete, Need::Known)],
    true,
);
static ALL_USERS: Route = writing("/api/v1/users", Some(ADMIN), &[(Method::Post, ADMIN)], true);
static ONE_USER: Route =
    writing("/api/v1/users/{name}", Some(ADMIN), &[(Method::Put, ADMIN), (Method::Delete, ADMIN)], false);
/// One's own, or an admin anybody's: the handler tells them apart.
static PASSWORD: Route = writing("/api/v1/users/{name}/password", None, &[(Method::Put, Need::Known)], true);
static ALL_TOKENS: Route = writing("/api/v1/tokens", Some(ADMIN), &[(Method::Post, ADMIN)], false);
static ONE_TOKEN: Route = writing("/api/v1/tokens/{id}", None, &[(Method::Delete, ADMIN)], false);
static AUDIT: Route = Route::read_only("/api/v1/audit", ADMIN);

enum Target<'a> {
    Start,
    Claim,
    Session,
    Users,
    User(&'a str),
    Password(&'a str),
    Tokens,
    Token(&'a str),
    Audit,
}

fn split(path: &str) -> Option<(Target<'_>, &'static Route)> {
    let one = |name: &str| !name.is_empty() && !name.contains('/');
    let found = match path {
        "/api/v1/start" => (Target::Start, &START),
        "/api/v1/claim" => (Target::Claim, &CLAIM),
        "/api/v1/session" => (Target::Session, &SESSION),
        "/api/v1/users" => (Target::Users, &ALL_USERS),
        "/api/v1/tokens" => (Target::Tokens, &ALL_TOKENS),
        "/api/v1/audit" => (Target::Audit, &AUDIT),
        _ => {
            if let Some(rest) = path.strip_prefix(USERS) {
                match rest.strip_suffix("/password") {
                    Some(name) if one(name) => (Target::Password(name), &PASSWORD),
                    None if one(rest) => (Target::User(rest), &ONE_USER),
                    _ => return None,
                }
            } else {
                let id = path.strip_prefix(TOKENS).filter(|id| one(id))?;
                (Target::Token(id), &ONE_TOKEN)
            }
        }
    };
    Some(found)
}

/// The route of a path of this module.
pub(super) fn find_route(path: &str) -> Option<&'static Route> {
    split(path).map(|(_, route)| route)
}

/// All routes of this module.
pub(super) fn routes() -> impl Iterator<Item = &'static Route> {
    [&START, &CLAIM, &SESSION, &ALL_USERS, &ONE_USER, &PASSWORD, &ALL_TOKENS, &ONE_TOKEN, &AUDIT].into_iter()
}

/// Answers a request whose route was found here and whose method is among its own.
pub(super) fn respond(request: &Request, path: &str, access: &Access) -> Reply {
    let answered = match (split(path).map(|(target, _)| target), request.method) {
        (Some(Target::Start), _) => Ok(start(request, access)),
        (Some(Target::Claim), _) => claim(request, access),
        (Some(Target::Session), Method::Post) => log_in(request, access),
        (Some(Target::Session), Method::Delete) => Ok(log_out(request, access)),
        (Some(Target::Session), _) => Ok(who(request)),
        (Some(Target::Users), Method::Post) => add_user(request, access),
        (Some(Target::Users), _) => Ok(users(request, access)),
        (Some(Target::User(name)), Method::Put) => set_user(request, name, access),
        (Some(Target::User(name)), Method::Delete) => remove_user(request, name, access),
        (Some(Target::User(name)), _) => Ok(user(name, access)),
        (Some(Target::Password(name)), _) => set_password(request, name, access),
        (Some(Target::Tokens), Method::Post) => add_token(request, access),
        (Some(Target::Tokens), _) => Ok(tokens(access)),
        (Some(Target::Token(id)), _) => access.remove_token(id).map(|_| Reply::empty(204)).map_err(changed),
        (Some(Target::Audit), _) => audit(&request.target, access),
        (None, _) => Err(Reply::problem(404, &format!("there is nothing at {path}"), &[])),
    };
    answered.unwrap_or_else(|refused| refused)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClaimWish {
    code: String,
    user: String,
    password: Secret,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginWish {
    user: String,
    password: Secret,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUser {
    name: String,
    role: Role,
    password: Secret,
    #[serde(default)]
    mountpoints: Streams,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserWish {
    role: Role,
    #[serde(default)]
    mountpoints: Streams,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PasswordWish {
    password: Secret,
    #[serde(default)]
    current: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    name: String,
    role: Role,
    #[serde(default)]
    mountpoints: Streams,
    #[serde(default)]
    areas: Vec<Area>,
    #[serde(default)]
    expires: Option<Timestamp>,
}

/// Whether anybody has claimed the gateway, and who asks.
fn start(request: &Request, access: &Access) -> Reply {
    let secret = session(&request.headers, request.is_secure).ok().flatten();
    let session = request.principal.as_ref().map(|principal| shown(principal, secret));
    Reply::json(200, &json!({"claimed": access.is_claimed(), "session": session}))
}

fn claim(request: &Request, access: &Access) -> Result<Reply, Reply> {
    let wish: ClaimWish = read(request)?;
    let (from, password) = (request.peer.ip(), wish.password.reveal());
    let opened = access.claim(&wish.code, &wish.user, password, from, Instant::now()).map_err(entered)?;
    Ok(let_in(request, &opened.principal, &opened.secret))
}

fn log_in(request: &Request, access: &Access) -> Result<Reply, Reply> {
    let wish: LoginWish = read(request)?;
    let from = request.peer.ip();
    let opened = access.log_in(&wish.user, wish.password.reveal(), from, Instant::now()).map_err(entered)?;
    // Whatever session the browser had before is over; the new one has a secret of its own.
    if let Ok(Some(before)) = session(&request.headers, request.is_secure) {
        access.log_out(before);
    }
    Ok(let_in(request, &opened.principal, &opened.secret))
}

fn let_in(request: &Request, principal: &Principal, secret: &str) -> Reply {
    Reply::json(201, &shown(principal, Some(secret)))
        .with("set-cookie", set_cookie(Some(secret), request.is_secure))
}

fn log_out(request: &Request, access: &Access) -> Reply {
    if let Ok(Some(secret)) = session(&request.headers, request.is_secure) {
        access.log_out(secret);
    }
    Reply::empty(204).with("set-cookie", set_cookie(None, request.is_secure))
}

fn who(request: &Request) -> Reply {
    let secret = session(&request.headers, request.is_secure).ok().flatten();
    match &request.principal {
        Some(principal) => Reply::json(200, &shown(principal, secret)),
        None => Reply::problem(401, "log in first", &[]),
    }
}

fn shown(principal: &Principal, secret: Option<&str>) -> serde_json::Value {
    let mut shown = json!({"role": principal.role});
    match &principal.identity {
        Identity::User { name } => shown["user"] = json!(name),
        Identity::Token { id, name } => shown["token"] = json!({"id": id, "name": name}),
        Identity::Local => shown["local"] = json!(true),
    }
    if !principal.sees_all() {
        shown["mountpoints"] = json!(principal.streams);
    }
    if !principal.areas.is_empty() {
        shown["areas"] = json!(principal.areas);
    }
    if let Some(secret) = secret {
        shown["csrf"] = json!(csrf(secret));
    }
    shown
}

fn users(request: &Request, access: &Access) -> Reply {
    let (revision, users) = access.users();
    let tag = etag(revision);
    if super::routes::is_known(request, &tag) {
        return Reply::empty(304).with("etag", tag);
    }
    Reply::json(200, &json!({"users": users})).with("etag", tag)
}

fn user(name: &str, access: &Access) -> Reply {
    let (revision, users) = access.users();
    match users.into_iter().find(|user| user.name == name) {
        Some(user) => Reply::json(200, &json!(user)).with("etag", etag(revision)),
        None => changed(BookError::Unknown(name.to_owned()).into()),
    }
}

fn add_user(request: &Request, access: &Access) -> Result<Reply, Reply> {
    let wish: NewUser = read(request)?;
    let added = access.add_user(&wish.name, wish.role, wish.mountpoints, wish.password.reveal());
    let revision = added.map_err(changed)?;
    Ok(Reply::json(201, &json!({"name": wish.name}))
        .with("location", format!("{USERS}{}", wish.name))
        .with("etag", etag(revision)))
}

fn set_user(request: &Request, name: &str, access: &Access) -> Result<Reply, Reply> {
    let over = over(request)?.ok_or_else(|| {
        Reply::problem(
            428,
            &format!("say with If-Match what you changed: the ETag of GET {USERS}{name}"),
            &[],
        )
    })?;
    let wish: UserWish = read(request)?;
    access.set_user(name, wish.role, wish.mountpoints, over).map_err(changed)?;
    Ok(user(name, access))
}

fn remove_user(request: &Request, name: &str, access: &Access) -> Result<Reply, Reply> {
    access.remove_user(name, over(request)?.flatten()).map_err(changed)?;
    Ok(Reply::empty(204))
}

fn set_password(request: &Request, name: &str, access: &Access) -> Result<Reply, Reply> {
    let wish: PasswordWish = read(request)?;
    let principal = request.principal.as_ref();
    let is_own =
        principal.is_some_and(|known| matches!(&known.identity, Identity::User { name: own } if own == name));
    if is_own {
        // Who finds a phone that is logged in must not be able to keep the account.
        let current = wish.current.as_ref().map(Secret::reveal).unwrap_or_default();
        access.check_password(name, current, request.peer.ip(), Instant::now()).map_err(entered)?;
    } else if !principal.is_some_and(|known| known.may(ADMIN)) {
        return Err(Reply::problem(403, "only an admin sets another's password", &[]));
    }
    let own = if is_own { session(&request.headers, request.is_secure).ok().flatten() } else { None };
    access.set_password(name, wish.password.reveal(), own).map_err(changed)?;
    Ok(Reply::empty(204))
}

fn tokens(access: &Access) -> Reply {
    let (revision, tokens) = access.tokens();
    Reply::json(200, &json!({"tokens": tokens})).with("etag", etag(revision))
}

fn add_token(request: &Request, access: &Access) -> Result<Reply, Reply> {
    let NewToken { name, role, mountpoints, areas, expires } = read(request)?;
    let wish = TokenWish { name, role, streams: mountpoints, areas, expires };
    let (id, token) = access.add_token(wish, &request.who()).map_err(changed)?;
    Ok(Reply::json(201, &json!({"id": id, "token": token})).with("location", format!("{TOKENS}{id}")))
}

fn audit(target: &str, access: &Access) -> Result<Reply, Reply> {
    let (mut limit, mut before, mut problems) = (DEFAULT_LIMIT, None, Vec::new());
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let mut problem =
            |text: String| problems.push(Problem::new(&Path::root().field(name), text).got(value));
        match name {
            "limit" => match value.parse() {
                Ok(wanted @ 1..=MAX_LIMIT) => limit = wanted,
                _ => problem(format!("must be 1 to {MAX_LIMIT}")),
            },
            "cursor" => match value.parse() {
                Ok(id) => before = Some(id),
                Err(_) => problem("must be the next_cursor of an answer".to_owned()),
            },
            _ => problem("is no parameter here; there are limit and cursor".to_owned()),
        }
    }
    if !problems.is_empty() {
        return Err(Reply::problem(400, "the query cannot be understood", &problems));
    }
    let page = access.audit(before, limit);
    let mut body = json!({"entries": page.entries});
    if let Some(next) = page.next {
        body["next_cursor"] = json!(next.to_string());
    }
    Ok(Reply::json(200, &body))
}

/// The revision of `If-Match`: outer none without it, inner none for any.
fn over(request: &Request) -> Result<Option<Option<u64>>, Reply> {
    match header(request, "if-match") {
        None => Ok(None),
        Some(any) if any.trim() == "*" => Ok(Some(None)),
        Some(tag) => match revision(tag) {
            Some(revision) => Ok(Some(Some(revision))),
            None => Err(Reply::problem(412, "this is no ETag of ours; read it again", &[])),
        },
    }
}

fn entered(error: EntryError) -> Reply {
    let detail = error.to_string();
    match error {
        EntryError::Wrong(_) => Reply::problem(401, &detail, &[]),
        EntryError::Wait(wait) => {
            Reply::problem(429, &detail, &[]).with("retry-after", wait.seconds().to_string())
        }
        EntryError::Claimed => Reply::problem(409, &detail, &[]),
        EntryError::Unclaimed => Reply::problem(403, &detail, &[]),
        EntryError::Change(error) => changed(error),
    }
}

fn changed(error: ChangeError) -> Reply {
    let detail = error.to_string();
    let at = |field: &str| [Problem::new(&Path::root().field(field), detail.clone())];
    match error {
        ChangeError::Io(_) => Reply::problem(500, &detail, &[]),
        ChangeError::Refused(refused) => match refused {
            BookError::Unknown(_) => Reply::problem(404, &detail, &[]),
            BookError::Exists(_) | BookError::LastAdmin(_) | BookError::TooMany(_) => {
                Reply::problem(409, &detail, &[])
            }
            BookError::Name => Reply::problem(422, &detail, &at("name")),
            BookError::Streams => Reply::problem(422, &detail, &at("mountpoints")),
            BookError::Expired => Reply::problem(422, &detail, &at("expires")),
            BookError::Password(_) => Reply::problem(422, &detail, &at("password")),
            BookError::Stale { current } => Reply::problem(412, &detail, &[]).with("etag", etag(current)),
        },
    }
}
