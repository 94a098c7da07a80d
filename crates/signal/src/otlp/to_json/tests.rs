//! Requests go through the columns and come back as JSON that says the same.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as V;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use prost::Message;

use super::to_json;
use crate::otlp::decode;
use crate::schema::SignalKind;

fn attribute(key: &str, value: V) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

fn through(kind: SignalKind, request: &impl Message) -> String {
    let decoded = decode(kind, Bytes::from(request.encode_to_vec())).unwrap();
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    String::from_utf8(to_json(&decoded.batch).unwrap()).unwrap()
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        ".{0,8}".prop_map(V::StringValue),
        any::<i64>().prop_map(V::IntValue),
        any::<f64>()
            .prop_filter("NaN is unequal to itself", |v| !v.is_nan())
            .prop_map(V::DoubleValue),
        any::<bool>().prop_map(V::BoolValue),
        vec(any::<u8>(), 0..6).prop_map(V::BytesValue),
    ];
    let value = leaf.prop_recursive(3, 12, 3, |inner| {
        let item = prop::option::weighted(0.9, inner).prop_map(|value| AnyValue { value });
        prop_oneof![
            vec(item.clone(), 0..3).prop_map(|values| V::ArrayValue(ArrayValue { values })),
            vec(("[a-c]{1,2}", item), 0..3).prop_map(|members| {
                let values = members
                    .into_iter()
                    .map(|(key, value)| KeyValue { key, value: Some(value), ..Default::default() })
                    .collect();
                V::KvlistValue(KeyValueList { values })
            }),
        ]
    });
    prop::option::weighted(0.95, value).prop_map(|value| AnyValue { value })
}

/// Attributes by key, each key once: the columns keep no order among an item's attributes.
pub fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    btree_map("[a-f.é\"\\\\]{1,3}", any_value(), 0..4).prop_map(|map| {
        map.into_iter()
            .map(|(key, value)| KeyValue { key, value: Some(value), ..Default::default() })
            .collect()
    })
}

pub const TIME: std::ops::Range<u64> = 1..i64::MAX as u64 / 2;

pub fn id<const N: usize>() -> impl Strategy<Value = Vec<u8>> {
    any::<[u8; N]>().prop_map(|mut id| {
        id[0] |= 1;
        id.to_vec()
    })
}

fn event() -> impl Strategy<Value = Event> {
    (TIME, ".{0,5}", attributes(), 0u32..3).prop_map(
        |(time_unix_nano, name, attributes, dropped)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count: dropped,
        },
    )
}

