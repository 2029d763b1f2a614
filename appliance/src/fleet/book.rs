//! What the fleet's side must not forget: who this gateway is, whom it believes, which bundle it took last.

use super::Way;
use crate::store::{StoreFs, write_whole};
use fieldgate_fleet::{KeyRing, NAME_MAX, Taken, is_name};
use fieldgate_model::Timestamp;
use fieldgate_model::status::Notice;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use tracing::error;

const FILE: &str = "fleet.json";
const BROKEN: &str = "fleet.broken.json";
const SCHEMA: u32 = 1;
/// Reasons that are kept of an outcome.
const REASONS_MAX: usize = 8;
/// Longest of them, in characters.
const REASON_LEN: usize = 400;

/// Why the key ring or the number was not changed.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// Changed in between.
    #[error("the key ring has revision {current} by now: read it again")]
    Stale {
        /// The revision in force.
        current: u64,
    },
    /// Nothing was changed.
    #[error("this cannot be stored, so nothing was changed: {0}")]
    Io(#[from] io::Error),
}

/// What became of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
#[schemars(rename = "BundleOutcome")]
pub enum Outcome {
    /// It is being carried out, or waits for its confirmation.
    UnderWay,
    /// It is the confirmed config.
    Applied {
        /// Its revision.
        revision: u64,
    },
    /// It cannot be applied.
    Refused {
        /// Why.
        reasons: Vec<String>,
    },
    /// It ran and was undone.
    RolledBack {
        /// Why.
        reasons: Vec<String>,
    },
}

impl Outcome {
    pub(super) fn refused(reasons: impl IntoIterator<Item = String>) -> Self {
        Outcome::Refused { reasons: bounded(reasons) }
    }

    pub(super) fn rolled_back(reasons: impl IntoIterator<Item = String>) -> Self {
        Outcome::RolledBack { reasons: bounded(reasons) }
    }
}

fn bounded(reasons: impl IntoIterator<Item = String>) -> Vec<String> {
    reasons.into_iter().take(REASONS_MAX).map(|reason| reason.chars().take(REASON_LEN).collect()).collect()
}

/// The bundle with the highest number so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Last {
    /// What it was.
    pub taken: Taken,
    /// The key that signed it.
    pub key: String,
    /// How it came.
    pub way: Way,
    /// When.
    pub at: Timestamp,
    /// How often it was begun with; more than once if the power failed meanwhile.
    pub attempts: u32,
    /// What became of it.
    pub outcome: Outcome,
}

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Book {
    schema: u32,
    pub(super) device: String,
    pub(super) keys: KeyRing,
    pub(super) keys_revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<Last>,
}

