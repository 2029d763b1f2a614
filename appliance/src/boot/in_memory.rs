//! A state folder whose disk takes no writes any more, as one that wears out does: the gateway runs from a copy in memory,
//! so that somebody can get in and see it. What is large, recordings and spools, stays where it is.

use fieldgate_model::status::Notice;
use rustix::fs::{FlockOperation, Mode, OFlags, StatVfsMountFlags};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Most that is copied, in bytes: a config with its history, users, keys and the recorder take a tenth of it.
const MOST: u64 = 32 << 20;
/// A longer file is none of those.
const LONGEST: u64 = 4 << 20;
/// Folders below each other that are copied.
const DEEPEST: u32 = 4;
/// Not copied: as large as the disk.
const LARGE: [&str; 3] = ["spool", "recordings", "encoder"];

/// A copy of the state, gone with the machine's next start.
#[derive(Debug)]
pub struct InMemory {
    /// Where it is.
    pub folder: PathBuf,
    /// What somebody should know.
    pub notice: Notice,
    /// Held for as long as this lives: one gateway for each state folder.
    _lock: OwnedFd,
}

impl InMemory {
    /// Copies the state into a folder of its own in `memory` if its disk takes no writes; none if it takes them, or if there
    /// is no such folder. Blocks on the disk.
    pub fn if_needed(state: &Path, memory: &Path) -> io::Result<Option<InMemory>> {
        let Ok(disk) = rustix::fs::statvfs(state) else { return Ok(None) };
        if !disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Ok(None);
        }
        let lock =
            rustix::fs::open(state, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("is in use by another gateway; give each its own with --state"))?;
        let of = fs::metadata(state)?;
        let folder = memory.join(format!("state-{:x}-{:x}", of.dev(), of.ino()));
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut left_out = Vec::new();
        let mut room = MOST;
        copy(state, &folder, DEEPEST, &mut room, &mut left_out)?;
        let mut text = format!(
            "the disk of {} is read-only: the gateway runs from a copy in memory, and what is changed now is gone with \
             its next start; look at the disk, which may be worn out",
            state.display()
        );
        if !left_out.is_empty() {
            left_out.truncate(8);
            text.push_str(&format!(" (not copied: {})", left_out.join(", ")));
        }
        let notice = Notice { code: "state_read_only".to_owned(), text };
        Ok(Some(InMemory { folder, notice, _lock: lock }))
    }
}

/// What cannot be read or is too much is left out: the rest may be enough to get in.
fn copy(from: &Path, to: &Path, depth: u32, room: &mut u64, left_out: &mut Vec<String>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let is_large = depth == DEEPEST && LARGE.iter().any(|large| name == *large);
        let copied = if kind.is_dir() && !is_large && depth > 1 {
            copy(&entry.path(), &to.join(&name), depth - 1, room, left_out).is_ok()
        } else if kind.is_file() {
            let len = entry.metadata()?.len();
            let fits = len <= LONGEST && len <= *room;
            *room -= if fits { len } else { 0 };
            fits && fs::copy(entry.path(), to.join(&name)).is_ok()
        } else {
            is_large
        };
        if !copied {
            left_out.push(entry.path().display().to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_are_copied_and_large_ones_left_out() {
        let at = std::env::temp_dir().join(format!("fg-in-memory-{}", std::process::id()));
        let state = at.join("state");
        for folder in ["access", "spool", "a/b/c/d"] {
            fs::create_dir_all(state.join(folder)).unwrap();
        }
        let long = vec![0; usize::try_from(LONGEST).unwrap()];
        for name in ["confirmed.json", "access/book.json", "spool/seg", "a/b/c/kept", "a/b/c/d/deep"] {
            fs::write(state.join(name), name).unwrap();
        }
        fs::write(state.join("a/as-long-as-may-be"), &long).unwrap();
        fs::write(state.join("longer"), [long.as_slice(), &[0]].concat()).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", state.join("link")).unwrap();
        assert!(InMemory::if_needed(&state, &at).unwrap().is_none(), "its disk takes writes");

        let (mut left_out, mut room) = (Vec::new(), MOST);
        let to = at.join("copy");
        copy(&state, &to, DEEPEST, &mut room, &mut left_out).unwrap();
        assert_eq!(fs::read_to_string(to.join("access/book.json")).unwrap(), "access/book.json");
        assert!(to.join("a/b/c/kept").exists() && to.join("a/as-long-as-may-be").exists());
        assert!(!to.join("spool").exists() && !to.join("longer").exists() && !to.join("link").exists());
        left_out.sort();
        let named = |name: &str| state.join(name).display().to_string();
        assert_eq!(left_out, [named("a/b/c/d"), named("link"), named("longer")]);

        // No room: what is small still goes.
        let (mut left_out, mut room) = (Vec::new(), 20);
        copy(&state, &at.join("little"), DEEPEST, &mut room, &mut left_out).unwrap();
        assert!(left_out.contains(&named("a/as-long-as-may-be")) && room < 20);
        fs::remove_dir_all(&at).unwrap();
    }
}
