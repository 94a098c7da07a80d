//! The endpoints of v1, under `/api`.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use lacuna_signal::TraceId;
use lacuna_store::TimeRange;
use serde::Serialize;

use super::JaegerApi;
use super::error::{ApiError, Envelope, StructuredError, TRACE_NOT_FOUND};
use super::found::{FoundTraces, V1Traces, load};
use super::go;
use super::metrics::{Family, MetricsRequest};
use super::paths::{self, PathsRequest};
use super::quality::{self, QualityRequest};
use super::query::{Query, units};
use super::search::V1Search;
use super::source::{Edges, Listed, Matches, Operation, SourceError, Trace, TraceSource};
use super::transform;
use super::ui::{UiTrace, kind_name, v1_trace_id};
use crate::body::{self, Held};
use crate::search::{NO_ROOM, PROTOBUF, protobuf, wants_protobuf};

const MICROS: i64 = 1_000;
const MILLIS: i64 = 1_000_000;
/// How far back `/api/dependencies` looks by default: Jaeger's 24 hours.
const DEPENDENCY_LOOKBACK: i64 = 24 * 3_600 * 1_000 * MILLIS;
/// Largest body that `/api/transform` reads.
const TRANSFORM_LIMIT: usize = 64 << 20;

/// The routes.
pub fn routes() -> Router<JaegerApi> {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/operations", get(operations))
        .route("/api/services/{service}/operations", get(operation_names))
        .route("/api/traces", get(search))
        .route("/api/traces/{id}", get(trace))
        .route("/api/archive/{id}", post(archive))
        .route("/api/transform", post(transform_otlp).layer(DefaultBodyLimit::max(TRANSFORM_LIMIT)))
        .route("/api/dependencies", get(dependencies))
        .route("/api/deep-dependencies", get(deep_dependencies))
        .route("/analytics/v1/dependencies", get(deep_dependencies))
        .route("/api/metrics/latencies", get(latencies))
        .route("/api/metrics/calls", get(calls))
        .route("/api/metrics/errors", get(errors))
        .route("/api/metrics/minstep", get(min_step))
        .route("/api/quality-metrics", get(quality_metrics))
}

async fn respond<T>(query: &Query, result: Result<T, ApiError>) -> Response
where
    T: Serialize + Send + 'static,
{
    let sent = match result {
        Ok(value) => body::json(value, query.pretty()).await.map_err(ApiError::Internal),
        Err(error) => Err(error),
    };
    sent.unwrap_or_else(ApiError::into_v1)
}

