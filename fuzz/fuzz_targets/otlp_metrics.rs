//! Any bytes as a protobuf export request of metrics.
#![no_main]

use lacuna_signal::SignalKind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| lacuna_fuzz::check_protobuf(SignalKind::Points, body));
