use super::super::api::{ConfigView, Health};
use super::*;
use crate::access::{Identity, Streams};
use crate::store::{Confirmed, History, Meta};
use fieldgate_model::config::{Changes, Path, Problem};
use fieldgate_model::{Config, Status};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A gateway that answers what the test wants and remembers what it was asked.
struct Fake {
    revision: u64,
    outcome: Result<Outcome, PutError>,
    health: Health,
    puts: Mutex<Vec<(u64, bool, Vec<u8>)>>,
    applied_at: Instant,
    ledger: Arc<fieldgate_spool::Ledger>,
}

impl AdminApi for Fake {
    fn config(&self) -> ConfigView {
        ConfigView { revision: self.revision, json: br#"{"schema":1}"#.to_vec() }
    }
    fn confirmed(&self) -> Arc<Confirmed> {
        let meta = Meta { schema: 1, revision: 7, by: "ann".to_owned(), at: Default::default() };
        Arc::new(Confirmed { config: Config::default(), meta })
    }
    fn history(&self) -> History {
        History::default()
    }
    fn running(&self) -> Arc<Config> {
        Arc::default()
    }
    fn put_config(&self, put: Put<'_>) -> Result<Outcome, PutError> {
        assert_eq!(put.by, "ann from 127.0.0.1");
        let wanted = match put.wanted {
            Wanted::Whole(json) => json.to_vec(),
            Wanted::Patch(json) => [b"patch ", json].concat(),
            Wanted::Revision(revision) => format!("revision {revision}").into_bytes(),
        };
        self.puts.lock().unwrap().push((put.over, put.dry_run, wanted));
        self.outcome.clone()
    }
    fn confirm(&self, opened: Instant) -> Result<Outcome, PutError> {
        if opened < self.applied_at { Err(ChangeError::OldConnection.into()) } else { self.outcome.clone() }
    }
    fn status(&self) -> Status {
        Status { version: "0.1.0".to_owned(), ..Status::default() }
    }
    fn health(&self) -> Health {
        self.health.clone()
    }
    fn plan(&self, candidate: Option<&[u8]>) -> Result<crate::plan::Answer, PutError> {
        let config = candidate.map_or(Ok(Config::default()), |json| {
            super::super::api::read_config(json).map_err(PutError::Unreadable)
        })?;
        let plan =
            crate::plan::Plan::of(&config, None, fieldgate_model::plan::plan(&config, &Default::default()));
        Ok(crate::plan::Answer { plan, problems: Vec::new() })
    }
    fn ledger(&self, query: &fieldgate_spool::Query) -> fieldgate_spool::Answer {
        self.ledger.query(query)
    }

    fn devices(&self) -> Vec<crate::wiring::Listed> {
        Vec::new()
    }
}

fn fake(outcome: Result<Outcome, PutError>) -> Fake {
    Fake {
        revision: 7,
        outcome,
        health: Health::default(),
        puts: Mutex::default(),
        applied_at: at(),
        ledger: Arc::default(),
    }
}

fn at() -> Instant {
    // tokio's, paused or not, is the only clock here.
    Instant::now()
}

fn ask(api: &Fake, method: Method, target: &str, headers: &[(&str, &str)]) -> Reply {
    let request = Request {
        method,
        target: target.to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        principal: Some(admin()),
        peer: "127.0.0.1:9".parse().unwrap(),
        is_secure: false,
        opened: api.applied_at + Duration::from_secs(1),
        body: b"{}".to_vec(),
    };
    let (access, _) = crate::access::tests::for_tests();
    respond(&request, api, &access)
}

fn admin() -> Principal {
    let identity = Identity::User { name: "ann".to_owned() };
    Principal { identity, role: Role::Admin, streams: Streams::default(), areas: Vec::new() }
}

fn confirmed() -> Result<Outcome, PutError> {
    Ok(Outcome::Settled(Applied::Confirmed { revision: 8 }))
}

fn header_of<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
}

const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

#[test]
fn the_config_is_read_with_its_tag_and_not_sent_again_when_known() {
    let api = fake(confirmed());
    let reply = ask(&api, Method::Get, "/api/v1/config", &[]);
    assert_eq!((reply.status, header_of(&reply, "etag")), (200, Some("\"7\"")));
    let reply = ask(&api, Method::Get, "/api/v1/config", &[("if-none-match", "\"6\", W/\"7\"")]);
    assert_eq!((reply.status, reply.body.len()), (304, 0));
}

