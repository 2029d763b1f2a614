//! One publication of a session: when it begins and ends, what its KMP tracks ask.

use super::streams::Place;
use fieldgate_compat::kmp_control::MediaKind;
use fieldgate_hub::{LocalShard, Mountpoint, RtmpSession, Shard};
use fieldgate_net::{KmpShared, KmpTrack, KmpTrackHandle, KmpTrackReport, KmpTrackSettings, TrackAsk};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

/// A publisher that was let in has so long to begin.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);

/// What happened to a publication.
pub(super) enum Moment {
    /// It has begun.
    Began(Arc<RtmpSession>),
    /// It never began, or has ended.
    Ended,
    /// One of its tracks asks.
    Asked(MediaKind, TrackAsk),
    /// All its tracks are over.
    Over,
}

type Happening = Pin<Box<dyn Future<Output = (u32, Option<Moment>, Rest)> + Send>>;

/// What is to be waited for next.
enum Rest {
    Nothing,
    End(Arc<RtmpSession>, Arc<Mountpoint>),
    Asks(MediaKind, mpsc::Receiver<TrackAsk>),
}

/// The moments of all publications of a session, as they come.
#[derive(Default)]
pub(super) struct Moments {
    happening: FuturesUnordered<Happening>,
}

impl Moments {
    /// The next moment and whose it is; `None` while there is no publication.
    pub(super) async fn next(&mut self) -> Option<(u32, Moment)> {
        loop {
            let (number, moment, rest) = self.happening.next().await?;
            match rest {
                Rest::Nothing => {}
                Rest::End(session, mountpoint) => self.happening.push(Box::pin(async move {
                    until_end(&session, &mountpoint).await;
                    (number, Some(Moment::Ended), Rest::Nothing)
                })),
                Rest::Asks(kind, asks) => self.listen(number, kind, asks),
            }
            if let Some(moment) = moment {
                return Some((number, moment));
            }
        }
    }

    /// Hands out what a track asks.
    pub(super) fn listen(&mut self, number: u32, kind: MediaKind, mut asks: mpsc::Receiver<TrackAsk>) {
        self.happening.push(Box::pin(async move {
            match asks.recv().await {
                Some(ask) => (number, Some(Moment::Asked(kind, ask)), Rest::Asks(kind, asks)),
                None => (number, None, Rest::Nothing),
            }
        }));
    }

    /// Runs a publication's tracks and watches over its begin and end. `ready` is told when the tracks read the ring.
    pub(super) fn run(
        &mut self,
        number: u32,
        job: Job,
        shard: Shard,
        place: Option<Place>,
        ready: oneshot::Sender<()>,
    ) {
        let (mountpoint, connection) = (job.mountpoint.clone(), job.connection);
        let keeper = mountpoint.clone();
        let own = place.is_some();
        self.happening.push(Box::pin(async move {
            let tracks = shard.run(move |local| job.run(local, ready));
            // A mountpoint of the config is kept by its own child.
            let keep = async {
                match own {
                    true => keeper.keep().await,
                    false => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                ended = tracks => ended,
                () = keep => Ok(()),
            };
            if let Err(error) = ended {
                warn!(%error, "KMP tracks ended");
            }
            drop(place);
            (number, Some(Moment::Over), Rest::Nothing)
        }));
        self.happening.push(Box::pin(async move {
            match until_begin(connection, &mountpoint).await {
                Some(session) => {
                    (number, Some(Moment::Began(session.clone())), Rest::End(session, mountpoint))
                }
                None => (number, Some(Moment::Ended), Rest::Nothing),
            }
        }));
    }
}

/// The tracks of one publication, to be run on its mountpoint's media thread.
pub(super) struct Job {
    mountpoint: Arc<Mountpoint>,
    connection: u64,
    video: KmpTrack,
    audio: KmpTrack,
}

/// A track's kind, the way to it, and what it shows.
type Handles = [(MediaKind, KmpTrackHandle, KmpTrackReport); 2];

/// Makes the tracks of a publication.
pub(super) fn start(
    connection: u64,
    shared: KmpShared,
    video: KmpTrackSettings,
    audio: KmpTrackSettings,
    log_frames: bool,
) -> (Job, Handles) {
    let mountpoint = shared.mountpoint.clone();
    let (video, to_video) = KmpTrack::asked(shared.clone(), video);
    let (audio, to_audio) = KmpTrack::asked(shared, audio);
    let (video, audio) = (video.logging_frames(log_frames), audio.logging_frames(log_frames));
    let handles =
        [(MediaKind::Video, to_video, video.report()), (MediaKind::Audio, to_audio, audio.report())];
    (Job { mountpoint, connection, video, audio }, handles)
}

impl Job {
    async fn run(self, local: Rc<LocalShard>, ready: oneshot::Sender<()>) {
        let told = async {
            // Polled after the tracks, which read the ring from their first poll on.
            ready.send(()).ok();
        };
        tokio::join!(biased; self.video.run(local.clone()), self.audio.run(local), told);
    }
}

/// Waits for this connection's publication; `None` if it does not come.
async fn until_begin(connection: u64, mountpoint: &Mountpoint) -> Option<Arc<RtmpSession>> {
    let mut state = mountpoint.state();
    let closed = mountpoint.closed();
    let waiting = async {
        loop {
            state.borrow_and_update();
            let session = mountpoint.publisher().and_then(|publisher| publisher.rtmp);
            if let Some(session) = session.filter(|session| session.client.connection == connection) {
                return Some(session);
            }
            tokio::select! {
                changed = state.changed() => changed.ok()?,
                () = closed.cancelled() => return None,
            }
        }
    };
    tokio::time::timeout(BEGIN_WITHIN, waiting).await.ok().flatten()
}

async fn until_end(session: &RtmpSession, mountpoint: &Mountpoint) {
    let mut state = mountpoint.state();
    let closed = mountpoint.closed();
    loop {
        state.borrow_and_update();
        // It says why before its mountpoint is free.
        if session.ended().is_some() {
            return;
        }
        tokio::select! {
            changed = state.changed() => if changed.is_err() {
                return;
            },
            () = closed.cancelled() => return,
        }
    }
}
