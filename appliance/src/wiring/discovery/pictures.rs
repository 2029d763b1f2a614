//! Pictures of cameras that were found and not added yet: one of each, when somebody asks for it.
//!
//! ```text
//!  asked --bounded queue--> taken, two at once --> kept for a minute, as is why there is none
//! ```
//! Only cameras of the search are asked, at the address where they were found, and without a login unless whoever asks
//! gives one. A camera that a mountpoint has is left alone. What a camera sends is decoded by the sandboxed worker that
//! looks at pictures; browsers only get what that worker wrote.

use super::{Cameras, candidates, device_of, show, told};
use crate::admin::discovery::{CameraError, FoundPicture, LoginWish};
use crate::devices;
use crate::steward::chain;
use crate::wiring::encoders::Encoders;
use crate::wiring::inspector::Inspector;
use crate::wiring::pushes::dial_options;
use crate::wiring::sources::relayed;
use bytes::Bytes;
use fieldgate_hub::CameraKey;
use fieldgate_hub::link::Limits;
use fieldgate_hub::truth::Keyframe;
use fieldgate_media::{Codec, Draft, Ticks, Track, TrackId, TrackKind, Tracks, Unit, UnitHead};
use fieldgate_model::Config;
use fieldgate_model::config::Source;
use fieldgate_model::job::{
    self, AudioTreatment, EncoderWish, Job, RtspCamera, Sandbox, V4l2Camera, VideoEncode, VideoTreatment,
    Work,
};
use fieldgate_model::masks::Masks;
use fieldgate_net::{
    CameraClientError, CameraLogin, CameraRelay, ClientTls, Found, JpegCamera, JpegCameraError, JpegFetch,
    Target,
};
use fieldgate_proto::http_auth::Credentials;
use fieldgate_proto::onvif::{ClientError, Gap, Login, Profile, ServiceUrl, main_and_sub};
use fieldgate_proto::rtsp_probe::Cause;
use fieldgate_worker::{Deadlines, Deliver, Program, Report, Spawner, WorkerSource, WorkerSpec};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Pictures that may wait to be taken.
const WAITING: usize = 16;
/// Pictures, and reasons for none, that are kept; the oldest go.
const KEPT: usize = 64;
/// How long they are kept.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How long it is kept that a camera wants a login: some count each question without one as a wrong password.
const CLOSED_FOR: Duration = Duration::from_secs(600);
/// How long one picture may take in all.
const TAKE_WITHIN: Duration = Duration::from_secs(45);
/// Cameras of the config whose names are looked up, and how long that may take.
const MAX_NAMES: usize = 32;
const NAME_WITHIN: Duration = Duration::from_secs(2);
/// How long a camera may take to send a JPEG that it has ready.
const FETCH_WITHIN: Duration = Duration::from_secs(6);
/// From a worker's start to its first picture; keyframes of some cameras are ten seconds apart.
const FIRST_UNIT_WITHIN: Duration = Duration::from_secs(20);
/// The first pictures of a local camera that was asleep are dark.
const SETTLE: Duration = Duration::from_secs(1);
/// Pixels; smaller pictures stay as they are.
const WIDTH: u32 = 480;
const BITRATE: u32 = 2_000_000;
const GOP_MS: u32 = 1_000;
const LATENCY_MS: u32 = 200;

/// With what pictures are taken.
pub struct Eyes {
    /// Decodes them.
    pub inspector: Inspector,
    /// Starts the workers that fetch them.
    pub spawner: Spawner,
    /// Encodes what comes raw.
    pub encoders: Arc<Encoders>,
}

/// What was taken, and what shall be.
pub(super) struct Album {
    eyes: Eyes,
    kept: Mutex<HashMap<String, Entry>>,
    wishes: mpsc::Sender<Wanted>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Wanted>>,
}

struct Entry {
    since: Instant,
    /// None while it is waited for.
    outcome: Option<Result<Bytes, CameraError>>,
}

