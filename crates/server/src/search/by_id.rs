//! `GET /api/v2/traces/{id}`: a trace as Grafana's Tempo data source reads it.
//!
//! It asks for protobuf: `TraceByIDResponse { Trace trace = 1; PartialStatus status = 3; string message
//! = 4; }` of `tempopb`, whose `Trace` is OTLP's `TracesData`. Without that wish the same comes as JSON.
//!
//! Source: Tempo's HTTP API, "Query V2"; `pkg/tempopb/tempo.proto`.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use lacuna_signal::otlp::decode_json;
use lacuna_signal::otlp::to_json::to_json;
use lacuna_signal::{Batch, SignalKind, TraceId};
use lacuna_store::Store;
use serde::Serialize;

use super::{AsOtlp, Failure, Search, bad};
use crate::body::{self, Held};
use crate::lacking::lacking;

/// The media type by which protobuf is asked for and answered.
pub const PROTOBUF: &str = "application/protobuf";
/// Spans that are written in protobuf at once.
const PROTOBUF_ROWS: usize = 1_000;
/// Why a trace in protobuf, which is written as a whole, is not given now.
pub const NO_ROOM: &str =
    "the trace has no room in the memory for answers now; ask again in a second";
/// `PartialStatus` of a trace of which something is missing.
const PARTIAL: u64 = 1;

/// Whether a request asks for protobuf.
pub fn wants_protobuf(headers: &HeaderMap) -> bool {
    let mut accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accept.any(|value| value.contains(PROTOBUF))
}

/// `spans` as OTLP's `TracesData` in protobuf.
///
/// # Errors
/// Why it cannot be written.
pub fn protobuf(spans: &Batch) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    for start in (0..spans.num_rows()).step_by(PROTOBUF_ROWS) {
        let part = spans.slice(start, PROTOBUF_ROWS.min(spans.num_rows() - start));
        // One writer of each field: JSON. What it wrote is turned over as any request in JSON is.
        let json = to_json(&part).map_err(|error| error.to_string())?;
        let (part, _) = decode_json(SignalKind::Spans, &json).map_err(|error| error.to_string())?;
        // Messages behind each other are one message with the lists of all.
        body.extend_from_slice(&part);
    }
    Ok(body)
}

pub async fn trace(
    State(Search { store, gate }): State<Search>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let wants_protobuf = wants_protobuf(&headers);
    let place = gate.enter().await;
    let done = tokio::task::spawn_blocking(move || {
        let _place = place;
        answer(store.question()?, &id, wants_protobuf)
    });
    let broken = |error: String| Failure(StatusCode::INTERNAL_SERVER_ERROR, error);
    match done.await {
        Ok(Ok(Answer::Protobuf(body))) => ([(CONTENT_TYPE, PROTOBUF)], body).into_response(),
        Ok(Ok(Answer::Json(trace))) => {
            body::json(*trace, false).await.unwrap_or_else(|why| broken(why).into_response())
        }
        Ok(Err(failure)) => failure.into_response(),
        Err(error) => broken(error.to_string()).into_response(),
    }
}

enum Answer {
    Protobuf(Vec<u8>),
    Json(Box<Held<TraceById, Store>>),
}

#[derive(Serialize)]
struct TraceById {
    trace: AsOtlp,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

fn answer(store: Store, id: &str, wants_protobuf: bool) -> Result<Answer, Failure> {
    // Tempo pads short ids, which older tracers use.
    let id: TraceId = format!("{id:0>32}").parse().map_err(|error| bad(format!("{error}")))?;
    let found = store.trace(id, None)?;
    if found.items.num_rows() == 0 {
        return Err(Failure(StatusCode::NOT_FOUND, "trace not found".to_owned()));
    }
    let lacks = lacking(&found, "spans");
    let message = (!lacks.is_empty()).then(|| lacks.join("; "));
    if !wants_protobuf {
        let status = message.as_ref().map(|_| "PARTIAL");
        let answer = TraceById { trace: AsOtlp(found.items), status, message };
        return Ok(Answer::Json(Box::new(Held::new(answer, store))));
    }
    if !store.hold(found.items.memory_size()) {
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, NO_ROOM.to_owned()));
    }
    let broken = |error: String| Failure(StatusCode::INTERNAL_SERVER_ERROR, error);
    let trace = protobuf(&found.items).map_err(broken)?;
    let mut body = Vec::with_capacity(trace.len() + 16);
    bytes_field(&mut body, 1, &trace);
    if let Some(message) = message {
        varint(&mut body, 3 << 3);
        varint(&mut body, PARTIAL);
        bytes_field(&mut body, 4, message.as_bytes());
    }
    Ok(Answer::Protobuf(body))
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
