//! What somebody may have begin anew.

use crate::admin::api::Restarts;
use crate::supervisor::{ChildKey, SupervisorHandle};
use crate::wiring::Wiring;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// How somebody has something begin anew.
pub(super) struct Beginnings {
    pub(super) wiring: Wiring,
    pub(super) supervisor: SupervisorHandle,
    pub(super) runtime: Handle,
    /// None: nobody would start the program again.
    pub(super) program: Option<Arc<Notify>>,
}

impl Restarts for Beginnings {
    fn source(&self, name: &str) -> bool {
        let Some(mountpoint) = self.wiring.context.registry.get(name) else { return false };
        if self.wiring.sight.mending.restart(name) {
            return true;
        }
        let key = ChildKey::Source(name.to_owned());
        if self.supervisor.snapshot().children.contains_key(&key) {
            let supervisor = self.supervisor.clone();
            // It waits to be tried again; the inbox may be full for a moment.
            drop(self.runtime.spawn(async move { supervisor.retry_now(key).await }));
        } else {
            // Whoever publishes comes back by himself.
            mountpoint.kick();
        }
        true
    }

    fn program(&self) -> bool {
        if let Some(program) = &self.program {
            program.notify_one();
        }
        self.program.is_some()
    }
}
