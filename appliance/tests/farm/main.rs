//! Cameras with faults: what the gateway makes of each, over real sockets, against cameras written from the standards
//! and, where a good camera will do, gst-rtsp-server.
//!
//! `film`: what they show. `camera`: the server, `script`: its faults. The tests by what goes wrong: `session`, `login`,
//! `description`, `clock`, `picture`, `network`; `standard`: good cameras by gst-rtsp-server; `leaks`: what is left behind.
//! `jpeg_camera`: one that speaks HTTP, `jpeg`: its tests.
#![cfg(feature = "gst")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![allow(clippy::disallowed_methods, reason = "real cameras run in real time")]
#![allow(clippy::print_stdout, clippy::missing_panics_doc, reason = "tests tell what they saw")]
#![allow(dead_code, reason = "the common part is shared with tests that use more of it")]

#[path = "../common/mod.rs"]
mod common;

mod camera;
mod clock;
mod description;
mod film;
mod jpeg;
mod jpeg_camera;
mod leaks;
mod login;
mod network;
mod picture;
mod request;
mod rtp;
mod scene;
mod script;
mod session;
mod standard;
