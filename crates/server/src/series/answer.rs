//! What is answered about metrics and series, and how it is made from what the store found.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lacuna_signal::Batch;
use lacuna_signal::rows::{Exemplar, MetricType, Number, PointRows};
use lacuna_signal::schema::{AttrType, Scope};
use lacuna_signal::value::double_text;
use lacuna_store::{MetricSeries, Series, SeriesAttribute};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// Metrics that there are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsAnswer {
    /// By name.
    pub metrics: Vec<MetricAnswer>,
    /// Whether there are more, or more points than were counted.
    pub cut: bool,
    /// What is missing for another reason.
    pub warnings: Vec<String>,
}

/// A metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricAnswer {
    /// Name.
    pub name: String,
    /// `gauge`, `sum`, `histogram`, `exponential_histogram` or `summary`.
    pub kind: String,
    /// UCUM; empty if none was given.
    pub unit: String,
    /// Empty if none was given.
    pub description: String,
    /// `delta`, `cumulative` or `unspecified`.
    pub temporality: String,
    /// Whether a sum only rises.
    pub monotonic: bool,
    /// Distinct series.
    pub series: u64,
    /// Points.
    pub points: u64,
}

/// Series that were found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesListAnswer {
    /// By name, then by what else tells them apart.
    pub series: Vec<SeriesAnswer>,
    /// Whether there are more series, or older points.
    pub cut: bool,
    /// What is missing for another reason.
    pub warnings: Vec<String>,
}

/// A series and its points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesAnswer {
    /// The metric's name.
    pub name: String,
    /// As [`MetricAnswer::kind`].
    pub kind: String,
    /// UCUM; empty if none was given.
    pub unit: String,
    /// Of the newest point; empty if none was given.
    pub description: String,
    /// `delta`, `cumulative` or `unspecified`.
    pub temporality: String,
    /// Whether a sum only rises.
    pub monotonic: bool,
    /// The points' attributes.
    pub attributes: BTreeMap<String, Json>,
    /// The resource's.
    pub resource: BTreeMap<String, Json>,
    /// The instrumentation scope.
    pub scope: ScopeAnswer,
    /// Oldest first.
    pub points: Vec<PointAnswer>,
}

/// An instrumentation scope.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScopeAnswer {
    /// Its name; empty if none was given.
    pub name: String,
    /// Its version; empty if none was given.
    pub version: String,
    /// Its attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Json>,
}

/// A point. Which fields it has depends on the metric's kind; doubles that JSON has no number for
/// are `"NaN"`, `"Infinity"` and `"-Infinity"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PointAnswer {
    /// When.
    pub time: Timestamp,
    /// Since when it counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// Of a gauge or sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Json>,
    /// Values seen, of the other kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Their sum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<Json>,
    /// The least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<Json>,
    /// The greatest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<Json>,
    /// Inclusive upper bounds of a histogram's buckets but the last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explicit_bounds: Vec<Json>,
    /// Their counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bucket_counts: Vec<u64>,
    /// Of an exponential histogram.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<i32>,
    /// Values that are as good as zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_count: Option<u64>,
    /// Up to which size they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_threshold: Option<Json>,
    /// Buckets of positive values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positive: Option<BucketsAnswer>,
    /// Buckets of negative values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative: Option<BucketsAnswer>,
    /// Of a summary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<QuantileAnswer>,
    /// Measurements with the traces that they were made in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exemplars: Vec<ExemplarAnswer>,
    /// The series ends or has a gap here: the point has no value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_recorded_value: bool,
}

/// Buckets of an exponential histogram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BucketsAnswer {
    /// Index of the first.
    pub offset: i32,
    /// How many values each has.
    pub counts: Vec<u64>,
}

/// A quantile of a summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantileAnswer {
    /// From 0 to 1.
    pub quantile: Json,
    /// Its value.
    pub value: Json,
}

/// An exemplar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExemplarAnswer {
    /// When it was measured.
    pub time: Timestamp,
    /// The measurement.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub value: Option<Json>,
    /// 32 hex digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trace_id: Option<String>,
    /// 16 hex digits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub span_id: Option<String>,
    /// Attributes that the series does not have, as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub attributes: BTreeMap<String, String>,
}

fn kind_name(code: u8) -> String {
    let name = match MetricType::from_code(code) {
        Some(MetricType::Gauge) => "gauge",
        Some(MetricType::Sum) => "sum",
        Some(MetricType::Histogram) => "histogram",
        Some(MetricType::ExponentialHistogram) => "exponential_histogram",
        Some(MetricType::Summary) => "summary",
        None => "unknown",
    };
    name.to_owned()
}

