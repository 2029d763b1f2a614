//! One stream that is encoded: pulled from its server, made into renditions, stored, until it ends.

use super::Shop;
use super::making::Made;
use super::previews::Showing;
use fieldgate_compat::encoder::{Assignment, Available, Shape, TaskId};
use fieldgate_hub::{Bound, Limits, Mountpoint, Registry};
use fieldgate_media::{TrackKind, Tracks};
use fieldgate_net::{RtmpEndpoint, RtmpPull};
use fieldgate_proto::rtmp::{Limits as RtmpLimits, RtmpUrl};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A source without pictures by then is no source.
const PICTURE_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// A server that sends nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// What is there of a stream that is over has so long to be stored.
const STORED_WITHIN: Duration = Duration::from_secs(60);
/// The same when it was told to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(4);

/// The task.
pub(super) struct Task {
    pub(super) shop: Arc<Shop>,
    pub(super) id: TaskId,
    pub(super) assignment: Assignment,
    pub(super) tell: mpsc::Sender<(TaskId, Available)>,
    pub(super) stop: CancellationToken,
}

/// A mountpoint that goes with whoever made it.
pub(super) struct Place {
    registry: Arc<Registry>,
    pub(super) mountpoint: Arc<Mountpoint>,
}

impl Place {
    pub(super) fn new(registry: &Arc<Registry>, name: &str) -> Result<Place, String> {
        let limits = Limits { bound: Bound::default(), grace: Duration::ZERO, ..Limits::default() };
        let mountpoint = registry.add(name, limits).map_err(|error| error.to_string())?;
        Ok(Place { registry: registry.clone(), mountpoint })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.remove(self.mountpoint.name());
    }
}

impl Task {
    pub(super) fn new(
        shop: Arc<Shop>,
        id: TaskId,
        assignment: Assignment,
        tell: mpsc::Sender<(TaskId, Available)>,
        stop: CancellationToken,
    ) -> Task {
        Task { shop, id, assignment, tell, stop }
    }

    /// The mountpoint of the stream as it comes; no stream of the config can have such a name.
    pub(super) fn mountpoint(&self) -> String {
        format!("encoder/{}", self.id.0)
    }

    /// Until the stream is over and stored; or why it is not encoded.
    pub(super) async fn run(self) -> Result<(), String> {
        let task = Arc::new(self);
        let place = Place::new(&task.shop.wiring.context.registry, &task.mountpoint())?;
        let source = place.mountpoint.clone();
        let kept = source.clone();
        tokio::select! {
            ended = task.clone().encode(&source) => ended,
            // It runs until the mountpoint is closed, which is ours.
            () = async { kept.keep().await; std::future::pending().await } => Ok(()),
        }
    }

    async fn encode(self: Arc<Self>, source: &Arc<Mountpoint>) -> Result<(), String> {
        let wiring = &self.shop.wiring;
        let pull = self.pull(source)?;
        let shard = wiring.shard_of(source).map_err(|error| error.to_string())?;
        let pulling = shard.run(move |local| pull.run(local));
        tokio::pin!(pulling);
        let tracks = tokio::select! {
            tracks = timeout(PICTURE_WITHIN, pictures(source)) => tracks.map_err(|_| "the source has no pictures")?,
            ended = &mut pulling => return match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(format!("the source cannot be played: {}", crate::steward::chain(&error))),
                Err(error) => Err(error.to_string()),
            },
        };
        let shape = shape_of(&tracks);
        let renditions = self.assignment.resolutions.of(shape);
        info!(
            task = self.id.0,
            channel = self.assignment.channel,
            source = format!("{}x{}-{}", shape.width, shape.height, shape.frame_rate),
            renditions = renditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            "encoder: the stream is there"
        );
        let making = self.shop.store.begin(&self.assignment);
        let over = CancellationToken::new();
        let mut work: JoinSet<Result<Made, String>> = JoinSet::new();
        for (nth, rendition) in renditions.into_iter().enumerate() {
            let (task, source, tracks, over) = (self.clone(), source.clone(), tracks.clone(), over.clone());
            work.spawn(async move {
                let made = task.make(nth, rendition, &source, &tracks, over).await;
                made.map_err(|why| format!("rendition {rendition}: {why}"))
            });
        }
        let previews = self.assignment.previews.map(|previews| Showing {
            id: self.id,
            store: self.shop.store.clone(),
            snapshots: wiring.sight.snapshots.clone(),
            mountpoint: source.name().to_owned(),
            files: Showing::files(&self.assignment, &previews),
            previews,
            shape,
            tell: self.tell.clone(),
        });
        let mut showing = JoinSet::new();
        if let Some(previews) = previews {
            showing.spawn(previews.run(over.clone()));
        }
        let (mut stored, mut failed) = (false, None);
        let mut left = |joined: Result<Result<Made, String>, tokio::task::JoinError>| {
            match joined.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(Made { segments, is_full }) => {
                    stored |= segments > 0;
                    return is_full;
                }
                Err(why) => {
                    warn!(task = self.id.0, why, "encoder: it is not made");
                    failed = Some(why);
                }
            }
            false
        };
        loop {
            tokio::select! {
                _ = &mut pulling => break,
                joined = work.join_next() => match joined {
                    // A list that is full ends the stream.
                    Some(joined) => if left(joined) {
                        break;
                    },
                    None => break,
                },
            }
        }
        over.cancel();
        let patience = if self.stop.is_cancelled() { STOPPED_WITHIN } else { STORED_WITHIN };
        let finishing = async {
            while let Some(joined) = work.join_next().await {
                left(joined);
            }
            while showing.join_next().await.is_some() {}
        };
        let is_late = timeout(patience, finishing).await.is_err();
        drop(making);
        match failed {
            _ if is_late => Err(format!("the rest was not stored within {patience:?}")),
            Some(why) if !stored => Err(why),
            _ => Ok(()),
        }
    }

    fn pull(&self, source: &Arc<Mountpoint>) -> Result<RtmpPull, String> {
        let address = self.assignment.source.reveal();
        // What was kept since the stream began is played from its start, and need not be kept for others.
        let separator = if address.contains('?') { '&' } else { '?' };
        let url =
            RtmpUrl::parse(&format!("{address}{separator}cache=clear")).map_err(|error| error.to_string())?;
        let wiring = &self.shop.wiring;
        let limits = RtmpLimits {
            media_bytes: wiring.rtmp_settings.borrow().limits.media_bytes,
            ..RtmpLimits::default()
        };
        Ok(RtmpPull {
            from: format!("{}:{}", url.host, url.port),
            endpoint: RtmpEndpoint {
                tls: self.shop.tls.clone().filter(|_| url.tls),
                url,
                chunk_len: 4096,
                dial: crate::wiring::pushes::dial_options(STALLED),
            },
            mountpoint: source.clone(),
            stall_timeout: STALLED,
            limits,
            clock: wiring.context.clock.clone(),
            cancel: self.stop.clone(),
        })
    }
}

/// The tracks, once there is a picture.
async fn pictures(source: &Mountpoint) -> Tracks {
    loop {
        let tracks = source.ring().tracks();
        let has_size = tracks.first(TrackKind::Video).is_some_and(|track| track.video.width > 0);
        if has_size && source.tap().newest_keyframe().is_some() {
            return tracks;
        }
        sleep(LOOK).await;
    }
}

fn shape_of(tracks: &Tracks) -> Shape {
    let video = tracks.first(TrackKind::Video).map(|track| track.video).unwrap_or_default();
    Shape {
        width: video.width,
        height: video.height,
        frame_rate: video.frame_rate.clamp(0.0, 1_000.0) as u32,
    }
}
