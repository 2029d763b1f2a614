//! Kaltura's RTMP-to-KMP connector, as its controllers and operators know it: callbacks out, an API in.
//!
//! A controller is asked who may connect and where each track goes, and is told when a track has ended. [`Session`] is
//! one RTMP connection's side of that: it makes the calls and says what their replies mean. It knows neither sockets nor
//! frames; what becomes of an upstream is the business of the KMP sender, which asks through it.
//!
//! ```text
//!            connect            first frame of a track           last upstream gone
//! RTMP peer ---------> connect ------------------------> publish -------------------> unpublish
//!                                                          ^ |
//!                                             upstream lost | v
//!                                                        republish
//! ```
//!
//! [`api`] renders the connector's two status documents and routes its requests. The names in both are the other
//! system's, so that what was written for it works unchanged; what is done differently on purpose is in `docs/kmp.md`.

pub mod api;
mod base64;
pub mod body;
mod call;
pub mod fuzz;
pub mod json;
pub mod reply;
pub mod session;
#[cfg(test)]
mod testing;
mod upstream;

pub use body::{Client, MediaInfo, MediaKind, Publication};
pub use reply::{Reader, ReplyError};
pub use session::{CallId, Callback, Output, Reason, Session, Settings, TrackKey};
pub use upstream::{ResumeFrom, Upstream, UpstreamError, UpstreamUrl};
