//! RTMP and RTMPS listeners, and the API of KMP controllers' operators.

use super::Wiring;
use super::listening::{cannot_listen, certificates};
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_net::{ConnectionLimits, HttpListener, HttpServerSettings, RtmpListener, ServerCertificates};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
        let certificates = certificates(files)?;
        let cannot = cannot_listen(address);
        let listener = RtmpListener::bind(
            address,
            self.context.with_cancel(child.cancel.clone()),
            self.rtmp_settings.clone(),
            self.limits.clone(),
            self.rtmp_counters.clone(),
            certificates.as_ref().map(ServerCertificates::acceptor),
        )
        .map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        self.listening_on_shard((key, "RTMP"), bound, certificates, &child, |local| listener.run(local)).await
    }

    pub(super) async fn kmp_api(
        &self,
        key: ChildKey,
        address: SocketAddr,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let cannot = cannot_listen(address);
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
        let serving = async { listener.run(child.cancel.clone()).await.map_err(cannot) };
        self.listening((key, "KMP API"), bound, None, &child, serving).await
    }
}
