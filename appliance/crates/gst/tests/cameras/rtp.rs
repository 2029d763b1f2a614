//! RTP that comes by UDP.

use crate::common::{Taken, run, spec};
use crate::encoded;
use crate::rtp_ports::port;
use fieldgate_media::{ClockSource, Codec, TrackId, TrackKind};
use fieldgate_model::config::{Rtp, RtpStream};
use fieldgate_model::job::{
    AudioEncode, AudioTreatment, EncoderWish, RtpCamera, Sandbox, SoundCodec, VideoTreatment, Work,
};
use fieldgate_model::masks::Masks;
use fieldgate_worker::WorkerError;
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

struct Sender(Child);

impl Sender {
    /// Sends a test picture and a tone in these codecs until it is dropped.
    fn start(to: &str, port: u16, video: &[&str], audio: &[&str]) -> Sender {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-v", "error", "-re"]);
        ffmpeg.args(["-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25"]);
        ffmpeg.args(["-re", "-f", "lavfi", "-i", "sine=sample_rate=8000"]);
        if !video.is_empty() {
            ffmpeg.args(["-map", "0:v", "-g", "25"]).args(video);
            ffmpeg.args(["-f", "rtp", &format!("rtp://{to}:{port}?pkt_size=1200&localaddr=127.0.0.1")]);
        }
        if !audio.is_empty() {
            ffmpeg.args(["-map", "1:a"]).args(audio);
            ffmpeg.args(["-f", "rtp", &format!("rtp://{to}:{}?localaddr=127.0.0.1", port + 2)]);
        }
        Sender(ffmpeg.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const H264: [&str; 8] = ["-c:v", "libx264", "-bf", "0", "-tune", "zerolatency", "-payload_type", "96"];
const PCMA: [&str; 2] = ["-c:a", "pcm_alaw"];

fn stream(media: &str, port: u16, payload_type: u8, encoding: &str) -> RtpStream {
    let json = json!({"media": media, "port": port, "payload_type": payload_type, "encoding": encoding});
    serde_json::from_value(json).unwrap()
}

/// A receiver of `H264` and `PCMA`.
fn camera(port: u16) -> RtpCamera {
    RtpCamera {
        streams: vec![stream("video", port, 96, "H264"), stream("audio", port + 2, 8, "PCMA")],
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        group: None,
        interface: 0,
        allow: Vec::new(),
        latency_ms: 100,
        video: VideoTreatment::Pass(Masks::none().unmasked().unwrap()),
        audio: AudioTreatment::Pass,
    }
}

fn take(
    camera: RtpCamera,
    patience: u64,
    enough: impl Fn(&Taken) -> bool + 'static,
) -> (Taken, Result<(), WorkerError>) {
    let mut spec = spec(Work::Rtp(camera), Sandbox { udp: true, ..Sandbox::default() });
    spec.deadlines.first_unit = Some(Duration::from_secs(patience));
    run(spec, enough)
}

fn both(taken: &Taken) -> bool {
    taken.of(TrackId::VIDEO).count() >= 50 && taken.of(TrackId::AUDIO).count() >= 50
}

pub(crate) fn picture_and_sound_come_by_udp() {
    let port = port();
    let _sender = Sender::start("127.0.0.1", port, &H264, &PCMA);
    let (taken, ended) = take(camera(port), 20, both);
    assert!(both(&taken), "{ended:?} {:?}", taken.report);
    assert_eq!(taken.tracks.last().unwrap().iter().count(), 2);
    assert_eq!(taken.report.status.refused_packets, None);
    let times: Vec<i64> = taken.of(TrackId::VIDEO).map(|(head, _)| head.source_dts.as_millis()).collect();
    // Arrival corrects the sender's clock, which a busy machine delays; on the whole it is a picture each 40 ms.
    assert!(times.is_sorted(), "{times:?}");
    let mean = (times[times.len() - 1] - times[0]) / (times.len() as i64 - 1);
    assert!((36..=44).contains(&mean), "{mean} ms from one to the next: {times:?}");
    // ffmpeg's sender reports tell its wall clock.
    let mut told = taken.of(TrackId::VIDEO).filter_map(|(head, _)| head.captured);
    assert!(told.any(|captured| captured.by == ClockSource::Camera), "RTCP");
}

pub(crate) fn what_is_sent_by_strangers_is_dropped() {
    let port = port();
    let mut camera = camera(port);
    camera.listen = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    camera.allow = vec!["127.0.0.7".parse().unwrap()];
    let _sender = Sender::start("127.0.0.1", port, &H264, &PCMA);
    let refused = |taken: &Taken| taken.report.status.refused_packets.clone().unwrap_or_default();
    let (taken, _) = take(camera, 30, move |_| false);
    assert_eq!(taken.units.len(), 0);
    let refused = refused(&taken);
    assert!(refused.packets > 100, "{refused:?}");
    assert_eq!(refused.last, "from 127.0.0.1, which is not in `allow`");
    assert!(taken.report.health.unusable_units >= refused.packets / 2);
}

/// Packets of a stranger, and of somebody who may send but makes no sense.
fn pester(port: u16, stop: &AtomicBool) {
    let [stranger, known] = ["127.0.0.9:0", "127.0.0.1:0"].map(|from| UdpSocket::bind(from).unwrap());
    let mut random = 0x1234_5678_u32;
    let mut next = move || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) as u8
    };
    while !stop.load(Ordering::Relaxed) {
        for to in port..port + 4 {
            // RTP as it should be, but of other senders; some cut short; and anything at all.
            let mut packet: Vec<u8> = (0..usize::from(next()) * 4).map(|_| next()).collect();
            if let [first, second, ..] = packet.as_mut_slice() {
                match next() % 4 {
                    0 => (*first, *second) = (0x80, if to == port { 96 } else { 8 }),
                    1 => (*first, *second) = (0x8f, 96),
                    2 => (*first, *second) = (0x81, 200 + next() % 5),
                    _ => {}
                }
            }
            let _ = stranger.send_to(&packet, ("127.0.0.1", to));
            let _ = known.send_to(&packet, ("127.0.0.1", to));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn hostile_packets_do_no_harm() {
    let port = port();
    let stop = AtomicBool::new(false);
    let _sender = Sender::start("127.0.0.1", port, &H264, &PCMA);
    std::thread::scope(|scope| {
        // The true sender is heard first; who comes before it may keep it out for as long as he sends.
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(3));
            pester(port, &stop);
        });
        let enough = |taken: &Taken| {
            let refused = taken.report.status.refused_packets.as_ref();
            refused.is_some_and(|refused| refused.packets > 1_000) && taken.of(TrackId::VIDEO).count() > 150
        };
        let (taken, ended) = take(camera(port), 20, enough);
        stop.store(true, Ordering::Relaxed);
        assert!(enough(&taken), "{ended:?} {:?}", taken.report);
        let times: Vec<i64> = taken.of(TrackId::VIDEO).map(|(head, _)| head.source_dts.as_millis()).collect();
        assert!(times.windows(2).all(|pair| (0..1_000).contains(&(pair[1] - pair[0]))), "{times:?}");
    });
    garbage_in_good_packets_breaks_no_worker();
}

/// Who is allowed may still send what is no picture. The worker waits for something better.
fn garbage_in_good_packets_breaks_no_worker() {
    let kinds = [("video", "H264"), ("video", "H265"), ("video", "JPEG"), ("audio", "MPEG4-GENERIC")];
    std::thread::scope(|scope| {
        for (media, encoding) in kinds {
            scope.spawn(move || {
                let port = port();
                let mut camera = camera(port);
                camera.streams = vec![stream(media, port, 96, encoding)];
                let aac =
                    [("mode", "AAC-hbr"), ("config", "1208"), ("sizelength", "13"), ("indexlength", "3")];
                let aac = aac.map(|(name, value)| (name.to_owned(), value.to_owned()));
                camera.streams[0].parameters = aac.into();
                camera.video = encoded(EncoderWish::default());
                let stop = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    scope.spawn(|| one_senders_garbage(port, &stop));
                    let (_, ended) = take(camera, 5, |_| false);
                    stop.store(true, Ordering::Relaxed);
                    // What it made of it may come faster than the gateway bears; but it does not crash.
                    let survived = matches!(
                        ended,
                        Ok(())
                            | Err(WorkerError::NoFirstUnit { .. }
                                | WorkerError::Failed { .. }
                                | WorkerError::Link(_))
                    );
                    assert!(survived, "{encoding}: {ended:?}");
                });
            });
        }
    });
}

