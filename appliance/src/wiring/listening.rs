//! What all listening children have in common.

use super::Wiring;
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::{LocalShard, Retry};
use fieldgate_net::ServerCertificates;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tracing::info;

/// How often certificate files are looked at.
const CERTIFICATE_POLL: Duration = Duration::from_secs(10);

/// Why an address cannot be had, and what to do.
pub(super) fn cannot_listen(address: SocketAddr) -> impl Fn(io::Error) -> ChildError + Copy {
    move |source| {
        let text = format!("cannot listen on {address}: {source}; is another program using the port?");
        ChildError::new(Retry::Backoff, text)
    }
}

/// The certificate and its key, where a listener has TLS.
pub(super) fn certificates(
    files: Option<(PathBuf, PathBuf)>,
) -> Result<Option<ServerCertificates>, ChildError> {
    let loaded = files.map(|(cert, private)| ServerCertificates::load(cert, private)).transpose();
    loaded.map_err(|error| ChildError::of(Retry::Backoff, &error))
}

impl Wiring {
    /// Shows that `what` listens at `bound`, and lets it serve until it ends; changed certificates are loaded meanwhile.
    pub(super) async fn listening(
        &self,
        (key, what): (ChildKey, &str),
        bound: SocketAddr,
        certificates: Option<ServerCertificates>,
        child: &ChildContext,
        serving: impl Future<Output = Result<(), ChildError>>,
    ) -> Result<(), ChildError> {
        info!(address = %bound, tls = certificates.is_some(), "{what} listens");
        self.board.set_addresses(key.clone(), vec![bound]);
        child.ready.ready();
        let reload = async {
            match certificates {
                Some(certificates) => certificates.watch(CERTIFICATE_POLL, child.cancel.clone()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => ended,
            () = reload => serving.await,
        };
        self.board.forget(&key);
        ended
    }

    /// As [`Wiring::listening`], for accept loops that run on the first media thread.
    pub(super) async fn listening_on_shard<F>(
        &self,
        (key, what): (ChildKey, &str),
        bound: SocketAddr,
        certificates: Option<ServerCertificates>,
        child: &ChildContext,
        run: impl FnOnce(Rc<LocalShard>) -> F + Send + 'static,
    ) -> Result<(), ChildError>
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let shard = self.context.shards.first().cloned().expect("there is at least one shard");
        let serving = async {
            match shard.run(run).await {
                Ok(ended) => ended.map_err(cannot_listen(bound)),
                Err(error) => Err(ChildError::of(Retry::Backoff, &error)),
            }
        };
        self.listening((key, what), bound, certificates, child, serving).await
    }
}
