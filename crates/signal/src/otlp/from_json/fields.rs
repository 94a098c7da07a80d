//! The messages of OTLP and their fields, as their JSON and protobuf encodings name them.
//!
//! Source: opentelemetry-proto 1.x. In JSON, a field goes by its camelCase name; the snake_case
//! name of the .proto file is taken too (protobuf, "ProtoJSON Format").

mod metrics;

pub use self::metrics::METRIC;
use self::metrics::METRICS;
use crate::schema::SignalKind;

/// A message.
pub struct Message {
    pub fields: &'static [Field],
    /// Checks the encoded message as a whole.
    pub check: Option<Check>,
}

/// What is wrong with an encoded message.
type Check = fn(&[u8]) -> Result<(), String>;

/// A field of a message.
pub struct Field {
    pub name: &'static str,
    snake: &'static str,
    pub number: u32,
    pub value: Value,
    pub list: bool,
    pub role: Role,
}

/// The type of a field's value.
pub enum Value {
    Text,
    /// An id of so many bytes, in hex.
    Id {
        bytes: usize,
        required: bool,
    },
    /// An id of any length, in hex: the decoder keeps the item and not the id.
    AnyId,
    Base64,
    Bool,
    Double,
    Uint32,
    Sint32,
    Int64,
    /// `uint64` in a packed list.
    Uint64,
    Fixed32,
    Fixed64,
    Sfixed64,
    /// Nanoseconds since the epoch (`fixed64`).
    Time,
    Enum(&'static [(&'static str, i32)]),
    Message(&'static Message),
    /// `AnyValue`, which may hold itself.
    Any,
}

/// What is lost if a field's value, or one item of its list, is not what it should be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The message around it.
    Part,
    /// The message around it; but something in it may be lost by itself.
    Body,
    /// It, with all the spans, log records or points in it.
    Frame,
    /// It: a span, log record or point.
    Item,
    /// It: a metric with its points.
    Metric,
    /// Only it: something said about the items.
    Detail,
    /// Only it, a span's link; an empty one in its place has the decoder count it in its span.
    Link,
}

impl Message {
    /// The field `key`. `guess` is its likely position: emitters keep to one order.
    pub fn find(&self, key: &[u8], guess: usize) -> Option<usize> {
        let is = |field: &Field| field.name.as_bytes() == key || field.snake.as_bytes() == key;
        match self.fields.get(guess) {
            Some(field) if field.name.as_bytes() == key => Some(guess),
            _ => self.fields.iter().position(is),
        }
    }
}

const fn message(fields: &'static [Field]) -> Message {
    Message { fields, check: None }
}

const fn field(number: u32, name: &'static str, snake: &'static str, value: Value) -> Field {
    Field { name, snake, number, value, list: false, role: Role::Part }
}

const fn list(number: u32, name: &'static str, snake: &'static str, value: Value) -> Field {
    Field { list: true, ..field(number, name, snake, value) }
}

impl Field {
    const fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }
}

/// The request of `kind`.
pub fn request(kind: SignalKind) -> &'static Message {
    match kind {
        SignalKind::Spans => &TRACES,
        SignalKind::Logs => &LOGS,
        SignalKind::Points => &METRICS,
    }
}

use Value as V;

const fn attributes(number: u32) -> Field {
    list(number, "attributes", "attributes", V::Message(&KEY_VALUE))
}

const fn dropped(number: u32) -> Field {
    field(number, "droppedAttributesCount", "dropped_attributes_count", V::Uint32)
}

const fn schema_url() -> Field {
    field(3, "schemaUrl", "schema_url", V::Text).role(Role::Detail)
}

const fn resource() -> Field {
    field(1, "resource", "resource", V::Message(&RESOURCE)).role(Role::Detail)
}

const fn scope() -> Field {
    field(1, "scope", "scope", V::Message(&SCOPE)).role(Role::Detail)
}

static KEY_VALUE: Message =
    message(&[field(1, "key", "key", V::Text), field(2, "value", "value", V::Any)]);

pub static ANY_VALUE: Message = message(&[
    field(1, "stringValue", "string_value", V::Text),
    field(3, "intValue", "int_value", V::Int64),
    field(4, "doubleValue", "double_value", V::Double),
    field(2, "boolValue", "bool_value", V::Bool),
    field(5, "arrayValue", "array_value", V::Message(&ARRAY_VALUE)),
    field(6, "kvlistValue", "kvlist_value", V::Message(&KEY_VALUE_LIST)),
    field(7, "bytesValue", "bytes_value", V::Base64),
]);

static ARRAY_VALUE: Message = message(&[list(1, "values", "values", V::Any)]);

static KEY_VALUE_LIST: Message = message(&[list(1, "values", "values", V::Message(&KEY_VALUE))]);

static RESOURCE: Message = message(&[
    attributes(1).role(Role::Detail),
    dropped(2).role(Role::Detail),
    list(3, "entityRefs", "entity_refs", V::Message(&ENTITY_REF)).role(Role::Detail),
]);

static ENTITY_REF: Message = message(&[
    field(1, "schemaUrl", "schema_url", V::Text),
    field(2, "type", "type", V::Text),
    list(3, "idKeys", "id_keys", V::Text),
    list(4, "descriptionKeys", "description_keys", V::Text),
]);

static SCOPE: Message = message(&[
    field(1, "name", "name", V::Text).role(Role::Detail),
    field(2, "version", "version", V::Text).role(Role::Detail),
    attributes(3).role(Role::Detail),
    dropped(4).role(Role::Detail),
]);

