//! A file system in memory that loses power, or fails, after any step.
//!
//! Bytes that were not synced may be gone, there, cut in half, or there as zeros; of the changes to names since the last
//! sync of the folder any part may have reached the disk, in their order.

use crate::fs::SpoolFs;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

type Inode = usize;

#[derive(Clone)]
enum NameChange {
    Set(String, Inode),
    Unset(String),
    Move(String, String, Inode),
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
}

#[derive(Clone, Default)]
struct Disk {
    inodes: Vec<File>,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    unsynced: Vec<NameChange>,
    steps: usize,
    fail: Fail,
    /// Bytes that fit on the disk; 0: no limit.
    capacity: usize,
    bytes_read: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Default)]
pub(crate) enum Fail {
    #[default]
    Never,
    /// Every step from this one on fails, as if the power were gone.
    CutBefore(usize),
    /// Every step fails like this.
    Always(io::ErrorKind),
}

/// A handle to the disk; clones share it.
#[derive(Clone, Default)]
pub(crate) struct SimFs(Arc<Mutex<Disk>>);

/// What a cut left of the bytes that were not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsynced {
    Gone,
    There,
    Half,
    Zeros,
}

impl SimFs {
    pub(crate) fn failing(&self, fail: Fail) {
        let mut disk = self.lock();
        disk.fail = fail;
        disk.steps = 0;
    }

    /// Steps since [`SimFs::failing`] was called last.
    pub(crate) fn steps(&self) -> usize {
        self.lock().steps
    }

    pub(crate) fn set_capacity(&self, bytes: usize) {
        self.lock().capacity = bytes;
    }

    pub(crate) fn used(&self) -> usize {
        self.lock().used()
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.lock().bytes_read
    }

    /// The disk after a power cut now. `names`: how many of the unsynced changes to names are there.
    pub(crate) fn after_cut(&self, unsynced: Unsynced, names: usize) -> SimFs {
        let disk = self.lock();
        let mut found = disk.durable_names.clone();
        for change in disk.unsynced.iter().take(names) {
            match change.clone() {
                NameChange::Set(name, inode) => {
                    found.insert(name, inode);
                }
                NameChange::Unset(name) => {
                    found.remove(&name);
                }
                NameChange::Move(from, to, inode) => {
                    found.remove(&from);
                    found.insert(to, inode);
                }
            }
        }
        let survive = |file: &File| {
            let mut bytes = file.bytes.clone();
            match unsynced {
                Unsynced::Gone => bytes.truncate(file.synced),
                Unsynced::There => {}
                Unsynced::Half => bytes.truncate(file.synced + (bytes.len() - file.synced) / 2),
                Unsynced::Zeros => bytes[file.synced..].fill(0),
            }
            File { synced: bytes.len(), bytes }
        };
        let inodes = disk.inodes.iter().map(survive).collect();
        let after = Disk { inodes, names: found.clone(), durable_names: found, ..Disk::default() };
        SimFs(Arc::new(Mutex::new(after)))
    }

    /// Spoils one bit of a file on the disk itself.
    pub(crate) fn flip(&self, name: &str, byte: usize, bit: u8) {
        let mut disk = self.lock();
        let inode = disk.names[name];
        disk.inodes[inode].bytes[byte] ^= 1 << bit;
    }

    /// All files with their lengths.
    pub(crate) fn files(&self) -> Vec<(String, usize)> {
        let disk = self.lock();
        disk.names.iter().map(|(name, inode)| (name.clone(), disk.inodes[*inode].bytes.len())).collect()
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.lock();
        disk.inodes.push(File { bytes: bytes.to_vec(), synced: bytes.len() });
        let inode = disk.inodes.len() - 1;
        disk.names.insert(name.to_owned(), inode);
        disk.durable_names.insert(name.to_owned(), inode);
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    fn step(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let mut disk = self.lock();
        let step = disk.steps;
        disk.steps += 1;
        match disk.fail {
            Fail::CutBefore(cut) if step >= cut => Err(io::Error::other("no power")),
            Fail::Always(kind) => Err(kind.into()),
            _ => Ok(disk),
        }
    }
}

impl Disk {
    fn used(&self) -> usize {
        self.names.values().map(|inode| self.inodes[*inode].bytes.len()).sum()
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl SpoolFs for SimFs {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.files().into_iter().map(|(name, len)| (name, len as u64)).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.step()?;
        disk.inodes.push(File::default());
        let inode = disk.inodes.len() - 1;
        disk.names.insert(name.to_owned(), inode);
        disk.unsynced.push(NameChange::Set(name.to_owned(), inode));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.step()?;
        let inode = *disk.names.get(name).ok_or_else(missing)?;
        let room = match disk.capacity {
            0 => bytes.len(),
            capacity => capacity.saturating_sub(disk.used()),
        };
        let written = bytes.len().min(room);
        disk.inodes[inode].bytes.extend_from_slice(&bytes[..written]);
        if written < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.lock();
        let inode = *disk.names.get(name).ok_or_else(missing)?;
        let bytes = &disk.inodes[inode].bytes;
        let start = bytes.len().min(offset as usize);
        let len = buf.len().min(bytes.len() - start);
        buf[..len].copy_from_slice(&bytes[start..start + len]);
        disk.bytes_read += len as u64;
        Ok(len)
    }

    fn sync_file(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.step()?;
        let inode = *disk.names.get(name).ok_or_else(missing)?;
        disk.inodes[inode].synced = disk.inodes[inode].bytes.len();
        Ok(())
    }

    fn truncate(&mut self, name: &str, len: u64) -> io::Result<()> {
        let mut disk = self.step()?;
        let inode = *disk.names.get(name).ok_or_else(missing)?;
        let file = &mut disk.inodes[inode];
        file.bytes.truncate(len as usize);
        file.synced = file.synced.min(file.bytes.len());
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.step()?;
        let inode = disk.names.remove(from).ok_or_else(missing)?;
        disk.names.insert(to.to_owned(), inode);
        disk.unsynced.push(NameChange::Move(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.step()?;
        if disk.names.remove(name).is_some() {
            disk.unsynced.push(NameChange::Unset(name.to_owned()));
        }
        Ok(())
    }

    fn sync_dir(&mut self) -> io::Result<()> {
        let mut disk = self.step()?;
        disk.durable_names = disk.names.clone();
        disk.unsynced.clear();
        Ok(())
    }
}
