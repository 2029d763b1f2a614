//! Who gets in, over real sockets: the claim, sessions, roles, and those who mean no good.

use super::*;
use crate::access::tests::code;
use serde_json::{Value, json};

const PASSWORD: &str = "battery staple";

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// The cookie that was set, as it is sent back.
    fn cookie(&self) -> String {
        let set = self.header("set-cookie").expect("a cookie is set");
        set.split(';').next().unwrap().to_owned()
    }
}

/// A browser on a page of the gateway, or a program.
#[derive(Clone, Default)]
struct Client {
    headers: String,
}

impl Client {
    fn with(&self, header: &str) -> Client {
        Client { headers: format!("{}{header}\r\n", self.headers) }
    }

    fn bearer(token: &str) -> Client {
        Client::default().with(&format!("Authorization: Bearer {token}"))
    }

    fn ask(&self, admin: &Running, request: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let text = format!(
            "{request} HTTP/1.1\r\nHost: {}\r\n{kind}{}Content-Length: {}\r\n\r\n{body}",
            admin.address,
            self.headers,
            body.len()
        );
        let answer = admin.bare(text.as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        Answer {
            status: status_of(&answer),
            head: head.replace("\r\n", "\n"),
            body: serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned())),
        }
    }

    fn get(&self, admin: &Running, path: &str) -> Answer {
        self.ask(admin, &format!("GET {path}"), None)
    }

    fn status(&self, admin: &Running, request: &str) -> u16 {
        self.ask(admin, request, None).status
    }
}

/// Whoever this answer let in, as a page of the gateway sends it.
fn page_of(admin: &Running, answer: &Answer) -> Client {
    let csrf = answer.body["csrf"].as_str().unwrap();
    Client::default()
        .with(&format!("Cookie: {}", answer.cookie()))
        .with(&format!("X-CSRF-Token: {csrf}"))
        .with(&format!("Origin: http://{}", admin.address))
}

fn claim(admin: &Running) -> Client {
    let wish = json!({"code": code(&admin.access), "user": "ann", "password": PASSWORD});
    let answer = Client::default().ask(admin, "POST /api/v1/claim", Some(&wish));
    assert_eq!(answer.status, 201, "{}", answer.body);
    page_of(admin, &answer)
}

fn log_in(admin: &Running, user: &str, password: &str) -> Answer {
    Client::default().ask(admin, "POST /api/v1/session", Some(&json!({"user": user, "password": password})))
}

fn add(admin: &Running, by: &Client, name: &str, role: &str, mountpoints: &[&str]) -> Client {
    let wish = json!({"name": name, "role": role, "password": PASSWORD, "mountpoints": mountpoints});
    let answer = by.ask(admin, "POST /api/v1/users", Some(&wish));
    assert_eq!(answer.status, 201, "{}", answer.body);
    let answer = log_in(admin, name, PASSWORD);
    assert_eq!(answer.status, 201, "{}", answer.body);
    page_of(admin, &answer)
}

#[test]
fn an_unclaimed_gateway_serves_the_claim_and_its_health_and_nothing_else() {
    let admin = Running::with_defaults();
    let nobody = Client::default();
    assert_eq!(nobody.get(&admin, "/healthz").status, 200);
    let page = nobody.get(&admin, "/");
    assert!(page.status == 200 && page.body.as_str().unwrap().contains("/web/app.js"), "{}", page.body);
    for path in ["/web/app.js", "/web/style.css"] {
        assert_eq!(nobody.get(&admin, path).status, 200);
    }
    let start = nobody.get(&admin, "/api/v1/start");
    assert_eq!((start.status, start.body), (200, json!({"claimed": false, "session": null})));
    for request in [
        "GET /api/v1/status",
        "GET /metrics",
        "GET /api/v1/config",
        "POST /api/v1/config/confirm",
        "GET /api/v1/session",
        "POST /api/v1/session",
        "GET /api/v1/users",
        "GET /api/v1/audit",
        "GET /api/v1/mountpoints/gate/snapshot.jpg",
        "GET /nothing",
        "DELETE /api/v1/users/ann",
    ] {
        assert_eq!(nobody.status(&admin, request), 403, "{request}");
    }
    assert_eq!(admin.api.asked.load(Ordering::Relaxed), 0);
    let own = Client::bearer(&admin.local);
    assert_eq!(own.get(&admin, "/api/v1/status").status, 200, "the machine's owner needs no claim");
}

