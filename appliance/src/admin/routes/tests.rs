use super::super::api::{ConfigView, Health, Problem};
use super::*;
use std::sync::Mutex;
use std::time::Duration;

/// A gateway that answers what the test wants and remembers what it was asked.
struct Fake {
    revision: u64,
    outcome: Result<Applied, ChangeError>,
    health: Health,
    puts: Mutex<Vec<(u64, bool, Vec<u8>)>>,
    applied_at: Instant,
}

impl AdminApi for Fake {
    fn config(&self) -> Result<ConfigView, ChangeError> {
        Ok(ConfigView { revision: self.revision, json: br#"{"schema":1}"#.to_vec() })
    }
    fn put_config(&self, json: &[u8], over: u64, dry_run: bool) -> Result<Applied, ChangeError> {
        self.puts.lock().unwrap().push((over, dry_run, json.to_vec()));
        self.outcome.clone()
    }
    fn confirm(&self, opened: Instant) -> Result<Applied, ChangeError> {
        if opened < self.applied_at { Err(ChangeError::OldConnection) } else { self.outcome.clone() }
    }
    fn schema(&self) -> Vec<u8> {
        b"{}".to_vec()
    }
    fn status(&self) -> Vec<u8> {
        b"{\"state\":\"running\"}".to_vec()
    }
    fn metrics(&self) -> String {
        "fieldgate_up 1\n".to_owned()
    }
    fn page(&self, host: &str) -> String {
        format!("<p>{host}")
    }
    fn health(&self) -> Health {
        self.health.clone()
    }
}

fn fake(outcome: Result<Applied, ChangeError>) -> Fake {
    Fake { revision: 7, outcome, health: Health::default(), puts: Mutex::default(), applied_at: at() }
}

fn at() -> Instant {
    // tokio's, paused or not, is the only clock here.
    Instant::now()
}

fn ask(api: &Fake, method: Method, target: &str, headers: &[(&str, &str)]) -> Reply {
    let request = Request {
        method,
        target: target.to_owned(),
        host: "localhost:8080".to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        peer: "127.0.0.1:9".to_owned(),
        opened: api.applied_at + Duration::from_secs(1),
        body: b"{}".to_vec(),
    };
    respond(&request, api)
}

fn confirmed() -> Result<Applied, ChangeError> {
    Ok(Applied::Confirmed { revision: 8 })
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
    let problem = Problem {
        path: "rtmp.listen".to_owned(),
        problem: "is no list".to_owned(),
        got: Some("7".to_owned()),
        remedy: Some("write [\"0.0.0.0:1935\"]".to_owned()),
    };
    for (outcome, status) in [
        (confirmed(), 200),
        (Ok(Applied::AwaitingConfirm { revision: 8, seconds: 90 }), 202),
        (Ok(Applied::WouldApply { needs_confirm: true }), 200),
        (Err(ChangeError::Unreadable(vec![problem.clone()])), 400),
        (Err(ChangeError::Pending), 409),
        (Err(ChangeError::Stale { current: 9 }), 412),
        (Err(ChangeError::Invalid(vec![problem.clone()])), 422),
        (Err(ChangeError::Failed("disk full".to_owned())), 500),
        (Err(ChangeError::Busy), 503),
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
        if status == 202 {
            assert_eq!(body["confirm_within"], "90s");
        }
    }
}

#[tokio::test]
async fn a_change_is_confirmed_only_over_a_newer_connection() {
    let mut api = fake(confirmed());
    assert_eq!(ask(&api, Method::Post, "/api/v1/config/confirm", &[]).status, 200);
    api.outcome = Err(ChangeError::NothingPending);
    assert_eq!(ask(&api, Method::Post, "/api/v1/config/confirm", &[]).status, 409);
    api.outcome = confirmed();
    let request = Request {
        method: Method::Post,
        target: "/api/v1/config/confirm".to_owned(),
        host: "localhost".to_owned(),
        headers: Vec::new(),
        peer: String::new(),
        opened: api.applied_at.checked_sub(Duration::from_millis(1)).unwrap(),
        body: Vec::new(),
    };
    assert_eq!(respond(&request, &api).status, 409);
}

#[test]
fn what_is_not_there_or_not_meant_so_is_told_apart() {
    let api = fake(confirmed());
    assert_eq!(ask(&api, Method::Get, "/api/v1/nothing", &[]).status, 404);
    assert_eq!(ask(&api, Method::Get, "/api/v1/config/", &[]).status, 404);
    assert_eq!(ask(&api, Method::Get, "//healthz", &[]).status, 404);
    let reply = ask(&api, Method::Delete, "/api/v1/config", &[]);
    assert_eq!((reply.status, header_of(&reply, "allow")), (405, Some("GET, HEAD, OPTIONS, PUT")));
    let reply = ask(&api, Method::Get, "/api/v1/config/confirm", &[]);
    assert_eq!((reply.status, header_of(&reply, "allow")), (405, Some("OPTIONS, POST")));
    let reply = ask(&api, Method::Options, "/healthz", &[]);
    assert_eq!((reply.status, header_of(&reply, "allow")), (204, Some("GET, HEAD, OPTIONS")));
    assert_eq!(ask(&api, Method::Options, "*", &[]).status, 204);
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

#[test]
fn the_page_is_told_which_name_it_was_asked_under() {
    for (host, name) in [("gate:80", "gate"), ("gate", "gate"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")] {
        assert_eq!(host_name(host), name);
    }
}