impl Entry {
    fn kept_for(&self) -> Duration {
        match &self.outcome {
            None => Duration::MAX,
            Some(Err(CameraError::LoginWanted)) => CLOSED_FOR,
            Some(_) => KEPT_FOR,
        }
    }
}

struct Wanted {
    id: String,
    login: Option<CameraLogin>,
    /// Where whoever gave the login saw the camera.
    address: Option<IpAddr>,
}

impl Album {
    pub(super) fn new(eyes: Eyes) -> Self {
        let (wishes, inbox) = mpsc::channel(WAITING);
        Album { eyes, kept: Mutex::default(), wishes, inbox: tokio::sync::Mutex::new(inbox) }
    }

    /// What is kept of a camera that is there; else it is put on the list of those to be taken.
    fn ask(&self, wanted: Wanted, now: Instant) -> Result<FoundPicture, CameraError> {
        let mut kept = self.lock();
        kept.retain(|_, entry| now.saturating_duration_since(entry.since) < entry.kept_for());
        match (kept.get(&wanted.id), &wanted.login) {
            (Some(Entry { outcome: None, .. }), None) => return Ok(FoundPicture::Looking),
            (Some(Entry { outcome: None, .. }), Some(_)) => return Err(CameraError::Looking(wanted.id)),
            (Some(Entry { outcome: Some(outcome), since }), None) => {
                let age = now.saturating_duration_since(*since);
                return outcome.clone().map(|jpeg| FoundPicture::Ready { jpeg, age });
            }
            _ => {}
        }
        let id = wanted.id.clone();
        self.wishes.try_send(wanted).map_err(|_| CameraError::ManyPictures(WAITING))?;
        if kept.len() >= KEPT {
            let done = kept.iter().filter(|(_, entry)| entry.outcome.is_some());
            let oldest = done.min_by_key(|(_, entry)| entry.since).map(|(id, _)| id.clone());
            oldest.map(|oldest| kept.remove(&oldest));
        }
        kept.insert(id, Entry { since: now, outcome: None });
        Ok(FoundPicture::Looking)
    }

