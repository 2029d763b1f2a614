//! What each driver is handed.

use crate::{Admit, Clock, Pulses, Registry, Shard};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The gateway's shared things, handed to every driver instead of globals. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// All mountpoints.
    pub registry: Arc<Registry>,
    /// The media plane's threads; never empty.
    pub shards: Arc<[Shard]>,
    /// Who may publish and play.
    pub admit: Arc<dyn Admit>,
    /// Time of day.
    pub clock: Clock,
    /// Signs of life.
    pub pulses: Pulses,
    /// Ends when the driver shall stop.
    pub cancel: CancellationToken,
}

impl Context {
    /// The same context with another token, for a child that can be stopped alone.
    pub fn with_cancel(&self, cancel: CancellationToken) -> Context {
        Context { cancel, ..self.clone() }
    }
}
