//! RTP that ffmpeg and GStreamer send by UDP.

use crate::common::fixture::Fixture;
use crate::common::gateway::Gateway;
use crate::common::healthy::Player;
use crate::common::process::Process;
use crate::common::rtp_ports::port;
use crate::common::rtsp::nal_units;
use crate::common::scratch::Scratch;
use crate::common::wait::{self, secs};
use serde_json::json;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

/// ffmpeg sends a recording in real time, as it is.
fn ffmpeg_sends(fixture: &Fixture, port: u16, sdp: &Path) -> Process {
    let [video, audio] = [port, port + 2].map(|port| format!("rtp://127.0.0.1:{port}?pkt_size=1200"));
    let mut args = vec!["-nostdin", "-v", "error", "-re", "-i", fixture.file(), "-sdp_file"];
    args.extend([sdp.to_str().unwrap(), "-map", "0:v", "-c", "copy", "-f", "rtp", &video]);
    args.extend(["-map", "0:a", "-c", "copy", "-f", "rtp", &audio]);
    Process::start("ffmpeg", &args)
}

#[test]
fn rtp_by_udp_passes_unchanged_and_goes_on_with_another_sender() {
    let (fixture, scratch, port) = (Fixture::h264_aac(6), Scratch::new(), port());
    let file = scratch.join("sent.sdp");
    // What is to come is described by the sender, once.
    ffmpeg_sends(&fixture, port, &file).finish(secs(20));
    let sdp = std::fs::read_to_string(&file).unwrap();
    let sdp = sdp.split_once("v=0").map(|(_, rest)| format!("v=0{rest}")).unwrap();
    let gateway = Gateway::with_mountpoints(json!({
        "gate": { "source": { "kind": "rtp", "sdp": sdp, "listen": "127.0.0.1", "stall_timeout": "2s" } },
    }));
    let source = || gateway.status()["mountpoints"]["gate"]["source"].clone();
    wait::until_true("its ports to be open", secs(30), || {
        source()["described"].as_str().is_some_and(|text| text.contains(&format!("port {port} and")))
    });
    let player = Player::start(gateway.rtmp, "gate");
    let first = ffmpeg_sends(&fixture, port, &file);
    player.wait_for_more(300);
    assert_eq!(source()["refused_packets"], json!(null), "{:#}", source());
    drop(first);
    let got = player.got();
    let _second = ffmpeg_sends(&fixture, port, &file);
    wait::until_true("another sender's pictures", secs(30), || player.got() > got + 100);
    assert!(!player.is_closed(), "its player has kept its connection");
    drop(gateway);
    let (sent, got) = (fixture.take(), player.finish());
    let pictures: Vec<_> = got.video.frames.iter().map(nal_units).collect();
    let from = sent.video.frames.iter().position(|frame| nal_units(frame) == pictures[0]);
    let from = from.expect("the first picture is one that was sent");
    let count = (sent.video.frames.len() - from).min(100);
    assert!(count >= 60, "only {count} pictures from {from}");
    for (at, picture) in pictures.iter().take(count).enumerate() {
        assert!(*picture == nal_units(&sent.video.frames[from + at]), "picture {at} is as it was sent");
    }
    // How long a frame is shows with the second packet of several: those behind the first of the first packet have no
    // time, and are left out.
    let sounds = &got.audio.frames[1..];
    let from = sent.audio.frames.iter().position(|frame| frame.payload == sounds[0].payload);
    let from = from.expect("the first sound is one that was sent");
    for (at, frame) in sounds.iter().take(60).enumerate() {
        assert!(frame.payload == sent.audio.frames[from + at].payload, "sound {at} is as it was sent");
    }
    let times: Vec<i64> = got.video.frames.iter().map(|frame| frame.dts).collect();
    assert!(times.is_sorted(), "the timeline goes on with the second sender: {times:?}");
}

#[test]
fn rtp_of_strangers_is_refused_beside_a_multicast_group() {
    let (alone, port) = (port(), port());
    let group = Ipv4Addr::new(239, 255, 78, u8::try_from(std::process::id() % 250).unwrap());
    let video = |port: u16| json!([{ "media": "video", "port": port, "encoding": "H264" }]);
    let gateway = Gateway::with_mountpoints(json!({
        "alone": { "source": { "kind": "rtp", "streams": video(alone), "allow": ["127.0.0.7"] } },
        "group": { "source": {
            "kind": "rtp", "streams": video(port), "group": group, "interface": "lo", "allow": ["0.0.0.0/0"],
        } },
    }));
    let line = format!(
        "-q videotestsrc is-live=true ! video/x-raw,width=160,height=96,framerate=15/1 \
         ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=15 ! rtph264pay config-interval=-1 pt=96 \
         ! udpsink host={group} port={port} multicast-iface=lo"
    );
    let _sender = Process::start("gst-launch-1.0", &line.split_whitespace().collect::<Vec<_>>());
    let player = Player::start(gateway.rtmp, "group");
    player.wait_for_more(30);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut packet = vec![0x80, 96, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 0x65, 0x88];
    packet.resize(200, 7);
    wait::until_true("the stranger to be told of", secs(30), || {
        for _ in 0..20 {
            stranger.send_to(&packet, ("127.0.0.1", alone)).unwrap();
        }
        let status = gateway.status();
        let refused = &status["mountpoints"]["alone"]["source"]["refused_packets"];
        refused["packets"].as_u64() >= Some(20)
            && refused["last"] == "from 127.0.0.1, which is not in `allow`"
    });
    assert!(gateway.status()["mountpoints"]["alone"]["stream"].is_null(), "nothing came in");
}
