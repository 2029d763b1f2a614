//! A mountpoint's place in the hub, and the end of streams under templates that nobody feeds any more.

use super::Wiring;
use crate::supervisor::{ChildContext, ChildError, MountpointSettings};
use fieldgate_hub::{Bound, Limits, Mountpoint, Retry, StreamState};
use std::time::Duration;
use tracing::debug;

/// How long a stream under a template may stand without a publisher before it is given up.
const UNUSED: Duration = Duration::from_secs(20);

impl Wiring {
    pub(super) async fn mountpoint(
        &self,
        name: String,
        settings: MountpointSettings,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let limits = Limits {
            bound: Bound {
                bytes: usize::try_from(settings.ring.bytes).unwrap_or(usize::MAX),
                age: settings.ring.age.get(),
            },
            grace: settings.grace.get(),
            max_lag: settings.max_lag.get(),
        };
        let mountpoint = self
            .context
            .registry
            .add(&name, limits)
            .map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        self.masks.guard(&mountpoint);
        // Also when this future is dropped: the name must be free again.
        let registered = Registered { wiring: self, name: &name };
        child.ready.ready();
        tokio::select! {
            () = child.cancel.cancelled() => {}
            () = mountpoint.keep() => {}
            () = self.retire_when_unused(&mountpoint) => child.cancel.cancelled().await,
        }
        drop(registered);
        Ok(())
    }

    /// Ends when a stream under a template has been without a publisher for long enough, having asked for its removal.
    async fn retire_when_unused(&self, mountpoint: &Mountpoint) {
        let mut state = mountpoint.state();
        loop {
            let unused = async {
                // The sender lives in the mountpoint, which outlives this borrow.
                let _ = state.wait_for(|state| *state == StreamState::Idle).await;
                tokio::time::sleep(UNUSED).await;
            };
            unused.await;
            if *mountpoint.state().borrow() != StreamState::Idle {
                continue;
            }
            let Some(supervisor) = self.admission.supervisor() else { continue };
            if supervisor.snapshot().instances.contains_key(mountpoint.name()) {
                debug!(mountpoint = mountpoint.name(), "stream under a template ended");
                supervisor.retire(mountpoint.name()).await;
                return;
            }
        }
    }
}

struct Registered<'a> {
    wiring: &'a Wiring,
    name: &'a str,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.wiring.context.registry.remove(self.name);
    }
}
