//! Outcomes reach logs, the span and a counter.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::{attribute, memory, one, own_trace, spans_of};
use lacuna_instrument::correlation;
use lacuna_instrument::outcome::outcome;
use opentelemetry::Key;
use opentelemetry::logs::AnyValue;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};

/// The records of an outcome, as (event name, trace id, attributes).
fn records(name: &str) -> Vec<opentelemetry_sdk::logs::in_memory_exporter::LogDataWithResource> {
    let all = memory().logs.get_emitted_logs().unwrap();
    let is_ours = |l: &opentelemetry_sdk::logs::in_memory_exporter::LogDataWithResource| {
        let mut a = l.record.attributes_iter();
        a.any(|(k, v)| k.as_str() == "outcome.name" && *v == AnyValue::from(name.to_owned()))
    };
    all.into_iter().filter(is_ours).collect()
}

fn value(record: &opentelemetry_sdk::logs::SdkLogRecord, key: &'static str) -> Option<AnyValue> {
    let found: Vec<_> = record.attributes_iter().filter(|(k, _)| *k == Key::new(key)).collect();
    assert!(found.len() <= 1, "{key} is there {} times", found.len());
    found.first().map(|(_, v)| v.clone())
}

#[tokio::test]
async fn reached_and_missed_are_logs_span_attributes_and_counts() {
    let (cx, trace) = own_trace();
    {
        let _guard = correlation::with(&cx, "c-1").attach();
        tracing::info_span!("handler").in_scope(|| {
            outcome("slot_assigned").key("correlation_id", "c-1").key("batch_id", "7").reached();
            outcome("batch_ready").key("batch_id", "7").attribute("missing", 2).missed("no_slot");
        });
    }
    let reached = records("slot_assigned");
    assert_eq!(reached.len(), 1, "one OTLP record, not a second from the stdout line");
    let record = &reached[0].record;
    assert_eq!(record.event_name(), Some("outcome.reached"));
    assert_eq!(record.trace_context().unwrap().trace_id, trace);
    assert_eq!(value(record, "correlation_id"), Some(AnyValue::from("c-1".to_owned())));
    assert_eq!(value(record, "outcome.result"), Some(AnyValue::from("reached")));
    assert_eq!(value(record, "layer"), Some(AnyValue::from("application")));

    let record = &records("batch_ready")[0].record;
    assert_eq!(record.event_name(), Some("outcome.missed"));
    assert_eq!(record.severity_text(), Some("WARN"));
    assert_eq!(value(record, "outcome.reason"), Some(AnyValue::from("no_slot".to_owned())));
    assert_eq!(value(record, "missing"), Some(AnyValue::from(2_i64)));
    // The context's correlation id joins it to its request although it is no key of this outcome.
    assert_eq!(value(record, "correlation_id"), Some(AnyValue::from("c-1".to_owned())));

    let spans = spans_of(trace);
    let handler = one(&spans, "handler");
    assert_eq!(attribute(handler, "outcome.slot_assigned").as_deref(), Some("reached"));
    assert_eq!(attribute(handler, "outcome.batch_ready").as_deref(), Some("missed"));
    assert_eq!(attribute(handler, "outcome.batch_ready.reason").as_deref(), Some("no_slot"));

    let lines = memory().lines.json();
    let line = lines.iter().find(|l| l["outcome.name"] == "batch_ready").unwrap();
    assert_eq!(line["level"], "warn");
    assert_eq!(line["batch_id"], "7");
    assert_eq!(line["correlation_id"], "c-1", "of the context");
    assert_eq!(line["outcome.keys"], serde_json::Value::Null);

    memory().telemetry.flush().await.unwrap();
    let all = memory().metrics.get_finished_metrics().unwrap();
    let metric = all.last().unwrap().scope_metrics().flat_map(|s| s.metrics());
    let metric = metric.filter(|m| m.name() == "outcome.count").last().unwrap();
    let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else { panic!("a counter") };
    let missed = sum
        .data_points()
        .find(|p| p.attributes().any(|kv| kv.value.as_str() == "batch_ready"))
        .unwrap();
    assert_eq!(missed.value(), 1);
    assert!(missed.attributes().all(|kv| kv.key.as_str() != "batch_id"), "keys are unbounded");
}

#[test]
fn a_line_outside_any_context_has_the_outcomes_keys_under_their_names() {
    memory();
    let told = outcome("alone").key("correlation_id", "c-alone").key("attempt", 3);
    told.key("trace_id", "not one").missed("no_slot");
    let lines = memory().lines.json();
    let line = lines.iter().find(|l| l["outcome.name"] == "alone").unwrap();
    assert_eq!(line["correlation_id"], "c-alone");
    assert_eq!(line["attempt"], 3);
    assert_eq!(line["outcome.reason"], "no_slot");
    assert_eq!(line["fields.trace_id"], "not one", "a key cannot forge the frame");
    assert_eq!(line["trace_id"], serde_json::Value::Null);
}