#[test]
fn a_change_names_the_revision_that_it_was_made_from() {
    let api = fake(confirmed());
    assert_eq!(ask(&api, Method::Put, "/api/v1/config", &[JSON]).status, 428);
    for (wanted, status) in
        [("\"7\"", 200), ("*", 200), ("7", 412), ("W/\"7\"", 412), ("\"x\"", 412), ("\"\"", 412)]
    {
        let reply = ask(&api, Method::Put, "/api/v1/config", &[JSON, ("if-match", wanted)]);
        assert_eq!(reply.status, status, "{wanted}");
        assert!(header_of(&reply, "etag").is_some(), "what runs is told: {wanted}");
    }
    let reply = ask(&api, Method::Put, "/api/v1/config?dry_run", &[JSON, ("if-match", "\"7\"")]);
    assert_eq!(reply.status, 200);
    let puts = api.puts.lock().unwrap();
    assert_eq!(*puts, [(7, false, b"{}".to_vec()), (7, false, b"{}".to_vec()), (7, true, b"{}".to_vec())]);
}

#[test]
fn a_change_is_json_and_says_so() {
    let api = fake(confirmed());
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonx")]
    {
        let mut headers = vec![("if-match", "\"7\"")];
        headers.extend(kind.map(|kind| ("content-type", kind)));
        assert_eq!(ask(&api, Method::Put, "/api/v1/config", &headers).status, 415, "{kind:?}");
    }
    let odd = ask(&api, Method::Put, "/api/v1/config?dryrun", &[JSON, ("if-match", "\"7\"")]);
    assert_eq!(odd.status, 400, "a misspelt dry run is not a real one");
    assert!(api.puts.lock().unwrap().is_empty());
}

#[test]
fn each_outcome_has_its_status() {
    let problem = Problem::new(&Path::root().field("rtmp").field("listen"), "is no list")
        .got(7)
        .remedy("write [\"0.0.0.0:1935\"]");
    let within = Duration::from_secs(90);
    let waits = Applied::AwaitingConfirm { revision: 8, within, unhealthy: vec!["yard".to_owned()] };
    let would = Applied::WouldApply { needs_confirm: true, changes: Changes::default(), blips: Vec::new() };
    for (outcome, status) in [
        (confirmed(), 200),
        (Ok(Outcome::Settled(waits)), 202),
        (Ok(Outcome::Settled(would)), 200),
        (Ok(Outcome::UnderWay), 202),
        (Err(PutError::Unreadable(vec![problem.clone()])), 400),
        (Err(ChangeError::Pending.into()), 409),
        (Err(ChangeError::Stale { current: 9 }.into()), 412),
        (Err(ChangeError::Invalid(vec![problem.clone()]).into()), 422),
        (Err(ChangeError::MissingRevision.into()), 428),
        (Err(ChangeError::Store("disk full".to_owned()).into()), 500),
        (Err(ChangeError::Busy.into()), 503),
        (Err(ChangeError::Stopping.into()), 503),
    ] {
        let reply =
            ask(&fake(outcome.clone()), Method::Put, "/api/v1/config", &[JSON, ("if-match", "\"7\"")]);
        assert_eq!(reply.status, status, "{outcome:?}");
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        if status >= 400 {
            assert_eq!(reply.content_type, "application/problem+json");
            assert_eq!(body["status"], status);
        }
        if matches!(status, 400 | 422) {
            assert_eq!(body["problems"][0]["path"], "rtmp.listen");
            assert_eq!(body["problems"][0]["remedy"], "write [\"0.0.0.0:1935\"]");
        }
        if body["state"] == "awaiting_confirm" {
            assert_eq!((&body["confirm_within"], &body["unhealthy"][0]), (&json!("90s"), &json!("yard")));
        }
    }
}

#[tokio::test]
async fn a_change_is_confirmed_only_over_a_newer_connection() {
    let mut api = fake(confirmed());
    assert_eq!(ask(&api, Method::Post, "/api/v1/config/confirm", &[]).status, 200);
    api.outcome = Err(ChangeError::NothingPending.into());
    assert_eq!(ask(&api, Method::Post, "/api/v1/config/confirm", &[]).status, 409);
    api.outcome = confirmed();
    let request = Request {
        method: Method::Post,
        target: "/api/v1/config/confirm".to_owned(),
        headers: Vec::new(),
        principal: Some(admin()),
        peer: "127.0.0.1:9".parse().unwrap(),
        is_secure: false,
        opened: api.applied_at.checked_sub(Duration::from_millis(1)).unwrap(),
        body: Vec::new(),
    };
    let (access, _) = crate::access::tests::for_tests();
    assert_eq!(respond(&request, &api, &access).status, 409);
}

