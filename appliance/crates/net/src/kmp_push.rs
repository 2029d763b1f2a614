//! Sends a mountpoint's stream by KMP: one connection per track and receiver.
//!
//! A track is a [`KmpTrack`], the same for pushes from the config ([`KmpPush`]) and for those whose receivers a
//! controller names ([`KmpTrack::asked`]). Nothing of it waits: frames are in the sender's queue or in a backlog, and a
//! receiver that is away is tried again by the track itself.

mod asks;
mod books;
mod duties;
mod lane;
mod marks;
mod reader;
mod report;
mod stream;
mod track;

pub use asks::{KmpTrackHandle, TrackAsk, TrackCommand};
pub use lane::{KmpDialer, KmpLinkError};
pub use report::{KmpSentTrack, KmpSentUpstream, KmpTotals, KmpTrackReport};
pub use track::{KmpBacklog, KmpShared, KmpTrack, KmpTrackSettings};

use crate::rtmp_push::PushPhase;
use fieldgate_hub::LocalShard;
use fieldgate_proto::kmp::Name;
use fieldgate_proto::kmp::sender::{Phase, UpstreamSpec};
use std::rc::Rc;

/// State and totals of a push from the config, over all its runs. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct KmpPushReport {
    /// The pictures.
    pub video: KmpTrackReport,
    /// The sound.
    pub audio: KmpTrackReport,
}

impl KmpPushReport {
    /// What it does now: the less far of its tracks.
    pub fn phase(&self) -> PushPhase {
        let views = [self.video.view(), self.audio.view()];
        let mut upstreams = views.iter().flatten().flat_map(|view| &view.upstreams).peekable();
        if upstreams.peek().is_none() {
            return PushPhase::Waiting;
        }
        match upstreams.all(|upstream| upstream.phase == Phase::Connected) {
            true => PushPhase::Delivering,
            false => PushPhase::Connecting,
        }
    }

    /// Totals of both tracks.
    pub fn totals(&self) -> KmpTotals {
        let (video, audio) = (self.video.totals(), self.audio.totals());
        KmpTotals {
            sent_bytes: video.sent_bytes + audio.sent_bytes,
            connections: video.connections + audio.connections,
            frames: video.frames + audio.frames,
            acked_frames: video.acked_frames + audio.acked_frames,
            sent_frames: video.sent_frames + audio.sent_frames,
            lost_frames: video.lost_frames + audio.lost_frames,
            left_out_units: video.left_out_units + audio.left_out_units,
        }
    }

    /// Frames that wait to be acknowledged.
    pub fn unacked_frames(&self) -> u64 {
        self.video.unacked_frames() + self.audio.unacked_frames()
    }

    /// Why there is no connection now, if so.
    pub fn error(&self) -> Option<String> {
        self.video.error().or_else(|| self.audio.error())
    }
}

/// One track of a push from the config.
pub struct KmpPushTrack {
    /// How it is sent.
    pub settings: KmpTrackSettings,
    /// Its name in the channel.
    pub track_id: Name,
    /// Keeps its frames; `None`: they are in memory alone.
    pub backlog: Option<KmpBacklog>,
}

/// A push from the config: one receiver for the first video and the first audio track.
pub struct KmpPush {
    /// Mountpoint, connections, ledger.
    pub shared: KmpShared,
    /// The channel that the receiver knows.
    pub channel_id: Name,
    /// A second one for what is not live: then what is live goes first.
    pub late_channel_id: Option<Name>,
    /// The receiver; its `id` is the push's name in the ledger.
    pub upstream: UpstreamSpec,
    /// The pictures.
    pub video: KmpPushTrack,
    /// The sound.
    pub audio: KmpPushTrack,
    /// Where state and totals go.
    pub report: KmpPushReport,
}

impl KmpPush {
    /// How many subscribers of its ring a push is.
    pub const SUBSCRIBERS: u64 = 2;

    /// Pushes whenever there is a stream, until cancelled or the mountpoint is removed. Runs on the mountpoint's shard.
    pub async fn run(self, local: Rc<LocalShard>) {
        let track = |track: KmpPushTrack, report: &KmpTrackReport| {
            let channels = (self.channel_id, self.late_channel_id);
            let (shared, upstream) = (self.shared.clone(), self.upstream.clone());
            let KmpPushTrack { settings, track_id, backlog } = track;
            KmpTrack::fixed(shared, settings, channels, track_id, upstream, backlog)
                .reporting_to(report.clone())
        };
        let video = track(self.video, &self.report.video);
        let audio = track(self.audio, &self.report.audio);
        futures_util::future::join(video.run(local.clone()), audio.run(local)).await;
    }
}
