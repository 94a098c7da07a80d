//! Spans and logs as plain data, their OTLP bytes, and selectors read over them word by word.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::Event, span::Link,
};
use prost::Message;

use super::super::*;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Val {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Bytes(Vec<u8>),
}

pub(super) type Attrs = Vec<(String, Val)>;

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) text: String,
    pub(super) code: u8,
    pub(super) duration: i64,
    pub(super) id: u8,
    /// Of the parent, 0 for none; by default, even ids have the id before as their parent.
    pub(super) parent: Option<u8>,
    pub(super) own: Attrs,
    pub(super) resource: Attrs,
    pub(super) scope: Attrs,
    pub(super) events: Vec<(String, i64, Attrs)>,
    pub(super) links: Vec<(u8, Attrs)>,
}

impl Row {
    fn parent(&self) -> Option<u8> {
        let even = if self.id.is_multiple_of(2) { self.id - 1 } else { 0 };
        Some(self.parent.unwrap_or(even)).filter(|id| *id != 0)
    }
}

const START: i64 = 1_700_000_000_000_000_000;

fn attrs(attrs: &Attrs) -> Vec<KeyValue> {
    attrs
        .iter()
        .map(|(key, value)| {
            let value = match value.clone() {
                Val::Str(value) => any_value::Value::StringValue(value),
                Val::Int(value) => any_value::Value::IntValue(value),
                Val::Float(value) => any_value::Value::DoubleValue(value),
                Val::Bool(value) => any_value::Value::BoolValue(value),
                Val::Bytes(value) => any_value::Value::BytesValue(value),
            };
            let value = Some(AnyValue { value: Some(value) });
            KeyValue { key: key.clone(), value, ..KeyValue::default() }
        })
        .collect()
}

impl Row {
    fn span(&self) -> ResourceSpans {
        let span = Span {
            trace_id: vec![self.id; 16],
            span_id: vec![self.id; 8],
            parent_span_id: self.parent().map_or_else(Vec::new, |id| vec![id; 8]),
            name: self.text.clone(),
            kind: i32::from(self.code % 6),
            start_time_unix_nano: START as u64,
            end_time_unix_nano: (START + self.duration) as u64,
            attributes: attrs(&self.own),
            events: self
                .events
                .iter()
                .map(|(name, offset, list)| Event {
                    time_unix_nano: (START + offset) as u64,
                    name: name.clone(),
                    attributes: attrs(list),
                    ..Event::default()
                })
                .collect(),
            links: self
                .links
                .iter()
                .map(|(id, list)| Link {
                    trace_id: vec![*id; 16],
                    span_id: vec![*id; 8],
                    attributes: attrs(list),
                    ..Link::default()
                })
                .collect(),
            status: Some(Status { message: String::new(), code: i32::from(self.code % 3) }),
            ..Span::default()
        };
        ResourceSpans {
            resource: Some(Resource { attributes: attrs(&self.resource), ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    attributes: attrs(&self.scope),
                    ..InstrumentationScope::default()
                }),
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }
    }

    fn log(&self) -> ResourceLogs {
        let record = LogRecord {
            time_unix_nano: START as u64,
            severity_number: i32::from(self.code % 25),
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(self.text.clone())) }),
            attributes: attrs(&self.own),
            trace_id: vec![self.id; 16],
            span_id: vec![self.id; 8],
            ..LogRecord::default()
        };
        ResourceLogs {
            resource: Some(Resource { attributes: attrs(&self.resource), ..Resource::default() }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    attributes: attrs(&self.scope),
                    ..InstrumentationScope::default()
                }),
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }
    }
}

