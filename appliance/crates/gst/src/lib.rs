//! The inside of a worker process: all GStreamer of the gateway.
//!
//! ```text
//!  main thread       loads plugins, builds, changes states, listens to the bus, beats the pulse
//!  streaming threads appsink callbacks: buffer -> times -> Outlet (sends at once, or queues)
//!  "link-out"        sends what the socket did not take at once
//!  "link-in"         reads commands, and the stream that a transcoder looks into; the link's end is the worker's end
//! ```
//! A hang in a state change stops the pulse, and the gateway kills the process: no deadline is needed in here.

mod audio_path;
mod builtin;
mod burn;
mod cameras;
mod control;
mod decoders;
mod elements;
mod encoders;
mod error;
mod frame_limit;
mod glyphs;
mod inspect;
mod intake;
mod microphone;
mod outlet;
mod picture;
mod pipeline;
mod stream;
mod timeline;
mod track;
mod transcode;
mod video_path;

pub use control::main;
pub use elements::{Element, without_libcamera};
pub use error::WorkError;