#[test]
fn the_code_claims_once_and_opens_a_session() {
    let admin = Running::with_defaults();
    let code = code(&admin.access);
    let ann = claim(&admin);
    let who = ann.get(&admin, "/api/v1/session");
    assert_eq!((who.status, &who.body["user"], &who.body["role"]), (200, &json!("ann"), &json!("admin")));
    let again = json!({"code": code, "user": "eve", "password": PASSWORD});
    assert_eq!(Client::default().ask(&admin, "POST /api/v1/claim", Some(&again)).status, 409);
    assert_eq!(Client::default().status(&admin, "GET /api/v1/status"), 401);
    let start = Client::default().get(&admin, "/api/v1/start").body;
    assert_eq!(start, json!({"claimed": true, "session": null}));
    assert_eq!(ann.get(&admin, "/api/v1/start").body["session"], who.body, "with what changes need");
}

#[test]
fn each_role_reaches_its_part_through_the_front() {
    let admin = Running::with_defaults();
    let ann = claim(&admin);
    let clients = [
        ("nobody", Client::default()),
        ("viewer", add(&admin, &ann, "vic", "viewer", &["gate"])),
        ("operator", add(&admin, &ann, "olga", "operator", &[])),
        ("installer", add(&admin, &ann, "ivo", "installer", &[])),
        ("admin", ann),
    ];
    // 401 where nobody is known; else the first who may, by name.
    for (request, least) in [
        ("GET /api/v1/status", "viewer"),
        ("GET /api/v1/config", "operator"),
        ("GET /metrics", "operator"),
        ("GET /api/v1/plan", "operator"),
        ("POST /api/v1/config/confirm", "installer"),
        ("POST /api/v1/discovery/scan", "installer"),
        ("GET /api/v1/users", "admin"),
        ("GET /api/v1/tokens", "admin"),
        ("GET /api/v1/audit", "admin"),
    ] {
        let mut may = false;
        for (role, client) in &clients {
            may |= *role == least;
            let status = client.status(&admin, request);
            let refused = if *role == "nobody" { 401 } else { 403 };
            assert_eq!(status == refused, !may, "{role} on {request}: {status}");
        }
    }
    let refused: Vec<String> = admin
        .access
        .audit(None, 1_000)
        .entries
        .into_iter()
        .filter(|entry| entry.result == "refused: 403")
        .map(|entry| format!("{} {}", entry.who, entry.what))
        .collect();
    assert!(refused.contains(&"ivo GET /api/v1/users".to_owned()), "{refused:?}");
}

#[test]
fn a_viewer_sees_the_mountpoints_named_to_him() {
    let admin = Running::with_defaults();
    let ann = claim(&admin);
    let vic = add(&admin, &ann, "vic", "viewer", &["gate"]);
    let names = |client: &Client| {
        let status = client.get(&admin, "/api/v1/status").body;
        let names: Vec<String> = status["mountpoints"].as_object().unwrap().keys().cloned().collect();
        (names, status)
    };
    assert_eq!(names(&ann).0, ["gate", "yard"]);
    let (seen, status) = names(&vic);
    assert_eq!(seen, ["gate"]);
    assert!(!status.to_string().contains("10.9.8.7"), "where it comes from and goes is not his: {status}");
    assert!(ann.get(&admin, "/api/v1/status").body.to_string().contains("10.9.8.7"));
    // Neither is there in this test; the one that is not his is not even looked for.
    assert_eq!(vic.get(&admin, "/api/v1/mountpoints/gate/snapshot.jpg").status, 404);
    assert_eq!(vic.get(&admin, "/api/v1/mountpoints/yard/snapshot.jpg").status, 403);
    assert_eq!(vic.get(&admin, "/api/v1/mountpoints/gate/masks").status, 403);
}

