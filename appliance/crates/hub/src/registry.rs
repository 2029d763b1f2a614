//! All mountpoints by name.

use crate::mountpoint::{Limits, Mountpoint};
use crate::wire::WireForm;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Why a mountpoint can't be added.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RegistryError {
    /// The name is taken.
    #[error("a mountpoint named {name} exists already")]
    Exists {
        /// The name.
        name: String,
    },
}

/// The mountpoint that a name belongs to: its own, or, of a rendition (`gate~h264`), the one that it is made of.
pub fn origin_of(name: &str) -> &str {
    name.split_once('~').map_or(name, |(of, _)| of)
}

/// All mountpoints by name, spread over the shards. Renditions live on the shard of what they are made of.
pub struct Registry {
    mountpoints: RwLock<BTreeMap<String, Arc<Mountpoint>>>,
    shards: usize,
    wire: Arc<dyn WireForm>,
}

impl Registry {
    /// An empty registry for that many shards.
    pub fn new(shards: usize, wire: Arc<dyn WireForm>) -> Self {
        Registry { mountpoints: RwLock::default(), shards: shards.max(1), wire }
    }

    /// Adds a mountpoint.
    pub fn add(&self, name: &str, limits: Limits) -> Result<Arc<Mountpoint>, RegistryError> {
        let mut mountpoints = self.mountpoints.write().unwrap_or_else(PoisonError::into_inner);
        if mountpoints.contains_key(name) {
            return Err(RegistryError::Exists { name: name.to_owned() });
        }
        let mountpoint = Mountpoint::new(name.to_owned(), self.shard_of(name), limits, self.wire.clone());
        mountpoints.insert(name.to_owned(), mountpoint.clone());
        Ok(mountpoint)
    }

    /// A mountpoint beside this one that nobody finds and nobody feeds: for an output that has to wait for what it needs.
    pub fn detached(&self, beside: &Mountpoint) -> Arc<Mountpoint> {
        let name = format!("{}~", beside.name());
        Mountpoint::new(name, beside.shard(), beside.limits(), self.wire.clone())
    }

    /// Removes a mountpoint and sends everyone on it away.
    pub fn remove(&self, name: &str) {
        let removed = self.mountpoints.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(mountpoint) = removed {
            mountpoint.close();
        }
    }

    /// The mountpoint of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Mountpoint>> {
        self.mountpoints.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All, by name.
    pub fn all(&self) -> Vec<Arc<Mountpoint>> {
        self.mountpoints.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// FNV-1a over the name: the same shard after every start, and an even spread.
    fn shard_of(&self, name: &str) -> usize {
        let hash = origin_of(name).bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        usize::try_from(hash % self.shards as u64).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_once_and_free_again_after_removal() {
        let registry = Registry::new(4, Arc::new(()));
        let yard = registry.add("yard", Limits::default()).unwrap();
        assert!(yard.shard() < 4);
        let (rendition, detached) = (registry.add("yard~h264", Limits::default()), registry.detached(&yard));
        assert_eq!([rendition.unwrap().shard(), detached.shard()], [yard.shard(); 2], "on the same thread");
        assert_eq!(["yard", "yard~h264", detached.name()].map(origin_of), ["yard"; 3]);
        assert!(registry.add("yard", Limits::default()).is_err());
        registry.remove("yard");
        assert!(yard.closed().is_cancelled());
        assert!(registry.get("yard").is_none());
        registry.add("yard", Limits::default()).unwrap();
    }
}