fn temporality_name(code: u8) -> String {
    let name = match code {
        1 => "delta",
        2 => "cumulative",
        _ => "unspecified",
    };
    name.to_owned()
}

impl MetricAnswer {
    /// Of what the store found.
    pub(super) fn of(found: &MetricSeries) -> Self {
        let metric = &found.metric;
        Self {
            name: metric.name.clone(),
            kind: kind_name(metric.metric_type),
            unit: metric.unit.clone(),
            description: metric.description.clone(),
            temporality: temporality_name(metric.temporality),
            monotonic: metric.monotonic,
            series: found.series,
            points: found.points,
        }
    }
}

impl SeriesAnswer {
    /// Of what the store found.
    pub(super) fn of(series: &Series) -> Self {
        let key = &series.key;
        let of_scope = |scope: Scope| -> BTreeMap<String, Json> {
            let attributes = key.attributes.iter().filter(|attribute| attribute.scope == scope);
            attributes.map(|attribute| (attribute.key.clone(), typed(attribute))).collect()
        };
        let rows = PointRows::new(&series.points);
        let newest = series.points.num_rows().checked_sub(1);
        let description = newest.and_then(|row| rows.description(row)).unwrap_or_default();
        Self {
            name: key.name.clone(),
            kind: kind_name(key.metric_type),
            unit: key.unit.clone(),
            description: description.to_owned(),
            temporality: temporality_name(key.temporality),
            monotonic: key.monotonic,
            attributes: of_scope(Scope::Point),
            resource: of_scope(Scope::Resource),
            scope: ScopeAnswer {
                name: key.scope_name.clone(),
                version: key.scope_version.clone(),
                attributes: of_scope(Scope::Instrumentation),
            },
            points: PointAnswer::all(&series.points),
        }
    }
}

/// An attribute's value as JSON: numbers and booleans as such, all else as text.
fn typed(attribute: &SeriesAttribute) -> Json {
    let text = attribute.text.as_str();
    match attribute.ty {
        AttrType::Int => text.parse::<i64>().map_or_else(|_| json!(text), Json::from),
        AttrType::Double => text.parse::<f64>().map_or_else(|_| json!(text), double),
        AttrType::Bool => json!(text == "true"),
        AttrType::Str | AttrType::Bytes | AttrType::Any => json!(text),
    }
}

fn double(value: f64) -> Json {
    if value.is_finite() { json!(value) } else { json!(double_text(value)) }
}

fn number(value: Number) -> Json {
    match value {
        Number::Int(value) => json!(value),
        Number::Double(value) => double(value),
    }
}

fn at(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanos.into()).unwrap_or_default()
}

impl PointAnswer {
    fn all(batch: &Batch) -> Vec<Self> {
        let rows = PointRows::new(batch);
        (0..batch.num_rows()).map(|row| Self::of(&rows, row)).collect()
    }

    fn of(rows: &PointRows<'_>, row: usize) -> Self {
        let buckets =
            |(offset, counts): (i32, &[u64])| BucketsAnswer { offset, counts: counts.to_vec() };
        let quantile =
            |(quantile, value)| QuantileAnswer { quantile: double(quantile), value: double(value) };
        Self {
            time: at(rows.time(row)),
            start_time: rows.start(row).map(at),
            value: rows.value(row).map(number),
            count: rows.count(row),
            sum: rows.sum(row).map(double),
            min: rows.min(row).map(double),
            max: rows.max(row).map(double),
            explicit_bounds: rows.explicit_bounds(row).iter().copied().map(double).collect(),
            bucket_counts: rows.bucket_counts(row).to_vec(),
            scale: rows.scale(row),
            zero_count: rows.zero_count(row),
            zero_threshold: rows.zero_threshold(row).map(double),
            positive: rows.positive(row).map(buckets),
            negative: rows.negative(row).map(buckets),
            quantiles: rows.quantiles(row).map(quantile).collect(),
            exemplars: rows.exemplars(row).map(|exemplar| ExemplarAnswer::of(&exemplar)).collect(),
            no_recorded_value: rows.no_recorded_value(row),
        }
    }
}

impl ExemplarAnswer {
    fn of(exemplar: &Exemplar<'_>) -> Self {
        let attributes = exemplar.attributes.into_iter().flat_map(|list| list.iter());
        Self {
            time: at(exemplar.time),
            value: exemplar.value.map(number),
            trace_id: exemplar.trace_id.map(|id| id.to_string()),
            span_id: exemplar.span_id.map(|id| id.to_string()),
            attributes: attributes.map(|(key, value)| (key.to_owned(), value.to_text())).collect(),
        }
    }
}
