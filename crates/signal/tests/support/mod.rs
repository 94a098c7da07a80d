//! Random OTLP requests, valid by the protocol.

// Each test program uses a part of it.
#![allow(dead_code)]

pub mod metrics;

use lacuna_signal::SignalKind;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList,
    any_value::Value as V,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

/// Short, long, unusual texts; `""` often.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => Just(String::new()),
        4 => "[a-z.]{1,12}",
        2 => "[a-z]{13,40}",
        1 => any::<String>(),
        1 => "[\\x00-\\x1f\"\\\\/é😀]{1,20}",
        1 => Just("x".repeat(3000)),
    ]
}

/// Doubles with their special values; JSON as opentelemetry-proto writes it cannot hold those.
pub fn double(special: bool) -> BoxedStrategy<f64> {
    use proptest::num::f64::{ANY, INFINITE, NORMAL, QUIET_NAN, SUBNORMAL, ZERO};
    if special {
        prop_oneof![ANY, INFINITE, QUIET_NAN, ZERO].boxed()
    } else {
        (NORMAL | SUBNORMAL | ZERO).boxed()
    }
}

pub fn integer() -> impl Strategy<Value = i64> {
    prop_oneof![any::<i64>(), -3i64..300, Just(i64::MIN), Just(i64::MAX)]
}

/// A value of any type, nested a few levels.
pub fn any_value(special: bool) -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        1 => Just(None),
        4 => text().prop_map(|text| Some(V::StringValue(text))),
        2 => integer().prop_map(|value| Some(V::IntValue(value))),
        2 => double(special).prop_map(|value| Some(V::DoubleValue(value))),
        1 => any::<bool>().prop_map(|value| Some(V::BoolValue(value))),
        1 => vec(any::<u8>(), 0..20).prop_map(|bytes| Some(V::BytesValue(bytes))),
    ];
    let leaf = leaf.prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 12, 4, |inner| {
        let pair = (text(), inner.clone()).prop_map(|(key, value)| attribute(key, value));
        prop_oneof![
            vec(inner, 0..4).prop_map(|values| V::ArrayValue(ArrayValue { values })),
            vec(pair, 0..4).prop_map(|values| V::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn attribute(key: String, value: AnyValue) -> KeyValue {
    KeyValue { key, value: Some(value), ..Default::default() }
}

/// Attributes whose keys often repeat, within an item and across items, with values of any type.
pub fn attributes(special: bool) -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof![3 => "[ab]", 1 => text()];
    vec((key, any_value(special)).prop_map(|(key, value)| attribute(key, value)), 0..5)
}

pub fn time() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        1_700_000_000_000_000_000u64..1_800_000_000_000_000_000,
        1..=i64::MAX as u64
    ]
}

pub fn id(len: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(1..=u8::MAX, len)
}

pub fn maybe_id(len: usize) -> impl Strategy<Value = Vec<u8>> {
    option::of(id(len)).prop_map(Option::unwrap_or_default)
}

fn resource(special: bool) -> impl Strategy<Value = Option<Resource>> {
    let entity = (text(), vec(text(), 0..3)).prop_map(|(r#type, id_keys)| EntityRef {
        schema_url: String::new(),
        r#type,
        description_keys: id_keys.clone(),
        id_keys,
    });
    option::of((attributes(special), any::<u32>(), vec(entity, 0..2)).prop_map(
        |(attributes, dropped_attributes_count, entity_refs)| Resource {
            attributes,
            dropped_attributes_count,
            entity_refs,
        },
    ))
}

fn scope(special: bool) -> impl Strategy<Value = Option<InstrumentationScope>> {
    option::of((text(), text(), attributes(special), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    ))
}

/// Scopes of items: what the three kinds of request have in common.
type Scopes<T> = Vec<(Option<InstrumentationScope>, Vec<T>, String)>;

