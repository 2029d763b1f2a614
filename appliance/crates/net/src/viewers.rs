//! The viewers' HTTP plane: streams in segments, for whoever may watch them.
//!
//! ```text
//!  GET master.m3u8?key= --Admit--> a session, with a token
//!                             \--> a watched stream, cut on its mountpoint's shard from its first viewer on
//!  GET TOKEN/video.m3u8, TOKEN/v7.m4s ... --> from the stream's package; what is not there yet is waited for
//! ```
//! Answers are lists of shared bytes: a viewer costs a connection, a session and the heads of what it is being sent.

mod answer;
mod body;
mod elsewhere;
mod files;
mod packager;
mod plane;
mod recorded;
mod server;
mod sessions;
mod watched;

pub use elsewhere::{Absent, Elsewhere, Maker};
pub use plane::{Cutting, Viewers, WatchedReport};
pub use server::ViewerListener;
