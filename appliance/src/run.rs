//! `fieldgate run`: puts the parts together, and takes them apart in order.
//!
//! ```text
//!  control runtime (this thread)   steward, supervisor, health, meter, admin front
//!  media-0..n (threads)            RTMP, pushes, pulls, links to workers
//!  spawner, sd-notify, admin-*     one thread each for what blocks
//! ```

mod code;
mod follow;
mod restarts;
mod wire;

use crate::acceptance::{Acceptance, KeyError, Site};
use crate::access::{self, Access, AccessError};
use crate::admin::api::{AdminApi, Gateway, Planner};
use crate::boot::{self, BootError, Booted, InMemory, Overrides, RunOptions, boot, machine_memory_bytes};
use crate::clock::{timestamp, wall_clock};
use crate::fleet::{self, Claim, read_provision, run_mqtt, run_pull, watch_folder};
use crate::health::{Notifier, Watch, status_line, watchdog_from_env};
use crate::local_name::LocalName;
use crate::logging::Tail;
use crate::machine;
use crate::recorder::{Hooks, Recorder, Watch as Witness};
use crate::status::{Meter, StatusBoard};
use crate::steward::{Admitting, Reconcile, Steward, StewardHandle};
use crate::store::DirFs;
use crate::supervisor::{ChildKey, Supervised, Supervisor, SupervisorHandle, random_jitter};
use crate::update::Updates;
use crate::wiring::capacity::Capacity;
use crate::wiring::{Others, PictureWatch, Trials, Wiring, keep_configured};
use fieldgate_hub::{Pulses, ShardError, StreamState};
use fieldgate_model::Config;
use fieldgate_model::config::{Part, Problem};
use fieldgate_model::status::Notice;
use fieldgate_net::PushPhase;
use fieldgate_spool::SpoolError;
use follow::{follow_settings, mask_log};
use restarts::Beginnings;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use wire::{Identity, Wired, wire};

