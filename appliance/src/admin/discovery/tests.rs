use super::*;
use serde_json::Value;
use std::sync::Mutex;
use tokio::time::Instant;

/// Cameras that do what the test wants and remember what they were asked.
#[derive(Default)]
struct Cameras {
    count: usize,
    asked: Mutex<Vec<String>>,
    answer: Option<CameraError>,
}

impl CameraApi for Cameras {
    fn cameras(&self) -> Vec<CameraView> {
        (0..self.count).map(|n| CameraView { id: format!("onvif-{n:03}"), ..CameraView::default() }).collect()
    }
    fn search(&self) -> SearchView {
        SearchView { searching: true, ..SearchView::default() }
    }
    fn scan(&self, addresses: &[IpAddr]) -> Result<(), CameraError> {
        self.asked.lock().unwrap().push(format!("scan {addresses:?}"));
        self.answer.clone().map_or(Ok(()), Err)
    }
    fn picture(&self, id: &str, login: Option<LoginWish>) -> Result<FoundPicture, CameraError> {
        self.asked.lock().unwrap().push(format!("{id} {login:?}"));
        match (&self.answer, login) {
            (Some(error), _) => Err(error.clone()),
            (None, Some(_)) => Ok(FoundPicture::Looking),
            (None, None) => {
                Ok(FoundPicture::Ready { jpeg: Bytes::from_static(JPEG), age: Duration::from_secs(7) })
            }
        }
    }
    fn act(&self, id: &str, wish: CameraWish) -> Result<CameraView, CameraError> {
        self.asked.lock().unwrap().push(format!("{id} {wish:?}"));
        let camera = CameraView { id: id.to_owned(), ..CameraView::default() };
        self.answer.clone().map_or(Ok(camera), Err)
    }
}

struct Fake(Option<Cameras>);

impl Fake {
    /// As the routes do it.
    fn respond(&self, request: &Request) -> Reply {
        let path = request.target.split('?').next().unwrap();
        let Some(route) = find_route(path) else { return Reply::empty(404) };
        if route.need(request.method).is_none() {
            return Reply::empty(405);
        }
        respond(request, path, self.0.as_ref().map(|cameras| cameras as &dyn CameraApi))
    }
}

fn ask(api: &Fake, method: Method, target: &str, body: &str) -> (u16, Value, Reply) {
    let request = Request {
        method,
        target: target.to_owned(),
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        principal: None,
        peer: "127.0.0.1:9".parse().unwrap(),
        is_secure: false,
        opened: Instant::now(),
        body: body.as_bytes().to_vec(),
    };
    let reply = api.respond(&request);
    (reply.status, serde_json::from_slice(&reply.body).unwrap_or_default(), reply)
}

fn with(cameras: Cameras) -> Fake {
    Fake(Some(cameras))
}

const JPEG: &[u8] = b"\xff\xd8...\xff\xd9";
const LOGIN: &str = r#"{"user": "admin", "password": "c4n4ry-pass"}"#;

#[test]
fn cameras_are_listed_by_pages() {
    let api = with(Cameras { count: 5, ..Cameras::default() });
    let (status, body, _) = ask(&api, Method::Get, "/api/v1/discovery?limit=2", "");
    assert_eq!((status, body["cameras"].as_array().unwrap().len()), (200, 2));
    assert_eq!((&body["next_cursor"], &body["search"]["searching"]), (&json!("onvif-001"), &json!(true)));
    let (_, body, _) = ask(&api, Method::Get, "/api/v1/discovery?limit=3&cursor=onvif-001", "");
    assert_eq!((body["cameras"][0]["id"].as_str(), body.get("next_cursor")), (Some("onvif-002"), None));
    for query in ["limit=0", "limit=301", "limit=x", "page=2"] {
        let (status, body, _) = ask(&api, Method::Get, &format!("/api/v1/discovery?{query}"), "");
        assert_eq!((status, body["problems"].as_array().unwrap().len()), (400, 1), "{query}");
    }
}

