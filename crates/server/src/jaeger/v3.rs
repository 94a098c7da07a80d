//! The endpoints of v3, under `/api/v3`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;

use super::JaegerApi;
use super::error::ApiError;
use super::filter;
use super::found::{FoundTraces, OneTrace, ResourceSpans, load};
use super::go;
use super::query::{Query, malformed};
use super::search::{Search, time_range};
use super::source::{Edges, Listed, Matches, TraceSource};
use super::summary::Summary;
use super::ui::kind_name;
use crate::body::{self, Held};
use crate::lacking::note;

/// The routes.
pub fn routes() -> Router<JaegerApi> {
    Router::new()
        .route("/api/v3/services", get(services))
        .route("/api/v3/operations", get(operations))
        .route("/api/v3/traces", get(find_traces))
        .route("/api/v3/traces/{id}", get(trace))
        .route("/api/v3/trace-summaries", get(trace_summaries))
        .route("/api/v3/dependencies", get(dependencies))
        .route("/api/v3/capabilities", get(capabilities))
}

async fn respond<T>(result: Result<T, ApiError>) -> Response
where
    T: Serialize + Send + 'static,
{
    let sent = match result {
        Ok(value) => body::json(value, false).await.map_err(ApiError::Internal),
        Err(error) => Err(error),
    };
    sent.unwrap_or_else(ApiError::into_v3)
}

