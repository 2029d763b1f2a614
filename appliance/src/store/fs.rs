//! The few things that the store asks of a file system, each a step that a power cut may follow.

use super::StoreError;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// One folder of a file system. Names are plain, without `/`.
pub trait StoreFs: Send {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A file's content; none if there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Creates the file or empties it, and writes. Durable after [`StoreFs::sync_file`] and [`StoreFs::sync_dir`].
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Makes a file's content durable.
    fn sync_file(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name, taking the place of one that has it. Durable after [`StoreFs::sync_dir`].
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; none of that name is fine. Durable after [`StoreFs::sync_dir`].
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_dir(&mut self) -> io::Result<()>;
}

/// Writes a file so that a power cut leaves the old or the new one, whole: under another name, synced, renamed, and the
/// folder synced. For files whose errors need no more words than the system's.
pub fn write_whole(fs: &mut dyn StoreFs, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}{}", super::TEMPORARY);
    let mut steps = || {
        fs.write(&temporary, bytes)?;
        fs.sync_file(&temporary)?;
        fs.rename(&temporary, name)?;
        fs.sync_dir()
    };
    let written = steps();
    if written.is_err() {
        // Gives back the space if the disk is full.
        fs.remove(&temporary).ok();
    }
    written
}

/// A real folder, held by its descriptor and locked against a second gateway.
pub struct DirFs {
    folder: OwnedFd,
    /// Held for as long as this lives.
    _lock: OwnedFd,
}

/// The longest config file that is read.
const MAX_FILE_BYTES: u64 = 16 << 20;
const LOCK: &str = "lock";

impl DirFs {
    /// Opens the folder, which is created (mode 0700) if it is missing, and locks it.
    pub fn open(path: &Path) -> Result<DirFs, StoreError> {
        let failed = |action: &'static str| {
            move |source: io::Error| StoreError::Io { action, file: path.display().to_string(), source }
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create"))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed("open")(e.into()))?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::openat(&folder, LOCK, flags, Mode::from_raw_mode(0o600));
        let lock = lock.map_err(|errno| failed("lock")(errno.into()))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DirFs { folder, _lock: lock }),
            Err(Errno::WOULDBLOCK) => Err(StoreError::Locked { folder: path.display().to_string() }),
            Err(errno) => Err(failed("lock")(errno.into())),
        }
    }

    fn open_file(&self, name: &str, flags: OFlags) -> rustix::io::Result<std::fs::File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.folder, name, flags, Mode::from_raw_mode(0o600)).map(std::fs::File::from)
    }
}

impl StoreFs for DirFs {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.folder)? {
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        names.retain(|name| !matches!(name.as_str(), "." | ".." | LOCK));
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open_file(name, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.open_file(name, OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY)?.write_all(bytes)
    }

    fn sync_file(&mut self, name: &str) -> io::Result<()> {
        self.open_file(name, OFlags::WRONLY)?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }
}
