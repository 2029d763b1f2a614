use super::*;
use crate::media::Source;
use crate::verify::Verifier;

fn packet(kind: &[u8; 4], fields: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = kind.to_vec();
    for word in [COMMON + fields.len(), data.len(), 0] {
        out.extend_from_slice(&(word as u32).to_le_bytes());
    }
    out.extend_from_slice(fields);
    out.extend_from_slice(data);
    out
}

fn connect(channel: &str, track: &str, first_id: u64) -> Vec<u8> {
    let mut fields = vec![0; 88];
    fields[..channel.len()].copy_from_slice(channel.as_bytes());
    fields[32..32 + track.len()].copy_from_slice(track.as_bytes());
    fields[64..72].copy_from_slice(&first_id.to_le_bytes());
    packet(b"cnct", &fields, b"opaque")
}

fn video_info() -> Vec<u8> {
    let mut fields = Vec::new();
    for word in [0, 7, 90_000, 0, 1280 | 720 << 16, 30, 1, 0u32] {
        fields.extend_from_slice(&word.to_le_bytes());
    }
    packet(b"minf", &fields, &video_header()[5..])
}

fn video_frame(dts: i64, body: &[u8]) -> Vec<u8> {
    let mut fields = 1_700_000_000_i64.to_le_bytes().to_vec();
    fields.extend_from_slice(&dts.to_le_bytes());
    fields.extend_from_slice(&u32::from(body[0] == 0x17).to_le_bytes());
    fields.extend_from_slice(&0u32.to_le_bytes());
    packet(b"fram", &fields, &body[5..])
}

/// A whole track of 100 frames from id 7,000 on, ended.
fn track() -> Vec<u8> {
    let mut source = Source::new(3, 1_000_000, 0.0);
    let mut bytes = connect("s3", "v1", 7_000);
    bytes.extend(packet(b"null", &[], &[]));
    bytes.extend(video_info());
    let mut body = Vec::new();
    for frame in 0..100 {
        source.write_frame(Track::Video, 0, &mut body);
        bytes.extend(video_frame(frame * 1000 / 30 * 90, &body));
    }
    bytes.extend(packet(b"eost", &[], &[]));
    bytes
}

fn acked_ids(out: &[u8]) -> Vec<u64> {
    assert_eq!(out.len() % 40, 0);
    let acks = out.chunks(40).inspect(|ack| assert_eq!((&ack[..4], u32_at(ack, 4)), (&b"ackf"[..], 40)));
    acks.map(|ack| u64_at(ack, 16)).collect()
}

fn refusal(bytes: &[u8]) -> Option<String> {
    let mut receiver = Receiver::new(Acks::Never);
    receiver.receive(bytes, &mut Vec::new(), &mut |_, _| {}).err().map(|error| error.to_string())
}

#[test]
fn every_frame_of_a_track_arrives_whatever_the_cuts() {
    let bytes = track();
    for cut in [1, 7, 997, bytes.len()] {
        let mut receiver = Receiver::new(Acks::Every(30));
        let mut verifier = None;
        let (mut out, mut frames) = (Vec::new(), 0);
        for mut part in bytes.chunks(cut) {
            if receiver.track().is_none() {
                part = receiver.open(part).unwrap();
                verifier = receiver.track().map(|(stream, track)| Verifier::of_track(stream, track));
            }
            let mut take = |track, body: &[u8]| {
                frames += usize::from(verifier.as_mut().unwrap().take(track, body).is_some());
            };
            receiver.receive(part, &mut out, &mut take).unwrap();
        }
        let verifier = verifier.unwrap();
        assert_eq!((receiver.track(), frames), (Some((3, Track::Video)), 100));
        assert!(receiver.is_over() && verifier.is_complete([100, 55]));
        assert_eq!((receiver.odd(), verifier.faults_at_end([100, 55]).total()), (0, 0));
        assert_eq!(acked_ids(&out), [7_030, 7_060, 7_090, 7_100]);
    }
}

#[test]
fn a_receiver_that_never_acks_says_nothing() {
    let mut receiver = Receiver::new(Acks::Never);
    let mut out = Vec::new();
    receiver.receive(&track(), &mut out, &mut |_, _| {}).unwrap();
    assert!(out.is_empty() && receiver.is_over());
}

