//! What the trials of the encoders said, kept over restarts: a machine that comes back from a power cut has its first
//! picture sooner, as it need not try them again.

use super::{Found, encoder_devices};
use crate::steward::chain;
use crate::store::{DirFs, StoreError, StoreFs as _, write_whole};
use fieldgate_model::job::EncoderTrial;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing::{info, warn};

const NAME: &str = "trials.json";

/// What the trials depend on; whatever of it changes, they are made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    /// The program: its version, bytes and date.
    program: String,
    /// The kernel's release and build, and the kind of machine.
    kernel: String,
    /// The device files that encoders may need.
    devices: Vec<PathBuf>,
}

impl Machine {
    pub(super) fn here() -> Machine {
        let file = std::env::current_exe().and_then(std::fs::metadata).ok();
        let (bytes, date) = file.map_or((0, 0), |file| (file.len(), file.mtime()));
        let system = rustix::system::uname();
        let words = [system.release(), system.version(), system.machine()];
        Machine {
            program: format!("{} {bytes} {date}", env!("CARGO_PKG_VERSION")),
            kernel: words.map(|word| word.to_string_lossy()).join(" "),
            devices: encoder_devices(Path::new("/")),
        }
    }
}

/// What was measured on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memo {
    pub(super) machine: Machine,
    pub(super) encoders: Vec<EncoderTrial>,
    pub(super) decoders: Vec<EncoderTrial>,
}

/// Where it is kept.
#[derive(Clone)]
pub(super) struct Memory {
    files: Arc<Mutex<DirFs>>,
    /// What the file shall be; writers take it from here, so that the last wish is the one that lasts.
    wanted: Arc<Mutex<Option<Memo>>>,
}

impl Memory {
    /// Opens the folder, and reads what was seen on this very machine. Blocks on the disk.
    pub(super) fn open(folder: &Path, machine: &Machine) -> Result<(Memory, Option<Memo>), StoreError> {
        let files = DirFs::open(folder)?;
        // One that cannot be read is as good as none.
        let bytes = files.read(NAME).ok().flatten().unwrap_or_default();
        let memo = serde_json::from_slice::<Memo>(&bytes).ok();
        let memo = memo.filter(|memo| memo.machine == *machine && Found::among(&memo.encoders).is_some());
        if let Some(found) = memo.as_ref().and_then(|memo| Found::among(&memo.encoders)) {
            info!(encoder = found.name, "the encoder is known from an earlier start");
        }
        Ok((Memory { files: Arc::new(Mutex::new(files)), wanted: Arc::new(Mutex::new(memo.clone())) }, memo))
    }

    /// Keeps this, or nothing more. The disk is written in the background.
    pub(super) fn keep(&self, memo: Option<Memo>) {
        {
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if *wanted == memo {
                return;
            }
            *wanted = memo;
        }
        let memory = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = memory.write() {
                warn!(
                    error = chain(&error),
                    "what is known of the encoders is not kept; the next start tries them again"
                );
            }
        });
    }

    fn write(&self) -> std::io::Result<()> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match wanted {
            Some(memo) => write_whole(&mut *files, NAME, &serde_json::to_vec_pretty(&memo)?),
            None => files.remove(NAME),
        }
    }
}
