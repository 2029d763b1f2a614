//! A few bytes that a backlog's owner wants to find again; what they mean is the owner's.

use crate::fs::SpoolFs;
use bytes::Bytes;
use std::io;

const FILE: &str = "note";
const TEMPORARY: &str = "note.tmp";
/// The longest note.
pub(crate) const MAX_LEN: usize = 64 << 10;
/// Bytes of the checksum before it.
const HEAD: usize = 4;
/// Flash pages that a note costs, roughly, in bytes: its own and the folder's.
pub(crate) const FLASH_BYTES: u64 = 2 * 4096;

/// What was noted; empty if there is nothing, or nothing sound.
pub(crate) fn read(fs: &dyn SpoolFs) -> io::Result<Bytes> {
    let mut bytes = vec![0; HEAD + MAX_LEN];
    let mut len = 0;
    loop {
        match fs.read_at(FILE, len as u64, bytes.get_mut(len..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    let Some((head, note)) = bytes.split_first_chunk::<HEAD>() else { return Ok(Bytes::new()) };
    let is_sound = u32::from_le_bytes(*head) == crc32fast::hash(note);
    Ok(if is_sound { Bytes::copy_from_slice(note) } else { Bytes::new() })
}

/// Puts it in place; durable.
pub(crate) fn write(fs: &mut dyn SpoolFs, note: &[u8]) -> io::Result<()> {
    let mut bytes = crc32fast::hash(note).to_le_bytes().to_vec();
    bytes.extend_from_slice(note);
    fs.create(TEMPORARY)?;
    fs.append(TEMPORARY, &bytes)?;
    fs.sync_file(TEMPORARY)?;
    fs.rename(TEMPORARY, FILE)?;
    fs.sync_dir()
}
