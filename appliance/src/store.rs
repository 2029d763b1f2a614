//! The config on flash.
//!
//! ```text
//!  write_candidate          promote
//!  candidate.json.tmp  -->  candidate.json  -->  confirmed.json
//!                           previous.json   <--  (its copy, first)
//!                           revision-N.json <--  (another, for the history)
//! ```
//!
//! Each file is written under another name, synced, renamed, and the folder synced: after a power cut at any moment the
//! next boot finds a whole confirmed config, the old or the new one. A candidate that it finds was never confirmed and
//! is dropped. A confirmed file that cannot be read is kept as `confirmed.broken.json` while the previous one serves.
//! Files hold secrets: mode 0600, in a folder of mode 0700.

mod envelope;
mod fs;
mod history;
#[cfg(test)]
pub(crate) mod sim;
#[cfg(test)]
mod tests;

pub use envelope::{EnvelopeError, Meta};
pub use fs::{DirFs, StoreFs, write_whole};
pub use history::{HISTORY_BYTES, HISTORY_LEN, History, Past};

use envelope::Envelope;
use fieldgate_model::config::StoredError;
use fieldgate_model::status::Notice;
use fieldgate_model::{Config, Timestamp};
use history::{file_of, revision_of};
use std::io;

const CONFIRMED: &str = "confirmed.json";
const PREVIOUS: &str = "previous.json";
const CANDIDATE: &str = "candidate.json";
const BROKEN: &str = "confirmed.broken.json";
/// What every name under which a file is first written ends in.
const TEMPORARY: &str = ".tmp";

/// Why the store cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot {action} {file} in the state folder: {source}{}", remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("the state folder {folder} is in use by another gateway; give each its own with --state")]
    Locked {
        /// The folder.
        folder: String,
    },
    /// There was a config, and no copy of it can be read. Never replaced by defaults.
    #[error("no copy of the config can be read ({causes}); give one with --config FILE --replace")]
    Unreadable {
        /// Each file with what is wrong with it.
        causes: String,
    },
    /// The config has no stored form.
    #[error("the config cannot be stored")]
    Stored(#[from] StoredError),
    /// Nothing to promote.
    #[error("there is no candidate to confirm")]
    NoCandidate,
    /// The new config is in place, but the disk did not confirm that it will outlast a power cut.
    #[error("the new config is in place but may not outlast a power cut")]
    NotDurable(#[source] Box<StoreError>),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space there",
        io::ErrorKind::PermissionDenied => "; it must belong to the user that runs the gateway",
        io::ErrorKind::ReadOnlyFilesystem => "; it must be writable",
        _ => "",
    }
}

/// A config that was confirmed, and when by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The config, secrets included.
    pub config: Config,
    /// Its origin.
    pub meta: Meta,
}

/// What a boot finds.
#[derive(Debug)]
pub struct Boot {
    /// The config to run; none in a folder that never had one.
    pub confirmed: Option<Confirmed>,
    /// What somebody should know about how it was found.
    pub notices: Vec<Notice>,
}

/// The config's files. One owner at a time; calls block on the disk.
pub struct Store {
    fs: Box<dyn StoreFs>,
    /// Of the newest config that was ever seen.
    revision: u64,
    candidate: Option<Meta>,
    /// Whether `confirmed.json` holds what is confirmed.
    has_confirmed: bool,
    history: History,
}

impl Store {
    /// Opens the files and finds the config to run, or none in a new folder. Cleans up after a power cut.
    pub fn open(fs: Box<dyn StoreFs>) -> Result<(Store, Boot), StoreError> {
        let mut store = Store::new(fs);
        let mut notices = Vec::new();
        let boot = store.find(&mut notices)?;
        store.clean(&mut notices)?;
        store.read_history(boot.as_ref())?;
        Ok((store, Boot { confirmed: boot, notices }))
    }

    /// Like [`Store::open`], but a config that cannot be read is put aside: for one who brings a new config.
    pub fn open_to_replace(fs: Box<dyn StoreFs>) -> Result<(Store, Boot), StoreError> {
        let mut store = Store::new(fs);
        let mut notices = Vec::new();
        let confirmed = match store.find(&mut notices) {
            Err(StoreError::Unreadable { causes }) => {
                notices.push(Notice { code: "config_unreadable".to_owned(), text: causes });
                None
            }
            found => found?,
        };
        store.clean(&mut notices)?;
        store.read_history(confirmed.as_ref())?;
        Ok((store, Boot { confirmed, notices }))
    }

