//! Privacy masks of all mountpoints: kept on flash beside the config, never rolled back, in force at once.
//!
//! ```text
//!  set: file (temporary, sync, rename, sync) -> known -> mountpoint cut -> answered; the source starts anew with them
//! ```
//! A file that cannot be read never means "no masks": what it held is not known, and cameras stay off until their masks
//! are set again.

use super::capacity::Capacity;
use crate::store::{DirFs, StoreError, StoreFs, write_whole};
use fieldgate_hub::{Mountpoint, Registry};
use fieldgate_model::masks::{MASKS_MAX, Masks};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tracing::{error, info};

const FILE: &str = "masks.json";
const BROKEN: &str = "masks.broken.json";
const SCHEMA: u32 = 1;
/// More mountpoints than a config may have.
const MOUNTPOINTS_MAX: usize = 4_096;

/// One mountpoint's masks, and how often they were set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskView {
    /// The ETag's number; 0 before they were first set.
    pub revision: u64,
    /// Those in force.
    pub masks: Masks,
    /// When one was last added, microseconds since 1970: what was captured before shows more than anybody may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tightened_unix_micros: Option<i64>,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    schema: u32,
    /// An older file could not be read: who is not named here may have had masks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lost: Option<String>,
    mountpoints: BTreeMap<String, MaskView>,
}

/// Why masks were not set, or are not known.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    /// Somebody else changed them.
    #[error("the masks have revision {current} by now: read them again and set them anew")]
    Stale {
        /// The revision in force.
        current: u64,
    },
    /// Not on flash, so not in force.
    #[error("the masks cannot be stored: {0}")]
    Io(#[from] std::io::Error),
    /// More names than any config has.
    #[error("masks of {MOUNTPOINTS_MAX} mountpoints are kept already")]
    TooMany,
    /// The file could not be read.
    #[error(
        "what masks it had is not known ({cause}), so it stays off: set its masks again, also an empty list"
    )]
    Lost {
        /// What is wrong with the file.
        cause: String,
    },
}

/// All masks. Set and asked for from any thread.
pub struct MaskDesk {
    files: Mutex<Box<dyn StoreFs>>,
    known: watch::Sender<Arc<Known>>,
    /// Counts cuts; told after each.
    cuts: watch::Sender<u64>,
    /// Who holds units outside the rings: of which mountpoint, and since which tightening.
    held: watch::Sender<Vec<(String, Option<i64>)>>,
    registry: Arc<Registry>,
    capacity: Arc<Capacity>,
}

impl MaskDesk {
    /// Reads the masks from a folder of their own.
    pub fn open(folder: &Path, registry: Arc<Registry>, capacity: Arc<Capacity>) -> Result<Self, StoreError> {
        Ok(Self::with_files(Box::new(DirFs::open(folder)?), registry, capacity))
    }

    /// For tests: nothing is kept.
    #[cfg(test)]
    pub(crate) fn in_memory(registry: Arc<Registry>, capacity: Arc<Capacity>) -> Self {
        Self::with_files(Box::new(crate::store::sim::SimFs::default()), registry, capacity)
    }

    fn with_files(mut files: Box<dyn StoreFs>, registry: Arc<Registry>, capacity: Arc<Capacity>) -> Self {
        let known = read(files.as_mut());
        for (name, view) in &known.mountpoints {
            capacity.note_masks(name, view.masks.len());
        }
        MaskDesk {
            files: Mutex::new(files),
            known: watch::Sender::new(Arc::new(known)),
            cuts: watch::Sender::new(0),
            held: watch::Sender::new(Vec::new()),
            registry,
            capacity,
        }
    }

    /// The masks in force, and their revision.
    pub fn view(&self, mountpoint: &str) -> MaskView {
        self.known.borrow().mountpoints.get(mountpoint).cloned().unwrap_or_default()
    }

    /// The masks that must be burnt in. Fails when that is not known.
    pub fn of(&self, mountpoint: &str) -> Result<Masks, MaskError> {
        let known = self.known.borrow();
        match (known.mountpoints.get(mountpoint), &known.lost) {
            (Some(view), _) => Ok(view.masks.clone()),
            (None, None) => Ok(Masks::none()),
            (None, Some(cause)) => Err(MaskError::Lost { cause: cause.clone() }),
        }
    }

