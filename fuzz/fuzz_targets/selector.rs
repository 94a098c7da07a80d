//! Any text as a selector and as a query: what is read means the same when it is written and read
//! again, and no error's place is outside of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| lacuna_fuzz::check_selector(text));
