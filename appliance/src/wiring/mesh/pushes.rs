//! Sends a stream to another node, again and again until told to stop.

use crate::wiring::pushes::dial_options;
use fieldgate_compat::node::{Key, PushId};
use fieldgate_hub::{Clock, LedgerHandle, Mountpoint, Shard};
use fieldgate_model::config::Push;
use fieldgate_net::{ClientTls, PushReport, RtmpEndpoint, RtmpPush};
use fieldgate_proto::rtmp::RtmpUrl;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Waits between two tries.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// After so long a run the waits begin anew.
const GOOD_RUN: Duration = Duration::from_secs(30);
/// A node that takes nothing for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// One push.
pub(super) struct HopPush {
    pub(super) id: PushId,
    pub(super) key: Key,
    pub(super) mountpoint: Arc<Mountpoint>,
    pub(super) shard: Shard,
    pub(super) clock: Clock,
    /// For `rtmps://` nodes.
    pub(super) tls: Option<ClientTls>,
    pub(super) cancel: CancellationToken,
}

impl HopPush {
    /// Until it is cancelled or the stream is over.
    pub(super) async fn run(self) {
        let PushId { stream_id, node_id, node_url } = &self.id;
        let address = format!("{}/{stream_id}?key={}", node_url.trim_end_matches('/'), self.key.reveal());
        let url = match RtmpUrl::parse(&address) {
            Ok(url) => url,
            Err(error) => {
                return warn!(stream = stream_id, node = node_id, url = node_url, %error, "node cannot be pushed to");
            }
        };
        info!(stream = stream_id, node = node_id, url = node_url, "pushing to a node");
        let report = Arc::<PushReport>::default();
        let removed = self.mountpoint.closed();
        let mut wait = FIRST_WAIT;
        loop {
            let push = RtmpPush {
                endpoint: RtmpEndpoint {
                    tls: self.tls.clone().filter(|_| url.tls),
                    url: url.clone(),
                    chunk_len: Push::DEFAULT_CHUNK_LEN,
                    dial: dial_options(WRITE_TIMEOUT),
                },
                mountpoint: self.mountpoint.clone(),
                gather: Duration::ZERO,
                write_timeout: WRITE_TIMEOUT,
                max_lag: self.mountpoint.limits().bound.age,
                report: report.clone(),
                ledger: LedgerHandle::none(),
                clock: self.clock.clone(),
                cancel: self.cancel.clone(),
            };
            let began = Instant::now();
            let ended = self.shard.run(move |local| push.run(local)).await;
            if self.cancel.is_cancelled() || removed.is_cancelled() {
                break;
            }
            if began.elapsed() > GOOD_RUN {
                wait = FIRST_WAIT;
            }
            match ended {
                Ok(Ok(())) => break,
                Ok(Err(error)) => {
                    let error = crate::steward::chain(&error);
                    warn!(stream = stream_id, node = node_id, url = node_url, retry_in = ?wait, error, "push to a node failed");
                }
                Err(error) => {
                    warn!(stream = stream_id, node = node_id, url = node_url, retry_in = ?wait, %error, "push to a node failed");
                }
            }
            tokio::select! {
                () = self.cancel.cancelled() => break,
                () = removed.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            wait = wait.saturating_mul(2).min(LONGEST_WAIT);
        }
        info!(stream = stream_id, node = node_id, url = node_url, "no longer pushing to a node");
    }
}