#[test]
fn a_cookie_alone_changes_nothing() {
    let admin = Running::with_defaults();
    claim(&admin);
    let answer = log_in(&admin, "ann", PASSWORD);
    let cookie = Client::default().with(&format!("Cookie: {}", answer.cookie()));
    let csrf = format!("X-CSRF-Token: {}", answer.body["csrf"].as_str().unwrap());
    let origin = format!("Origin: http://{}", admin.address);
    let confirm = "POST /api/v1/config/confirm";
    assert_eq!(cookie.get(&admin, "/api/v1/config").status, 200);
    assert_eq!(cookie.status(&admin, confirm), 403);
    assert_eq!(cookie.with(&origin).status(&admin, confirm), 403);
    assert_eq!(cookie.with(&csrf).status(&admin, confirm), 403, "no page says that it sent this");
    assert_eq!(cookie.with(&csrf).with("Origin: http://evil.example").status(&admin, confirm), 403);
    let forged = cookie.with(&origin).with(&format!("X-CSRF-Token: {}", "0".repeat(64)));
    assert_eq!(forged.status(&admin, confirm), 403);
    assert_eq!(cookie.with(&csrf).with(&origin).status(&admin, confirm), 409, "let through: nothing waits");
    assert_eq!(cookie.with(&csrf).with("Sec-Fetch-Site: same-origin").status(&admin, confirm), 409);
    let form = Client::default().with("Content-Type: application/x-www-form-urlencoded");
    assert_eq!(form.status(&admin, "POST /api/v1/session"), 415, "what another site's form can send");
}

#[test]
fn a_session_cannot_be_planted_and_none_is_of_use_after_its_end() {
    let admin = Running::with_defaults();
    claim(&admin);
    let planted = "fieldgate=00000000000000000000000000000000000000000000000000000000000000aa";
    let client = Client::default().with(&format!("Cookie: {planted}"));
    let login = json!({"user": "ann", "password": PASSWORD});
    let answer = client.ask(&admin, "POST /api/v1/session", Some(&login));
    assert_eq!(answer.status, 201);
    assert_ne!(answer.cookie(), planted);
    assert_eq!(client.get(&admin, "/api/v1/session").status, 401, "the planted one opens nothing");
    let set = answer.header("set-cookie").unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict") && set.contains("Path=/"), "{set}");

    let first = page_of(&admin, &answer);
    let again = first.ask(&admin, "POST /api/v1/session", Some(&login));
    assert_ne!(again.cookie(), answer.cookie(), "a new login, a new session");
    assert_eq!(first.get(&admin, "/api/v1/session").status, 401, "and the one before is over");

    let page = page_of(&admin, &again);
    let gone = page.ask(&admin, "DELETE /api/v1/session", None);
    assert_eq!(gone.status, 204);
    assert!(gone.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(page.get(&admin, "/api/v1/config").status, 401, "replayed after logout");
    assert_eq!(page.status(&admin, "POST /api/v1/config/confirm"), 401);
}

#[test]
fn guesses_are_counted_and_cut_off_whatever_they_guess() {
    let admin = Running::with_defaults();
    let guess = |request: &str, wish: Value| -> Vec<u16> {
        (0..20).map(|_| Client::default().ask(&admin, request, Some(&wish)).status).collect()
    };
    let compared = |answers: &[u16]| answers.iter().filter(|status| **status == 401).count();
    let codes =
        guess("POST /api/v1/claim", json!({"code": "AAAAA-AAAAA", "user": "eve", "password": PASSWORD}));
    assert_eq!(compared(&codes), 5);
    assert_eq!(codes.last(), Some(&429));
    let right = json!({"code": code(&admin.access), "user": "eve", "password": PASSWORD});
    let refused = Client::default().ask(&admin, "POST /api/v1/claim", Some(&right));
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);

    let admin = Running::with_defaults();
    let ann = claim(&admin);
    let made = ann.ask(&admin, "POST /api/v1/tokens", Some(&json!({"name": "nvr", "role": "operator"})));
    assert_eq!(made.status, 201, "{}", made.body);
    let token = made.body["token"].as_str().unwrap();
    let id = made.body["id"].as_str().unwrap();
    let guessed = Client::bearer(&format!("fgt_{id}_{}", "0".repeat(64)));
    let answers: Vec<u16> = (0..20).map(|_| guessed.status(&admin, "GET /api/v1/status")).collect();
    assert_eq!((compared(&answers), answers.last()), (5, Some(&429)));
    assert_eq!(log_in(&admin, "ann", PASSWORD).status, 429, "not before the wait is over");
    assert_eq!(Client::bearer(token).status(&admin, "GET /api/v1/status"), 200);
    assert_eq!(ann.get(&admin, "/api/v1/status").status, 200, "who is in stays in");

    let admin = Running::with_defaults();
    claim(&admin);
    let answers: Vec<u16> = (0..20).map(|_| log_in(&admin, "ann", "wrong password").status).collect();
    assert_eq!((compared(&answers), answers.last()), (5, Some(&429)));
    assert_eq!(log_in(&admin, "ann", PASSWORD).status, 429);
}

