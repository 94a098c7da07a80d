//! `GET /api/v1/export`: what the store holds, as OTLP/JSON lines.
//!
//! One line is one export request of at most [`ROWS`] rows. Rows are read and written as the client
//! takes them: a slow client makes the reader wait, and memory holds a few lines, however much is
//! asked for.

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::to_json::to_json;
use lacuna_signal::selector::Selector;
use lacuna_store::{Store, TimeRange};
use serde::Deserialize;
use tokio::sync::mpsc::Sender;
use tokio_stream::wrappers::ReceiverStream;

use crate::api::Failure;
use crate::lacking::{damage, note};
use crate::times::parse_range;

/// Rows in one line at most.
const ROWS: usize = 1_000;
/// Lines that may wait for the client.
const LINES: usize = 4;

/// The route.
pub fn router(store: Store) -> Router {
    Router::new().route("/api/v1/export", get(export)).with_state(store)
}

#[derive(Deserialize)]
struct ExportQuery {
    from: Option<String>,
    to: Option<String>,
    signals: Option<String>,
    select: Option<String>,
}

async fn export(
    State(store): State<Store>,
    query: Result<Query<ExportQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failure> {
    let bad = |message| Failure(StatusCode::BAD_REQUEST, message);
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let range = parse_range(query.from.as_deref(), query.to.as_deref(), Timestamp::now());
    let range = range.map_err(bad)?;
    let mut kinds = signals(query.signals.as_deref()).map_err(bad)?;
    let selector = query.select.as_deref().map(Selector::parse).transpose();
    let selector = selector.map_err(|error| bad(format!("select: {error}")))?;
    if let Some(selector) = &selector {
        kinds.retain(|kind| *kind == selector.kind());
    }
    let (lines, taken) = tokio::sync::mpsc::channel(LINES);
    tokio::task::spawn_blocking(move || {
        let mut warnings = Vec::new();
        for kind in kinds {
            match write(&store, kind, selector.as_ref(), range, &lines) {
                Ok(Some(damaged)) => note(&mut warnings, damaged),
                // The client has gone.
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "an export was cut short");
                    // The connection breaks, so that the client cannot take a part for the whole.
                    let _ = lines.blocking_send(Err(std::io::Error::other(error)));
                    return;
                }
            }
        }
        if !warnings.is_empty() {
            // No OTLP, so that who does not look for it stumbles over it.
            let line = format!("{}\n", serde_json::json!({ "warnings": warnings }));
            let _ = lines.blocking_send(Ok(Bytes::from(line)));
        }
    });
    let body = Body::from_stream(ReceiverStream::new(taken));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn signals(list: Option<&str>) -> Result<Vec<SignalKind>, String> {
    let Some(list) = list.filter(|list| !list.is_empty()) else {
        return Ok(SignalKind::ALL.to_vec());
    };
    let kind = |name: &str| match name.trim() {
        "spans" | "traces" => Ok(SignalKind::Spans),
        "logs" => Ok(SignalKind::Logs),
        "metrics" | "points" => Ok(SignalKind::Points),
        other => Err(format!("`{other}` is not a signal: signals are spans, logs and metrics")),
    };
    let mut kinds = list.split(',').map(kind).collect::<Result<Vec<_>, _>>()?;
    kinds.dedup();
    Ok(kinds)
}

/// Sends the rows of a kind, and says what damage left out; `None` if nobody takes them any more.
fn write(
    store: &Store,
    kind: SignalKind,
    selector: Option<&Selector>,
    range: TimeRange,
    lines: &Sender<std::io::Result<Bytes>>,
) -> Result<Option<Vec<String>>, Box<dyn std::error::Error + Send + Sync>> {
    let mut scan = store.scan(kind, selector, range, None, usize::MAX)?;
    for batch in scan.by_ref() {
        let batch = batch?;
        for start in (0..batch.num_rows()).step_by(ROWS) {
            let part = batch.slice(start, ROWS.min(batch.num_rows() - start));
            let mut line = to_json(&part)?;
            line.push(b'\n');
            if lines.blocking_send(Ok(Bytes::from(line))).is_err() {
                return Ok(None);
            }
        }
    }
    Ok(Some(damage(scan.damaged())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named() {
        assert_eq!(signals(None).unwrap().len(), 3);
        assert_eq!(signals(Some("logs,spans")).unwrap(), [SignalKind::Logs, SignalKind::Spans]);
        assert!(signals(Some("log")).unwrap_err().contains("signals are spans, logs and metrics"));
    }
}
