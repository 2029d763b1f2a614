//! KMP taken in: its listeners, and the sources of the mountpoints that it feeds.

use super::Wiring;
use super::listening::{cannot_listen, certificates};
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::Retry;
use fieldgate_media::TrackKind;
use fieldgate_model::Config;
use fieldgate_model::config::KmpChannel;
use fieldgate_model::status::KmpTrackStatus;
use fieldgate_net::{
    ConnectionLimits, KmpChannelSettings, KmpDirectory, KmpListenCounters, KmpListener, KmpReceiverSettings,
    KmpSource, KmpSourceTrack, ServerCertificates,
};
use fieldgate_proto::kmp::Name;
use fieldgate_proto::kmp::receiver::ReceiverSettings;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// What KMP listeners and sources share. Cheap to clone.
#[derive(Clone)]
pub struct KmpIn {
    /// Where listeners find sources.
    pub directory: KmpDirectory,
    /// Connections over all KMP listeners.
    pub limits: ConnectionLimits,
    /// Totals over all KMP listeners.
    pub counters: Arc<KmpListenCounters>,
    settings: watch::Sender<Arc<KmpReceiverSettings>>,
}

impl KmpIn {
    /// As the config says now.
    pub fn new(config: &Config) -> KmpIn {
        let (total, per_address) = limits_of(config);
        KmpIn {
            directory: KmpDirectory::default(),
            limits: ConnectionLimits::new(total, per_address),
            counters: Arc::default(),
            settings: watch::Sender::new(Arc::new(settings_of(config))),
        }
    }

    /// Goes by a changed config; whoever may not send any more is sent away.
    pub fn follow(&self, config: &Config) {
        let (total, per_address) = limits_of(config);
        self.limits.set(total, per_address);
        let new = settings_of(config);
        self.settings.send_if_modified(|settings| {
            let differs = **settings != new;
            if differs {
                *settings = Arc::new(new);
            }
            differs
        });
    }

    /// What is known of the tracks that feed a mountpoint, by kind; those that never came are left out.
    pub fn tracks(&self, mountpoint: &str) -> BTreeMap<String, KmpTrackStatus> {
        let [video, audio] = self.directory.tracks(mountpoint);
        let came = |(_, track): &(_, KmpSourceTrack)| track.counters.connections > 0;
        let both = [(TrackKind::Video, video), (TrackKind::Audio, audio)].into_iter().filter(came);
        both.map(|(kind, track)| {
            let name = if kind == TrackKind::Video { "video" } else { "audio" };
            (name.to_owned(), status_of(&track))
        })
        .collect()
    }
}

fn status_of(track: &KmpSourceTrack) -> KmpTrackStatus {
    let counters = track.counters;
    KmpTrackStatus {
        peer: track.peer.map(|peer| peer.to_string()),
        next_frame_id: track.next_id,
        acked_frame_id: track.acked_id,
        connections: counters.connections,
        resumed: counters.resumed,
        received_frames: counters.received_frames,
        received_keyframes: counters.received_keyframes,
        received_bytes: counters.received_bytes,
        duplicate_frames: counters.duplicate,
        no_media_info_frames: counters.no_media_info,
        empty_frames: counters.empty,
        no_key_frames: counters.no_key,
        late_frames: track.late,
    }
}

fn limits_of(config: &Config) -> (usize, usize) {
    let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    (number(config.kmp.max_connections), number(config.kmp.max_connections_per_address))
}

fn settings_of(config: &Config) -> KmpReceiverSettings {
    let kmp = &config.kmp;
    let mut receiver = ReceiverSettings::default();
    receiver.limits.frame_len = kmp.max_frame_bytes;
    receiver.max_repeated_frames = u64::from(kmp.max_repeated_frames);
    receiver.strict = kmp.strict;
    KmpReceiverSettings {
        handshake_timeout: kmp.handshake_timeout.get(),
        read_timeout: kmp.read_timeout.get(),
        join_wait: kmp.join_wait.get(),
        catch_up: kmp.catch_up,
        receiver,
        allow: kmp.allow.clone(),
        channels: kmp.channels.iter().filter_map(|(id, channel)| channel_of(id, channel)).collect(),
    }
}

/// `None` only for ids that a valid config does not have.
fn channel_of(id: &str, channel: &KmpChannel) -> Option<(Name, KmpChannelSettings)> {
    let settings = KmpChannelSettings {
        mountpoint: channel.mountpoint.clone(),
        video: Name::new(&channel.tracks.video)?,
        audio: Name::new(&channel.tracks.audio)?,
        allow: channel.allow.clone(),
    };
    Some((Name::new(id)?, settings))
}

impl Wiring {
    pub(super) async fn kmp_listener(
        &self,
        key: ChildKey,
        address: SocketAddr,
        files: Option<(PathBuf, PathBuf)>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let certificates = certificates(files)?;
        let cannot = cannot_listen(address);
        let listener = KmpListener::bind(
            address,
            self.context.with_cancel(child.cancel.clone()),
            self.kmp_in.directory.clone(),
            self.kmp_in.settings.subscribe(),
            self.kmp_in.limits.clone(),
            self.kmp_in.counters.clone(),
            certificates.as_ref().map(ServerCertificates::acceptor),
        )
        .map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        self.listening_on_shard((key, "KMP"), bound, certificates, &child, |local| listener.run(local)).await
    }

    pub(super) async fn kmp_source(&self, name: String, child: ChildContext) -> Result<(), ChildError> {
        let mountpoint = self.existing(&name)?;
        let shard = self.shard_of(&mountpoint)?;
        let source = KmpSource {
            mountpoint,
            place: self.kmp_in.directory.open(&name),
            settings: self.kmp_in.settings.subscribe(),
            counters: self.kmp_in.counters.clone(),
            clock: self.context.clock.clone(),
            cancel: child.cancel.clone(),
        };
        child.ready.ready();
        match shard.run(move |local| source.run(local)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ChildError::of(error.retry(), &error)),
            Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
        }
    }
}
