//! Pushes by KMP to receivers that need no controller.

use super::Wiring;
use super::pushes::{client_tls, dial_options};
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::backlog::Budget;
use fieldgate_hub::{Backlog, Mountpoint, RamBacklog, Retry};
use fieldgate_media::TrackKind;
use fieldgate_model::config::{Push, PushOrder};
use fieldgate_net::{KmpBacklog, KmpDialer, KmpPush, KmpPushTrack, KmpShared, KmpTrackSettings};
use fieldgate_proto::kmp::sender::{Keep, Reconnect, Settings, UpstreamSpec};
use fieldgate_proto::kmp::{KmpUrl, MapSettings, Name};
use std::sync::Arc;
use std::time::Duration;

/// The first pause before a connection is made anew.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// After the end of a stream: connections made anew that bring no new ack, before the rest counts as sent alone. Some
/// receivers never acknowledge the last frames.
const END_ATTEMPTS: u32 = 3;
/// With what is live first: after a longer outage it goes on at the newest keyframe; a shorter one is caught up with in
/// order.
const LIVE_WITHIN: Duration = Duration::from_secs(2);
/// What is kept in memory is bounded by bytes alone.
const NO_AGE: Duration = Duration::MAX;

/// What a track of its kind may take beside what its backlog holds.
struct Sizes {
    /// Packets between backlog and connection. With what is live first also the GOP that is being sent, so that what is left
    /// behind can begin with its keyframe.
    window_bytes: u64,
    /// Bytes that leave together while units are gathered.
    block_bytes: u64,
}

const VIDEO: Sizes = Sizes { window_bytes: 2 << 20, block_bytes: 64 << 10 };
const AUDIO: Sizes = Sizes { window_bytes: 128 << 10, block_bytes: 4 << 10 };
/// A GOP of several seconds.
const LIVE_VIDEO: Sizes = Sizes { window_bytes: 8 << 20, ..VIDEO };

/// Whether a push goes by KMP.
pub(super) fn is_kmp(push: &Push) -> bool {
    let url = push.url.reveal();
    url.split_once("://").is_some_and(|(scheme, _)| scheme.to_ascii_lowercase().starts_with("kmp"))
}

impl Wiring {
    pub(super) async fn kmp_push(
        &self,
        key: &ChildKey,
        name: &str,
        push: &Push,
        mountpoint: Arc<Mountpoint>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let holding = self.masks.holding(name);
        let url = KmpUrl::parse(push.url.reveal()).map_err(|error| ChildError::of(Retry::Never, &error))?;
        let shard = self.shard_of(&mountpoint)?;
        let named = |text: &str| {
            Name::new(text).ok_or_else(|| ChildError::new(Retry::Never, "a KMP name is longer than 32 bytes"))
        };
        let channel_id = named(push.channel_id.as_deref().unwrap_or(name))?;
        let track_ids = push.track_ids.clone().unwrap_or_default();
        let dialer = KmpDialer {
            options: dial_options(push.write_timeout.get()),
            tls: client_tls(url.tls, push.verify, push.ca.as_deref())?,
            ..KmpDialer::default()
        };
        let report = self.board.kmp_report(key);
        let memory = push.memory.clone().unwrap_or_default();
        let live_first = push.order == PushOrder::LiveFirst;
        let late_channel_id = match push.backlog_channel_id.as_deref().filter(|_| live_first) {
            Some(id) => Some(named(id)?),
            None => None,
        };
        let track = async |kind, id: &str, sizes: Sizes, bytes: u64| -> Result<KmpPushTrack, ChildError> {
            let plain = Settings::new();
            let sender = Settings {
                flush_timeout: push.gather.get(),
                block_bytes: sizes.block_bytes,
                timeout: push.write_timeout.get(),
                keep: Keep::Backlog { window_bytes: sizes.window_bytes },
                live_within: live_first.then_some(LIVE_WITHIN),
                reconnect: Reconnect::Backoff { first: FIRST_PAUSE, longest: push.backoff_cap.get() },
                end_patience: None,
                end_attempts: END_ATTEMPTS,
                ..plain
            };
            let settings = KmpTrackSettings { kind, map: MapSettings::default(), sender };
            let spooled = self.backlog(name, push, id).await?;
            let backlog = match (spooled, &push.spool) {
                (Some(frames), Some(spool)) => {
                    KmpBacklog { frames, percent: Some(spool.backlog_percent), outlives: true }
                }
                _ => {
                    let frames: Arc<dyn Backlog> = Arc::new(RamBacklog::new(Budget { bytes, age: NO_AGE }));
                    KmpBacklog { frames, percent: Some(memory.backlog_percent), outlives: false }
                }
            };
            let backlog = Some(backlog);
            Ok(KmpPushTrack { settings, track_id: named(id)?, backlog })
        };
        let sizes = if live_first { LIVE_VIDEO } else { VIDEO };
        let (video, audio) = (
            track(TrackKind::Video, &track_ids.video, sizes, memory.video_bytes).await?,
            track(TrackKind::Audio, &track_ids.audio, AUDIO, memory.audio_bytes).await?,
        );
        let run = KmpPush {
            channel_id,
            late_channel_id,
            upstream: UpstreamSpec { id: push.effective_id(), ..UpstreamSpec::new(url.to_string()) },
            video,
            audio,
            report,
            shared: KmpShared {
                mountpoint,
                dialer,
                clock: self.context.clock.clone(),
                ledger: self.spool.ledger().clone(),
                cancel: child.cancel.clone(),
            },
        };
        child.ready.ready();
        let ended = shard.run(move |local| async move {
            let _holding = holding;
            run.run(local).await;
        });
        let ended = ended.await;
        ended.map_err(|error| ChildError::of(Retry::Backoff, &error))
    }
}
