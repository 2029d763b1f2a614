//! Pure protocol cores: bytes and times in, bytes and events out.
//!
//! Nothing here opens, waits or reads a clock. Drivers are in `fieldgate-net`.

#![warn(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::panic))]

pub mod dns_sd;
pub mod http_auth;
pub mod kmp;
pub mod mdns_host;
pub mod multipart;
#[cfg(test)]
mod mutation;
pub mod onvif;
pub mod rtmp;
pub mod rtsp_probe;
pub mod segment;
