//! The types of fixed columns, and which of them each kind of signal has.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use super::*;

/// Timestamps: nanoseconds since the epoch, UTC.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some(Arc::from("UTC")))
}

/// The element type of a nested attribute list (events, links, exemplars, [`OVERFLOW`]): `key`,
/// `type` ([`AttrType::code`]) and `value` as text: a string as it is, an integer in decimal, a
/// double in its shortest form that reads back the same, a boolean as `true` or `false`, bytes in
/// base64, anything else as OTLP/JSON. In [`OVERFLOW`], the key carries its scope:
/// `span.http.route`.
pub fn attribute_list_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8View, false),
        Field::new("type", DataType::UInt8, false),
        Field::new("value", DataType::Utf8View, false),
    ])
}

/// The type of a nested attribute list.
pub fn attribute_list_type() -> DataType {
    list_of(DataType::Struct(attribute_list_fields()))
}

/// Fields of one span event.
pub fn event_fields() -> Fields {
    Fields::from(vec![
        Field::new(TIME, timestamp_type(), false),
        Field::new(NAME, DataType::Utf8View, false),
        Field::new("attributes", attribute_list_type(), false),
        Field::new(DROPPED_ATTRIBUTES, DataType::UInt32, false),
    ])
}

/// Fields of one span link.
pub fn link_fields() -> Fields {
    Fields::from(vec![
        Field::new(TRACE_ID, DataType::FixedSizeBinary(16), false),
        Field::new(SPAN_ID, DataType::FixedSizeBinary(8), false),
        Field::new(TRACE_STATE, DataType::Utf8View, false),
        Field::new("attributes", attribute_list_type(), false),
        Field::new(DROPPED_ATTRIBUTES, DataType::UInt32, false),
        Field::new(FLAGS, DataType::UInt32, false),
    ])
}

/// Fields of one exemplar.
pub fn exemplar_fields() -> Fields {
    Fields::from(vec![
        Field::new(TIME, timestamp_type(), false),
        Field::new(VALUE_DOUBLE, DataType::Float64, true),
        Field::new(VALUE_INT, DataType::Int64, true),
        Field::new(TRACE_ID, DataType::FixedSizeBinary(16), true),
        Field::new(SPAN_ID, DataType::FixedSizeBinary(8), true),
        Field::new("attributes", attribute_list_type(), false),
    ])
}

/// Fields of one quantile of a summary.
pub fn quantile_fields() -> Fields {
    Fields::from(vec![
        Field::new("quantile", DataType::Float64, false),
        Field::new("value", DataType::Float64, false),
    ])
}

/// A list whose items are never null.
pub fn list_of(item: DataType) -> DataType {
    DataType::List(list_item(item))
}

/// The item field of [`list_of`].
pub fn list_item(item: DataType) -> FieldRef {
    Arc::new(Field::new("item", item, false))
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8View, true)
}

fn scope_tail() -> Vec<Field> {
    vec![
        text(SCOPE_NAME),
        text(SCOPE_VERSION),
        text(RESOURCE_SCHEMA_URL),
        text(SCOPE_SCHEMA_URL),
        Field::new(RESOURCE_DROPPED_ATTRIBUTES, DataType::UInt32, true),
        Field::new(SCOPE_DROPPED_ATTRIBUTES, DataType::UInt32, true),
        Field::new(OVERFLOW, attribute_list_type(), true),
    ]
}

pub(super) static SPAN_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new(TRACE_ID, DataType::FixedSizeBinary(16), false),
        Field::new(SPAN_ID, DataType::FixedSizeBinary(8), false),
        Field::new(PARENT_SPAN_ID, DataType::FixedSizeBinary(8), true),
        text(TRACE_STATE),
        Field::new(FLAGS, DataType::UInt32, false),
        Field::new(NAME, DataType::Utf8View, false),
        Field::new(KIND, DataType::UInt8, false),
        Field::new(START_TIME, timestamp_type(), false),
        Field::new(DURATION, DataType::Int64, false),
        Field::new(STATUS_CODE, DataType::UInt8, false),
        text(STATUS_MESSAGE),
        Field::new(EVENTS, list_of(DataType::Struct(event_fields())), true),
        Field::new(LINKS, list_of(DataType::Struct(link_fields())), true),
        Field::new(DROPPED_ATTRIBUTES, DataType::UInt32, false),
        Field::new(DROPPED_EVENTS, DataType::UInt32, false),
        Field::new(DROPPED_LINKS, DataType::UInt32, false),
    ];
    fields.extend(scope_tail());
    Fields::from(fields)
});

pub(super) static LOG_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new(TIME, timestamp_type(), false),
        Field::new(OBSERVED_TIME, timestamp_type(), true),
        Field::new(TRACE_ID, DataType::FixedSizeBinary(16), true),
        Field::new(SPAN_ID, DataType::FixedSizeBinary(8), true),
        Field::new(FLAGS, DataType::UInt32, false),
        Field::new(SEVERITY, DataType::UInt8, false),
        text(SEVERITY_TEXT),
        text(BODY),
        text(BODY_ANY),
        text(EVENT_NAME),
        Field::new(DROPPED_ATTRIBUTES, DataType::UInt32, false),
    ];
    fields.extend(scope_tail());
    Fields::from(fields)
});

pub(super) static POINT_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let mut fields = vec![
        Field::new(NAME, DataType::Utf8View, false),
        Field::new(TIME, timestamp_type(), false),
        Field::new(START_TIME, timestamp_type(), true),
        text(DESCRIPTION),
        text(UNIT),
        Field::new(METRIC_TYPE, DataType::UInt8, false),
        Field::new(TEMPORALITY, DataType::UInt8, false),
        Field::new(MONOTONIC, DataType::Boolean, false),
        Field::new(FLAGS, DataType::UInt32, false),
        Field::new(VALUE_DOUBLE, DataType::Float64, true),
        Field::new(VALUE_INT, DataType::Int64, true),
        Field::new(COUNT, DataType::UInt64, true),
        Field::new(SUM, DataType::Float64, true),
        Field::new(MIN, DataType::Float64, true),
        Field::new(MAX, DataType::Float64, true),
        Field::new(BUCKET_COUNTS, list_of(DataType::UInt64), true),
        Field::new(EXPLICIT_BOUNDS, list_of(DataType::Float64), true),
        Field::new(SCALE, DataType::Int32, true),
        Field::new(ZERO_COUNT, DataType::UInt64, true),
        Field::new(ZERO_THRESHOLD, DataType::Float64, true),
        Field::new(POSITIVE_OFFSET, DataType::Int32, true),
        Field::new(POSITIVE_COUNTS, list_of(DataType::UInt64), true),
        Field::new(NEGATIVE_OFFSET, DataType::Int32, true),
        Field::new(NEGATIVE_COUNTS, list_of(DataType::UInt64), true),
        Field::new(QUANTILES, list_of(DataType::Struct(quantile_fields())), true),
        Field::new(EXEMPLARS, list_of(DataType::Struct(exemplar_fields())), true),
    ];
    fields.extend(scope_tail());
    Fields::from(fields)
});
