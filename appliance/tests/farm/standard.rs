//! Good cameras, played by gst-rtsp-server: what the scripted ones do not send.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::Player;
use crate::common::process::Process;
use crate::common::rtsp::RtspServer;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use crate::scene::wait_for_more;
use serde_json::{Value, json};

const PICTURE: &str =
    "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=15/1";
const TONE: &str = "audiotestsrc is-live=true";

fn camera(pictures: &str, sound: &str) -> RtspServer {
    RtspServer::with(&["--launch", &format!("( {PICTURE} ! {pictures} {TONE} ! {sound} )")])
}

fn source(url: &str) -> Value {
    json!({ "source": { "kind": "rtsp", "url": url }, "grace": "60s" })
}

/// Codecs of the tracks that are live.
fn codecs(gateway: &Gateway, name: &str) -> Vec<String> {
    let status = gateway.status();
    let tracks = status["mountpoints"][name]["stream"]["tracks"].as_array().cloned().unwrap_or_default();
    tracks.iter().filter_map(|track| Some(track["codec"].as_str()?.to_lowercase())).collect()
}

#[test]
fn mjpeg_opus_and_pcm_reach_players_and_mjpeg_is_encoded_after_one_look() {
    let mjpeg = camera(
        "jpegenc ! rtpjpegpay name=pay0 pt=26",
        "audioconvert ! audio/x-raw,format=S16BE,rate=44100,channels=1 ! rtpL16pay name=pay1",
    );
    let h264 = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96";
    let opus = camera(h264, "opusenc ! rtpopuspay name=pay1 pt=97");
    let mut gateway = Gateway::with_mountpoints(json!({
        "mjpeg": source(&mjpeg.url()),
        "opus": source(&opus.url()),
    }));
    let players = ["mjpeg", "opus"].map(|name| Player::start(gateway.rtmp, name));
    for player in &players {
        wait_for_more(player, 120, secs(90));
    }
    for name in ["mjpeg", "opus"] {
        let (codecs, status) = (codecs(&gateway, name), gateway.status());
        assert!(
            codecs.contains(&"h264".to_owned()) && codecs.contains(&"aac".to_owned()),
            "{name}: {status:#}"
        );
    }
    let source = &gateway.status()["mountpoints"]["mjpeg"]["source"];
    assert!(source["described"].as_str().unwrap_or_default().contains("JPEG"), "{source:#}");
    assert_eq!(
        source["activity"]["starts"], 2,
        "one session to see what it is, one that encodes: {source:#}"
    );
    let log = gateway.process().log();
    assert!(log.contains("they have to be encoded"), "{log}");
    drop(gateway);
    for (player, name) in players.into_iter().zip(["mjpeg", "opus"]) {
        let take = player.finish();
        let (pictures, sounds) = (take.video.frames.len(), take.audio.frames.len());
        assert!(pictures > 30 && sounds > 30, "{name}: {pictures} pictures, {sounds} sounds");
    }
}

#[test]
fn a_camera_behind_tls_with_a_certificate_of_its_own_is_taken_and_another_refused() {
    let scratch = Scratch::new();
    let file = |name: &str| scratch.join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let is_no_authority = "basicConstraints=critical,CA:FALSE";
    let subject =
        ["req", "-x509", "-subj", "/CN=camera", "-days", "30", "-addext", names, "-addext", is_no_authority];
    Process::run("openssl", &[&subject[..], &new_key, &["-keyout", &key, "-out", &cert]].concat(), secs(30));
    let recording = Fixture::h264_aac(30).as_matroska();
    let login = ["--user", "installer", "--password", "secret", "--tls", &cert, &key];
    let server =
        RtspServer::with(&[&login[..], &["--file", recording.to_str().unwrap(), "--audio"]].concat());
    let url = server.url().replace("rtsp://", "rtsps://installer:secret@");
    let mut known = source(&url);
    known["source"]["ca"] = json!(cert);
    let gateway = Gateway::with_mountpoints(json!({ "known": known, "unknown": source(&url) }));
    let player = Player::start(gateway.rtmp, "known");
    wait_for_more(&player, 150, secs(60));
    wait::until_true("the other to say why not", secs(30), || {
        let status = gateway.status();
        let cause =
            status["mountpoints"]["unknown"]["source"]["activity"]["cause"].as_str().unwrap_or_default();
        cause.to_lowercase().contains("certificate")
    });
    drop(gateway);
    let take = player.finish();
    assert!(take.video.frames.len() > 50 && take.audio.frames.len() > 50);
    let whole = Fixture::h264_aac(30).take();
    let sent: Vec<_> = whole.video.frames.iter().map(crate::common::rtsp::nal_units).collect();
    let got: Vec<_> = take.video.frames.iter().map(crate::common::rtsp::nal_units).collect();
    let first = sent.iter().position(|sent| *sent == got[0]).expect("the first picture is one that was sent");
    assert!(got.iter().zip(&sent[first..]).all(|(got, sent)| got == sent), "NAL units pass unchanged");
}