    fn new(fs: Box<dyn StoreFs>) -> Store {
        Store { fs, revision: 0, candidate: None, has_confirmed: false, history: History::default() }
    }

    /// The configs that were in force before the confirmed one.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Writes a config that is not confirmed yet; one that was written before is replaced.
    pub fn write_candidate(&mut self, config: &Config, by: &str, at: Timestamp) -> Result<Meta, StoreError> {
        let meta = Meta { schema: config.schema, revision: self.revision + 1, by: by.to_owned(), at };
        let bytes = Envelope::encode(&meta, &config.stored()?)?;
        self.write(CANDIDATE, &bytes)?;
        self.candidate = Some(meta.clone());
        Ok(meta)
    }

    /// Makes the candidate the confirmed config. The one before stays as the previous.
    ///
    /// After an error the old config is still the confirmed one, but for [`StoreError::NotDurable`].
    pub fn promote(&mut self) -> Result<Meta, StoreError> {
        let meta = self.candidate.clone().ok_or(StoreError::NoCandidate)?;
        let mut past = None;
        if self.has_confirmed {
            let old = self.read(CONFIRMED)?.unwrap_or_default();
            if old.len() <= HISTORY_BYTES
                && let Ok(decoded) = Past::decode(old.clone())
            {
                self.write(&file_of(decoded.meta.revision), &old)?;
                past = Some(decoded);
            }
            if let Ok(envelope) = Envelope::decode(&old)
                && envelope.meta.schema != meta.schema
            {
                self.write(&schema_file(envelope.meta.schema), &old)?;
            }
            self.write(PREVIOUS, &old)?;
        }
        self.fs.rename(CANDIDATE, CONFIRMED).map_err(failed("rename", CANDIDATE))?;
        self.candidate = None;
        self.revision = meta.revision;
        self.has_confirmed = true;
        for gone in past.map(|past| self.history.add(past)).unwrap_or_default() {
            // One that stays is removed at the next boot.
            self.fs.remove(&file_of(gone)).ok();
        }
        self.sync_dir().map_err(|error| StoreError::NotDurable(Box::new(error)))?;
        Ok(meta)
    }

    /// The config that was written but is not confirmed.
    pub fn candidate(&self) -> Option<&Meta> {
        self.candidate.as_ref()
    }

    /// Forgets the candidate.
    pub fn drop_candidate(&mut self) -> Result<(), StoreError> {
        if self.candidate.take().is_some() {
            self.fs.remove(CANDIDATE).map_err(failed("remove", CANDIDATE))?;
            self.sync_dir()?;
        }
        Ok(())
    }

    /// The newest config that this build can read: the confirmed one, else the previous, else the last of our schema.
    fn find(&mut self, notices: &mut Vec<Notice>) -> Result<Option<Confirmed>, StoreError> {
        let mut causes = Vec::new();
        let mut seen = self.fs.list().map_err(failed("list", "files"))?.iter().any(|name| name == BROKEN);
        for file in [CONFIRMED, PREVIOUS, &schema_file(fieldgate_model::config::SCHEMA)] {
            let Some(bytes) = self.read(file)? else { continue };
            seen = true;
            match Envelope::decode(&bytes).and_then(Envelope::into_config) {
                Ok(confirmed) => {
                    self.has_confirmed = file == CONFIRMED || self.has_confirmed;
                    // The number of what cannot be read is not known; never give it out a second time.
                    let skipped = u64::from(file != CONFIRMED);
                    self.revision = self.revision.max(confirmed.meta.revision + skipped);
                    if file != CONFIRMED {
                        notices.push(served_instead(file, &causes));
                    }
                    return Ok(Some(confirmed));
                }
                Err(error) => {
                    causes.push(format!("{file}: {error}"));
                    if let EnvelopeError::Schema { revision, .. } = error {
                        // Written by a newer build, which may come back: it stays where it is.
                        self.has_confirmed |= file == CONFIRMED;
                        self.revision = self.revision.max(revision);
                    } else if file == CONFIRMED {
                        self.fs.rename(CONFIRMED, BROKEN).map_err(failed("put aside", CONFIRMED))?;
                        self.sync_dir()?;
                    }
                }
            }
        }
        if seen && causes.is_empty() {
            causes.push(format!("only {BROKEN} is there"));
        }
        if seen { Err(StoreError::Unreadable { causes: causes.join("; ") }) } else { Ok(None) }
    }

