//! Pushes by KMP to receivers that need no controller.

use super::Wiring;
use super::pushes::{client_tls, dial_options};
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::Retry;
use fieldgate_media::TrackKind;
use fieldgate_model::config::Push;
use fieldgate_net::{KmpDialer, KmpPush, KmpPushTrack, KmpShared, KmpTrackSettings};
use fieldgate_proto::kmp::sender::{Keep, Memory, Reconnect, Settings, UpstreamSpec};
use fieldgate_proto::kmp::{KmpUrl, MapSettings, Name};
use std::sync::Arc;
use std::time::Duration;

/// The first pause before a connection is made anew.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Memory for what a receiver has not acknowledged, and bytes that leave together while units are gathered.
const VIDEO: (u64, u64) = (16 << 20, 64 << 10);
const AUDIO: (u64, u64) = (1 << 20, 4 << 10);

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
        let track = |kind, id: &str, (limit_bytes, block_bytes)| -> Result<KmpPushTrack, ChildError> {
            let sender = Settings {
                flush_timeout: push.gather.get(),
                block_bytes,
                timeout: push.write_timeout.get(),
                keep: Keep::Memory(Memory::of(limit_bytes)),
                reconnect: Reconnect::Backoff { first: FIRST_PAUSE, longest: push.backoff_cap.get() },
                ..Settings::new()
            };
            let settings = KmpTrackSettings { kind, map: MapSettings::default(), sender };
            Ok(KmpPushTrack { settings, track_id: named(id)?, backlog: None })
        };
        let run = KmpPush {
            channel_id,
            upstream: UpstreamSpec { id: push.effective_id(), ..UpstreamSpec::new(url.to_string()) },
            video: track(TrackKind::Video, &track_ids.video, VIDEO)?,
            audio: track(TrackKind::Audio, &track_ids.audio, AUDIO)?,
            report,
            shared: KmpShared {
                mountpoint,
                dialer,
                clock: self.context.clock.clone(),
                ledger: Arc::new(()),
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
