//! What follows the config that runs without being started anew.

use crate::logging::Tail;
use crate::steward::View;
use crate::supervisor::SupervisorHandle;
use crate::wiring::Wiring;
use fieldgate_model::Config;
use fieldgate_net::RtmpServerSettings;
use fieldgate_proto::rtmp::Limits;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What children read as they go follows the config that runs.
pub(super) async fn follow_settings(
    supervisor: SupervisorHandle,
    wiring: Wiring,
    feed: watch::Sender<Arc<RtmpServerSettings>>,
    cancel: CancellationToken,
) {
    let mut config = supervisor.config();
    loop {
        let now = config.borrow_and_update().clone();
        feed.send_replace(Arc::new(rtmp_settings_of(&now)));
        let (total, per_address) = connection_limits_of(&now);
        wiring.limits.set(total, per_address);
        wiring.admission.enforce();
        wiring.kmp_control.enforce();
        wiring.kmp_in.follow(&now);
        wiring.viewers.follow(now);
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = config.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Has the secrets of every config that runs taken out of the log's tail.
pub(super) async fn mask_log(log: Tail, mut view: watch::Receiver<View>, cancel: CancellationToken) {
    loop {
        let running = view.borrow_and_update().running.clone();
        log.set_secrets(running.secret_texts());
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = view.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

pub(super) fn rtmp_settings_of(config: &Config) -> RtmpServerSettings {
    RtmpServerSettings {
        handshake_timeout: config.rtmp.handshake_timeout.get(),
        idle_timeout: config.rtmp.idle_timeout.get(),
        write_timeout: config.rtmp.write_timeout.get(),
        limits: Limits { media_bytes: config.rtmp.max_message_bytes, ..Limits::default() },
        ..RtmpServerSettings::default()
    }
}

pub(super) fn connection_limits_of(config: &Config) -> (usize, usize) {
    let number = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    (number(config.rtmp.max_connections), number(config.rtmp.max_connections_per_address))
}
