//! What the admin plane asks of the gateway, and [`Gateway`], which answers from the steward and the status.
//!
//! All methods are called on the admin plane's own threads. Changes may wait there, within [`PATIENCE`]; all else must
//! not wait at all, as a stuck read counts as a stuck HTTP server.

use super::discovery::CameraApi;
pub use super::plan::Planner;
use crate::acceptance::Acceptance;
use crate::certificate::CertificateDesk;
use crate::fleet::{Fleet, Pushed, TakeError, Way};
use crate::logging::Tail;
use crate::machine::{self, Facts, State, TimeFacts};
use crate::plan::Answer as PlanAnswer;
use crate::recorder::Recorder;
use crate::steward::{Answer, Applied, ChangeError, Edit, Proof, Request, StewardHandle};
use crate::store::{Confirmed, History};
use crate::update::{InstallWish, UpdateError, Updates};
use crate::wiring::{Devices, InspectError, Listed, MaskDesk, Snapshot, SnapshotError, Snapshots, Trials};
use fieldgate_hub::Pulses;
use fieldgate_model::config::{Problem, schema, validate_on};
use fieldgate_model::{Config, Status};
use fieldgate_net::{Recordings, Shelf};
use fieldgate_spool::{Answer as LedgerAnswer, Ledger, Query as LedgerQuery};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

/// How long a request waits for the steward; the change goes on when it is over. Below the front's own deadline.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// How long a request waits for a picture to be decoded.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(20);

/// The config as it may be shown, and the revision that it has.
#[derive(Clone, Debug)]
pub struct ConfigView {
    /// Counts confirmed changes; the ETag.
    pub revision: u64,
    /// The config as JSON with secrets masked.
    pub json: Vec<u8>,
}

/// How far a change has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The steward has answered.
    Settled(Applied),
    /// It has not within [`PATIENCE`], and goes on.
    UnderWay,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// What was sent has not the shape of a config; all its faults.
    #[error("this is not a config")]
    Unreadable(Vec<Problem>),
    /// Too old, or never there.
    #[error("revision {0} is not kept")]
    NoRevision(u64),
    /// A revision that this build cannot run.
    #[error("revision {0} {1}")]
    OldRevision(u64, String),
    /// The steward says no.
    #[error(transparent)]
    Refused(#[from] ChangeError),
}

/// What the config shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// This, whole: JSON as it came.
    Whole(&'a [u8]),
    /// What it is, with this JSON merge patch.
    Patch(&'a [u8]),
    /// What it was at this revision.
    Revision(u64),
}

/// A config that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put<'a> {
    /// What it shall be.
    pub wanted: Wanted<'a>,
    /// The revision that its sender had seen.
    pub over: u64,
    /// Only look whether it could be applied.
    pub dry_run: bool,
    /// Who sends it.
    pub by: String,
}

/// Whether the critical loops of the program are alive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The loops that are silent, with how long, for a person; empty when all is well.
    pub silent: Vec<String>,
}

