//! The plane itself: who may watch, what is being cut, and the answer to each request.

use super::answer::{self, Asked, Content};
use super::body::{File, FileBody, Owner, Sending, Source};
use super::elsewhere::{Absent, Elsewhere, Maker};
use super::files::READY_WITHIN;
use super::packager::Packager;
use super::sessions::{Session, SessionLimits, Sessions};
use super::watched::{Totals, Watched};
use crate::limits::ConnectionLimits;
use crate::recordings::Recordings;
use bytes::Bytes;
use fieldgate_hub::{Action, Context, Mountpoint, Request, StreamState, Verdict};
use fieldgate_media::Ticks;
use fieldgate_model::Config;
use fieldgate_model::config::{Hls, Size};
use fieldgate_proto::segment::names::{self, Addressing, Name};
use fieldgate_proto::segment::recorded::RecordedTarget;
use fieldgate_proto::segment::target::{Target, TargetError, Token};
use fieldgate_proto::segment::{Package, Settings, dash, hls};
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode, header};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Streams that may wait to be cut.
const STARTS: usize = 64;
/// How long viewers wait for the first segment where a master's contract says so.
const READY_ELSEWHERE: Duration = Duration::from_secs(10);
/// How long a list waits for the first segments of other renditions.
const OTHERS_WITHIN: Duration = Duration::from_secs(8);
/// Viewers that may be given pieces of recordings at once: each piece is in memory while it is sent.
const DISK_TURNS: usize = 16;
/// The application under which the mountpoints' keys and lists count.
pub(super) const APPLICATION: &str = "live";
/// Segments are numbered from the half seconds since 2025 on, so that numbers rise also over restarts of the program, and
/// fit 31 bits, which some players need, for some thirty years.
const NUMBERS_SINCE_UNIX_MICROS: i64 = 1_735_689_600_000_000;

pub(super) const PLAYLIST: &str = "application/vnd.apple.mpegurl";
pub(super) const MANIFEST: &str = "application/dash+xml";

/// What viewers of one mountpoint are up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchedReport {
    /// Viewers now.
    pub viewers: u64,
    /// The stream is being cut now.
    pub is_cut: bool,
    /// Whole segments kept now, of each track.
    pub segments: u64,
    /// Bytes of segments kept now.
    pub held_bytes: u64,
    /// Answers with a playlist or media.
    pub answers: u64,
    /// Bytes of these answers.
    pub sent_bytes: u64,
    /// Units that the segmenter missed.
    pub lost_units: u64,
}

/// The viewers' plane. Cheap to clone.
#[derive(Clone)]
pub struct Viewers(Arc<Inner>);

struct Inner {
    context: Context,
    config: watch::Sender<Arc<Config>>,
    limits: ConnectionLimits,
    sessions: Sessions,
    watched: Mutex<HashMap<String, Arc<Watched>>>,
    totals: Mutex<HashMap<String, Arc<Totals>>>,
    starts: mpsc::Sender<(Arc<Watched>, Duration)>,
    recordings: Recordings,
    /// Who may read recordings from disk.
    disk_turns: Arc<Semaphore>,
    elsewhere: OnceLock<Arc<dyn Elsewhere>>,
    maker: OnceLock<Arc<dyn Maker>>,
}

/// Cuts the streams that are watched: must run as long as the plane is to serve.
pub struct Cutting {
    viewers: Viewers,
    starts: mpsc::Receiver<(Arc<Watched>, Duration)>,
}

/// Why a request gets no file: status, and words for the viewer.
pub(super) struct Refused(pub(super) StatusCode, pub(super) String);

impl Refused {
    pub(super) fn missing(text: impl Into<String>) -> Self {
        Refused(StatusCode::NOT_FOUND, text.into())
    }

    pub(super) fn later(text: impl Into<String>) -> Self {
        Refused(StatusCode::SERVICE_UNAVAILABLE, text.into())
    }
}