fn one_senders_garbage(port: u16, stop: &AtomicBool) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = u32::from(port);
    let mut next = move || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) as u8
    };
    let mut sequence = 0_u16;
    while !stop.load(Ordering::Relaxed) {
        sequence = sequence.wrapping_add(1);
        let mut packet = vec![0x80, 96 | (next() & 0x80)];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&(u32::from(sequence / 4) * 3_600).to_be_bytes());
        packet.extend_from_slice(&[1, 2, 3, 4]);
        packet.extend((0..usize::from(next())).map(|_| next()));
        let _ = socket.send_to(&packet, ("127.0.0.1", port));
        std::thread::sleep(Duration::from_micros(500));
    }
}

pub(crate) fn a_multicast_group_is_joined() {
    let port = port();
    let group = Ipv4Addr::new(239, 255, 77, u8::try_from(std::process::id() % 250).unwrap());
    let mut camera = camera(port);
    let interface = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
    (camera.group, camera.interface) = (Some(group.into()), interface.trim().parse().unwrap());
    camera.allow = vec!["0.0.0.0/0".parse().unwrap()];
    // Through the loopback interface, whatever else there is.
    let _sender = Sender::start(&group.to_string(), port, &H264, &PCMA);
    let (taken, ended) = take(camera, 20, both);
    assert!(both(&taken), "{ended:?} {:?}", taken.report);
}

