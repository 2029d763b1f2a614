//! A file system in memory that loses power, or fails, after any step.
//!
//! Content that was not synced may be gone, torn or there; of the changes to names since the last sync of the folder
//! any subset may have reached the disk, in their order.

use super::StoreFs;
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
struct Disk {
    /// Content now, and as it was last synced.
    inodes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    names: BTreeMap<String, Inode>,
    durable_names: BTreeMap<String, Inode>,
    unsynced: Vec<NameChange>,
    steps: usize,
    fail: Fail,
}

/// What goes wrong.
#[derive(Clone, Copy, Default)]
pub(crate) enum Fail {
    #[default]
    Never,
    /// Every step from this one on fails, as if the power were gone.
    CutBefore(usize),
    /// This step alone fails, with this error.
    Once(usize, io::ErrorKind),
}

/// A handle to the disk; clones share it.
#[derive(Clone, Default)]
pub(crate) struct SimFs(Arc<Mutex<Disk>>);

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

    /// Every disk that may be found after a power cut now.
    pub(crate) fn after_cut(&self) -> Vec<SimFs> {
        let disk = self.lock();
        let changes = disk.unsynced.len();
        assert!(changes <= 8, "the store must sync the folder after a few changes");
        let mut found = Vec::new();
        for subset in 0..1_u32 << changes {
            let mut names = disk.durable_names.clone();
            for (index, change) in
                disk.unsynced.iter().enumerate().filter(|(index, _)| subset >> index & 1 == 1)
            {
                let _ = index;
                match change.clone() {
                    NameChange::Set(name, inode) => {
                        names.insert(name, inode);
                    }
                    NameChange::Unset(name) => {
                        names.remove(&name);
                    }
                    NameChange::Move(from, to, inode) => {
                        names.remove(&from);
                        names.insert(to, inode);
                    }
                }
            }
            for loss in [0, 1, 2] {
                let survive = |(now, synced): &(Vec<u8>, Option<Vec<u8>>)| {
                    let kept = match (synced, loss) {
                        (Some(synced), 0) => synced.clone(),
                        (None, 0) => Vec::new(),
                        (_, 1) => now[..now.len() / 2].to_vec(),
                        _ => now.clone(),
                    };
                    let kept = if synced.as_ref() == Some(now) { now.clone() } else { kept };
                    (kept.clone(), Some(kept))
                };
                let inodes = disk.inodes.iter().map(survive).collect();
                let after =
                    Disk { inodes, names: names.clone(), durable_names: names.clone(), ..Disk::default() };
                found.push(SimFs(Arc::new(Mutex::new(after))));
            }
        }
        found
    }

    /// Spoils a file on the disk itself.
    pub(crate) fn damage(&self, name: &str, bytes: &[u8]) {
        let mut disk = self.lock();
        let inode = disk.names[name];
        disk.inodes[inode] = (bytes.to_vec(), Some(bytes.to_vec()));
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
            Fail::Once(failing, kind) if step == failing => Err(kind.into()),
            _ => Ok(disk),
        }
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl StoreFs for SimFs {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let disk = self.lock();
        Ok(disk.names.get(name).map(|inode| disk.inodes[*inode].0.clone()))
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.step()?;
        match disk.names.get(name).copied() {
            Some(inode) => disk.inodes[inode].0 = bytes.to_vec(),
            None => {
                disk.inodes.push((bytes.to_vec(), None));
                let inode = disk.inodes.len() - 1;
                disk.names.insert(name.to_owned(), inode);
                disk.unsynced.push(NameChange::Set(name.to_owned(), inode));
            }
        }
        Ok(())
    }

    fn sync_file(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.step()?;
        let inode = *disk.names.get(name).ok_or_else(missing)?;
        let (now, synced) = &mut disk.inodes[inode];
        *synced = Some(now.clone());
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