impl From<Absent> for Refused {
    fn from(Absent { status, text }: Absent) -> Self {
        Refused(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text)
    }
}

impl Viewers {
    /// A plane that goes by this config.
    pub fn new(context: Context, config: Arc<Config>) -> (Viewers, Cutting) {
        let (starts, inbox) = mpsc::channel(STARTS);
        let (total, per_address) = connections_of(&config);
        let viewers = Viewers(Arc::new(Inner {
            context,
            limits: ConnectionLimits::new(total, per_address),
            config: watch::Sender::new(config),
            sessions: Sessions::default(),
            watched: Mutex::default(),
            totals: Mutex::default(),
            starts,
            recordings: Recordings::default(),
            disk_turns: Arc::new(Semaphore::new(DISK_TURNS)),
            elsewhere: OnceLock::new(),
            maker: OnceLock::new(),
        }));
        (viewers.clone(), Cutting { viewers, starts: inbox })
    }

    /// Goes by a changed config. What is cut already goes on as it was.
    pub fn follow(&self, config: Arc<Config>) {
        let (total, per_address) = connections_of(&config);
        self.0.limits.set(total, per_address);
        self.0.config.send_replace(config);
    }

    /// From now on also streams that the config does not name can be watched.
    pub fn look_elsewhere(&self, elsewhere: Arc<dyn Elsewhere>) {
        // Set once, when the gateway starts.
        self.0.elsewhere.set(elsewhere).ok();
    }

    /// From now on sizes can be made.
    pub fn have_made_by(&self, maker: Arc<dyn Maker>) {
        // Set once, when the gateway starts.
        self.0.maker.set(maker).ok();
    }

    /// Whether this mountpoint is cut into segments now.
    pub fn is_cut(&self, name: &str) -> bool {
        self.watched().get(name).is_some_and(|watched| watched.is_valid())
    }

    /// Connections over all listeners.
    pub fn limits(&self) -> &ConnectionLimits {
        &self.0.limits
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.0.config.borrow().clone()
    }

    /// The recordings that can be watched.
    pub fn recordings(&self) -> &Recordings {
        &self.0.recordings
    }

