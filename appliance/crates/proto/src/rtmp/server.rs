//! The serving side of a connection, after the handshake.
use super::Limits;
use super::events::*;
use bytes::BytesMut;

/// How a server session behaves.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// What the peer may make us hold.
    pub limits: Limits,
    /// Our chunk size, told to the peer with the answer to `connect`.
    pub chunk_len: u32,
    /// Bytes after which the peer shall acknowledge, and after which we do.
    pub window_ack: u32,
    /// Message streams per connection.
    pub streams: usize,
}
impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings { limits: Limits::default(), chunk_len: 1 << 20, window_ack: 2_500_000, streams: 8 }
    }
}
/// One connection's protocol state.
#[derive(Debug)]
pub struct ServerSession {
    out: BytesMut,
}
#[expect(unused_variables)]
impl ServerSession {
    /// Right after the handshake.
    pub fn new(settings: ServerSettings) -> Self {
        ServerSession { out: BytesMut::new() }
    }
    /// Takes bytes off `input` until something happened; call until it returns `None`, which it does only when
    /// `input` is used up.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Event>, SessionError> {
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
    /// The chunk size that the peer was told; media must be cut by it.
    pub fn chunk_len(&self) -> u32 {
        128
    }
    /// Accepts the waiting `connect`.
    pub fn accept_connect(&mut self) {}
    /// Refuses it; close after sending.
    pub fn reject_connect(&mut self, text: &str) {}
    /// Accepts a waiting publish: media events follow.
    pub fn accept_publish(&mut self, stream_id: u32) {}
    /// Refuses it.
    pub fn reject_publish(&mut self, stream_id: u32, why: PublishRefusal, text: &str) {}
    /// Accepts a waiting play: media may be written after `poll_output`'s bytes.
    pub fn accept_play(&mut self, stream_id: u32) {}
    /// Refuses it.
    pub fn reject_play(&mut self, stream_id: u32, why: PlayRefusal, text: &str) {}
    /// Tells a player that its publisher has come (back).
    pub fn notify_publish(&mut self, stream_id: u32) {}
    /// Tells a player that its publisher has gone.
    pub fn notify_unpublish(&mut self, stream_id: u32) {}
    /// Sends a ping; `now_ms` comes back in `Event::PingAnswered`.
    pub fn ping(&mut self, now_ms: u32) {}
    /// Tells the peer why, on every stream, before the driver closes.
    pub fn close(&mut self, text: &str) {}
}