pub(super) fn batch(rows: &[Row], log: bool) -> Batch {
    let (kind, body) = if log {
        let resource_logs = rows.iter().map(Row::log).collect();
        (SignalKind::Logs, ExportLogsServiceRequest { resource_logs }.encode_to_vec())
    } else {
        let resource_spans = rows.iter().map(Row::span).collect();
        (SignalKind::Spans, ExportTraceServiceRequest { resource_spans }.encode_to_vec())
    };
    let decoded = crate::otlp::decode(kind, Bytes::from(body)).unwrap();
    assert_eq!(decoded.batch.num_rows(), rows.len());
    decoded.batch
}

/// Every value of a key, in the order in which a reader of one value takes them.
fn all(list: &Attrs, key: &str) -> Vec<Val> {
    let mut values: Vec<Val> =
        list.iter().filter(|(k, _)| k == key).map(|(_, value)| value.clone()).collect();
    values.sort_by_key(|value| match value {
        Val::Str(_) => 0,
        Val::Int(_) => 1,
        Val::Float(_) => 2,
        Val::Bool(_) => 3,
        Val::Bytes(_) => 4,
    });
    values
}

fn word(word: &str) -> Vec<Val> {
    vec![Val::Str(word.to_owned())]
}

fn hex(id: u8, bytes: usize) -> Val {
    Val::Str(format!("{id:02x}").repeat(bytes))
}

impl Row {
    /// Every value that a field has in the row.
    fn values(&self, field: &Field) -> Vec<Val> {
        match field {
            Field::Attribute { scope, key } => match scope {
                FieldScope::Span | FieldScope::Log | FieldScope::Point => all(&self.own, key),
                FieldScope::Resource => all(&self.resource, key),
                FieldScope::Instrumentation => all(&self.scope, key),
                FieldScope::Unscoped => {
                    let own = all(&self.own, key);
                    if own.is_empty() { all(&self.resource, key) } else { own }
                }
                FieldScope::Event => self.events.iter().flat_map(|e| all(&e.2, key)).collect(),
                FieldScope::Link => self.links.iter().flat_map(|l| all(&l.1, key)).collect(),
                // Of other spans: see the tests of whole traces.
                FieldScope::Parent | FieldScope::ParentSpan | FieldScope::ParentResource => {
                    Vec::new()
                }
                FieldScope::Any => [&self.own, &self.resource, &self.scope]
                    .into_iter()
                    .chain(self.events.iter().map(|event| &event.2))
                    .flat_map(|list| all(list, key))
                    .collect(),
            },
            Field::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::Name | Intrinsic::Body => word(&self.text),
                Intrinsic::Status => word(["unset", "ok", "error"][usize::from(self.code % 3)]),
                Intrinsic::Kind => {
                    let kinds =
                        ["unspecified", "internal", "server", "client", "producer", "consumer"];
                    word(kinds[usize::from(self.code % 6)])
                }
                Intrinsic::Duration => vec![Val::Int(self.duration)],
                Intrinsic::TraceId => vec![hex(self.id, 16)],
                Intrinsic::SpanId => vec![hex(self.id, 8)],
                Intrinsic::ParentId => self.parent().map(|id| hex(id, 8)).into_iter().collect(),
                Intrinsic::SpanEventName => {
                    self.events.iter().map(|event| Val::Str(event.0.clone())).collect()
                }
                Intrinsic::SpanEventTime => {
                    self.events.iter().map(|event| Val::Int(event.1)).collect()
                }
                Intrinsic::LinkTraceId => self.links.iter().map(|link| hex(link.0, 16)).collect(),
                Intrinsic::LinkSpanId => self.links.iter().map(|link| hex(link.0, 8)).collect(),
                Intrinsic::Severity if !self.code.is_multiple_of(25) => {
                    vec![Val::Int(i64::from(self.code % 25))]
                }
                _ => Vec::new(),
            },
        }
    }

    /// What the language says, one row and one value at a time.
    pub(super) fn passes(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Const(value) => *value,
            Expr::And(parts) => parts.iter().all(|part| self.passes(part)),
            Expr::Or(parts) => parts.iter().any(|part| self.passes(part)),
            Expr::Not(inner) => !self.passes(inner),
            Expr::Compare { field, op, value } => {
                let left = self.values(field);
                match value {
                    Operand::Literal(Literal::Nil) => left.is_empty() == (*op == Op::Eq),
                    Operand::Literal(literal) => {
                        let text = matches!(field, Field::Attribute { scope: FieldScope::Any, .. });
                        left.iter().any(|value| holds(value, *op, literal, text))
                    }
                    // Written alike, but never the same thing.
                    Operand::Field(other)
                        if id_length(field).zip(id_length(other)).is_some_and(|(a, b)| a != b) =>
                    {
                        false
                    }
                    Operand::Field(other) => match (left.first(), self.values(other).first()) {
                        (Some(left), Some(right)) => same_type(left, *op, right),
                        _ => false,
                    },
                }
            }
        }
    }
}

