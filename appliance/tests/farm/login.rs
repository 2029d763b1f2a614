//! Cameras that ask who is there.

use crate::camera::Camera;
use crate::common::gateway::Gateway;
use crate::common::wait::{self, secs};
use crate::scene::{SOON, Scene, wait_for_more};
use crate::script::{Login, Script};
use serde_json::json;

fn locked(login: Login) -> Camera {
    Camera::start(Script { login: Some(login), ..Script::good() })
}

#[test]
fn the_right_password_is_taken_in_each_way_of_asking() {
    for (login, transport) in [
        (Login::Basic, "tcp"),
        (Login::DigestMd5, "tcp"),
        (Login::DigestMd5, "udp"),
        (Login::DigestSha256, "tcp"),
    ] {
        let camera = locked(login);
        let url = camera.url_with("installer:secret");
        let scene = Scene::at(camera, &url, json!({ "transport": transport }));
        wait_for_more(&scene.player, 40, SOON);
        assert_eq!(scene.camera.seen(|seen| &seen.refused_logins), 0, "{login:?} {transport}");
    }
}

#[test]
fn a_wrong_password_is_shown_once_and_the_status_says_what_to_do() {
    for (login, transport) in [(Login::Basic, "tcp"), (Login::DigestMd5, "udp"), (Login::DigestSha256, "tcp")]
    {
        let camera = locked(login);
        let url = camera.url_with("installer:wrong");
        let scene = Scene::at(camera, &url, json!({ "transport": transport }));
        scene.wait_for_cause("user name or password refused; next try at ", SOON);
        assert!(scene.cause().contains("correct it"), "{}", scene.cause());
        // Long enough for any backoff that would go on.
        std::thread::sleep(secs(8));
        assert_eq!(scene.camera.seen(|seen| &seen.refused_logins), 1, "{login:?} {transport}");
        // A corrected one is tried at once.
        let (mut config, tag) = scene.gateway.config();
        config["mountpoints"]["gate"]["source"]["url"] = json!(scene.camera.url_with("installer:secret"));
        let answer = scene.gateway.put_config(&config, Some(&tag));
        assert!(answer.status == 200 || answer.status == 202, "{}", answer.text());
        wait_for_more(&scene.player, 40, SOON);
    }
}

#[test]
fn a_camera_that_asks_for_a_login_that_nobody_set_says_so() {
    let camera = locked(Login::Basic);
    let url = camera.url();
    let scene = Scene::at(camera, &url, json!({}));
    scene.wait_for_cause("asks for a user name and password, and none is set", SOON);
    assert_eq!(scene.camera.seen(|seen| &seen.refused_logins), 0);
}

#[test]
fn a_password_that_stops_working_is_not_tried_in_a_loop() {
    let camera = locked(Login::Basic);
    let url = camera.url_with("installer:secret");
    let scene = Scene::at(camera, &url, json!({}));
    wait_for_more(&scene.player, 40, SOON);
    // Another was set on the camera's own page, which ends its sessions.
    scene.camera.change(|script| script.password = "another");
    scene.camera.power_off();
    scene.camera.power_on();
    scene.wait_for_cause("user name or password refused; next try at ", SOON);
    std::thread::sleep(secs(5));
    assert_eq!(scene.camera.seen(|seen| &seen.refused_logins), 1);
}

#[test]
fn two_streams_of_one_camera_share_its_refusal() {
    let camera = locked(Login::Basic);
    let url = camera.url_with("installer:wrong");
    let source = || json!({ "source": { "kind": "rtsp", "url": url } });
    let gateway = Gateway::with_mountpoints(json!({ "main": source(), "sub": source() }));
    for name in ["main", "sub"] {
        wait::until_true(&format!("{name} to say why it waits"), SOON, || {
            let status = gateway.status();
            let cause =
                status["mountpoints"][name]["source"]["activity"]["cause"].as_str().unwrap_or_default();
            cause.contains("user name or password refused")
        });
    }
    assert_eq!(camera.seen(|seen| &seen.refused_logins), 1);
}
