//! Messages of a coordinator elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::control::fuzz::server_messages(bytes, std::time::Instant::now());
});
