//! What the machine can encode, what the plan makes of it, and what is left out when it is too much.
//!
//! ```text
//!  config, streams, encoders --> plan --+--> Standing (watched by sources and renditions, shown in the status)
//!  sensors ----------------> Shedder ---+
//! ```
//! A source that encodes waits until it is known that it fits, and ends its worker while it is left out.

mod profiles;
mod sensors;

pub use sensors::{Look, Meter, Sensors};

use super::encoders::Encoders;
use super::{Board, Wiring};
use crate::clock::timestamp;
use crate::supervisor::{ChildContext, ChildError, Handling, RenditionKey, SupervisorHandle};
use fieldgate_hub::{Clock, Registry, StreamState};
use fieldgate_media::TrackKind;
use fieldgate_model::config::{Config, Problem, Source};
use fieldgate_model::plan::{
    Guest, Known, Plan, Profile, Readings, Seen, SeenAudio, SeenVideo, Shed, Shedder, Turn, admit, plan,
};
use fieldgate_model::status::{CapacityStatus, ShedStatus};
use fieldgate_model::{Cause, Event, EventKind, Timestamp};
use std::collections::{BTreeMap, VecDeque};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often sensors and streams are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// How long anybody waits for encoders to be measured before going on without.
const MEASURED_WITHIN: Duration = Duration::from_secs(10);
/// Time between two tries to measure encoders that failed as a whole.
const MEASURE_AGAIN: Duration = Duration::from_secs(60);
/// Events that are kept to be shown.
const EVENTS: usize = 32;

/// How things stand since the last look.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Of the config that runs.
    pub plan: Plan,
    /// What is left out, in the order in which it went, each with its time.
    pub shed: Vec<(Shed, Timestamp)>,
    /// What the sensors said.
    pub readings: Readings,
    /// Whether costs are known, or need not or cannot be.
    is_settled: bool,
}

impl Standing {
    /// Why this is left out: a mountpoint's source, or one of its renditions.
    pub fn shed_reason(&self, mountpoint: &str, rendition: Option<&str>) -> Option<&Shed> {
        let is_it = |shed: &&Shed| shed.mountpoint == mountpoint && shed.rendition.as_deref() == rendition;
        self.shed.iter().map(|(shed, _)| shed).find(is_it)
    }

    /// What encodes no pictures does not wait for encoders to be measured.
    fn judges(&self, mountpoint: &str, rendition: Option<&str>) -> bool {
        let Some(planned) = self.plan.mountpoints.get(mountpoint) else { return false };
        let made = |name: &str| planned.renditions.iter().find(|it| it.name == name).map(|it| &it.video);
        let video = rendition.map_or(Some(&planned.source.video), made);
        video.is_some_and(|video| self.is_settled || !video.encodes())
    }
}

/// Keeps the plan of what runs, and sheds what is too much.
pub struct Capacity {
    encoders: Arc<Encoders>,
    registry: Arc<Registry>,
    board: Arc<Board>,
    clock: Clock,
    sensors: Sensors,
    cores: u32,
    standing: watch::Sender<Arc<Standing>>,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// The last that was seen of each stream, with the source that it came from.
    streams: BTreeMap<String, (Source, Seen)>,
    masks: BTreeMap<String, usize>,
    profiles: BTreeMap<String, Vec<Profile>>,
    events: VecDeque<Event>,
    last_event: u64,
    guests: BTreeMap<u64, Guest>,
    last_guest: u64,
}

impl Capacity {
    /// Nothing known yet.
    pub fn new(
        encoders: Arc<Encoders>,
        registry: Arc<Registry>,
        board: Arc<Board>,
        clock: Clock,
        sensors: Sensors,
    ) -> Self {
        Capacity {
            encoders,
            registry,
            board,
            clock,
            sensors,
            cores: std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
            standing: watch::Sender::new(Arc::default()),
            notes: Mutex::default(),
        }
    }

    /// The plan that a config would have now, streams and encoders being as they are.
    pub fn plan_of(&self, config: &Config) -> Plan {
        plan(config, &self.known(config, &BTreeMap::new()))
    }

    /// Like [`Capacity::plan_of`], with encoders measured first if the config needs any.
    pub async fn measured_plan_of(&self, config: &Config, cancel: &CancellationToken) -> Plan {
        let first = self.plan_of(config);
        if !first.encodes() || first.load.measured {
            return first;
        }
        // What takes longer is not waited for: shedding is what then keeps the machine whole.
        timeout(MEASURED_WITHIN, self.encoders.measure(cancel)).await.ok();
        self.plan_of(config)
    }