/// A sender, and a receiver that is told what ffmpeg says of it.
fn described(port: u16, video: &[&str], audio: &[&str]) -> (Sender, RtpCamera) {
    let file = std::env::temp_dir().join(format!("fieldgate-rtp-{}-{port}.sdp", std::process::id()));
    let sdp = ["-sdp_file", file.to_str().unwrap()];
    let last: Vec<&str> = audio.iter().chain(&sdp).copied().collect();
    let sender = Sender::start("127.0.0.1", port, video, &last);
    let text = (0..200).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        std::fs::read_to_string(&file).ok().filter(|text| text.contains("m=") && text.ends_with('\n'))
    });
    let _ = std::fs::remove_file(&file);
    // ffmpeg writes a line of its own before it.
    let text = text.expect("ffmpeg tells what it sends");
    let text = text.split_once("v=0").map(|(_, rest)| format!("v=0{rest}")).unwrap();
    let rtp: Rtp = serde_json::from_value(json!({ "sdp": text })).unwrap();
    (sender, RtpCamera { streams: rtp.session().unwrap().streams, ..camera(port) })
}

pub(crate) fn every_encoding_of_rtsp_is_taken() {
    let hevc: &[&str] =
        &["-c:v", "libx265", "-x265-params", "bframes=0:log-level=none:pools=1", "-preset", "ultrafast"];
    let mjpeg: &[&str] = &["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-huffman", "default"];
    let (aac, opus): (&[&str], &[&str]) =
        (&["-c:a", "aac", "-ar", "16000"], &["-c:a", "libopus", "-ar", "48000", "-ac", "2"]);
    let aac_sound = AudioTreatment::Encode(AudioEncode {
        codec: SoundCodec::Aac,
        bitrate: 64_000,
        gain_db: 0.0,
        mute: false,
    });
    let cases = [
        (hevc, aac, false, Some(Codec::Hevc), Some(Codec::Aac)),
        (mjpeg, opus, true, Some(Codec::H264), Some(Codec::Opus)),
        (&[], &["-c:a", "pcm_mulaw"], false, None, Some(Codec::PcmU)),
        (&[], &["-c:a", "pcm_s16be", "-ar", "44100", "-ac", "2"], true, None, Some(Codec::Aac)),
    ];
    for (video, audio, encode, pictures, sound) in cases {
        let port = port();
        let (_sender, mut camera) = described(port, video, audio);
        if encode && pictures.is_some() {
            camera.video = encoded(EncoderWish::default());
        } else if encode {
            camera.audio = aac_sound.clone();
        }
        let (taken, ended) = take(camera.clone(), 25, move |taken| {
            let many = |track| taken.of(track).count() >= 25;
            (pictures.is_none() || many(TrackId::VIDEO)) && many(TrackId::AUDIO)
        });
        let of = |kind| taken.tracks.last().and_then(|tracks| tracks.first(kind)).map(|track| track.codec);
        assert_eq!(
            (of(TrackKind::Video), of(TrackKind::Audio)),
            (pictures, sound),
            "{camera:?} {ended:?} {:?}",
            taken.report
        );
        assert!(taken.of(TrackId::AUDIO).count() >= 25, "{ended:?}");
    }
}
