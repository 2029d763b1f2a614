//! RTMP over TLS.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::{End, Healthy, Player, Publisher};
use crate::common::process::Process;
use crate::common::scratch::Scratch;
use crate::common::tools::{Recorder, ffmpeg_publish};
use crate::common::wait::{self, secs};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;

/// A certificate for `localhost` and 127.0.0.1 with `name` in it, signed by an authority in `ca.pem` that is made when
/// first needed.
pub(super) fn make_certificate(folder: &Path, name: &str) {
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let run = |args: &[&str]| Process::run("openssl", args, secs(30));
    let (ca, ca_key) = (file("ca.pem"), file("ca-key.pem"));
    if !Path::new(&ca).exists() {
        let subject =
            ["req", "-x509", "-subj", "/CN=test authority", "-days", "30", "-keyout", &ca_key, "-out", &ca];
        run(&[&subject[..], &new_key].concat());
    }
    let (request, key, cert, names) = (file("request"), file("key.new"), file("cert.new"), file("names"));
    std::fs::write(&names, "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    let subject = format!("/CN={name}");
    run(&[&["req", "-new", "-subj", &subject, "-keyout", &key, "-out", &request][..], &new_key].concat());
    run(&[
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "30",
        "-extfile",
        &names,
        "-out",
        &cert,
    ]);
    std::fs::rename(key, folder.join("key.pem")).unwrap();
    std::fs::rename(cert, folder.join("cert.pem")).unwrap();
}

fn start(scratch: &Scratch, mountpoints: serde_json::Value) -> Gateway {
    Gateway::start(json!({
        "rtmp": { "listen": ["127.0.0.1:0"],
                  "tls": { "listen": ["127.0.0.1:0"], "cert": scratch.join("cert.pem"), "key": scratch.join("key.pem") } },
        "mountpoints": mountpoints,
    }))
}

/// The name in the certificate that the server shows.
pub(super) fn shown_name(address: SocketAddr) -> String {
    let mut client = Process::start("openssl", &["s_client", "-connect", &address.to_string()]);
    client.finish(secs(10));
    client.output().lines().find(|line| line.starts_with("subject=")).unwrap_or_default().to_owned()
}

#[test]
fn ffmpeg_publishes_and_plays_over_tls() {
    let scratch = Scratch::new();
    make_certificate(scratch.path(), "first");
    let gateway = start(&scratch, json!({ "yard": { "source": { "kind": "publish" }, "grace": "0s" } }));
    let fixture = Fixture::h264_aac(6);
    let url = format!("rtmps://{}/live/yard", gateway.rtmps.expect("listens for TLS"));
    let safe = Recorder::ffmpeg(&url, scratch.join("rtmps.flv"));
    let plain = Recorder::ffmpeg(&gateway.url("yard"), scratch.join("rtmp.flv"));
    gateway.wait_for_players("yard", 2);
    assert!(ffmpeg_publish(&fixture, &url).end_within(secs(30)).success());
    fixture.take().assert_same(&safe.finish(), "ffmpeg over TLS");
    fixture.take().assert_same(&plain.finish(), "ffmpeg without TLS");
}

#[test]
fn new_certificate_is_shown_without_a_restart() {
    let scratch = Scratch::new();
    make_certificate(scratch.path(), "first");
    let gateway = start(&scratch, json!({ "yard": { "source": { "kind": "publish" } } }));
    let address = gateway.rtmps.expect("listens for TLS");
    let healthy = Healthy::start(gateway.rtmp, "yard");
    assert!(shown_name(address).contains("first"), "{}", shown_name(address));
    make_certificate(scratch.path(), "second");
    wait::until_true("the new certificate", secs(90), || shown_name(address).contains("second"));
    // Files that do not fit leave what works.
    std::fs::write(scratch.join("cert.pem"), "nonsense").unwrap();
    healthy.wait_for_more(300);
    assert!(shown_name(address).contains("second"), "the last good one stays");
    healthy.assert_unharmed();
}

#[test]
fn push_and_pull_over_tls_check_the_certificate() {
    let scratch = Scratch::new();
    make_certificate(scratch.path(), "first");
    let far = start(
        &scratch,
        json!({
            "in": { "source": { "kind": "publish" } },
            "other": { "source": { "kind": "publish" } },
        }),
    );
    let port = far.rtmps.expect("listens for TLS").port();
    let ca = scratch.join("ca.pem");
    let near = Gateway::with_mountpoints(json!({
        "yard": { "source": { "kind": "publish" }, "push": [
            { "id": "trusted", "url": format!("rtmps://localhost:{port}/live/in"), "ca": ca },
            { "id": "untrusted", "url": format!("rtmps://localhost:{port}/live/other") },
        ] },
        "back": { "source": { "kind": "pull", "url": format!("rtmps://localhost:{port}/live/in"), "ca": ca } },
    }));
    let player = Player::start(near.rtmp, "back");
    let publisher = Publisher::start(near.rtmp, "yard", &Fixture::h264_aac(6), 0, End::Polite);
    player.wait_for_more(100);
    let status = near.status();
    let pushes = &status["mountpoints"]["yard"]["pushes"];
    assert_eq!(pushes["trusted"]["state"], "running", "{pushes:#}");
    assert_ne!(pushes["untrusted"]["state"], "running", "{pushes:#}");
    assert!(
        pushes["untrusted"]["cause"].as_str().is_some_and(|cause| cause.contains("certificate")),
        "{pushes:#}"
    );
    publisher.finish().assert_joined_late(&player.finish(), "out and back over TLS");
}

#[test]
fn plain_bytes_at_the_tls_port_harm_nobody() {
    let scratch = Scratch::new();
    make_certificate(scratch.path(), "first");
    let mut gateway = start(&scratch, json!({ "yard": { "source": { "kind": "publish" } } }));
    let address = gateway.rtmps.expect("listens for TLS");
    let healthy = Healthy::start(gateway.rtmp, "yard");
    let mut open = Vec::new();
    for round in 0..40_u8 {
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        drop(std::io::Write::write_all(&mut socket, &[round; 600]));
        open.push(socket);
    }
    healthy.wait_for_more(60);
    gateway.assert_running();
    healthy.assert_unharmed();
}
