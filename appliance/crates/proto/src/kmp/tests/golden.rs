//! Recorded bytes of the reference, for tests (`appliance/testdata/kmp`).

use crate::kmp::{Direction, Limits, Packet, PacketReader, ReadError};
use crate::rtmp::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where the recordings are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/kmp")
}

/// One file of the recordings, such as `01_h264_aac_ffmpeg_defaults/v1.main.1.kmp`.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All recorded connections, in order of their names: those of senders, or those of receivers.
pub(crate) fn recordings(direction: Direction) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = Vec::new();
    for case in std::fs::read_dir(folder()).unwrap() {
        let case = case.unwrap();
        if !case.file_type().unwrap().is_dir() {
            continue;
        }
        let case_name = case.file_name().into_string().unwrap();
        for file in std::fs::read_dir(case.path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".kmp") && name.ends_with(".acks.kmp") == (direction == Direction::ToSender) {
                names.push(format!("{case_name}/{name}"));
            }
        }
    }
    names.sort();
    names.into_iter().map(|name| (name.clone(), file(&name))).collect()
}

/// All packets of a recording, and whether the last one is complete.
pub(crate) fn decode(direction: Direction, mut wire: &[u8]) -> Result<(Vec<Packet>, bool), ReadError> {
    let mut reader = PacketReader::new(direction, Limits::default());
    let mut packets = Vec::new();
    while let Some(packet) = reader.read(&mut wire)? {
        packets.push(packet);
    }
    Ok((packets, reader.held() == 0))
}

/// Which FLV file each case was published from, by name of the case.
pub(crate) fn inputs() -> BTreeMap<String, String> {
    let text = String::from_utf8(file("inputs/vectors.json")).unwrap();
    let quoted: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
    quoted.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

/// The messages that an encoder sends for an FLV file.
pub(crate) fn flv(name: &str) -> Vec<Message> {
    let flv = file(&format!("inputs/{name}"));
    let mut rest = &flv[13..];
    let mut messages = Vec::new();
    while let Some((&[kind, l0, l1, l2, t0, t1, t2, t3, _, _, _], body)) = rest.split_first_chunk() {
        let (body, after) = body.split_at(u32::from_be_bytes([0, l0, l1, l2]) as usize);
        messages.push(Message::copied(kind & 0x1F, u32::from_be_bytes([t3, t0, t1, t2]), 1, 6, body));
        rest = &after[4..];
    }
    messages
}
