//! The survey of a site: every camera's pictures and every upstream watched for a while, judged, and signed.
//!
//! ```text
//!  start --> test of the line, if an address is given --> soak: one gauge per mountpoint --> verdict --> signature --> kept
//! ```
//! One at a time. It changes nothing and takes nothing from the streams but a reader's place in each ring.

mod gauge;
mod key;
mod verdict;

pub use key::{DOCUMENT_MAX, DeviceKey, KeyError, verify};
pub use verdict::{CameraReport, Certificate, Check, UpstreamReport, Verdict};

use crate::admin::discovery::{CameraApi, CameraView};
use crate::certificate::machine_names;
use crate::clock::timestamp;
use crate::recorder::Recorder;
use crate::store::{StoreFs, write_whole};
use crate::wiring::{Segments, TrialState, TrialWish, Trials, segments};
use fieldgate_hub::{Clock, Item, Mountpoint, Registry, StreamState};
use fieldgate_media::{ClockSource, TrackKind};
use fieldgate_model::config::{Config, SecretUrl, Source, Span};
use fieldgate_model::status::{MountpointStatus, PushStatus, State, Status};
use fieldgate_model::{Event, EventKind, Timestamp};
use gauge::{Gauge, Measured};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;
use verdict::{Known, Line, Sent, not_measured};

/// Surveys that are kept; the oldest go.
const KEPT: usize = 8;
/// Mountpoints in one survey.
const MOUNTPOINTS_MAX: usize = 256;
/// How long pictures are watched, unless said otherwise.
const SOAK: Duration = Duration::from_secs(300);
/// How long that may be.
const SOAK_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(86_400);
/// Longest test of the line.
const TRIAL_WITHIN: Duration = Duration::from_secs(60);
/// Entries taken from a ring at once.
const BATCH: (usize, usize) = (64, 1 << 20);
const PREFIX: &str = "survey-";
const SUFFIX: &str = ".json";

/// What is to be surveyed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AcceptanceWish")]
pub struct Wish {
    /// How long pictures are watched, `"2s"` to `"1d"`. Default `"300s"`.
    #[serde(default)]
    #[schemars(extend("minSpan" = "2s", "maxSpan" = "1d"))]
    pub soak: Option<Span>,
    /// An RTMP address with a stream key that nobody uses, to measure what the line takes. Default: not measured.
    #[serde(default)]
    pub bandwidth_url: Option<SecretUrl>,
}

/// How far a survey is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The line is tested.
    Line,
    /// Pictures are watched.
    Soak,
    /// It has ended; there is a certificate.
    Done,
}

/// One survey.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Survey {
    /// Names it.
    pub id: String,
    /// How far it is.
    pub phase: Phase,
    /// When it began.
    pub begun: Timestamp,
    /// When it will have ended, about.
    pub ends: Timestamp,
    /// What came of it, once it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The signed document, to be kept: see `GET /api/v1/acceptance/{id}/certificate.json`.
    #[serde(skip)]
    document: Option<Value>,
}

/// Why no survey begins.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// One at a time.
    #[error("a survey is under way, until about {0}; watch that")]
    Busy(Timestamp),
    /// Too short or too long.
    #[error("soak must be 2s to 1d")]
    Soak,
    /// There is nothing to survey.
    #[error("there is no camera yet: add one first")]
    Nothing,
}

/// What a survey looks at.
pub struct Site {
    /// The mountpoints.
    pub registry: Arc<Registry>,
    /// The status, without waiting.
    pub status: Box<dyn Fn() -> Status + Send + Sync>,
    /// What runs.
    pub config: Box<dyn Fn() -> Arc<Config> + Send + Sync>,
    /// Cameras on the network, for their clocks.
    pub cameras: Arc<dyn CameraApi>,
    /// Tests the line.
    pub trials: Arc<Trials>,
    /// Is told how it ended.
    pub recorder: Arc<Recorder>,
    /// For times that are shown.
    pub clock: Clock,
}

