//! Messages of streaming servers and encoders.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::coordinator::fuzz::control_messages(bytes, std::time::Instant::now());
});