fn link() -> impl Strategy<Value = Link> {
    (id::<16>(), id::<8>(), ".{0,5}", attributes(), 0u32..3, any::<u32>()).prop_map(
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

fn span() -> impl Strategy<Value = Span> {
    let ids = (id::<16>(), id::<8>(), prop_oneof![Just(Vec::new()), id::<8>()]);
    let texts = (".{0,5}", ".{0,5}", ".{0,5}");
    let numbers = (any::<u32>(), 0i32..6, TIME, TIME, 0i32..3);
    let lists = (attributes(), vec(event(), 0..3), vec(link(), 0..3));
    (ids, texts, numbers, lists, (0u32..3, 0u32..3, 0u32..3)).prop_map(
        |(ids, texts, n, lists, d)| Span {
            trace_id: ids.0,
            span_id: ids.1,
            parent_span_id: ids.2,
            name: texts.0,
            trace_state: texts.1,
            flags: n.0,
            kind: n.1,
            start_time_unix_nano: n.2,
            end_time_unix_nano: n.3,
            status: Some(Status { message: texts.2, code: n.4 }),
            attributes: lists.0,
            events: lists.1,
            links: lists.2,
            dropped_attributes_count: d.0,
            dropped_events_count: d.1,
            dropped_links_count: d.2,
        },
    )
}

fn log() -> impl Strategy<Value = LogRecord> {
    let ids = (prop_oneof![Just(Vec::new()), id::<16>()], prop_oneof![Just(Vec::new()), id::<8>()]);
    let texts = ("[a-z]{0,5}", ".{0,5}");
    let numbers = (TIME, 0..i64::MAX as u64, 0i32..25, any::<u32>(), 0u32..3);
    (ids, texts, numbers, any_value(), attributes()).prop_map(
        |(ids, texts, n, body, attributes)| LogRecord {
            time_unix_nano: n.0,
            observed_time_unix_nano: n.1,
            severity_number: n.2,
            severity_text: texts.0,
            body: body.value.is_some().then_some(body),
            attributes,
            dropped_attributes_count: n.4,
            flags: n.3,
            trace_id: ids.0,
            span_id: ids.1,
            event_name: texts.1,
        },
    )
}

/// Resources, each with its scopes and their items.
type Grouped<T> = Vec<(Resource, String, Vec<(InstrumentationScope, String, Vec<T>)>)>;

/// Resources and scopes, each told from the others by a number, with items in them.
pub fn grouped<T: std::fmt::Debug>(
    item: impl Strategy<Value = T>,
) -> impl Strategy<Value = Grouped<T>> {
    let scopes = vec((attributes(), 0u32..3, "[a-z]{0,3}", vec(item, 1..4)), 1..3);
    vec((attributes(), 0u32..3, "[a-z]{0,3}", scopes), 1..3).prop_map(|resources| {
        let resources = resources.into_iter().enumerate();
        resources
            .map(|(n, (mut attributes, dropped, url, scopes))| {
                attributes.push(attribute("n", V::IntValue(n as i64)));
                attributes.sort_by(|a, b| a.key.cmp(&b.key));
                let scopes = scopes.into_iter().enumerate().map(|(n, scope)| {
                    let (attributes, dropped_attributes_count, url, items) = scope;
                    let (name, version) = ("s".to_owned(), n.to_string());
                    let scope = InstrumentationScope {
                        name,
                        version,
                        attributes,
                        dropped_attributes_count,
                    };
                    (scope, url, items)
                });
                let dropped_attributes_count = dropped;
                let resource =
                    Resource { attributes, dropped_attributes_count, ..Default::default() };
                (resource, url, scopes.collect())
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn spans_come_back(resources in grouped(span())) {
        let resource_spans = resources.into_iter().map(|(resource, schema_url, scopes)| ResourceSpans {
            resource: Some(resource),
            schema_url,
            scope_spans: scopes
                .into_iter()
                .map(|(scope, schema_url, spans)| ScopeSpans { scope: Some(scope), spans, schema_url })
                .collect(),
        });
        let request = ExportTraceServiceRequest { resource_spans: resource_spans.collect() };
        let json = through(SignalKind::Spans, &request);
        let back: ExportTraceServiceRequest = serde_json::from_str(&json).map_err(|e| TestCaseError::fail(format!("{e}: {json}")))?;
        prop_assert_eq!(back, request);
    }

    #[test]
    fn logs_come_back(resources in grouped(log())) {
        let resource_logs = resources.into_iter().map(|(resource, schema_url, scopes)| ResourceLogs {
            resource: Some(resource),
            schema_url,
            scope_logs: scopes
                .into_iter()
                .map(|(scope, schema_url, log_records)| ScopeLogs { scope: Some(scope), log_records, schema_url })
                .collect(),
        });
        let request = ExportLogsServiceRequest { resource_logs: resource_logs.collect() };
        let json = through(SignalKind::Logs, &request);
        let back: ExportLogsServiceRequest = serde_json::from_str(&json).map_err(|e| TestCaseError::fail(format!("{e}: {json}")))?;
        prop_assert_eq!(back, request);
    }
}

#[test]
fn what_is_default_is_left_out_and_nothing_is_lost() {
    let span = Span {
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        name: "redis.spop".to_owned(),
        kind: 3,
        start_time_unix_nano: 1_700_000_000_000_000_001,
        end_time_unix_nano: 1_700_000_000_000_000_501,
        attributes: vec![
            attribute("big", V::IntValue(i64::MAX)),
            attribute("nan", V::DoubleValue(f64::NAN)),
        ],
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    let json = through(SignalKind::Spans, &ExportTraceServiceRequest { resource_spans });
    assert_eq!(
        json,
        concat!(
            r#"{"resourceSpans":[{"resource":{},"scopeSpans":[{"scope":{},"spans":[{"#,
            r#""traceId":"abababababababababababababababab","spanId":"cdcdcdcdcdcdcdcd","#,
            r#""name":"redis.spop","kind":3,"startTimeUnixNano":"1700000000000000001","#,
            r#""endTimeUnixNano":"1700000000000000501","attributes":["#,
            r#"{"key":"big","value":{"intValue":"9223372036854775807"}},"#,
            r#"{"key":"nan","value":{"doubleValue":"NaN"}}],"status":{}}]}]}]}"#
        )
    );
}
