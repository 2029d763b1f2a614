//! The list of streams that the application has heard of, under the old coordinator's name: its file may be put here.

use crate::store::{DirFs, StoreError, StoreFs, write_whole};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

const LIST: &str = "active_streams.txt";

/// The coordinator's folder.
#[derive(Clone)]
pub(super) struct Kept {
    files: Arc<Mutex<DirFs>>,
    /// As it was found.
    pub(super) list: String,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// The folder itself.
    #[error(transparent)]
    Folder(#[from] StoreError),
    /// The file in it.
    #[error("{LIST}: {0}")]
    File(#[from] io::Error),
    /// Its thread.
    #[error("the coordinator's files cannot be read now")]
    Thread,
}

/// Opens the folder.
pub(super) async fn open(folder: PathBuf) -> Result<Kept, FilesError> {
    let opening = tokio::task::spawn_blocking(move || -> Result<Kept, FilesError> {
        let files = DirFs::open(&folder)?;
        let list = files.read(LIST)?.unwrap_or_default();
        let list = String::from_utf8_lossy(&list).into_owned();
        Ok(Kept { files: Arc::new(Mutex::new(files)), list })
    });
    opening.await.map_err(|_| FilesError::Thread)?
}

impl Kept {
    /// Keeps a list. Waits for the disk.
    pub(super) fn keep(&self, list: &str) -> io::Result<()> {
        write_whole(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner), LIST, list.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn check_12_the_list_is_there_after_a_restart() {
        let folder = std::env::temp_dir().join(format!("fieldgate-coordinator-{}", std::process::id()));
        let first = open(folder.clone()).await.unwrap();
        assert_eq!(first.list, "");
        first.keep("c1:0001\n").unwrap();
        drop(first);
        assert_eq!(std::fs::read_to_string(folder.join(LIST)).unwrap(), "c1:0001\n");
        assert_eq!(open(folder.clone()).await.unwrap().list, "c1:0001\n");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
