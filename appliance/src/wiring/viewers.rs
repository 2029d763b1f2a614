//! The listeners that viewers watch from.

use super::Wiring;
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::Retry;
use fieldgate_net::{ServerCertificates, ViewerListener};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tracing::info;

/// How often certificate files are looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(10);

impl Wiring {
    pub(super) async fn viewers_listener(
        &self,
        key: ChildKey,
        address: SocketAddr,
        files: Option<(PathBuf, PathBuf)>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let certificates = files.map(|(cert, private)| ServerCertificates::load(cert, private)).transpose();
        let certificates = certificates.map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        let cannot = |source: io::Error| {
            let text = format!("cannot listen on {address}: {source}; is another program using the port?");
            ChildError::new(Retry::Backoff, text)
        };
        let tls = certificates.as_ref().map(ServerCertificates::acceptor);
        let listener = ViewerListener::bind(address, self.viewers.clone(), tls).map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        info!(address = %bound, tls = certificates.is_some(), "viewers' HTTP listens");
        self.board.set_addresses(key.clone(), vec![bound]);
        child.ready.ready();
        let reload = async {
            match certificates {
                Some(certificates) => certificates.watch(CERTIFICATE_POLL, child.cancel.clone()).await,
                None => std::future::pending().await,
            }
        };
        let serving = listener.run(child.cancel.clone());
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = reload => serving.await,
        };
        self.board.forget(&key);
        ended.map_err(cannot)
    }
}
