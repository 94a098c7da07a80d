//! OTLP/JSON that somebody has at hand, turned into Jaeger's traces without storing it.

use lacuna_signal::SignalKind;
use lacuna_signal::otlp::{DecodeError, decode, decode_json};

use super::adjust::by_trace;
use super::error::{ApiError, Envelope, StructuredError};
use super::ui::UiTrace;

/// The traces in `json`, an OTLP/JSON `TracesData`. Spans that cannot be read are left out and
/// named in `errors`; it is an error if none can.
pub fn transform(json: &[u8]) -> Result<Envelope<Vec<UiTrace>>, ApiError> {
    let unreadable = |error: DecodeError| ApiError::Bad(format!("cannot unmarshal OTLP: {error}"));
    let (protobuf, bad_json) = decode_json(SignalKind::Spans, json).map_err(unreadable)?;
    let decoded = decode(SignalKind::Spans, protobuf).map_err(unreadable)?;
    let traces = by_trace(&decoded.batch)?.into_iter();
    let traces = traces.map(|spans| UiTrace { spans, logs: None, warnings: Vec::new() }).collect();
    let errors: Vec<_> = [bad_json, decoded.rejected]
        .iter()
        .filter(|rejected| !rejected.is_empty())
        .map(|rejected| StructuredError::bad_request(rejected.message()))
        .collect();
    let errors = (!errors.is_empty()).then_some(errors);
    Ok(Envelope { errors, ..Envelope::of(Some(traces)) })
}
