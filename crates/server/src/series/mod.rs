//! Metrics and their series over HTTP.
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /api/v1/metrics` | metrics with kind, unit, description and how many series each has |
//! | `GET /api/v1/series` | series that `match` selects, with their points |
//!
//! `docs/api.md` describes the answers.

mod answer;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use lacuna_signal::SignalKind;
use lacuna_signal::selector::Selector;
use lacuna_store::{Finding, Store, StoreError, TimeRange};
use serde::Serialize;

pub use self::answer::{
    BucketsAnswer, ExemplarAnswer, MetricAnswer, MetricsAnswer, PointAnswer, QuantileAnswer,
    ScopeAnswer, SeriesAnswer, SeriesListAnswer,
};
use crate::times::parse_range;

/// Series, and metrics, unless the request says otherwise.
const DEFAULT_SERIES: usize = 100;
const DEFAULT_METRICS: usize = 1_000;
/// Points of all series together, unless the request says otherwise.
const DEFAULT_POINTS: usize = 10_000;
/// Series or metrics at most.
const MAX_LIMIT: usize = 10_000;
/// Points of all series together at most.
const MAX_POINTS: usize = 100_000;
/// Points that are looked at to count series.
const COUNTED_POINTS: usize = 5_000_000;

/// The routes.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/api/v1/metrics", get(metrics_route))
        .route("/api/v1/series", get(series_route))
        .with_state(store)
}

/// Metrics with points in `range`, at most `limit`.
///
/// # Errors
/// The store cannot be read.
pub fn metrics(store: &Store, range: TimeRange, limit: usize) -> Result<MetricsAnswer, StoreError> {
    let found = store.metric_series(range, limit, COUNTED_POINTS)?;
    let metrics = found.items.iter().map(MetricAnswer::of).collect();
    Ok(MetricsAnswer { metrics, cut: found.cut, warnings: warnings(&found.damaged) })
}

/// Series that `selector` selects in `range`, at most `limit`, and their newest `points` points.
///
/// # Errors
/// The store cannot be read.
pub fn series(
    store: &Store,
    selector: &Selector,
    range: TimeRange,
    limit: usize,
    points: usize,
) -> Result<SeriesListAnswer, StoreError> {
    let found = store.series(selector, range, limit, points)?;
    let series = found.items.iter().map(SeriesAnswer::of).collect();
    Ok(SeriesListAnswer { series, cut: found.cut, warnings: warnings(&found.damaged) })
}

fn warnings(damaged: &[Finding]) -> Vec<String> {
    damaged.iter().map(|finding| format!("a part may be missing: {finding}")).collect()
}

/// The parameters of a request.
struct Params(Vec<(String, String)>);

impl Params {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str, default: usize, most: usize) -> Result<usize, String> {
        let Some(text) = self.get(name) else { return Ok(default) };
        text.parse()
            .ok()
            .filter(|number| (1..=most).contains(number))
            .ok_or_else(|| format!("{name} is `{text}`: expected a number from 1 to {most}"))
    }

    fn range(&self) -> Result<TimeRange, String> {
        parse_range(self.get("start"), self.get("end"), Timestamp::now())
    }
}

/// Why there is no answer.
enum Failure {
    Wrong(String),
    Store(StoreError),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Wrong(message)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Runs `work` on a thread that may block, and writes its answer as JSON.
async fn respond<T: Serialize + Send + 'static>(
    raw: Option<String>,
    work: impl FnOnce(Params) -> Result<T, Failure> + Send + 'static,
) -> Response {
    let done = tokio::task::spawn_blocking(move || {
        let raw = raw.unwrap_or_default();
        let params = form_urlencoded::parse(raw.as_bytes()).into_owned().collect();
        let answer = work(Params(params)).map_err(|failure| match failure {
            Failure::Wrong(message) => (StatusCode::BAD_REQUEST, message),
            Failure::Store(error) => {
                tracing::error!(%error, "a query of metrics failed");
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        })?;
        serde_json::to_vec(&answer)
            .map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    });
    match done.await {
        Ok(Ok(body)) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Ok(Err(failure)) => failure.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn metrics_route(State(store): State<Store>, RawQuery(raw): RawQuery) -> Response {
    respond(raw, move |params| {
        let limit = params.number("limit", DEFAULT_METRICS, MAX_LIMIT)?;
        Ok(metrics(&store, params.range()?, limit)?)
    })
    .await
}

async fn series_route(State(store): State<Store>, RawQuery(raw): RawQuery) -> Response {
    respond(raw, move |params| {
        let text = params.get("match").unwrap_or("metric { }");
        let selector =
            Selector::parse(text).map_err(|error| format!("invalid selector: {error}"))?;
        if selector.kind() != SignalKind::Points {
            return Err("match selects no metrics: write metric { … }".to_owned().into());
        }
        let limit = params.number("limit", DEFAULT_SERIES, MAX_LIMIT)?;
        let points = params.number("points", DEFAULT_POINTS, MAX_POINTS)?;
        Ok(series(&store, &selector, params.range()?, limit, points)?)
    })
    .await
}
