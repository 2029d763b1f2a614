//! What reads bytes from a disk, as plain functions over any bytes: run by `cargo test` over mutations of real files, and
//! by long fuzzing.

use crate::format::BatchHead;
use crate::fs::SpoolFs;
use crate::ledger::replay_any;
use crate::meta::Meta;
use crate::segments::Segments;
use fieldgate_hub::backlog::{Budget, Stored};
use std::io;
use std::time::Duration;

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them. None may panic, whatever the bytes.
pub const TARGETS: [Target; 2] = [("spool_segments", segments), ("spool_ledger", ledger)];

/// Takes the bytes for a segment file (or two, cut in the middle), reads all of it.
pub fn segments(bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for files in [vec![bytes.to_vec()], vec![first.to_vec(), second.to_vec()]] {
        let budget = Budget { bytes: 1 << 20, age: Duration::from_secs(60) };
        let Ok(mut segments) = Segments::open(Box::new(Files(files)), budget, 0) else { continue };
        let (mut next, mut rounds) = (0, 0);
        while let Ok(batch) = segments.read(next, 1 << 16)
            && let Some(last) = batch.packets.last()
        {
            assert!(last.is_frame() && last.id >= next, "reading goes on behind the last frame");
            let ids = batch.packets.iter().filter(|packet| packet.is_frame()).map(|packet| packet.id);
            assert!(ids.is_sorted_by(|one, other| one < other), "ids go up");
            let Some(behind) = last.id.checked_add(1) else { break };
            next = behind;
            rounds += 1;
            assert!(rounds <= bytes.len(), "reading ends");
        }
        let _ = (segments.held(), segments.losses().take());
        let (_, outcome) = segments.write(&[Stored {
            id: segments.end_id(),
            kind: fieldgate_hub::backlog::StoredKind::Frame,
            keyframe: true,
            captured_unix_micros: 0,
            head: bytes::Bytes::new(),
            body: bytes::Bytes::new(),
        }]);
        let _ = outcome;
    }
    let _ = (BatchHead::read(bytes), BatchHead::find(bytes), Meta::decode(bytes));
}

/// Takes the bytes for the ledger's log.
pub fn ledger(bytes: &[u8]) {
    replay_any(bytes);
}

/// Files in memory that take no writes.
struct Files(Vec<Vec<u8>>);

impl Files {
    fn file(&self, name: &str) -> io::Result<&Vec<u8>> {
        let index = name.strip_suffix(".seg").and_then(|digits| usize::from_str_radix(digits, 16).ok());
        index.and_then(|index| self.0.get(index)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SpoolFs for Files {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let names = self.0.iter().enumerate();
        Ok(names.map(|(index, file)| (format!("{index:016x}.seg"), file.len() as u64)).collect())
    }

    fn create(&mut self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn append(&mut self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = self.file(name)?;
        let rest = usize::try_from(offset).ok().and_then(|offset| file.get(offset..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        Ok(len)
    }

    fn sync_file(&mut self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&mut self, _: &str, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn rename(&mut self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{BatchAt, SEGMENT_MAGIC, Summary, write_batch, write_footer};
    use fieldgate_hub::backlog::StoredKind;

    fn file(footer: bool) -> Vec<u8> {
        let mut out = SEGMENT_MAGIC.to_vec();
        let (mut summary, mut batches) = (Summary::empty(), Vec::new());
        for first in [10_u64, 15, 20] {
            let packet = |id: u64| Stored {
                id,
                kind: if id == first { StoredKind::Header } else { StoredKind::Frame },
                keyframe: id == first + 1,
                captured_unix_micros: 1_000 * id as i64,
                head: vec![1; 40].into(),
                body: vec![id as u8; 60].into(),
            };
            let packets: Vec<Stored> = (first..first + 5).map(packet).collect();
            let at = out.len() as u32;
            let (head, _) = write_batch(&mut out, packets.iter(), None, 3, first);
            summary.add(&head);
            batches.push(BatchAt::new(at, &head));
        }
        if footer {
            write_footer(&mut out, &summary, &batches);
        }
        out
    }

    #[test]
    fn no_bytes_make_the_readers_panic() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut roll = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below as u64) as usize
        };
        for round in 0..20_000 {
            let mut bytes = file(round % 2 == 0);
            for _ in 0..1 + roll(4) {
                let at = roll(bytes.len());
                match roll(4) {
                    0 => bytes[at] ^= 1 << roll(8),
                    1 => bytes[at] = [0, 0xff, 0x7f, 0x80][roll(4)],
                    2 => bytes.truncate(at.max(1)),
                    _ => {
                        let piece = bytes[at..(at + roll(200)).min(bytes.len())].to_vec();
                        let to = roll(bytes.len());
                        bytes.splice(to..to, piece);
                    }
                }
            }
            for (_, target) in TARGETS {
                target(&bytes);
            }
        }
    }
}