    /// Removes what a power cut left: a candidate that nobody confirmed, files that were not finished.
    fn clean(&mut self, notices: &mut Vec<Notice>) -> Result<(), StoreError> {
        if let Some(bytes) = self.read(CANDIDATE)? {
            let text = match Envelope::decode(&bytes) {
                Ok(Envelope { meta, .. }) => {
                    self.revision = self.revision.max(meta.revision);
                    format!(
                        "a change by {} of {} was not confirmed before the gateway stopped; it was dropped",
                        meta.by, meta.at
                    )
                }
                Err(_) => "a change was being written when the gateway stopped; it was dropped".to_owned(),
            };
            notices.push(Notice { code: "candidate_dropped".to_owned(), text });
        }
        let names = self.fs.list().map_err(failed("list", "files"))?;
        let stale: Vec<String> =
            names.into_iter().filter(|name| name == CANDIDATE || name.ends_with(TEMPORARY)).collect();
        for name in &stale {
            self.fs.remove(name).map_err(failed("remove", name))?;
        }
        if !stale.is_empty() {
            self.sync_dir()?;
        }
        Ok(())
    }

    /// Past revisions as far as they are whole. One that is not older than what is confirmed was being kept when the
    /// power failed.
    fn read_history(&mut self, confirmed: Option<&Confirmed>) -> Result<(), StoreError> {
        let current = confirmed.map(|confirmed| confirmed.meta.revision);
        let names = self.fs.list().map_err(failed("list", "files"))?;
        let mut revisions: Vec<u64> = names.iter().filter_map(|name| revision_of(name)).collect();
        revisions.sort_unstable();
        let mut useless = Vec::new();
        for revision in revisions {
            // A number is never given twice, also if the config that had it is lost.
            self.revision = self.revision.max(revision);
            let past = self.read(&file_of(revision))?.map(Past::decode);
            match past {
                Some(Ok(past))
                    if past.meta.revision == revision && current.is_none_or(|current| revision < current) =>
                {
                    useless.extend(self.history.add(past));
                }
                _ => useless.push(revision),
            }
        }
        for revision in &useless {
            let file = file_of(*revision);
            self.fs.remove(&file).map_err(failed("remove", &file))?;
        }
        if !useless.is_empty() {
            self.sync_dir()?;
        }
        Ok(())
    }

    fn read(&self, file: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.fs.read(file).map_err(failed("read", file))
    }

    fn write(&mut self, file: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let temporary = format!("{file}{TEMPORARY}");
        let written = self.write_steps(file, &temporary, bytes);
        if written.is_err() {
            // Gives back the space if the disk is full; what remains is removed at the next boot.
            self.fs.remove(&temporary).ok();
        }
        written
    }

    fn write_steps(&mut self, file: &str, temporary: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.fs.write(temporary, bytes).map_err(failed("write", file))?;
        self.fs.sync_file(temporary).map_err(failed("sync", file))?;
        self.fs.rename(temporary, file).map_err(failed("rename", file))?;
        self.sync_dir()
    }

    fn sync_dir(&mut self) -> Result<(), StoreError> {
        self.fs.sync_dir().map_err(failed("sync", "the list of files"))
    }
}

fn failed(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, file: file.to_owned(), source }
}

fn schema_file(schema: u32) -> String {
    format!("schema-{schema}.json")
}

fn served_instead(file: &str, causes: &[String]) -> Notice {
    let why = if causes.is_empty() { format!("{CONFIRMED} is missing") } else { causes.join("; ") };
    Notice {
        code: "config_unreadable".to_owned(),
        text: format!(
            "{file} serves instead of the confirmed config ({why}); check the settings and send them again"
        ),
    }
}