    pub(super) fn disk_turns(&self) -> &Arc<Semaphore> {
        &self.0.disk_turns
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(super) fn context(&self) -> &Context {
        &self.0.context
    }

    /// What viewers of a mountpoint are up to; `None` if there never was one.
    pub fn report(&self, name: &str) -> Option<WatchedReport> {
        let totals = self.totals_of().get(name).cloned()?;
        let watched = self.watched().get(name).cloned();
        let kept = |package: &Package| {
            (package.lead().map_or(0, |lead| lead.segments().count() as u64), package.bytes())
        };
        let (segments, held_bytes) = watched.as_ref().map_or((0, 0), |watched| {
            let (segments, bytes) = watched.read(kept);
            (segments, bytes + watched.ts_bytes())
        });
        let timeout = self.config().http.viewer_timeout.get();
        Some(WatchedReport {
            viewers: self.0.sessions.count(name, timeout, Instant::now()) as u64,
            is_cut: watched.is_some(),
            segments,
            held_bytes,
            answers: totals.answers.load(Ordering::Relaxed),
            sent_bytes: totals.bytes.load(Ordering::Relaxed),
            lost_units: totals.lost_units.load(Ordering::Relaxed),
        })
    }

    /// Answers a request. Ends by itself.
    pub(super) async fn answer(&self, request: &Parts, peer: IpAddr, sending: Sending) -> Response<FileBody> {
        let asked = Asked { method: &request.method, headers: &request.headers, sending };
        match request.method {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return answer::preflight(asked.sending),
            _ => return answer::words(&asked, StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS"),
        }
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        if let Some(target) = RecordedTarget::parse(target) {
            let outcome = self.recorded(&asked, target, peer).await;
            return outcome.unwrap_or_else(|Refused(status, text)| answer::words(&asked, status, &text));
        }
        let outcome = match Target::parse(target) {
            Ok(target) => self.file(&asked, target, peer).await,
            Err(error @ TargetError::Unknown) => Err(Refused::missing(error.to_string())),
            Err(error) => Err(Refused(StatusCode::BAD_REQUEST, error.to_string())),
        };
        outcome.unwrap_or_else(|Refused(status, text)| answer::words(&asked, status, &text))
    }

    async fn file(
        &self,
        asked: &Asked<'_>,
        target: Target,
        peer: IpAddr,
    ) -> Result<Response<FileBody>, Refused> {
        let config = self.config();
        let here = config.mountpoint_for(&target.stream).and_then(|(_, mountpoint)| mountpoint.hls.clone());
        let is_named = config.mountpoints.contains_key(&target.stream);
        let elsewhere =
            self.0.elsewhere.get().filter(|elsewhere| !is_named && here.is_none() && elsewhere.is_on());
        let hls = match (here, elsewhere) {
            (Some(hls), _) => hls,
            (None, Some(elsewhere)) => elsewhere.hls(),
            (None, None) => return Err(Refused::missing("no stream of this name can be watched here")),
        };
        let timeout = config.http.viewer_timeout.get();
        let Some(token) = target.token else {
            if !target.name.opens() {
                return Err(Refused::missing("begin with /hls/NAME/master.m3u8 or manifest.mpd"));
            }
            return self.open(asked, &target, peer, &hls, elsewhere).await;
        };
        let gone = || {
            Refused(StatusCode::FORBIDDEN, "this viewer is not known any more: begin with master.m3u8".into())
        };
        let name = match elsewhere {
            Some(elsewhere) => elsewhere.mountpoint(&target.stream)?,
            None => target.stream.clone(),
        };
        let session = self.0.sessions.get(token, &target.stream, timeout, Instant::now()).ok_or_else(gone)?;
        if session.request.peer != peer && elsewhere.is_none() {
            // The token alone is not enough where an address list counts.
            let again = Request { peer, revoked: Arc::default(), ..session.request.clone() };
            self.admit(again).await?;
        }
        let watched = match &target.rendition {
            None => self.watch(&name, &hls)?,
            Some(other) => self.rendition(&target, other, &hls).await?,
        };
        watched.touch();
        self.serve(asked, &target, session, watched, &hls).await
    }

    /// What is listed with a stream: whoever may watch the one may watch the other.
    async fn rendition(&self, target: &Target, other: &str, hls: &Hls) -> Result<Arc<Watched>, Refused> {
        let unknown = || Refused::missing("no such rendition is listed");
        let Some(size) = other.strip_prefix(names::SIZE) else {
            let config = self.config();
            let listed = hls.renditions.iter().any(|name| name == other);
            let found = config.mountpoints.get(other).filter(|_| listed);
            return self.watch(other, found.and_then(|found| found.hls.as_ref()).ok_or_else(unknown)?);
        };
        let size = hls.sizes.iter().find(|known| known.name() == size).ok_or_else(unknown)?;
        let name = size_of(&target.stream, size);
        if let Some(known) = self.watched().get(&name).filter(|known| known.is_valid()) {
            return Ok(known.clone());
        }
        // Files of one that is not made any more are gone; its list brings it back.
        let maker = self.0.maker.get().filter(|_| matches!(target.name, Name::Media(_)));
        let maker = maker.ok_or_else(|| Refused::missing("this file is not there any more, or never was"))?;
        let made = maker.make(&target.stream, hls, size).await?;
        self.watch(&made, hls).map_err(|Refused(_, text)| Refused::later(text))
    }

    /// Lets a viewer in and tells him where the playlists are.
    async fn open(
        &self,
        asked: &Asked<'_>,
        target: &Target,
        peer: IpAddr,
        hls: &Hls,
        elsewhere: Option<&Arc<dyn Elsewhere>>,
    ) -> Result<Response<FileBody>, Refused> {
        let bearer = asked.text(header::AUTHORIZATION).and_then(|text| text.strip_prefix("Bearer "));
        let request = Request {
            action: Action::Play,
            peer,
            app: APPLICATION.to_owned(),
            name: target.stream.clone(),
            key: target.key.clone().or(bearer.map(|key| key.trim().to_owned())),
            client: None,
            revoked: Arc::default(),
        };
        let name = match elsewhere {
            Some(elsewhere) => elsewhere.open(request.clone()).await?,
            None => {
                self.admit(request.clone()).await?;
                target.stream.clone()
            }
        };
        let watched = self.watch(&name, hls)?;
        let lists_others = matches!(target.name, Name::Master | Name::Manifest(_));
        let others = if lists_others { self.others(hls) } else { Vec::new() };
        let (token, session) = self.open_session(request)?;
        let within = if elsewhere.is_some() { READY_ELSEWHERE } else { READY_WITHIN };
        let since = Instant::now();
        self.ready(&watched, within).await?;
        let has_parts =
            target.name == Name::Master && watched.read(|package| package.part_target().is_some());
        let begun = async {
            if !has_parts {
                self.well_begun(&watched, since).await;
            }
        };
        let joined = async {
            if matches!(target.name, Name::Manifest(_)) {
                self.all_ready(&others, (&target.stream, hls)).await;
            }
        };
        tokio::join!(begun, joined);
        let prefix = format!("{}/", token.as_text());
        let (media_type, text) = match target.name {
            Name::Manifest(addressing) => {
                (MANIFEST, Some(self.manifest_text(&watched, (&target.stream, hls), addressing, &prefix).0))
            }
            Name::OldMaster => (PLAYLIST, watched.read(|package| hls::old_master(package, &prefix))),
            _ => {
                let mut text = watched.read(|package| hls::master(package, &prefix));
                text.push_str(&self.list(&others, &prefix).await);
                text.push_str(&self.list_sizes((&target.stream, hls), &watched, &prefix));
                (PLAYLIST, Some(text))
            }
        };
        let text = text.ok_or_else(|| Refused::missing("MPEG-TS cannot carry this stream's codecs"))?;
        let tag = format!("\"{}\"", &prefix);
        Ok(answer::content(
            asked,
            changing(media_type, tag, text),
            Some(Owner { session, source: Source::Watched(watched) }),
        ))
    }

    /// The renditions that are fed now, being cut from here on.
    fn others(&self, hls: &Hls) -> Vec<(String, Arc<Watched>)> {
        let config = self.config();
        let settings = |name: &String| config.mountpoints.get(name)?.hls.as_ref();
        let named = hls.renditions.iter().filter_map(|name| Some((name, settings(name)?)));
        named.filter_map(|(name, settings)| Some((name.clone(), self.watch(name, settings).ok()?))).collect()
    }

    /// Their lines in the list; one that has no segment in time is left out.
    async fn list(&self, others: &[(String, Arc<Watched>)], prefix: &str) -> String {
        let until = Instant::now() + OTHERS_WITHIN;
        let mut text = String::new();
        for (at, (name, watched)) in others.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            if self.ready(watched, left).await.is_ok() {
                let prefix = format!("{prefix}{name}/");
                text.push_str(&watched.read(|package| hls::rendition(package, &prefix, at + 1)));
            }
        }
        text
    }

    /// Waits for the segments of other streams, and has all sizes made: a manifest cannot name what is not there. What is not in time,
    /// or has no room, is left out.
    async fn all_ready(&self, others: &[(String, Arc<Watched>)], (stream, hls): (&str, &Hls)) {
        let listed = others.iter().map(|(_, watched)| self.ready(watched, OTHERS_WITHIN).map(drop).boxed());
        let made = hls.sizes.iter().filter_map(|size| {
            let making = self.0.maker.get()?.make(stream, hls, size);
            Some(async move {
                if let Ok(name) = making.await
                    && let Ok(watched) = self.watch(&name, hls)
                {
                    self.ready(&watched, OTHERS_WITHIN).await.ok();
                }
            })
        });
        let made = made.map(FutureExt::boxed);
        tokio::time::timeout(OTHERS_WITHIN, join_all(listed.chain(made))).await.ok();
    }

    /// A manifest with all streams of the scene that are cut now, and their versions together. Who asks for it may go to any of them:
    /// they count as asked for.
    pub(super) fn manifest_text(
        &self,
        watched: &Watched,
        (stream, hls): (&str, &Hls),
        addressing: Addressing,
        prefix: &str,
    ) -> (String, String) {
        let renditions = hls.renditions.iter().map(|name| (name.clone(), name.clone(), false));
        let sizes = hls
            .sizes
            .iter()
            .map(|size| (size_of(stream, size), format!("{}{}", names::SIZE, size.name()), true));
        let mut versions = String::new();
        let mut others = Vec::new();
        for (name, folder, is_made) in renditions.chain(sizes) {
            let other = self.watched().get(&name).filter(|other| other.is_valid()).cloned();
            let Some(other) = other else { continue };
            other.touch();
            others.extend(other.read(|package| dash::Other::new(package, &folder, is_made)));
            versions.push_str(&format!("-{:x}.{}", other.id, other.read(Package::version)));
        }
        let now = self.0.context.clock.unix_micros();
        watched.read(|package| {
            let text = dash::manifest(package, &others, addressing, prefix, now);
            (text, format!("{}{versions}", package.version()))
        })
    }

    /// The lines of the sizes that can be had, whether they are made now or not.
    fn list_sizes(&self, (stream, hls): (&str, &Hls), watched: &Watched, prefix: &str) -> String {
        let mut text = String::new();
        for (at, size) in hls.sizes.iter().enumerate().filter(|_| self.0.maker.get().is_some()) {
            let prefix = format!("{prefix}{}{}/", names::SIZE, size.name());
            let number = hls.renditions.len() + at + 1;
            let made = self.watched().get(&size_of(stream, size)).filter(|made| made.is_valid()).cloned();
            let made = made.filter(|made| made.read(Package::is_ready));
            let lines = match made {
                Some(made) => Some(made.read(|package| hls::rendition(package, &prefix, number))),
                None => watched.read(|package| {
                    let (width, height) = package.shape()?;
                    let (width, height) = size.of(width, height)?;
                    let frame_rate = size.max_frame_rate.map(f64::from);
                    let planned =
                        hls::Planned { width, height, frame_rate, bits_per_second: size.bitrate.into() };
                    Some(hls::planned(package, &prefix, number, planned))
                }),
            };
            text.push_str(&lines.unwrap_or_default());
        }
        text
    }

    /// Remembers a viewer who has been let in.
    pub(super) fn open_session(&self, request: Request) -> Result<(Token, Arc<Session>), Refused> {
        let config = self.config();
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| Refused::later("the gateway has no random numbers"))?;
        let token = Token::new(random);
        let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        let limits = SessionLimits {
            total: number(config.http.max_viewers),
            per_address: number(config.http.max_viewers_per_address),
            timeout: config.http.viewer_timeout.get(),
        };
        let session = self.0.sessions.open(token, request, limits, Instant::now());
        Ok((token, session.map_err(|full| Refused::later(full.to_string()))?))
    }

