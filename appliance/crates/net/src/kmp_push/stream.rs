//! One stream of a track: its sender and what is counted of it.

use super::lane::Lane;
use super::report::{self, KmpSentTrack};
use super::track::KmpTrackSettings;
use fieldgate_proto::kmp::sender::{Owed, Sender, State, UpstreamKey};
use fieldgate_proto::kmp::{FrameHead, Name, TrackMapper};
use std::collections::BTreeMap;

/// One stream of the track.
pub(super) struct Stream {
    pub(super) lane: Lane,
    pub(super) mapper: TrackMapper,
    pub(super) names: BTreeMap<UpstreamKey, String>,
    /// It may ask for its upstreams only when it is the first.
    pub(super) asks: bool,
    /// It ends as soon as it has them: nothing comes after what was kept.
    pub(super) ends: bool,
    /// All that it has gathered so far has ended, while it waited for its turn.
    pub(super) has_ended: bool,
    pub(super) frames: u64,
    pub(super) keyframes: u64,
    pub(super) newest: Option<FrameHead>,
    pub(super) ids: (Name, Name),
}

impl Stream {
    pub(super) fn new(sender: Sender, settings: &KmpTrackSettings) -> Self {
        Stream {
            lane: Lane::new(sender),
            mapper: TrackMapper::new(settings.kind, settings.map),
            names: BTreeMap::new(),
            asks: false,
            ends: false,
            has_ended: false,
            frames: 0,
            keyframes: 0,
            newest: None,
            ids: (Name::default(), Name::default()),
        }
    }

    /// What an earlier stream owes; it ends with that.
    pub(super) fn owing(owed: Owed, settings: &KmpTrackSettings) -> Self {
        Stream { ends: true, ..Stream::new(Sender::owing(settings.sender, owed), settings) }
    }

    pub(super) fn state(&self) -> State {
        self.lane.sender.state()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state() == State::Over
    }

    pub(super) fn view(&self) -> KmpSentTrack {
        let sender = &self.lane.sender;
        KmpSentTrack {
            state: sender.state(),
            channel_id: self.ids.0,
            track_id: self.ids.1,
            free_bytes: sender.free_bytes(),
            held_bytes: sender.held_bytes(),
            frames: self.frames,
            keyframes: self.keyframes,
            queued_bytes: sender.appended_bytes(),
            last_dts: self.newest.map_or(0, |head| head.dts),
            last_created: self.newest.map_or(0, |head| head.created),
            media_info: self.mapper.media_info().cloned(),
            owed_frames: 0,
            upstreams: report::upstreams(&self.lane),
        }
    }
}
