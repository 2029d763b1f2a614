//! What a session asks of its owner.

use super::{CallId, Callback, Reason, TrackKey};
use crate::kmp_control::reply::ReplyError;
use crate::kmp_control::upstream::Upstream;
use bytes::Bytes;
use std::time::Duration;

/// What a session wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Make this call; what becomes of it goes to [`super::Session::handle_reply`].
    Call {
        /// The call; a retry has the same.
        call: CallId,
        /// Whom.
        callback: Callback,
        /// What to send.
        body: Bytes,
    },
    /// Nobody waits for this call any more.
    Cancel {
        /// The call.
        call: CallId,
    },
    /// A try has failed; for the log.
    TryFailed {
        /// Whom.
        callback: Callback,
        /// For which track; none for `connect`.
        track: Option<TrackKey>,
        /// Why.
        error: ReplyError,
        /// When it is tried again; never, if none.
        retry_in: Option<Duration>,
    },
    /// The peer may connect.
    Admit,
    /// It may not.
    Deny {
        /// For the peer; may be empty.
        text: String,
    },
    /// A track goes to these upstreams. If there are none, its frames are to be thrown away.
    Published {
        /// The track.
        track: TrackKey,
        /// The channel's name in KMP.
        channel_id: String,
        /// The track's name in KMP.
        track_id: String,
        /// Where to.
        upstreams: Vec<Upstream>,
    },
    /// A lost upstream is elsewhere now. Of it only `url` and `connect_data` count; without `connect_data` the old stays.
    Republished {
        /// The track.
        track: TrackKey,
        /// As given to [`super::Session::republish`].
        upstream: u32,
        /// Where it is now.
        place: Upstream,
    },
    /// The controller has no place for a lost upstream.
    RepublishFailed {
        /// The track.
        track: TrackKey,
        /// As given to [`super::Session::republish`].
        upstream: u32,
    },
    /// The track has ended: what is queued is to be sent, with `eost` behind it unless the reason is want of memory.
    EndTrack {
        /// The track.
        track: TrackKey,
        /// The first cause.
        reason: Reason,
    },
    /// The controller knows that the track has ended, or does not want to know. It is forgotten here.
    TrackDone {
        /// The track.
        track: TrackKey,
    },
    /// The RTMP connection is to be dropped. Comes once.
    DropSession {
        /// The first cause.
        reason: Reason,
    },
}
