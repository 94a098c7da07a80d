//! OTLP/JSON that somebody has at hand, turned into Jaeger's traces without storing it.

use std::fmt::Display;

use axum::body::Bytes;
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::decode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::adjust::by_trace;
use super::error::{ApiError, Envelope, StructuredError};
use super::ui::UiTrace;

/// The traces in `json`, an OTLP/JSON `TracesData`. Spans that cannot be read are left out and
/// named in `errors`; it is an error if none can.
pub fn transform(json: &[u8]) -> Result<Envelope<Vec<UiTrace>>, ApiError> {
    let unreadable = |why: &dyn Display| ApiError::Bad(format!("cannot unmarshal OTLP: {why}"));
    // The reader would also take an array of fields for a message.
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err(unreadable(&"the body is not a JSON object"));
    }
    let request: ExportTraceServiceRequest =
        serde_json::from_slice(json).map_err(|error| unreadable(&error))?;
    let decoded = decode(SignalKind::Spans, Bytes::from(request.encode_to_vec()))
        .map_err(|error| unreadable(&error))?;
    let traces = by_trace(&decoded.batch)?.into_iter();
    let traces = traces.map(|spans| UiTrace { spans, logs: None, warnings: Vec::new() }).collect();
    let errors = (!decoded.rejected.is_empty())
        .then(|| vec![StructuredError::bad_request(decoded.rejected.message())]);
    Ok(Envelope { errors, ..Envelope::of(Some(traces)) })
}
