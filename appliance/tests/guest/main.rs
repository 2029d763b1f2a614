//! The gateway on a real kernel with real V4L2 drivers: Debian's `vivid`, and `vicodec` and `vimc` built for it, in a guest.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]
#![allow(clippy::disallowed_methods, reason = "a guest runs in real time")]
#![allow(clippy::print_stdout, clippy::missing_panics_doc, reason = "tests tell what they saw")]
#![cfg(feature = "gst")]
#![allow(dead_code, reason = "the tests' common ground serves other suites too")]

#[path = "../common/mod.rs"]
mod common;

mod csi;
mod gateway;
mod hw_tests;
mod m2m;
mod machine;
mod microphone;
mod vivid;