    /// Why a change of the config is refused: what it would overload the machine with.
    pub async fn refusals(&self, from: &Config, to: &Config) -> Vec<Problem> {
        let after = self.measured_plan_of(to, &CancellationToken::new()).await;
        if after.over.is_empty() {
            return Vec::new();
        }
        admit(to, &self.plan_of(from), &after)
    }

    /// How things stand; changes are followed.
    pub fn standing(&self) -> watch::Receiver<Arc<Standing>> {
        self.standing.subscribe()
    }

    /// The encoder that the plan has for a mountpoint's source.
    pub fn encoder_for(&self, mountpoint: &str) -> Option<String> {
        self.standing.borrow().plan.mountpoints.get(mountpoint)?.source.video.encoder.clone()
    }

    /// The encoder that the plan has for a rendition.
    pub fn encoder_for_rendition(&self, key: &RenditionKey) -> Option<String> {
        super::ways::rendition(&self.standing.borrow().plan, key)?.video.encoder.clone()
    }

    /// The time of day, microseconds since 1970.
    pub(super) fn unix_micros(&self) -> i64 {
        self.clock.unix_micros()
    }

    /// How many masks a mountpoint has.
    pub fn note_masks(&self, mountpoint: &str, count: usize) {
        self.notes().masks.insert(mountpoint.to_owned(), count);
    }

    /// What else the camera of a mountpoint offers.
    pub fn note_profiles(&self, mountpoint: &str, profiles: Vec<Profile>) {
        self.notes().profiles.insert(mountpoint.to_owned(), profiles);
    }

    /// Ends once this may run: a mountpoint's source, or one of its renditions. `waits` is called when that is not at
    /// once.
    pub async fn admitted(&self, mountpoint: &str, rendition: Option<&str>, waits: impl FnOnce()) {
        let mut standing = self.standing();
        // The sender lives in self.
        timeout(MEASURED_WITHIN, standing.wait_for(|standing| standing.judges(mountpoint, rendition)))
            .await
            .ok();
        if standing.borrow().shed_reason(mountpoint, rendition).is_some() {
            waits();
        }
        standing.wait_for(|standing| standing.shed_reason(mountpoint, rendition).is_none()).await.ok();
    }

    /// Ends once this is to be left out.
    pub async fn shed(&self, mountpoint: &str, rendition: Option<&str>) {
        let mut standing = self.standing();
        standing.wait_for(|standing| standing.shed_reason(mountpoint, rendition).is_some()).await.ok();
    }

    /// Lets a guest in, beside what the config says, for as long as the pass is kept; or says why it does not fit.
    pub(super) async fn let_in(
        self: &Arc<Self>,
        guest: Guest,
        config: &Config,
        cancel: &CancellationToken,
    ) -> Result<GuestPass, String> {
        let id = {
            let mut notes = self.notes();
            notes.last_guest += 1;
            let id = notes.last_guest;
            notes.guests.insert(id, guest);
            id
        };
        let mut pass = GuestPass { capacity: self.clone(), id, encoder: String::new() };
        let plan = self.measured_plan_of(config, cancel).await;
        match plan.guests.get(&id) {
            Some(Ok(encoder)) => {
                pass.encoder.clone_from(encoder);
                Ok(pass)
            }
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("it is gone".to_owned()),
        }
    }

    /// As it is shown.
    pub fn status(&self) -> CapacityStatus {
        let standing = self.standing.borrow().clone();
        let (load, readings) = (standing.plan.load, standing.readings);
        CapacityStatus {
            measured: load.measured,
            planned_cpu_percent: load.used.cpu_percent,
            cpu_limit_percent: load.limit.cpu_percent,
            cpu_percent: readings.cpu_percent,
            encoder_sessions: load.used.sessions,
            encoder_sessions_limit: load.limit.sessions,
            temperature_c: readings.temperature_c,
            temperature_limit_c: readings.temperature_c.map(|_| readings.temperature_limit_c),
            pressure_percent: readings.pressure,
            shed: standing.shed.iter().cloned().map(|(shed, since)| ShedStatus { shed, since }).collect(),
            events: self.notes().events.iter().cloned().collect(),
        }
    }

