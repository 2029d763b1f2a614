//! "May this peer publish or play?", asked by `net`, answered by the binary.

use crate::rtmp::RtmpClient;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a peer wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Feed a stream.
    Publish,
    /// Watch a stream.
    Play,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it wants.
    pub action: Action,
    /// Who asks.
    pub peer: IpAddr,
    /// The RTMP application, without query.
    pub app: String,
    /// The stream name, without query.
    pub name: String,
    /// The key from the query, if there is one.
    pub key: Option<String>,
    /// Of an RTMP peer: its connection.
    pub client: Option<Arc<RtmpClient>>,
    /// Cancelled by whoever decides when an admitted peer no longer is; whoever asks then closes it. Nobody else holds it
    /// for longer than the peer stays.
    pub revoked: Arc<CancellationToken>,
}

/// How an admitted player shall be served; of no meaning to publishers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Without a publisher: wait for one (true), or be refused.
    pub wait_for_publisher: bool,
    /// Write at most this often; zero: at once.
    pub gather: Duration,
    /// RTMP chunk size towards it, bytes.
    pub chunk_len: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Terms { wait_for_publisher: true, gather: Duration::ZERO, chunk_len: 1 << 20 }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may, on this mountpoint, which exists in the registry.
    Allow {
        /// Its name.
        mountpoint: String,
        /// How it shall be served.
        terms: Terms,
    },
    /// There is no such application.
    UnknownApplication,
    /// There is no such mountpoint.
    UnknownName,
    /// It may not; the text is for the peer and holds no secret.
    Deny {
        /// Why, in words for the peer.
        text: String,
    },
}

/// How an RTMP connection shall be served. The default: as its listener's settings say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectTerms {
    /// In place of the listener's own: without media for so long the connection is ended; zero: never.
    pub idle_timeout: Option<Duration>,
    /// End it at the first media message that does not parse, instead of leaving that out.
    pub end_on_bad_media: bool,
}

/// The answer to an RTMP `connect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectVerdict {
    /// It may go on.
    Accept(ConnectTerms),
    /// There is no such application.
    UnknownApplication,
    /// A controller refused it: the peer is told in the controller's way.
    Refuse {
        /// The controller's words, for the peer.
        text: String,
        /// Leave the connection to the peer and the idle timeout, as controllers' clients may expect, instead of closing.
        keep_open: bool,
        /// For how long.
        terms: ConnectTerms,
    },
}

/// Decides over connections, publishers and players.
pub trait Admit: Send + Sync {
    /// Whether this application exists; asked at `connect`, before any name is known.
    fn knows_application(&self, app: &str) -> bool;

    /// Whether the stream names of this application are keys, which nobody may see in a log.
    fn names_are_keys(&self, app: &str) -> bool {
        let _ = app;
        false
    }

    /// Answers an RTMP `connect`. Must end by itself, as [`Admit::admit`]; dropped when the peer leaves.
    fn connect(&self, client: Arc<RtmpClient>) -> Pin<Box<dyn Future<Output = ConnectVerdict> + Send + '_>> {
        let verdict = match self.knows_application(&client.app) {
            true => ConnectVerdict::Accept(ConnectTerms::default()),
            false => ConnectVerdict::UnknownApplication,
        };
        Box::pin(std::future::ready(verdict))
    }

    /// Answers one request. Must end by itself: whoever asks a slow authority sets a deadline; no answer is a no.
    fn admit(&self, request: Request) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>>;
}
