//! A master's replies about tokens, to announcements and events.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    fieldgate_compat::node::fuzz::master_reply(bytes);
});