/// The gateway, seen from the admin plane.
pub trait AdminApi: Send + Sync + 'static {
    /// The confirmed config, for reading and as what a change starts from.
    fn config(&self) -> ConfigView;
    /// The confirmed config with its origin.
    fn confirmed(&self) -> Arc<Confirmed>;
    /// The configs that were confirmed before it.
    fn history(&self) -> History;
    /// The config that runs.
    fn running(&self) -> Arc<Config>;
    /// Applies a new config.
    fn put_config(&self, put: Put<'_>) -> Result<Outcome, PutError>;
    /// Confirms the change that waits; `opened` is when the asking connection was opened.
    fn confirm(&self, opened: Instant) -> Result<Outcome, PutError>;
    /// The status, as of now or little before.
    fn status(&self) -> Status;
    /// Signs of life.
    fn health(&self) -> Health;
    /// What happens to every stream: of the config that runs, or of a config sent as JSON, which is not applied.
    fn plan(&self, candidate: Option<&[u8]>) -> Result<PlanAnswer, PutError>;
    /// Waits until nobody keeps what this mountpoint showed before its last mask; false: not in time.
    fn masks_in_force(&self, _mountpoint: &str) -> bool {
        true
    }

    /// Tests of upstreams, where there are any.
    fn trials(&self) -> Option<&Trials> {
        None
    }
    /// What happened; none while the gateway starts.
    fn recorder(&self) -> Option<&Arc<Recorder>> {
        None
    }
    /// Surveys of the site, where they can be made.
    fn acceptance(&self) -> Option<&Acceptance> {
        None
    }
    /// Has a mountpoint's source begin anew. False: there is none of this name.
    fn restart_source(&self, _mountpoint: &str) -> bool {
        false
    }
    /// Ends the program, to be started anew by the system. False: nobody would start it.
    fn restart(&self) -> bool {
        false
    }
    /// The last lines of the log, where they are kept.
    fn log(&self) -> Option<&Tail> {
        None
    }
    /// The privacy masks; none while the gateway starts.
    fn masks(&self) -> Option<&MaskDesk> {
        None
    }
    /// The certificate that this plane shows; none while the gateway starts.
    fn certificates(&self) -> Option<&CertificateDesk> {
        None
    }
    /// What is kept of a mountpoint's stream on disk, where it is recorded.
    fn recordings(&self, _mountpoint: &str) -> Option<Arc<Shelf>> {
        None
    }
    /// What the fleet manager wished; none while the gateway starts.
    fn fleet(&self) -> Option<&Fleet> {
        None
    }
    /// Hands a bundle in; none if it has not got far within [`PATIENCE`], and goes on.
    fn push_bundle(&self, text: String, by: &str) -> Result<Option<Pushed>, TakeError> {
        let (_, _) = (text, by);
        Err(TakeError::Busy)
    }
    /// The machine's firmware; none while the gateway starts.
    fn updates(&self) -> Option<&Updates> {
        None
    }
    /// Has the bundle that waits installed. May wait, within [`PATIENCE`].
    fn install_update(&self, wish: InstallWish, by: &str) -> Result<(), UpdateError> {
        let (_, _) = (wish, by);
        Err(UpdateError::NoUpload)
    }
    /// What became of what was sent to upstreams.
    fn ledger(&self, query: &LedgerQuery) -> LedgerAnswer;
    /// Cameras on the network, where they are looked for.
    fn cameras(&self) -> Option<&dyn CameraApi> {
        None
    }
    /// The local capture devices.
    fn devices(&self) -> Vec<Listed>;
    /// The machine's network, as it is.
    fn network(&self) -> Facts {
        Facts::now(State::Untouched, Vec::new())
    }
    /// The machine's time, as it is.
    fn time(&self) -> TimeFacts {
        TimeFacts::at(self.status().at, State::Untouched)
    }
    /// The newest picture of a mountpoint, and its age. May wait, within [`SNAPSHOT_PATIENCE`].
    fn snapshot(&self, name: &str, width: u32) -> Result<(Snapshot, Duration), SnapshotError> {
        let _ = width;
        Err(SnapshotError::Unknown(name.to_owned()))
    }
    /// The first picture of a recorded segment. May wait, within [`SNAPSHOT_PATIENCE`].
    fn preview(&self, name: &str, number: u64, width: u32) -> Result<Snapshot, SnapshotError> {
        let (_, _) = (number, width);
        Err(SnapshotError::Unknown(name.to_owned()))
    }
}

/// Ways to begin anew.
pub trait Restarts: Send + Sync + 'static {
    /// Has a mountpoint's source begin anew. False: there is none of this name. Never waits.
    fn source(&self, mountpoint: &str) -> bool;
    /// Ends the program, to be started anew by the system. False: nobody would start it. Never waits.
    fn program(&self) -> bool;
}

/// The gateway itself.
pub struct Gateway<S> {
    steward: StewardHandle,
    pulses: Pulses,
    status: S,
    ledger: Arc<Ledger>,
    planner: Planner,
    cameras: Option<Arc<dyn CameraApi>>,
    devices: Arc<Devices>,
    snapshots: Option<Arc<Snapshots>>,
    recordings: Recordings,
    masks: Arc<MaskDesk>,
    trials: Option<Arc<Trials>>,
    certificates: Option<Arc<CertificateDesk>>,
    machine: Option<Arc<machine::Desk>>,
    recorder: Option<Arc<Recorder>>,
    log: Option<Tail>,
    acceptance: Option<Acceptance>,
    restarts: Option<Box<dyn Restarts>>,
    fleet: Option<Fleet>,
    updates: Option<Updates>,
    runtime: Handle,
}

