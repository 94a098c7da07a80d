//! Any bytes as a protobuf export request of traces.
#![no_main]

use lacuna_signal::SignalKind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| lacuna_fuzz::check_protobuf(SignalKind::Spans, body));
