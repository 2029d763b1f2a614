//! Recorded bytes of the reference, for tests (`appliance/testdata/kmp`).

use super::{Direction, Limits, Packet, PacketReader, ReadError};
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
