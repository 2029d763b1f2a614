//! The installers' page in a real browser, against the real program: three fake cameras on loopback, an RTMP server as the
//! upstream. What is done there is in `web/tests/walk.js`.
#![cfg(feature = "gst")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![allow(clippy::disallowed_methods, reason = "a real browser runs in real time")]
#![allow(clippy::print_stdout, clippy::missing_panics_doc, reason = "tests tell what they saw")]
#![allow(dead_code, reason = "shared with other whole-program tests, which use the rest")]

#[path = "../common/mod.rs"]
mod common;

/// Cameras that are found and asked.
#[path = "../discovery"]
mod discovery {
    pub(crate) mod fake;

    pub(crate) const PASSWORD: &str = "c4n4ry-Pa55";
}

/// Cameras that send pictures.
#[path = "../farm"]
mod farm {
    pub(crate) mod camera;
    pub(crate) mod film;
    pub(crate) mod request;
    pub(crate) mod rtp;
    pub(crate) mod script;
}

use common::gateway::{Gateway, program};
use common::nginx::Nginx;
use common::process::Process;
use common::scratch::Scratch;
use common::wait::secs;
use discovery::PASSWORD;
use discovery::fake::{Auth, FakeCamera, Settings, next_address};
use farm::camera::Camera;
use farm::film::Film;
use farm::script::{Login, Script};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

/// A camera that is found, wants a login, and then really sends.
fn camera(name: &'static str, film: Arc<Film>) -> (FakeCamera, Camera) {
    let address = next_address();
    let script = Script { login: Some(Login::DigestSha256), password: PASSWORD, ..Script::of(film) };
    let stream = Camera::start_at(address, script);
    let settings = Settings {
        auth: Auth::DigestSha256,
        user: "installer",
        name,
        address: Some(address),
        streams_port: Some(stream.address().port()),
        ..Settings::default()
    };
    (FakeCamera::start(settings), stream)
}

/// A camera that shows its pictures to whoever asks.
fn open_camera(name: &'static str, film: Arc<Film>) -> (FakeCamera, Camera) {
    let address = next_address();
    let stream = Camera::start_at(address, Script::of(film));
    let streams_port = Some(stream.address().port());
    let address = Some(address);
    let settings = Settings { open: true, name, address, streams_port, ..Settings::default() };
    (FakeCamera::start(settings), stream)
}

/// Stands for root's side of network and firmware: takes every wish. What it would do is tested with a real networkd and
/// a real RAUC.
fn willing_helper(socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let mut firmware = json!({
        "compatible": "fieldgate-test", "version": "1.0", "booted": "A", "primary": "A", "operation": "idle", "percent": 0,
        "step": "", "last_error": "",
        "slots": [{"name": "A", "booted": true, "state": "good"}, {"name": "B", "booted": false, "state": "good"}],
    });
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let wish: Value = serde_json::from_str(&line).unwrap();
            let said = match wish["verb"].as_str().unwrap() {
                "show_firmware" => json!({"firmware": firmware}),
                "inspect_bundle" => json!({"bundle": {"compatible": "fieldgate-test", "version": "2.0"}}),
                "install_bundle" => {
                    firmware["percent"] = json!(100);
                    json!({"done": true})
                }
                "set_network" | "set_time" | "restart_machine" => json!({"done": true}),
                other => panic!("{other}"),
            };
            (&stream).write_all(format!("{said}\n").as_bytes()).unwrap();
        }
    });
}

