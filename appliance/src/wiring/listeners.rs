//! RTMP and RTMPS listeners, and the API of KMP controllers' operators.

use super::Wiring;
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::Retry;
use fieldgate_net::{ConnectionLimits, HttpListener, HttpServerSettings, RtmpListener, ServerCertificates};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tracing::info;

/// How often certificate files are looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(10);
/// Connections to one listener of the KMP API, in all and from one address.
const API_CONNECTIONS: (usize, usize) = (64, 16);

impl Wiring {
    pub(super) async fn rtmp_listener(
        &self,
        key: ChildKey,
        address: SocketAddr,
        files: Option<(PathBuf, PathBuf)>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let certificates = match files {
            Some((cert, private)) => Some(
                ServerCertificates::load(cert, private)
                    .map_err(|error| ChildError::of(Retry::Backoff, &error))?,
            ),
            None => None,
        };
        let context = self.context.with_cancel(child.cancel.clone());
        let cannot = |source: io::Error| {
            let text = format!("cannot listen on {address}: {source}; is another program using the port?");
            ChildError::new(Retry::Backoff, text)
        };
        let tls = certificates.as_ref().map(ServerCertificates::acceptor);
        let listener = RtmpListener::bind(
            address,
            context,
            self.rtmp_settings.clone(),
            self.limits.clone(),
            self.rtmp_counters.clone(),
            tls,
        )
        .map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        info!(address = %bound, tls = certificates.is_some(), "RTMP listens");
        self.board.set_addresses(key.clone(), vec![bound]);
        child.ready.ready();
        let shard = self.context.shards.first().cloned().expect("there is at least one shard");
        let reload = async {
            match certificates {
                Some(certificates) => certificates.watch(CERTIFICATE_POLL, child.cancel.clone()).await,
                None => std::future::pending().await,
            }
        };
        let accepting = shard.run(move |local| listener.run(local));
        tokio::pin!(accepting);
        let ended = tokio::select! {
            ended = &mut accepting => ended,
            () = reload => accepting.await,
        };
        self.board.forget(&key);
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(cannot(error)),
            Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
        }
    }

    pub(super) async fn kmp_api(
        &self,
        key: ChildKey,
        address: SocketAddr,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let cannot = |source: io::Error| {
            let text = format!("cannot listen on {address}: {source}; is another program using the port?");
            ChildError::new(Retry::Backoff, text)
        };
        let control = self.kmp_control.clone();
        let limits = ConnectionLimits::new(API_CONNECTIONS.0, API_CONNECTIONS.1);
        let handler = Arc::new(move |request| {
            let control = control.clone();
            let answer = async move { control.answer(request).await };
            Box::pin(answer) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
        });
        let listener =
            HttpListener::bind(address, HttpServerSettings::default(), limits, handler).map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        info!(address = %bound, "KMP API listens");
        self.board.set_addresses(key.clone(), vec![bound]);
        child.ready.ready();
        let ended = listener.run(child.cancel).await;
        self.board.forget(&key);
        ended.map_err(cannot)
    }
}
