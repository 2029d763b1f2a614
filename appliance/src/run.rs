//! `fieldgate run`: puts the parts together, and takes them apart in order.
//!
//! ```text
//!  control runtime (this thread)   steward, supervisor, health, meter, admin front
//!  media-0..n (threads)            RTMP, pushes, pulls, links to workers
//!  spawner, sd-notify, admin-*     one thread each for what blocks
//! ```

use crate::access::{Access, AccessError};
use crate::admin::api::{AdminApi, Gateway, Planner};
use crate::boot::{BootError, Booted, Overrides, RunOptions, boot, machine_memory_bytes};
use crate::certificate::CertificateDesk;
use crate::clock::{timestamp, wall_clock};
use crate::health::{Notifier, Watch, status_line, watchdog_from_env};
use crate::status::{Meter, StatusBoard};
use crate::steward::{Admitting, Reconcile, Steward, StewardHandle};
use crate::store::DirFs;
use crate::supervisor::{ChildKey, Supervised, Supervisor, SupervisorHandle, random_jitter};
use crate::wiring::capacity::{Capacity, Sensors};
use crate::wiring::discovery::Cameras;
use crate::wiring::encoders::Encoders;
use crate::wiring::{
    Admission, Board, Devices, Inspecting, KmpControl, KmpIn, MaskDesk, PictureWatch, Sight, Trials, Wiring,
    keep_configured,
};
use fieldgate_hub::{Context, Pulses, Registry, Shard, ShardError, StreamState};
use fieldgate_model::Config;
use fieldgate_model::config::{Part, Problem};
use fieldgate_net::{
    ConnectionLimits, Cutting, PushPhase, RtmpForm, RtmpServerCounters, RtmpServerSettings, Viewers,
};
use fieldgate_proto::rtmp::Limits;
use fieldgate_spool::{Spool, SpoolError};
use fieldgate_worker::Spawner;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Silence after which the steward or the supervisor counts as stuck. Longer than any change may take.
const OWNER_SILENCE: Duration = Duration::from_secs(60);
/// How long the whole way out may take.
const STOP_WITHIN: Duration = Duration::from_secs(25);
/// Time from the supervisor's end to that of the media threads.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state folder or the config.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Who may use it.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A media thread.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The thread for what is kept on disk.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Threads, signals, standard output.
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
    /// A loop that must never end has ended.
    #[error("{0} ended by itself; the process must be started anew")]
    Critical(&'static str),
}

