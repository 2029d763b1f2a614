//! The listeners that viewers watch from.

use super::Wiring;
use super::listening::{cannot_listen, certificates};
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_net::{ServerCertificates, ViewerListener};
use std::net::SocketAddr;
use std::path::PathBuf;

impl Wiring {
    pub(super) async fn viewers_listener(
        &self,
        key: ChildKey,
        address: SocketAddr,
        files: Option<(PathBuf, PathBuf)>,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let certificates = certificates(files)?;
        let cannot = cannot_listen(address);
        let tls = certificates.as_ref().map(ServerCertificates::acceptor);
        let listener = ViewerListener::bind(address, self.viewers.clone(), tls).map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        let serving = async { listener.run(child.cancel.clone()).await.map_err(cannot) };
        self.listening((key, "viewers' HTTP"), bound, certificates, &child, serving).await
    }
}
