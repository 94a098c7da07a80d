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
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use jiff::Timestamp;
use lacuna_signal::SignalKind;
use lacuna_signal::selector::Selector;
use lacuna_store::{Series, Store, StoreError, TimeRange};
use serde::Serialize;

pub use self::answer::{
    BucketsAnswer, ExemplarAnswer, MetricAnswer, MetricsAnswer, PointAnswer, QuantileAnswer,
    ScopeAnswer, SeriesAnswer, SeriesListAnswer,
};
use crate::gate::Gate;
use crate::lacking::damage;
use crate::search::{Failure, answer};
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
pub fn router(store: Store, gate: Gate) -> Router {
    Router::new()
        .route("/api/v1/metrics", get(metrics_route))
        .route("/api/v1/series", get(series_route))
        .with_state(Shared { store, gate })
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    store: Store,
    gate: Gate,
}

/// Metrics with points in `range`, at most `limit`.
///
/// # Errors
/// The store cannot be read.
pub fn metrics(store: &Store, range: TimeRange, limit: usize) -> Result<MetricsAnswer, StoreError> {
    let found = store.metric_series(range, limit, COUNTED_POINTS)?;
    let metrics = found.items.iter().map(MetricAnswer::of).collect();
    Ok(MetricsAnswer { metrics, cut: found.cut, warnings: damage(&found.damaged) })
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
    Ok(SeriesListAnswer { series, cut: found.cut, warnings: damage(&found.damaged) })
}

/// The parameters of a request.
struct Params(Vec<(String, String)>);

impl Params {
    fn parse(raw: Option<String>) -> Self {
        let raw = raw.unwrap_or_default();
        Self(form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

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

fn bad(message: String) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message)
}

async fn metrics_route(
    State(Shared { store, gate }): State<Shared>,
    RawQuery(raw): RawQuery,
) -> Response {
    answer(&store, &gate, move |store| {
        let params = Params::parse(raw);
        let limit = params.number("limit", DEFAULT_METRICS, MAX_LIMIT).map_err(bad)?;
        Ok(metrics(store, params.range().map_err(bad)?, limit)?)
    })
    .await
}

async fn series_route(
    State(Shared { store, gate }): State<Shared>,
    RawQuery(raw): RawQuery,
) -> Response {
    answer(&store, &gate, move |store| {
        let params = Params::parse(raw);
        let text = params.get("match").unwrap_or("metric { }");
        let selector =
            Selector::parse(text).map_err(|error| bad(format!("invalid selector: {error}")))?;
        if selector.kind() != SignalKind::Points {
            return Err(bad("match selects no metrics: write metric { … }".to_owned()));
        }
        let limit = params.number("limit", DEFAULT_SERIES, MAX_LIMIT).map_err(bad)?;
        let points = params.number("points", DEFAULT_POINTS, MAX_POINTS).map_err(bad)?;
        let range = params.range().map_err(bad)?;
        let found = store.series(&selector, range, limit, points)?;
        let (cut, warnings) = (found.cut, damage(&found.damaged));
        Ok(SeriesList { series: Each(found.items), cut, warnings })
    })
    .await
}

/// [`SeriesListAnswer`], of which one series at a time is made as it is written.
#[derive(Serialize)]
struct SeriesList {
    series: Each,
    cut: bool,
    warnings: Vec<String>,
}

struct Each(Vec<Series>);

impl Serialize for Each {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(SeriesAnswer::of))
    }
}