/// Silence after which the steward or the supervisor counts as stuck. Longer than any change may take.
const OWNER_SILENCE: Duration = Duration::from_secs(60);
/// Time from being ready until only that runs which runs for ever.
const START_IS_OVER: Duration = Duration::from_secs(5);
/// How long the whole way out may take.
const STOP_WITHIN: Duration = Duration::from_secs(25);
/// Time for requests that are under way at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// Time from the supervisor's end to that of the media threads.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state folder or the config.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A state folder on a read-only disk.
    #[error("the disk of the state folder {} is read-only, and it cannot be copied into memory: {source}", .state.display())]
    ReadOnly {
        /// The folder.
        state: PathBuf,
        /// What the system said.
        source: io::Error,
    },
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
pub fn run(options: RunOptions, log: Tail) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(options, log));
    // What hangs in a blocking call must not delay the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(mut options: RunOptions, log: Tail) -> Result<(), RunError> {
    let memory = machine_memory_bytes();
    let in_memory = InMemory::if_needed(&options.state, &options.memory);
    let in_memory =
        in_memory.map_err(|source| RunError::ReadOnly { state: options.state.clone(), source })?;
    let last_token = in_memory.as_ref().and_then(|_| access::read_local_token(&options.state).ok());
    if let Some(copy) = &in_memory {
        options.state.clone_from(&copy.folder);
    }
    let mut booted = boot(&options, memory, timestamp(&wall_clock(None)))?;
    booted.notices.extend(in_memory.as_ref().map(|copy| copy.notice.clone()));
    let (mut opened, of_fleet) = fleet::Opened::open(&options.state).map_err(BootError::from)?;
    booted.notices.extend(of_fleet);
    let claim = provision(&options, &mut booted, &mut opened)?;
    let Booted { store, confirmed, mut notices } = booted;
    let clock = wall_clock(Some(confirmed.meta.at));
    let (mut access, of_access) = Access::open(&options.state, &options.reset_file, clock.clone())?;
    if let Some(token) = last_token {
        // Programs of this machine read it in the state folder.
        access.go_on_with_local(&token);
    }
    notices.extend(of_access);
    let (recorder, keeper, of_recorder) = Recorder::open(&options.state.join("recorder"), clock.clone());
    notices.extend(of_recorder);
    let hooks = Hooks::open(recorder.clone(), &options.state.join("webhooks"), clock.clone());
    recorder.show_hooks(hooks.board());
    if claim == Claim::Closed {
        access.close_claim()?;
    }
    for notice in &notices {
        warn!(code = notice.code, "{}", notice.text);
    }
    let first = options.overrides.apply(&confirmed.config);

    let cancel = CancellationToken::new();
    let media_cancel = CancellationToken::new();
    let pulses = Pulses::default();
    let local_name = LocalName::new(opened.device());
    local_name.follow(&first);
    let identity = Identity { access, local_name: local_name.clone() };
    let Wired { wiring, settings_feed, inspecting, cutting, making_sizes } =
        wire(&options, &first, &pulses, &media_cancel, clock.clone(), identity, &log)?;
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
    wiring.admission.ask_mesh(wiring.mesh.clone());
    wiring.admission.ask_coordinators(wiring.coordinator.clone(), wiring.control.clone());
    let (mesh, coordinator) = (wiring.mesh.clone(), wiring.coordinator.clone());
    wiring.viewers.look_elsewhere(Arc::new(Others { mesh, coordinator }));
    wiring.viewers.have_made_by(Arc::new(wiring.sizes.clone()));
    wiring.kmp_control.decide_by(supervisor.config());
    wiring.devices.follow(supervisor.config());
    let steward = Steward {
        store,
        running: Overridden {
            inner: Supervised::new(supervisor.clone(), delivers(&wiring)),
            overrides: options.overrides.clone(),
            capacity: wiring.capacity.clone(),
            machine: wiring.machine.clone(),
        },
        pulse: pulses.watch("steward", OWNER_SILENCE),
        confirm_within: options.confirm_within,
        machine_memory_bytes: memory,
        clock: clock.clone(),
        confirmed,
    };
    // The steward ends before what it steers: a change that has begun is finished or undone.
    let (steward, stewarding) = steward.start(cancel.child_token());
    let (fleet, desk) = opened.start(steward.clone(), clock.clone(), hostname());
    let updates = Updates::open(&options.state, wiring.machine.clone(), clock.clone(), boot_id());
    let updates = updates.map_err(BootError::from)?;
    let meter = Arc::new(Meter::default());
    let board = Arc::new(StatusBoard {
        wiring: wiring.clone(),
        meter: meter.clone(),
        started: timestamp(&clock),
        notices,
        updates: updates.clone(),
    });
    let status = status_source(board, steward.clone(), supervisor.clone());
    wiring.aggregator.work_with(steward.clone(), supervisor.config(), Arc::new(status.clone()));
    let steward_view = steward.watch();
    let machine_view = steward.watch();
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
    let trials =
        Arc::new(Trials::new(wiring.context.shards.first().cloned().expect("there is at least one shard")));
    let restart = Arc::new(Notify::new());
    let restarts = Beginnings {
        wiring: wiring.clone(),
        supervisor: supervisor.clone(),
        runtime: Handle::current(),
        program: options.is_supervised.then(|| restart.clone()),
    };
    let acceptance =
        surveys(&options, &wiring, &supervisor, status.clone(), trials.clone(), recorder.clone());
    let gateway = match acceptance {
        Ok(acceptance) => gateway.with_acceptance(acceptance),
        Err(error) => {
            error!(error = crate::steward::chain(&error), "no surveys of the site");
            gateway
        }
    };
    let api: Arc<dyn AdminApi> = Arc::new(
        gateway
            .with_cameras(wiring.cameras.clone())
            .with_snapshots(wiring.sight.snapshots.clone())
            .with_trials(trials)
            .with_recordings(wiring.viewers.recordings().clone())
            .with_certificates(wiring.certificates.clone())
            .with_machine(wiring.machine.clone())
            .with_updates(updates.clone())
            .with_fleet(fleet.clone())
            .with_recorder(recorder.clone())
            .with_log(log.clone())
            .with_restarts(Box::new(restarts)),
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
    let access = wiring.access.clone();
    let witness = Witness::new(recorder, status.clone(), supervisor.config(), move || access.is_claimed());
    critical.spawn(named("the watch over what happens", Box::new(Box::pin(witness.run(cancel.clone())))));
    critical
        .spawn(named("the recorder", Box::new(Box::pin(keeper.run(supervisor.config(), cancel.clone())))));
    critical.spawn(named("the webhooks", Box::new(Box::pin(hooks.run(supervisor.config(), cancel.clone())))));
    let masking = mask_log(log, steward_view, cancel.clone());
    critical.spawn(named("the log's mask", Box::new(Box::pin(masking))));
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
    let making_sizes = making_sizes.run(wiring.clone(), cancel.clone());
    critical.spawn(named("the sizes", Box::new(Box::pin(making_sizes))));
    critical.spawn(named("the inspector", Box::new(Box::pin(inspecting.run(cancel.clone())))));
    let (kmp_control, controlling) = (wiring.kmp_control.clone(), cancel.clone());
    let controlled = async move { kmp_control.run(controlling).await };
    critical.spawn(named("KMP control", Box::new(Box::pin(controlled))));
    let (aggregator, measuring) = (wiring.aggregator.clone(), cancel.clone());
    let measured = async move { aggregator.run(measuring).await };
    critical.spawn(named("the aggregator", Box::new(Box::pin(measured))));
    let (devices, spawner, watching) = (wiring.devices.clone(), wiring.spawner.clone(), cancel.clone());
    let watched = async move { devices.run(spawner, watching).await };
    critical.spawn(named("the watch over devices", Box::new(Box::pin(watched))));
    let follow = follow_settings(supervisor.clone(), wiring.clone(), settings_feed, cancel.clone());
    critical.spawn(named("the settings", Box::new(Box::pin(follow))));
    critical.spawn(named("the keeper of spools", Box::new(Box::pin(keeping))));
    let (machine, view, keeping) = (wiring.machine.clone(), machine_view, cancel.clone());
    let kept = async move { machine.keep(view, keeping).await };
    critical.spawn(named("the keeper of the machine's network", Box::new(Box::pin(kept))));

    let updating = updates.run(status.clone(), supervisor.config(), cancel.clone());
    critical.spawn(named("the keeper of the firmware", Box::new(Box::pin(updating))));
    critical.spawn(named("the fleet's desk", Box::new(Box::pin(desk.run(cancel.clone())))));
    let (config, calling) = (supervisor.config(), cancel.clone());
    let (status, clock) = (status.clone(), clock.clone());
    let ways = async move {
        let mqtt =
            run_mqtt(fleet.clone(), config.clone(), status, clock.clone(), random_number, calling.clone());
        let pull = run_pull(fleet.clone(), config.clone(), clock, random_number, calling.clone());
        let folder = watch_folder(fleet, config, calling);
        tokio::join!(Box::pin(mqtt), Box::pin(pull), Box::pin(folder));
    };
    critical.spawn(named("the ways to the fleet", Box::new(Box::pin(ways))));

    let (cameras, config, looking) = (wiring.cameras.clone(), supervisor.config(), cancel.clone());
    let searching = async move { cameras.run(config, looking).await };
    critical.spawn(named("the search for cameras", Box::new(Box::pin(searching))));

    let (config, board, state, telling) =
        (supervisor.config(), wiring.board.clone(), options.state.clone(), cancel.clone());
    let announcing = async move { local_name.run(config, board, state, telling).await };
    critical.spawn(named("the announcer", Box::new(Box::pin(announcing))));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let outcome = tokio::select! {
        outcome = async {
            announce_start(&supervisor, &first, &wiring, &notifier).await?;
            tokio::time::sleep(START_IS_OVER).await;
            code::give_back();
            std::future::pending::<Result<(), RunError>>().await
        } => outcome,
        Some(ended) = critical.join_next() => {
            let name = ended.unwrap_or("a critical task, by a panic,");
            error!("{name} ended; the gateway stops to be started anew");
            Err(RunError::Critical(name))
        }
        () = restart.notified() => {
            info!("ends to be started anew, as somebody asked");
            Ok(())
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
    let leaving = wiring.leaving.clone();
    leaving.close();
    if tokio::time::timeout(LAST_ANSWERS, leaving.wait()).await.is_err() {
        info!("requests to the admin plane were not answered to their end");
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

/// Heeds the provisioning file, if there is one and the gateway has no config yet. What cannot be heeded is told.
fn provision(
    options: &RunOptions,
    booted: &mut Booted,
    opened: &mut fleet::Opened,
) -> Result<Claim, RunError> {
    let file = options.provision_file.display();
    if booted.confirmed.meta.revision > 0 {
        return Ok(Claim::Code);
    }
    match read_provision(&options.provision_file) {
        Ok(None) => Ok(Claim::Code),
        Ok(Some(wanted)) => {
            info!(%file, device = opened.device(), "provisioned");
            // The keys first: without them the rest is of no use, and a cut in between repeats both.
            opened.provision(wanted.keys).map_err(|error| io::Error::other(error.to_string()))?;
            boot::provision(booted, wanted.fleet, timestamp(&wall_clock(None))).map_err(BootError::from)?;
            Ok(wanted.claim)
        }
        Err(error) => {
            let text = format!("the provisioning file {file} was not heeded: {error}");
            booted.notices.push(Notice { code: "provision_refused".to_owned(), text });
            Ok(Claim::Code)
        }
    }
}

fn random_number() -> u32 {
    // Without random numbers calls are only less spread.
    let mut bytes = [0_u8; 4];
    getrandom::fill(&mut bytes).map_or(u32::MAX / 2, |()| u32::from_le_bytes(bytes))
}

/// Names this start of the machine.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
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
        "coordinator": of(|key| matches!(key, ChildKey::Coordinator)),
        "mesh_node": of(|key| matches!(key, ChildKey::MeshNode)),
        "kmp_api": of(|key| matches!(key, ChildKey::KmpApi { .. })),
        "aggregator": of(|key| matches!(key, ChildKey::AggregatorApi { .. })),
        "aggregator_stat": of(|key| matches!(key, ChildKey::AggregatorStat { .. })),
    }});
    // Whoever started us may have closed its end; that is no reason to stop.
    writeln!(io::stdout(), "{line}").and_then(|()| io::stdout().flush()).ok();
    info!("ready");
    Ok(())
}