/// Runs the gateway until SIGTERM or SIGINT. To be called on a thread without a runtime.
pub fn run(options: RunOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(options));
    // What hangs in a blocking call must not delay the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(options: RunOptions) -> Result<(), RunError> {
    let memory = machine_memory_bytes();
    let Booted { store, confirmed, mut notices } = boot(&options, memory, timestamp(&wall_clock(None)))?;
    let clock = wall_clock(Some(confirmed.meta.at));
    let (access, of_access) = Access::open(&options.state, &options.reset_file, clock.clone())?;
    notices.extend(of_access);
    for notice in &notices {
        warn!(code = notice.code, "{}", notice.text);
    }
    let first = options.overrides.apply(&confirmed.config);

    let cancel = CancellationToken::new();
    let media_cancel = CancellationToken::new();
    let pulses = Pulses::default();
    let Wired { wiring, settings_feed, inspecting, cutting } =
        wire(&options, &first, &pulses, &media_cancel, clock.clone(), access)?;
    let (notifier, notify_thread) = Notifier::start()?;

    let supervisor = Supervisor {
        start: Arc::new(wiring.clone()),
        clock: clock.clone(),
        pulse: pulses.watch("supervisor", OWNER_SILENCE),
        machine_memory_bytes: memory,
        jitter: random_jitter(),
    };
    let (supervisor, supervising) = supervisor.run(cancel.clone());
    wiring.admission.decide_by(supervisor.clone(), wiring.context.registry.clone());
    wiring.admission.ask_controllers(wiring.kmp_control.clone());
    wiring.kmp_control.decide_by(supervisor.config());
    wiring.devices.follow(supervisor.config());
    let steward = Steward {
        store,
        running: Overridden {
            inner: Supervised::new(supervisor.clone(), delivers(&wiring)),
            overrides: options.overrides.clone(),
            capacity: wiring.capacity.clone(),
        },
        pulse: pulses.watch("steward", OWNER_SILENCE),
        confirm_within: options.confirm_within,
        machine_memory_bytes: memory,
        clock: clock.clone(),
        confirmed,
    };
    // The steward ends before what it steers: a change that has begun is finished or undone.
    let (steward, stewarding) = steward.start(cancel.child_token());
    let meter = Arc::new(Meter::default());
    let board = Arc::new(StatusBoard {
        wiring: wiring.clone(),
        meter: meter.clone(),
        started: timestamp(&clock),
        notices,
    });
    let status = status_source(board, steward.clone(), supervisor.clone());
    let keeping = keep_configured(wiring.spool.clone(), steward.watch(), cancel.clone());
    let gateway = Gateway::new(
        steward,
        pulses.clone(),
        status.clone(),
        wiring.spool.ledger().clone(),
        Planner { capacity: wiring.capacity.clone(), machine_memory_bytes: memory },
        wiring.devices.clone(),
        wiring.masks.clone(),
    );
    let trials = Trials::new(wiring.context.shards.first().cloned().expect("there is at least one shard"));
    let api: Arc<dyn AdminApi> = Arc::new(
        gateway
            .with_cameras(wiring.cameras.clone())
            .with_snapshots(wiring.sight.snapshots.clone())
            .with_trials(trials)
            .with_certificates(wiring.certificates.clone()),
    );
    wiring.admin_api.set(api).ok();

    let mut critical: JoinSet<&'static str> = JoinSet::new();
    let named = |name: &'static str, work: Box<dyn Future<Output = ()> + Send + Unpin>| async move {
        work.await;
        name
    };
    critical.spawn(named("the supervisor", Box::new(Box::pin(supervising))));
    critical.spawn(named("the steward", Box::new(Box::pin(stewarding))));
    let health = Watch::new(pulses.clone(), notifier.clone(), watchdog_from_env(), {
        let status = status.clone();
        move || status_line(&status())
    });
    critical.spawn(named("health", Box::new(Box::pin(health.run(cancel.clone())))));
    let registry = wiring.context.registry.clone();
    let metering = cancel.clone();
    critical
        .spawn(named("the meter", Box::new(Box::pin(async move { meter.run(registry, metering).await }))));
    let (capacity, following, keeping_room) = (wiring.capacity.clone(), supervisor.clone(), cancel.clone());
    let cameras = wiring.cameras.clone();
    let capable = async move {
        let asking = capacity.ask_profiles(&cameras, following.config(), keeping_room.clone());
        tokio::join!(capacity.run(following.clone(), keeping_room.clone()), asking);
    };
    critical.spawn(named("the capacity keeper", Box::new(Box::pin(capable))));
    let pulse = pulses.watch("pictures", OWNER_SILENCE);
    let pictures = PictureWatch::new(wiring.clone(), supervisor.clone(), pulse).run(cancel.clone());
    critical.spawn(named("the watch over pictures", Box::new(Box::pin(pictures))));
    critical.spawn(named("the segmenters", Box::new(Box::pin(cutting.run(cancel.clone())))));
    critical.spawn(named("the inspector", Box::new(Box::pin(inspecting.run(cancel.clone())))));
    let (kmp_control, controlling) = (wiring.kmp_control.clone(), cancel.clone());
    let controlled = async move { kmp_control.run(controlling).await };
    critical.spawn(named("KMP control", Box::new(Box::pin(controlled))));
    let (devices, spawner, watching) = (wiring.devices.clone(), wiring.spawner.clone(), cancel.clone());
    let watched = async move { devices.run(spawner, watching).await };
    critical.spawn(named("the watch over devices", Box::new(Box::pin(watched))));
    let follow = follow_settings(supervisor.clone(), wiring.clone(), settings_feed, cancel.clone());
    critical.spawn(named("the settings", Box::new(Box::pin(follow))));
    critical.spawn(named("the keeper of spools", Box::new(Box::pin(keeping))));

    let (cameras, config, looking) = (wiring.cameras.clone(), supervisor.config(), cancel.clone());
    let searching = async move { cameras.run(config, looking).await };
    critical.spawn(named("the search for cameras", Box::new(Box::pin(searching))));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let outcome = tokio::select! {
        outcome = async {
            announce_start(&supervisor, &first, &wiring, &notifier).await?;
            std::future::pending::<Result<(), RunError>>().await
        } => outcome,
        Some(ended) = critical.join_next() => {
            let name = ended.unwrap_or("a critical task, by a panic,");
            error!("{name} ended; the gateway stops to be started anew");
            Err(RunError::Critical(name))
        }
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };

    info!("stopping");
    notifier.stopping();
    cancel.cancel();
    let ended = tokio::time::timeout(STOP_WITHIN, async { while critical.join_next().await.is_some() {} });
    if ended.await.is_err() {
        error!(within = ?STOP_WITHIN, "not everything stopped in time");
    }
    // Players are told why by their own connections, which end with the listeners.
    tokio::time::sleep(LAST_WORDS).await;
    media_cancel.cancel();
    drop(notifier);
    let spool = wiring.spool.clone();
    drop(wiring);
    // What the pushes left is written before the end.
    tokio::task::spawn_blocking(move || spool.stop()).await.ok();
    // The thread ends when it has sent what was queued; the health task, its other user, has ended.
    tokio::task::spawn_blocking(move || notify_thread.join()).await.ok();
    outcome
}

