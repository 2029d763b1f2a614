//! The ledger's log as a dying disk may give it back.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fieldgate_spool::fuzz::ledger(bytes));