impl<S> Gateway<S>
where
    S: Fn() -> Status + Send + Sync + 'static,
{
    /// `status` gives the current status without waiting. To be called inside the runtime that the steward runs on.
    pub fn new(
        steward: StewardHandle,
        pulses: Pulses,
        status: S,
        ledger: Arc<Ledger>,
        planner: Planner,
        devices: Arc<Devices>,
        masks: Arc<MaskDesk>,
    ) -> Self {
        let (cameras, snapshots, certificates, runtime) = (None, None, None, Handle::current());
        Gateway {
            steward,
            pulses,
            status,
            ledger,
            planner,
            devices,
            masks,
            cameras,
            snapshots,
            recordings: Recordings::default(),
            trials: None,
            certificates,
            machine: None,
            recorder: None,
            log: None,
            acceptance: None,
            restarts: None,
            fleet: None,
            updates: None,
            runtime,
        }
    }

    /// With cameras on the network to look for.
    #[must_use]
    pub fn with_cameras(mut self, cameras: Arc<dyn CameraApi>) -> Self {
        self.cameras = Some(cameras);
        self
    }

    /// With tests of upstreams.
    #[must_use]
    pub fn with_trials(self, trials: Arc<Trials>) -> Self {
        Gateway { trials: Some(trials), ..self }
    }

    /// With what happened.
    #[must_use]
    pub fn with_recorder(self, recorder: Arc<Recorder>) -> Self {
        Gateway { recorder: Some(recorder), ..self }
    }

    /// With surveys of the site.
    #[must_use]
    pub fn with_acceptance(self, acceptance: Acceptance) -> Self {
        Gateway { acceptance: Some(acceptance), ..self }
    }

    /// With ways to begin anew.
    #[must_use]
    pub fn with_restarts(self, restarts: Box<dyn Restarts>) -> Self {
        Gateway { restarts: Some(restarts), ..self }
    }

    /// With the last lines of the log.
    #[must_use]
    pub fn with_log(self, log: Tail) -> Self {
        Gateway { log: Some(log), ..self }
    }

    /// With a fleet manager.
    #[must_use]
    pub fn with_fleet(self, fleet: Fleet) -> Self {
        Gateway { fleet: Some(fleet), ..self }
    }

    /// With the machine's firmware.
    #[must_use]
    pub fn with_updates(self, updates: Updates) -> Self {
        Gateway { updates: Some(updates), ..self }
    }

    /// With the machine's own network and time.
    #[must_use]
    pub fn with_machine(self, machine: Arc<machine::Desk>) -> Self {
        Gateway { machine: Some(machine), ..self }
    }

    /// With a certificate of its own.
    #[must_use]
    pub fn with_certificates(self, certificates: Arc<CertificateDesk>) -> Self {
        Gateway { certificates: Some(certificates), ..self }
    }

    /// With what is recorded.
    #[must_use]
    pub fn with_recordings(self, recordings: Recordings) -> Self {
        Gateway { recordings, ..self }
    }

    /// With pictures of what the mountpoints show.
    #[must_use]
    pub fn with_snapshots(self, snapshots: Arc<Snapshots>) -> Self {
        Gateway { snapshots: Some(snapshots), ..self }
    }

    fn wanted(&self, put: &Put<'_>) -> Result<Config, PutError> {
        match put.wanted {
            Wanted::Whole(json) => read_config(json).map_err(PutError::Unreadable),
            Wanted::Patch(json) => {
                let confirmed = self.steward.view().confirmed;
                // Laid over another revision than the sender saw, it could mean something else.
                if confirmed.meta.revision != put.over {
                    return Err(ChangeError::Stale { current: confirmed.meta.revision }.into());
                }
                let text = utf8(json).map_err(PutError::Unreadable)?;
                confirmed.config.patched(text).map_err(PutError::Unreadable)
            }
            Wanted::Revision(wanted) => {
                let view = self.steward.view();
                let past = view.history.iter().find(|past| past.meta.revision == wanted);
                let past = past.ok_or(PutError::NoRevision(wanted))?.confirmed();
                past.map(|past| past.config).map_err(|error| PutError::OldRevision(wanted, error.to_string()))
            }
        }
    }

    fn settle(&self, answer: Answer) -> Result<Outcome, PutError> {
        match self.runtime.block_on(async { timeout(PATIENCE, answer.wait()).await }) {
            Ok(settled) => Ok(Outcome::Settled(settled?)),
            Err(_) => Ok(Outcome::UnderWay),
        }
    }
}

