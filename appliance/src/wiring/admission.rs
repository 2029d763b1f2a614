//! Ties "may this peer publish or play?" to the config in force and to the supervisor, which come to life after it.

use crate::admit::{ConfigAdmit, Instances};
use crate::supervisor::SupervisorHandle;
use fieldgate_hub::{Admit, Registry, Request, Verdict};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

/// Says no to everybody until it is told who decides.
#[derive(Default)]
pub struct Admission {
    decides: OnceLock<(ConfigAdmit, SupervisorHandle)>,
}

impl Admission {
    /// From now on the supervisor's config decides.
    pub fn decide_by(&self, supervisor: SupervisorHandle, registry: Arc<Registry>) {
        let instances = Arc::new(Streams { supervisor: supervisor.clone(), registry });
        let admit = ConfigAdmit::new(supervisor.config(), instances);
        // Set once, when the gateway starts.
        self.decides.set((admit, supervisor)).ok();
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
        match self.decides.get() {
            Some((admit, _)) => admit.admit(request),
            None => Box::pin(async { Verdict::Deny { text: "the gateway is starting; try again".into() } }),
        }
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
