//! What watches the pictures, put together.

use super::inspector::{Inspecting, Inspector};
use super::mending::Mending;
use super::snapshots::Snapshots;
use super::truth::Pictures;
use fieldgate_hub::Context;
use fieldgate_worker::Spawner;
use std::sync::Arc;

/// What all that looks at pictures shares. Cheap to clone.
#[derive(Clone)]
pub struct Sight {
    /// Looks at single keyframes.
    pub inspector: Inspector,
    /// JPEGs of what the mountpoints show.
    pub snapshots: Arc<Snapshots>,
    /// What is said of the pictures.
    pub pictures: Arc<Pictures>,
    /// Ends sources that shall start anew.
    pub mending: Arc<Mending>,
}

impl Sight {
    /// Nothing seen yet; the second part is to be run.
    pub fn new(context: &Context, spawner: &Spawner) -> (Sight, Inspecting) {
        let (inspector, inspecting) = Inspector::new(spawner.clone());
        let sight = Sight {
            snapshots: Arc::new(Snapshots::new(context.registry.clone(), inspector.clone())),
            inspector,
            pictures: Arc::default(),
            mending: Arc::default(),
        };
        (sight, inspecting)
    }
}