impl<S> AdminApi for Gateway<S>
where
    S: Fn() -> Status + Send + Sync + 'static,
{
    fn config(&self) -> ConfigView {
        let view = self.steward.view();
        let json = serde_json::to_vec_pretty(&view.confirmed.config).expect("a config serialises");
        ConfigView { revision: view.confirmed.meta.revision, json }
    }

    fn confirmed(&self) -> Arc<Confirmed> {
        self.steward.view().confirmed
    }

    fn history(&self) -> History {
        self.steward.view().history
    }

    fn running(&self) -> Arc<Config> {
        self.steward.view().running
    }

    fn put_config(&self, put: Put<'_>) -> Result<Outcome, PutError> {
        let config = self.wanted(&put)?;
        let request = Request {
            edit: Edit::Replace(Box::new(config)),
            by: put.by,
            over: Some(put.over),
            dry_run: put.dry_run,
        };
        self.settle(self.steward.change(request)?)
    }

    fn confirm(&self, opened: Instant) -> Result<Outcome, PutError> {
        self.settle(self.steward.confirm(Proof::Opened(opened))?)
    }

    fn status(&self) -> Status {
        (self.status)()
    }

    fn health(&self) -> Health {
        let silent = self.pulses.silent();
        let tell = |silence: fieldgate_hub::Silence| {
            format!(
                "{}, for {} s of {} s",
                silence.name,
                silence.age.as_secs(),
                silence.max_silence.as_secs()
            )
        };
        Health { silent: silent.into_iter().map(tell).collect() }
    }

    fn plan(&self, candidate: Option<&[u8]>) -> Result<PlanAnswer, PutError> {
        let view = self.steward.view();
        let Some(json) = candidate else { return Ok(self.planner.running(&view.running)) };
        let mut config = read_config(json).map_err(PutError::Unreadable)?;
        let mut problems = config.keep_secrets(&view.confirmed.config);
        if problems.is_empty() {
            problems = validate_on(&config, self.planner.machine_memory_bytes);
        }
        if !problems.is_empty() {
            return Err(ChangeError::Invalid(problems).into());
        }
        Ok(self.runtime.block_on(self.planner.candidate(&view.running, &config)))
    }

    fn masks_in_force(&self, mountpoint: &str) -> bool {
        self.runtime.block_on(async { timeout(PATIENCE, self.masks.let_go(mountpoint)).await.is_ok() })
    }

    fn trials(&self) -> Option<&Trials> {
        self.trials.as_deref()
    }

    fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.as_ref()
    }

    fn acceptance(&self) -> Option<&Acceptance> {
        self.acceptance.as_ref()
    }

    fn restart_source(&self, mountpoint: &str) -> bool {
        self.restarts.as_ref().is_some_and(|restarts| restarts.source(mountpoint))
    }

    fn restart(&self) -> bool {
        self.restarts.as_ref().is_some_and(|restarts| restarts.program())
    }

    fn log(&self) -> Option<&Tail> {
        self.log.as_ref()
    }

    fn masks(&self) -> Option<&MaskDesk> {
        Some(&self.masks)
    }

    fn certificates(&self) -> Option<&CertificateDesk> {
        self.certificates.as_deref()
    }

    fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    fn push_bundle(&self, text: String, by: &str) -> Result<Option<Pushed>, TakeError> {
        let fleet = self.fleet.as_ref().ok_or(TakeError::Busy)?;
        let taken = async { timeout(PATIENCE, fleet.take(text, Way::Http, by)).await };
        self.runtime.block_on(taken).map_or(Ok(None), |taken| taken.map(Some))
    }

    fn updates(&self) -> Option<&Updates> {
        self.updates.as_ref()
    }

    fn install_update(&self, wish: InstallWish, by: &str) -> Result<(), UpdateError> {
        let updates = self.updates.as_ref().ok_or(UpdateError::NoUpload)?;
        updates.install_from(&self.runtime, wish, &self.status(), by)
    }

    fn ledger(&self, query: &LedgerQuery) -> LedgerAnswer {
        self.ledger.query(query)
    }

    fn cameras(&self) -> Option<&dyn CameraApi> {
        self.cameras.as_deref()
    }

    fn devices(&self) -> Vec<Listed> {
        self.devices.list()
    }

    fn network(&self) -> Facts {
        let announced = self.certificates.as_ref().map(|desk| desk.local_name().announced());
        let state = self.machine.as_ref().map(|machine| machine.states().0).unwrap_or_default();
        Facts::now(state, announced.unwrap_or_default())
    }

    fn time(&self) -> TimeFacts {
        let state = self.machine.as_ref().map(|machine| machine.states().1).unwrap_or_default();
        TimeFacts::at(self.status().at, state)
    }

    fn recordings(&self, mountpoint: &str) -> Option<Arc<Shelf>> {
        self.recordings.of(mountpoint)
    }

    fn snapshot(&self, name: &str, width: u32) -> Result<(Snapshot, Duration), SnapshotError> {
        let snapshots = self.snapshots.as_ref().ok_or_else(|| SnapshotError::Unknown(name.to_owned()))?;
        let made = async { timeout(SNAPSHOT_PATIENCE, snapshots.get(name, width)).await };
        let late = |_| SnapshotError::Undecoded(InspectError::Busy);
        let snapshot = self.runtime.block_on(made).map_err(late)??;
        let age = Instant::now().saturating_duration_since(snapshot.at);
        Ok((snapshot, age))
    }

    fn preview(&self, name: &str, number: u64, width: u32) -> Result<Snapshot, SnapshotError> {
        let unknown = || SnapshotError::Unknown(name.to_owned());
        let snapshots = self.snapshots.as_ref().ok_or_else(unknown)?;
        let shelf = self.recordings.of(name).ok_or_else(unknown)?;
        let valid = shelf.valid();
        let made =
            async { timeout(SNAPSHOT_PATIENCE, snapshots.of_recording(name, &shelf, number, width)).await };
        let late = |_| SnapshotError::Undecoded(InspectError::Busy);
        let made = self.runtime.block_on(made).map_err(late)??;
        // A mask that was added meanwhile has deleted what this shows.
        if valid.is_cancelled() { Err(SnapshotError::NotKept) } else { Ok(made) }
    }
}

