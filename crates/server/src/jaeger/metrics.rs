//! Rates, errors and latencies computed from spans: Jaeger's "service performance monitoring",
//! for which Jaeger itself needs a Prometheus beside it.
//!
//! At each step `t` a point covers the spans that start in `(t - ratePer, t]`, and quantiles are those
//! of the spans' own durations (nearest rank). Of more spans than are read for one answer, points are
//! made from the store's sums by minute ([`minutes`]).

mod minutes;
mod spans;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::{
    AttrType, DURATION, NAME, START_TIME, STATUS_CODE, Scope, attribute_column,
};
use lacuna_signal::selector::SpanKind;
use lacuna_signal::semconv::SERVICE_NAME;
use lacuna_signal::value::double_text;
use lacuna_store::TimeRange;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::error::ApiError;
use super::go;
use super::query::{Query, unable, units};
use super::search;
use super::search::{service_kind_expr, span_kinds};
use super::source::{SourceError, TraceSource};
use super::unnamed::service_of;
use spans::Call;

const MILLIS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MILLIS;
const DEFAULT_LOOKBACK: i64 = 3_600 * SECOND;
const DEFAULT_STEP: i64 = 5 * SECOND;
const DEFAULT_RATE_PER: i64 = 600 * SECOND;
/// Prometheus' own limit on the points of a series.
const MAX_STEPS: i64 = 11_000;
/// Spans that one answer is computed from, at most: about 150 MB of them.
const MAX_SPANS: usize = 5_000_000;
/// What one of them takes: itself, and when quantiles are asked for, its duration and count.
const CALL_BYTES: usize = size_of::<Call>() + 2 * size_of::<u64>();
const ERROR: u8 = 2;

/// What a point says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measure {
    /// This quantile of the durations, in milliseconds.
    Latency(f64),
    /// Calls per second.
    Calls,
    /// Failed calls over all calls.
    Errors,
}

/// A request for metrics.
#[derive(Debug)]
pub struct MetricsRequest {
    measure: Measure,
    services: Vec<String>,
    kinds: Vec<SpanKind>,
    by_operation: bool,
    end: i64,
    lookback: i64,
    step: i64,
    rate_per: i64,
}

impl MetricsRequest {
    /// Reads a request for call rates.
    pub fn calls(query: &Query, now: i64) -> Result<Self, ApiError> {
        Self::parse(query, now, Measure::Calls)
    }

    /// Reads a request for error rates.
    pub fn errors(query: &Query, now: i64) -> Result<Self, ApiError> {
        Self::parse(query, now, Measure::Errors)
    }

    /// Reads a request for latencies.
    pub fn latencies(query: &Query, now: i64) -> Result<Self, ApiError> {
        let quantile = go::parse_float(query.get("quantile").unwrap_or_default())
            .map_err(|why| unable("quantile", &why))?;
        if !(0.0..=1.0).contains(&quantile) {
            return Err(unable("quantile", "it must be between 0 and 1"));
        }
        Self::parse(query, now, Measure::Latency(quantile))
    }

    fn parse(query: &Query, now: i64, measure: Measure) -> Result<Self, ApiError> {
        let services: Vec<String> =
            query.all("service").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if services.is_empty() {
            return Err(unable("service", "please provide at least one service name"));
        }
        let by_operation = query.v1("groupByOperation", go::parse_bool)?.unwrap_or(false);
        let kinds = span_kinds(query)?;
        let end = query.v1("endTs", units(MILLIS))?.unwrap_or(now);
        let positive = |name: &str, default: i64| -> Result<i64, ApiError> {
            let nanos = query.v1(name, units(MILLIS))?.unwrap_or(default);
            if nanos > 0 { Ok(nanos) } else { Err(unable(name, "it must be greater than 0")) }
        };
        let lookback = positive("lookback", DEFAULT_LOOKBACK)?;
        let step = positive("step", DEFAULT_STEP)?;
        let rate_per = positive("ratePer", DEFAULT_RATE_PER)?;
        if lookback / step > MAX_STEPS {
            let why = format!("lookback holds more than {MAX_STEPS} steps");
            return Err(unable("step", &why));
        }
        Ok(Self { measure, services, kinds, by_operation, end, lookback, step, rate_per })
    }

    fn times(&self) -> impl Iterator<Item = i64> {
        let start = self.end.saturating_sub(self.lookback);
        let step = self.step;
        (0..=self.lookback / step).map(move |n| start.saturating_add(n.saturating_mul(step)))
    }
}

