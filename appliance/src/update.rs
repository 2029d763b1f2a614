//! Firmware updates: a bundle comes in pieces or by URL, RAUC writes it over the slot that does not run, and what
//! delivered before decides whether it is kept.
//!
//! ```text
//!  page, API --pieces--+
//!  USB stick ----------+
//!  config: a URL ------+--> update/bundle.raucb --> system-helper --> RAUC --> the machine starts anew
//!                                                                                  |
//!        all delivers again for `hold` --> marked good            in the new slot: trial
//!        not within `within`, or the gateway crashes --> marked bad, started anew --> the slot from before, with the reason
//! ```
//!
//! What is known of it stands in a file of its own on the data partition, which both slots see.

mod book;
mod fetch;
mod hand_over;
mod judge;
mod keeper;
mod stick;

pub use hand_over::{HandOverError, HandedOver, hand_over};

use crate::clock::timestamp;
use crate::machine::{AskError, Desk, Firmware};
use crate::steward::chain;
use crate::store::{DirFs, StoreError};
use book::{Book, Last, Phase, Upload};
use fieldgate_hub::Clock;
use fieldgate_model::Status;
use fieldgate_model::config::{WantedFirmware, is_version};
use fieldgate_model::status::{Notice, UpdateStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most bytes of a bundle.
pub const BUNDLE_MAX: u64 = 1 << 30;
/// Most bytes of one piece.
pub const PIECE_MAX: u64 = 1 << 20;
/// Longest name that a sender may give his bundle, in bytes.
const LABEL_MAX: usize = 128;
/// Bytes that stay free beside a bundle: settings and what cameras leave behind.
const RESERVE: u64 = 64 << 20;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Not of a size that a bundle can have.
    #[error("size must be 1 to {BUNDLE_MAX} bytes and label at most {LABEL_MAX}, without control characters")]
    Wrong,
    /// Nothing is being sent.
    #[error("no bundle is being sent; begin with POST /api/v1/update/upload")]
    NoUpload,
    /// A piece for another place.
    #[error("the next piece begins at offset {0}")]
    Offset(u64),
    /// More than was said.
    #[error("the bundle has {0} bytes, as was said at its beginning; this piece goes beyond")]
    TooMuch(u64),
    /// The disk.
    #[error("{needed} bytes are needed and {free} can be used; remove recordings, or use a smaller bundle")]
    NoSpace {
        /// Bytes that are missing to the whole.
        needed: u64,
        /// Bytes that are free beyond the reserve.
        free: u64,
    },
    /// Not whole yet.
    #[error("the bundle is not whole: {received} of {size} bytes")]
    NotWhole {
        /// Bytes that are there.
        received: u64,
        /// Bytes that it has.
        size: u64,
    },
    /// One update at a time.
    #[error("version {0} is under way; wait until it is kept or gone")]
    UnderWay(String),
    /// For another kind of machine.
    #[error("the bundle is for {bundle}, and this machine is {own}")]
    OtherMachine {
        /// What it is for.
        bundle: String,
        /// What this is.
        own: String,
    },
    /// A step back, or none.
    #[error("version {version} is not newer than {running}, which runs; ask for it with \"downgrade\": true")]
    NotNewer {
        /// Of the bundle.
        version: String,
        /// Of the machine.
        running: String,
    },
    /// Odd.
    #[error("the bundle's version must be 1 to 64 of the characters A-Z a-z 0-9 . + ~ _ -")]
    OddVersion,
    /// Another one than the config names.
    #[error("the bundle at the URL has version {found}, not {wanted}")]
    OtherVersion {
        /// What it has.
        found: String,
        /// What it should have.
        wanted: String,
    },
    /// Somebody else sends one now.
    #[error("another bundle was begun in between")]
    Replaced,
    /// RAUC, or what leads to it.
    #[error(transparent)]
    Machine(#[from] AskError),
    /// The state folder.
    #[error("cannot store it: {0}")]
    Io(#[from] io::Error),
}

/// A bundle that is announced.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadWish {
    /// Its bytes, 1 to 1,073,741,824.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub size: u64,
    /// What its sender calls it, such as the file's name, so that he knows it again when he goes on. Default: empty.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub label: String,
}

/// What shall be done with a bundle that is whole.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InstallWish {
    /// Takes it also if it is not newer than what runs. Default false.
    pub downgrade: bool,
}

