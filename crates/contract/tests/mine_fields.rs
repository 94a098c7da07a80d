//! Where mining finds its keys, and what it tells of where it cannot.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use lacuna_contract::mine::{MineOptions, Miner};
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, KeyValueList, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

/// Scenario: a client that invents more attributes than a batch has columns for, so that the key has
/// none of its own; and log records whose bodies are maps.
/// Guarantees: the key is found; the records are counted as passed over.
#[test]
fn attributes_without_a_column_are_mined_and_structured_bodies_counted() {
    let text =
        |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.into())) });
    let attribute = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: text(value),
        ..KeyValue::default()
    };
    let wide = |from: u32| {
        let junk = (0..600).map(|i| attribute(&format!("junk.{i}"), "x")).collect();
        let mut spans = vec![Span {
            trace_id: vec![9; 16],
            span_id: u64::from(from + 7_000_000).to_be_bytes().to_vec(),
            name: "junk".to_owned(),
            start_time_unix_nano: common::EPOCH as u64,
            attributes: junk,
            ..Span::default()
        }];
        for (i, name, after) in (from..from + 100).flat_map(|i| [(i, "take", 0), (i, "done", 40)]) {
            let start = (common::EPOCH + (i64::from(i) * 100 + after) * common::MS) as u64;
            spans.push(Span {
                trace_id: u128::from(i * 100 + after as u32 + 1).to_be_bytes().to_vec(),
                span_id: u64::from(i * 100 + after as u32).to_be_bytes().to_vec(),
                name: name.to_owned(),
                start_time_unix_nano: start,
                end_time_unix_nano: start + 1_000_000,
                attributes: vec![attribute("order.id", &format!("order-{i}"))],
                ..Span::default()
            });
        }
        let service = if from < 500 { "a" } else { "b" };
        let resource = Resource {
            attributes: vec![attribute("service.name", "shop"), attribute("host", service)],
            ..Resource::default()
        };
        let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        let resource_spans =
            vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        lacuna_signal::otlp::decode(SignalKind::Spans, bytes::Bytes::from(body)).unwrap().batch
    };
    let batches: Vec<Batch> = (0..10).map(|i| wide(i * 100)).collect();
    let has_own = |name: &str| batches[0].schema().fields().iter().any(|f| f.name() == name);
    assert!(!has_own("span.str.order.id") && has_own("overflow"), "{:?}", batches[0].schema());
    let mut miner = Miner::new(MineOptions::default());
    batches.iter().for_each(|batch| miner.observe(batch));
    let proposals = miner.propose();
    let found = proposals.iter().find(|p| p.kind == "exactly" || p.kind == "response");
    let found = found.unwrap_or_else(|| panic!("{proposals:#?}"));
    assert_eq!(found.key.0, "span.order.id");

    let map =
        any_value::Value::KvlistValue(KeyValueList { values: vec![attribute("order_id", "17")] });
    let log_records = vec![LogRecord {
        time_unix_nano: common::EPOCH as u64,
        body: Some(AnyValue { value: Some(map) }),
        ..LogRecord::default()
    }];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let logs = lacuna_signal::otlp::decode(SignalKind::Logs, bytes::Bytes::from(body)).unwrap();
    let mut miner = Miner::new(MineOptions::default());
    miner.observe(&logs.batch);
    let notes = miner.passed_over().join("\n");
    assert!(notes.contains("1 log records whose body is a map or a list"), "{notes}");
}