#[test]
fn a_scan_is_accepted_with_and_without_addresses() {
    let api = with(Cameras::default());
    let (status, body, _) = ask(&api, Method::Post, "/api/v1/discovery/scan", "");
    assert_eq!((status, &body["watch"]), (202, &json!("/api/v1/discovery")));
    assert_eq!(ask(&api, Method::Post, "/api/v1/discovery/scan", r#"{"addresses": ["10.0.0.7"]}"#).0, 202);
    assert_eq!(*api.0.as_ref().unwrap().asked.lock().unwrap(), ["scan []", "scan [10.0.0.7]"]);
    assert_eq!(ask(&api, Method::Post, "/api/v1/discovery/scan", r#"{"addresses": ["gate.local"]}"#).0, 400);
}

#[test]
fn what_is_wanted_reaches_the_camera_and_no_password_shows() {
    let api = with(Cameras::default());
    for (verb, body) in [
        ("login", LOGIN),
        ("encoder", r#"{"profile": "sub", "codec": "h264", "gop": 50, "fps": 12.5}"#),
        ("reboot", ""),
        ("clock", ""),
    ] {
        let (status, body, _) = ask(&api, Method::Post, &format!("/api/v1/discovery/onvif-1/{verb}"), body);
        assert_eq!((status, &body["camera"]["id"]), (200, &json!("onvif-1")), "{verb}: {body}");
    }
    let asked = api.0.as_ref().unwrap().asked.lock().unwrap().join("\n");
    assert!(!asked.contains("c4n4ry"), "{asked}");
    assert!(asked.contains("gop: Some(50)") && asked.contains("Reboot") && asked.contains("Clock"));
}

#[test]
fn refusals_are_told_with_their_cause_and_remedy() {
    let address: IpAddr = "10.0.0.7".parse().unwrap();
    for (error, status) in [
        (CameraError::Unknown("x".to_owned()), 404),
        (CameraError::Local("x".to_owned()), 422),
        (CameraError::Moved { wanted: address, now: address }, 409),
        (CameraError::LoginFirst("x".to_owned()), 409),
        (CameraError::Unreachable(address), 422),
        (CameraError::Wait { cause: "wait".to_owned(), remaining: Duration::from_secs(299) }, 429),
        (CameraError::LoginRefused, 422),
        (CameraError::BasicNeedsConsent, 422),
        (CameraError::Setting("gop".to_owned()), 422),
        (CameraError::Camera("no".to_owned()), 502),
    ] {
        let api = with(Cameras { answer: Some(error.clone()), ..Cameras::default() });
        let (got, body, reply) = ask(&api, Method::Post, "/api/v1/discovery/x/login", LOGIN);
        assert_eq!((got, reply.content_type), (status, "application/problem+json"), "{error}");
        assert_eq!(body["detail"], error.to_string());
        let retry = reply.headers.iter().find(|(name, _)| *name == "retry-after");
        assert_eq!(retry.map(|(_, value)| value.as_str()), (status == 429).then_some("299"));
    }
}

#[test]
fn a_picture_is_there_or_being_taken_or_not_to_be_had() {
    let path = "/api/v1/discovery/onvif-1/snapshot";
    let api = with(Cameras::default());
    for target in [path.to_owned(), format!("{path}?at=12")] {
        let (status, _, reply) = ask(&api, Method::Get, &target, "");
        assert_eq!((status, reply.content_type, &reply.body[..]), (200, "image/jpeg", JPEG));
        assert!(reply.headers.contains(&("age", "7".to_owned())));
    }
    for query in ["at=", "at=x", "width=9", "at=1&at=2"] {
        assert_eq!(ask(&api, Method::Get, &format!("{path}?{query}"), "").0, 400, "{query}");
    }
    let (status, body, reply) = ask(&api, Method::Post, path, LOGIN);
    assert_eq!((status, &body["watch"]), (202, &json!(path)));
    assert!(reply.headers.contains(&("retry-after", "1".to_owned())));
    assert_eq!(ask(&api, Method::Post, path, r#"{"user": "u"}"#).0, 400);
    let asked = api.0.as_ref().unwrap().asked.lock().unwrap().join("\n");
    assert!(!asked.contains("c4n4ry") && asked.contains("onvif-1 Some"), "{asked}");
    for (error, status) in [
        (CameraError::LoginWanted, 422),
        (CameraError::InUse("gate".to_owned()), 409),
        (CameraError::Looking("x".to_owned()), 409),
        (CameraError::ManyPictures(16), 503),
        (CameraError::NoPictures, 404),
    ] {
        let api = with(Cameras { answer: Some(error.clone()), ..Cameras::default() });
        let (got, body, _) = ask(&api, Method::Get, path, "");
        assert_eq!((got, body["detail"].as_str()), (status, Some(error.to_string().as_str())));
    }
}

#[test]
fn bodies_are_judged_without_being_repeated() {
    let api = with(Cameras::default());
    let long = format!(r#"{{"user": "u", "password": "{}"}}"#, "x".repeat(129));
    for (body, status) in [
        ("c4n4ry", 400),
        (r#"{"user": "u", "password": "c4n4ry", "passwort": "c4n4ry"}"#, 400),
        (r#"{"user": "u"}"#, 400),
        (r#"{"user": "", "password": "c4n4ry"}"#, 422),
        (r#"{"user": "a:b", "password": "c4n4ry"}"#, 422),
        (r#"{"user": "u", "password": {"set": true}}"#, 422),
        (&long, 422),
    ] {
        let (got, _, reply) = ask(&api, Method::Post, "/api/v1/discovery/x/login", body);
        assert_eq!(got, status, "{body}");
        assert!(!String::from_utf8(reply.body).unwrap().contains("c4n4ry"), "{body}");
    }
    let request = Request {
        method: Method::Post,
        target: "/api/v1/discovery/x/login".to_owned(),
        headers: Vec::new(),
        principal: None,
        peer: "127.0.0.1:9".parse().unwrap(),
        is_secure: false,
        opened: Instant::now(),
        body: LOGIN.as_bytes().to_vec(),
    };
    assert_eq!(api.respond(&request).status, 415, "a form of another site's page");
}

#[test]
fn only_these_paths_and_methods_exist() {
    let api = with(Cameras::default());
    for path in [
        "/api/v1/discovery/",
        "/api/v1/discovery//snapshot",
        "/api/v1/discovery/x",
        "/api/v1/discovery/x/format",
        "/api/v1/discoveryx",
    ] {
        assert_eq!(ask(&api, Method::Get, path, "").0, 404, "{path}");
    }
    assert_eq!(ask(&api, Method::Get, "/api/v1/discovery/x/reboot", "").0, 405);
    assert_eq!(ask(&api, Method::Post, "/api/v1/discovery", "").0, 405);
    assert_eq!(ask(&Fake(None), Method::Get, "/api/v1/discovery", "").0, 404, "a gateway without a search");
    let login = find_route("/api/v1/discovery/x/login").unwrap();
    assert_eq!((login.max_body_len, login.waits), (4 << 10, true));
}