fn resources<T: std::fmt::Debug>(
    item: impl Strategy<Value = T>,
    special: bool,
) -> impl Strategy<Value = Vec<(Option<Resource>, Scopes<T>, String)>> {
    let scopes = vec((scope(special), vec(item, 0..4), text()), 0..3);
    vec((resource(special), scopes, text()), 0..3)
}

fn event(special: bool) -> impl Strategy<Value = Event> {
    (time(), text(), attributes(special), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn link(special: bool) -> impl Strategy<Value = Link> {
    (id(16), id(8), text(), attributes(special), any::<u32>(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    )
}

fn span(special: bool) -> impl Strategy<Value = Span> {
    let status = option::of((text(), 0..3).prop_map(|(message, code)| Status { message, code }));
    (
        (id(16), id(8), text(), maybe_id(8), any::<u32>(), text(), 0..6),
        (time(), time(), attributes(special), any::<u32>(), any::<u32>(), any::<u32>()),
        (vec(event(special), 0..3), vec(link(special), 0..3), status),
    )
        .prop_map(|(head, middle, tail)| Span {
            trace_id: head.0,
            span_id: head.1,
            trace_state: head.2,
            parent_span_id: head.3,
            flags: head.4,
            name: head.5,
            kind: head.6,
            start_time_unix_nano: middle.0,
            end_time_unix_nano: middle.1,
            attributes: middle.2,
            dropped_attributes_count: middle.3,
            events: tail.0,
            dropped_events_count: middle.4,
            links: tail.1,
            dropped_links_count: middle.5,
            status: tail.2,
        })
}

fn log_record(special: bool) -> impl Strategy<Value = LogRecord> {
    (
        (time(), time(), 0..=24, text(), option::of(any_value(special))),
        (attributes(special), any::<u32>(), any::<u32>(), maybe_id(16), maybe_id(8), text()),
    )
        .prop_map(|(head, tail)| LogRecord {
            time_unix_nano: head.0,
            observed_time_unix_nano: head.1,
            severity_number: head.2,
            severity_text: head.3,
            body: head.4,
            attributes: tail.0,
            dropped_attributes_count: tail.1,
            flags: tail.2,
            trace_id: tail.3,
            span_id: tail.4,
            event_name: tail.5,
        })
}

/// Requests of spans. Without `special`, JSON as opentelemetry-proto writes it can hold them.
pub fn traces(special: bool) -> impl Strategy<Value = ExportTraceServiceRequest> {
    resources(span(special), special).prop_map(|resources| ExportTraceServiceRequest {
        resource_spans: resources
            .into_iter()
            .map(|(resource, scopes, schema_url)| ResourceSpans {
                resource,
                scope_spans: scopes
                    .into_iter()
                    .map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url })
                    .collect(),
                schema_url,
            })
            .collect(),
    })
}

/// Requests of log records.
pub fn logs(special: bool) -> impl Strategy<Value = ExportLogsServiceRequest> {
    resources(log_record(special), special).prop_map(|resources| ExportLogsServiceRequest {
        resource_logs: resources
            .into_iter()
            .map(|(resource, scopes, schema_url)| ResourceLogs {
                resource,
                scope_logs: scopes
                    .into_iter()
                    .map(|(scope, log_records, schema_url)| ScopeLogs {
                        scope,
                        log_records,
                        schema_url,
                    })
                    .collect(),
                schema_url,
            })
            .collect(),
    })
}

/// How many items prost finds in a request of `kind`; `None` if it cannot read it.
pub fn items_by_prost(kind: SignalKind, body: &[u8]) -> Option<u64> {
    let items: usize = match kind {
        SignalKind::Spans => {
            let request = ExportTraceServiceRequest::decode(body).ok()?;
            let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
            scopes.map(|scope| scope.spans.len()).sum()
        }
        SignalKind::Logs => {
            let request = ExportLogsServiceRequest::decode(body).ok()?;
            let scopes = request.resource_logs.iter().flat_map(|r| &r.scope_logs);
            scopes.map(|scope| scope.log_records.len()).sum()
        }
        SignalKind::Points => metrics::points_by_prost(body)?,
    };
    Some(items as u64)
}
