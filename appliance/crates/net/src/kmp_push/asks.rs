//! What a track and whoever speaks with its controller tell each other.

use bytes::Bytes;
use fieldgate_proto::kmp::sender::{Reason, UpstreamKey, UpstreamSpec};
use fieldgate_proto::kmp::{MediaInfo, Name};
use tokio::sync::{mpsc, oneshot};

/// What a track wants to know from its controller.
#[derive(Clone, Debug)]
pub enum TrackAsk {
    /// Where it goes: [`TrackCommand::Published`] or [`TrackCommand::PublishFailed`].
    Publish {
        /// What describes it.
        media_info: MediaInfo,
    },
    /// Where an upstream goes on: [`TrackCommand::Republished`] or [`TrackCommand::RepublishFailed`].
    Republish {
        /// Which one.
        upstream: UpstreamKey,
        /// The controller's name for it.
        id: String,
        /// As the controller named it.
        channel_id: Name,
        /// As the controller named it.
        track_id: Name,
        /// What describes the track now.
        media_info: Option<MediaInfo>,
    },
    /// The track is over; comes last, if it ever asked. What is still asked for is of no interest any more.
    Unpublish {
        /// Why.
        reason: Reason,
    },
    /// The publisher's session shall end, and with it all its tracks.
    DropSession {
        /// Why.
        reason: Reason,
    },
}

/// What a track is told.
#[derive(Debug)]
pub enum TrackCommand {
    /// Where it goes; no upstreams: nowhere.
    Published {
        /// Its channel.
        channel_id: Name,
        /// Its name in the channel.
        track_id: Name,
        /// The receivers.
        upstreams: Vec<UpstreamSpec>,
    },
    /// The controller refused or did not answer.
    PublishFailed(Reason),
    /// Where an upstream goes on.
    Republished {
        /// Which one.
        upstream: UpstreamKey,
        /// Its address.
        url: String,
        /// Data of `cnct`; without any the old ones stay.
        connect_data: Option<Bytes>,
    },
    /// The controller refused or did not answer.
    RepublishFailed(UpstreamKey),
    /// One more receiver; the answer is its key, `None` without such a source.
    AddUpstream {
        /// The receiver.
        spec: UpstreamSpec,
        /// The one at whose position it begins; `None`: the one furthest behind.
        like: Option<UpstreamKey>,
        /// Where the answer goes.
        done: oneshot::Sender<Option<UpstreamKey>>,
    },
    /// One receiver less; the answer is whether there was one.
    RemoveUpstream {
        /// Which one.
        upstream: UpstreamKey,
        /// Where the answer goes.
        done: oneshot::Sender<bool>,
    },
    /// The stream has ended.
    End(Reason),
    /// The track failed: no end is sent.
    Fail(Reason),
}

/// The other end of a track that asks.
#[derive(Debug)]
pub struct KmpTrackHandle {
    /// What it asks; ends when the track is over.
    pub asks: mpsc::Receiver<TrackAsk>,
    /// What it is told. Dropping it ends the track like a lost publisher.
    pub commands: mpsc::Sender<TrackCommand>,
}
