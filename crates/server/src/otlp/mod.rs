//! The receiving side of OTLP (OpenTelemetry protocol specification 1.x).
//!
//! Requests stay bytes until the one decoder of `lacuna-signal` walks them: gRPC messages and HTTP
//! bodies are read whole and decompressed, each step within the room that was taken. A success is answered
//! only when the store has said that the request is durable.

mod body;
pub mod cors;
pub mod grpc;
pub mod http;

use lacuna_signal::SignalKind;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;

use crate::ingest::Accepted;

/// How OTLP names a kind of signal.
pub(crate) fn signal_name(kind: SignalKind) -> &'static str {
    match kind {
        SignalKind::Spans => "traces",
        SignalKind::Logs => "logs",
        SignalKind::Points => "metrics",
    }
}

/// The export response as a message.
///
/// The responses of the three signals have the same fields with the same numbers (`rejected_spans`,
/// `rejected_log_records`, `rejected_data_points` are all field 1), so one message type serves.
pub(crate) fn response(accepted: &Accepted) -> ExportTraceServiceResponse {
    let partial_success = accepted.warning.as_ref().map(|message| ExportTracePartialSuccess {
        rejected_spans: accepted.rejected.min(i64::MAX as u64) as i64,
        error_message: message.clone(),
    });
    ExportTraceServiceResponse { partial_success }
}

/// The export response as protobuf.
pub(crate) fn response_bytes(accepted: &Accepted) -> Vec<u8> {
    response(accepted).encode_to_vec()
}