/// A fleet manager's key, a change signed with it, and the links in its QR codes.
fn signed_change(scratch: &Scratch, origin: &str) -> (String, String, Vec<String>) {
    let (key, patch, file) =
        (scratch.join("fleet.pem"), scratch.join("patch.json"), scratch.join("change.fgb"));
    let [key, patch, file] = [&key, &patch, &file].map(|path| path.to_str().unwrap());
    std::fs::write(patch, r#"{"discovery": {"interval": "11s"}}"#).unwrap();
    let bundle = |args: &[&str]| Process::run(&program(), &[&["bundle"], args].concat(), secs(20));
    let public = bundle(&["keygen", key]);
    // Long enough for two codes.
    let (note, group) = ("n".repeat(256), "g".repeat(64));
    let who = ["--key", key, "--name", "fleet-1", "--number", "1", "--group", "all", "--group", &group];
    let text = bundle(&[&["sign", "--patch", patch, "--note", &note], &who[..]].concat());
    std::fs::write(file, &text).unwrap();
    let codes = bundle(&["qr", file, "--at", origin, "--text"]);
    (public.trim().to_owned(), text.trim().to_owned(), codes.lines().map(str::to_owned).collect())
}

/// The whole way of an installer, on a screen of this kind. Pictures of it are kept beside the program.
fn walk(screen: &str, cameras: &[(FakeCamera, Camera); 3], upstream: &Nginx) {
    let scratch = Arc::new(Scratch::new());
    let config = json!({
        "discovery": {"interfaces": ["lo"], "interval": "10s"},
        // One that no machine has, so that it is on the page everywhere.
        "network": {"links": {"port1": {}}},
    });
    willing_helper(&scratch.join("helper.sock"));
    let mut gateway = Gateway::start_in(scratch.clone(), config, |command| {
        command.args(["--confirm-within", "20s", "--system-helper"]).arg(scratch.join("helper.sock"));
    });
    let state = scratch.join("state");
    let code = Process::run(&program(), &["claim-code", "--state", state.to_str().unwrap()], secs(20));
    let origin = format!("http://{}", gateway.admin);
    let (fleet_key, bundle, codes) = signed_change(&scratch, &origin);
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page").join(screen);
    std::fs::create_dir_all(&pictures).unwrap();
    let wish = json!({
        "screen": screen,
        "origin": origin,
        "fleetKey": fleet_key,
        "bundle": bundle,
        "codes": codes,
        "code": code.trim(),
        "cameras": cameras.iter().map(|(found, _)| found.address.to_string()).collect::<Vec<_>>(),
        "user": "installer",
        "password": PASSWORD,
        "upstream": upstream.url(&format!("gate-{screen}")),
        "pictures": pictures,
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/web/tests/walk.js");
    let mut browser = Process::start("node", &[script, &wish.to_string()]);
    let status = browser.end_within(secs(300));
    println!("{}", browser.log());
    assert!(status.success(), "the walk ended with {status}; its pictures are in {}", pictures.display());
    gateway.assert_running();
    assert!(upstream.is_publishing(&format!("gate-{screen}")), "the camera is sent on");
    let notices = gateway.status()["notices"].to_string();
    assert!(!notices.contains("\"unclaimed\""), "it was claimed on the page: {notices}");
    let certificate = pictures.join("certificate.json");
    let key = gateway.get("/api/v1/device-key").json()["public_key"].as_str().unwrap().to_owned();
    let checked =
        Process::run(&program(), &["verify", certificate.to_str().unwrap(), "--key", &key], secs(20));
    assert!(checked.starts_with(&format!("signed by {key}\n")), "{checked}");
    let log = gateway.process().log();
    assert!(!log.contains(PASSWORD), "the camera's password shows in the log: {log}");
}

#[test]
fn an_installer_sets_the_gateway_up_from_a_phone_and_from_a_desk() {
    // Both walks see the same network.
    let cameras = [
        camera("Gate%20cam", Film::long("testsrc2")),
        camera("Yard%20cam", Film::long("testsrc")),
        open_camera("Open%20cam", Film::long("testsrc2")),
    ];
    let upstream = Nginx::start();
    std::thread::scope(|scope| {
        for screen in ["phone", "desk"] {
            let (cameras, upstream) = (&cameras, &upstream);
            scope.spawn(move || walk(screen, cameras, upstream));
        }
    });
    for (found, _) in &cameras {
        assert_eq!(found.bad_logins(), 0, "{}", found.address);
    }
}