#[test]
fn what_is_not_there_or_not_meant_so_is_told_apart() {
    let api = fake(confirmed());
    assert_eq!(ask(&api, Method::Get, "/api/v1/nothing", &[]).status, 404);
    assert_eq!(ask(&api, Method::Get, "/api/v1/config/", &[]).status, 404);
    assert_eq!(ask(&api, Method::Get, "//healthz", &[]).status, 404);
    let reply = ask(&api, Method::Delete, "/api/v1/config", &[]);
    assert_eq!((reply.status, header_of(&reply, "allow")), (405, Some("GET, HEAD, OPTIONS, PUT, PATCH")));
    let reply = ask(&api, Method::Get, "/api/v1/config/confirm", &[]);
    assert_eq!((reply.status, header_of(&reply, "allow")), (405, Some("OPTIONS, POST")));
    let reply = ask(&api, Method::Options, "/healthz", &[]);
    assert_eq!((reply.status, header_of(&reply, "allow")), (204, Some("GET, HEAD, OPTIONS")));
    assert_eq!(ask(&api, Method::Options, "*", &[]).status, 204);
}

#[test]
fn status_metrics_schema_and_page_are_served_with_their_types() {
    let api = fake(confirmed());
    for (path, kind, text) in [
        ("/", "text/html; charset=utf-8", "/web/app.js"),
        ("/web/style.css", "text/css; charset=utf-8", "font"),
        ("/web/app.js", "text/javascript; charset=utf-8", "import"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "fieldgate_info{version=\"0.1.0\"} 1"),
        ("/api/v1/status", "application/json", "\"version\":\"0.1.0\""),
        ("/api/v1/config/schema", "application/schema+json", "\"mountpoints\""),
    ] {
        let reply = ask(&api, Method::Get, path, &[]);
        assert_eq!((reply.status, reply.content_type), (200, kind), "{path}");
        assert!(String::from_utf8(reply.body).unwrap().contains(text), "{path}");
    }
}

#[test]
fn stuck_loops_show_in_healthz() {
    let mut api = fake(confirmed());
    assert_eq!(ask(&api, Method::Get, "/healthz", &[]).status, 200);
    api.health.silent.push("steward, for 20 s".to_owned());
    let reply = ask(&api, Method::Get, "/healthz", &[]);
    assert_eq!(reply.status, 503);
    assert!(String::from_utf8(reply.body).unwrap().contains("steward"));
}

#[test]
fn bodies_are_admitted_where_they_mean_something() {
    let config = admission(Method::Put, "/api/v1/config");
    assert_eq!((config.max_body_len, config.waits), (4 << 20, true));
    assert_eq!(admission(Method::Get, "/api/v1/config").max_body_len, 4 << 10);
    assert!(!admission(Method::Get, "/api/v1/config").waits, "reads have their own threads");
    assert!(admission(Method::Post, "/api/v1/config/confirm").waits);
    assert_eq!(admission(Method::Put, "/nothing").max_body_len, 4 << 10);
}

