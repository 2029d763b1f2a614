//! Units and opaque control bytes over a Unix stream socket between the gateway and a worker process.
//!
//! ```text
//!  worker                                            gateway
//!  Outbox (bounded, drops to the next keyframe)      Inbound (bounds, rates, order) -> Draft, no further copy
//!     | head 40 bytes, body                             ^
//!     +------------------ socket pair ------------------+
//!  Inbound <-------------- Command, Ask ---------------- write_command, write_ask
//! ```
//!
//! The worker is not trusted: its C code reads hostile bytes. Every length, rate and order that it chooses is checked
//! here, and the first breach ends the link. Deadlines (silence, no first unit) belong to whoever drives it.

mod inbound;
mod outbox;
mod rate;
mod tracks;
mod wire;

pub use inbound::{Frame, Inbound, Limits, LinkError};
pub use outbox::{Outbox, OutboxBound, Sending};
pub use tracks::{TracksError, decode_tracks, encode_tracks};
pub use wire::{ASK_MAX, CONTROL_MAX, HEAD_LEN, Head, Health, Kind, LogLevel, UNIT_MAX};

use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads until the next whole frame is there. Cancelling it loses nothing.
///
/// `now` is asked once per read. Fails with [`LinkError::Closed`] when the other end is gone, and with the breach when
/// the other end broke a bound; the link is not usable after that.
pub async fn read_frame<R: AsyncRead + Unpin>(
    from: &mut R,
    inbound: &mut Inbound,
    mut now: impl FnMut() -> std::time::Instant,
) -> Result<Frame, LinkError> {
    loop {
        if let Some(frame) = inbound.poll_frame(now())? {
            return Ok(frame);
        }
        if from.read_buf(&mut inbound.room()).await? == 0 {
            return Err(LinkError::Closed { in_frame: inbound.is_inside_frame() });
        }
    }
}

/// Writes one command to a worker. Not cancel safe: a link whose command was cut short must be closed.
pub async fn write_command<W: AsyncWrite + Unpin>(to: &mut W, command: &[u8]) -> io::Result<()> {
    write_whole(to, Kind::Command, command).await
}

/// Writes one ask to a worker, at most [`ASK_MAX`] bytes. Not cancel safe, as a command.
pub async fn write_ask<W: AsyncWrite + Unpin>(to: &mut W, ask: &[u8]) -> io::Result<()> {
    write_whole(to, Kind::Ask, ask).await
}

async fn write_whole<W: AsyncWrite + Unpin>(to: &mut W, kind: Kind, body: &[u8]) -> io::Result<()> {
    let Some(head) = Head::control(kind, body.len()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{kind:?} of {} bytes exceeds {}", body.len(), kind.max_len()),
        ));
    };
    let mut frame = BytesMut::with_capacity(HEAD_LEN + body.len());
    frame.extend_from_slice(&head.encode());
    frame.extend_from_slice(body);
    to.write_all(&Bytes::from(frame)).await
}

#[cfg(test)]
mod tests;