type Kept = Arc<Mutex<Desk>>;

struct Desk {
    surveys: VecDeque<Survey>,
    next_id: u64,
    files: Box<dyn StoreFs>,
    key: DeviceKey,
}

/// All surveys, and the key that signs them.
pub struct Acceptance {
    site: Arc<Site>,
    desk: Kept,
    runtime: Handle,
    tasks: Mutex<JoinSet<()>>,
}

impl Acceptance {
    /// Reads what was kept, and makes the device's key if there is none. To be called inside the runtime that watches. Blocks
    /// on the disk.
    pub fn open(site: Site, mut files: Box<dyn StoreFs>) -> Result<Self, KeyError> {
        let key = DeviceKey::open(files.as_mut())?;
        let mut numbers: Vec<u64> = files.list()?.iter().filter_map(|name| number_of(name)).collect();
        numbers.sort_unstable();
        let mut surveys = VecDeque::new();
        for number in &numbers {
            match files.read(&name_of(*number))?.and_then(|bytes| kept(*number, &bytes)) {
                Some(survey) => surveys.push_back(survey),
                None => warn!(number, "the certificate of a survey cannot be read"),
            }
        }
        let next_id = numbers.last().map_or(1, |last| last + 1);
        let desk = Arc::new(Mutex::new(Desk { surveys, next_id, files, key }));
        Ok(Acceptance { site: Arc::new(site), desk, runtime: Handle::current(), tasks: Mutex::default() })
    }

    /// The device's public key.
    pub fn public_key(&self) -> String {
        lock(&self.desk).key.public()
    }

    /// All that are kept, the newest first.
    pub fn all(&self) -> Vec<Survey> {
        lock(&self.desk).surveys.iter().rev().cloned().collect()
    }

    /// One of them.
    pub fn get(&self, id: &str) -> Option<Survey> {
        lock(&self.desk).surveys.iter().find(|survey| survey.id == id).cloned()
    }

    /// The signed document of one that is done.
    pub fn document(&self, id: &str) -> Option<Value> {
        self.get(id)?.document
    }

    /// Begins one.
    pub fn start(&self, wish: Wish, by: String) -> Result<Survey, SurveyError> {
        let soak = wish.soak.map_or(SOAK, Span::get);
        if !SOAK_RANGE.contains(&soak) {
            return Err(SurveyError::Soak);
        }
        let names = self.site.mountpoints();
        if names.is_empty() {
            return Err(SurveyError::Nothing);
        }
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        let mut desk = lock(&self.desk);
        if !tasks.is_empty() {
            let ends = desk.surveys.back().map(|survey| survey.ends);
            return Err(SurveyError::Busy(ends.unwrap_or_default()));
        }
        let begun = timestamp(&self.site.clock);
        let line = if wish.bandwidth_url.is_some() { TRIAL_WITHIN } else { Duration::ZERO };
        let phase = if wish.bandwidth_url.is_some() { Phase::Line } else { Phase::Soak };
        let (id, ends) = (desk.next_id.to_string(), begun.plus(soak + line));
        desk.next_id += 1;
        let survey = Survey { id, phase, begun, ends, certificate: None, document: None };
        desk.surveys.push_back(survey.clone());
        drop(desk);
        let run =
            Run { site: self.site.clone(), desk: self.desk.clone(), id: survey.id.clone(), by, begun, soak };
        tasks.spawn_on(run.whole(names, wish.bandwidth_url), &self.runtime);
        Ok(survey)
    }
}

impl Site {
    /// Mountpoints with a source of their own, renditions aside.
    fn mountpoints(&self) -> Vec<String> {
        let status = (self.status)();
        status.mountpoints.into_keys().take(MOUNTPOINTS_MAX).collect()
    }