#[derive(Serialize)]
struct Services {
    services: Vec<String>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

async fn services(State(api): State<JaegerApi>) -> Response {
    let services = api.ask(|source| {
        let Listed { items, warnings } = source.services()?;
        Ok(Services { services: items, warnings })
    });
    respond(services.await).await
}

#[derive(Serialize)]
struct Operations {
    operations: Vec<Operation>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
struct Operation {
    name: String,
    span_kind: &'static str,
}

async fn operations(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let query = Query::parse(raw.as_deref());
    let Some(service) = query.get("service").map(str::to_owned) else {
        return malformed("service", "it is required").into_v3();
    };
    let kind = query.first(&["spanKind", "span_kind"]).map(|(_, kind)| kind.to_owned());
    let operations = api.ask(move |source| {
        let Listed { items, warnings } = source.operations(&service)?;
        // A kind is asked for as it is shown: `internal` is what is shown of a span without one.
        let shown: BTreeSet<Operation> = items
            .into_iter()
            .map(|operation| Operation {
                name: operation.name,
                span_kind: match kind_name(operation.kind) {
                    "" => "internal",
                    kind => kind,
                },
            })
            .filter(|operation| kind.as_deref().is_none_or(|kind| operation.span_kind == kind))
            .collect();
        Ok(Operations { operations: shown.into_iter().collect(), warnings })
    });
    respond(operations.await).await
}

/// `{"result":…}`, the envelope of a gRPC gateway.
#[derive(Serialize)]
struct Gateway<T> {
    result: T,
    /// Asks for the next page.
    #[serde(rename = "nextPageToken", skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
    /// What is missing from it, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Traces as OTLP's `TracesData`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TracesData<T> {
    resource_spans: T,
}

fn no_traces() -> ApiError {
    ApiError::NotFound("No traces found".to_owned())
}

async fn trace(
    State(api): State<JaegerApi>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
) -> Response {
    let query = Query::parse(raw.as_deref());
    let parsed =
        go::parse_trace_id(&id).map_err(|why| malformed("trace_id", &why)).and_then(|id| {
            // Hints that an id look-up does not need; read for their form.
            query.v3(&["startTime", "start_time"], go::parse_rfc3339)?;
            query.v3(&["endTime", "end_time"], go::parse_rfc3339)?;
            Ok((id, query.v3(&["rawTraces", "raw_traces"], go::parse_bool)?.unwrap_or(false)))
        });
    let result = match parsed {
        Err(error) => Err(error),
        Ok((id, raw)) => {
            api.ask(move |source| {
                let trace = id.map(|id| load(&**source, id, raw)).transpose()?.flatten();
                let trace = trace.ok_or_else(no_traces)?;
                let resource_spans = OneTrace { spans: trace.spans, raw };
                let result = TracesData { resource_spans };
                let answer = Gateway { result, next_page_token: None, warnings: trace.warnings };
                Ok(Held::new(answer, Arc::clone(source)))
            })
            .await
        }
    };
    respond(result).await
}

async fn find_traces(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let result = match Search::parse_v3(&Query::parse(raw.as_deref())) {
        Err(error) => Err(error),
        Ok(search) => {
            api.ask(move |source| {
                let Found { traces, next_page_token, warnings } = find(source, &search)?;
                if traces.is_empty() {
                    return Err(no_traces());
                }
                let result = TracesData { resource_spans: ResourceSpans(traces) };
                Ok(Gateway { result, next_page_token, warnings })
            })
            .await
        }
    };
    respond(result).await
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summaries {
    summaries: Vec<Summary>,
    /// Asks for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_page_token: Option<String>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

async fn trace_summaries(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let result = match Search::parse_v3(&Query::parse(raw.as_deref())) {
        Err(error) => Err(error),
        Ok(search) => api.ask_heavy(move |source| summarise(source, &search)).await,
    };
    respond(result).await
}

/// What a search finds.
struct Found {
    traces: FoundTraces,
    next_page_token: Option<String>,
    /// What is missing from it, in words.
    warnings: Vec<String>,
}

fn find(source: &Arc<dyn TraceSource>, search: &Search) -> Result<Found, ApiError> {
    let selector = search.selector(&**source)?;
    let Matches { ids, warnings } = source.find_traces(&selector, search.range, search.limit)?;
    let (ids, next_page_token) = match search.page {
        Some(page) => page.of(ids),
        None => (ids, None),
    };
    Ok(Found { traces: FoundTraces::new(source, ids, search.raw), next_page_token, warnings })
}

fn summarise(source: &Arc<dyn TraceSource>, search: &Search) -> Result<Summaries, ApiError> {
    let Found { traces, next_page_token, mut warnings } = find(source, search)?;
    let mut summaries = Vec::new();
    for trace in traces.read() {
        let trace = trace?;
        note(&mut warnings, trace.warnings);
        summaries.extend(Summary::of(&trace.spans));
    }
    Ok(Summaries { summaries, next_page_token, warnings })
}

/// What a search can be asked, for clients that offer no more than that.
#[derive(Serialize)]
struct Capabilities {
    search: SearchCapabilities,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SearchCapabilities {
    without_service_name: bool,
    same_span_conjunction: bool,
    filter: FilterCapabilities,
    paginated: bool,
}

#[derive(Serialize)]
struct FilterCapabilities {
    levels: [&'static str; filter::LEVELS.len()],
    operators: [&'static str; filter::OPERATORS.len()],
}

async fn capabilities() -> Response {
    let filter = FilterCapabilities { levels: filter::LEVELS, operators: filter::OPERATORS };
    let search = SearchCapabilities {
        without_service_name: true,
        same_span_conjunction: true,
        filter,
        paginated: true,
    };
    respond(Ok(Capabilities { search })).await
}

#[derive(Serialize)]
struct Dependencies {
    dependencies: Vec<Dependency>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    parent: String,
    child: String,
    call_count: String,
}

async fn dependencies(State(api): State<JaegerApi>, RawQuery(raw): RawQuery) -> Response {
    let query = Query::parse(raw.as_deref());
    let range = time_range(&query, &["startTime", "start_time"], &["endTime", "end_time"]);
    let result = match range {
        Err(error) => Err(error),
        Ok(range) => {
            api.ask_heavy(move |source| {
                let Edges { edges, warnings } = source.edges(range)?;
                let dependencies = edges.into_iter().map(|edge| Dependency {
                    parent: edge.parent,
                    child: edge.child,
                    // A 64-bit integer is a string in protobuf's JSON.
                    call_count: edge.calls.to_string(),
                });
                Ok(Dependencies { dependencies: dependencies.collect(), warnings })
            })
            .await
        }
    };
    respond(result).await
}