/// A bundle that is being sent, or waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UploadView {
    /// Its bytes; absent while a server has not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes that are there; the next piece begins here.
    pub received: u64,
    /// Whether all of it is there.
    pub complete: bool,
    /// What its sender calls it.
    pub label: String,
    /// Who sends it.
    pub by: String,
}

/// All that is known of the machine's firmware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UpdateView {
    /// Whether this machine can be updated from here.
    pub available: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What RAUC says, a few seconds old at most while somebody looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// The bundle that is being sent, or waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadView>,
    /// What became of the last update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<UpdateStatus>,
    /// During a trial: what delivered before and does not yet. At most 16 are named.
    pub missing: Vec<String>,
    /// Why the firmware that the config wants is not fetched yet; it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_failed: Option<String>,
}

/// What RAUC said last.
#[derive(Default)]
struct Seen {
    firmware: Option<Firmware>,
    cause: Option<String>,
    fetch_failed: Option<String>,
    /// When somebody looked last.
    looked: Option<Instant>,
}

struct Shared {
    folder: PathBuf,
    files: Mutex<DirFs>,
    book: Mutex<Book>,
    seen: Mutex<Seen>,
    /// One piece or installation at a time.
    turn: Mutex<()>,
    machine: Arc<Desk>,
    clock: Clock,
    /// Names this start of the machine.
    boot: String,
    wake: Notify,
    /// RAUC is being asked to begin: what it says of itself is from before.
    is_calling: AtomicBool,
    /// A USB stick is being copied: nothing is fetched meanwhile.
    is_taking: AtomicBool,
}