    /// How far the clock of the camera behind this source is before ours, as the search for cameras found.
    fn clock_offset_micros(&self, source: &Source, cameras: &[CameraView]) -> Option<i64> {
        let url = match source {
            Source::Rtsp(rtsp) => &rtsp.url,
            Source::Mjpeg(mjpeg) => &mjpeg.url,
            _ => return None,
        };
        let host = url.parts().ok()?.host.to_owned();
        let is_it = |camera: &&CameraView| camera.address.is_some_and(|address| address.to_string() == host);
        let text = cameras.iter().find(is_it)?.time_offset.clone()?;
        let (number, unit) = match text.strip_suffix("ms") {
            Some(number) => (number, 1_000),
            None => (text.strip_suffix('s')?, 1_000_000),
        };
        Some(number.parse::<i64>().ok()?.saturating_mul(unit))
    }
}

/// One survey while it runs.
struct Run {
    site: Arc<Site>,
    desk: Kept,
    id: String,
    by: String,
    begun: Timestamp,
    soak: Duration,
}

impl Run {
    async fn whole(self, names: Vec<String>, bandwidth_url: Option<SecretUrl>) {
        let (bits_per_second, why) = match bandwidth_url {
            Some(url) => self.line(url).await,
            None => (
                None,
                "no address to measure it with was given; Test beside an upstream measures it".to_owned(),
            ),
        };
        let ends = timestamp(&self.site.clock).plus(self.soak);
        self.edit(|survey| (survey.phase, survey.ends) = (Phase::Soak, ends));
        let (before, segments_before) = ((self.site.status)(), segments().await);
        let measured = self.watch(names).await;
        let (after, segments_after) = ((self.site.status)(), segments().await);
        let certificate = self.certificate(
            &measured,
            &before,
            &after,
            |needed| Line { segments: resent(segments_before, segments_after), bits_per_second, needed },
            &why,
        );
        self.keep(certificate).await;
    }

    async fn line(&self, url: SecretUrl) -> (Option<u64>, String) {
        let wish = TrialWish { url: Some(url), mountpoint: None, push: None };
        let trial = match self.site.trials.start(wish, &(self.site.config)(), |_, _| false) {
            Ok(trial) => trial,
            Err(error) => return (None, error.to_string()),
        };
        let ended = timeout(TRIAL_WITHIN, async {
            loop {
                sleep(Duration::from_millis(200)).await;
                let now = self.site.trials.get(&trial.id);
                if let Some(now) = now.filter(|now| now.state != TrialState::Running) {
                    return now;
                }
            }
        });
        match ended.await {
            Ok(trial) => {
                let failed = trial.steps.into_iter().find(|step| step.state == TrialState::Failed);
                let why = failed.map_or("the test measured none".to_owned(), |step| step.text);
                (trial.bits_per_second, why)
            }
            Err(_) => (None, format!("the test of the line did not end within {} s", TRIAL_WITHIN.as_secs())),
        }
    }

    async fn watch(&self, names: Vec<String>) -> BTreeMap<String, Measured> {
        let mut watching = JoinSet::new();
        for name in names {
            let (registry, clock, soak) = (self.site.registry.clone(), self.site.clock.clone(), self.soak);
            watching.spawn(async move {
                let measured = watch(&registry, &name, &clock, soak).await;
                (name, measured)
            });
        }
        let mut all = BTreeMap::new();
        while let Some(ended) = watching.join_next().await {
            all.extend(ended.ok());
        }
        all
    }

