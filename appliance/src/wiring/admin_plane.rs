//! The admin plane: on loopback without TLS, on the network with it.

use super::Wiring;
use crate::admin::{Admin, Secure, Settings};
use crate::certificate::machine_names;
use crate::supervisor::{ChildContext, ChildError, ChildKey};
use fieldgate_hub::Retry;
use fieldgate_model::config::{self, AdminTls};
use fieldgate_net::{CertificateState, ServerCertificates};
use std::path::PathBuf;
use tokio::sync::watch;
use tracing::{info, warn};

impl Wiring {
    pub(super) async fn admin(
        &self,
        settings: config::Admin,
        context: ChildContext,
    ) -> Result<(), ChildError> {
        let api = self.admin_api.get().cloned().expect("the admin API is set before the first child starts");
        let mut host_names = machine_names();
        let mut certificates = None;
        let mut secure = None;
        let mut reload_interval = None;
        if let Some(tls) = settings.tls {
            host_names.extend(tls.names.iter().cloned());
            let loaded = self.certificates_of(&tls).await?;
            secure = Some(Secure { listen: tls.listen, acceptor: loaded.acceptor() });
            reload_interval = Some(tls.reload_interval.get());
            certificates = Some(loaded);
        }
        let settings = Settings {
            listen: settings.listen,
            secure,
            host_names,
            local_name: self.certificates.local_name().clone(),
            socket_folder: self.socket_folder.clone(),
        };
        let admin = Admin::bind(&settings, api, self.access.clone())
            .map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        self.board.set_addresses(ChildKey::Admin, admin.addresses());
        self.board.set_admin_load(Box::new(admin.watch_load()));
        context.ready.ready();
        let reload = async {
            match (certificates, reload_interval) {
                (Some(certificates), Some(interval)) => {
                    let telling = tell_reloads(certificates.state());
                    tokio::join!(certificates.watch(interval, context.cancel.clone()), telling);
                }
                _ => std::future::pending().await,
            }
        };
        let running = admin.serve(context.cancel.clone());
        tokio::pin!(running);
        let (ended, under_way) = tokio::select! {
            ended = &mut running => ended,
            () = reload => running.await,
        };
        // The change that ends it may be one of its own requests, which waits for the next plane.
        self.leaving.spawn(under_way);
        self.board.forget(&ChildKey::Admin);
        ended.map_err(|error| ChildError::of(Retry::Backoff, &error))
    }

    async fn certificates_of(&self, tls: &AdminTls) -> Result<ServerCertificates, ChildError> {
        let (desk, files, names) =
            (self.certificates.clone(), tls.cert.clone().zip(tls.key.clone()), tls.names.clone());
        let clients = tls.client_ca.clone();
        let load = move || -> Result<ServerCertificates, ChildError> {
            let (cert, key): (PathBuf, PathBuf) = match files {
                Some(files) => files,
                None => {
                    let file = desk.ensure(&names).map_err(|error| ChildError::of(Retry::Backoff, &error))?;
                    (file.clone(), file)
                }
            };
            let loaded = match clients {
                Some(clients) => ServerCertificates::load_with_clients(cert, key, clients),
                None => ServerCertificates::load(cert, key),
            };
            loaded.map_err(|error| ChildError::of(Retry::Backoff, &error))
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.unwrap_or_else(|_| Err(ChildError::new(Retry::Backoff, "the gateway is stopping")))
    }
}

/// Says in the log what becomes of changed files, until nobody looks at them any more.
async fn tell_reloads(mut state: watch::Receiver<CertificateState>) {
    while state.changed().await.is_ok() {
        let now = state.borrow_and_update().clone();
        match now.fault {
            Some(fault) => warn!(%fault, "the changed certificate is not used; the one before goes on"),
            None => info!(reloads = now.reloads, "the admin plane shows a new certificate"),
        }
    }
}
