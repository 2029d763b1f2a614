//! What a backlog remembers beside its packets: which ids may have been used, what is released, and whether it was closed in order.

use crate::fs::SpoolFs;
use std::io;

const FILE: &str = "meta";
const TEMPORARY: &str = "meta.tmp";
const MAGIC: &[u8; 8] = b"FGSPMET1";
const LEN: usize = 44;

/// Ids are set aside in such steps, so that they need not be written down one by one: with 30 frames a second one write
/// in nine hours.
pub(crate) const STEP: u64 = 1 << 20;

/// The content of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// No id from here on was used.
    pub reserved: u64,
    /// All that was appended is on disk or was released.
    pub clean: bool,
    /// Everything below was released.
    pub floor: u64,
    /// Bytes written in all, roughly.
    pub flash_bytes: u64,
}

impl Meta {
    /// Reads the file; `None` if there is none or it is damaged.
    pub(crate) fn read(fs: &dyn SpoolFs) -> io::Result<Option<Meta>> {
        let mut bytes = [0; LEN];
        match fs.read_at(FILE, 0, &mut bytes) {
            Ok(_) => Ok(Meta::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts the file in place; durable.
    pub(crate) fn write(&self, fs: &mut dyn SpoolFs) -> io::Result<()> {
        fs.create(TEMPORARY)?;
        fs.append(TEMPORARY, &self.encode())?;
        fs.sync_file(TEMPORARY)?;
        fs.rename(TEMPORARY, FILE)?;
        fs.sync_dir()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.reserved.to_le_bytes());
        bytes.extend_from_slice(&u64::from(self.clean).to_le_bytes());
        bytes.extend_from_slice(&self.flash_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.floor.to_le_bytes());
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Meta> {
        let number = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        let checksum = bytes.get(LEN - 4..)?.first_chunk().copied().map(u32::from_le_bytes)?;
        if bytes.get(..8)? != MAGIC || checksum != crc32fast::hash(bytes.get(..LEN - 4)?) {
            return None;
        }
        Some(Meta {
            reserved: number(8)?,
            clean: number(16)? == 1,
            flash_bytes: number(24)?,
            floor: number(32)?,
        })
    }
}
