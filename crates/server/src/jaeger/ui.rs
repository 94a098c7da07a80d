//! Traces in the JSON of Jaeger's v1 API, read straight from the columns.
//!
//! The mapping is that of the OpenTelemetry Collector's Jaeger translator, which Jaeger itself
//! uses: `pkg/translator/jaeger` in opentelemetry-collector-contrib.

use std::collections::HashMap;

use lacuna_signal::rows::{LogRows, SpanEvent, SpanLink, SpanRows};
use lacuna_signal::schema::Scope;
use lacuna_signal::semconv::SERVICE_NAME;
use lacuna_signal::value::Attributes;
use lacuna_signal::{Batch, SpanId, TraceId, Value};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::tags::Tag;
use super::unnamed::shown;

/// One trace and the log records that belong to it, as one element of v1's `data`.
#[derive(Debug)]
pub struct UiTrace {
    /// The spans.
    pub spans: Batch,
    /// Log records of the trace; event records among them are shown in their span's `logs`.
    pub logs: Option<Batch>,
    /// What is missing from the trace, in words.
    pub warnings: Vec<String>,
}

/// A trace id as v1 writes it: 32 hex digits, or 16 if the first half is zero.
pub fn v1_trace_id(id: TraceId) -> String {
    let text = id.to_string();
    match text.strip_prefix("0000000000000000") {
        Some(low) => low.to_owned(),
        None => text,
    }
}

impl Serialize for UiTrace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let view = View::new(self);
        let rows = 0..self.spans.num_rows();
        let id = rows.clone().find_map(|row| view.rows.trace_id(row));
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("traceID", &id.map(v1_trace_id).unwrap_or_default())?;
        map.serialize_entry("spans", &Spans(&view))?;
        map.serialize_entry("processes", &ProcessMap(&view))?;
        let warnings = (!self.warnings.is_empty()).then_some(&self.warnings);
        map.serialize_entry("warnings", &warnings)?;
        map.end()
    }
}

/// The columns of a trace, and which process each span belongs to.
struct View<'a> {
    rows: SpanRows<'a>,
    span: Attributes<'a>,
    resource: Attributes<'a>,
    /// Process number of each row, from 0.
    process_of: Vec<usize>,
    /// A row of each process.
    processes: Vec<usize>,
    events: EventLogs<'a>,
}

impl<'a> View<'a> {
    fn new(trace: &'a UiTrace) -> Self {
        let resource = trace.spans.attributes(Scope::Resource);
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut processes = Vec::new();
        let mut key = String::new();
        let process_of = (0..trace.spans.num_rows())
            .map(|row| {
                key.clear();
                process_key(&resource, row, &mut key);
                if let Some(number) = numbers.get(&key) {
                    return *number;
                }
                processes.push(row);
                numbers.insert(key.clone(), processes.len() - 1);
                processes.len() - 1
            })
            .collect();
        Self {
            rows: SpanRows::new(&trace.spans),
            span: trace.spans.attributes(Scope::Span),
            resource,
            process_of,
            processes,
            events: EventLogs::new(trace.logs.as_ref()),
        }
    }
}

/// Text that two rows share if and only if they have the same resource attributes.
fn process_key(resource: &Attributes<'_>, row: usize, out: &mut String) {
    use std::fmt::Write;
    for (key, value) in resource.of_row(row) {
        // Writing to a string cannot fail.
        let _ = write!(out, "{key:?}={value:?};");
    }
}

fn process_id(number: usize) -> String {
    format!("p{}", number + 1)
}

struct ProcessMap<'s, 'a>(&'s View<'a>);

impl Serialize for ProcessMap<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = self.0.processes.iter().enumerate();
        serializer.collect_map(rows.map(|(n, row)| (process_id(n), Process(self.0, *row))))
    }
}

struct Process<'s, 'a>(&'s View<'a>, usize);

