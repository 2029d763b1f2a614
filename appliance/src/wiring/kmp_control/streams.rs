//! Mountpoints of streams that only a controller's application knows: made for a publisher, gone with it.

use fieldgate_hub::{Bound, Limits, Mountpoint, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What such a stream's ring holds: its KMP tracks take every unit at once and keep what they need.
const RING: Bound = Bound { bytes: 4 << 20, age: Duration::from_secs(4) };

/// The names of such streams that are being published, by application.
type Names = BTreeMap<String, BTreeSet<String>>;

/// All such streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    names: Arc<Mutex<Names>>,
    last: AtomicU64,
}

/// A stream's name, as long as it is published.
pub(super) struct Name {
    application: String,
    stream: String,
    names: Arc<Mutex<Names>>,
}

/// A stream's mountpoint, as long as its tracks have something to deliver.
pub(super) struct Place {
    mountpoint: Arc<Mountpoint>,
    registry: Arc<Registry>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoPlace {
    /// The name is taken.
    #[error("a stream of that name is being published")]
    Taken,
    /// As many as permitted are there.
    #[error("the application has its {0} streams already")]
    Full(u32),
}

impl Streams {
    /// Makes a place for a stream. The mountpoint's name is one that no mountpoint of the config can have; while the
    /// receivers of an earlier stream of that name are still served, it gets a number.
    pub(super) fn place(
        &self,
        registry: &Arc<Registry>,
        application: &str,
        stream: &str,
        max: u32,
    ) -> Result<(Name, Place), NoPlace> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.entry(application.to_owned()).or_default();
        if known.contains(stream) {
            return Err(NoPlace::Taken);
        }
        if known.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(NoPlace::Full(max));
        }
        let limits = Limits { bound: RING, grace: Duration::ZERO, ..Limits::default() };
        let plain = format!("{application}/{stream}");
        let added = registry.add(&plain, limits.clone()).or_else(|_| {
            let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
            registry.add(&format!("{plain}#{number}"), limits)
        });
        let mountpoint = added.map_err(|_| NoPlace::Taken)?;
        known.insert(stream.to_owned());
        let name = Name {
            application: application.to_owned(),
            stream: stream.to_owned(),
            names: self.names.clone(),
        };
        Ok((name, Place { mountpoint, registry: registry.clone() }))
    }
}

impl Place {
    /// The mountpoint.
    pub(super) fn mountpoint(&self) -> &Arc<Mountpoint> {
        &self.mountpoint
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.remove(self.mountpoint.name());
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get_mut(&self.application) {
            known.remove(&self.stream);
            if known.is_empty() {
                names.remove(&self.application);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_while_it_is_published_and_an_application_can_be_full() {
        let registry = Arc::new(Registry::new(1, Arc::new(())));
        let streams = Streams::default();
        let place = |app, stream| streams.place(&registry, app, stream, 2);
        let (name, one) = place("fast", "a \"b\"").ok().unwrap();
        assert_eq!(one.mountpoint().name(), "fast/a \"b\"");
        assert_eq!(place("fast", "a \"b\"").err(), Some(NoPlace::Taken));
        let _two = place("fast", "c").ok().unwrap();
        assert_eq!(place("fast", "d").err(), Some(NoPlace::Full(2)));
        assert!(place("slow", "d").is_ok(), "others have room");
        drop(name);
        let again = place("fast", "a \"b\"").ok().unwrap();
        assert_ne!(
            again.1.mountpoint().name(),
            one.mountpoint().name(),
            "the first one's receivers are served yet"
        );
        let name = one.mountpoint().name().to_owned();
        drop(one);
        assert!(registry.get(&name).is_none());
    }
}
