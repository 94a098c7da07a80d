//! The messages of metrics.

use super::*;

pub(super) static METRICS: Message =
    message(&[list(1, "resourceMetrics", "resource_metrics", V::Message(&RESOURCE_METRICS))
        .role(Role::Frame)]);

static RESOURCE_METRICS: Message = message(&[
    resource(),
    list(2, "scopeMetrics", "scope_metrics", V::Message(&SCOPE_METRICS)).role(Role::Frame),
    schema_url(),
]);

static SCOPE_METRICS: Message = message(&[
    scope(),
    list(2, "metrics", "metrics", V::Message(&METRIC)).role(Role::Metric),
    schema_url(),
]);

pub static METRIC: Message = message(&[
    field(1, "name", "name", V::Text),
    field(2, "description", "description", V::Text),
    field(3, "unit", "unit", V::Text),
    list(12, "metadata", "metadata", V::Message(&KEY_VALUE)).role(Role::Detail),
    field(5, "gauge", "gauge", V::Message(&GAUGE)).role(Role::Body),
    field(7, "sum", "sum", V::Message(&SUM)).role(Role::Body),
    field(9, "histogram", "histogram", V::Message(&HISTOGRAM)).role(Role::Body),
    field(10, "exponentialHistogram", "exponential_histogram", V::Message(&EXPONENTIAL))
        .role(Role::Body),
    field(11, "summary", "summary", V::Message(&SUMMARY)).role(Role::Body),
]);

const fn points(message: &'static Message) -> Field {
    list(1, "dataPoints", "data_points", V::Message(message)).role(Role::Item)
}

const fn temporality() -> Field {
    field(2, "aggregationTemporality", "aggregation_temporality", V::Enum(&TEMPORALITIES))
}

const fn start() -> Field {
    field(2, "startTimeUnixNano", "start_time_unix_nano", V::Time)
}

const fn time(number: u32) -> Field {
    field(number, "timeUnixNano", "time_unix_nano", V::Time)
}

const fn exemplars(number: u32) -> Field {
    list(number, "exemplars", "exemplars", V::Message(&EXEMPLAR)).role(Role::Body)
}

const fn double(number: u32, name: &'static str) -> Field {
    field(number, name, name, V::Double)
}

static GAUGE: Message = message(&[points(&NUMBER_POINT)]);

static SUM: Message = message(&[
    points(&NUMBER_POINT),
    temporality(),
    field(3, "isMonotonic", "is_monotonic", V::Bool),
]);

static HISTOGRAM: Message = message(&[points(&HISTOGRAM_POINT), temporality()]);
static EXPONENTIAL: Message = message(&[points(&EXPONENTIAL_POINT), temporality()]);
static SUMMARY: Message = message(&[points(&SUMMARY_POINT)]);

static NUMBER_POINT: Message = message(&[
    attributes(7),
    start(),
    time(3),
    field(4, "asDouble", "as_double", V::Double),
    field(6, "asInt", "as_int", V::Sfixed64),
    exemplars(5),
    field(8, "flags", "flags", V::Uint32),
]);

static HISTOGRAM_POINT: Message = Message {
    fields: &[
        attributes(9),
        start(),
        time(3),
        field(4, "count", "count", V::Fixed64),
        double(5, "sum"),
        list(6, "bucketCounts", "bucket_counts", V::Fixed64),
        list(7, "explicitBounds", "explicit_bounds", V::Double),
        exemplars(8),
        field(10, "flags", "flags", V::Uint32),
        double(11, "min"),
        double(12, "max"),
    ],
    check: Some(super::super::check_buckets),
};

static EXPONENTIAL_POINT: Message = message(&[
    attributes(1),
    start(),
    time(3),
    field(4, "count", "count", V::Fixed64),
    double(5, "sum"),
    field(6, "scale", "scale", V::Sint32),
    field(7, "zeroCount", "zero_count", V::Fixed64),
    field(8, "positive", "positive", V::Message(&BUCKETS)),
    field(9, "negative", "negative", V::Message(&BUCKETS)),
    field(10, "flags", "flags", V::Uint32),
    exemplars(11),
    double(12, "min"),
    double(13, "max"),
    field(14, "zeroThreshold", "zero_threshold", V::Double),
]);

static BUCKETS: Message = message(&[
    field(1, "offset", "offset", V::Sint32),
    list(2, "bucketCounts", "bucket_counts", V::Uint64),
]);

static SUMMARY_POINT: Message = message(&[
    attributes(7),
    start(),
    time(3),
    field(4, "count", "count", V::Fixed64),
    double(5, "sum"),
    list(6, "quantileValues", "quantile_values", V::Message(&QUANTILE)),
    field(8, "flags", "flags", V::Uint32),
]);

static QUANTILE: Message = message(&[double(1, "quantile"), double(2, "value")]);

static EXEMPLAR: Message = message(&[
    list(7, "filteredAttributes", "filtered_attributes", V::Message(&KEY_VALUE)),
    time(2),
    field(3, "asDouble", "as_double", V::Double),
    field(6, "asInt", "as_int", V::Sfixed64),
    field(4, "spanId", "span_id", V::AnyId).role(Role::Detail),
    field(5, "traceId", "trace_id", V::AnyId).role(Role::Detail),
]);

static TEMPORALITIES: [(&str, i32); 3] = [
    ("AGGREGATION_TEMPORALITY_UNSPECIFIED", 0),
    ("AGGREGATION_TEMPORALITY_DELTA", 1),
    ("AGGREGATION_TEMPORALITY_CUMULATIVE", 2),
];