#[test]
fn odd_and_doubled_credentials_are_refused_and_harm_nobody() {
    let admin = Running::with_defaults();
    let ann = claim(&admin);
    let answer = log_in(&admin, "ann", PASSWORD);
    let (cookie, path) = (answer.cookie(), "GET /api/v1/config");
    let status = |headers: &[&str]| {
        headers.iter().fold(Client::default(), |client, header| client.with(header)).status(&admin, path)
    };
    let cookie_header = format!("Cookie: {cookie}");
    let bearer = format!("Authorization: Bearer {}", admin.local);
    assert_eq!(status(&[&cookie_header]), 200);
    assert_eq!(status(&[&cookie_header, &cookie_header]), 400, "the header twice");
    assert_eq!(status(&[&format!("Cookie: {cookie}; {cookie}")]), 400, "the cookie twice");
    assert_eq!(status(&[&cookie_header, &bearer]), 400, "two identities");
    assert_eq!(status(&[&bearer, &bearer]), 400);
    assert_eq!(status(&["Authorization: Basic YW5uOng="]), 400);
    assert_eq!(status(&["Cookie: fieldgate="]), 401);
    assert_eq!(status(&[&format!("Cookie: fieldgate={}", "a".repeat(10_000))]), 401);
    assert_eq!(status(&[&format!("Cookie: {}", "x=y; ".repeat(4_000))]), 431);
    assert_eq!(status(&[&format!("Cookie: __Host-{cookie}")]), 401, "a name for TLS alone");
    assert_eq!(status(&["Authorization: Bearer fgt__"]), 401);
    assert_eq!(status(&["Authorization: Bearer fgl_"]), 401);
    assert_eq!(ann.get(&admin, "/api/v1/config").status, 200);
}