/// Every route with every method, and the least that it takes. What is not here is not served.
const LEAST: &str = "
    GET /                                       nothing
    GET /web/app.js                             nothing
    GET /api/v1/start                           nothing
    GET /healthz                                nothing
    GET /metrics                                operator metrics
    GET /api/v1/status                          viewer status
    GET /api/v1/events                          viewer status
    GET /api/v1/events/stream                   viewer status
    GET /api/v1/logs                            admin status
    GET /api/v1/logs/stream                     admin status
    GET /api/v1/update                          operator status
    POST /api/v1/update/upload                  installer config
    PUT /api/v1/update/upload                   installer config
    DELETE /api/v1/update/upload                installer config
    POST /api/v1/update/install                 installer config
    GET /api/v1/openapi.json                    known
    GET /api/v1/config/schema                   operator config
    GET /api/v1/ledger                          operator status
    GET /api/v1/network                         operator status
    GET /api/v1/time                            operator status
    GET /api/v1/devices                         operator cameras
    GET /api/v1/config                          operator config
    PUT /api/v1/config                          installer config
    PATCH /api/v1/config                        installer config
    GET /api/v1/support-bundle                  operator config
    GET /api/v1/certificate                     operator certificate
    PUT /api/v1/certificate                     installer certificate
    DELETE /api/v1/certificate                  installer certificate
    GET /api/v1/config/history                  operator config
    GET /api/v1/config/history/7                operator config
    POST /api/v1/config/history/7/restore       installer config
    POST /api/v1/config/confirm                 installer config
    GET /api/v1/plan                            operator config
    POST /api/v1/plan                           installer config
    GET /api/v1/mountpoints/gate/snapshot.jpg   viewer watch
    GET /api/v1/mountpoints/gate/recordings     viewer watch
    GET /api/v1/mountpoints/gate/recordings/v   viewer watch
    GET /api/v1/mountpoints/gate/previews       viewer watch
    GET /api/v1/mountpoints/gate/previews/7.jpg viewer watch
    GET /api/v1/mountpoints/gate/masks          operator config
    PUT /api/v1/mountpoints/gate/masks          installer config
    POST /api/v1/upstream-tests                 installer config
    GET /api/v1/upstream-tests/7                installer config
    GET /api/v1/acceptance                      operator status
    POST /api/v1/acceptance                     installer config
    GET /api/v1/acceptance/7                    operator status
    GET /api/v1/acceptance/7/certificate.json   operator status
    GET /api/v1/device-key                      operator status
    POST /api/v1/mountpoints/gate/restart       installer config
    POST /api/v1/restart                        installer config
    POST /api/v1/bundle                         installer config
    GET /api/v1/fleet                           operator config
    GET /api/v1/fleet/keys                      admin people
    PUT /api/v1/fleet/keys                      admin people
    GET /api/v1/discovery                       operator cameras
    POST /api/v1/discovery/scan                 installer cameras
    POST /api/v1/discovery/cam/login            installer cameras
    POST /api/v1/discovery/cam/encoder          installer cameras
    POST /api/v1/discovery/cam/reboot           installer cameras
    POST /api/v1/discovery/cam/clock            installer cameras
    GET /api/v1/discovery/cam/snapshot          operator cameras
    POST /api/v1/discovery/cam/snapshot         installer cameras
    POST /api/v1/claim                          nothing
    GET /api/v1/session                         known
    POST /api/v1/session                        login
    DELETE /api/v1/session                      known
    GET /api/v1/users                           admin people
    POST /api/v1/users                          admin people
    GET /api/v1/users/bob                       admin people
    PUT /api/v1/users/bob                       admin people
    DELETE /api/v1/users/bob                    admin people
    PUT /api/v1/users/bob/password              known
    GET /api/v1/tokens                          admin people
    POST /api/v1/tokens                         admin people
    DELETE /api/v1/tokens/1a2b                  admin people
    GET /api/v1/audit                           admin people
";

fn least(need: Need) -> String {
    match need {
        Need::Nothing => "nothing".to_owned(),
        Need::Login => "login".to_owned(),
        Need::Known => "known".to_owned(),
        Need::Role(role, area) => format!("{role} {}", json!(area).as_str().unwrap()),
    }
}

#[test]
fn every_route_and_method_takes_what_the_table_says_and_nothing_else_is_served() {
    use Method::{Delete, Get, Head, Options, Patch, Post, Put};
    let lines: Vec<Vec<&str>> = LEAST
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|line: &Vec<_>| line.len() > 2)
        .collect();
    let mut paths: Vec<&str> = lines.iter().map(|line| line[1]).collect();
    paths.dedup();
    for path in &paths {
        let route = route(path).unwrap_or_else(|| panic!("{path} is not served"));
        for method in [Get, Put, Post, Patch, Delete] {
            let line = lines.iter().find(|line| line[0] == method.name() && line[1] == *path);
            let expected = line.map(|line| line[2..].join(" "));
            assert_eq!(route.need(method).map(least), expected, "{} {path}", method.name());
            if expected.is_none() {
                assert_eq!(admission(method, path).need, Need::Known, "{} {path}", method.name());
            }
        }
        assert_eq!(route.need(Head), route.need(Get), "{path}");
        assert_ne!(route.need(Options), None, "{path}");
    }
    for fixed in &ROUTES {
        assert!(paths.contains(&fixed.path), "{} has no line", fixed.path);
    }
}

#[test]
fn a_role_gets_what_it_may_of_every_route_and_no_more() {
    let roles = [Role::Viewer, Role::Operator, Role::Installer, Role::Admin];
    let mut counts = [0; 4];
    for line in
        LEAST.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|line| line.len() > 3)
    {
        let (method, least) = (Method::from_name(line[0]).unwrap(), line[2]);
        let need = admission(method, line[1]).need;
        for (index, role) in roles.into_iter().enumerate() {
            let may = Principal { role, ..admin() }.may(need);
            assert_eq!(
                may,
                role.to_string() == least || roles[..index].iter().any(|r| r.to_string() == least)
            );
            counts[index] += usize::from(may);
        }
    }
    assert_eq!(counts, [8, 29, 53, 66], "what each role can do");
}
