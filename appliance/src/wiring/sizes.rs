//! Sizes of streams that are made while somebody watches them: guests of the plan, one worker each however many watch.
//!
//! ```text
//!  viewers' plane --make--> Sizes --wish--> Making (one task): mountpoint yard --worker--> mountpoint yard~360p --> segments
//!                              ^---stage---/
//! ```

use super::Wiring;
use super::renditions::guest::GuestWork;
use crate::supervisor::{Made, MadeSound};
use fieldgate_hub::{Bound, Limits, Mountpoint, Registry, StreamState};
use fieldgate_media::{TrackKind, Tracks};
use fieldgate_model::config::{Hls, Size};
use fieldgate_model::job::PictureCodec;
use fieldgate_model::plan::Guest;
use fieldgate_net::{Absent, Maker};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Sizes that may begin at once.
const WISHES: usize = 32;
/// A viewer waits so long for the first picture.
const THERE_WITHIN: Duration = Duration::from_secs(20);
/// Nobody asked for what was made for so long: whoever wanted it has left.
const WANTED_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks whether it is watched.
const LOOK: Duration = Duration::from_millis(500);
/// The stream may be away for so long; also how long a refusal counts, for those who ask again and again.
const GRACE: Duration = Duration::from_secs(10);
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// Workers that may fail one after the other, and the pause before the next.
const FAILED_MAX: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);

/// One that ran for so long had not failed to begin with.
const RAN_WELL: Duration = Duration::from_secs(60);
/// Pictures a second of a stream that does not say.
const RATE: u32 = 30;

/// How far a size is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Begins,
    /// Its mountpoint is fed.
    IsThere,
    /// It is not made, or not any more.
    Over(String),
}

struct Wish {
    of: String,
    name: String,
    size: Size,
    gop_ms: u32,
    stage: watch::Sender<Stage>,
}

/// All sizes that are made now. Cheap to clone.
#[derive(Clone)]
pub struct Sizes {
    wishes: mpsc::Sender<Wish>,
    /// By mountpoint.
    known: Arc<Mutex<BTreeMap<String, watch::Receiver<Stage>>>>,
}

/// Makes them: must run as long as any is to be made.
pub struct MakingSizes {
    sizes: Sizes,
    wishes: mpsc::Receiver<Wish>,
}

impl Sizes {
    /// None yet.
    pub fn new() -> (Sizes, MakingSizes) {
        let (wishes, inbox) = mpsc::channel(WISHES);
        let sizes = Sizes { wishes, known: Arc::default() };
        (sizes.clone(), MakingSizes { sizes, wishes: inbox })
    }

    /// Names of the sizes of a stream that are made now.
    pub fn of(&self, stream: &str) -> Vec<String> {
        let known = self.known();
        let made = known.iter().filter(|(_, stage)| *stage.borrow() == Stage::IsThere);
        made.filter_map(|(name, _)| name.strip_prefix(stream)?.strip_prefix('~').map(str::to_owned)).collect()
    }

    /// How far it is, beginning it if nobody has.
    fn stage(&self, of: &str, hls: &Hls, size: &Size) -> Option<(String, watch::Receiver<Stage>)> {
        let name = format!("{of}~{}", size.name());
        let mut known = self.known();
        // Of what has ended the sender is gone.
        known.retain(|_, stage| stage.has_changed().is_ok());
        if let Some(stage) = known.get(&name) {
            return Some((name, stage.clone()));
        }
        let (stage, shown) = watch::channel(Stage::Begins);
        // Segments begin with keyframes.
        let gop_ms = u32::try_from(hls.segment.get().as_millis()).unwrap_or(u32::MAX);
        let wish = Wish { of: of.to_owned(), name: name.clone(), size: size.clone(), gop_ms, stage };
        self.wishes.try_send(wish).ok()?;
        known.insert(name.clone(), shown.clone());
        Some((name, shown))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, watch::Receiver<Stage>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maker for Sizes {
    fn make(
        &self,
        of: &str,
        hls: &Hls,
        size: &Size,
    ) -> Pin<Box<dyn Future<Output = Result<String, Absent>> + Send + '_>> {
        let begun = self.stage(of, hls, size);
        Box::pin(async move {
            let later = |text: String| Absent { status: 503, text };
            let (name, mut stage) =
                begun.ok_or_else(|| later("too many sizes begin at once; try again".into()))?;
            let decided = stage.wait_for(|stage| *stage != Stage::Begins);
            let stage = match timeout(THERE_WITHIN, decided).await {
                Ok(Ok(stage)) => stage.clone(),
                Ok(Err(_)) => Stage::Over("it has just ended; try again".into()),
                Err(_) => Stage::Over("it has no picture yet; try again".into()),
            };
            match stage {
                Stage::Over(why) => Err(later(format!("this size is not made: {why}"))),
                _ => Ok(name),
            }
        })
    }
}

impl MakingSizes {
    /// Makes what is wished for until told to stop.
    pub async fn run(mut self, wiring: Wiring, cancel: CancellationToken) {
        let mut tasks = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(()) = tasks.next() => {}
                Some(wish) = self.wishes.recv() => tasks.push(wish.fulfil(wiring.clone(), cancel.child_token())),
            }
        }
        while tasks.next().await.is_some() {}
        self.sizes.known().clear();
    }
}

/// A mountpoint that goes with whoever made it.
struct Place {
    registry: Arc<Registry>,
    mountpoint: Arc<Mountpoint>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.remove(self.mountpoint.name());
    }
}

