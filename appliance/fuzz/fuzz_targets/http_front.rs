//! The request heads of strangers on the admin plane.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate::admin::head::fuzz(bytes));
