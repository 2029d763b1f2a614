//! The plane itself: who may watch, what is being cut, and the answer to each request.

use super::answer::{self, Asked, Content};
use super::body::{File, FileBody, Owner, Sending};
use super::packager::Packager;
use super::sessions::{Session, SessionLimits, Sessions};
use super::watched::{Totals, Watched};
use crate::limits::ConnectionLimits;
use bytes::Bytes;
use fieldgate_hub::{Action, Context, Mountpoint, Request, StreamState, Verdict};
use fieldgate_media::{Ticks, TrackKind};
use fieldgate_model::Config;
use fieldgate_model::config::Hls;
use fieldgate_proto::segment::names::{Addressing, Name};
use fieldgate_proto::segment::target::{Target, TargetError, Token};
use fieldgate_proto::segment::{Found, Lane, Package, Settings, dash, hls};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode, header};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Streams that may wait to be cut.
const STARTS: usize = 64;
/// How long the first viewers wait for the first segment.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Playlist requests wait for at most so many target durations (bis 6.2.5.2).
const RELOAD_TARGETS: u32 = 3;
/// The application under which the mountpoints' keys and lists count.
const APPLICATION: &str = "live";
/// Segments are numbered from the half seconds since 2025 on, so that numbers rise also over restarts of the program, and
/// fit 31 bits, which some players need, for some thirty years.
const NUMBERS_SINCE_UNIX_MICROS: i64 = 1_735_689_600_000_000;

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
const MANIFEST: &str = "application/dash+xml";

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
}

/// Cuts the streams that are watched: must run as long as the plane is to serve.
pub struct Cutting {
    viewers: Viewers,
    starts: mpsc::Receiver<(Arc<Watched>, Duration)>,
}

/// Why a request gets no file: status, and words for the viewer.
struct Refused(StatusCode, String);

impl Refused {
    fn missing(text: impl Into<String>) -> Self {
        Refused(StatusCode::NOT_FOUND, text.into())
    }

