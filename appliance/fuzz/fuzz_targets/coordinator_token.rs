//! Tokens that open control sockets.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::coordinator::fuzz::control_token(bytes);
});
