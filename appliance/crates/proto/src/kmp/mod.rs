//! KMP, the Kaltura Media Protocol: one track per TCP connection, frames with ids, acknowledgements.
//!
//! Pure: bytes, units and times in, packets and events out. A packet that carries media is a small head and the
//! payload as it is in the ring ([`Wire`]): nothing copies a payload.

mod captions;
pub mod fuzz;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::golden;
mod mapping;
pub mod media_info;
pub mod packet;
mod reader;
pub mod receiver;
pub mod sender;
mod url;

pub use mapping::{MapSettings, Mapped, TrackMapper};
pub use packet::{
    Ack, Audio, Connect, FrameHead, Media, MediaInfo, MediaKind, Name, PacketKind, Rational, Video, Wire,
};
pub use reader::{Direction, Frame, Limits, Packet, PacketReader, ReadError};
pub use url::{KmpUrl, KmpUrlError};