/// Applies the first config and says that the gateway is ready, to systemd and on standard output.
async fn announce_start(
    supervisor: &SupervisorHandle,
    config: &Config,
    wiring: &Wiring,
    notifier: &Notifier,
) -> Result<(), RunError> {
    if let Err(problems) = supervisor.reconcile(Arc::new(config.clone())).await {
        // They stay, and are tried again: a port that is taken now may be free in a minute.
        for problem in problems {
            error!(path = %problem.path, "did not start: {problem}");
        }
    }
    notifier.ready();
    let addresses = wiring.board.addresses();
    let of = |wanted: fn(&ChildKey) -> bool| -> Vec<SocketAddr> {
        addresses.iter().filter(|(key, _)| wanted(key)).flat_map(|(_, addresses)| addresses.clone()).collect()
    };
    let line = serde_json::json!({"listening": {
        "rtmp": of(|key| matches!(key, ChildKey::RtmpListener { .. })),
        "rtmps": of(|key| matches!(key, ChildKey::RtmpsListener { .. })),
        "kmp": of(|key| matches!(key, ChildKey::KmpListener { .. })),
        "kmps": of(|key| matches!(key, ChildKey::KmpsListener { .. })),
        "admin": of(|key| matches!(key, ChildKey::Admin)),
        "http": of(|key| matches!(key, ChildKey::HttpListener { .. })),
        "https": of(|key| matches!(key, ChildKey::HttpsListener { .. })),
        "kmp_api": of(|key| matches!(key, ChildKey::KmpApi { .. })),
    }});
    // Whoever started us may have closed its end; that is no reason to stop.
    writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush()).ok();
    info!("ready");
    Ok(())
}

/// What `wire` puts together; all but the first are work that is still to be started.
struct Wired {
    wiring: Wiring,
    settings_feed: watch::Sender<Arc<RtmpServerSettings>>,
    inspecting: Inspecting,
    cutting: Cutting,
}