impl Wish {
    async fn fulfil(self, wiring: Wiring, cancel: CancellationToken) {
        let (size, of) = (self.size.name(), &self.of);
        let why = match self.make(&wiring, &cancel).await {
            Ok(why) => {
                info!(mountpoint = of, size, why, "a size is not made any more");
                why.to_owned()
            }
            Err(why) => {
                warn!(mountpoint = of, size, why, "a size is not made");
                why
            }
        };
        let is_refused = *self.stage.borrow() == Stage::Begins;
        self.stage.send_replace(Stage::Over(why));
        if is_refused {
            tokio::select! {
                () = sleep(REFUSED_FOR) => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    /// Until nobody watches it; why it ended.
    async fn make(&self, wiring: &Wiring, cancel: &CancellationToken) -> Result<&'static str, String> {
        let from = wiring.context.registry.get(&self.of).ok_or("the stream is gone")?;
        let work = self.work(wiring, &from.ring().tracks(), cancel).await?;
        let limits = Limits { bound: Bound::default(), grace: GRACE, ..Limits::default() };
        let to = wiring.context.registry.add(&self.name, limits).map_err(|error| error.to_string())?;
        let place = Place { registry: wiring.context.registry.clone(), mountpoint: to.clone() };
        info!(mountpoint = self.of, size = self.size.name(), "a size is made for viewers");
        let turned_out = async {
            match &work.pass {
                Some(pass) => pass.turned_out().await,
                None => std::future::pending().await,
            }
        };
        let (closed, stop) = (from.closed(), CancellationToken::new());
        let mut working = pin!(self.keep_working(wiring, &work, (&from, &place.mountpoint), &stop));
        let ended = tokio::select! {
            ended = &mut working => return ended,
            () = cancel.cancelled() => Ok("told to stop"),
            () = closed.cancelled() => Ok("the mountpoint was removed"),
            () = self.unwatched(wiring) => Ok("nobody watches any more"),
            why = turned_out => Err(format!("there is no room for it on this machine any more: {why}")),
            // It runs until the mountpoint is closed, which is ours.
            () = async { to.keep().await; std::future::pending().await } => Ok("its place was removed"),
        };
        stop.cancel();
        // The worker has its deadline for that.
        working.await.ok();
        ended
    }

    /// What a worker has to do, with its place in the plan.
    async fn work(
        &self,
        wiring: &Wiring,
        tracks: &Tracks,
        cancel: &CancellationToken,
    ) -> Result<GuestWork, String> {
        let video = tracks.first(TrackKind::Video).ok_or("the stream has no pictures")?;
        let (width, height) = (video.video.width, video.video.height);
        let size = self.size.of(width, height);
        let size = size.ok_or_else(|| format!("the stream itself is {width}x{height}, not larger"))?;
        let source_rate = video.video.frame_rate.clamp(0.0, 1_000.0).round() as u32;
        let source_rate = if source_rate > 0 { source_rate } else { RATE };
        let thinned = self.size.max_frame_rate.filter(|most| *most < source_rate);
        let config = wiring.admission.supervisor().map(|supervisor| supervisor.config().borrow().clone());
        let config = config.ok_or("the gateway is starting")?;
        let frame_rate = thinned.unwrap_or(source_rate);
        let guest = Guest { from: video.codec, width: size.0, height: size.1, frame_rate };
        let pass = wiring.capacity.let_in(guest, &config, cancel).await;
        let pass = pass.map_err(|why| format!("there is no room for it on this machine: {why}"))?;
        Ok(GuestWork {
            made: Made { video: Some(PictureCodec::H264), audio: MadeSound::Pass },
            title: self.size.name(),
            size,
            bitrate: self.size.bitrate,
            gop_ms: self.gop_ms,
            max_frame_rate: thinned,
            pass: Some(pass),
        })
    }

    /// Workers, one after the other as far as need be, while the stream is there.
    async fn keep_working(
        &self,
        wiring: &Wiring,
        work: &GuestWork,
        (from, to): (&Arc<Mountpoint>, &Arc<Mountpoint>),
        stop: &CancellationToken,
    ) -> Result<&'static str, String> {
        let mut failed = 0;
        while !stop.is_cancelled() {
            let mut state = from.state();
            let live = state.wait_for(|state| matches!(state, StreamState::Live(_)));
            let live = match timeout(GRACE, live).await {
                Ok(Ok(live)) => *live,
                _ => return Ok("the stream is over"),
            };
            let stop_this = stop.child_token();
            let began = Instant::now();
            let mut run = pin!(work.run(wiring, from, to, &stop_this));
            let (mut from_state, mut to_state) = (from.state(), to.state());
            let fed = async {
                let is_fed = |state: &StreamState| matches!(state, StreamState::Live(_));
                if to_state.wait_for(is_fed).await.is_ok() {
                    self.stage.send_replace(Stage::IsThere);
                }
                std::future::pending::<()>().await;
            };
            let ended = tokio::select! {
                ended = &mut run => Some(ended),
                _ = from_state.wait_for(|now| *now != live) => None,
                () = fed => None,
            };
            match ended {
                None => {
                    stop_this.cancel();
                    // Whatever it says: it was told to end.
                    run.await.ok();
                }
                Some(Ok(_)) => {}
                Some(Err(why)) => {
                    failed = if began.elapsed() < RAN_WELL { failed + 1 } else { 1 };
                    warn!(mountpoint = self.of, size = self.size.name(), why, failed, "its worker ended");
                    if failed >= FAILED_MAX {
                        return Err(why);
                    }
                }
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok("told to stop")
    }

    /// Until viewers came and have left, or none came.
    async fn unwatched(&self, wiring: &Wiring) {
        let (began, mut was_watched) = (Instant::now(), false);
        loop {
            sleep(LOOK).await;
            let is_watched = wiring.viewers.is_cut(&self.name);
            if !is_watched && (was_watched || began.elapsed() > WANTED_WITHIN) {
                return;
            }
            was_watched |= is_watched;
        }
    }
}