async fn services(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let services = api.ask(|source| Ok(source.services()?)).await;
    let envelope = services.map(|names| Envelope::listed(names.items, names.warnings));
    respond(&Query::parse(raw.as_deref()), envelope).await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UiOperation {
    name: String,
    span_kind: &'static str,
}

async fn operations(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let query = Query::parse(raw.as_deref());
    let result = match query.get("service") {
        None => Err(ApiError::bad("parameter 'service' is required")),
        Some(service) => {
            let service = service.to_owned();
            let kind = query.get("spanKind").map(str::to_owned);
            api.ask(move |source| operations_of(&**source, &service, kind.as_deref())).await
        }
    };
    let envelope = result.map(|Listed { items, warnings }| {
        let named = items
            .into_iter()
            .map(|Operation { name, kind }| UiOperation { name, span_kind: kind_name(kind) });
        Envelope::listed(named.collect(), warnings)
    });
    respond(&query, envelope).await
}

/// Operations of `service`, of spans of `kind` if it is given, by Jaeger's name of the kind.
fn operations_of(
    source: &dyn TraceSource,
    service: &str,
    kind: Option<&str>,
) -> Result<Listed<Operation>, ApiError> {
    let mut operations = source.operations(service)?;
    if let Some(kind) = kind {
        operations.items.retain(|operation| kind_name(operation.kind) == kind);
    }
    Ok(operations)
}

async fn operation_names(
    State(api): State<JaegerApi>,
    Path(service): Path<String>,
    RawQuery(raw): RawQuery,
) -> Response {
    let names = api.ask(move |source| {
        let Listed { items, warnings } = source.operations(&service)?;
        let mut names: Vec<String> = items.into_iter().map(|operation| operation.name).collect();
        names.sort();
        names.dedup();
        Ok(Envelope::listed(names, warnings))
    });
    let envelope = names.await;
    respond(&Query::parse(raw.as_deref()), envelope).await
}

/// The trace and, unless it is to be raw, its event log records.
fn by_id(
    source: &dyn TraceSource,
    id: Option<TraceId>,
    raw: bool,
) -> Result<Option<UiTrace>, SourceError> {
    let Some(id) = id else { return Ok(None) };
    let Some(Trace { spans, mut warnings }) = load(source, id, raw)? else { return Ok(None) };
    let mut logs = None;
    if !raw {
        let found = source.logs_of_trace(id)?;
        warnings.extend(found.warnings);
        logs = Some(found.records);
    }
    Ok(Some(UiTrace { spans, logs, warnings }))
}

async fn trace(
    State(api): State<JaegerApi>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = Query::parse(raw.as_deref());
    if wants_protobuf(&headers) {
        return tempo_trace(&api, &id).await.unwrap_or_else(ApiError::into_v1);
    }
    let result = match by_id_params(&id, &query) {
        Err(error) => Err(error),
        Ok((id, raw)) => {
            api.ask(move |source| {
                by_id(&**source, id, raw)?
                    .map(|trace| Held::new(Envelope::of(Some([trace])), Arc::clone(source)))
                    .ok_or_else(|| ApiError::NotFound(TRACE_NOT_FOUND.to_owned()))
            })
            .await
        }
    };
    respond(&query, result).await
}

/// The same path in Tempo's API, whose clients ask for protobuf: OTLP's `TracesData`.
async fn tempo_trace(api: &JaegerApi, id: &str) -> Result<Response, ApiError> {
    let id = go::parse_trace_id(id).map_err(ApiError::Bad)?;
    let body = api.ask_heavy(move |source| {
        let trace = id.map(|id| load(&**source, id, true)).transpose()?.flatten();
        let trace = trace.ok_or_else(|| ApiError::NotFound(TRACE_NOT_FOUND.to_owned()))?;
        if !source.hold(trace.spans.memory_size()) {
            return Err(SourceError::Busy(NO_ROOM.to_owned()).into());
        }
        protobuf(&trace.spans).map_err(ApiError::Internal)
    });
    Ok(([(CONTENT_TYPE, PROTOBUF)], body.await?).into_response())
}

/// The id and `raw`. `start` and `end` are read for their form only: they are hints, which an id
/// look-up does not need, and Grafana sends them in milliseconds.
fn by_id_params(id: &str, query: &Query) -> Result<(Option<TraceId>, bool), ApiError> {
    let id = go::parse_trace_id(id).map_err(ApiError::Bad)?;
    query.v1("start", units(MICROS))?;
    query.v1("end", units(MICROS))?;
    Ok((id, query.v1("raw", go::parse_bool)?.unwrap_or(false)))
}

async fn search(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let query = Query::parse(raw.as_deref());
    let result = match V1Search::parse(&query, api.now()) {
        Ok(request) => {
            let find = move |source: &_| Ok(Held::new(find(source, &request)?, Arc::clone(source)));
            api.ask(find).await
        }
        Err(error) => Err(error),
    };
    respond(&query, result).await
}

/// Traces in an answer: asked for by id, or found.
#[derive(Serialize)]
#[serde(untagged)]
enum Traces {
    ById(Vec<UiTrace>),
    Found(V1Traces),
}

fn find(source: &Arc<dyn TraceSource>, request: &V1Search) -> Result<Envelope<Traces>, ApiError> {
    let search = &request.search;
    if !request.trace_ids.is_empty() {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for id in &request.trace_ids {
            match by_id(&**source, *id, search.raw)? {
                Some(trace) => found.push(trace),
                None => {
                    let id = id.map_or_else(|| "0".repeat(16), v1_trace_id);
                    missing.push(StructuredError::trace_not_found(id));
                }
            }
        }
        let errors = (!missing.is_empty()).then_some(missing);
        return Ok(Envelope { errors, ..Envelope::of(Some(Traces::ById(found))) });
    }
    let selector = search.selector(&**source)?;
    let Matches { ids, warnings } = source.find_traces(&selector, search.range, search.limit)?;
    let found = V1Traces(FoundTraces::new(source, ids, search.raw));
    Ok(Envelope::of(Some(Traces::Found(found))).noting(warnings))
}

async fn archive(Path(id): Path<String>, RawQuery(raw): RawQuery) -> Response {
    let query = Query::parse(raw.as_deref());
    let why = "there is no archive: Lacuna keeps every trace until its retention ends";
    let result = by_id_params(&id, &query)
        .and_then(|_| Err::<(), _>(ApiError::NotImplemented(why.to_owned())));
    respond(&query, result).await
}

async fn transform_otlp(
    State(api): State<JaegerApi>,
    RawQuery(raw): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let result = match body {
        Ok(body) => api.ask(move |_| transform::transform(&body)).await,
        Err(error) => {
            let message =
                format!("cannot read the body (at most {TRANSFORM_LIMIT} bytes): {error}");
            Err(if error.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::TooLarge(message)
            } else {
                ApiError::Bad(message)
            })
        }
    };
    respond(&Query::parse(raw.as_deref()), result).await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DependencyLink {
    parent: String,
    child: String,
    call_count: u64,
}

async fn dependencies(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let query = Query::parse(raw.as_deref());
    let service = query.get("service").map(str::to_owned);
    let result = match dependency_range(&query, api.now()) {
        Err(error) => Err(error),
        Ok(range) => {
            api.ask_heavy(move |source| {
                let Edges { mut edges, warnings } = source.edges(range)?;
                if let Some(service) = service {
                    edges.retain(|edge| edge.parent == service || edge.child == service);
                }
                let links = edges.into_iter().map(|edge| DependencyLink {
                    parent: edge.parent,
                    child: edge.child,
                    call_count: edge.calls,
                });
                Ok(Envelope::of(Some(links.collect::<Vec<_>>())).noting(warnings))
            })
            .await
        }
    };
    respond(&query, result).await
}

fn dependency_range(query: &Query, now: i64) -> Result<TimeRange, ApiError> {
    let end = query.v1("endTs", units(MILLIS))?.unwrap_or(now);
    let lookback = query.v1("lookback", units(MILLIS))?.unwrap_or(DEPENDENCY_LOOKBACK);
    Ok(TimeRange { start: end.saturating_sub(lookback), end: end.saturating_add(MILLIS) })
}

async fn deep_dependencies(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let query = Query::parse(raw.as_deref());
    let result = match PathsRequest::parse(&query, api.now()) {
        Ok(request) => api.ask_heavy(move |source| paths::find(&**source, &request)).await,
        Err(error) => Err(error),
    };
    respond(&query, result).await
}

async fn metrics(
    api: &JaegerApi,
    raw: Option<&str>,
    read: impl FnOnce(&Query, i64) -> Result<MetricsRequest, ApiError>,
) -> Response {
    let query = Query::parse(raw);
    let result = match read(&query, api.now()) {
        Ok(request) => api.ask_heavy(move |source| Family::compute(&**source, &request)).await,
        Err(error) => Err(error),
    };
    respond(&query, result).await
}

async fn latencies(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    metrics(&api, raw.as_deref(), MetricsRequest::latencies).await
}

async fn calls(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    metrics(&api, raw.as_deref(), MetricsRequest::calls).await
}

async fn errors(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    metrics(&api, raw.as_deref(), MetricsRequest::errors).await
}

/// The least useful step of the metrics, in milliseconds. Spans are counted one by one, so it is
/// the unit itself.
async fn min_step(RawQuery(raw): RawQuery) -> Response {
    respond(&Query::parse(raw.as_deref()), Ok(Envelope::of(Some(1)))).await
}

async fn quality_metrics(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let query = Query::parse(raw.as_deref());
    let result = match QualityRequest::parse(&query, api.now()) {
        Ok(request) => api.ask_heavy(move |source| quality::measure(&**source, &request)).await,
        Err(error) => Err(error),
    };
    respond(&query, result).await
}