/// Bytes of the ids that a field has; nothing of other fields and of text that may hold an id.
fn id_length(field: &Field) -> Option<usize> {
    match field {
        Field::Intrinsic(Intrinsic::TraceId | Intrinsic::LinkTraceId) => Some(16),
        Field::Intrinsic(Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId) => {
            Some(8)
        }
        _ => None,
    }
}

fn same_type(left: &Val, op: Op, right: &Val) -> bool {
    match (left, right) {
        (Val::Str(a), Val::Str(b)) => op.holds(Some(a.cmp(b))),
        (Val::Bool(a), Val::Bool(b)) => op.holds(Some(a.cmp(b))),
        (Val::Int(a), Val::Int(b)) => op.holds(Some(a.cmp(b))),
        (Val::Int(a), Val::Float(b)) => op.holds((*a as f64).partial_cmp(b)),
        (Val::Float(a), Val::Int(b)) => op.holds(a.partial_cmp(&(*b as f64))),
        (Val::Float(a), Val::Float(b)) => op.holds(a.partial_cmp(b)),
        (Val::Bytes(a), Val::Bytes(b)) => {
            op.holds(Some(crate::value::base64(a).cmp(&crate::value::base64(b))))
        }
        _ => false,
    }
}

fn holds(value: &Val, op: Op, literal: &Literal, as_text: bool) -> bool {
    let text = match value {
        Val::Str(text) => text.clone(),
        Val::Int(value) if as_text => value.to_string(),
        Val::Float(value) if as_text => crate::value::double_text(*value),
        Val::Bool(value) if as_text => value.to_string(),
        Val::Bytes(value) if as_text => crate::value::base64(value),
        _ => String::from("\u{0}not a text"),
    };
    if op.is_match() {
        let Literal::Str(pattern) = literal else { return false };
        let regex = regex::Regex::new(&format!("(?s)^(?:{pattern})$")).unwrap();
        let is_text = as_text || matches!(value, Val::Str(_));
        return is_text && regex.is_match(&text) == (op == Op::Match);
    }
    let right = match literal {
        Literal::Str(other) => {
            let is_text = as_text || matches!(value, Val::Str(_));
            return is_text && op.holds(Some(text.as_str().cmp(other)));
        }
        Literal::Int(other) | Literal::Duration(other) => Val::Int(*other),
        Literal::Float(other) => Val::Float(*other),
        Literal::Bool(other) => Val::Bool(*other),
        Literal::Status(other) => Val::Str(other.name().to_owned()),
        Literal::Kind(other) => Val::Str(other.name().to_owned()),
        Literal::Severity(level) => {
            let Val::Int(number) = value else { return false };
            let (low, high) = (i64::from(level.code()), i64::from(level.code()) + 3);
            // Inside the level's range the severity is equal to it.
            let ordering = if *number < low {
                std::cmp::Ordering::Less
            } else if *number > high {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Equal
            };
            return op.holds(Some(ordering));
        }
        Literal::Nil => return false,
    };
    same_type(value, op, &right)
}
