//! Multicast DNS of strangers who ask for the gateway's name, or want it for themselves.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate_proto::mdns_host::fuzz(bytes, std::time::Instant::now()));
