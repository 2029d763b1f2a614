//! Cameras on the network, found and asked by the whole program: fakes on loopback addresses, written from the standards,
//! with the oddities of real cameras by switches and an account that locks after three wrong passwords.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![allow(clippy::disallowed_methods, reason = "real sockets run in real time")]

#[path = "../common"]
#[allow(dead_code, reason = "shared with the other whole-program tests, which use the rest")]
mod common {
    pub(crate) mod gateway;
    pub(crate) mod http;
    pub(crate) mod memory;
    pub(crate) mod process;
    pub(crate) mod scratch;
    pub(crate) mod wait;
}

mod fake;

use common::gateway::Gateway;
use common::http::Response;
use common::wait::{self, secs};
use fake::{Auth, FakeCamera, Settings};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::TcpListener;

/// A gateway that looks on loopback.
fn gateway() -> Gateway {
    Gateway::start(json!({"discovery": {"interfaces": ["lo"], "interval": "10s"}}))
}

/// What the list says of a camera, once it is there.
fn found(gateway: &Gateway, camera: &FakeCamera) -> Value {
    wait::until("the camera to be found", secs(40), || listed(gateway, camera))
}

fn listed(gateway: &Gateway, camera: &FakeCamera) -> Option<Value> {
    let list = gateway.get("/api/v1/discovery?limit=300").json();
    let cameras = list["cameras"].as_array()?.clone();
    cameras.into_iter().find(|it| it["address"] == camera.address.to_string())
}

fn post(gateway: &Gateway, path: &str, body: &Value) -> Response {
    let json = [("Content-Type", "application/json")];
    gateway.request("POST", path, &json, body.to_string().as_bytes())
}

fn login(gateway: &Gateway, id: &Value, password: &str) -> Response {
    let path = format!("/api/v1/discovery/{}/login", id.as_str().unwrap());
    post(gateway, &path, &json!({"user": "admin", "password": password}))
}

const PASSWORD: &str = "c4n4ry-Pa55";

/// What comes of asking for a picture until it is there, or is said not to be.
#[cfg(feature = "gst")]
fn picture(gateway: &Gateway, id: &Value) -> Response {
    let path = format!("/api/v1/discovery/{}/snapshot", id.as_str().unwrap());
    wait::until("the picture, or why there is none", secs(60), || {
        let answer = gateway.get(&path);
        (answer.status != 202).then_some(answer)
    })
}