/// Who wants a bundle installed, as far as it is tried but once.
enum Origin<'a> {
    Person,
    Config(&'a WantedFirmware),
    Stick(&'a stick::Stick),
}

/// The machine's firmware; cheap to clone.
#[derive(Clone)]
pub struct Updates {
    shared: Arc<Shared>,
}

impl Updates {
    /// Opens the folder `update` of the state folder. `boot` names this start of the machine. Blocks on the disk.
    pub fn open(state: &Path, machine: Arc<Desk>, clock: Clock, boot: String) -> Result<Self, StoreError> {
        let folder = state.join("update");
        let files = DirFs::open(&folder)?;
        let book = Book::open(&files).map_err(|source| StoreError::Io {
            action: "read",
            file: folder.display().to_string(),
            source,
        })?;
        let shared = Shared {
            folder,
            files: Mutex::new(files),
            book: Mutex::new(book),
            seen: Mutex::default(),
            turn: Mutex::default(),
            machine,
            clock,
            boot,
            wake: Notify::new(),
            is_calling: AtomicBool::new(false),
            is_taking: AtomicBool::new(false),
        };
        Ok(Updates { shared: Arc::new(shared) })
    }

    /// All that is known. Never waits; RAUC is asked anew for the next who looks.
    pub fn view(&self) -> UpdateView {
        let book = self.book().clone();
        let mut seen = lock(&self.shared.seen);
        let is_first = seen.looked.is_none_or(|at| at.elapsed() > keeper::FRESH);
        seen.looked = Some(Instant::now());
        if is_first {
            self.shared.wake.notify_one();
        }
        let missing = book.last.as_ref().filter(|last| last.is_open()).map(|last| last.missing.clone());
        let mut missing = missing.unwrap_or_default();
        missing.truncate(16);
        UpdateView {
            available: seen.firmware.is_some(),
            cause: seen.cause.clone().filter(|_| seen.firmware.is_none()),
            firmware: seen.firmware.clone(),
            upload: book.upload.as_ref().map(|upload| self.upload_view(upload)),
            last: book.last.as_ref().map(Last::status),
            missing,
            fetch_failed: seen.fetch_failed.clone(),
        }
    }

    /// What became of the last update.
    pub fn last(&self) -> Option<UpdateStatus> {
        self.book().last.as_ref().map(Last::status)
    }

    /// What somebody should know.
    pub fn notices(&self) -> Vec<Notice> {
        let book = self.book();
        let last = book.last.iter().filter(|last| last.phase == Phase::Failed);
        last.map(|last| Notice {
            code: "update_failed".to_owned(),
            text: format!(
                "firmware {} was not kept, and {} runs again: {}",
                last.version,
                last.from,
                last.reason.as_deref().unwrap_or("the reason is not known")
            ),
        })
        .collect()
    }

    /// Begins to take a bundle in; what was being sent before is gone. Blocks on the disk.
    pub fn begin_upload(&self, wish: UploadWish, by: &str) -> Result<UploadView, UpdateError> {
        let _turn = lock(&self.shared.turn);
        let is_odd = wish.label.len() > LABEL_MAX || wish.label.chars().any(char::is_control);
        if is_odd || !(1..=BUNDLE_MAX).contains(&wish.size) {
            return Err(UpdateError::Wrong);
        }
        self.is_free_for_another()?;
        self.clear()?;
        self.has_room(wish.size)?;
        let upload = Upload { size: Some(wish.size), label: wish.label, by: by.to_owned(), tag: None };
        self.edit(|book| book.upload = Some(upload.clone()))?;
        Ok(self.upload_view(&upload))
    }

    /// Takes a piece. Blocks on the disk.
    pub fn take_piece(&self, offset: u64, piece: &[u8]) -> Result<UploadView, UpdateError> {
        let _turn = lock(&self.shared.turn);
        let upload = self.book().upload.clone().ok_or(UpdateError::NoUpload)?;
        self.is_free_for_another()?;
        let received = self.received(&upload);
        if offset != received {
            return Err(UpdateError::Offset(received));
        }
        let end = received.saturating_add(piece.len() as u64);
        if let Some(size) = upload.size.filter(|size| end > *size) {
            return Err(UpdateError::TooMuch(size));
        }
        self.append(&upload, piece)?;
        Ok(self.upload_view(&upload))
    }

    fn append(&self, upload: &Upload, piece: &[u8]) -> Result<(), UpdateError> {
        self.has_room(piece.len() as u64)?;
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(self.part())?;
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(piece) {
            // Half a piece would be taken for a whole one.
            file.set_len(before).ok();
            return Err(error.into());
        }
        if upload.size == Some(before + piece.len() as u64) {
            self.finish(&file)?;
        }
        Ok(())
    }

    /// Whatever is being sent is this from now on; how much of it is there already.
    fn own(&self, upload: &Upload) -> Result<u64, UpdateError> {
        let _turn = lock(&self.shared.turn);
        if self.book().upload.as_ref() != Some(upload) {
            self.clear()?;
            self.edit(|book| book.upload = Some(upload.clone()))?;
        }
        Ok(self.received(upload))
    }

    /// Keeps a piece of what is being sent, if it is still the same. Blocks on the disk.
    fn append_own(&self, upload: &Upload, offset: u64, piece: &[u8]) -> Result<(), UpdateError> {
        let _turn = lock(&self.shared.turn);
        if self.book().upload.as_ref() != Some(upload) || self.received(upload) != offset {
            return Err(UpdateError::Replaced);
        }
        self.append(upload, piece)
    }

    fn finish(&self, file: &File) -> io::Result<()> {
        file.sync_all()?;
        fs::rename(self.part(), self.bundle())
    }

    /// Forgets the bundle that is being sent, or waits. Blocks on the disk.
    pub fn drop_upload(&self) -> Result<(), UpdateError> {
        let _turn = lock(&self.shared.turn);
        self.is_free_for_another()?;
        Ok(self.clear()?)
    }

    /// Has the bundle installed and the machine started in it. For threads outside of a runtime.
    pub fn install_from(
        &self,
        runtime: &Handle,
        wish: InstallWish,
        status: &Status,
        by: &str,
    ) -> Result<(), UpdateError> {
        runtime.block_on(self.install(wish.downgrade, Origin::Person, status, by))
    }

    async fn install(
        &self,
        downgrade: bool,
        origin: Origin<'_>,
        status: &Status,
        by: &str,
    ) -> Result<(), UpdateError> {
        self.is_free_for_another()?;
        let upload = self.book().upload.clone().ok_or(UpdateError::NoUpload)?;
        if !self.bundle().exists() {
            let (received, size) = (self.received(&upload), upload.size.unwrap_or_default());
            return Err(UpdateError::NotWhole { received, size });
        }
        let firmware = self.shared.machine.firmware().await?;
        let bundle = self.shared.machine.inspect_bundle().await?;
        if bundle.compatible != firmware.compatible {
            return Err(UpdateError::OtherMachine { bundle: bundle.compatible, own: firmware.compatible });
        }
        if !is_version(&bundle.version) {
            return Err(UpdateError::OddVersion);
        }
        if let Origin::Config(wanted) = origin
            && wanted.version != bundle.version
        {
            return Err(UpdateError::OtherVersion { found: bundle.version, wanted: wanted.version.clone() });
        }
        let running = firmware.version.clone().unwrap_or_default();
        if !downgrade && judge::compare(&bundle.version, &running) != Ordering::Greater {
            return Err(UpdateError::NotNewer { version: bundle.version, running });
        }
        let last = Last {
            version: bundle.version,
            from: running,
            from_slot: firmware.booted,
            phase: Phase::Installing,
            by: by.to_owned(),
            at: self.now(),
            boot: self.shared.boot.clone(),
            restart: true,
            before: judge::delivering(status),
            ..Last::default()
        };
        // Told before it is so: a power cut in between is found as one that was not finished.
        {
            let _turn = lock(&self.shared.turn);
            self.is_free_for_another()?;
            self.shared.is_calling.store(true, Atomic::SeqCst);
            let stored = self.edit(|book| {
                match origin {
                    Origin::Person => {}
                    Origin::Config(wanted) => book.tried = Some(wanted.clone()),
                    Origin::Stick(stick) => book.stick = Some(stick.tried(&last.version, None)),
                }
                book.last = Some(last);
            });
            if let Err(error) = stored {
                self.shared.is_calling.store(false, Atomic::SeqCst);
                return Err(error.into());
            }
        }
        tracing::info!(by, "new firmware is being installed");
        let begun = self.shared.machine.install_bundle().await;
        self.shared.is_calling.store(false, Atomic::SeqCst);
        if let Err(error) = &begun {
            self.end(Phase::Refused, Some(chain(error)))?;
        }
        self.shared.wake.notify_one();
        Ok(begun?)
    }

    fn end(&self, phase: Phase, reason: Option<String>) -> io::Result<()> {
        let at = self.now();
        self.edit(|book| {
            if let Some(last) = &mut book.last {
                (last.phase, last.reason, last.at) = (phase, reason, at);
            }
        })
    }

    fn is_free_for_another(&self) -> Result<(), UpdateError> {
        match self.book().last.as_ref().filter(|last| last.is_open()) {
            Some(last) => Err(UpdateError::UnderWay(last.version.clone())),
            None => Ok(()),
        }
    }

    fn clear(&self) -> io::Result<()> {
        for file in [self.part(), self.bundle()] {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.edit(|book| book.upload = None)
    }

    fn has_room(&self, needed: u64) -> Result<(), UpdateError> {
        let there = rustix::fs::statvfs(&self.shared.folder).map_err(io::Error::from)?;
        let free = there.f_bavail.saturating_mul(there.f_frsize).saturating_sub(RESERVE);
        if needed > free { Err(UpdateError::NoSpace { needed, free }) } else { Ok(()) }
    }

    fn part(&self) -> PathBuf {
        self.shared.folder.join("bundle.part")
    }

    fn bundle(&self) -> PathBuf {
        self.shared.folder.join("bundle.raucb")
    }

    fn received(&self, upload: &Upload) -> u64 {
        let len = |file: PathBuf| fs::metadata(file).map(|it| it.len());
        len(self.bundle()).or_else(|_| len(self.part())).unwrap_or(0).min(upload.size.unwrap_or(u64::MAX))
    }

    fn upload_view(&self, upload: &Upload) -> UploadView {
        UploadView {
            size: upload.size,
            received: self.received(upload),
            complete: self.bundle().exists(),
            label: upload.label.clone(),
            by: upload.by.clone(),
        }
    }

    fn now(&self) -> fieldgate_model::Timestamp {
        timestamp(&self.shared.clock)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.shared.book)
    }

    /// On flash first, then in force. Nothing is written where nothing differs.
    fn edit(&self, change: impl FnOnce(&mut Book)) -> io::Result<()> {
        let mut files = lock(&self.shared.files);
        let mut book = self.book().clone();
        change(&mut book);
        if book != *self.book() {
            book.write(&mut *files)?;
            *self.book() = book;
        }
        Ok(())
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
