use super::super::tests::{both, lane, play, scene, settings};
use super::super::{Package, SECOND};
use super::*;
use std::collections::BTreeMap;

fn segments() -> (Vec<std::sync::Arc<Segment>>, Vec<std::sync::Arc<Segment>>) {
    let mut package = Package::new(settings());
    package.on_tracks(&both());
    play(&mut package, &scene(0, 9, 60));
    (lane(&package, TrackKind::Video), lane(&package, TrackKind::Audio))
}

/// Counters and payloads by PID.
fn read(file: &[u8]) -> BTreeMap<u16, (Vec<u8>, Vec<u8>)> {
    assert_eq!(file.len() % 188, 0);
    let mut pids: BTreeMap<u16, (Vec<u8>, Vec<u8>)> = BTreeMap::new();
    for packet in file.chunks(188) {
        assert_eq!(packet[0], 0x47);
        let pid = u16::from_be_bytes([packet[1] & 0x1F, packet[2]]);
        let (counts, payload) = pids.entry(pid).or_default();
        counts.push(packet[3] & 0x0F);
        let from = if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 };
        assert!(packet[3] & 0x10 != 0 && from < 188, "every packet carries something");
        payload.extend_from_slice(&packet[from..]);
    }
    pids
}

#[test]
fn counters_go_on_from_one_segment_to_any_other() {
    let (video, audio) = segments();
    for (video, audio) in video.iter().zip(&audio) {
        let file = write(Some(video), Some(audio)).unwrap();
        let pids = read(&file);
        assert_eq!(pids.keys().copied().collect::<Vec<_>>(), [0, 0x100, 0x101, 0x1000]);
        for (counts, _) in pids.values() {
            assert_eq!(counts.len() % 16, 0);
            assert!(counts.iter().enumerate().all(|(at, count)| usize::from(*count) == at % 16));
        }
        assert_eq!(file[1..3], [0x40, 0], "a table first (RFC 8216 3.2)");
    }
}

#[test]
fn a_table_carries_the_check_sum_that_decoders_want() {
    let (video, audio) = segments();
    let file = write(Some(&video[0]), Some(&audio[0])).unwrap();
    // Recorded from ffmpeg 5.1: a PAT with program 1 at PID 0x1000.
    let pat = [0, 0xB0, 0x0D, 0, 1, 0xC1, 0, 0, 0, 1, 0xF0, 0, 0x2A, 0xB1, 0x04, 0xB2];
    assert_eq!(file[5..21], pat);
}

#[test]
fn pictures_and_sound_say_their_times() {
    let (video, audio) = segments();
    let file = write(Some(&video[1]), Some(&audio[1])).unwrap();
    let pids = read(&file);
    let pictures = &pids[&0x100].1;
    let start = 2 * SECOND + TIME_OFFSET;
    let at = |bytes: &[u8]| {
        i64::from(bytes[0] >> 1 & 7) << 30
            | i64::from(bytes[1]) << 22
            | i64::from(bytes[2] >> 1) << 15
            | i64::from(bytes[3]) << 7
            | i64::from(bytes[4] >> 1)
    };
    assert_eq!(pictures[..9], [0, 0, 1, 0xE0, 0, 0, 0x84, 0xC0, 10]);
    assert_eq!((at(&pictures[9..]), at(&pictures[14..])), (start + 6000, start));
    assert_eq!(pictures[19..26], [0, 0, 0, 1, 9, 0xF0, 0], "a delimiter, then the parameter sets");
    assert_eq!(pictures[29], 0x67);
    let sound = &pids[&0x101].1;
    assert_eq!(sound[..4], [0, 0, 1, 0xC0]);
    assert_eq!(sound[14..16], [0xFF, 0xF1]);
    let frames = audio[1].samples().count();
    assert!(sound.windows(2).filter(|pair| *pair == [0xFF, 0xF1]).count() >= frames);
}

#[test]
fn either_track_alone_is_a_file_and_neither_is_none() {
    let (video, audio) = segments();
    assert_eq!(read(&write(Some(&video[0]), None).unwrap()).len(), 3);
    assert_eq!(read(&write(None, Some(&audio[0])).unwrap()).len(), 3);
    assert!(write(None, None).is_none());
}

#[test]
fn sound_that_adts_cannot_tell_does_not_fit() {
    use fieldgate_media::TrackId;
    let with = |header: &'static [u8]| Track::new(TrackId::AUDIO, Codec::Aac, Bytes::from_static(header));
    assert!(fits(&with(&[0x12, 0x10])));
    assert!(!fits(&with(&[0x17, 0x80])), "a rate of its own");
    assert!(!fits(&with(&[0x12, 0x00])), "channels of its own");
    assert!(!fits(&with(&[])));
    assert!(units::adts(&with(&[0x12, 0x10]), 0x1FFF - 7).is_some());
    assert!(units::adts(&with(&[0x12, 0x10]), 0x1FFF - 6).is_none());
}