/// The media plane and what every child shares.
fn wire(
    options: &RunOptions,
    config: &Config,
    pulses: &Pulses,
    media_cancel: &CancellationToken,
    clock: fieldgate_hub::Clock,
    access: Access,
) -> Result<Wired, RunError> {
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
    let (total, per_address) = connection_limits_of(config);
    let spawner = Spawner::start()?;
    let spool = Arc::new(Spool::start(options.state.join("spool"), context.clock.clone())?);
    let rtmp_counters = Arc::new(RtmpServerCounters::default());
    let (encoders, board) = (Arc::new(Encoders::new(spawner.clone())), Arc::new(Board::default()));
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
    let certificates = CertificateDesk::new(&folder, Box::new(files));
    let masks = MaskDesk::open(&options.state.join("masks"), context.registry.clone(), capacity.clone());
    let wiring = Wiring {
        capacity,
        masks: Arc::new(masks.map_err(BootError::from)?),
        kmp_control: Arc::new(KmpControl::new(
            &context,
            rtmp_counters.connections.clone(),
            spool.ledger().clone(),
        )),
        cameras: Arc::new(Cameras::new(context.clock.clone())),
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
        board,
        spool,
        admission,
        admin_api: Arc::new(OnceLock::new()),
        access: Arc::new(access),
        certificates: Arc::new(certificates),
        socket_folder: options.state.clone(),
    };
    Ok(Wired { wiring, settings_feed, inspecting, cutting })
}

/// What children read as they go follows the config that runs.
async fn follow_settings(
    supervisor: SupervisorHandle,
    wiring: Wiring,
    feed: watch::Sender<Arc<RtmpServerSettings>>,
    cancel: CancellationToken,
) {
    let mut config = supervisor.config();
    loop {
        let now = config.borrow_and_update().clone();
        feed.send_replace(Arc::new(rtmp_settings_of(&now)));
        let (total, per_address) = connection_limits_of(&now);
        wiring.limits.set(total, per_address);
        wiring.admission.enforce();
        wiring.kmp_control.enforce();
        wiring.kmp_in.follow(&now);
        wiring.viewers.follow(now);
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = config.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

fn rtmp_settings_of(config: &Config) -> RtmpServerSettings {
    RtmpServerSettings {
        handshake_timeout: config.rtmp.handshake_timeout.get(),
        idle_timeout: config.rtmp.idle_timeout.get(),
        write_timeout: config.rtmp.write_timeout.get(),
        limits: Limits { media_bytes: config.rtmp.max_message_bytes, ..Limits::default() },
        ..RtmpServerSettings::default()
    }
}

fn connection_limits_of(config: &Config) -> (usize, usize) {
    let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    (number(config.rtmp.max_connections), number(config.rtmp.max_connections_per_address))
}

/// One media thread for every two cores: the other half is the kernel's, the cameras' and the control side's.
fn shard_count(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    config.media.shards.map_or((cores / 2).clamp(1, 4), usize::from)
}

/// Whether a child that is ready really delivers.
fn delivers(wiring: &Wiring) -> impl Fn(&ChildKey) -> bool + Send + Sync + 'static + use<> {
    let wiring = wiring.clone();
    move |key| match key {
        ChildKey::Source(name) => {
            let mountpoint = wiring.context.registry.get(name);
            mountpoint.is_some_and(|mountpoint| matches!(*mountpoint.state().borrow(), StreamState::Live(_)))
        }
        ChildKey::Push { .. } => wiring.board.push_phase(key) == Some(PushPhase::Delivering),
        _ => true,
    }
}

fn status_source(
    board: Arc<StatusBoard>,
    steward: StewardHandle,
    supervisor: SupervisorHandle,
) -> impl Fn() -> fieldgate_model::status::Status + Clone + Send + Sync + 'static {
    move || board.status(&steward.view(), &supervisor.snapshot())
}

/// Lays the command line's addresses over every config that runs.
struct Overridden<R> {
    inner: R,
    overrides: Overrides,
    capacity: Arc<Capacity>,
}

impl<R: Reconcile + Sync> Reconcile for Overridden<R> {
    async fn reconcile(&mut self, from: &Config, to: &Config) -> Result<(), Vec<Problem>> {
        let (from, to) = (self.overrides.apply(from), self.overrides.apply(to));
        self.inner.reconcile(&from, &to).await
    }

    fn admit(&self, from: &Config, to: &Config) -> Admitting {
        let (capacity, from, to) = (self.capacity.clone(), from.clone(), to.clone());
        Box::pin(async move { capacity.refusals(&from, &to).await })
    }

    fn healthy(&self) -> BTreeSet<Part> {
        self.inner.healthy()
    }
}
