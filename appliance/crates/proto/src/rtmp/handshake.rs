//! Both sides of the handshake, by `rml_rtmp`, fed with no more than its packets.

use bytes::BytesMut;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};

/// P0, P1 and P2 together.
const LEN: usize = 1 + 1536 + 1536;

/// The peer does not speak RTMP.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Not plain RTMP: 6 and 8 are encrypted forms, 0x16 is TLS, letters are HTTP.
    #[error("first byte is {got:#04x}, RTMP begins with 0x03")]
    Version {
        /// The byte.
        got: u8,
    },
    /// Something else in the packets.
    #[error("handshake failed")]
    Packet(#[source] rml_rtmp::handshake::HandshakeError),
}

/// The accepting side. Takes digest (complex) and plain (simple) peers.
pub struct ServerHandshake(Shake);

/// The connecting side.
pub struct ClientHandshake(Shake);

impl ServerHandshake {
    /// Waits for the client's first bytes.
    pub fn new() -> Self {
        ServerHandshake(Shake::new(PeerType::Server))
    }

    /// Takes handshake bytes off `input` and appends answers to `out`. True when done: the rest of `input` is chunks.
    pub fn handle_input(&mut self, input: &mut &[u8], out: &mut BytesMut) -> Result<bool, HandshakeError> {
        self.0.handle_input(input, out)
    }
}

impl ClientHandshake {
    /// Its first packets are written by the first `handle_input`, which may be called with empty input.
    pub fn new() -> Self {
        ClientHandshake(Shake::new(PeerType::Client))
    }

    /// Takes handshake bytes off `input` and appends ours to `out`. True when done: the rest of `input` is chunks.
    pub fn handle_input(&mut self, input: &mut &[u8], out: &mut BytesMut) -> Result<bool, HandshakeError> {
        self.0.start(out)?;
        self.0.handle_input(input, out)
    }
}

impl Default for ServerHandshake {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for ClientHandshake {
    fn default() -> Self {
        Self::new()
    }
}

struct Shake {
    /// Gone when done; boxed, since it holds packets of 1,536 bytes that a connection needs only once.
    rml: Option<Box<Handshake>>,
    taken: usize,
    started: bool,
}

impl Shake {
    fn new(side: PeerType) -> Self {
        Shake { rml: Some(Box::new(Handshake::new(side))), taken: 0, started: false }
    }

    fn start(&mut self, out: &mut BytesMut) -> Result<(), HandshakeError> {
        if !self.started
            && let Some(rml) = &mut self.rml
        {
            self.started = true;
            out.extend_from_slice(&rml.generate_outbound_p0_and_p1().map_err(HandshakeError::Packet)?);
        }
        Ok(())
    }

    fn handle_input(&mut self, input: &mut &[u8], out: &mut BytesMut) -> Result<bool, HandshakeError> {
        let Some(rml) = &mut self.rml else { return Ok(true) };
        let Some((packet, rest)) = input.split_at_checked(input.len().min(LEN.saturating_sub(self.taken)))
        else {
            return Ok(false);
        };
        if packet.is_empty() {
            return Ok(false);
        }
        if self.taken == 0
            && let Some(&got) = packet.first()
            && got != 3
        {
            return Err(HandshakeError::Version { got });
        }
        *input = rest;
        self.taken = self.taken.saturating_add(packet.len());
        match rml.process_bytes(packet).map_err(HandshakeError::Packet)? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                out.extend_from_slice(&response_bytes);
                Ok(false)
            }
            HandshakeProcessResult::Completed { response_bytes, .. } => {
                out.extend_from_slice(&response_bytes);
                self.rml = None;
                Ok(true)
            }
        }
    }
}