    fn certificate(
        &self,
        measured: &BTreeMap<String, Measured>,
        before: &Status,
        after: &Status,
        line: impl FnOnce(u64) -> Line,
        why: &str,
    ) -> Certificate {
        let (config, cameras) = ((self.site.config)(), self.site.cameras.cameras());
        let (mut of_cameras, mut upstreams, mut needed) = (Vec::new(), Vec::new(), 0);
        for (name, measured) in measured {
            let status = after.mountpoints.get(name);
            let source = config.mountpoint_for(name).map(|(_, mountpoint)| &mountpoint.source);
            let offset = source.and_then(|source| self.site.clock_offset_micros(source, &cameras));
            of_cameras.push(CameraReport {
                mountpoint: name.clone(),
                kind: status.map(|it| it.source.kind.clone()).unwrap_or_default(),
                described: status.and_then(|it| it.source.described.clone()),
                checks: verdict::camera(measured, &known(status, offset)),
            });
            for (id, push) in status.iter().flat_map(|it| &it.pushes).filter(|(_, push)| push.enabled) {
                let then = before.mountpoints.get(name).and_then(|it| it.pushes.get(id));
                let sent = sent(then, push);
                needed += measured.bits_per_second;
                upstreams.push(UpstreamReport {
                    mountpoint: name.clone(),
                    upstream: id.clone(),
                    url: push.url.clone(),
                    checks: verdict::upstream(&sent, self.soak),
                });
            }
        }
        let uplink = match upstreams.is_empty() {
            true => vec![
                not_measured("loss", "nothing is sent on"),
                not_measured("bandwidth", "nothing is sent on"),
            ],
            false => verdict::uplink(&line(needed), why),
        };
        let mut certificate = Certificate {
            format: "fieldgate-acceptance-1".to_owned(),
            gateway: machine_names().pop().unwrap_or_default(),
            version: after.version.clone(),
            config_revision: after.config.revision,
            by: self.by.clone(),
            begun: self.begun,
            ended: timestamp(&self.site.clock),
            soak_seconds: self.soak.as_secs(),
            verdict: Verdict::NotMeasured,
            cameras: of_cameras,
            upstreams,
            uplink,
        };
        certificate.verdict = certificate.judge();
        certificate
    }

    async fn keep(&self, certificate: Certificate) {
        let word = if certificate.verdict == Verdict::Passed { "passed" } else { "failed" };
        let text =
            format!("the survey of the site {word}: {} cameras, by {}", certificate.cameras.len(), self.by);
        let (desk, id) = (self.desk.clone(), self.id.clone());
        // Signed and written where waiting is allowed.
        let work = move || {
            let text = serde_json::to_string(&certificate).expect("a certificate serialises");
            let mut desk = lock(&desk);
            let document = desk.key.document(&text);
            let bytes = document.to_string();
            let number = id.parse().unwrap_or(0);
            let mut saved = write_whole(desk.files.as_mut(), &name_of(number), bytes.as_bytes());
            if let Some(survey) = desk.surveys.iter_mut().find(|survey| survey.id == id) {
                (survey.certificate, survey.document) = (Some(certificate.clone()), Some(document));
                (survey.phase, survey.ends) = (Phase::Done, certificate.ended);
            }
            while desk.surveys.len() > KEPT {
                let gone = desk.surveys.pop_front().and_then(|survey| survey.id.parse().ok()).unwrap_or(0);
                saved = saved.and_then(|()| desk.files.remove(&name_of(gone)));
            }
            if let Err(error) = saved {
                warn!(%error, "the certificate is kept in memory alone");
            }
        };
        tokio::task::spawn_blocking(work).await.ok();
        self.site.recorder.note(Event::new(EventKind::Acceptance, text));
    }

    fn edit(&self, edit: impl FnOnce(&mut Survey)) {
        if let Some(survey) = lock(&self.desk).surveys.iter_mut().find(|survey| survey.id == self.id) {
            edit(survey);
        }
    }
}

/// Watches one mountpoint's pictures for the whole time.
async fn watch(registry: &Registry, name: &str, clock: &Clock, soak: Duration) -> Measured {
    let mut gauge = Gauge::default();
    let watching = async {
        let mut has_come = false;
        loop {
            let Some(mountpoint) = registry.get(name) else {
                sleep(Duration::from_millis(200)).await;
                continue;
            };
            let mut state = mountpoint.state();
            if state.wait_for(|state| matches!(state, StreamState::Live(_))).await.is_err() {
                sleep(Duration::from_millis(200)).await;
                continue;
            }
            if has_come {
                gauge.broke();
            }
            has_come = true;
            follow(&mountpoint, clock, &mut gauge).await;
        }
    };
    timeout(soak, watching).await.ok();
    gauge.measured(Instant::now())
}

