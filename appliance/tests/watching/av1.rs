//! AV1 and Opus in Enhanced RTMP, made from files of ffmpeg's by the letter of the specifications.

use crate::common::fixture::{PICTURE, cached};
use crate::common::flv::{AUDIO, Tag, VIDEO};
use crate::common::process::Process;
use crate::common::wait::secs;
use std::path::{Path, PathBuf};

/// A temporal delimiter: the first unit of each picture, which containers leave out.
const DELIMITER: &[u8] = &[0x12, 0];
/// Of a unit that holds the sequence's header, which stands in front of keyframes.
const SEQUENCE_HEADER: u8 = 1;

/// AV1 at 30 pictures a second and Opus, `seconds` long.
pub(crate) fn av1_opus(seconds: u32) -> Vec<Tag> {
    let length = seconds.to_string();
    let ffmpeg = |args: &[&str], path: &Path| {
        let start = ["-nostdin", "-v", "error", "-y"];
        Process::run("ffmpeg", &[&start, args, &[path.to_str().unwrap()]].concat(), secs(120));
    };
    let encoder = ["-c:v", "libsvtav1", "-preset", "12", "-g", "60", "-pix_fmt", "yuv420p"];
    let mp4 = cached(&format!("av1-{seconds}.mp4"), |path| {
        let input = ["-f", "lavfi", "-i", PICTURE, "-t", &length];
        ffmpeg(&[&input[..], &encoder, &["-f", "mp4"]].concat(), path);
    });
    let ivf = cached(&format!("av1-{seconds}.ivf"), |path| {
        ffmpeg(&["-i", mp4.to_str().unwrap(), "-c", "copy", "-f", "ivf"], path);
    });
    let sound: PathBuf = cached(&format!("opus-{seconds}.ogg"), |path| {
        let input = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", &length];
        ffmpeg(&[&input[..], &["-c:a", "libopus", "-frame_duration", "20", "-f", "ogg"]].concat(), path);
    });
    let tag = |kind, ts: f64, parts: &[&[u8]]| Tag { kind, ts: ts.round() as u32, body: parts.concat() };
    let mut tags = vec![tag(VIDEO, 0.0, &[&[0x90], b"av01", &configuration(&std::fs::read(mp4).unwrap())])];
    for (nth, picture) in ivf_frames(&std::fs::read(ivf).unwrap()).iter().enumerate() {
        let picture = picture.strip_prefix(DELIMITER).unwrap_or(picture);
        let is_keyframe = picture[0] >> 3 & 0x0f == SEQUENCE_HEADER;
        let first = if is_keyframe { 0x91 } else { 0xa1 };
        tags.push(tag(VIDEO, nth as f64 * 1000.0 / 30.0, &[&[first], b"av01", picture]));
    }
    let packets = ogg_packets(&std::fs::read(sound).unwrap());
    let [head, _comments, packets @ ..] = packets.as_slice() else { panic!("an Opus file has two heads") };
    tags.push(tag(AUDIO, 0.0, &[&[0x90], b"Opus", head]));
    let sounds = packets.iter().enumerate();
    tags.extend(sounds.map(|(nth, packet)| tag(AUDIO, nth as f64 * 20.0, &[&[0x91], b"Opus", packet])));
    tags.sort_by_key(|tag| tag.ts);
    tags
}

/// The body of `av1C`.
fn configuration(mp4: &[u8]) -> Vec<u8> {
    let at = mp4.windows(4).position(|window| window == b"av1C").expect("a configuration");
    let len = u32::from_be_bytes(mp4[at - 4..at].try_into().unwrap()) as usize;
    mp4[at + 4..at - 4 + len].to_vec()
}

fn ivf_frames(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut frames) = (&file[32..], Vec::new());
    while let Some((head, after)) = rest.split_at_checked(12) {
        let len = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
        frames.push(after[..len].to_vec());
        rest = &after[len..];
    }
    frames
}

/// Source: RFC 3533, 6.
fn ogg_packets(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut packets, mut open) = (file, Vec::new(), Vec::new());
    while let Some((head, after)) = rest.split_at_checked(27) {
        assert_eq!(&head[..4], b"OggS");
        let (lacing, mut body) = after.split_at(usize::from(head[26]));
        for len in lacing {
            let (piece, behind) = body.split_at(usize::from(*len));
            open.extend_from_slice(piece);
            if *len < 255 {
                packets.push(std::mem::take(&mut open));
            }
            body = behind;
        }
        rest = body;
    }
    packets
}
