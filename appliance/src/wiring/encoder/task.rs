//! One stream that is encoded: pulled from its server, made into renditions, stored, until it ends.

use super::Shop;
use super::making::Made;
use super::previews::Showing;
use fieldgate_compat::encoder::{Assignment, Available, Shape, SourceKind, TaskId};
use fieldgate_hub::{Bound, Item, Limits, Mountpoint, Registry};
use fieldgate_media::{Ticks, TrackId, TrackKind, Tracks};
use fieldgate_net::{RtmpEndpoint, RtmpPull};
use fieldgate_proto::rtmp::{Limits as RtmpLimits, RtmpUrl};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A source without pictures by then is no source.
const PICTURE_WITHIN: Duration = Duration::from_secs(30);
/// Sound without a header is known by its first frame, which may come after the first picture: it is waited for until the
/// pictures are so far ahead, and in a stream that has stopped for three times as long.
const SOUND_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// A server that sends nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(30);
/// The rate of a stream that does not say it is counted for so long at most.
const COUNT_WITHIN: Duration = Duration::from_secs(10);
/// Entries and bytes of one round of that.
const COUNT_ENTRIES: usize = 512;
const COUNT_BYTES: usize = 4 << 20;
const SECOND_TICKS: i64 = 90_000;
const MILLISECOND_TICKS: i64 = 90;
/// Long enough to tell 29.97 from 30 by times in milliseconds.
const COUNTED_TICKS: i64 = 4 * SECOND_TICKS;
const RATE_MAX: i64 = 1_000;
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
        let own = task.shop.settings.url.is_none().then(|| task.own_source()).flatten();
        if let Some(own) = own {
            return task.clone().encode_own(&own).await;
        }
        let place = Place::new(&task.shop.wiring.context.registry, &task.mountpoint())?;
        let source = place.mountpoint.clone();
        let kept = source.clone();
        tokio::select! {
            ended = async {
                match task.assignment.kind {
                    SourceKind::Rtmp => task.clone().encode(&source, task.pull(&source)?).await,
                    SourceKind::WebSocket => task.clone().encode(&source, task.receive(&source)).await,
                }
            } => ended,
            // It runs until the mountpoint is closed, which is ours.
            () = async { kept.keep().await; std::future::pending().await } => Ok(()),
        }
    }

    /// The mountpoint of a stream of our own, if it is one.
    fn own_source(&self) -> Option<String> {
        let url = RtmpUrl::parse(self.assignment.source.reveal()).ok()?;
        self.shop.wiring.coordinator.own_source(&self.assignment.channel, &url)
    }

    /// As it is published here; its publisher may not have begun yet.
    async fn encode_own(self: Arc<Self>, name: &str) -> Result<(), String> {
        let registry = &self.shop.wiring.context.registry;
        let coming = async {
            loop {
                match registry.get(name) {
                    Some(mountpoint) => return mountpoint,
                    None => sleep(LOOK).await,
                }
            }
        };
        let source = tokio::select! {
            found = timeout(PICTURE_WITHIN, coming) => found.map_err(|_| "its publisher never began")?,
            () = self.stop.cancelled() => return Ok(()),
        };
        let (closed, stop) = (source.closed(), self.stop.clone());
        let publishing = async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = stop.cancelled() => {}
            }
            Ok(())
        };
        self.encode(&source, publishing).await
    }

    /// `feeding` ends with the source.
    async fn encode(
        self: Arc<Self>,
        source: &Arc<Mountpoint>,
        feeding: impl Future<Output = Result<(), String>>,
    ) -> Result<(), String> {
        let wiring = &self.shop.wiring;
        tokio::pin!(feeding);
        let tracks = tokio::select! {
            tracks = timeout(PICTURE_WITHIN, pictures(source)) => tracks.map_err(|_| "the source has no pictures")?,
            ended = &mut feeding => return ended,
        };
        let mut shape = shape_of(&tracks);
        if shape.frame_rate == 0 {
            let shard = wiring.shard_of(source).map_err(|error| error.to_string())?;
            let counting = source.clone();
            shape.frame_rate = tokio::select! {
                rate = shard.run(move |_| counted_rate(counting)) => rate.map_err(|error| error.to_string())?,
                ended = &mut feeding => return ended,
            };
        }
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
                let made = task.make(nth, rendition, &source, (&tracks, shape), over).await;
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
                _ = &mut feeding => break,
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

    /// Plays the source from its server, until that ends.
    fn pull(
        &self,
        source: &Arc<Mountpoint>,
    ) -> Result<impl Future<Output = Result<(), String>> + use<>, String> {
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
        let pull = RtmpPull {
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
        };
        let shard = wiring.shard_of(source).map_err(|error| error.to_string())?;
        Ok(async move {
            match shard.run(move |local| pull.run(local)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => {
                    Err(format!("the source cannot be played: {}", crate::steward::chain(&error)))
                }
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// The tracks, once there is a picture, and sound or none for a while.
async fn pictures(source: &Mountpoint) -> Tracks {
    let mut began = None;
    loop {
        let tracks = source.ring().tracks();
        let has_size = tracks.first(TrackKind::Video).is_some_and(|track| track.video.width > 0);
        if has_size && source.tap().newest_keyframe().is_some() {
            let newest = source.ring().newest_dts().unwrap_or(Ticks::ZERO);
            let (since, first) = *began.get_or_insert((Instant::now(), newest));
            let is_silent =
                newest - first >= Ticks::from_duration(SOUND_WITHIN) || since.elapsed() >= SOUND_WITHIN * 3;
            if is_silent || tracks.first(TrackKind::Audio).is_some() {
                return tracks;
            }
        }
        sleep(LOOK).await;
    }
}

/// Pictures a second of a stream whose header says nothing of it, counted for four seconds; the integer part, as encoders
/// have it. 0: that cannot be told.
async fn counted_rate(source: Arc<Mountpoint>) -> u32 {
    let mut subscriber = source.subscribe(Some(source.limits().bound.age));
    let mut counting = RateCount::default();
    let mut entries = Vec::new();
    let counted = async {
        loop {
            let taken = subscriber.take(&mut entries, COUNT_ENTRIES, COUNT_BYTES);
            for entry in entries.drain(..) {
                if let Item::Unit { unit, .. } = &entry.item
                    && unit.head.track == TrackId::VIDEO
                    && let Some(rate) = counting.count(unit.head.dts.get())
                {
                    return rate;
                }
            }
            if !taken.more {
                subscriber.changed().await;
            }
        }
    };
    timeout(COUNT_WITHIN, counted).await.unwrap_or(0)
}

/// Counts pictures until four seconds of them have gone by.
#[derive(Default)]
struct RateCount {
    first: Option<i64>,
    intervals: i64,
}

impl RateCount {
    /// The rate, once it is known.
    fn count(&mut self, dts: i64) -> Option<u32> {
        let Some(first) = self.first else {
            self.first = Some(dts);
            return None;
        };
        self.intervals += 1;
        let span = dts.saturating_sub(first);
        // Sources round their times to milliseconds.
        let least = span.saturating_sub(2 * MILLISECOND_TICKS);
        if least < COUNTED_TICKS - 3 * MILLISECOND_TICKS {
            return None;
        }
        let rate = self.intervals.saturating_mul(SECOND_TICKS) / least;
        Some(u32::try_from(rate.min(RATE_MAX)).unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use fieldgate_hub::{LocalShard, PublisherInfo};
    use fieldgate_media::{Codec, Draft, Track, UnitHead};

    /// Times of pictures in milliseconds, as RTMP carries them.
    fn counted(rate: f64, first: u32) -> Option<u32> {
        let mut counting = RateCount::default();
        (first..first + 2_000).find_map(|nth| {
            let millis = (f64::from(nth) * 1_000.0 / rate).round() as i64;
            counting.count(millis * MILLISECOND_TICKS)
        })
    }

    #[test]
    fn a_rate_that_no_header_says_is_counted() {
        for (rate, expected) in [
            (30.0, 30),
            (25.0, 25),
            (29.97, 29),
            (23.976, 23),
            (15.0, 15),
            (12.5, 12),
            (60.0, 60),
            (1.0, 1),
            (0.5, 0),
        ] {
            for first in 0..8 {
                assert_eq!(counted(rate, first), Some(expected), "{rate} from {first}");
            }
        }
    }

    /// Ten pictures a second, with G.711 beside them from some time on; what was found of it, and when.
    async fn found(sound_from: Option<Duration>, until: Duration) -> (Option<Codec>, Duration) {
        let (shard, began) = (LocalShard::new(0), Instant::now());
        let source = Registry::new(1, Arc::new(())).add("encoder/1", Limits::default()).unwrap();
        let info = PublisherInfo { kind: "pull", from: "a server".into(), since_unix_micros: 0, rtmp: None };
        let mut publisher = source.claim(&shard, info).unwrap();
        let mut picture = Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(b"avcC"));
        (picture.video.width, picture.video.height) = (320, 180);
        let tracks = Tracks::new(vec![picture]);
        publisher.announce(tracks.clone());
        let publishing = async {
            loop {
                if sound_from.is_some_and(|from| began.elapsed() >= from) {
                    publisher.announce(tracks.with(Track::new(TrackId::AUDIO, Codec::PcmA, Bytes::new())));
                }
                if began.elapsed() < until {
                    let dts = Ticks::from_duration(began.elapsed());
                    let head = UnitHead {
                        track: TrackId::VIDEO,
                        dts,
                        pts: dts,
                        source_dts: dts,
                        source_pts: dts,
                        keyframe: true,
                        captured: None,
                    };
                    publisher.publish(Draft::copied(head, &[0, 0, 0, 2, 0x65, 0x88]));
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            tracks = pictures(&source) => (tracks.first(TrackKind::Audio).map(|track| track.codec), began.elapsed()),
            () = publishing => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sound_that_begins_after_the_picture_is_waited_for_and_silence_is_not_for_ever() {
        let (second, millis) = (Duration::from_secs(1), Duration::from_millis);
        let late = found(Some(millis(700)), second * 9).await;
        assert_eq!(late.0, Some(Codec::PcmA));
        assert!(late.1 < second, "{late:?}");
        let silent = found(None, second * 9).await;
        assert_eq!(silent.0, None);
        assert!(silent.1 >= second && silent.1 < millis(1_500), "{silent:?}");
        let stopped = found(None, millis(500)).await;
        assert!(stopped.0.is_none() && stopped.1 >= second * 3 && stopped.1 < second * 4, "{stopped:?}");
    }
}
