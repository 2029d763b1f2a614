//! The whole program against real peers: ffmpeg, GStreamer, rtmpdump, nginx-rtmp, curl-like HTTP, and hostile ones.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![allow(clippy::disallowed_methods, reason = "real peers run in real time")]
#![allow(clippy::print_stdout, clippy::missing_panics_doc, reason = "tests tell what they saw")]

#[path = "../common/mod.rs"]
mod common;

mod acceptance;
mod admin_plane;
mod admission;
mod aggregator;
mod announced;
#[cfg(feature = "gst")]
mod cameras;
#[cfg(feature = "gst")]
mod capacity;
mod changes;
mod cli;
mod config;
mod continuity;
mod control;
mod coordinator;
mod disk;
#[cfg(feature = "gst")]
mod encoder;
mod events;
mod firmware;
#[cfg(feature = "gst")]
mod fleet;
mod harness;
mod hostile;
#[cfg(feature = "gst")]
mod hw_tests;
mod kmp;
mod kmp_chain;
mod kmp_control;
mod kmp_damage;
mod ledger;
mod machine;
#[cfg(feature = "gst")]
mod masks;
mod mutual;
#[cfg(feature = "gst")]
mod pictures;
mod power;
mod rauc;
mod relay;
#[cfg(feature = "gst")]
mod renditions;
#[cfg(feature = "gst")]
mod rtp;
#[cfg(feature = "gst")]
mod sources;
mod systemd;
mod tls;
mod uplink;
mod upstream;