    /// Looks every few seconds, and whenever the config or the streams under templates have changed, until cancelled.
    /// Has those renditions made that are needed then.
    pub async fn run(&self, supervisor: SupervisorHandle, cancel: CancellationToken) {
        let (mut config, mut running) = (supervisor.config(), supervisor.watch());
        let (mut shedder, mut meter, start) = (Shedder::default(), Meter::default(), Instant::now());
        let mut measuring: Option<Pin<Box<dyn Future<Output = ()> + Send + '_>>> = None;
        let mut measured_at: Option<Instant> = None;
        loop {
            let now = config.borrow_and_update().clone();
            let instances = supervisor.snapshot().instances.clone();
            let look = self.look(&now).await;
            let limit = self.cores.saturating_mul(u32::from(now.limits.cpu_percent));
            let readings = meter.readings(start.elapsed(), look, limit);
            let plan = plan(&now, &self.known(&now, &instances));
            // Viewers' sizes are not planned before somebody watches, who would wait for it then.
            let may_encode = now.mountpoints.values().flat_map(|it| &it.hls).any(|hls| !hls.sizes.is_empty());
            let wants = (plan.encodes() || may_encode) && !plan.load.measured;
            if wants && measuring.is_none() && measured_at.is_none_or(|at| at.elapsed() >= MEASURE_AGAIN) {
                measuring = Some(Box::pin(self.encoders.measure(&cancel)));
            }
            let is_settled = !wants || measuring.is_none();
            let renditions = super::ways::wanted(&plan);
            self.settle(&mut shedder, start.elapsed(), plan, readings, is_settled);
            supervisor.set_renditions(renditions).await;
            tokio::select! {
                () = cancel.cancelled() => return,
                changed = running.wait_for(|running| running.instances != instances) => if changed.is_err() {
                    return;
                },
                () = async { measuring.as_mut().expect("guarded").await }, if measuring.is_some() => {
                    (measuring, measured_at) = (None, Some(Instant::now()));
                }
                changed = config.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn settle(&self, shedder: &mut Shedder, now: Duration, plan: Plan, readings: Readings, is_settled: bool) {
        let turns = shedder.look(now, &plan, &readings);
        let at = timestamp(&self.clock);
        for turn in &turns {
            self.note_event(turn, at);
        }
        let before = self.standing.borrow().shed.clone();
        let since = |shed: &Shed| before.iter().find(|(old, _)| old == shed).map_or(at, |(_, since)| *since);
        let shed = shedder.shed().iter().map(|shed| (shed.clone(), since(shed))).collect();
        let standing = Standing { plan, shed, readings, is_settled };
        self.standing.send_if_modified(|shown| {
            let differs = **shown != standing;
            if differs {
                *shown = Arc::new(standing);
            }
            differs
        });
    }

    fn note_event(&self, turn: &Turn, at: Timestamp) {
        let what =
            |shed: &Shed| shed.rendition.as_ref().map(|it| format!("rendition {it} ")).unwrap_or_default();
        let (kind, text, shed) = match turn {
            Turn::Shed(shed) => {
                let (mountpoint, rendition) = (&shed.mountpoint, shed.rendition.as_deref());
                warn!(mountpoint, rendition, priority = shed.priority, reason = shed.reason, "left out");
                (EventKind::LoadShed, format!("{}left out: {}", what(shed), shed.reason), shed)
            }
            Turn::TakenBack(shed) => {
                let (mountpoint, rendition) = (&shed.mountpoint, shed.rendition.as_deref());
                info!(mountpoint, rendition, priority = shed.priority, "taken back");
                (EventKind::LoadTakenBack, format!("{}done again", what(shed)), shed)
            }
        };
        let mut notes = self.notes();
        notes.last_event += 1;
        let id = notes.last_event;
        let event = Event::new(kind, text).of(&shed.mountpoint).because(Cause::Capacity);
        notes.events.push_back(Event { id, at, ..event });
        if notes.events.len() > EVENTS {
            notes.events.pop_front();
        }
    }

    /// Sensors may be slow, so they are read where waiting is allowed.
    async fn look(&self, config: &Config) -> Look {
        let workers = self.board.workers();
        let processes: Vec<u32> = std::iter::once(std::process::id())
            .chain(workers.values().map(|worker| worker.report.pid))
            .filter(|pid| *pid > 0)
            .collect();
        let (sensors, limits) = (self.sensors.clone(), config.limits.clone());
        tokio::task::spawn_blocking(move || sensors.look(&limits, &processes)).await.unwrap_or_default()
    }

    /// What a plan of this config can rest on.
    fn known(&self, config: &Config, instances: &BTreeMap<String, String>) -> Known {
        let workers = self.board.workers();
        let mut notes = self.notes();
        let instance_of =
            |name: &str| instances.get(name).and_then(|template| config.mountpoints.get(template));
        let source_of = |name: &str| config.mountpoints.get(name).or_else(|| instance_of(name));
        notes.streams.retain(|name, (source, _)| source_of(name).is_some_and(|it| it.source == *source));
        let names = config.mountpoints.keys().chain(instances.keys());
        let mut streams = BTreeMap::new();
        for name in names {
            let Some(settings) = source_of(name) else { continue };
            let encoded_here = workers
                .get(name)
                .is_some_and(|worker| worker.report.status.encoders.iter().any(|trial| trial.chosen));
            if let Some(seen) = self.seen(name, encoded_here) {
                notes.streams.insert(name.clone(), (settings.source.clone(), seen));
            }
            let seen = notes.streams.get(name).map(|(_, seen)| seen.clone()).unwrap_or_default();
            let masks = notes.masks.get(name).copied().unwrap_or(0);
            let profiles = notes.profiles.get(name).cloned().unwrap_or_default();
            streams.insert(name.clone(), Seen { masks, profiles, ..seen });
        }
        let (instances, guests) = (instances.clone(), notes.guests.clone());
        Known { streams, instances, guests, cores: self.cores, ..self.encoders.facts() }
    }

    /// What is there of a stream now; none while there is none.
    fn seen(&self, name: &str, encoded_here: bool) -> Option<Seen> {
        let mountpoint = self.registry.get(name)?;
        if !matches!(*mountpoint.state().borrow(), StreamState::Live(_)) {
            return None;
        }
        let tracks = mountpoint.ring().tracks();
        if tracks.is_empty() {
            return None;
        }
        let video = tracks.first(TrackKind::Video).map(|track| SeenVideo {
            codec: track.codec,
            encoded_here,
            width: track.video.width,
            height: track.video.height,
            frame_rate: track.video.frame_rate.round().clamp(0.0, 1_000.0) as u32,
        });
        let audio = tracks.first(TrackKind::Audio);
        let audio = audio.map(|track| SeenAudio { codec: track.codec, encoded_here: false });
        Some(Seen { video, audio, is_whole: true, ..Seen::default() })
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest that is let in; gone with this.
pub(super) struct GuestPass {
    capacity: Arc<Capacity>,
    id: u64,
    /// The encoder that the plan has for it; empty: none is known yet.
    pub(super) encoder: String,
}

impl GuestPass {
    /// Ends once the plan has no room for it any more, with the reason.
    pub(super) async fn turned_out(&self) -> String {
        let mut standing = self.capacity.standing();
        let reason = |standing: &Standing| standing.plan.guests.get(&self.id).cloned().and_then(Result::err);
        // The sender lives in the capacity, which this holds.
        let found = standing.wait_for(|standing| reason(standing).is_some()).await;
        found.ok().and_then(|standing| reason(&standing)).unwrap_or_default()
    }
}

impl Drop for GuestPass {
    fn drop(&mut self) {
        self.capacity.notes().guests.remove(&self.id);
    }
}

impl Wiring {
    /// A source that runs while the machine has room for what it encodes.
    pub(super) async fn admitted_source(
        &self,
        name: String,
        source: Source,
        handling: Handling,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        if matches!(source, Source::Publish(_) | Source::Pull(_) | Source::Kmp(_)) {
            return self.source(name, source, handling, child).await;
        }
        loop {
            tokio::select! {
                // One that is left out is no failure of the change that brought it.
                () = self.capacity.admitted(&name, None, || child.ready.ready()) => {}
                () = child.cancel.cancelled() => return Ok(()),
            }
            let stop = child.cancel.child_token();
            let run = ChildContext { cancel: stop.clone(), ready: child.ready.clone() };
            let mut work = pin!(self.source(name.clone(), source.clone(), handling.clone(), run));
            tokio::select! {
                ended = &mut work => return ended,
                () = self.capacity.shed(&name, None) => stop.cancel(),
            }
            if let Err(error) = work.await {
                info!(mountpoint = name, %error, "ended while it was left out");
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