/// Surveys of the site, and the key that signs them.
fn surveys(
    options: &RunOptions,
    wiring: &Wiring,
    supervisor: &SupervisorHandle,
    status: impl Fn() -> fieldgate_model::status::Status + Send + Sync + 'static,
    trials: Arc<Trials>,
    recorder: Arc<Recorder>,
) -> Result<Acceptance, KeyError> {
    let config = supervisor.config();
    let site = Site {
        registry: wiring.context.registry.clone(),
        status: Box::new(status),
        config: Box::new(move || config.borrow().clone()),
        cameras: wiring.cameras.clone(),
        trials,
        recorder,
        clock: wiring.context.clock.clone(),
    };
    let files = DirFs::open(&options.state.join("acceptance")).map_err(io::Error::other)?;
    Acceptance::open(site, Box::new(files))
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

/// Lays the command line's addresses over every config that runs, and has the machine's network made.
struct Overridden<R> {
    inner: R,
    overrides: Overrides,
    capacity: Arc<Capacity>,
    machine: Arc<machine::Desk>,
}

impl<R: Reconcile + Sync> Reconcile for Overridden<R> {
    async fn reconcile(&mut self, from: &Config, to: &Config) -> Result<(), Vec<Problem>> {
        let (from, to) = (self.overrides.apply(from), self.overrides.apply(to));
        // What listens on an address comes after it. Also on the way back what runs is made to fit, whatever this says.
        let network = if from.network == to.network {
            Ok(())
        } else {
            self.machine.set_network(&to.network).await.map_err(|problem| vec![problem])
        };
        let children = self.inner.reconcile(&from, &to).await;
        network.and(children)
    }

    fn admit(&self, from: &Config, to: &Config) -> Admitting {
        let (capacity, from, to) = (self.capacity.clone(), from.clone(), to.clone());
        Box::pin(async move { capacity.refusals(&from, &to).await })
    }

    fn healthy(&self) -> BTreeSet<Part> {
        self.inner.healthy()
    }
}