/// A family of metrics, as `/api/metrics/*` sends it, without v1's envelope.
#[derive(Debug, Serialize)]
pub struct Family {
    name: String,
    r#type: &'static str,
    help: String,
    metrics: Vec<Metric>,
    /// What is missing from them, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metric {
    labels: Vec<Label>,
    metric_points: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct Label {
    name: &'static str,
    value: String,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    time: i64,
    value: f64,
}

/// Service and, if asked for, operation.
type Key = (String, Option<String>);
/// The calls of each.
type Series = HashMap<Key, Vec<Call>>;
/// The points of each.
type Points = BTreeMap<Key, Vec<Point>>;

impl Family {
    /// Reads the spans that the request is about and computes its points.
    pub fn compute(source: &dyn TraceSource, request: &MetricsRequest) -> Result<Self, ApiError> {
        let calls = source.calls(&request.services, &request.kinds, minutes::range(request))?;
        let (series, warnings) = match calls {
            Some(calls) => (minutes::points(calls.items, request), calls.warnings),
            None => {
                let (series, warnings) = collect(source, request)?;
                let points = |(key, calls)| (key, spans::points(calls, request));
                (series.into_iter().map(points).collect::<Points>(), warnings)
            }
        };
        let grouped = if request.by_operation { "_operation" } else { "" };
        let by = if request.by_operation { "service & operation" } else { "service" };
        let (what, help) = match request.measure {
            Measure::Calls => ("call_rate", "calls/sec".to_owned()),
            Measure::Errors => (
                "error_rate",
                "error rate, computed as a fraction of errors/sec over calls/sec".to_owned(),
            ),
            Measure::Latency(q) => ("latencies", format!("{q:.2}th quantile latency")),
        };
        let metrics = series.into_iter().map(|((service, operation), metric_points)| {
            let operation = operation.map(|value| Label { name: "operation", value });
            let service = Label { name: "service_name", value: service };
            let labels = operation.into_iter().chain([service]).collect();
            Metric { labels, metric_points }
        });
        Ok(Self {
            name: format!("service{grouped}_{what}"),
            r#type: "GAUGE",
            help: format!("{help}, grouped by {by}"),
            metrics: metrics.collect(),
            warnings,
        })
    }
}

fn collect(
    source: &dyn TraceSource,
    request: &MetricsRequest,
) -> Result<(Series, Vec<String>), ApiError> {
    let selector = search::spans(service_kind_expr(&request.services, &request.kinds))?;
    let before = request.lookback.saturating_add(request.rate_per);
    // Windows are open at their start and closed at their end; ranges are the other way round.
    let range = TimeRange {
        start: request.end.saturating_sub(before).saturating_add(1),
        end: request.end.saturating_add(1),
    };
    let service = attribute_column(Scope::Resource, AttrType::Str, SERVICE_NAME);
    let columns = [service.as_str(), NAME, START_TIME, DURATION, STATUS_CODE];
    let mut series = Series::new();
    let (mut count, mut room) = (0, true);
    let mut key = (String::new(), None);
    let warnings = source.scan_spans(&selector, range, &columns, &mut |batch| {
        count += batch.num_rows();
        room = source.hold(batch.num_rows() * CALL_BYTES);
        if count > MAX_SPANS || !room {
            return ControlFlow::Break(());
        }
        let rows = SpanRows::new(batch);
        for row in 0..batch.num_rows() {
            let service = service_of(&rows, row);
            let operation = request.by_operation.then(|| rows.name(row));
            if key.0 != service || key.1.as_deref() != operation {
                key = (service.to_owned(), operation.map(str::to_owned));
            }
            let call = Call {
                start: rows.start(row),
                duration: rows.duration(row).max(0),
                failed: rows.status_code(row) == ERROR,
            };
            match series.get_mut(&key) {
                Some(calls) => calls.push(call),
                None => {
                    series.insert(key.clone(), vec![call]);
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    if !room {
        let why = format!(
            "more than {count} spans, for which there is no memory now; ask again, or for a shorter \
             lookback or ratePer"
        );
        return Err(SourceError::Busy(why).into());
    }
    if count > MAX_SPANS {
        let why = format!("more than {MAX_SPANS} spans; ask for a shorter lookback or ratePer");
        return Err(SourceError::TooMuch(why).into());
    }
    Ok((series, warnings))
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("gaugeValue", &Gauge(self.value))?;
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.time));
        map.serialize_entry("timestamp", &time.map_err(serde::ser::Error::custom)?.to_string())?;
        map.end()
    }
}

struct Gauge(f64);

impl Serialize for Gauge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        if self.0.is_finite() {
            map.serialize_entry("doubleValue", &self.0)?;
        } else {
            map.serialize_entry("doubleValue", &double_text(self.0))?;
        }
        map.end()
    }
}
