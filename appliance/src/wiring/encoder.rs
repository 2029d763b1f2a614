//! An encoder of a coordinator elsewhere, or of our own, at our edge: its core's wishes become a socket, pulls, renditions and files.
//!
//! ```text
//!  coordinator <--socket--> driver (one task), core: compat::encoder
//!                             +-- task per stream: pull --> mountpoint encoder/N --+-- cutter --> keeper --> store
//!                                                                  +-- worker --> encoder/N~M -- cutter --> keeper -^
//!                                                                  +-- previews ---------------------------------^
//! ```
//! Under our own coordinator the socket is none, and our own streams are taken from their mountpoints. What passes as it
//! came passes: only other sizes, rates and codecs are encoded, by workers, as far as the plan has room.

mod cutter;
mod driver;
mod keeper;
mod making;
mod previews;
mod received;
mod store;
mod task;

use super::control_socket::Whereabouts;
use super::control_socket::address::Address;
use super::{Wiring, pushes};
use crate::supervisor::{ChildContext, ChildError};
use driver::Driver;
use fieldgate_hub::Retry;
use fieldgate_model::config::Encoder as Settings;
use fieldgate_net::ClientTls;
use std::sync::Arc;
use store::Store;

/// What all tasks of an encoder share.
struct Shop {
    wiring: Wiring,
    settings: Settings,
    store: Store,
    tls: Option<ClientTls>,
}

impl Wiring {
    /// Belongs to a coordinator as an encoder until it is cancelled.
    pub(super) async fn encoder(&self, settings: Settings, child: ChildContext) -> Result<(), ChildError> {
        let tls = pushes::client_tls(true, settings.verify, settings.ca.as_deref())?;
        let whereabouts = match settings.url.as_deref() {
            None => Whereabouts::Inside(self.coordinator.clone()),
            Some(url) => Whereabouts::At(
                Address::new(url, tls.clone())
                    .ok_or_else(|| ChildError::new(Retry::Never, "compat.encoder.url is no address"))?,
            ),
        };
        let folder = settings.folder.clone().unwrap_or_else(|| self.encoder_folder.clone());
        let store = Store::open(&settings, folder, tls.clone());
        let store = store.await.map_err(|error| ChildError::of(Retry::Backoff, &error))?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|_| ChildError::new(Retry::Backoff, "there are no random numbers"))?;
        child.ready.ready();
        let shop = Arc::new(Shop { wiring: self.clone(), settings, store, tls });
        Driver::new(shop, whereabouts, u64::from_le_bytes(seed)).run(child.cancel).await;
        Ok(())
    }
}
