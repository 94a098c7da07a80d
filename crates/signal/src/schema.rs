//! The columns of spans, log records and metric points.
//!
//! Every signal has a few *fixed* columns (below, by name) and one column for each attribute key
//! and value type that occurs: `span.http.route` holds the string values of the span attribute
//! `http.route`, `span:int.kafka.offset` the integer values of `kafka.offset`. A column that no
//! row of a batch uses is left out of the batch, so two batches of one kind may differ in columns;
//! a missing column reads as all null.
//!
//! The name of an attribute column is `{scope}[:{type}].{key}`: everything after the first dot is
//! the key, byte for byte, so no key can be mistaken for another column.

mod fixed;

use arrow::datatypes::{DataType, Fields};

use self::fixed::{LOG_FIELDS, POINT_FIELDS, SPAN_FIELDS};
pub use self::fixed::{
    attribute_list_fields, attribute_list_type, event_fields, exemplar_fields, link_fields,
    list_item, list_of, quantile_fields, timestamp_type,
};

/// Which of the three kinds of OpenTelemetry signal a batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalKind {
    /// Spans of traces.
    Spans,
    /// Log records and events.
    Logs,
    /// Metric data points: one row a point.
    Points,
}

impl SignalKind {
    /// All kinds, in the order of their numbers in files.
    pub const ALL: [Self; 3] = [Self::Spans, Self::Logs, Self::Points];

    /// `spans`, `logs` or `points`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Logs => "logs",
            Self::Points => "points",
        }
    }

    /// The scope that prefixes the columns of the signal's own attributes.
    pub fn own_scope(self) -> Scope {
        match self {
            Self::Spans => Scope::Span,
            Self::Logs => Scope::Log,
            Self::Points => Scope::Point,
        }
    }

    /// The fixed columns of this kind, in file order.
    pub fn fixed_fields(self) -> &'static Fields {
        match self {
            Self::Spans => &SPAN_FIELDS,
            Self::Logs => &LOG_FIELDS,
            Self::Points => &POINT_FIELDS,
        }
    }

    /// The column by which rows of this kind are placed in time.
    pub fn time_column(self) -> &'static str {
        match self {
            Self::Spans => START_TIME,
            Self::Logs | Self::Points => TIME,
        }
    }
}

/// Whose attribute a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The span itself.
    Span,
    /// The log record itself.
    Log,
    /// The metric data point itself.
    Point,
    /// The metric that the point belongs to (`Metric.metadata`).
    Metric,
    /// The resource that emitted the signal.
    Resource,
    /// The instrumentation scope.
    Instrumentation,
}

impl Scope {
    /// The prefix of the scope's columns and of selectors on it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Span => "span",
            Self::Log => "log",
            Self::Point => "point",
            Self::Metric => "metric",
            Self::Resource => "resource",
            Self::Instrumentation => "instrumentation",
        }
    }
}

/// The type of an attribute's value (OTLP `AnyValue`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttrType {
    /// UTF-8 text.
    Str,
    /// 64-bit signed integer.
    Int,
    /// IEEE 754 double.
    Double,
    /// Boolean.
    Bool,
    /// Bytes.
    Bytes,
    /// An array, a key-value list or an empty value, as the OTLP/JSON text of its `AnyValue`.
    Any,
}

impl AttrType {
    /// All types. The position is the type's number in nested attribute lists.
    pub const ALL: [Self; 6] =
        [Self::Str, Self::Int, Self::Double, Self::Bool, Self::Bytes, Self::Any];

    /// The type whose number is `code`.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The type's number in nested attribute lists.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What follows the scope in a column's name.
    fn suffix(self) -> &'static str {
        match self {
            Self::Str => "",
            Self::Int => ":int",
            Self::Double => ":double",
            Self::Bool => ":bool",
            Self::Bytes => ":bytes",
            Self::Any => ":any",
        }
    }

    /// The Arrow type of such a column.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Str | Self::Any => DataType::Utf8View,
            Self::Int => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Bytes => DataType::BinaryView,
        }
    }
}

/// The name of the column of attribute `key` with values of type `ty`.
pub fn attribute_column(scope: Scope, ty: AttrType, key: &str) -> String {
    format!("{}{}.{key}", scope.name(), ty.suffix())
}

/// Reads a column's name back; `None` for a fixed column.
pub fn parse_attribute_column(name: &str) -> Option<(Scope, AttrType, &str)> {
    let (head, key) = name.split_once('.')?;
    let (scope, ty) = head.split_once(':').unwrap_or((head, ""));
    let scope = match scope {
        "span" => Scope::Span,
        "log" => Scope::Log,
        "point" => Scope::Point,
        "metric" => Scope::Metric,
        "resource" => Scope::Resource,
        "instrumentation" => Scope::Instrumentation,
        _ => return None,
    };
    let ty = AttrType::ALL.into_iter().find(|t| t.suffix().trim_start_matches(':') == ty)?;
    Some((scope, ty, key))
}

/// Rows have at most this many attribute columns in one batch; what comes after goes, typed, into
/// the [`OVERFLOW`] column. It keeps a client that invents keys from inventing columns.
pub const MAX_ATTRIBUTE_COLUMNS: usize = 512;

macro_rules! columns {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
    };
}

