//! A coordinator elsewhere at our edge: its core's wishes become a socket, messages and mountpoints.
//!
//! ```text
//!  RTMP publish, play --Admission--> Control --asks--> driver (one task) <--socket--> the coordinator
//!                                                         |  core: compat::control
//!                                                         +--> channels (mountpoints), cameras
//! ```

mod driver;

use super::channels::Asking;
use super::control_socket::address::Address;
use super::coordinator::own_address;
use super::{ElsewhereSign, Wiring, pushes};
use crate::supervisor::{ChildContext, ChildError};
use driver::Driver;
use fieldgate_compat::coordinator::is_id;
use fieldgate_hub::{Context, Request, Retry, Verdict};
use fieldgate_model::config::Control as Settings;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// What the driver may be asked at once.
const INBOX: usize = 256;

/// The coordinator elsewhere, as those see it who ask about channels. Off while no driver runs.
pub struct Control {
    context: Context,
    desk: Mutex<Option<Desk>>,
}

/// The way to the driver.
#[derive(Clone)]
struct Desk {
    inbox: mpsc::Sender<Asking>,
    id_max: usize,
    /// Its channels, where not all are.
    only: Option<Arc<BTreeSet<String>>>,
}

impl Control {
    /// Off.
    pub fn new(context: &Context) -> Control {
        Control { context: context.clone(), desk: Mutex::default() }
    }

    /// Whether this can be one of its channels.
    pub fn knows(&self, app: &str) -> bool {
        self.desk().is_some_and(|desk| {
            is_id(app, desk.id_max) && desk.only.as_ref().is_none_or(|only| only.contains(app))
        })
    }

    /// Answers an RTMP peer, whose application is the channel and whose stream name is the key.
    pub async fn admit(&self, request: &Request) -> Verdict {
        let Some(desk) = self.desk() else { return Verdict::UnknownApplication };
        Asking::verdict(request, |asking| desk.inbox.try_send(asking).is_ok()).await
    }

    fn desk(&self) -> Option<Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_desk(&self, desk: Option<Desk>) {
        *self.desk.lock().unwrap_or_else(PoisonError::into_inner) = desk;
    }
}

impl Wiring {
    /// Belongs to a coordinator elsewhere until it is cancelled. `rtmp_port` is the port of the first RTMP listener;
    /// `has_own`: the gateway is a coordinator, too.
    pub(super) async fn control(
        &self,
        settings: Settings,
        rtmp_port: Option<u16>,
        has_own: bool,
        child: ChildContext,
    ) -> Result<(), ChildError> {
        let rtmp_port = match settings.external_port.or(rtmp_port) {
            Some(0) => self.bound_rtmp_port(&child).await,
            port => port,
        };
        let tls = pushes::client_tls(true, settings.verify, settings.ca.as_deref())?;
        let url = settings.url.as_deref().unwrap_or_default();
        let address = Address::new(url, tls)
            .ok_or_else(|| ChildError::new(Retry::Never, "compat.control.url is no address"))?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)
            .map_err(|_| ChildError::new(Retry::Backoff, "there are no random numbers"))?;
        let (to_driver, inbox) = mpsc::channel(INBOX);
        let only = has_own.then(|| {
            let channels = settings.channels.iter().chain(settings.cameras.keys());
            Arc::new(channels.cloned().collect())
        });
        let id_max = usize::try_from(settings.id_max_length).unwrap_or(usize::MAX);
        self.control.set_desk(Some(Desk { inbox: to_driver, id_max, only }));
        child.ready.ready();
        let own = own_address(settings.external_ip);
        let driver = Driver::new(
            self.control.clone(),
            settings,
            address,
            (own, rtmp_port),
            u64::from_le_bytes(seed),
            inbox,
            ElsewhereSign::new(self.board.clone(), self.context.clock.clone(), "control"),
        );
        driver.run(child.cancel).await;
        Ok(())
    }
}
