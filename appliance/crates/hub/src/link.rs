//! Units and opaque control bytes over a Unix stream socket between the gateway and a worker process.
//!
//! ```text
//!  worker                                            gateway
//!  Outbox (bounded, drops to the next keyframe)      Inbound (bounds, rates, order) -> Draft, no further copy
//!     | head 40 bytes, body                             ^
//!     +------------------ socket pair ------------------+
//!  Inbound <-- Command, Ask; Tracks and Unit of a stream --- Feeder (bounded, drops to the next keyframe)
//!                 that the worker shall look into
//! ```
//!
//! The worker is not trusted: its C code reads hostile bytes. Every length, rate and order that it chooses is checked
//! here, and the first breach ends the link. Deadlines (silence, no first unit) belong to whoever drives it.

mod feeder;
mod inbound;
mod outbox;
mod rate;
mod tracks;
mod wire;

pub use feeder::Feeder;
pub use inbound::{Frame, Inbound, Limits, LinkError};
pub use outbox::{Outbox, OutboxBound, Sending};
pub use tracks::{TracksError, decode_tracks, encode_tracks};
pub use wire::{ASK_MAX, CONTROL_MAX, HEAD_LEN, Head, Health, Kind, LogLevel, UNIT_MAX};

use tokio::io::{AsyncRead, AsyncReadExt};

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

#[cfg(test)]
mod tests;
