//! Any bytes as a JSON export request of each kind.
#![no_main]

use lacuna_signal::SignalKind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    for kind in SignalKind::ALL {
        lacuna_fuzz::check_json(kind, text);
    }
});