#[test]
fn a_camera_is_found_logged_in_to_and_set() {
    let camera = FakeCamera::start(Settings { clock_offset: -9_800, ..Settings::default() });
    let mut gateway = gateway();
    let before = found(&gateway, &camera);
    assert_eq!(before["id"], format!("onvif-{}", camera.uuid));
    assert_eq!((&before["names"][0], &before["model"]), (&json!("Gate cam"), &json!("FC-200")));
    assert_eq!(before["missing"], json!(["credentials wanted"]));
    assert_eq!(camera.requests(), [""; 0], "nothing is asked before somebody gives credentials");

    let answer = login(&gateway, &before["id"], PASSWORD);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let after = answer.json()["camera"].clone();
    assert_eq!((&after["login"], &after["serial"]), (&json!("accepted"), &json!("SN42")));
    assert_eq!((&after["firmware"], &after["macs"]), (&json!("1.2.3"), &json!(["00:11:22:aa:bb:cc"])));
    assert_eq!(after["main"]["url"], format!("rtsp://{}/main", camera.rtsp));
    assert_eq!(after["sub"]["url"], format!("rtsp://{}/sub", camera.rtsp));
    assert_eq!(
        (&after["main"]["checked"], &after["main"]["streams"][0]["codec"]),
        (&json!(true), &json!("H264"))
    );
    assert_eq!(after["snapshot_url"], format!("http://{}/snapshot.jpg", camera.http));
    let offset: i64 = after["time_offset"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
    assert!((-9_803..=-9_797).contains(&offset), "{offset}");
    assert_eq!(after["profiles"][0]["video"]["gop"], 50);
    assert_eq!((camera.bad_logins(), after["missing"].clone()), (0, json!([])));

    let path = |verb: &str| format!("/api/v1/discovery/onvif-{}/{verb}", camera.uuid);
    let answer =
        post(&gateway, &path("encoder"), &json!({"profile": "main", "gop": 25, "bitrate_kbps": 2048}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["camera"]["profiles"][0]["video"]["gop"], 25, "read back from the camera");
    let answer = post(&gateway, &path("encoder"), &json!({"profile": "main", "gop": 9_999}));
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("gop must be 1 to 400"), "{}", answer.text());
    assert_eq!(post(&gateway, &path("clock"), &json!({})).status, 200);
    assert_eq!(post(&gateway, &path("reboot"), &json!({})).status, 200);
    assert_eq!((camera.clock_was_set(), camera.reboots()), (true, 1));

    // The password is nowhere but where it belongs.
    let list = gateway.get("/api/v1/discovery").text();
    let (config, log) = (gateway.config().0.to_string(), gateway.process().log());
    for (place, text) in
        [("list", list), ("config", config), ("log", log), ("status", gateway.status().to_string())]
    {
        assert!(!text.contains(PASSWORD), "the password shows in the {place}: {text}");
    }
}

#[test]
fn a_wrong_password_never_locks_the_account() {
    for auth in [Auth::Token, Auth::Digest, Auth::DigestSha256] {
        let camera = FakeCamera::start(Settings { auth, ..Settings::default() });
        let gateway = gateway();
        let id = found(&gateway, &camera)["id"].clone();
        let answer = login(&gateway, &id, "wr0ng-c4n4ry");
        assert_eq!((answer.status, answer.text().contains("refused")), (422, true), "{}", answer.text());
        for _ in 0..10 {
            let answer = login(&gateway, &id, "wr0ng-c4n4ry");
            assert_eq!(answer.status, 429, "{}", answer.text());
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((250..=300).contains(&wait));
        }
        assert_eq!(camera.bad_logins(), 1, "{auth:?}: one try in five minutes");
        let answer = login(&gateway, &id, PASSWORD);
        assert_eq!(answer.status, 200, "{auth:?}: another credential is another try: {}", answer.text());
        assert!(!camera.is_locked());
        // A login that was taken may be used as often as one likes.
        assert!((0..3).all(|_| login(&gateway, &id, PASSWORD).status == 200));
    }
}

#[test]
fn odd_cameras_are_taken_as_they_are() {
    let normal = Settings::default;
    let odd = [
        ("no media 2", Settings { media2: false, ..normal() }),
        ("no media 1", Settings { media1: false, ..normal() }),
        ("only the older call for services", Settings { no_get_services: true, media2: false, ..normal() }),
        ("a clock eleven years behind", Settings { clock_offset: -11 * 365 * 86_400, ..normal() }),
        ("a clock in the future", Settings { clock_offset: 400 * 86_400, ..normal() }),
        ("a plain 400 without a login", Settings { plain_400: true, ..normal() }),
        ("no namespaces", Settings { no_namespaces: true, ..normal() }),
        ("chunked answers", Settings { chunked: true, ..normal() }),
        ("nonces good for one call", Settings { auth: Auth::Digest, one_time_nonces: true, ..normal() }),
        ("services at another address", Settings { names_host: Some("192.168.1.64".to_owned()), ..normal() }),
    ];
    let cameras: Vec<_> =
        odd.into_iter().map(|(what, settings)| (what, FakeCamera::start(settings))).collect();
    let gateway = gateway();
    for (what, camera) in &cameras {
        let id = found(&gateway, camera)["id"].clone();
        let answer = login(&gateway, &id, PASSWORD);
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let camera_view = answer.json()["camera"].clone();
        assert_eq!(
            camera_view["main"]["url"],
            format!("rtsp://{}/main", camera.rtsp),
            "{what}: {camera_view}"
        );
        assert_eq!((&camera_view["main"]["checked"], camera.bad_logins()), (&json!(true), 0), "{what}");
    }
}

#[test]
fn without_onvif_a_working_url_is_found_by_the_makers_habits() {
    let settings = || Settings { onvif: false, rtsp_path: "/stream1", ..Settings::default() };
    let (camera, other) = (FakeCamera::start(settings()), FakeCamera::start(settings()));
    let gateway = gateway();
    let before = found(&gateway, &camera);
    assert_eq!((&before["found_by"]["mdns"], &before["found_by"]["onvif"]), (&json!(true), &json!(false)));
    let answer = login(&gateway, &before["id"], PASSWORD);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let view = answer.json()["camera"].clone();
    assert_eq!(view["main"]["url"], format!("rtsp://{}/stream1", camera.rtsp));
    assert_eq!((&view["login"], camera.bad_logins()), (&json!("accepted"), 0));

    let id = found(&gateway, &other)["id"].clone();
    assert_eq!(login(&gateway, &id, "wr0ng").status, 422);
    assert_eq!(login(&gateway, &id, "wr0ng").status, 429);
    assert_eq!(other.bad_logins(), 1, "not once per path");
}

#[test]
fn a_password_in_clear_text_needs_consent() {
    let camera = FakeCamera::start(Settings { auth: Auth::Basic, ..Settings::default() });
    let gateway = gateway();
    let id = found(&gateway, &camera)["id"].clone();
    let answer = login(&gateway, &id, PASSWORD);
    assert_eq!((answer.status, &answer.json()["problems"][0]["path"]), (422, &json!("allow_basic")));
    assert!(!camera.saw_password(), "it was not sent");
    let path = format!("/api/v1/discovery/{}/login", id.as_str().unwrap());
    let answer = post(&gateway, &path, &json!({"user": "admin", "password": PASSWORD, "allow_basic": true}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(camera.saw_password());
}

#[test]
fn no_answer_leads_to_another_machine() {
    // On an address of its own, as any other machine would be.
    let victim = TcpListener::bind((fake::next_address(), 0)).unwrap();
    victim.set_nonblocking(true).unwrap();
    let told = victim.local_addr().unwrap().to_string();
    let names = Settings {
        names_host: Some(told.clone()),
        announces_host: Some(told.clone()),
        ..Settings::default()
    };
    let redirects = Settings { redirects_to: Some(format!("http://{told}/")), ..Settings::default() };
    let rebinds = Settings { names_host: Some("localhost".to_owned()), ..Settings::default() };
    let metadata = Settings { names_host: Some("169.254.169.254".to_owned()), ..Settings::default() };
    let cameras = [names, redirects, rebinds, metadata].map(FakeCamera::start);
    let gateway = gateway();
    let answers: Vec<Response> = cameras
        .iter()
        .map(|camera| {
            let id = found(&gateway, camera)["id"].clone();
            login(&gateway, &id, PASSWORD)
        })
        .collect();
    for index in [2, 3] {
        assert_eq!(answers[index].status, 200, "{}", answers[index].text());
        assert!(answers[index].text().contains("in place of itself"), "{}", answers[index].text());
    }
    assert!(answers.iter().all(|answer| !answer.text().contains(PASSWORD)));
    assert_eq!(victim.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody came");
}

#[test]
fn answers_without_end_neither_fill_memory_nor_block_the_api() {
    let camera = FakeCamera::start(Settings { endless: true, ..Settings::default() });
    let gateway = gateway();
    let id = found(&gateway, &camera)["id"].clone();
    let before = gateway.held_bytes();
    let answer = login(&gateway, &id, PASSWORD);
    assert!(matches!(answer.status, 200 | 502), "{}", answer.text());
    assert!(gateway.held_bytes() < before + (32 << 20), "{before} -> {}", gateway.held_bytes());
    assert_eq!(gateway.get("/healthz").status, 200);
}

#[test]
fn credentials_go_only_where_they_were_meant_to_go() {
    let camera = FakeCamera::start(Settings::default());
    let gateway = gateway();
    let id = found(&gateway, &camera)["id"].clone();
    let path = |verb: &str| format!("/api/v1/discovery/{}/{verb}", id.as_str().unwrap());
    let elsewhere = json!({"user": "admin", "password": PASSWORD, "address": "127.0.0.1"});
    assert_eq!(post(&gateway, &path("login"), &elsewhere).status, 409);
    for verb in ["reboot", "clock"] {
        assert_eq!(post(&gateway, &path(verb), &json!({})).status, 409, "{verb} without a login");
    }
    assert_eq!(post(&gateway, "/api/v1/discovery/onvif-none/reboot", &json!({})).status, 404);
    assert_eq!(
        post(&gateway, "/api/v1/discovery/scan", &json!({"addresses": ["169.254.169.254"]})).status,
        422
    );
    assert_eq!(post(&gateway, "/api/v1/discovery/scan", &json!({})).status, 202);
    assert_eq!(camera.requests(), [""; 0]);
}

/// A JPEG, 640 pixels wide.
#[cfg(feature = "gst")]
fn jpeg() -> std::sync::Arc<Vec<u8>> {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("found-camera.jpg");
    let make =
        ["-nostdin", "-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=size=640x360", "-frames:v", "1"];
    common::process::Process::run("ffmpeg", &[&make[..], &[file.to_str().unwrap()]].concat(), secs(60));
    std::fs::read(file).unwrap().into()
}

#[test]
#[cfg(feature = "gst")]
fn a_found_camera_shows_its_picture_before_it_is_added() {
    let jpeg = jpeg();
    let settings =
        || Settings { picture: Some(jpeg.clone()), auth: Auth::DigestSha256, ..Settings::default() };
    let open = FakeCamera::start(Settings { open: true, ..settings() });
    let closed = FakeCamera::start(settings());
    let none = FakeCamera::start(Settings { open: true, rtsp_path: "/no", ..Settings::default() });
    // What it says of its picture's place leads nowhere else.
    let victim = TcpListener::bind((fake::next_address(), 0)).unwrap();
    victim.set_nonblocking(true).unwrap();
    let told = victim.local_addr().unwrap().to_string();
    let liar = FakeCamera::start(Settings { open: true, names_host: Some(told), ..settings() });
    let mut gateway = gateway();

    let id = found(&gateway, &open)["id"].clone();
    let shown = picture(&gateway, &id);
    assert_eq!((shown.status, shown.header("content-type")), (200, Some("image/jpeg")), "{}", shown.text());
    assert!(shown.body.starts_with(&[0xff, 0xd8]) && shown.body != **jpeg, "made anew by the gateway");
    assert_eq!(fieldgate_media::jpeg::shape(&shown.body), Some((480, 270)));
    assert!(shown.header("age").is_some() && shown.header("cache-control") == Some("no-store"));
    let asked = open.requests().len();
    assert_eq!(picture(&gateway, &id).status, 200);
    assert_eq!(open.requests().len(), asked, "it is kept for a while");
    assert!(!open.requests().iter().any(|request| request.contains("SETUP")), "{:?}", open.requests());

    // One that wants a login is told so, and shows its picture to whoever gives it; a wrong one is tried once.
    let id = found(&gateway, &closed)["id"].clone();
    let path = format!("/api/v1/discovery/{}/snapshot", id.as_str().unwrap());
    let refused = picture(&gateway, &id);
    assert_eq!((refused.status, closed.bad_logins()), (422, 0));
    assert_eq!(refused.json()["detail"], "the camera shows its picture only after a login");
    for (password, status) in [("wr0ng-c4n4ry", 422), ("wr0ng-c4n4ry", 429), (PASSWORD, 200)] {
        let login = json!({"user": "admin", "password": password});
        assert_eq!(post(&gateway, &path, &login).status, 202);
        let shown = picture(&gateway, &id);
        assert_eq!((shown.status, closed.bad_logins()), (status, 1), "{}", shown.text());
    }

    let id = found(&gateway, &none)["id"].clone();
    let shown = picture(&gateway, &id);
    assert_eq!(shown.status, 502, "{}", shown.text());
    let id = found(&gateway, &liar)["id"].clone();
    picture(&gateway, &id);
    assert_eq!(victim.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody came");

    // One that a mountpoint has is left alone.
    let (mut config, tag) = gateway.config();
    config["mountpoints"]["gate"] =
        json!({"source": {"kind": "rtsp", "url": format!("rtsp://{}/main", none.rtsp)}});
    assert!(matches!(gateway.put_config(&config, Some(&tag)).status, 200 | 202));
    let id = found(&gateway, &none)["id"].clone();
    let login = json!({"user": "admin", "password": PASSWORD});
    assert_eq!(
        post(&gateway, &format!("/api/v1/discovery/{}/snapshot", id.as_str().unwrap()), &login).status,
        202
    );
    let shown = picture(&gateway, &id);
    assert_eq!(shown.status, 409, "{}", shown.text());
    assert!(shown.text().contains("/api/v1/mountpoints/gate/snapshot.jpg"), "{}", shown.text());
    assert_eq!(gateway.get("/api/v1/discovery/onvif-none/snapshot").status, 404);
    let log = gateway.process().log();
    assert!(!log.contains(PASSWORD) && !log.contains("wr0ng-c4n4ry"), "{log}");
}
