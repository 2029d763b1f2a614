//! The sender's side of the truth: what it told the ledger, and what its backlog took and lost.

use fieldgate_hub::backlog::{BacklogError, Batch, Held, Keeping, Lost, Reading, Stored};
use fieldgate_hub::ledger::{Fate, LedgerKey, Stretch};
use fieldgate_hub::{Backlog, LedgerKeeper};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Writes down what a ledger is told, track by track, in order.
#[derive(Default)]
pub(crate) struct Told(Mutex<BTreeMap<String, Vec<(Fate, Stretch)>>>);

impl LedgerKeeper for Told {
    fn settle(&self, key: &LedgerKey, fate: Fate, stretch: Stretch) {
        self.0.lock().unwrap().entry(key.track.clone()).or_default().push((fate, stretch));
    }
    fn pending(&self, _: &LedgerKey, _: Option<Stretch>) {}
    fn resume(&self, _: &LedgerKey, _: Option<Stretch>) {}
}

impl Told {
    /// What was told of a track.
    pub(crate) fn of(&self, track: &str) -> Vec<(Fate, Stretch)> {
        self.0.lock().unwrap().get(track).cloned().unwrap_or_default()
    }

    /// Frames of a track whose fate was told.
    pub(crate) fn settled(&self, track: &str) -> u64 {
        self.of(track).iter().map(|(_, stretch)| stretch.frames).sum()
    }

    /// Frames of a track that were told to be delivered.
    pub(crate) fn delivered(&self, track: &str) -> u64 {
        let told = self.of(track).into_iter();
        told.filter(|(fate, _)| *fate == Fate::Delivered).map(|(_, stretch)| stretch.frames).sum()
    }
}

/// A backlog that is watched.
pub(crate) struct Watched<B> {
    pub(crate) inner: B,
    ids: Mutex<Vec<u64>>,
    losses: Mutex<Vec<Lost>>,
}

impl<B> Watched<B> {
    pub(crate) fn new(inner: B) -> Arc<Self> {
        Arc::new(Watched { inner, ids: Mutex::default(), losses: Mutex::default() })
    }

    /// Ids of the frames in the order in which they came.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.ids.lock().unwrap().clone()
    }

    /// What it said to have lost so far.
    pub(crate) fn losses(&self) -> Vec<Lost> {
        self.losses.lock().unwrap().clone()
    }
}

impl<B: Backlog> Backlog for Watched<B> {
    fn append(&self, packet: Stored) -> Result<(), BacklogError> {
        if packet.is_frame() {
            self.ids.lock().unwrap().push(packet.id);
        }
        self.inner.append(packet)
    }
    fn release(&self, before_id: u64) {
        self.inner.release(before_id);
    }
    fn read(&self, from_id: u64, max_bytes: usize) -> Reading {
        self.inner.read(from_id, max_bytes)
    }
    fn read_memory(&self, from_id: u64, max_bytes: usize) -> Option<Batch> {
        self.inner.read_memory(from_id, max_bytes)
    }
    fn held(&self) -> Held {
        self.inner.held()
    }
    fn take_losses(&self) -> Vec<Lost> {
        let losses = self.inner.take_losses();
        self.losses.lock().unwrap().extend(losses.clone());
        losses
    }
    fn keeping(&self) -> Keeping {
        self.inner.keeping()
    }
    fn keep_note(&self, note: bytes::Bytes) {
        self.inner.keep_note(note);
    }
    fn note(&self) -> (bytes::Bytes, bool) {
        self.inner.note()
    }
}