/// Reads a config from bytes, or tells all that is wrong with its shape.
pub fn read_config(json: &[u8]) -> Result<Config, Vec<Problem>> {
    Config::parse(utf8(json)?)
}

fn utf8(json: &[u8]) -> Result<&str, Vec<Problem>> {
    let problem =
        |error| Problem::new(&fieldgate_model::config::Path::root(), format!("is no UTF-8: {error}"));
    std::str::from_utf8(json).map_err(|error| vec![problem(error)])
}

/// What must hold for any bytes sent as a config: no panic, and what is taken survives being stored and read back.
///
/// A plain function, for tests and fuzzing.
pub fn fuzz_config(bytes: &[u8]) {
    let Ok(mut config) = read_config(bytes) else { return };
    drop(config.keep_secrets(&Config::default()));
    if !fieldgate_model::config::validate(&config).is_empty() {
        return;
    }
    let stored = config.stored().expect("a config without fault can be stored");
    let again = Config::from_value(stored).expect("what was stored can be read");
    assert_eq!(again, config);
    let shown = serde_json::to_vec(&config).expect("a config serialises");
    let mut kept = read_config(&shown).expect("what is shown can be sent back");
    assert!(kept.keep_secrets(&config).is_empty(), "each secret that is shown can be kept");
    assert_eq!(kept, config);
}

/// The JSON Schema of the config, as served.
pub fn config_schema() -> Vec<u8> {
    schema().to_string().into_bytes()
}

#[cfg(test)]
mod tests;
