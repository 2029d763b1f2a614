//! What pushes and pulls share: dial, handshake and the way to `Ready`.

use crate::dial::{DialError, DialOptions, Stream, Target, dial};
use crate::outbox::Outbox;
use crate::socket::Socket;
use crate::tls::ClientTls;
use bytes::{Buf, BytesMut};
use fieldgate_hub::{LocalShard, MountpointError, Retry};
use fieldgate_proto::rtmp::{
    ClientEvent, ClientHandshake, ClientMode, ClientSession, ClientSettings, HandshakeError, Limits, RtmpUrl,
    SessionError,
};
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// How long a server may take from the TCP connection to its acceptance.
pub(crate) const ACCEPTANCE: Duration = Duration::from_secs(10);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How we name ourselves; the form that servers know.
const FLASH_VER: &str = concat!("FMLE/3.0 (compatible; fieldgate ", env!("CARGO_PKG_VERSION"), ")");

/// Where a push or pull connects to, and how.
#[derive(Clone, Debug)]
pub struct RtmpEndpoint {
    /// The address.
    pub url: RtmpUrl,
    /// TLS, for rtmps addresses.
    pub tls: Option<ClientTls>,
    /// Chunk size towards the server, bytes.
    pub chunk_len: u32,
    /// Deadlines and buffers of the connection.
    pub dial: DialOptions,
}

/// Why a push or pull ended.
#[derive(Debug, thiserror::Error)]
pub enum RtmpClientError {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server's handshake is wrong.
    #[error("handshake: {0}; does this port speak RTMP?")]
    Handshake(#[from] HandshakeError),
    /// The server broke the protocol.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// It said no.
    #[error("the server refused: {code} {description}")]
    Rejected {
        /// Its status code.
        code: String,
        /// Its words.
        description: String,
    },
    /// It did not answer.
    #[error("the server did not accept within {0:?}")]
    NoAcceptance(Duration),
    /// It closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// It ended the stream.
    #[error("the server ended the stream: {0}")]
    Ended(String),
    /// The network failed.
    #[error("network: {0}")]
    Io(#[from] io::Error),
    /// It reads no answers.
    #[error("the server asks without reading the answers")]
    AnswersUnread,
    /// It takes nothing.
    #[error("the server took nothing for {0:?}; the uplink is down or too slow")]
    TooSlow(Duration),
    /// It sends nothing.
    #[error("the server sent no media for {0:?}")]
    Stalled(Duration),
    /// The mountpoint is not to be had.
    #[error(transparent)]
    Mountpoint(#[from] MountpointError),
    /// The pull was replaced or the mountpoint removed.
    #[error("mountpoint {0} was removed, changed or taken over")]
    Removed(String),
}

impl RtmpClientError {
    /// Whether and when to try again.
    pub fn retry(&self) -> Retry {
        match self {
            RtmpClientError::Dial(error) => error.retry(),
            _ => Retry::Backoff,
        }
    }
}

/// A connection to a server that has accepted.
pub(crate) struct Accepted {
    pub(crate) outbox: Rc<Outbox>,
    pub(crate) session: ClientSession,
    pub(crate) stream_id: u32,
    /// Bytes that were read and not yet looked at.
    pub(crate) unread: BytesMut,
}

impl Accepted {
    /// Dials, shakes hands and goes through the commands until the server accepts. `enhanced`: offer Enhanced RTMP.
    pub(crate) async fn connect(
        endpoint: &RtmpEndpoint,
        mode: ClientMode,
        enhanced: bool,
        limits: Limits,
        local: &LocalShard,
    ) -> Result<Accepted, RtmpClientError> {
        let mut accepted = Accepted::dial(endpoint, mode, enhanced, limits).await?;
        let reached = Box::pin(async {
            accepted.shake_hands(local).await?;
            accepted.reach_acceptance(local).await
        });
        tokio::time::timeout(ACCEPTANCE, reached)
            .await
            .map_err(|_| RtmpClientError::NoAcceptance(ACCEPTANCE))??;
        Ok(accepted)
    }

    /// Dials; nothing is said yet.
    pub(crate) async fn dial(
        endpoint: &RtmpEndpoint,
        mode: ClientMode,
        enhanced: bool,
        limits: Limits,
    ) -> Result<Accepted, RtmpClientError> {
        let target =
            Target { host: endpoint.url.host.clone(), port: endpoint.url.port, tls: endpoint.tls.clone() };
        let socket = match dial(&target, &endpoint.dial).await? {
            Stream::Plain(stream) => Socket::Plain(stream),
            tls => Socket::wrapped(tls),
        };
        let outbox = Rc::new(Outbox::new(socket));
        let session = ClientSession::new(ClientSettings {
            app: endpoint.url.app.clone(),
            tc_url: endpoint.url.tc_url.clone(),
            stream_key: endpoint.url.stream_key.clone(),
            mode,
            flash_ver: FLASH_VER.to_owned(),
            chunk_len: endpoint.chunk_len,
            enhanced,
            limits,
        });
        Ok(Accepted { outbox, session, stream_id: 0, unread: BytesMut::new() })
    }

    /// The handshake alone.
    pub(crate) async fn shake_hands(&mut self, local: &LocalShard) -> Result<(), RtmpClientError> {
        let mut handshake = Box::new(ClientHandshake::new());
        loop {
            let mut input = &self.unread[..];
            let mut out = BytesMut::new();
            // Called with nothing at first: the client speaks first.
            let done = handshake.handle_input(&mut input, &mut out)?;
            let used = self.unread.len() - input.len();
            self.unread.advance(used);
            self.outbox.answer(|waiting| waiting.unsplit(out));
            self.outbox.write_now();
            if done {
                return Ok(());
            }
            self.read_more(local).await?;
        }
    }

    /// The commands, after the handshake, until the server accepts.
    pub(crate) async fn reach_acceptance(&mut self, local: &LocalShard) -> Result<(), RtmpClientError> {
        loop {
            self.send_answers()?;
            while let Some(event) = self.next_event()? {
                match event {
                    ClientEvent::Ready { stream_id } => {
                        self.stream_id = stream_id;
                        self.send_answers()?;
                        return Ok(());
                    }
                    ClientEvent::Rejected { code, description } => {
                        return Err(RtmpClientError::Rejected { code, description });
                    }
                    ClientEvent::Ended { code } => return Err(RtmpClientError::Ended(code)),
                    _ => {}
                }
            }
            self.send_answers()?;
            self.read_more(local).await?;
        }
    }

    pub(crate) fn next_event(&mut self) -> Result<Option<ClientEvent>, RtmpClientError> {
        let mut input = &self.unread[..];
        let event = self.session.read(&mut input);
        let used = self.unread.len() - input.len();
        self.unread.advance(used);
        Ok(event?)
    }

    async fn read_more(&mut self, local: &LocalShard) -> Result<(), RtmpClientError> {
        let len = self.outbox.read_more(local, &mut self.unread).await?;
        if len == 0 { Err(RtmpClientError::Closed) } else { Ok(()) }
    }

    /// Hands the session's answers to the socket.
    pub(crate) fn send_answers(&mut self) -> Result<(), RtmpClientError> {
        if self.session.has_output() {
            if !self.outbox.answer(|out| self.session.poll_output(out)) {
                return Err(RtmpClientError::AnswersUnread);
            }
            self.outbox.write_now();
        }
        Ok(())
    }

    /// Ends the stream politely.
    pub(crate) async fn finish(mut self) {
        self.session.finish();
        self.outbox.answer(|out| self.session.poll_output(out));
        self.outbox.close(LAST_WORDS).await;
    }
}
