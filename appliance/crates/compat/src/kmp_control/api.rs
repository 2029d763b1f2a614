//! The connector's two status APIs: `rtmp_kmp_api` at `/` and `/rtmp_kmp_api/`, `kmp_out_api` at `/kmp_out_api/`.
//!
//! [`Exchange`] answers one request, step by step: it asks its owner for what must be done and shows what the owner's
//! [`Snapshot`] holds.

mod document;
mod exchange;

pub use document::{Application, Build, SessionView, Snapshot, StreamView, TrackView, Traffic, UpstreamView};
pub use exchange::{Action, Exchange, Outcome, Step};

#[cfg(test)]
mod tests;