/// Until the stream ends.
async fn follow(mountpoint: &Mountpoint, clock: &Clock, gauge: &mut Gauge) {
    let mut state = mountpoint.state();
    let mut subscriber = mountpoint.subscribe(None);
    let mut video = None;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            () = subscriber.changed() => {}
            gone = state.wait_for(|state| !matches!(state, StreamState::Live(_))) => {
                drop(gone);
                return;
            }
        }
        let now = Instant::now();
        let taken = subscriber.take(&mut batch, BATCH.0, BATCH.1);
        if taken.dropped_units > 0 {
            // We were too slow ourselves: that is no break of the camera, and no measure either.
            video = None;
        }
        for entry in batch.drain(..) {
            match &entry.item {
                Item::Tracks { tracks, .. } => {
                    video = tracks.first(TrackKind::Video).or(tracks.first(TrackKind::Audio)).map(|it| it.id);
                }
                Item::Unit { unit, .. } if Some(unit.head.track) == video => {
                    let by_camera = unit.head.captured.filter(|it| it.by == ClockSource::Camera);
                    let offset = by_camera.map(|it| it.unix_micros.saturating_sub(clock.unix_micros()));
                    gauge.picture(&unit.head, unit.payload.len(), now, offset);
                }
                Item::Unit { .. } => {}
            }
        }
    }
}

fn known(status: Option<&MountpointStatus>, clock_offset_micros: Option<i64>) -> Known {
    let Some(status) = status else { return Known { clock_offset_micros, ..Known::default() } };
    let tracks = status.stream.as_ref().map(|stream| stream.tracks.as_slice()).unwrap_or_default();
    let track = tracks.iter().find(|track| track.kind == "video").or(tracks.first());
    Known {
        codec: track.map(|track| track.codec.clone()),
        size: track.map(|track| (track.width, track.height)),
        announced_rate: track.map(|track| track.frame_rate),
        clock_offset_micros,
        picture: status.picture.as_ref().map(|picture| (picture.verdict.clone(), picture.cause.clone())),
        trouble: status.source.activity.as_ref().and_then(|activity| activity.cause.clone()),
    }
}

fn sent(before: Option<&PushStatus>, after: &PushStatus) -> Sent {
    let lost =
        |push: &PushStatus| push.kmp.as_ref().map_or(push.counters.dropped_units, |kmp| kmp.lost_frames);
    let error = after.kmp.as_ref().and_then(|kmp| kmp.error.clone());
    Sent {
        delivers: after.activity.state == State::Running && error.is_none(),
        starts: before.map_or(0, |before| after.activity.starts.saturating_sub(before.activity.starts)),
        bytes: after.counters.bytes.saturating_sub(before.map_or(0, |before| before.counters.bytes)),
        lost_frames: lost(after).saturating_sub(before.map_or(0, lost)),
        cause: error.or(after.activity.cause.clone()),
    }
}

fn resent(before: Option<Segments>, after: Option<Segments>) -> Option<(u64, u64)> {
    let (before, after) = before.zip(after)?;
    Some((after.sent.saturating_sub(before.sent), after.resent.saturating_sub(before.resent)))
}

fn lock(desk: &Kept) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name_of(number: u64) -> String {
    format!("{PREFIX}{number}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// A survey of an earlier run, from its signed document.
fn kept(number: u64, bytes: &[u8]) -> Option<Survey> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let certificate: Certificate = serde_json::from_str(document.get("signed")?.as_str()?).ok()?;
    Some(Survey {
        id: number.to_string(),
        phase: Phase::Done,
        begun: certificate.begun,
        ends: certificate.ended,
        certificate: Some(certificate),
        document: Some(document),
    })
}
