//! A publisher of numbered units, and the sending side as the gateway builds it.

use bytes::Bytes;
use fieldgate_hub::{
    Backlog, Bound, Clock, LedgerKeeper, Limits, LocalShard, Mountpoint, Publisher, PublisherInfo,
};
use fieldgate_media::{
    Captured, ClockSource, Codec, Draft, Ticks, Track, TrackId, TrackKind, Tracks, UnitHead,
};
use fieldgate_net::{
    DialOptions, KmpBacklog, KmpDialer, KmpPush, KmpPushReport, KmpPushTrack, KmpShared, KmpTrackSettings,
    RtmpForm,
};
use fieldgate_proto::kmp::sender::{Keep, Reconnect, Settings, UpstreamSpec};
use fieldgate_proto::kmp::{MapSettings, Name};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const AVCC: &[u8] = &[1, 0x42, 0xC0, 0x1E, 0xFF, 0xE0, 0];
const AAC: &[u8] = &[0x11, 0x90];

/// Capture time of the units with the number 0, microseconds since 1970.
pub(crate) const EPOCH: i64 = 1_700_000_000_000_000;
/// Between two units of a track.
pub(crate) const STEP_MICROS: i64 = 40_000;
/// A keyframe comes every so many pictures.
pub(crate) const GOP: u32 = 10;
/// The upstream's name in the ledger.
pub(crate) const UPSTREAM: &str = "far";
/// The channel, and the second one for what is late.
pub(crate) const CHANNEL: &str = "yard";
pub(crate) const LATE_CHANNEL: &str = "yard-late";
/// The tracks' names.
pub(crate) const TRACKS: [&str; 2] = ["v1", "a1"];

/// When a unit was captured.
pub(crate) fn captured(number: u32) -> i64 {
    EPOCH + i64::from(number) * STEP_MICROS
}

/// Small, seeded.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// A mountpoint that never drops for want of room.
pub(crate) fn mountpoint(name: String) -> Arc<Mountpoint> {
    let bound = Bound { bytes: 64 << 20, age: Duration::from_secs(7200) };
    let limits = Limits { bound, grace: Duration::from_millis(10), ..Limits::default() };
    Mountpoint::new(name, 0, limits, Arc::new(RtmpForm))
}

/// Publishes pictures and sounds in turn, each with its number and the capture time that belongs to it.
pub(crate) struct Camera {
    publisher: Publisher,
    /// The number of the next ones.
    pub(crate) next: u32,
    sound: bool,
    /// Capture time of the units with the number 0.
    epoch: i64,
}

impl Camera {
    pub(crate) fn new(mountpoint: &Arc<Mountpoint>, local: &LocalShard, first: u32, sound: bool) -> Camera {
        assert_eq!(first % GOP, 0, "a camera begins with a keyframe");
        let info = PublisherInfo { kind: "test", from: "here".into(), since_unix_micros: 0, rtmp: None };
        let mut publisher = mountpoint.claim(local, info).unwrap();
        let mut tracks = vec![Track::new(TrackId::VIDEO, Codec::H264, Bytes::from_static(AVCC))];
        if sound {
            tracks.push(Track::new(TrackId::AUDIO, Codec::Aac, Bytes::from_static(AAC)));
        }
        publisher.announce(Tracks::new(tracks));
        Camera { publisher, next: first, sound, epoch: EPOCH }
    }

    /// The units with the number 0 were captured at this time.
    pub(crate) fn since(self, epoch: i64) -> Camera {
        Camera { epoch, ..self }
    }

    /// Publishes the next pictures, of so many bytes each, and as many sounds of a quarter of that.
    pub(crate) fn shoot(&mut self, count: u32, mut len: impl FnMut() -> usize) {
        for _ in 0..count {
            let len = len();
            self.publish(TrackId::VIDEO, self.next.is_multiple_of(GOP), len);
            if self.sound {
                self.publish(TrackId::AUDIO, true, len / 4);
            }
            self.next += 1;
        }
        self.publisher.flush();
    }

    fn publish(&mut self, track: TrackId, keyframe: bool, len: usize) {
        let number = self.next;
        let dts = Ticks::from_millis(i64::from(number) * STEP_MICROS / 1000);
        let at = Captured { unix_micros: self.epoch - EPOCH + captured(number), by: ClockSource::Camera };
        let (pts, source_dts, source_pts) = (dts, dts, dts);
        let head = UnitHead { track, dts, pts, source_dts, source_pts, keyframe, captured: Some(at) };
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(len.max(4), (number % 251) as u8);
        assert!(self.publisher.publish(Draft::copied(head, &payload)));
    }
}

/// How a push is sent: impatient reconnects, patient ends.
pub(crate) fn settings(kind: TrackKind, window_bytes: u64) -> KmpTrackSettings {
    let reconnect =
        Reconnect::Backoff { first: Duration::from_millis(2), longest: Duration::from_millis(20) };
    let sender = Settings {
        reconnect,
        keep: Keep::Backlog { window_bytes },
        end_patience: None,
        end_attempts: u32::MAX,
        ..Settings::new()
    };
    KmpTrackSettings { kind, map: MapSettings::default(), sender }
}

/// What the push needs beside its tracks.
pub(crate) fn shared(mountpoint: &Arc<Mountpoint>, ledger: Arc<dyn LedgerKeeper>) -> KmpShared {
    KmpShared {
        mountpoint: mountpoint.clone(),
        dialer: KmpDialer { options: DialOptions::default(), ..KmpDialer::default() },
        clock: Clock::new(EPOCH),
        ledger,
        cancel: CancellationToken::new(),
    }
}

/// The receiver at `addr`.
pub(crate) fn upstream(addr: std::net::SocketAddr) -> UpstreamSpec {
    UpstreamSpec { id: UPSTREAM.into(), ..UpstreamSpec::new(format!("kmp://{addr}")) }
}

/// A push of both tracks with a backlog each.
pub(crate) fn push(
    shared: KmpShared,
    addr: std::net::SocketAddr,
    [video, audio]: [(KmpTrackSettings, Arc<dyn Backlog>); 2],
) -> (KmpPush, KmpPushReport) {
    let track = |name: &str, (settings, backlog): (_, Arc<dyn Backlog>)| KmpPushTrack {
        settings,
        track_id: Name::new(name).unwrap(),
        backlog: Some(KmpBacklog { frames: backlog, percent: None, outlives: true }),
    };
    let live_first = video.0.sender.live_within.is_some();
    let report = KmpPushReport::default();
    let push = KmpPush {
        shared,
        channel_id: Name::new(CHANNEL).unwrap(),
        late_channel_id: live_first.then(|| Name::new(LATE_CHANNEL).unwrap()),
        upstream: upstream(addr),
        video: track(TRACKS[0], video),
        audio: track(TRACKS[1], audio),
        report: report.clone(),
    };
    (push, report)
}

/// A shard's local part.
pub(crate) fn local() -> Rc<LocalShard> {
    LocalShard::new(0)
}