impl Serialize for Process<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let attributes = || self.0.resource.of_row(self.1);
        let name = attributes().find_map(|(key, value)| match value {
            Value::Str(text) if key == SERVICE_NAME => Some(text),
            _ => None,
        });
        let tags = || {
            let other = attributes().filter(|(key, _)| *key != SERVICE_NAME);
            other.map(|(key, value)| Tag::new(key, value))
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("serviceName", shown(name.unwrap_or_default()))?;
        map.serialize_entry("tags", &Seq(tags))?;
        map.end()
    }
}

/// A JSON array of what the iterator yields.
struct Seq<F>(F);

impl<F, I> Serialize for Seq<F>
where
    F: Fn() -> I,
    I: IntoIterator,
    I::Item: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

struct Spans<'s, 'a>(&'s View<'a>);

impl Serialize for Spans<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((0..self.0.process_of.len()).map(|row| Span(self.0, row)))
    }
}

struct Span<'s, 'a>(&'s View<'a>, usize);

impl Serialize for Span<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(view, row) = *self;
        let rows = &view.rows;
        let trace_id = rows.trace_id(row).map(v1_trace_id).unwrap_or_default();
        let mut map = serializer.serialize_map(Some(10))?;
        map.serialize_entry("traceID", &trace_id)?;
        map.serialize_entry("spanID", &rows.span_id(row))?;
        map.serialize_entry("operationName", rows.name(row))?;
        map.serialize_entry("references", &references(rows, row))?;
        map.serialize_entry("startTime", &micros(rows.start(row)))?;
        map.serialize_entry("duration", &micros(rows.duration(row)))?;
        map.serialize_entry("tags", &Tags(view, row))?;
        map.serialize_entry("logs", &Logs(view, row))?;
        let process = view.process_of.get(row).copied().unwrap_or_default();
        map.serialize_entry("processID", &process_id(process))?;
        map.serialize_entry("warnings", &())?;
        map.end()
    }
}

/// Nanoseconds as microseconds, rounded down; 0 for what lies before 0.
fn micros(nanos: i64) -> i64 {
    nanos.max(0) / 1_000
}

#[derive(Serialize)]
struct Reference {
    #[serde(rename = "refType")]
    ref_type: &'static str,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: SpanId,
}

const CHILD_OF: &str = "CHILD_OF";
const FOLLOWS_FROM: &str = "FOLLOWS_FROM";

/// The parent first, then the links. A link to the parent only says of what type that reference is.
fn references(rows: &SpanRows<'_>, row: usize) -> Vec<Reference> {
    let own = rows.trace_id(row);
    let parent = own.zip(rows.parent_span_id(row));
    let reference = |ref_type, (trace, span_id): (TraceId, SpanId)| Reference {
        ref_type,
        trace_id: v1_trace_id(trace),
        span_id,
    };
    let mut references: Vec<_> = parent.into_iter().map(|p| reference(CHILD_OF, p)).collect();
    for link in rows.links(row) {
        let target = (link.trace_id, link.span_id);
        match references.first_mut() {
            Some(first) if parent == Some(target) => first.ref_type = ref_type(&link),
            _ => references.push(reference(ref_type(&link), target)),
        }
    }
    references
}

fn ref_type(link: &SpanLink<'_>) -> &'static str {
    let mut attributes = link.attributes.into_iter().flat_map(|list| list.iter());
    let child = |(key, value): (&str, Value<'_>)| {
        key == "opentracing.ref_type" && value == Value::Str("child_of")
    };
    if attributes.any(child) { CHILD_OF } else { FOLLOWS_FROM }
}

struct Tags<'s, 'a>(&'s View<'a>, usize);

impl Serialize for Tags<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(view, row) = *self;
        let rows = &view.rows;
        let mut seq = serializer.serialize_seq(None)?;
        let mut text = |key: &'static str, value: Option<&str>| match value {
            Some(value) if !value.is_empty() => seq.serialize_element(&Tag::text(key, value)),
            _ => Ok(()),
        };
        text("otel.scope.name", rows.scope_name(row))?;
        text("otel.scope.version", rows.scope_version(row))?;
        for (key, value) in view.span.of_row(row) {
            seq.serialize_element(&Tag::new(key, value))?;
        }
        let kind = kind_name(rows.kind(row));
        if !kind.is_empty() {
            seq.serialize_element(&Tag::text("span.kind", kind))?;
        }
        match rows.status_code(row) {
            1 => seq.serialize_element(&Tag::text("otel.status_code", "OK"))?,
            2 => {
                seq.serialize_element(&Tag::text("otel.status_code", "ERROR"))?;
                seq.serialize_element(&Tag::new("error", Value::Bool(true)))?;
            }
            _ => {}
        }
        let mut text = |key: &'static str, value: Option<&str>| match value {
            Some(value) if !value.is_empty() => seq.serialize_element(&Tag::text(key, value)),
            _ => Ok(()),
        };
        text("otel.status_description", rows.status_message(row))?;
        text("w3c.tracestate", rows.trace_state(row))?;
        seq.end()
    }
}

