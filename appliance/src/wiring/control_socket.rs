//! The way to a coordinator elsewhere, or to our own: who we are there, and the socket as long as there is one. The same for
//! a streaming server and an encoder; their cores say when it is opened and what is sent.

pub(super) mod address;
pub(super) mod line;

use super::{Coordinator, ElsewhereSign};
use address::Address;
use fieldgate_compat::control_socket::socket_token;
use fieldgate_compat::coordinator::Message;
use fieldgate_compat::key::Key;
use fieldgate_hub::Clock;
use line::{Line, Said};
use std::sync::Arc;
use tokio::task::JoinSet;

/// Where the coordinator is.
pub(super) enum Whereabouts {
    /// Elsewhere.
    At(Address),
    /// Here.
    Inside(Arc<Coordinator>),
}

/// Who comes to it.
pub(super) struct Credentials {
    /// `rtmp-control` or `hls-control`.
    pub(super) subject: &'static str,
    /// Below the coordinator's base, such as `ws/control/hls`.
    pub(super) path: &'static str,
    /// What tokens are signed with.
    pub(super) secret: Option<Key>,
    /// Tokens say when they end.
    pub(super) tells_expiry: bool,
    /// Beside the token.
    pub(super) headers: Vec<(&'static str, String)>,
}

/// The way there.
pub(super) struct ControlSocket {
    whereabouts: Whereabouts,
    credentials: Credentials,
    clock: Clock,
    sign: ElsewhereSign,
    line: Option<Line>,
    talking: JoinSet<()>,
}

impl ControlSocket {
    /// Without a socket yet.
    pub(super) fn new(
        whereabouts: Whereabouts,
        credentials: Credentials,
        clock: Clock,
        sign: ElsewhereSign,
    ) -> ControlSocket {
        ControlSocket { whereabouts, credentials, clock, sign, line: None, talking: JoinSet::new() }
    }

    /// Opens the socket; what becomes of it is said.
    pub(super) fn connect(&mut self) {
        while self.talking.try_join_next().is_some() {}
        let Credentials { subject, path, secret, tells_expiry, headers } = &self.credentials;
        self.line = Some(match &self.whereabouts {
            Whereabouts::Inside(coordinator) => {
                let (line, talking) = Line::inside(coordinator.clone());
                self.talking.spawn(talking);
                line
            }
            Whereabouts::At(address) => {
                let unix_now = self.clock.unix_micros() / 1_000_000;
                let token = socket_token(secret.as_ref(), subject, tells_expiry.then_some(unix_now));
                let token = token.map(|token| ("x-control-auth-token", token.reveal().to_owned()));
                let headers = token.into_iter().chain(headers.iter().cloned()).collect();
                let (line, talking) = Line::open(address.call(path, headers));
                self.talking.spawn(talking);
                line
            }
        });
    }

    /// What the socket says; nothing while there is none. Dropping the future loses nothing.
    pub(super) async fn hear(&mut self) -> Said {
        let said = match &mut self.line {
            Some(line) => line.hear().await,
            None => std::future::pending().await,
        };
        if let Said::Open = said {
            self.sign.up();
        }
        said
    }

    /// False: the socket takes none any more.
    pub(super) fn send(&self, message: &Message) -> bool {
        self.line.as_ref().is_none_or(|line| line.send(message))
    }

    /// There is no socket any more.
    pub(super) fn close(&mut self, why: &str) {
        self.line = None;
        self.sign.lost(why);
    }

    /// For good.
    pub(super) async fn end(&mut self) {
        self.line = None;
        self.talking.shutdown().await;
    }

    /// With a socket whose other end is the test.
    #[cfg(test)]
    pub(super) fn set_line(&mut self, line: Line) {
        self.line = Some(line);
    }

    /// Whether there is a socket.
    #[cfg(test)]
    pub(super) fn has_line(&self) -> bool {
        self.line.is_some()
    }
}