columns! {
    /// Trace id, 16 bytes; null on a log outside any trace.
    TRACE_ID = "trace_id";
    /// Span id, 8 bytes; null on a log outside any span.
    SPAN_ID = "span_id";
    /// The parent's span id; null on a root.
    PARENT_SPAN_ID = "parent_span_id";
    /// W3C trace state.
    TRACE_STATE = "trace_state";
    /// W3C trace flags and OTLP's context-is-remote bits.
    FLAGS = "flags";
    /// Span or metric name.
    NAME = "name";
    /// Span kind as OTLP numbers it: 0 unspecified, 1 internal, 2 server, 3 client, 4 producer,
    /// 5 consumer.
    KIND = "kind";
    /// Start, nanoseconds since the epoch.
    START_TIME = "start_time";
    /// End minus start in nanoseconds; negative if the emitter's clock said so.
    DURATION = "duration";
    /// Status as OTLP numbers it: 0 unset, 1 ok, 2 error.
    STATUS_CODE = "status_code";
    /// Status description.
    STATUS_MESSAGE = "status_message";
    /// Span events.
    EVENTS = "events";
    /// Span links.
    LINKS = "links";
    /// Attributes that the emitter dropped.
    DROPPED_ATTRIBUTES = "dropped_attributes";
    /// Events that the emitter dropped.
    DROPPED_EVENTS = "dropped_events";
    /// Links that the emitter dropped.
    DROPPED_LINKS = "dropped_links";
    /// Instrumentation scope name.
    SCOPE_NAME = "scope_name";
    /// Instrumentation scope version.
    SCOPE_VERSION = "scope_version";
    /// Attributes of the resource that the emitter dropped; null for none.
    RESOURCE_DROPPED_ATTRIBUTES = "resource_dropped_attributes";
    /// Attributes of the instrumentation scope that the emitter dropped; null for none.
    SCOPE_DROPPED_ATTRIBUTES = "scope_dropped_attributes";
    /// Schema URL of the resource.
    RESOURCE_SCHEMA_URL = "resource_schema_url";
    /// Schema URL of the scope.
    SCOPE_SCHEMA_URL = "scope_schema_url";
    /// Attributes beyond [`MAX_ATTRIBUTE_COLUMNS`], and second values of a repeated key.
    OVERFLOW = "overflow";
    /// Time of a log record or point, nanoseconds since the epoch. A log without one has its
    /// observed time here.
    TIME = "time";
    /// When a log record was observed by the collection system.
    OBSERVED_TIME = "observed_time";
    /// Log severity number, 1 to 24; 0 unspecified.
    SEVERITY = "severity";
    /// Log severity as the source names it.
    SEVERITY_TEXT = "severity_text";
    /// Log body: its text.
    BODY = "body";
    /// Log body that is not a string, as the OTLP/JSON text of its `AnyValue`.
    BODY_ANY = "body_any";
    /// Name of an event log record.
    EVENT_NAME = "event_name";
    /// Metric description.
    DESCRIPTION = "description";
    /// Metric unit (UCUM).
    UNIT = "unit";
    /// 0 gauge, 1 sum, 2 histogram, 3 exponential histogram, 4 summary.
    METRIC_TYPE = "metric_type";
    /// Aggregation temporality as OTLP numbers it: 0 unspecified, 1 delta, 2 cumulative.
    TEMPORALITY = "temporality";
    /// Whether a sum only rises.
    MONOTONIC = "monotonic";
    /// Value of a gauge or sum that is a double.
    VALUE_DOUBLE = "value_double";
    /// Value of a gauge or sum that is an integer.
    VALUE_INT = "value_int";
    /// Count of a histogram or summary.
    COUNT = "count";
    /// Sum of a histogram or summary.
    SUM = "sum";
    /// Minimum of a histogram.
    MIN = "min";
    /// Maximum of a histogram.
    MAX = "max";
    /// Counts of a histogram's buckets.
    BUCKET_COUNTS = "bucket_counts";
    /// Upper bounds of a histogram's buckets but the last.
    EXPLICIT_BOUNDS = "explicit_bounds";
    /// Scale of an exponential histogram.
    SCALE = "scale";
    /// Count of values in the zero bucket.
    ZERO_COUNT = "zero_count";
    /// Width of the zero bucket.
    ZERO_THRESHOLD = "zero_threshold";
    /// First index of the positive buckets.
    POSITIVE_OFFSET = "positive_offset";
    /// Counts of the positive buckets.
    POSITIVE_COUNTS = "positive_counts";
    /// First index of the negative buckets.
    NEGATIVE_OFFSET = "negative_offset";
    /// Counts of the negative buckets.
    NEGATIVE_COUNTS = "negative_counts";
    /// Quantiles of a summary.
    QUANTILES = "quantiles";
    /// Exemplars.
    EXEMPLARS = "exemplars";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_column_names_read_back() {
        for scope in [
            Scope::Span,
            Scope::Log,
            Scope::Point,
            Scope::Metric,
            Scope::Resource,
            Scope::Instrumentation,
        ] {
            for ty in AttrType::ALL {
                for key in ["a", "http.route", "x:int", "", ".a"] {
                    let name = attribute_column(scope, ty, key);
                    assert_eq!(parse_attribute_column(&name), Some((scope, ty, key)), "{name}");
                }
            }
        }
        assert_eq!(parse_attribute_column("trace_id"), None);
    }

    #[test]
    fn type_codes_are_positions() {
        for (i, ty) in AttrType::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(ty.code()), i);
            assert_eq!(AttrType::from_code(ty.code()), Some(ty));
        }
    }
}
