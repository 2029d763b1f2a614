//! What the whole gateway speaks about: access units, the tracks they belong to, and time.
//!
//! Pure data and codec-header parsing. No IO, no clock, no task.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::panic))]

pub mod aac;
pub mod av1;
mod bits;
pub mod civil;
mod codec;
pub mod h264;
pub mod hevc;
pub mod jpeg;
mod silence;
pub mod sound;
mod ticks;
mod track;
mod unit;

pub use codec::{Codec, TrackKind};
pub use silence::Silence;
pub use ticks::Ticks;
pub use track::{AudioShape, Declared, Track, TrackId, Tracks, VideoShape};
pub use unit::{Captured, ClockSource, Draft, HEADROOM, Unit, UnitHead};
