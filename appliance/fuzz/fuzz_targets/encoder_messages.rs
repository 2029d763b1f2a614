//! What a coordinator gives an encoder to do.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::encoder::fuzz::encoder_messages(bytes, std::time::Instant::now());
    fieldgate_compat::encoder::fuzz::resolutions(bytes);
});
