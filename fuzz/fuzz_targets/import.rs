//! Any bytes as a file to import: its framing, and each request in it, of whatever kind.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| lacuna_fuzz::check_file(file));
