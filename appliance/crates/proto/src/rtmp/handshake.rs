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

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(handshake: &mut ServerHandshake, mut input: &[u8], step: usize) -> (bool, Vec<u8>) {
        let mut out = BytesMut::new();
        let mut done = false;
        while !input.is_empty() && !done {
            let (mut piece, rest) = input.split_at(step.min(input.len()));
            done = handshake.handle_input(&mut piece, &mut out).unwrap();
            assert!(done || piece.is_empty());
            input = rest;
        }
        (done, out.to_vec())
    }

    #[test]
    fn both_sides_meet_whatever_the_pieces_and_leave_the_chunks_alone() {
        for step in [1, 100, 1536, 1537, 4000] {
            let (mut client, mut server) = (ClientHandshake::new(), ServerHandshake::new());
            let mut to_server = BytesMut::new();
            assert!(!client.handle_input(&mut &[][..], &mut to_server).unwrap());
            assert_eq!(to_server.len(), 1537);
            let (done, to_client) = feed(&mut server, &to_server, step);
            assert!(!done && to_client.len() == 1 + 1536 + 1536);
            let mut answer = BytesMut::new();
            let mut input = [&to_client[..], b"chunk"].concat();
            input.truncate(to_client.len() + 5);
            let mut rest = &input[..];
            assert!(client.handle_input(&mut rest, &mut answer).unwrap());
            assert_eq!((rest, answer.len()), (&b"chunk"[..], 1536));
            let mut last = &[&answer[..], b"chunk"].concat()[..];
            assert!(server.handle_input(&mut last, &mut BytesMut::new()).unwrap());
            assert_eq!(last, b"chunk");
            assert!(server.handle_input(&mut last, &mut BytesMut::new()).unwrap(), "done stays done");
        }
    }

    #[test]
    fn a_simple_peer_without_digest_is_answered_with_its_own_bytes() {
        let mut c1 = vec![0u8; 1536];
        c1[8..].fill(0xA5);
        let mut server = ServerHandshake::new();
        let (done, out) = feed(&mut server, &[&[3][..], &c1].concat(), 4096);
        assert!(!done);
        assert_eq!(out[0], 3);
        assert_eq!(out[1537..], c1);
        let (done, _) = feed(&mut server, &out[1..1537], 4096);
        assert!(done);
    }

    #[test]
    fn what_is_not_rtmp_is_refused_at_its_first_byte() {
        for got in [b'G', 0x16, 6, 0] {
            let error = ServerHandshake::new().handle_input(&mut &[got, 3][..], &mut BytesMut::new());
            assert!(matches!(error, Err(HandshakeError::Version { got: byte }) if byte == got));
        }
    }
}
