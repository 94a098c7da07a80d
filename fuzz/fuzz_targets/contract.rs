//! Any text as a contract file.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| lacuna_fuzz::check_contracts(text));