impl Book {
    /// Reads the file, or makes a first one.
    pub(super) fn open(
        files: &mut dyn StoreFs,
        hardware: &Option<String>,
    ) -> io::Result<(Book, Vec<Notice>)> {
        let mut notices = Vec::new();
        if let Some(bytes) = files.read(FILE)? {
            match serde_json::from_slice::<Book>(&bytes) {
                Ok(book) if book.schema == SCHEMA && is_name(&book.device) => return Ok((book, notices)),
                outcome => {
                    // Never an older copy: it would bring back a key that was removed, or a number.
                    let cause = outcome.err().map_or("another schema".to_owned(), |error| error.to_string());
                    error!(
                        cause,
                        "the fleet's key ring cannot be read: no bundle is believed until it is set again"
                    );
                    write_whole(files, BROKEN, &bytes)?;
                    let text =
                        format!("the fleet's key ring was lost ({cause}); set it again, with new keys");
                    notices.push(Notice { code: "fleet_unreadable".to_owned(), text });
                }
            }
        }
        let device = match hardware {
            Some(serial) => format!("fg-{serial}"),
            None => {
                let mut bytes = [0_u8; 6];
                getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
                format!("fg-{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
            }
        };
        let book = Book { schema: SCHEMA, device, keys: KeyRing::default(), keys_revision: 0, last: None };
        book.write(files)?;
        Ok((book, notices))
    }

    pub(super) fn write(&self, files: &mut dyn StoreFs) -> io::Result<()> {
        write_whole(files, FILE, &serde_json::to_vec(self)?)
    }

    pub(super) fn set_keys(&mut self, keys: KeyRing, over: Option<u64>) -> Result<u64, BookError> {
        if over.is_some_and(|over| over != self.keys_revision) {
            return Err(BookError::Stale { current: self.keys_revision });
        }
        self.keys = keys;
        self.keys_revision += 1;
        Ok(self.keys_revision)
    }
}

/// The board's serial number, where the firmware tells one: the same id after the flash was written anew.
pub(super) fn hardware_id() -> Option<String> {
    let text = std::fs::read_to_string("/proc/device-tree/serial-number").ok()?;
    let plain: String = text.chars().filter(|c| c.is_ascii_alphanumeric()).take(NAME_MAX - 3).collect();
    // Boards without one say zeroes.
    plain.bytes().any(|byte| byte != b'0').then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sim::{Fail, SimFs};
    use fieldgate_fleet::Digest;
    use serde_json::json;

    fn taken(number: u64) -> Last {
        Last {
            taken: Taken { number, digest: Digest::of("x"), issued: Timestamp::default() },
            key: "k".to_owned(),
            way: Way::Mqtt,
            at: Timestamp::default(),
            attempts: 1,
            outcome: Outcome::UnderWay,
        }
    }

    fn keys() -> KeyRing {
        serde_json::from_value(json!({"k": "A".repeat(43)})).unwrap()
    }

    #[test]
    fn an_id_is_made_once_and_comes_from_the_board_where_it_can() {
        let mut files = SimFs::default();
        let (first, _) = Book::open(&mut files, &None).unwrap();
        assert!(first.device.len() == 15 && is_name(&first.device), "{}", first.device);
        assert_eq!(Book::open(&mut files, &Some("100".to_owned())).unwrap().0.device, first.device);
        let board = Book::open(&mut SimFs::default(), &Some("10000000abcd".to_owned())).unwrap();
        assert_eq!(board.0.device, "fg-10000000abcd");
    }

    /// A number that was answered must be there after any power cut; a key that was removed must not come back.
    #[test]
    fn after_a_power_cut_at_any_step_there_is_the_old_book_or_the_new_one() {
        let mut files = SimFs::default();
        let (mut book, _) = Book::open(&mut files, &None).unwrap();
        book.set_keys(keys(), None).unwrap();
        book.last = Some(taken(6));
        book.write(&mut files).unwrap();
        let (mut cut, mut is_new) = (0, 0);
        for step in 0..8 {
            // A disk of its own for each cut.
            let Some(mut disk) = files.after_cut().pop() else { panic!("a disk") };
            disk.failing(Fail::CutBefore(step));
            let mut next = book.clone();
            next.last = Some(taken(7));
            let written = next.write(&mut disk).is_ok();
            for mut found in disk.after_cut() {
                found.failing(Fail::Never);
                let (read, notices) = Book::open(&mut found, &None).unwrap();
                let number = read.last.unwrap().taken.number;
                assert!(notices.is_empty() && read.keys == keys());
                assert!(number == 7 || (number == 6 && !written), "step {step}: {number}");
                cut += 1;
                is_new += usize::from(number == 7);
            }
        }
        assert!(cut > 8 && is_new > 0, "{cut} {is_new}");
    }

    #[test]
    fn a_broken_book_believes_nobody_and_is_kept_aside() {
        let mut files = SimFs::default();
        write_whole(&mut files, FILE, b"{\"schema\": 1, \"dev").unwrap();
        let (book, notices) = Book::open(&mut files, &None).unwrap();
        assert!(book.keys.is_empty() && book.last.is_none());
        assert_eq!(notices[0].code, "fleet_unreadable");
        assert!(files.read(BROKEN).unwrap().is_some());
        assert!(Book::open(&mut files, &None).unwrap().1.is_empty(), "told once");
    }

    #[test]
    fn a_key_ring_is_changed_over_what_was_seen() {
        let (mut book, _) = Book::open(&mut SimFs::default(), &None).unwrap();
        assert_eq!(book.set_keys(keys(), Some(0)).unwrap(), 1);
        assert!(matches!(book.set_keys(KeyRing::default(), Some(0)), Err(BookError::Stale { current: 1 })));
        assert!(!book.keys.is_empty());
    }
}