#[test]
fn longer_headers_are_skipped() {
    let mut bytes = connect("s3", "v1", 0);
    let mut info = video_info();
    info[4] += 8;
    info.splice(48..48, [9; 8]);
    bytes.extend(info);
    let mut receiver = Receiver::new(Acks::Never);
    receiver.receive(&bytes, &mut Vec::new(), &mut |_, _| {}).unwrap();
    assert!(receiver.has_media_info && receiver.odd() == 0);
}

#[test]
fn changed_flags_times_and_configurations_are_seen() {
    let mut source = Source::new(3, 1_000_000, 0.0);
    let mut body = Vec::new();
    let mut run = |info: Vec<u8>, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = [connect("s3", "v1", 0), info].concat();
        source = Source::new(3, 1_000_000, 0.0);
        for dts in [0, 2_970, 6_000] {
            source.write_frame(Track::Video, 0, &mut body);
            let mut frame = video_frame(dts, &body);
            if dts == 2_970 {
                change(&mut frame);
            }
            bytes.extend(frame);
        }
        let mut receiver = Receiver::new(Acks::Never);
        let mut verifier = Verifier::of_track(3, Track::Video);
        let mut take = |track, body: &[u8]| {
            verifier.take(track, body);
        };
        receiver.receive(&bytes, &mut Vec::new(), &mut take).unwrap();
        (receiver.odd(), verifier.faults_at_end([3, 0]).changed)
    };
    assert_eq!(run(video_info(), &|_| {}), (0, 0));
    assert_eq!(run(video_info(), &|frame| frame[32] ^= 1), (0, 1), "the key flag");
    assert_eq!(run(video_info(), &|frame| frame[36] = 90), (0, 1), "the composition time");
    assert_eq!(run(video_info(), &|frame| frame[25] ^= 8), (1, 0), "the decode time");
    assert_eq!(run(video_info(), &|frame| *frame.last_mut().unwrap() ^= 1), (0, 1), "the picture");
    let mut info = video_info();
    *info.last_mut().unwrap() ^= 1;
    assert_eq!(run(info, &|_| {}), (1, 0), "the decoder's configuration");
}

#[test]
fn what_is_not_kmp_is_refused() {
    assert!(refusal(&packet(b"null", &[], &[])).unwrap().contains("not cnct"));
    assert!(refusal(&connect("other", "v1", 0)).unwrap().contains("another channel"));
    assert!(refusal(&connect("s1", "v2", 0)).unwrap().contains("another channel"));
    assert!(refusal(&connect("s1", "v1", u64::MAX)).unwrap().contains("invalid"));
    let after = |more: Vec<u8>| refusal(&[connect("s1", "v1", 0), more].concat());
    assert!(after(packet(b"what", &[], &[])).unwrap().contains("unknown"));
    assert!(after(packet(b"fram", &[0; 24], &[1])).unwrap().contains("before any media info"));
    assert!(after(packet(b"fram", &[0; 23], &[1])).unwrap().contains("out of limits"));
    let ended = [packet(b"eost", &[], &[]), packet(b"null", &[], &[])].concat();
    assert!(after(ended).unwrap().contains("after eost"));
    let mut large = packet(b"null", &[], &[]);
    large[8..12].copy_from_slice(&((MAX_DATA + 1) as u32).to_le_bytes());
    assert!(after(large).unwrap().contains("out of limits"));
    let mut short = packet(b"null", &[], &[]);
    short[4] = 15;
    assert!(after(short).unwrap().contains("out of limits"));
}

/// Bytes of the reference sender are read to their end; its streams are not ours, so only the packets are.
#[test]
fn packets_of_the_reference_sender_are_read() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/kmp/01_h264_aac_ffmpeg_defaults");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sent = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(".kmp") && !name.ends_with(".acks.kmp")
    };
    let mut kinds = std::collections::BTreeSet::new();
    for path in files.filter(sent) {
        let bytes = std::fs::read(path).unwrap();
        let mut receiver = Receiver::new(Acks::Never);
        let mut input = &bytes[..];
        while let Some(rest) = receiver.fill(input).unwrap() {
            kinds.insert(String::from_utf8(receiver.head[..4].to_vec()).unwrap());
            receiver.next_packet();
            input = rest;
        }
        assert!(receiver.head.is_empty() && input.is_empty());
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["cnct", "eost", "fram", "minf"]);
}
