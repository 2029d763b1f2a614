//! Pushes to upstreams.

use super::Wiring;
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::{Mountpoint, Retry};
use fieldgate_model::config::Push;
use fieldgate_net::{ClientTls, DialOptions, RtmpEndpoint, RtmpPush};
use fieldgate_proto::rtmp::RtmpUrl;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Name, connection and TLS together: short, so that a link that comes back is used within seconds.
const DIAL_WITHIN: Duration = Duration::from_secs(4);

/// Deadlines and buffers for a connection to an upstream.
pub(super) fn dial_options(user_timeout: Duration) -> DialOptions {
    DialOptions { timeout: DIAL_WITHIN, user_timeout, ..DialOptions::default() }
}

/// TLS towards an upstream, if its address asks for it.
pub(super) fn client_tls(
    wanted: bool,
    verify: bool,
    ca: Option<&Path>,
) -> Result<Option<ClientTls>, ChildError> {
    match (wanted, verify, ca) {
        (false, ..) => Ok(None),
        (true, false, _) => Ok(Some(ClientTls::unverified())),
        (true, true, None) => Ok(Some(ClientTls::public())),
        (true, true, Some(ca)) => {
            ClientTls::with_ca_file(ca).map(Some).map_err(|error| ChildError::of(Retry::Backoff, &error))
        }
    }
}

impl Wiring {
    pub(super) async fn rtmp_push(
        &self,
        key: &ChildKey,
        name: &str,
        push: &Push,
        mountpoint: Arc<Mountpoint>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let url = RtmpUrl::parse(push.url.reveal()).map_err(|error| ChildError::of(Retry::Never, &error))?;
        let shard = self.shard_of(&mountpoint)?;
        let tls = client_tls(url.tls, push.verify, push.ca.as_deref())?;
        let run = RtmpPush {
            endpoint: RtmpEndpoint {
                url,
                tls,
                chunk_len: push.chunk_len.unwrap_or(Push::DEFAULT_CHUNK_LEN),
                dial: dial_options(push.write_timeout.get()),
            },
            gather: push.gather.get(),
            write_timeout: push.write_timeout.get(),
            max_lag: mountpoint.limits().bound.age,
            report: self.board.push_report(key),
            ledger: self.spool.ledger().handle(name, &push.effective_id(), ""),
            clock: self.context.clock.clone(),
            cancel: child.cancel.clone(),
            mountpoint,
        };
        child.ready.ready();
        match shard.run(move |local| run.run(local)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ChildError::of(error.retry(), &error)),
            Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
        }
    }
}
