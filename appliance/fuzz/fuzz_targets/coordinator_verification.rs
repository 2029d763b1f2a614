//! What an application answers to a key.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::coordinator::fuzz::verification_reply(bytes);
});
