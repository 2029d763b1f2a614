//! Ties "may this peer publish or play?" to the config in force and to the supervisor, which come to life after it.

use crate::admit::{ConfigAdmit, Instances};
use crate::supervisor::SupervisorHandle;
use fieldgate_hub::{Admit, Registry, Request, Verdict};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Says no to everybody until it is told who decides. Keeps in mind who was admitted with what, so that a key or list that
/// is tightened also counts for those who are there already.
#[derive(Default)]
pub struct Admission {
    decides: OnceLock<(ConfigAdmit, SupervisorHandle)>,
    admitted: Mutex<Vec<Admitted>>,
}

/// A peer that was admitted; as many as there are connections, and those that left since the last was added.
struct Admitted {
    /// What it asked for, without the token of its own.
    request: Request,
    /// Gone with the peer.
    revoked: Weak<CancellationToken>,
}

impl Admission {
    /// From now on the supervisor's config decides.
    pub fn decide_by(&self, supervisor: SupervisorHandle, registry: Arc<Registry>) {
        let instances = Arc::new(Streams { supervisor: supervisor.clone(), registry });
        let admit = ConfigAdmit::new(supervisor.config(), instances);
        // Set once, when the gateway starts.
        self.decides.set((admit, supervisor)).ok();
    }

    /// Sends away who would not be admitted any more. To be called after each change of the config.
    pub fn enforce(&self) {
        let Some((admit, _)) = self.decides.get() else { return };
        self.lock().retain(|admitted| {
            let Some(revoked) = admitted.revoked.upgrade() else { return false };
            let Request { action, peer, name, .. } = &admitted.request;
            let Err(cause) = admit.still_admits(&admitted.request) else { return true };
            warn!(%peer, ?action, mountpoint = name, cause, "no longer admitted, sent away");
            revoked.cancel();
            false
        });
    }

    /// Keeps a peer in mind; an error if the config changed while it was being judged.
    fn note(
        &self,
        admit: &ConfigAdmit,
        request: Request,
        revoked: Weak<CancellationToken>,
    ) -> Result<(), String> {
        let mut admitted = self.lock();
        admitted.retain(|admitted| admitted.revoked.strong_count() > 0);
        // Under the lock: what changes after this is seen by `enforce`.
        admit.still_admits(&request)?;
        admitted.push(Admitted { request, revoked });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Admitted>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The supervisor, once there is one.
    pub fn supervisor(&self) -> Option<&SupervisorHandle> {
        self.decides.get().map(|(_, supervisor)| supervisor)
    }
}

impl Admit for Admission {
    fn knows_application(&self, app: &str) -> bool {
        self.decides.get().is_some_and(|(admit, _)| admit.knows_application(app))
    }

    fn admit(&self, request: Request) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>> {
        let Some((admit, _)) = self.decides.get() else {
            return Box::pin(async { Verdict::Deny { text: "the gateway is starting; try again".into() } });
        };
        Box::pin(async move {
            let revoked = Arc::downgrade(&request.revoked);
            let kept = Request { revoked: Arc::default(), ..request.clone() };
            let verdict = admit.admit(request).await;
            match verdict {
                Verdict::Allow { .. } => match self.note(admit, kept, revoked) {
                    Ok(()) => verdict,
                    Err(text) => Verdict::Deny { text },
                },
                refused => refused,
            }
        })
    }
}

/// Streams under templates.
struct Streams {
    supervisor: SupervisorHandle,
    registry: Arc<Registry>,
}

impl Instances for Streams {
    fn instantiate(&self, name: &str) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        let (supervisor, name) = (self.supervisor.clone(), name.to_owned());
        Box::pin(async move { supervisor.instantiate(&name).await.map_err(|error| error.to_string()) })
    }

    fn exists(&self, name: &str) -> bool {
        self.registry.get(name).is_some()
    }
}