    fn later(text: impl Into<String>) -> Self {
        Refused(StatusCode::SERVICE_UNAVAILABLE, text.into())
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
        }));
        (viewers.clone(), Cutting { viewers, starts: inbox })
    }

    /// Goes by a changed config. What is cut already goes on as it was.
    pub fn follow(&self, config: Arc<Config>) {
        let (total, per_address) = connections_of(&config);
        self.0.limits.set(total, per_address);
        self.0.config.send_replace(config);
    }

    /// Connections over all listeners.
    pub fn limits(&self) -> &ConnectionLimits {
        &self.0.limits
    }

    pub(super) fn config(&self) -> Arc<Config> {
        self.0.config.borrow().clone()
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
        let hls = config.mountpoint_for(&target.stream).and_then(|(_, mountpoint)| mountpoint.hls.as_ref());
        let Some(hls) = hls else {
            return Err(Refused::missing("no stream of this name can be watched here"));
        };
        let timeout = config.http.viewer_timeout.get();
        let Some(token) = target.token else {
            if !target.name.opens() {
                return Err(Refused::missing("begin with /hls/NAME/master.m3u8 or manifest.mpd"));
            }
            return self.open(asked, &target, peer, &config, hls).await;
        };
        let gone = || {
            Refused(StatusCode::FORBIDDEN, "this viewer is not known any more: begin with master.m3u8".into())
        };
        let session = self.0.sessions.get(token, &target.stream, timeout, Instant::now()).ok_or_else(gone)?;
        if session.request.peer != peer {
            // The token alone is not enough where an address list counts.
            let again = Request { peer, revoked: Arc::default(), ..session.request.clone() };
            self.admit(again).await?;
        }
        let watched = self.watch(&target.stream, hls)?;
        watched.touch();
        self.serve(asked, &target, session, watched).await
    }

    /// Lets a viewer in and tells him where the playlists are.
    async fn open(
        &self,
        asked: &Asked<'_>,
        target: &Target,
        peer: IpAddr,
        config: &Config,
        hls: &Hls,
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
        self.admit(request.clone()).await?;
        let watched = self.watch(&target.stream, hls)?;
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
        let session = session.map_err(|full| Refused::later(full.to_string()))?;
        self.ready(&watched).await?;
        let prefix = format!("{}/", token.as_text());
        let now = self.0.context.clock.unix_micros();
        let (media_type, text) = match target.name {
            Name::Manifest(addressing) => {
                (MANIFEST, Some(watched.read(|package| dash::manifest(package, addressing, &prefix, now))))
            }
            Name::OldMaster => (PLAYLIST, watched.read(|package| hls::old_master(package, &prefix))),
            _ => (PLAYLIST, Some(watched.read(|package| hls::master(package, &prefix)))),
        };
        let text = text.ok_or_else(|| Refused::missing("MPEG-TS cannot carry this stream's codecs"))?;
        let tag = format!("\"{}\"", &prefix);
        Ok(answer::content(asked, changing(media_type, tag, text), Some(Owner { session, watched })))
    }

    async fn admit(&self, request: Request) -> Result<(), Refused> {
        match self.0.context.admit.admit(request).await {
            Verdict::Allow { .. } => Ok(()),
            Verdict::UnknownApplication | Verdict::UnknownName => {
                Err(Refused::missing("no stream of this name can be watched here"))
            }
            Verdict::Deny { text } => Err(Refused(StatusCode::FORBIDDEN, text)),
        }
    }

    /// Waits until players can begin.
    async fn ready(&self, watched: &Watched) -> Result<(), Refused> {
        let look = |package: &Package| match (package.lead(), package.unsupported()) {
            (None, Some(codec)) => Some(Err(codec)),
            _ => (package.is_ready() || package.has_ended()).then_some(Ok(())),
        };
        match watched.wait(READY_WITHIN, look).await {
            Some(Ok(())) => Ok(()),
            Some(Err(codec)) => Err(Refused::missing(format!("{codec} cannot be watched by HTTP"))),
            None => Err(Refused::later("the stream has no whole segment yet; try again")),
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

    async fn serve(
        &self,
        asked: &Asked<'_>,
        target: &Target,
        session: Arc<Session>,
        watched: Arc<Watched>,
    ) -> Result<Response<FileBody>, Refused> {
        let no_track = || Refused::missing("the stream has no such track");
        let id = watched.id;
        let content = match target.name {
            Name::Master | Name::OldMaster => {
                return Err(Refused::missing("lists of renditions stand above"));
            }
            Name::Manifest(addressing) => {
                self.ready(&watched).await?;
                self.manifest(&watched, addressing)
            }
            Name::Together => {
                self.ready(&watched).await?;
                let (text, version) = watched.read(|package| (hls::together(package), package.version()));
                changing(PLAYLIST, format!("\"{id:x}-{version}-ts\""), text)
            }
            Name::Ts(number) => {
                let file = self.ts(&watched, number).await?;
                fixed(File::Whole(file), "video/mp2t", format!("\"{id:x}-ts-{number}\""))
            }
            Name::SegmentAt(kind, time) => {
                let found = self.await_file(&watched, kind, |lane| lane.segment_at(time)).await?;
                let tag = format!("\"{id:x}-{kind:?}-{}\"", found.number);
                fixed(File::Segment(found), media_type(kind), tag)
            }
            Name::Media(kind) => {
                self.ready(&watched).await?;
                self.reload(&watched, kind, target).await?;
                self.media(asked, &watched, kind, target.skip).ok_or_else(no_track)?
            }
            Name::Init(kind, number) => {
                let init = watched.read(|package| package.lane(kind)?.init_numbered(number));
                let init = init.ok_or_else(|| Refused::missing("this file is not there any more"))?;
                fixed(
                    File::Whole(init.file.clone()),
                    media_type(kind),
                    format!("\"{id:x}-{kind:?}-i{number}\""),
                )
            }
            Name::Segment(kind, number) => {
                let found = self.await_file(&watched, kind, |lane| lane.segment(number)).await?;
                fixed(File::Segment(found), media_type(kind), format!("\"{id:x}-{kind:?}-{number}\""))
            }
            Name::Part(kind, number, index) => {
                let found = self.await_file(&watched, kind, |lane| lane.part(number, index.into())).await?;
                fixed(File::Part(found), media_type(kind), format!("\"{id:x}-{kind:?}-{number}.{index}\""))
            }
        };
        Ok(answer::content(asked, content, Some(Owner { session, watched })))
    }

    /// Waits for what the request says the playlist must hold (bis 6.2.5.2).
    async fn reload(&self, watched: &Watched, kind: TrackKind, target: &Target) -> Result<(), Refused> {
        let Some(msn) = target.msn else { return Ok(()) };
        // Without parts a playlist can only hold whole segments.
        let check = |package: &Package| {
            let lane = package.lane(kind)?;
            let newest = lane.segments().next_back().map_or(0, |segment| segment.number);
            let limit = package.part_target().map_or(3, |part| {
                usize::try_from(3 * Ticks::PER_SECOND / part.clamp(1, Ticks::PER_SECOND)).unwrap_or(3) + 1
            });
            let parts =
                lane.growing().filter(|(number, _)| *number == msn).map_or(0, |(_, parts)| parts.len());
            let is_far =
                msn > newest.saturating_add(2) || target.part.is_some_and(|part| part > parts + limit);
            Some((is_far, package.target_secs()))
        };
        let Some((is_far, target_secs)) = watched.read(check) else { return Ok(()) };
        if is_far
            && !watched.read(|package| package.lane(kind).is_some_and(|lane| lane.reaches(msn, target.part)))
        {
            return Err(Refused(StatusCode::BAD_REQUEST, "_HLS_msn or _HLS_part is too far ahead".into()));
        }
        let reached = |package: &Package| {
            let reached = package.lane(kind).is_none_or(|lane| lane.reaches(msn, target.part));
            (reached || package.has_ended()).then_some(())
        };
        let within = Duration::from_secs(target_secs.into()) * RELOAD_TARGETS;
        let stalled = || Refused::later("the stream does not go on; try again");
        watched.wait(within, reached).await.ok_or_else(stalled)
    }

    fn media(&self, asked: &Asked<'_>, watched: &Watched, kind: TrackKind, skip: bool) -> Option<Content> {
        let (text, version) = watched
            .read(|package| Some((hls::media(package, package.lane(kind)?, skip), package.version())))?;
        let packed = if asked.takes_gzip() { answer::gzip(text.as_bytes()) } else { None };
        let is_gzip = packed.is_some();
        Some(Content {
            tag: format!("\"{:x}-{version}-{kind:?}{}{}\"", watched.id, u8::from(skip), u8::from(is_gzip)),
            file: File::Whole(packed.unwrap_or_else(|| Bytes::from(text))),
            media_type: PLAYLIST,
            is_fixed: false,
            is_gzip,
        })
    }

    fn manifest(&self, watched: &Watched, addressing: Addressing) -> Content {
        let now = self.0.context.clock.unix_micros();
        let (text, version) =
            watched.read(|package| (dash::manifest(package, addressing, "", now), package.version()));
        changing(MANIFEST, format!("\"{:x}-{version}-{addressing:?}\"", watched.id), text)
    }

    /// A segment as MPEG-TS, made for the first who asks.
    async fn ts(&self, watched: &Watched, number: u64) -> Result<Bytes, Refused> {
        let missing = || Refused::missing("this file is not there any more, or never was");
        let target_secs = watched.read(|package| package.target_secs());
        let look = |package: &Package| match package.together(number) {
            Found::Here(found) => Some(Some(found)),
            Found::Soon if !package.has_ended() => None,
            _ => Some(None),
        };
        let within = Duration::from_secs(target_secs.into()) * RELOAD_TARGETS;
        let found = watched.wait(within, look).await;
        let found = found.ok_or_else(|| Refused::later("the stream does not go on; try again"))?;
        watched.ts(number, &found.ok_or_else(missing)?).ok_or_else(missing)
    }

    /// A file that is there, or that a playlist has announced.
    async fn await_file<T>(
        &self,
        watched: &Watched,
        kind: TrackKind,
        mut find: impl FnMut(&Lane) -> Found<T>,
    ) -> Result<T, Refused> {
        let missing = || Refused::missing("this file is not there any more, or never was");
        let target_secs = watched.read(|package| package.target_secs());
        let look = |package: &Package| match package.lane(kind).map(&mut find) {
            Some(Found::Here(file)) => Some(Some(file)),
            Some(Found::Soon) if !package.has_ended() => None,
            _ => Some(None),
        };
        let within = Duration::from_secs(target_secs.into()) * RELOAD_TARGETS;
        let found = watched.wait(within, look).await;
        found.ok_or_else(|| Refused::later("the stream does not go on; try again"))?.ok_or_else(missing)
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

fn media_type(kind: TrackKind) -> &'static str {
    match kind {
        TrackKind::Video => "video/mp4",
        TrackKind::Audio => "audio/mp4",
    }
}

fn changing(media_type: &'static str, tag: String, text: String) -> Content {
    Content { file: File::Whole(Bytes::from(text)), media_type, tag, is_fixed: false, is_gzip: false }
}

fn fixed(file: File, media_type: &'static str, tag: String) -> Content {
    Content { file, media_type, tag, is_fixed: true, is_gzip: false }
}

fn connections_of(config: &Config) -> (usize, usize) {
    let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    (number(config.http.max_connections), number(config.http.max_connections_per_address))
}
