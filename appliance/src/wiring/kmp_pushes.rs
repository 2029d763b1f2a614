//! Pushes by KMP to receivers that need no controller.

use super::Wiring;
use super::pushes::{client_tls, dial_options};
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::Retry;
use fieldgate_media::TrackKind;
use fieldgate_model::config::Push;
use fieldgate_net::{KmpBacklog, KmpDialer, KmpPush, KmpPushTrack, KmpShared, KmpTrackSettings};
use fieldgate_proto::kmp::sender::{Keep, Memory, Reconnect, Settings, UpstreamSpec};
use fieldgate_proto::kmp::{KmpUrl, MapSettings, Name};
use std::time::Duration;

/// The first pause before a connection is made anew.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// After the end of a stream: connections made anew that bring no new ack, before the rest counts as sent alone. Only
/// with a spool; some receivers never acknowledge the last frames.
const END_ATTEMPTS: u32 = 3;

/// What a track of its kind may take.
struct Sizes {
    /// Memory for what a receiver has not acknowledged.
    memory_bytes: u64,
    /// Memory where a spool keeps the rest.
    window_bytes: u64,
    /// Bytes that leave together while units are gathered.
    block_bytes: u64,
}

const VIDEO: Sizes = Sizes { memory_bytes: 16 << 20, window_bytes: 2 << 20, block_bytes: 64 << 10 };
const AUDIO: Sizes = Sizes { memory_bytes: 1 << 20, window_bytes: 128 << 10, block_bytes: 4 << 10 };

/// Whether a push goes by KMP.
pub(super) fn is_kmp(push: &Push) -> bool {
    let url = push.url.reveal();
    url.split_once("://").is_some_and(|(scheme, _)| scheme.to_ascii_lowercase().starts_with("kmp"))
}

impl Wiring {
    pub(super) async fn kmp_push(
        &self,
        key: ChildKey,
        name: String,
        push: Push,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let url = KmpUrl::parse(push.url.reveal()).map_err(|error| ChildError::of(Retry::Never, &error))?;
        let mountpoint = self.existing(&name)?;
        let shard = self.shard_of(&mountpoint)?;
        let named = |text: &str| {
            Name::new(text).ok_or_else(|| ChildError::new(Retry::Never, "a KMP name is longer than 32 bytes"))
        };
        let channel_id = named(push.channel_id.as_deref().unwrap_or(&name))?;
        let track_ids = push.track_ids.clone().unwrap_or_default();
        let dialer = KmpDialer {
            options: dial_options(push.write_timeout.get()),
            tls: client_tls(url.tls, push.verify, push.ca.as_deref())?,
            ..KmpDialer::default()
        };
        let report = self.board.kmp_report(&key);
        let spools = push.spool.as_ref();
        let track = async |kind, id: &str, sizes: Sizes| -> Result<KmpPushTrack, ChildError> {
            let keep = match spools {
                Some(_) => Keep::Backlog { window_bytes: sizes.window_bytes },
                None => Keep::Memory(Memory::of(sizes.memory_bytes)),
            };
            let plain = Settings::new();
            let sender = Settings {
                flush_timeout: push.gather.get(),
                block_bytes: sizes.block_bytes,
                timeout: push.write_timeout.get(),
                keep,
                reconnect: Reconnect::Backoff { first: FIRST_PAUSE, longest: push.backoff_cap.get() },
                end_patience: plain.end_patience.filter(|_| spools.is_none()),
                end_attempts: if spools.is_some() { END_ATTEMPTS } else { 0 },
                ..plain
            };
            let settings = KmpTrackSettings { kind, map: MapSettings::default(), sender };
            let percent = spools.map(|spool| spool.backlog_percent);
            let backlog = self.backlog(&name, &push, id).await?.map(|frames| KmpBacklog {
                frames,
                percent,
                outlives: true,
            });
            Ok(KmpPushTrack { settings, track_id: named(id)?, backlog })
        };
        let (video, audio) = (
            track(TrackKind::Video, &track_ids.video, VIDEO).await?,
            track(TrackKind::Audio, &track_ids.audio, AUDIO).await?,
        );
        let run = KmpPush {
            channel_id,
            late_channel_id: None,
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
        let ended = shard.run(move |local| run.run(local)).await;
        if child.cancel.is_cancelled() {
            self.board.forget(&key);
        }
        ended.map_err(|error| ChildError::of(Retry::Backoff, &error))
    }
}
