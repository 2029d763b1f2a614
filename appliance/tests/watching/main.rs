//! Watching by HTTP: real players, the rules of the playlists, and hostile viewers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![allow(clippy::disallowed_methods, reason = "real peers run in real time")]
#![allow(dead_code, reason = "the common parts are more than one target needs")]

#[path = "../common/mod.rs"]
mod common;

mod admission;
mod av1;
mod browser;
mod codecs;
mod hostile;
mod latency;
mod manifest;
mod playing;
mod recorded;
mod rules;
mod sizes;
mod viewer;
