//! The last confirmed configs before the one in force, bounded in number and bytes.

use super::Confirmed;
use super::envelope::{Envelope, EnvelopeError, Meta};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most revisions that are kept.
pub const HISTORY_LEN: usize = 32;
/// Most bytes that they may take together, on flash and in memory. A config that is longer is not kept here.
pub const HISTORY_BYTES: usize = 1 << 20;

const PREFIX: &str = "revision-";
const SUFFIX: &str = ".json";

/// A config that was in force once.
#[derive(Debug)]
pub struct Past {
    /// Its origin.
    pub meta: Meta,
    /// Its file. Not parsed until somebody asks.
    bytes: Vec<u8>,
}

impl Past {
    /// From the bytes of a config file.
    pub(super) fn decode(bytes: Vec<u8>) -> Result<Past, EnvelopeError> {
        let meta = Envelope::decode(&bytes)?.meta;
        Ok(Past { meta, bytes })
    }

    /// The config, secrets included; fails if it is of a schema that this build does not read.
    pub fn confirmed(&self) -> Result<Confirmed, EnvelopeError> {
        Envelope::decode(&self.bytes).and_then(Envelope::into_config)
    }
}

/// Past revisions, oldest first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct History(pub(super) VecDeque<Arc<Past>>);

impl History {
    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Past>> {
        self.0.iter()
    }

    /// Takes one more in, if it fits at all, and gives up the oldest: their numbers.
    pub(super) fn add(&mut self, past: Past) -> Vec<u64> {
        if past.bytes.len() > HISTORY_BYTES {
            return Vec::new();
        }
        self.0.push_back(Arc::new(past));
        let mut gone = Vec::new();
        while self.0.len() > HISTORY_LEN || self.bytes() > HISTORY_BYTES {
            gone.extend(self.0.pop_front().map(|past| past.meta.revision));
        }
        gone
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|past| past.bytes.len()).sum()
    }
}

/// The file of a past revision.
pub(super) fn file_of(revision: u64) -> String {
    format!("{PREFIX}{revision}{SUFFIX}")
}

/// The revision whose file has this name.
pub(super) fn revision_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    digits.parse().ok().filter(|revision| file_of(*revision) == name)
}
