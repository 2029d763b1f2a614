//! What a node keeps over restarts: its own id, and the last good tables.

use crate::certificate::self_made;
use crate::store::{DirFs, StoreError, StoreFs, write_whole};
use fieldgate_compat::node::Key;
use fieldgate_net::ServerCertificates;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const ID: &str = "id";
const TABLES: &str = "tables";
/// Key and chain of the API's certificate together, so that both are replaced at once.
const CERTIFICATE: &str = "api.pem";

/// The node's folder.
#[derive(Clone)]
pub(super) struct Kept {
    folder: PathBuf,
    files: Arc<Mutex<DirFs>>,
    /// The node's own id; losing it makes a new node.
    pub(super) server_uuid: String,
    tables: Option<Vec<u8>>,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// The folder itself.
    #[error(transparent)]
    Folder(#[from] StoreError),
    /// A file in it.
    #[error("the mesh node's files: {0}")]
    File(#[from] io::Error),
    /// The API's certificate.
    #[error("no certificate could be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Its thread.
    #[error("the mesh node's files cannot be read now")]
    Thread,
}

/// Opens the folder; a node without an id gets one.
pub(super) async fn open(folder: PathBuf) -> Result<Kept, FilesError> {
    let opening = tokio::task::spawn_blocking(move || -> Result<Kept, FilesError> {
        let mut files = DirFs::open(&folder)?;
        let known = files.read(ID)?.and_then(|id| String::from_utf8(id).ok()).map(|id| id.trim().to_owned());
        let server_uuid = match known.filter(|id| is_uuid(id)) {
            Some(id) => id,
            None => {
                let id = new_uuid()?;
                write_whole(&mut files, ID, id.as_bytes())?;
                id
            }
        };
        let tables = files.read(TABLES)?;
        Ok(Kept { folder, files: Arc::new(Mutex::new(files)), server_uuid, tables })
    });
    opening.await.map_err(|_| FilesError::Thread)?
}

impl Kept {
    /// The tables that were kept from this master.
    pub(super) fn tables_of(&self, master: &str) -> Option<&[u8]> {
        self.tables.as_deref()?.strip_prefix(master.as_bytes())?.strip_prefix(b"\n")
    }

    /// Keeps a master's tables. Waits for the disk.
    pub(super) fn keep(&self, master: &str, tables: &[u8]) -> io::Result<()> {
        let whole = [master.as_bytes(), b"\n", tables].concat();
        write_whole(&mut *self.files(), TABLES, &whole)
    }

    /// The file with key and chain for the API; a certificate for the machine's names is made if there is none. Waits for
    /// the disk.
    pub(super) fn certificate(&self) -> Result<PathBuf, FilesError> {
        let mut files = self.files();
        if files.read(CERTIFICATE)?.is_none() {
            write_whole(&mut *files, CERTIFICATE, self_made()?.as_bytes())?;
        }
        Ok(self.folder.join(CERTIFICATE))
    }

    /// Puts the master's certificate there, or says why it is of no use. Waits for the disk.
    pub(super) fn keep_certificate(&self, chain: &str, key: &Key) -> Result<(), String> {
        ServerCertificates::check(chain.as_bytes(), key.reveal().as_bytes())
            .map_err(|error| crate::steward::chain(&error))?;
        let whole = format!("{}\n{}\n", key.reveal().trim(), chain.trim());
        write_whole(&mut *self.files(), CERTIFICATE, whole.as_bytes()).map_err(|error| error.to_string())
    }

    fn files(&self) -> MutexGuard<'_, DirFs> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_uuid(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    text.len() == 36 && text.bytes().all(is_hex)
}

/// A random one (version 4).
fn new_uuid() -> io::Result<String> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let bits = u128::from_be_bytes(random);
    let bits = bits & !(0xf000 << 64) | 0x4000 << 64;
    let bits = bits & !(0xc000 << 48) | 0x8000 << 48;
    let hex = format!("{bits:032x}");
    let at = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    Ok(format!("{}-{}-{}-{}-{}", at(0, 8), at(8, 12), at(12, 16), at(16, 20), at(20, 32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn check_03_the_id_is_the_same_after_a_restart() {
        let folder = std::env::temp_dir().join(format!("fieldgate-mesh-{}", std::process::id()));
        let first = open(folder.clone()).await.unwrap();
        assert!(is_uuid(&first.server_uuid) && first.server_uuid.as_bytes()[14] == b'4');
        assert!(matches!(first.server_uuid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        first.keep("https://m", b"{\"version\":1}").unwrap();
        let id = first.server_uuid.clone();
        drop(first);
        let again = open(folder.clone()).await.unwrap();
        assert_eq!(again.server_uuid, id);
        assert_eq!(again.tables_of("https://m"), Some(&b"{\"version\":1}"[..]));
        assert_eq!(again.tables_of("https://other"), None, "another master's tables mean nothing here");
        drop(again);
        std::fs::write(folder.join(ID), "torn").unwrap();
        assert_ne!(open(folder.clone()).await.unwrap().server_uuid, id);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
