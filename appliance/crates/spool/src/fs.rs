//! The few things that spool and ledger ask of a file system, each a step that a power cut may follow.

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

/// One folder of a file system. Names are plain, without `/`.
pub(crate) trait SpoolFs: Send {
    /// The names and lengths of all files.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;
    /// Makes an empty file; one of that name is emptied. Durable after [`SpoolFs::sync_dir`].
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Writes at the end of a file. After an error a part may have been written. Durable after [`SpoolFs::sync_file`].
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Reads from this place on until `buf` is full or the file ends; returns how much that was.
    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Makes a file's content durable.
    fn sync_file(&mut self, name: &str) -> io::Result<()>;
    /// Cuts a file's end off.
    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()>;
    /// Gives a file another name, taking the place of one that has it. Durable after [`SpoolFs::sync_dir`].
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file; none of that name is fine. Durable after [`SpoolFs::sync_dir`].
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    fn sync_dir(&mut self) -> io::Result<()>;
}

/// A real folder, held by its descriptor.
pub(crate) struct DirFs {
    folder: OwnedFd,
    /// The file that was written last: batches go to the same one.
    writing: Option<(String, File)>,
}

impl DirFs {
    /// Opens the folder, which is created (mode 0700) if it is missing.
    pub(crate) fn open(path: &Path) -> io::Result<DirFs> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(DirFs { folder, writing: None })
    }

    fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::openat(&self.folder, name, flags, Mode::from_raw_mode(0o600));
        Ok(File::from(opened?))
    }

    fn writing(&mut self, name: &str) -> io::Result<&File> {
        if self.writing.as_ref().is_none_or(|(open, _)| open != name) {
            let file = self.open_file(name, OFlags::WRONLY | OFlags::APPEND)?;
            self.writing = Some((name.to_owned(), file));
        }
        let (_, file) = self.writing.as_ref().expect("it was opened above");
        Ok(file)
    }
}

impl SpoolFs for DirFs {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let found = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::RegularFile {
                files.push((name.to_owned(), u64::try_from(found.st_size).unwrap_or(0)));
            }
        }
        Ok(files)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = self.open_file(name, OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::APPEND)?;
        self.writing = Some((name.to_owned(), file));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.writing(name)?;
        file.write_all(bytes)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = self.open_file(name, OFlags::RDONLY)?;
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync_file(&mut self, name: &str) -> io::Result<()> {
        self.writing(name)?.sync_data()
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        self.writing(name)?.set_len(len)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.writing = None;
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.writing = None;
        match rustix::fs::unlinkat(&self.folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.folder)?)
    }
}
