//! The media plane, and what every child shares.

use super::RunError;
use super::follow::{connection_limits_of, rtmp_settings_of};
use crate::access::Access;
use crate::boot::{BootError, RunOptions};
use crate::certificate::CertificateDesk;
use crate::local_name::LocalName;
use crate::logging::Tail;
use crate::machine;
use crate::store::DirFs;
use crate::wiring::capacity::{Capacity, Sensors};
use crate::wiring::discovery::{Cameras, Eyes};
use crate::wiring::encoders::Encoders;
use crate::wiring::{
    Admission, Aggregator, Board, Control, Coordinator, Devices, Inspecting, KmpControl, KmpIn, MakingSizes,
    MaskDesk, Mesh, Sight, Sizes, Wiring,
};
use fieldgate_hub::{Context, Pulses, Registry, Shard, ShardError};
use fieldgate_model::Config;
use fieldgate_net::{ConnectionLimits, Cutting, RtmpForm, RtmpServerCounters, RtmpServerSettings, Viewers};
use fieldgate_spool::Spool;
use fieldgate_worker::Spawner;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What `wire` puts together; all but the first are work that is still to be started.
pub(super) struct Wired {
    pub(super) wiring: Wiring,
    pub(super) settings_feed: watch::Sender<Arc<RtmpServerSettings>>,
    pub(super) inspecting: Inspecting,
    pub(super) cutting: Cutting,
    pub(super) making_sizes: MakingSizes,
}

/// What the gateway is called, and who may use it.
pub(super) struct Identity {
    pub(super) access: Access,
    pub(super) local_name: LocalName,
}

/// The media plane and what every child shares.
pub(super) fn wire(
    options: &RunOptions,
    config: &Config,
    pulses: &Pulses,
    media_cancel: &CancellationToken,
    clock: fieldgate_hub::Clock,
    identity: Identity,
    log: &Tail,
) -> Result<Wired, RunError> {
    let Identity { access, local_name } = identity;
    let shards: Result<Vec<Shard>, ShardError> =
        (0..shard_count(config)).map(|index| Shard::start(index, pulses, media_cancel.clone())).collect();
    let shards = shards?;
    let admission = Arc::new(Admission::default());
    let (settings_feed, rtmp_settings) = watch::channel(Arc::new(rtmp_settings_of(config)));
    let context = Context {
        registry: Arc::new(Registry::new(shards.len(), Arc::new(RtmpForm))),
        shards: shards.into(),
        admit: admission.clone(),
        clock,
        pulses: pulses.clone(),
        cancel: CancellationToken::new(),
    };
    let (viewers, cutting) = Viewers::new(context.clone(), Arc::new(config.clone()));
    let (sizes, making_sizes) = Sizes::new();
    let (total, per_address) = connection_limits_of(config);
    let spawner = Spawner::start()?;
    let spool = Arc::new(Spool::start(options.large.join("spool"), context.clock.clone())?);
    let rtmp_counters = Arc::new(RtmpServerCounters::default());
    let encoders = Encoders::remembering(spawner.clone(), &options.state.join("encoders"));
    let (encoders, board) = (Arc::new(encoders.map_err(BootError::from)?), Arc::new(Board::default()));
    let (sight, inspecting) = Sight::new(&context, &spawner);
    let capacity = Arc::new(Capacity::new(
        encoders.clone(),
        context.registry.clone(),
        board.clone(),
        context.clock.clone(),
        Sensors::new("/"),
    ));
    let folder = options.state.join("tls");
    let files = DirFs::open(&folder).map_err(BootError::from)?;
    let certificates = CertificateDesk::new(&folder, Box::new(files), local_name);
    let masks = MaskDesk::open(&options.state.join("masks"), context.registry.clone(), capacity.clone());
    let wiring = Wiring {
        capacity,
        masks: Arc::new(masks.map_err(BootError::from)?),
        kmp_control: Arc::new(KmpControl::new(
            &context,
            rtmp_counters.connections.clone(),
            spool.ledger().clone(),
        )),
        aggregator: Arc::new(Aggregator::new(&context, rtmp_counters.connections.clone(), board.clone())),
        coordinator: Arc::new(Coordinator::new(&context, options.state.join("coordinator"))),
        control: Arc::new(Control::new(&context)),
        mesh: Arc::new(Mesh::new(
            &context,
            rtmp_counters.connections.clone(),
            options.state.join("mesh"),
            log.clone(),
        )),
        cameras: Arc::new(Cameras::new(context.clock.clone()).with_pictures(Eyes {
            inspector: sight.inspector.clone(),
            spawner: spawner.clone(),
            encoders: encoders.clone(),
        })),
        context,
        encoders,
        devices: Arc::new(Devices::start()),
        transports: Arc::default(),
        sight,
        spawner,
        limits: ConnectionLimits::new(total, per_address),
        rtmp_counters,
        rtmp_settings,
        kmp_in: KmpIn::new(config),
        viewers,
        sizes,
        board,
        spool,
        admission,
        admin_api: Arc::new(OnceLock::new()),
        access: Arc::new(access),
        certificates: Arc::new(certificates),
        machine: Arc::new(machine::Desk::new(options.system_helper.clone())),
        recordings_folder: options.large.join("recordings"),
        encoder_folder: options.large.join("encoder"),
        leaving: TaskTracker::new(),
        socket_folder: options.state.clone(),
    };
    Ok(Wired { wiring, settings_feed, inspecting, cutting, making_sizes })
}

/// One media thread for every two cores: the other half is the kernel's, the cameras' and the control side's.
fn shard_count(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    config.media.shards.map_or((cores / 2).clamp(1, 4), usize::from)
}
