//! Reset by physical presence: a file on the boot partition, which only who holds the machine or its card can put there.

use super::secret::hex;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Most bytes of the file that count; it may be empty.
const LEN_MAX: u64 = 4 << 10;

/// A reset file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResetFile {
    /// Tells it from one that was put there at another time: by when it was written and what is in it.
    pub(super) mark: String,
}

/// Looks for it. A folder of that name, or none that can be read, is no reset file.
pub(super) fn look(path: &Path) -> io::Result<Option<ResetFile>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(LEN_MAX).read_to_end(&mut content)?;
    let mut hash = Sha256::new();
    hash.update(meta.mtime().to_be_bytes());
    hash.update(meta.len().to_be_bytes());
    hash.update(&content);
    Ok(Some(ResetFile { mark: hex(&hash.finalize()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_file_is_known_again_and_told_from_another() {
        let name = format!("fg-reset-{}", hex(&super::super::secret::random::<8>().unwrap()));
        let path = std::env::temp_dir().join(name);
        assert_eq!(look(&path).unwrap(), None);
        std::fs::write(&path, b"").unwrap();
        let first = look(&path).unwrap().unwrap();
        assert_eq!(look(&path).unwrap(), Some(first.clone()));
        std::fs::write(&path, b"again").unwrap();
        assert_ne!(look(&path).unwrap(), Some(first));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(look(&path).unwrap(), None);
        std::fs::remove_dir(&path).unwrap();
    }
}
