//! Backlogs on disk for the upstreams that ask for one.

use super::Wiring;
use crate::steward::View;
use crate::supervisor::ChildError;
use fieldgate_hub::backlog::Budget;
use fieldgate_hub::ledger::{Fate, Stretch, Why};
use fieldgate_hub::{Backlog, Retry};
use fieldgate_model::Config;
use fieldgate_model::config::{Push, Spool as SpoolConfig};
use fieldgate_model::status::ConfigPhase;
use fieldgate_spool::{Settings, Spool, SpoolKey};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

impl Wiring {
    /// The backlog of one track of a push, if the config asks for one on disk. Has what it held before the last stop.
    pub(super) async fn backlog(
        &self,
        mountpoint: &str,
        push: &Push,
        track: &str,
    ) -> Result<Option<Arc<dyn Backlog>>, ChildError> {
        let Some(config) = &push.spool else { return Ok(None) };
        let key = SpoolKey {
            mountpoint: mountpoint.to_owned(),
            upstream: push.effective_id(),
            track: track.to_owned(),
        };
        let opened = self.spool.open(key, settings(config)).await;
        // A push that is being replaced may hold it for a moment yet.
        let backlog = opened.map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        self.forget_unmasked(mountpoint, push, track, &backlog);
        Ok(Some(Arc::new(backlog)))
    }
}

impl Wiring {
    /// Gives up all that a backlog holds if some of it was captured before the last mask was added: also after a restart,
    /// or when the push was off meanwhile.
    fn forget_unmasked(&self, mountpoint: &str, push: &Push, track: &str, backlog: &dyn Backlog) {
        let (held, tightened) = (backlog.held(), self.masks.tightened(mountpoint));
        if held.frames == 0 || tightened.is_none_or(|tightened| held.oldest_unix_micros > tightened) {
            return;
        }
        backlog.release(held.ids.end.max(held.next_id));
        let upstream = push.effective_id();
        let stretch = Stretch {
            from_unix_micros: held.oldest_unix_micros,
            to_unix_micros: held.newest_unix_micros,
            frames: held.frames,
            bytes: held.bytes,
        };
        let ledger = self.spool.ledger().handle(mountpoint, &upstream, track);
        ledger.settle(Fate::Unconfirmed(Why::Removed), stretch);
        warn!(mountpoint, push = upstream, track, held.frames, "kept from before a mask was set: dropped");
    }
}

fn settings(config: &SpoolConfig) -> Settings {
    Settings {
        budget: Budget { bytes: config.bytes, age: config.age.get() },
        batch_interval: config.sync.get(),
        ..Settings::default()
    }
}

/// Gives up the spools that no push has any more, at the start and with every change that is confirmed: one that may be
/// undone costs nobody anything. Ends with `cancel`.
pub async fn keep_configured(spool: Arc<Spool>, mut view: watch::Receiver<View>, cancel: CancellationToken) {
    let mut kept: Option<u64> = None;
    loop {
        let now = view.borrow_and_update().clone();
        let revision = now.confirmed.meta.revision;
        // Revision 0 was never stored: a state folder that has lost its config shall not lose its media too.
        if revision > 0 && now.status.phase == ConfigPhase::Confirmed && kept != Some(revision) {
            kept = Some(revision);
            let confirmed = now.confirmed;
            spool.keep_only(move |key| is_configured(&confirmed.config, key));
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = view.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// Whether a push has this spool; streams under a template have those of the template.
fn is_configured(config: &Config, key: &SpoolKey) -> bool {
    let Some((_, mountpoint)) = config.mountpoint_for(&key.mountpoint) else { return false };
    mountpoint.push.iter().any(|push| {
        let tracks = push.track_ids.clone().unwrap_or_default();
        push.spool.is_some()
            && push.effective_id() == key.upstream
            && [tracks.video, tracks.audio].contains(&key.track)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_is_configured_while_its_push_has_it() {
        let config = Config::parse(
            r#"{"mountpoints": {
                "yard": {"source": {"kind": "publish"}, "push": [
                    {"url": "kmp://203.0.113.1:6543", "id": "main", "spool": {}},
                    {"url": "kmp://203.0.113.2:6543", "id": "off", "enabled": false, "spool": {},
                     "track_ids": {"video": "cam", "audio": "mic"}},
                    {"url": "kmp://203.0.113.3:6543", "id": "plain"}
                ]},
                "s*": {"source": {"kind": "publish"}, "push": [{"url": "kmp://203.0.113.4:6543", "id": "up", "spool": {}}]}
            }}"#,
        )
        .unwrap();
        let has = |mountpoint: &str, upstream: &str, track: &str| {
            let key =
                SpoolKey { mountpoint: mountpoint.into(), upstream: upstream.into(), track: track.into() };
            is_configured(&config, &key)
        };
        assert!(has("yard", "main", "v1") && has("yard", "main", "a1"));
        assert!(has("yard", "off", "cam") && has("yard", "off", "mic"), "it may be started again");
        assert!(has("s7", "up", "v1") && has("s12", "up", "a1"));
        for (mountpoint, upstream, track) in [
            ("yard", "plain", "v1"),
            ("yard", "gone", "v1"),
            ("yard", "main", "v2"),
            ("yard", "off", "v1"),
            ("barn", "main", "v1"),
            ("s7", "main", "v1"),
        ] {
            assert!(!has(mountpoint, upstream, track), "{mountpoint}/{upstream}/{track}");
        }
    }
}
