//! Streams of other systems that viewers watch: a mesh's, or a coordinator's. No config has both.

use super::{Coordinator, Mesh};
use fieldgate_hub::Request;
use fieldgate_model::config::Hls;
use fieldgate_net::{Absent, Elsewhere};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Whichever is on.
pub struct Others {
    /// The node of a mesh.
    pub mesh: Arc<Mesh>,
    /// The coordinator.
    pub coordinator: Arc<Coordinator>,
}

impl Others {
    fn now(&self) -> &dyn Elsewhere {
        if Elsewhere::is_on(&*self.coordinator) { &*self.coordinator } else { &*self.mesh }
    }
}

impl Elsewhere for Others {
    fn is_on(&self) -> bool {
        self.now().is_on()
    }

    fn hls(&self) -> Hls {
        self.now().hls()
    }

    fn open(&self, request: Request) -> Pin<Box<dyn Future<Output = Result<String, Absent>> + Send + '_>> {
        self.now().open(request)
    }

    fn mountpoint(&self, stream: &str) -> Result<String, Absent> {
        self.now().mountpoint(stream)
    }
}