    fn keep(&self, id: String, outcome: Result<Bytes, CameraError>, now: Instant) {
        self.lock().insert(id, Entry { since: now, outcome: Some(outcome) });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cameras {
    /// A picture of a camera that was found; never waits.
    pub(super) fn found_picture(
        &self,
        id: &str,
        login: Option<LoginWish>,
    ) -> Result<FoundPicture, CameraError> {
        let album = self.album.as_ref().ok_or(CameraError::NoPictures)?;
        let is_there = self.finder.get(id).is_some() || local_device(id).is_some();
        if !is_there {
            return Err(CameraError::Unknown(id.to_owned()));
        }
        let address = login.as_ref().and_then(|login| login.address);
        let login = login.map(|wish| CameraLogin {
            credentials: Credentials { user: wish.user, password: wish.password.reveal().to_owned() },
            allow_basic: wish.allow_basic,
        });
        album.ask(Wanted { id: id.to_owned(), login, address }, Instant::now())
    }

    /// Takes the pictures that are asked for, two at once, until dropped.
    pub(super) async fn take_pictures(&self, config: watch::Receiver<Arc<Config>>) {
        let Some(album) = &self.album else { return };
        let taking = || async {
            while let Some(wanted) = { album.inbox.lock().await.recv().await } {
                let outcome = self.take(&album.eyes, &wanted, config.clone()).await;
                if let Err(error) = &outcome {
                    debug!(camera = wanted.id, %error, "no picture of a found camera");
                }
                album.keep(wanted.id, outcome, Instant::now());
            }
        };
        tokio::join!(taking(), taking());
    }

    async fn take(
        &self,
        eyes: &Eyes,
        wanted: &Wanted,
        config: watch::Receiver<Arc<Config>>,
    ) -> Result<Bytes, CameraError> {
        let id = &wanted.id;
        if let Some(device) = local_device(id) {
            let used = used(config, |config| user_of_device(config, &device));
            return Box::pin(within(used, self.look(eyes, id, of_device(eyes, &device)))).await;
        }
        let found = self.reachable(id)?;
        if let Some(wanted) = wanted.address.filter(|wanted| wanted.to_canonical() != found.address) {
            return Err(CameraError::Moved { wanted, now: found.address });
        }
        let names = names_of(&config.borrow());
        let named = addresses_of(names).await;
        let used = used(config, |config| user_of_address(config, &named, found.address));
        let taking = self.of_network_camera(eyes, &found, wanted.login.as_ref());
        Box::pin(within(used, self.look(eyes, id, taking))).await
    }

    async fn look(
        &self,
        eyes: &Eyes,
        id: &str,
        taking: impl Future<Output = Result<Keyframe, CameraError>>,
    ) -> Result<Bytes, CameraError> {
        let keyframe = taking.await?;
        let seen = eyes.inspector.look(&format!("found {id}"), keyframe, Some(WIDTH)).await;
        seen.map(|seen| seen.jpeg).map_err(|error| CameraError::Camera(error.to_string()))
    }

    /// A JPEG where the camera has one, else the first keyframe of its smallest stream.
    async fn of_network_camera(
        &self,
        eyes: &Eyes,
        found: &Found,
        login: Option<&CameraLogin>,
    ) -> Result<Keyframe, CameraError> {
        let survey = match self.client.survey(device_of(found), login).await {
            Ok(survey) => Some(survey),
            Err(CameraClientError::Client(ClientError::NoAnswer(_))) => None,
            Err(error) => return Err(told(error)),
        };
        let (mut wants_login, mut profiles) = (false, Vec::new());
        if let Some(survey) = survey {
            if survey.login == Login::Refused {
                return Err(CameraError::LoginRefused);
            }
            if survey.gaps.contains(&Gap::BasicNeedsConsent) {
                return Err(CameraError::BasicNeedsConsent);
            }
            wants_login = survey.gaps.contains(&Gap::CredentialsWanted);
            profiles = survey.profiles;
        }
        let (main, sub) = main_and_sub(&profiles);
        let by_size = || sub.into_iter().chain(main).chain(&profiles);
        let told_of = |profile: &Profile| profile.snapshot.clone();
        if let Some(url) = by_size().find_map(told_of).filter(|url| url.host == found.address) {
            match self.jpeg_at(&url, login).await {
                Ok(jpeg) => return Ok(keyframe(Track::new(TrackId::VIDEO, Codec::Jpeg, Bytes::new()), jpeg)),
                Err(CameraError::LoginWanted) => wants_login = true,
                Err(CameraError::Camera(cause)) => debug!(camera = found.id, cause, "no JPEG of a camera"),
                Err(error) => return Err(error),
            }
        }
        let mut urls: Vec<ServiceUrl> = by_size().filter_map(|profile| profile.stream.clone()).collect();
        if urls.is_empty() {
            urls = candidates(found);
        }
        let outcome = self.client.find_stream(found.address, urls, login).await.map_err(told)?;
        match (outcome.found, outcome.cause) {
            (Some(stream), _) => {
                let login = login.filter(|_| outcome.login == Login::Accepted);
                self.of_stream(eyes, &found.id, &stream.url, login).await
            }
            (None, Some(Cause::LoginRefused)) => Err(CameraError::LoginRefused),
            (None, Some(Cause::BasicNeedsConsent)) => Err(CameraError::BasicNeedsConsent),
            (None, Some(Cause::CredentialsWanted)) => Err(CameraError::LoginWanted),
            (None, _) if wants_login && login.is_none() => Err(CameraError::LoginWanted),
            (None, cause) => {
                let cause = cause.map_or_else(|| "no stream".to_owned(), |cause| cause.to_string());
                Err(CameraError::Camera(format!("no picture was found: {cause}")))
            }
        }
    }

    /// One JPEG by HTTP; the login is shown only to a camera that asks for it.
    async fn jpeg_at(&self, url: &ServiceUrl, login: Option<&CameraLogin>) -> Result<Bytes, CameraError> {
        let failed = |error: JpegCameraError| CameraError::Camera(error.to_string());
        match fetch(url, None).await {
            Err(JpegCameraError::Login) => {}
            other => return other.map_err(failed),
        }
        let login = login.ok_or(CameraError::LoginWanted)?;
        let Credentials { user, password } = &login.credentials;
        let begun = self.logins.begin(CameraKey::address(url.host), user, password, Instant::now());
        let ticket = begun.map_err(|wait| told(wait.into()))?;
        match fetch(url, Some(login)).await {
            Ok(jpeg) => {
                ticket.accepted(Instant::now());
                Ok(jpeg)
            }
            Err(JpegCameraError::Login) => {
                ticket.refused(Instant::now());
                Err(CameraError::LoginRefused)
            }
            Err(JpegCameraError::PlainLogin) => {
                ticket.unused();
                Err(CameraError::BasicNeedsConsent)
            }
            // Whether the camera looked at the login is not known: dropped, it counts.
            Err(error) => Err(failed(error)),
        }
    }

    /// The first keyframe of a stream that was described before.
    async fn of_stream(
        &self,
        eyes: &Eyes,
        id: &str,
        url: &ServiceUrl,
        login: Option<&CameraLogin>,
    ) -> Result<Keyframe, CameraError> {
        let mut ticket = None;
        let (mut user, mut password) = (String::new(), String::new());
        if let Some(CameraLogin { credentials, .. }) = login {
            (user, password) = (credentials.user.clone(), credentials.password.clone());
            let begun = self.logins.begin(CameraKey::address(url.host), &user, &password, Instant::now());
            ticket = Some(begun.map_err(|wait| told(wait.into()))?);
        }
        let mut address = SocketAddr::new(url.host, url.port);
        let mut relay = None;
        if url.scheme.is_tls() {
            let target =
                Target { host: url.host.to_string(), port: url.port, tls: Some(ClientTls::unverified()) };
            let opened = CameraRelay::open(target, dial_options(FETCH_WITHIN)).await;
            let opened = opened.map_err(|error| CameraError::Camera(chain(&error)))?;
            address = opened.address();
            relay = Some(opened);
        }
        let (video, devices) = treatment(eyes);
        let camera = RtspCamera {
            address,
            path: url.target.clone(),
            transport: job::RtspTransport::Tcp,
            user,
            password: job::Secret(password),
            latency_ms: LATENCY_MS,
            video,
            audio: AudioTreatment::Off,
        };
        let sandbox = Sandbox { tcp_connect: vec![address.port()], devices, ..Sandbox::default() };
        let job = Job { name: format!("found {id}"), sandbox, work: Work::Rtsp(camera) };
        let catching = catch(eyes, job, Duration::ZERO);
        let caught = match relay {
            Some(relay) => relayed(relay, catching).await,
            None => catching.await,
        };
        if let Some(ticket) = ticket {
            match &caught {
                Ok(_) => ticket.accepted(Instant::now()),
                Err(CameraError::LoginRefused) => ticket.refused(Instant::now()),
                // The camera took it a moment ago.
                Err(_) => ticket.unused(),
            }
        }
        caught
    }
}

/// The device file of a local camera.
fn local_device(id: &str) -> Option<PathBuf> {
    show::local_cameras().into_iter().find(|camera| camera.id == id)?.device
}

/// Pictures that can be decoded pass; raw ones and others are encoded first.
fn treatment(eyes: &Eyes) -> (VideoTreatment, Vec<PathBuf>) {
    let (encoder, devices) = eyes.encoders.known_or_untried();
    let encoder = EncoderWish { bitrate: BITRATE, gop_ms: GOP_MS, ..encoder };
    (VideoTreatment::pass_or(VideoEncode::new(encoder, Masks::none())), devices)
}

async fn of_device(eyes: &Eyes, device: &Path) -> Result<Keyframe, CameraError> {
    let file = devices::resolve(device).map_err(|missing| CameraError::Camera(missing.to_string()))?;
    let (video, mut allowed) = treatment(eyes);
    allowed.retain(|allowed| *allowed != file);
    allowed.insert(0, file.clone());
    let camera = V4l2Camera {
        device: file,
        width: 0,
        height: 0,
        frame_rate: 0,
        format: job::V4l2Format::Auto,
        controls: BTreeMap::new(),
        microphone: String::new(),
        video,
        audio: AudioTreatment::Off,
    };
    let sandbox = Sandbox { devices: allowed, ..Sandbox::default() };
    let job = Job { name: format!("found {}", device.display()), sandbox, work: Work::V4l2(camera) };
    catch(eyes, job, SETTLE).await
}

/// Runs a worker until it has sent a keyframe that came `settle` after its first picture.
async fn catch(eyes: &Eyes, job: Job, settle: Duration) -> Result<Keyframe, CameraError> {
    let stop = CancellationToken::new();
    let mut caught = Caught { stop: stop.clone(), settle, ..Caught::default() };
    let deadlines = Deadlines { first_unit: Some(FIRST_UNIT_WITHIN), ..Deadlines::default() };
    let spec = WorkerSpec { program: Program::this_binary(), job, limits: Limits::CAMERA, deadlines };
    // A closed command channel is not the worker's concern.
    let (_commands, commands) = mpsc::channel(1);
    let worker = WorkerSource::new(spec, eyes.spawner.clone(), commands, stop);
    let ended = timeout(FIRST_UNIT_WITHIN + FETCH_WITHIN, worker.run(&mut caught)).await;
    let status = &caught.report.status;
    eyes.encoders.learn(&status.encoders);
    if let Some(keyframe) = caught.keyframe {
        return Ok(keyframe);
    }
    if status.failure.as_ref().is_some_and(|failure| failure.login_refused) {
        return Err(CameraError::LoginRefused);
    }
    Err(CameraError::Camera(match ended {
        Ok(Err(error)) => {
            eyes.encoders.note_end(&status.encoders, &error);
            chain(&error)
        }
        Ok(Ok(())) => "it sent no picture".to_owned(),
        Err(_) => format!("no picture within {} s", (FIRST_UNIT_WITHIN + FETCH_WITHIN).as_secs()),
    }))
}

/// What a worker sends, as far as it is wanted.
#[derive(Default)]
struct Caught {
    tracks: Tracks,
    begun: Option<Instant>,
    keyframe: Option<Keyframe>,
    settle: Duration,
    stop: CancellationToken,
    report: Report,
}

impl Deliver for Caught {
    fn tracks(&mut self, tracks: Tracks, _same: bool) {
        self.tracks = tracks;
    }

    fn unit(&mut self, unit: Draft) {
        let track = self.tracks.get(unit.head.track).filter(|track| track.kind() == TrackKind::Video);
        let Some(track) = track else { return };
        let begun = *self.begun.get_or_insert_with(Instant::now);
        if unit.head.keyframe && !self.stop.is_cancelled() {
            let payload = unit.finish(|_| 0).0.payload;
            self.keyframe = Some(keyframe(track.clone(), payload));
            if begun.elapsed() >= self.settle {
                self.stop.cancel();
            }
        }
    }

    fn flush(&mut self) {}

    fn report(&mut self, report: &Report) {
        self.report = report.clone();
    }
}

fn keyframe(track: Track, payload: Bytes) -> Keyframe {
    let head = UnitHead {
        track: track.id,
        dts: Ticks::ZERO,
        pts: Ticks::ZERO,
        source_dts: Ticks::ZERO,
        source_pts: Ticks::ZERO,
        keyframe: true,
        captured: None,
    };
    Keyframe { publication: 0, number: 0, track, unit: Unit { head, payload }, at: Instant::now() }
}

async fn fetch(url: &ServiceUrl, login: Option<&CameraLogin>) -> Result<Bytes, JpegCameraError> {
    let camera = JpegCamera {
        target: Target {
            host: url.host.to_string(),
            port: url.port,
            tls: url.scheme.is_tls().then(ClientTls::unverified),
        },
        path: url.target.clone(),
        credentials: login.map(|login| login.credentials.clone()),
        allow_basic: login.is_some_and(|login| login.allow_basic),
        // One is enough.
        fetch: JpegFetch::Every(TAKE_WITHIN),
        stall_timeout: FETCH_WITHIN,
    };
    let (sender, mut picture) = mpsc::channel(1);
    let running = camera.run(move |jpeg| drop(sender.try_send(jpeg.bytes)));
    let fetching = async {
        tokio::select! {
            error = running => Err(error),
            Some(jpeg) = picture.recv() => Ok(jpeg),
        }
    };
    timeout(FETCH_WITHIN, fetching).await.unwrap_or(Err(JpegCameraError::Stalled(FETCH_WITHIN)))
}

/// Ends when a mountpoint has the camera, now or later.
async fn used(
    mut config: watch::Receiver<Arc<Config>>,
    user: impl Fn(&Config) -> Option<String>,
) -> CameraError {
    loop {
        if let Some(mountpoint) = user(&config.borrow_and_update()) {
            return CameraError::InUse(mountpoint);
        }
        if config.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn within(
    used: impl Future<Output = CameraError>,
    taking: impl Future<Output = Result<Bytes, CameraError>>,
) -> Result<Bytes, CameraError> {
    tokio::select! {
        biased;
        error = used => Err(error),
        taken = timeout(TAKE_WITHIN, taking) => taken.unwrap_or_else(|_| {
            Err(CameraError::Camera(format!("no picture within {} s", TAKE_WITHIN.as_secs())))
        }),
    }
}

fn user_of_device(config: &Config, device: &Path) -> Option<String> {
    let file = devices::resolve(device).ok()?;
    let is_it = |source: &Source| matches!(source, Source::V4l2(v4l2) if devices::resolve(&v4l2.device).is_ok_and(|used| used == file));
    user(config, is_it)
}

/// `named` says where the names in the config lead.
fn user_of_address(
    config: &Config,
    named: &BTreeMap<String, Vec<IpAddr>>,
    address: IpAddr,
) -> Option<String> {
    user(config, |source| {
        host_of(source).is_some_and(|host| match host.parse::<IpAddr>() {
            Ok(host) => host.to_canonical() == address,
            Err(_) => named.get(&host).is_some_and(|there| there.contains(&address)),
        })
    })
}

fn host_of(source: &Source) -> Option<String> {
    let url = match source {
        Source::Rtsp(rtsp) => rtsp.taken_url(),
        Source::Mjpeg(mjpeg) => &mjpeg.url,
        _ => return None,
    };
    url.parts().ok().map(|parts| parts.host.trim_matches(['[', ']']).to_owned())
}

/// Cameras that the config knows by a name and not by an address.
fn names_of(config: &Config) -> BTreeSet<String> {
    let hosts = config.mountpoints.values().filter_map(|mountpoint| host_of(&mountpoint.source));
    hosts.filter(|host| host.parse::<IpAddr>().is_err()).take(MAX_NAMES).collect()
}

/// Where names lead, as far as that is told in time.
async fn addresses_of(names: BTreeSet<String>) -> BTreeMap<String, Vec<IpAddr>> {
    let looking = names.into_iter().map(|name| async move {
        let found = timeout(NAME_WITHIN, tokio::net::lookup_host((name.as_str(), 0))).await;
        let found =
            found.ok().and_then(Result::ok).map(|found| found.map(|at| at.ip().to_canonical()).collect());
        (name, found.unwrap_or_default())
    });
    JoinSet::from_iter(looking).join_all().await.into_iter().collect()
}

fn user(config: &Config, is_it: impl Fn(&Source) -> bool) -> Option<String> {
    let mut users = config.mountpoints.iter().filter(|(_, mountpoint)| is_it(&mountpoint.source));
    users.next().map(|(name, _)| name.clone())
}

#[cfg(test)]
mod tests;
