//! A master's replies to heartbeats.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::node::fuzz::heartbeat_reply(bytes, std::time::Instant::now());
});
