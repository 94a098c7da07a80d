//! Any damage to the files of a data folder: bytes changed, put in, left out, files cut.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|edits: &[u8]| lacuna_fuzz::check_folder(edits));
