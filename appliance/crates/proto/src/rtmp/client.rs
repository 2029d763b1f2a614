//! The connecting side: pushes and pulls.
use super::Limits;
use super::events::*;
use bytes::BytesMut;

/// What to connect for.
#[derive(Clone)]
pub struct ClientSettings {
    /// Application.
    pub app: String,
    /// For `connect`.
    pub tc_url: String,
    /// Stream name, with query.
    pub stream_key: String,
    /// Push or pull.
    pub mode: ClientMode,
    /// For `connect`.
    pub flash_ver: String,
    /// Our chunk size.
    pub chunk_len: u32,
    /// What the server may make us hold.
    pub limits: Limits,
}
/// One connection's protocol state.
#[derive(Debug)]
pub struct ClientSession {
    out: BytesMut,
}
#[expect(unused_variables)]
impl ClientSession {
    /// Right after the handshake; the first commands are in `poll_output` at once.
    pub fn new(settings: ClientSettings) -> Self {
        ClientSession { out: BytesMut::new() }
    }
    /// As `ServerSession::read`.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<ClientEvent>, SessionError> {
        Ok(None)
    }
    /// Appends what is to be sent to `out`.
    pub fn poll_output(&mut self, out: &mut BytesMut) {
        out.unsplit(self.out.split());
    }
    /// Whether `poll_output` would give anything.
    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }
    /// Our chunk size; media must be cut by it.
    pub fn chunk_len(&self) -> u32 {
        128
    }
    /// Sends a ping.
    pub fn ping(&mut self, now_ms: u32) {}
    /// Ends the stream politely (FCUnpublish, deleteStream); close after sending.
    pub fn finish(&mut self) {}
}
