//! What each child of the supervisor does: the one place that knows the hub, the network and the workers.

mod admin_plane;
mod admission;
mod aggregator;
mod board;
pub mod capacity;
mod channels;
mod control;
mod control_socket;
mod coordinator;
mod devices;
pub mod discovery;
mod elsewhere;
mod encoder;
pub mod encoders;
mod inspector;
mod kmp_control;
mod kmp_listen;
mod kmp_pushes;
mod ladder;
mod listeners;
mod listening;
mod masks;
mod mending;
mod mesh;
mod mountpoints;
mod passing;
mod pushes;
mod recorder;
mod renditions;
mod sight;
mod sizes;
mod snapshots;
mod sources;
mod spools;
mod talk;
mod timing;
mod transports;
mod treatment;
mod trials;
mod truth;
mod viewers;

mod ways;

pub use admission::Admission;
pub use aggregator::Aggregator;
pub use board::{Board, ElsewhereSign, WorkerView};
pub use control::Control;
pub use coordinator::Coordinator;
pub use devices::{Devices, Listed, list_now};
pub use elsewhere::Others;
pub use inspector::{InspectError, Inspecting};
pub use kmp_control::KmpControl;
pub use kmp_listen::KmpIn;
pub use masks::{BODY_MAX, MaskDesk, MaskError, MaskView};
pub use mesh::Mesh;
pub use sight::Sight;
pub use sizes::{MakingSizes, Sizes};
pub use snapshots::{DEFAULT_WIDTH, Snapshot, SnapshotError, Snapshots, WIDTHS};
pub use spools::keep_configured;
pub use transports::Transports;
pub use trials::{Segments, Trial, TrialError, TrialState, TrialStep, TrialWish, Trials, segments};
pub use truth::Watch as PictureWatch;
pub use ways::{leg, rendition};

use crate::access::Access;
use crate::admin::api::AdminApi;
use crate::certificate::CertificateDesk;
use crate::machine;

use crate::supervisor::{ChildContext, ChildError, ChildFuture, ChildKey, ChildSettings, Start};
use capacity::Capacity;
use discovery::Cameras;
use encoders::Encoders;
use fieldgate_hub::{Context, Mountpoint, Retry, Shard};
use fieldgate_net::{ConnectionLimits, RtmpServerCounters, RtmpServerSettings, Viewers};
use fieldgate_spool::Spool;
use fieldgate_worker::Spawner;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// What all children share.
#[derive(Clone)]
pub struct Wiring {
    /// The hub and its shards.
    pub context: Context,
    /// Cameras on the network, and who may log in to them.
    pub cameras: Arc<Cameras>,
    /// Starts worker processes.
    pub spawner: Spawner,
    /// What is known about the machine's encoders.
    pub encoders: Arc<Encoders>,
    /// What the machine can encode, and what is left out.
    pub capacity: Arc<Capacity>,
    /// What is known about local capture devices.
    pub devices: Arc<Devices>,
    /// What nobody may see.
    pub masks: Arc<MaskDesk>,
    /// How RTSP cameras are asked next.
    pub transports: Arc<Transports>,
    /// What watches the pictures.
    pub sight: Sight,
    /// Connections over all RTMP listeners.
    pub limits: ConnectionLimits,
    /// Totals over all RTMP listeners.
    pub rtmp_counters: Arc<RtmpServerCounters>,
    /// How RTMP peers are served, as the config says now.
    pub rtmp_settings: watch::Receiver<Arc<RtmpServerSettings>>,
    /// What KMP listeners and sources share.
    pub kmp_in: KmpIn,
    /// Those who watch by HTTP.
    pub viewers: Viewers,
    /// Sizes that are made for them.
    pub sizes: Sizes,
    /// Where children leave what the status shows.
    pub board: Arc<Board>,
    /// What is kept on disk for upstreams, and the ledger.
    pub spool: Arc<Spool>,
    /// The supervisor and the config, for those that look them up.
    pub admission: Arc<Admission>,
    /// Sessions under KMP controllers.
    pub kmp_control: Arc<KmpControl>,
    /// The aggregator that content managers see.
    pub aggregator: Arc<Aggregator>,
    /// The node of a mesh.
    pub mesh: Arc<Mesh>,
    /// The coordinator of streaming servers and encoders.
    pub coordinator: Arc<Coordinator>,
    /// The coordinator elsewhere, which we are a streaming server of.
    pub control: Arc<Control>,
    /// Fulfils the admin plane; set once the steward runs, before the first child starts.
    pub admin_api: Arc<OnceLock<Arc<dyn AdminApi>>>,
    /// Who may use the admin plane.
    pub access: Arc<Access>,
    /// The admin plane's certificate.
    pub certificates: Arc<CertificateDesk>,
    /// The machine's own network and time.
    pub machine: Arc<machine::Desk>,
    /// Where recordings are kept, in a folder for each mountpoint.
    pub recordings_folder: PathBuf,
    /// Where an encoder of a coordinator elsewhere leaves its files, if the config does not say.
    pub encoder_folder: PathBuf,
    /// Answers of an admin plane whose listeners are gone already.
    pub leaving: TaskTracker,
    /// A folder for the admin plane's private socket.
    pub socket_folder: PathBuf,
}