    /// Sets them over the revision that was seen, and puts them in force: when this returns nobody gets any more of the
    /// stream as it was, and the new revision is durable.
    pub fn set(&self, mountpoint: &str, over: u64, masks: Masks) -> Result<u64, MaskError> {
        let mut files = lock(&self.files);
        let before = self.known.borrow().clone();
        let current = before.mountpoints.get(mountpoint).map_or(0, |view| view.revision);
        if current != over {
            return Err(MaskError::Stale { current });
        }
        let mut next = Known::clone(&before);
        if next.mountpoints.len() >= MOUNTPOINTS_MAX && !next.mountpoints.contains_key(mountpoint) {
            return Err(MaskError::TooMany);
        }
        let count = masks.len();
        let old = before.mountpoints.get(mountpoint);
        let is_new = |mask| old.is_none_or(|old| !old.masks.iter().any(|known| known == mask));
        let tightened = match masks.iter().any(is_new) {
            // Always another one than before, whatever the clock says.
            true => Some(self.capacity.unix_micros().max(self.tightened(mountpoint).map_or(0, |at| at + 1))),
            false => self.tightened(mountpoint),
        };
        let view = MaskView { revision: current + 1, masks, tightened_unix_micros: tightened };
        next.mountpoints.insert(mountpoint.to_owned(), view);
        write(files.as_mut(), &next)?;
        self.known.send_replace(Arc::new(next));
        self.capacity.note_masks(mountpoint, count);
        self.enforce(mountpoint);
        info!(mountpoint, masks = count, "masks set");
        Ok(current + 1)
    }

    /// Makes a mountpoint that has just come into being refuse what is not masked as it must be.
    pub fn guard(&self, mountpoint: &Mountpoint) {
        let is_masked = !self.of(mountpoint.name()).is_ok_and(|masks| masks.is_empty());
        mountpoint.set_masked(is_masked);
        if is_masked {
            // Whoever was quicker.
            mountpoint.cut();
        }
    }

    /// Waits until this mountpoint's stream is cut.
    pub async fn cut_since(&self, mountpoint: &Mountpoint, epoch: u64) {
        let mut cuts = self.cuts.subscribe();
        // The sender lives as long as this.
        let _ = cuts.wait_for(|_| mountpoint.epoch() != epoch).await;
    }

    /// When a mask was last added: what was captured up to then must go nowhere.
    pub(super) fn tightened(&self, mountpoint: &str) -> Option<i64> {
        self.known.borrow().mountpoints.get(mountpoint).and_then(|view| view.tightened_unix_micros)
    }

    /// Waits until a mask is added after that.
    pub(super) async fn tightened_since(&self, mountpoint: &str, before: Option<i64>) {
        let mut known = self.known.subscribe();
        let at =
            |known: &Known| known.mountpoints.get(mountpoint).and_then(|view| view.tightened_unix_micros);
        // The sender lives as long as this.
        known.wait_for(|known| at(known) != before).await.map(drop).ok();
    }

    /// Makes known that somebody keeps units of this mountpoint outside its ring, until this is dropped. To be called
    /// before any is taken.
    pub(super) fn holding(self: &Arc<Self>, mountpoint: &str) -> Holding {
        let entry = (mountpoint.to_owned(), self.tightened(mountpoint));
        self.held.send_modify(|held| held.push(entry.clone()));
        Holding { desk: self.clone(), entry }
    }

    /// Waits until nobody keeps units from before the last mask was added.
    pub async fn let_go(&self, mountpoint: &str) {
        let now = self.tightened(mountpoint);
        let is_old = |(name, since): &(String, Option<i64>)| name == mountpoint && *since < now;
        // The sender lives as long as this.
        self.held.subscribe().wait_for(|held| !held.iter().any(is_old)).await.map(drop).ok();
    }

    fn enforce(&self, name: &str) {
        let of_it = |known: &str| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('~'));
        for mountpoint in self.registry.all() {
            if mountpoint.name() == name {
                let is_masked = !self.of(name).is_ok_and(|masks| masks.is_empty());
                mountpoint.set_masked(is_masked);
                mountpoint.cut();
            } else if of_it(mountpoint.name()) {
                mountpoint.cut();
            }
        }
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Somebody keeps units outside a ring, as they were under the masks of that time.
pub(super) struct Holding {
    desk: Arc<MaskDesk>,
    entry: (String, Option<i64>),
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.desk.held.send_modify(|held| {
            if let Some(at) = held.iter().position(|entry| *entry == self.entry) {
                held.swap_remove(at);
            }
        });
    }
}

fn read(files: &mut dyn StoreFs) -> Known {
    let nothing = || Known { schema: SCHEMA, ..Known::default() };
    let cause = match files.read(FILE) {
        Ok(None) => return nothing(),
        Ok(Some(bytes)) => match serde_json::from_slice::<Known>(&bytes) {
            Ok(known) if known.schema == SCHEMA => return known,
            Ok(known) => format!("the file has schema {}, this build reads {SCHEMA}", known.schema),
            Err(error) => {
                // For whoever looks into it; the cause is shown in any case.
                let _ = files.write(BROKEN, &bytes);
                error.to_string()
            }
        },
        Err(error) => error.to_string(),
    };
    error!(cause, "the masks cannot be read: cameras stay off until their masks are set again");
    Known { lost: Some(cause), ..nothing() }
}

fn write(files: &mut dyn StoreFs, known: &Known) -> std::io::Result<()> {
    write_whole(files, FILE, &serde_json::to_vec(known)?)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The longest body that masks may have: all that are allowed, each with all its corners.
pub const BODY_MAX: u64 = MASKS_MAX as u64 * 64 * 64 + 4_096;

#[cfg(test)]
mod tests;