    pub(super) async fn admit(&self, request: Request) -> Result<(), Refused> {
        match self.0.context.admit.admit(request).await {
            Verdict::Allow { .. } => Ok(()),
            Verdict::UnknownApplication | Verdict::UnknownName => {
                Err(Refused::missing("no stream of this name can be watched here"))
            }
            Verdict::Deny { text } => Err(Refused(StatusCode::FORBIDDEN, text)),
        }
    }

    /// The stream in segments; begins to cut it if nobody watched it.
    fn watch(&self, name: &str, hls: &Hls) -> Result<Arc<Watched>, Refused> {
        let mountpoint = self.0.context.registry.get(name);
        let mountpoint =
            mountpoint.ok_or_else(|| Refused::missing("no stream of this name can be watched here"))?;
        let mut all = self.watched();
        if let Some(known) = all.get(name)
            && known.is_valid()
            && Arc::ptr_eq(&known.mountpoint, &mountpoint)
        {
            return Ok(known.clone());
        }
        if *mountpoint.state().borrow() == StreamState::Idle {
            return Err(Refused::missing(format!("nobody publishes {name} now")));
        }
        let watched = Arc::new(self.begin(mountpoint, hls));
        // The task finds it in the list when it ends.
        if self.0.starts.try_send((watched.clone(), hls.idle.get())).is_err() {
            return Err(Refused::later("too many streams begin at once; try again"));
        }
        if let Some(before) = all.insert(name.to_owned(), watched.clone()) {
            before.gone.cancel();
        }
        Ok(watched)
    }

