//! The installers' page in a real browser, against the real program: two fake cameras on loopback, an RTMP server as the
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

use common::gateway::{Gateway, PROGRAM};
use common::nginx::Nginx;
use common::process::Process;
use common::scratch::Scratch;
use common::wait::secs;
use discovery::PASSWORD;
use discovery::fake::{Auth, FakeCamera, Settings, next_address};
use farm::camera::Camera;
use farm::film::Film;
use farm::script::{Login, Script};
use serde_json::json;
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

/// The whole way of an installer, on a screen of this kind. Pictures of it are kept beside the program.
fn walk(screen: &str, cameras: &[(FakeCamera, Camera); 2], upstream: &Nginx) {
    let scratch = Arc::new(Scratch::new());
    let config = json!({"discovery": {"interfaces": ["lo"], "interval": "10s"}});
    let mut gateway = Gateway::start_in(scratch.clone(), config, |_| {});
    let state = scratch.join("state");
    let code = Process::run(PROGRAM, &["claim-code", "--state", state.to_str().unwrap()], secs(20));
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page").join(screen);
    std::fs::create_dir_all(&pictures).unwrap();
    let wish = json!({
        "screen": screen,
        "origin": format!("http://{}", gateway.admin),
        "code": code.trim(),
        "cameras": cameras.iter().map(|(found, _)| found.address.to_string()).collect::<Vec<_>>(),
        "user": "installer",
        "password": PASSWORD,
        "upstream": upstream.url(&format!("gate-{screen}")),
        "pictures": pictures,
    });
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/web/tests/walk.js");
    let mut browser = Process::start("node", &[script, &wish.to_string()]);
    let status = browser.end_within(secs(180));
    println!("{}", browser.log());
    assert!(status.success(), "the walk ended with {status}; its pictures are in {}", pictures.display());
    gateway.assert_running();
    assert!(upstream.is_publishing(&format!("gate-{screen}")), "the camera is sent on");
    let log = gateway.process().log();
    assert!(!log.contains(PASSWORD), "the camera's password shows in the log: {log}");
}

#[test]
fn an_installer_sets_the_gateway_up_from_a_phone_and_from_a_desk() {
    // Both walks see the same network.
    let cameras = [camera("Gate%20cam", Film::long("testsrc2")), camera("Yard%20cam", Film::long("testsrc"))];
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