impl Start for Wiring {
    fn start(&self, key: &ChildKey, settings: &ChildSettings, context: ChildContext) -> ChildFuture {
        let wiring = self.clone();
        match (key, settings) {
            (ChildKey::Admin, ChildSettings::Admin(settings)) => {
                let settings = settings.clone();
                Box::pin(async move { wiring.admin(settings, context).await })
            }
            (ChildKey::RtmpListener { address, .. }, _) => {
                let (address, key) = (*address, key.clone());
                Box::pin(async move { wiring.rtmp_listener(key, address, None, context).await })
            }
            (
                ChildKey::RtmpsListener { address, .. },
                ChildSettings::RtmpsListener { cert, key: private },
            ) => {
                let (address, key, files) = (*address, key.clone(), (cert.clone(), private.clone()));
                Box::pin(async move { wiring.rtmp_listener(key, address, Some(files), context).await })
            }
            (ChildKey::KmpApi { address, .. }, _) => {
                let (address, key) = (*address, key.clone());
                Box::pin(async move { wiring.kmp_api(key, address, context).await })
            }
            (ChildKey::AggregatorApi { address, .. }, _) => {
                let (address, key) = (*address, key.clone());
                Box::pin(async move { wiring.aggregator_api(key, address, context).await })
            }
            (ChildKey::AggregatorStat { address, .. }, _) => {
                let (address, key) = (*address, key.clone());
                Box::pin(async move { wiring.aggregator_stat(key, address, context).await })
            }
            (ChildKey::AggregatorCms, ChildSettings::AggregatorCms(cms)) => {
                let cms = cms.as_ref().clone();
                Box::pin(async move { wiring.aggregator_cms(cms, context).await })
            }
            (ChildKey::MeshNode, ChildSettings::MeshNode(settings, port)) => {
                let (settings, port) = (settings.as_ref().clone(), *port);
                Box::pin(async move { wiring.mesh_node(settings, port, context).await })
            }
            (ChildKey::Coordinator, ChildSettings::Coordinator(settings, port)) => {
                let (settings, port) = (settings.as_ref().clone(), *port);
                Box::pin(async move { wiring.coordinate(settings, port, context).await })
            }
            (ChildKey::Control, ChildSettings::Control(settings, port, has_own)) => {
                let (settings, port, has_own) = (settings.as_ref().clone(), *port, *has_own);
                Box::pin(async move { wiring.control(settings, port, has_own, context).await })
            }
            (ChildKey::Encoder, ChildSettings::Encoder(settings)) => {
                let settings = settings.as_ref().clone();
                Box::pin(async move { wiring.encoder(settings, context).await })
            }
            (ChildKey::KmpListener { address, .. }, _) => {
                let (address, key) = (*address, key.clone());
                Box::pin(async move { wiring.kmp_listener(key, address, None, context).await })
            }
            (ChildKey::KmpsListener { address, .. }, ChildSettings::KmpsListener { cert, key: private }) => {
                let (address, key, files) = (*address, key.clone(), (cert.clone(), private.clone()));
                Box::pin(async move { wiring.kmp_listener(key, address, Some(files), context).await })
            }
            (ChildKey::HttpListener { address, .. }, _) => {
                let (address, key) = (*address, key.clone());
                Box::pin(async move { wiring.viewers_listener(key, address, None, context).await })
            }
            (
                ChildKey::HttpsListener { address, .. },
                ChildSettings::HttpsListener { cert, key: private },
            ) => {
                let (address, key, files) = (*address, key.clone(), (cert.clone(), private.clone()));
                Box::pin(async move { wiring.viewers_listener(key, address, Some(files), context).await })
            }
            (ChildKey::Mountpoint(name), ChildSettings::Mountpoint(settings)) => {
                let (name, settings) = (name.clone(), settings.clone());
                Box::pin(async move { wiring.mountpoint(name, settings, context).await })
            }
            (ChildKey::Source(name), ChildSettings::Source(source, _, handling)) => {
                let (name, source, handling) = (name.clone(), source.as_ref().clone(), handling.clone());
                Box::pin(async move { wiring.mended_source(name, source, *handling, context).await })
            }
            (ChildKey::Rendition(rendition), ChildSettings::Rendition(made, _, handling)) => {
                let (rendition, made, handling) = (rendition.clone(), *made, handling.clone());
                Box::pin(async move { wiring.rendition(rendition, made, *handling, context).await })
            }
            (ChildKey::Recorder(name), ChildSettings::Recorder(record, _)) => {
                let (name, record) = (name.clone(), record.clone());
                Box::pin(async move { wiring.recorder(name, record, context).await })
            }
            (ChildKey::Push { mountpoint, .. }, ChildSettings::Push(push, _)) => {
                let (key, name, push) = (key.clone(), mountpoint.clone(), push.as_ref().clone());
                Box::pin(async move { wiring.push(key, name, push, context).await })
            }
            (key, _) => {
                let text = format!("{key} has settings of another kind");
                Box::pin(async move { Err(ChildError::new(Retry::Never, text)) })
            }
        }
    }
}

impl Wiring {
    /// A mountpoint that the supervisor has started before whatever hangs on it.
    fn existing(&self, name: &str) -> Result<Arc<Mountpoint>, ChildError> {
        let missing = || ChildError::new(Retry::Backoff, format!("mountpoint {name} is not there yet"));
        self.context.registry.get(name).ok_or_else(missing)
    }

    fn shard_of(&self, mountpoint: &Mountpoint) -> Result<Shard, ChildError> {
        let missing = || ChildError::new(Retry::Never, "its media thread does not exist");
        self.context.shards.get(mountpoint.shard()).cloned().ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests;