/// Jaeger's name of a span kind; empty for one that is not specified.
pub fn kind_name(kind: u8) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "",
    }
}

/// Event log records by span.
struct EventLogs<'a> {
    rows: Option<(LogRows<'a>, Attributes<'a>)>,
    by_span: HashMap<SpanId, Vec<usize>>,
}

impl<'a> EventLogs<'a> {
    fn new(logs: Option<&'a Batch>) -> Self {
        let mut by_span: HashMap<SpanId, Vec<usize>> = HashMap::new();
        let rows = logs.map(|batch| {
            let rows = LogRows::new(batch);
            for row in 0..batch.num_rows() {
                if let (Some(span), Some(_)) = (rows.span_id(row), rows.event_name(row)) {
                    by_span.entry(span).or_default().push(row);
                }
            }
            (rows, batch.attributes(Scope::Log))
        });
        Self { rows, by_span }
    }
}

/// The span's events and the event log records that name the span, by time.
struct Logs<'s, 'a>(&'s View<'a>, usize);

enum Log<'s, 'a> {
    Event(SpanEvent<'a>),
    Record { rows: &'s LogRows<'a>, attributes: &'s Attributes<'a>, row: usize },
}

impl Log<'_, '_> {
    fn time(&self) -> i64 {
        match self {
            Self::Event(event) => event.time,
            Self::Record { rows, row, .. } => rows.time(*row),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Event(event) => event.name,
            Self::Record { rows, row, .. } => rows.event_name(*row).unwrap_or_default(),
        }
    }
}

impl Serialize for Logs<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(view, row) = *self;
        let mut logs: Vec<Log<'_, '_>> = view.rows.events(row).map(Log::Event).collect();
        let records = view.rows.span_id(row).and_then(|span| view.events.by_span.get(&span));
        if let (Some(records), Some((rows, attributes))) = (records, &view.events.rows) {
            let events = logs.len();
            for row in records {
                let record = Log::Record { rows, attributes, row: *row };
                // An emitter in transition sends an event both ways; it is one event.
                let same =
                    |log: &Log<'_, '_>| log.time() == record.time() && log.name() == record.name();
                if !logs[..events].iter().any(same) {
                    logs.push(record);
                }
            }
        }
        logs.sort_by_key(Log::time);
        serializer.collect_seq(logs)
    }
}

impl Serialize for Log<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("timestamp", &micros(self.time()))?;
        map.serialize_entry("fields", &LogFields(self))?;
        map.end()
    }
}

struct LogFields<'s, 'a>(&'s Log<'s, 'a>);

impl Serialize for LogFields<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = self.0.name();
        let mut fields: Vec<Tag<'_>> = Vec::new();
        let mut named = false;
        let mut add = |(key, value)| {
            named |= key == "event";
            fields.push(Tag::new(key, value));
        };
        match self.0 {
            Log::Event(event) => {
                event.attributes.into_iter().flat_map(|list| list.iter()).for_each(&mut add);
            }
            Log::Record { rows, attributes, row } => {
                if let Some(body) = rows.body(*row) {
                    add(("message", Value::Str(body)));
                }
                attributes.of_row(*row).for_each(&mut add);
            }
        }
        let event = (!named && !name.is_empty()).then(|| Tag::text("event", name));
        serializer.collect_seq(event.into_iter().chain(fields))
    }
}