static TRACES: Message =
    message(&[
        list(1, "resourceSpans", "resource_spans", V::Message(&RESOURCE_SPANS)).role(Role::Frame)
    ]);

static RESOURCE_SPANS: Message = message(&[
    resource(),
    list(2, "scopeSpans", "scope_spans", V::Message(&SCOPE_SPANS)).role(Role::Frame),
    schema_url(),
]);

static SCOPE_SPANS: Message = message(&[
    scope(),
    list(2, "spans", "spans", V::Message(&SPAN)).role(Role::Item),
    schema_url(),
]);

static SPAN: Message = message(&[
    field(1, "traceId", "trace_id", V::Id { bytes: 16, required: true }),
    field(2, "spanId", "span_id", V::Id { bytes: 8, required: true }),
    field(3, "traceState", "trace_state", V::Text),
    field(4, "parentSpanId", "parent_span_id", V::Id { bytes: 8, required: false }),
    field(16, "flags", "flags", V::Fixed32),
    field(5, "name", "name", V::Text),
    field(6, "kind", "kind", V::Enum(&SPAN_KINDS)),
    field(7, "startTimeUnixNano", "start_time_unix_nano", V::Time),
    field(8, "endTimeUnixNano", "end_time_unix_nano", V::Time),
    attributes(9),
    dropped(10),
    list(11, "events", "events", V::Message(&EVENT)),
    field(12, "droppedEventsCount", "dropped_events_count", V::Uint32),
    list(13, "links", "links", V::Message(&LINK)).role(Role::Link),
    field(14, "droppedLinksCount", "dropped_links_count", V::Uint32),
    field(15, "status", "status", V::Message(&STATUS)),
]);

static EVENT: Message = message(&[
    field(1, "timeUnixNano", "time_unix_nano", V::Time),
    field(2, "name", "name", V::Text),
    attributes(3),
    dropped(4),
]);

static LINK: Message = message(&[
    field(1, "traceId", "trace_id", V::Id { bytes: 16, required: true }),
    field(2, "spanId", "span_id", V::Id { bytes: 8, required: true }),
    field(3, "traceState", "trace_state", V::Text),
    attributes(4),
    dropped(5),
    field(6, "flags", "flags", V::Fixed32),
]);

static STATUS: Message = message(&[
    field(2, "message", "message", V::Text),
    field(3, "code", "code", V::Enum(&STATUS_CODES)),
]);

static LOGS: Message =
    message(&[
        list(1, "resourceLogs", "resource_logs", V::Message(&RESOURCE_LOGS)).role(Role::Frame)
    ]);

static RESOURCE_LOGS: Message = message(&[
    resource(),
    list(2, "scopeLogs", "scope_logs", V::Message(&SCOPE_LOGS)).role(Role::Frame),
    schema_url(),
]);

static SCOPE_LOGS: Message = message(&[
    scope(),
    list(2, "logRecords", "log_records", V::Message(&LOG_RECORD)).role(Role::Item),
    schema_url(),
]);

static LOG_RECORD: Message = message(&[
    field(1, "timeUnixNano", "time_unix_nano", V::Time),
    field(11, "observedTimeUnixNano", "observed_time_unix_nano", V::Time),
    field(2, "severityNumber", "severity_number", V::Enum(&SEVERITIES)),
    field(3, "severityText", "severity_text", V::Text),
    field(5, "body", "body", V::Any),
    attributes(6),
    dropped(7),
    field(8, "flags", "flags", V::Fixed32),
    field(9, "traceId", "trace_id", V::AnyId).role(Role::Detail),
    field(10, "spanId", "span_id", V::AnyId).role(Role::Detail),
    field(12, "eventName", "event_name", V::Text),
]);

static SPAN_KINDS: [(&str, i32); 6] = [
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
];

static STATUS_CODES: [(&str, i32); 3] =
    [("STATUS_CODE_UNSET", 0), ("STATUS_CODE_OK", 1), ("STATUS_CODE_ERROR", 2)];

static SEVERITIES: [(&str, i32); 25] = [
    ("SEVERITY_NUMBER_UNSPECIFIED", 0),
    ("SEVERITY_NUMBER_TRACE", 1),
    ("SEVERITY_NUMBER_TRACE2", 2),
    ("SEVERITY_NUMBER_TRACE3", 3),
    ("SEVERITY_NUMBER_TRACE4", 4),
    ("SEVERITY_NUMBER_DEBUG", 5),
    ("SEVERITY_NUMBER_DEBUG2", 6),
    ("SEVERITY_NUMBER_DEBUG3", 7),
    ("SEVERITY_NUMBER_DEBUG4", 8),
    ("SEVERITY_NUMBER_INFO", 9),
    ("SEVERITY_NUMBER_INFO2", 10),
    ("SEVERITY_NUMBER_INFO3", 11),
    ("SEVERITY_NUMBER_INFO4", 12),
    ("SEVERITY_NUMBER_WARN", 13),
    ("SEVERITY_NUMBER_WARN2", 14),
    ("SEVERITY_NUMBER_WARN3", 15),
    ("SEVERITY_NUMBER_WARN4", 16),
    ("SEVERITY_NUMBER_ERROR", 17),
    ("SEVERITY_NUMBER_ERROR2", 18),
    ("SEVERITY_NUMBER_ERROR3", 19),
    ("SEVERITY_NUMBER_ERROR4", 20),
    ("SEVERITY_NUMBER_FATAL", 21),
    ("SEVERITY_NUMBER_FATAL2", 22),
    ("SEVERITY_NUMBER_FATAL3", 23),
    ("SEVERITY_NUMBER_FATAL4", 24),
];
