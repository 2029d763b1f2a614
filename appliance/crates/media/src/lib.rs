//! What the whole gateway speaks about: access units, the tracks they belong to, and time.
//!
//! Pure data and codec-header parsing. No IO, no clock, no task.

#![warn(clippy::indexing_slicing)]

mod codec;
mod ticks;
mod track;
mod unit;

pub use codec::{Codec, TrackKind};
pub use ticks::Ticks;
pub use track::{AudioShape, Track, TrackId, Tracks, VideoShape};
pub use unit::{Captured, ClockSource, Draft, HEADROOM, Unit, UnitHead};
