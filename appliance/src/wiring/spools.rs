//! Backlogs on disk for the upstreams that ask for one.

use super::Wiring;
use crate::supervisor::ChildError;
use fieldgate_hub::backlog::Budget;
use fieldgate_hub::{Backlog, Retry};
use fieldgate_model::config::{Push, Spool as SpoolConfig};
use fieldgate_spool::{Settings, SpoolKey};
use std::sync::Arc;

impl Wiring {
    /// The backlog of one track of a push, if the config asks for one on disk. Has what it held before the last stop.
    pub(super) async fn backlog(
        &self,
        mountpoint: &str,
        push: &Push,
        track: &str,
    ) -> Result<Option<Arc<dyn Backlog>>, ChildError> {
        let Some(config) = &push.spool else { return Ok(None) };
        let key = SpoolKey {
            mountpoint: mountpoint.to_owned(),
            upstream: push.effective_id(),
            track: track.to_owned(),
        };
        let opened = self.spool.open(key, settings(config)).await;
        // A push that is being replaced may hold it for a moment yet.
        let backlog = opened.map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        Ok(Some(Arc::new(backlog)))
    }
}

fn settings(config: &SpoolConfig) -> Settings {
    Settings {
        budget: Budget { bytes: config.bytes, age: config.age.get() },
        batch_interval: config.sync.get(),
        ..Settings::default()
    }
}
