//! Ties "may this peer publish or play?" to the config in force and to the supervisor, which come to life after it.

use super::{Control, Coordinator, KmpControl, Mesh, mesh};
use crate::admit::APPLICATION;
use crate::admit::{ConfigAdmit, Instances};
use crate::supervisor::SupervisorHandle;
use fieldgate_hub::{Action, Admit, ConnectTerms, ConnectVerdict, Registry, Request, RtmpClient, Verdict};
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
    kmp_control: OnceLock<Arc<KmpControl>>,
    mesh: OnceLock<Arc<Mesh>>,
    coordinators: OnceLock<(Arc<Coordinator>, Arc<Control>)>,
}

/// A peer that was admitted; as many as there are connections, and those that left since the last was added.
struct Admitted {
    /// What it asked for, without the token of its own.
    request: Request,
    /// Gone with the peer.
    revoked: Weak<CancellationToken>,
}

/// The coordinator of a channel.
enum Of<'a> {
    Own(&'a Coordinator),
    Elsewhere(&'a Control),
}

impl Admission {
    /// From now on the supervisor's config decides.
    pub fn decide_by(&self, supervisor: SupervisorHandle, registry: Arc<Registry>) {
        let instances = Arc::new(Streams { supervisor: supervisor.clone(), registry });
        let admit = ConfigAdmit::new(supervisor.config(), instances);
        // Set once, when the gateway starts.
        self.decides.set((admit, supervisor)).ok();
    }

    /// From now on applications under KMP controllers are asked about there.
    pub fn ask_controllers(&self, kmp_control: Arc<KmpControl>) {
        // Set once, when the gateway starts.
        self.kmp_control.set(kmp_control).ok();
    }

    /// From now on a mesh's node is asked, while there is one.
    pub fn ask_mesh(&self, mesh: Arc<Mesh>) {
        // Set once, when the gateway starts.
        self.mesh.set(mesh).ok();
    }

    /// From now on coordinators, our own and one elsewhere, are asked, while there are any, about applications that nobody
    /// else knows.
    pub fn ask_coordinators(&self, own: Arc<Coordinator>, elsewhere: Arc<Control>) {
        // Set once, when the gateway starts.
        self.coordinators.set((own, elsewhere)).ok();
    }

    /// The coordinator of this channel, if it can be one.
    fn coordinator_of(&self, app: &str) -> Option<Of<'_>> {
        let is_others = app == mesh::RELAY
            || self.decides.get().is_some_and(|(admit, _)| admit.knows_application(app))
            || self.kmp_control.get().is_some_and(|control| control.application(app).is_some());
        let (own, elsewhere) = self.coordinators.get().filter(|_| !is_others)?;
        if elsewhere.knows(app) {
            return Some(Of::Elsewhere(elsewhere));
        }
        own.knows(app).then_some(Of::Own(own))
    }

    /// What a mesh's node says; `None`: the config decides.
    async fn ask_node(&self, request: &Request) -> Option<Verdict> {
        let mesh = self.mesh.get().filter(|mesh| mesh.is_on())?;
        if request.app == mesh::RELAY {
            return Some(mesh.admit(request).await.unwrap_or(Verdict::UnknownName));
        }
        let config = self.supervisor()?.config().borrow().clone();
        if request.app != APPLICATION || config.mountpoints.contains_key(&request.name) {
            return None;
        }
        let is_under_template = config.mountpoint_for(&request.name).is_some();
        let verdict = mesh.admit(request).await?;
        // A template has rules of its own for whom the node does not let in.
        (matches!(verdict, Verdict::Allow { .. }) || !is_under_template).then_some(verdict)
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
        let is_nodes = app == mesh::RELAY && self.mesh.get().is_some_and(|mesh| mesh.is_on());
        is_nodes
            || self.decides.get().is_some_and(|(admit, _)| admit.knows_application(app))
            || self.coordinator_of(app).is_some()
    }

    fn names_are_keys(&self, app: &str) -> bool {
        app == mesh::RELAY || self.coordinator_of(app).is_some()
    }

    fn connect(&self, client: Arc<RtmpClient>) -> Pin<Box<dyn Future<Output = ConnectVerdict> + Send + '_>> {
        Box::pin(async move {
            let controlled =
                self.kmp_control.get().and_then(|control| Some((control, control.application(&client.app)?)));
            match controlled {
                Some((control, application)) => control.connect(application, client).await,
                None if self.knows_application(&client.app) => {
                    ConnectVerdict::Accept(ConnectTerms::default())
                }
                None => ConnectVerdict::UnknownApplication,
            }
        })
    }

    fn admit(&self, request: Request) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>> {
        let Some((admit, _)) = self.decides.get() else {
            return Box::pin(async { Verdict::Deny { text: "the gateway is starting; try again".into() } });
        };
        Box::pin(async move {
            let controlled = match (self.kmp_control.get(), &request.client) {
                (Some(control), Some(client)) if request.action == Action::Publish => control
                    .application(&request.app)
                    .map(|application| (control, application, client.clone())),
                _ => None,
            };
            if let Some((control, application, client)) = &controlled
                && request.app != APPLICATION
            {
                return control.publish(application, client, &request.name).await;
            }
            if let Some(verdict) = self.ask_node(&request).await {
                return verdict;
            }
            match self.coordinator_of(&request.app) {
                Some(Of::Own(coordinator)) => return coordinator.admit(&request).await,
                Some(Of::Elsewhere(coordinator)) => return coordinator.admit(&request).await,
                None => {}
            }
            let revoked = Arc::downgrade(&request.revoked);
            let kept = Request { revoked: Arc::default(), ..request.clone() };
            let verdict = admit.admit(request).await;
            let Verdict::Allow { mountpoint, .. } = &verdict else { return verdict };
            if let Err(text) = self.note(admit, kept, revoked) {
                return Verdict::Deny { text };
            }
            if let Some((control, _, client)) = &controlled {
                control.follow(client, mountpoint).await;
            }
            verdict
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