#[test]
fn strangers_send_no_body_to_what_is_not_theirs() {
    let admin = Running::with_defaults();
    claim(&admin);
    let mut stream = admin.connect();
    let head = format!(
        "PUT /api/v1/config HTTP/1.1\r\nHost: {}\r\nIf-Match: \"1\"\r\nContent-Type: application/json\r\n\
         Content-Length: 4000000\r\nExpect: 100-continue\r\n\r\n",
        admin.address
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(status_of(&answer), 401, "no go-ahead: {answer}");
    let long = json!({"user": "ann", "password": "x".repeat(40 << 10)});
    assert_eq!(Client::default().ask(&admin, "POST /api/v1/session", Some(&long)).status, 413);
    for body in [json!([]), json!({"user": "ann"}), json!({"user": 1, "password": 2}), json!("x")] {
        assert_eq!(Client::default().ask(&admin, "POST /api/v1/session", Some(&body)).status, 400);
    }
}

#[test]
fn people_are_added_changed_and_removed() {
    let admin = Running::with_defaults();
    let ann = claim(&admin);
    let bob = add(&admin, &ann, "bob", "installer", &[]);
    let one = ann.get(&admin, "/api/v1/users/bob");
    assert_eq!((one.status, &one.body["role"]), (200, &json!("installer")));
    let tag = one.header("etag").unwrap();
    let viewer = json!({"role": "viewer", "mountpoints": ["gate"]});
    assert_eq!(ann.ask(&admin, "PUT /api/v1/users/bob", Some(&viewer)).status, 428);
    let stale = ann.with("If-Match: \"1\"").ask(&admin, "PUT /api/v1/users/bob", Some(&viewer));
    assert_eq!((stale.status, stale.header("etag")), (412, Some(tag)));
    let changed = ann.with(&format!("If-Match: {tag}")).ask(&admin, "PUT /api/v1/users/bob", Some(&viewer));
    assert_eq!((changed.status, &changed.body["mountpoints"]), (200, &json!(["gate"])));
    assert_eq!(bob.get(&admin, "/api/v1/config").status, 403, "at once");

    let set = |by: &Client, name: &str, wish: &Value| {
        by.ask(&admin, &format!("PUT /api/v1/users/{name}/password"), Some(wish)).status
    };
    assert_eq!(set(&bob, "ann", &json!({"password": "another battery"})), 403);
    assert_eq!(
        set(&bob, "bob", &json!({"password": "another battery"})),
        401,
        "who he is must be shown again"
    );
    assert_eq!(set(&bob, "bob", &json!({"password": "another battery", "current": "wrong"})), 401);
    assert_eq!(set(&bob, "bob", &json!({"password": "short", "current": PASSWORD})), 422);
    assert_eq!(set(&bob, "bob", &json!({"password": "another battery", "current": PASSWORD})), 204);
    assert_eq!(bob.get(&admin, "/api/v1/session").status, 200, "he stays logged in");
    assert_eq!(set(&ann, "bob", &json!({"password": PASSWORD})), 204);
    assert_eq!(bob.get(&admin, "/api/v1/session").status, 401, "an admin's change ends his sessions");
    assert_eq!(set(&ann, "nobody", &json!({"password": PASSWORD})), 404);

    assert_eq!(ann.ask(&admin, "DELETE /api/v1/users/ann", None).status, 409, "the last admin stays");
    let demote = ann.with("If-Match: *").ask(&admin, "PUT /api/v1/users/ann", Some(&viewer));
    assert_eq!(demote.status, 409);
    assert_eq!(ann.ask(&admin, "DELETE /api/v1/users/bob", None).status, 204);
    assert_eq!(ann.ask(&admin, "DELETE /api/v1/users/bob", None).status, 404);
    assert_eq!(log_in(&admin, "bob", PASSWORD).status, 401);
    let bad = json!({"name": "Bob!", "role": "viewer", "password": PASSWORD});
    let refused = ann.ask(&admin, "POST /api/v1/users", Some(&bad));
    assert_eq!((refused.status, &refused.body["problems"][0]["path"]), (422, &json!("name")));
}

#[test]
fn tokens_are_shown_once_and_stay_within_their_bounds() {
    let admin = Running::with_defaults();
    let ann = claim(&admin);
    let make = |wish: Value| ann.ask(&admin, "POST /api/v1/tokens", Some(&wish));
    let made = make(json!({"name": "prometheus", "role": "operator", "areas": ["metrics"]}));
    let (token, id) = (made.body["token"].as_str().unwrap(), made.body["id"].as_str().unwrap());
    let scraper = Client::bearer(token);
    assert_eq!(scraper.get(&admin, "/metrics").status, 200);
    assert_eq!(scraper.get(&admin, "/api/v1/config").status, 403);
    assert_eq!(scraper.get(&admin, "/api/v1/session").body["token"]["name"], json!("prometheus"));
    let listed = ann.get(&admin, "/api/v1/tokens").body;
    assert_eq!((&listed["tokens"][0]["id"], &listed["tokens"][0]["created_by"]), (&json!(id), &json!("ann")));
    let secret = token.rsplit('_').next().unwrap();
    assert!(!listed.to_string().contains(secret), "shown once");
    let past = make(json!({"name": "old", "role": "viewer", "expires": "2020-01-01T00:00:00Z"}));
    assert_eq!((past.status, &past.body["problems"][0]["path"]), (422, &json!("expires")));
    assert_eq!(ann.ask(&admin, &format!("DELETE /api/v1/tokens/{id}"), None).status, 204);
    assert_eq!(scraper.get(&admin, "/metrics").status, 401);
}

#[test]
fn the_log_says_who_changed_and_pages() {
    let admin = Running::with_defaults();
    let ann = claim(&admin);
    let local = Client::bearer(&admin.local);
    local.status(&admin, "POST /api/v1/config/confirm");
    log_in(&admin, "eve", "wrong password");
    let all = ann.get(&admin, "/api/v1/audit").body;
    let lines: Vec<String> = all["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| format!("{} {} {}", e["who"], e["what"], e["result"]).replace('"', ""))
        .collect();
    assert_eq!(
        lines,
        [
            "eve log_in refused: wrong user or password",
            "local POST /api/v1/config/confirm refused: 409",
            "ann claim done"
        ]
    );
    let first = ann.get(&admin, "/api/v1/audit?limit=2").body;
    let next = format!("/api/v1/audit?limit=2&cursor={}", first["next_cursor"].as_str().unwrap());
    let last = ann.get(&admin, &next).body;
    assert_eq!((&last["entries"][0]["what"], last.get("next_cursor")), (&json!("claim"), None));
    assert_eq!(ann.get(&admin, "/api/v1/audit?limit=0&page=1").body["problems"].as_array().unwrap().len(), 2);
}