    fn begin(&self, mountpoint: Arc<Mountpoint>, hls: &Hls) -> Watched {
        let ticks = |span: Duration| Ticks::from_duration(span).get();
        let since = self.0.context.clock.unix_micros().saturating_sub(NUMBERS_SINCE_UNIX_MICROS);
        let first_number = u64::try_from(since / 500_000).unwrap_or(0);
        let settings = Settings {
            segment: ticks(hls.segment.get()),
            part: (!hls.part.is_zero()).then(|| ticks(hls.part.get())),
            window: ticks(hls.window.get()),
            max_bytes: hls.memory_bytes,
            first_number,
        };
        let totals = self.totals_of().entry(mountpoint.name().to_owned()).or_default().clone();
        Watched::new(mountpoint, first_number, Package::new(settings), hls.memory_bytes, totals)
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<String, Arc<Watched>>> {
        self.0.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals_of(&self) -> MutexGuard<'_, HashMap<String, Arc<Totals>>> {
        self.0.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream is not cut any more.
    fn forget(&self, watched: &Arc<Watched>) {
        watched.gone.cancel();
        let name = watched.mountpoint.name();
        let mut all = self.watched();
        if all.get(name).is_some_and(|known| Arc::ptr_eq(known, watched)) {
            all.remove(name);
        }
        drop(all);
        // Streams under templates come and go under ever new names.
        let registry = &self.0.context.registry;
        self.totals_of().retain(|name, _| registry.get(name).is_some());
    }
}

impl Cutting {
    /// Cuts until told to stop.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut tasks = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(()) = tasks.next() => {}
                start = self.starts.recv() => {
                    let Some((watched, idle)) = start else { return };
                    tasks.push(self.cut(watched, idle, cancel.clone()));
                }
            }
        }
    }

    fn cut(
        &self,
        watched: Arc<Watched>,
        idle: Duration,
        cancel: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let viewers = self.viewers.clone();
        async move {
            let context = viewers.context();
            let (shards, clock) = (context.shards.clone(), context.clock.clone());
            let packager = Packager { watched: watched.clone(), clock, idle, cancel };
            if let Some(shard) = shards.get(watched.mountpoint.shard()) {
                // A panic there is told by its own thread; the stream is then cut anew for whoever asks next.
                shard.run(move |_| packager.run()).await.ok();
            }
            viewers.forget(&watched);
        }
    }
}

/// The mountpoint of a size that is made.
fn size_of(stream: &str, size: &Size) -> String {
    format!("{stream}{}{}", names::SIZE, size.name())
}

pub(super) fn changing(media_type: &'static str, tag: String, text: String) -> Content {
    Content { file: File::Whole(Bytes::from(text)), media_type, tag, is_fixed: false, is_gzip: false }
}

pub(super) fn fixed(file: File, media_type: &'static str, tag: String) -> Content {
    Content { file, media_type, tag, is_fixed: true, is_gzip: false }
}

fn connections_of(config: &Config) -> (usize, usize) {
    let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    (number(config.http.max_connections), number(config.http.max_connections_per_address))
}
