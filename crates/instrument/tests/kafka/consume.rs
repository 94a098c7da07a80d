//! Messages that are handled.

use super::common::{attribute, is_child_of, memory, named, one, own_trace, spans_of, unique, url};
use super::{TYPE, consumer, receive, send};
use lacuna_instrument::correlation;
use lacuna_instrument::kafka::{Broker, Consumer, Parent, commit_and_wait, trace_kafka_operation};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use rdkafka::Message as _;
use rdkafka::message::{OwnedHeaders, OwnedMessage};
use std::sync::Arc;

#[tokio::test]
async fn one_trace_runs_from_the_producer_through_the_handler() {
    let topic = unique("essays");
    let trace = send(&topic, b"{}").await;
    let stream = Arc::new(consumer(&topic, &topic));
    let message = receive(&stream).await;
    let span = Consumer::new("els")
        .broker(Broker::only_of(&url("KAFKA_BROKERS")))
        .client_id("els-1")
        .start(&message)
        .attribute("batch_id", "7")
        .begin();
    let handled: Result<(), String> = span
        .run(async {
            tracing::info_span!("handler").in_scope(|| tracing::info!("kafka handler line"));
            assert_eq!(correlation::current().as_deref(), Some("c-1"));
            commit_and_wait(&stream, &message).await.map_err(|e| e.to_string())
        })
        .await;
    handled.unwrap();

    let brokers = url("KAFKA_BROKERS");
    let (address, port) = brokers.rsplit_once(':').unwrap();
    let spans = spans_of(trace);
    let produced = one(&spans, &format!("kafka.produce.{TYPE}"));
    assert_eq!(produced.span_kind, SpanKind::Producer);
    let consumed = one(&spans, &format!("kafka.consume.{TYPE}"));
    assert_eq!(consumed.span_kind, SpanKind::Consumer);
    assert!(is_child_of(consumed, produced));
    assert_eq!(consumed.links.links.len(), 1);
    assert_eq!(consumed.links.links[0].span_context.span_id(), produced.span_context.span_id());
    for span in [produced, consumed] {
        for (key, value) in [
            ("correlation_id", "c-1"),
            ("event_id", "e-1"),
            ("event_type", TYPE),
            ("kafka.partition", "0"),
            ("kafka.offset", "0"),
            ("batch_id", "7"),
            ("messaging.system", "kafka"),
            ("messaging.destination.name", &topic),
            ("messaging.destination.partition.id", "0"),
            ("messaging.kafka.offset", "0"),
            ("messaging.kafka.message.key", "batch-7"),
            ("messaging.message.body.size", "2"),
            ("server.address", address),
            ("server.port", port),
        ] {
            assert_eq!(attribute(span, key).as_deref(), Some(value), "{key} of {}", span.name);
        }
        assert_eq!(span.status, Status::Unset);
    }
    assert_eq!(attribute(consumed, "messaging.consumer.group.name").as_deref(), Some("els"));
    assert_eq!(attribute(consumed, "messaging.operation.type").as_deref(), Some("process"));
    assert!(is_child_of(one(&spans, "handler"), consumed));
    assert!(is_child_of(one(&spans, "kafka.commit"), consumed));
    assert_eq!(attribute(produced, "messaging.client.id").as_deref(), Some("test-producer"));
    let page = memory().telemetry.metrics_text().render();
    let taken = page.lines().any(|l| {
        l.starts_with("messaging_client_consumed_messages_total{")
            && l.contains(r#"messaging_consumer_group_name="els""#)
            && l.contains(&topic)
    });
    assert!(taken, "{page}");
    for metric in
        ["messaging_client_operation_duration_seconds", "messaging_process_duration_seconds"]
    {
        assert!(page.contains(&format!("# UNIT {metric} seconds")), "{page}");
    }

    let lines = memory().lines.json();
    let line = lines.iter().find(|l| l["message"] == "kafka handler line").unwrap();
    assert_eq!(line["trace_id"], trace.to_string());
    assert_eq!(line["correlation_id"], "c-1");
}

#[tokio::test]
async fn ambient_parenting_keeps_the_link_and_the_correlation_id() {
    let topic = unique("essays");
    let producer_trace = send(&topic, b"{}").await;
    let stream = consumer(&topic, &topic);
    let message = receive(&stream).await;
    let (cx, trace) = own_trace();
    {
        let _guard = cx.clone().attach();
        Consumer::new("els").parent(Parent::Ambient).start(&message).begin().succeed();
    }
    let spans = spans_of(trace);
    let consumed = one(&spans, &format!("kafka.consume.{TYPE}"));
    assert_eq!(consumed.parent_span_id, cx.span().span_context().span_id());
    assert_eq!(consumed.links.links[0].span_context.trace_id(), producer_trace);
    assert_eq!(attribute(consumed, "correlation_id").as_deref(), Some("c-1"));
}

#[tokio::test]
async fn the_payloads_correlation_id_wins_where_it_differs() {
    let topic = unique("essays");
    let trace = send(&topic, b"{}").await;
    let stream = consumer(&topic, &topic);
    let message = receive(&stream).await;
    let mut span = Consumer::new("els").start(&message).begin();
    span.correlate("c-payload");
    let handled: Result<(), String> = span
        .run(async {
            tracing::info_span!("handler").in_scope(|| ());
            Ok(())
        })
        .await;
    handled.unwrap();
    let spans = spans_of(trace);
    for name in ["handler", &format!("kafka.consume.{TYPE}")] {
        assert_eq!(
            attribute(one(&spans, name), "correlation_id").as_deref(),
            Some("c-payload"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_poison_message_ends_as_an_error_that_says_where_it_lies() {
    let topic = unique("essays");
    let trace = send(&topic, b"not json").await;
    let stream = consumer(&topic, &topic);
    let message = receive(&stream).await;
    let span = Consumer::new("els").start(&message).begin();
    let read = span
        .deserialize(|| serde_json::from_slice::<serde_json::Value>(message.payload().unwrap()));
    span.fail("deserialization", &read.unwrap_err());
    let spans = spans_of(trace);
    let consumed = one(&spans, &format!("kafka.consume.{TYPE}"));
    let decoded = one(&spans, "kafka.deserialize");
    assert!(is_child_of(decoded, consumed));
    for span in [consumed, decoded] {
        assert!(matches!(span.status, Status::Error { .. }));
        assert_eq!(attribute(span, "error.type").as_deref(), Some("deserialization"));
        assert_eq!(attribute(span, "messaging.destination.name").as_deref(), Some(topic.as_str()));
        assert_eq!(attribute(span, "kafka.partition").as_deref(), Some("0"));
        assert_eq!(attribute(span, "kafka.offset").as_deref(), Some("0"));
    }
}

#[tokio::test]
async fn a_handler_that_fails_or_vanishes_is_an_error() {
    let topic = unique("essays");
    let trace = send(&topic, b"{}").await;
    let stream = consumer(&topic, &topic);
    let message = receive(&stream).await;
    let tracing = Consumer::new("els");
    let failed: Result<(), &str> =
        tracing.start(&message).begin().run(async { Err("no slot table") }).await;
    assert!(failed.is_err());
    drop(tracing.start(&message).begin());
    let spans = spans_of(trace);
    let consumed = named(&spans, &format!("kafka.consume.{TYPE}"));
    assert_eq!(consumed[0].status, Status::error("no slot table"));
    assert_eq!(attribute(consumed[1], "error.type").as_deref(), Some("cancelled"));
    assert!(matches!(consumed[1].status, Status::Error { .. }));
}

/// Sum of a counter's samples on the page that hold all of `texts`.
fn counted(name: &str, texts: &[&str]) -> f64 {
    let page = memory().telemetry.metrics_text().render();
    let lines = page.lines().filter(|l| l.starts_with(name) && texts.iter().all(|t| l.contains(t)));
    lines.map(|l| l.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

#[tokio::test]
async fn a_message_that_is_tried_again_was_consumed_once() {
    let topic = unique("essays");
    let trace = send(&topic, b"{}").await;
    let stream = consumer(&topic, &topic);
    let message = receive(&stream).await;
    let tracing = Consumer::new("els");
    for n in 0..4 {
        let span = tracing.start(&message).retry(n).begin();
        let result: Result<(), &str> =
            span.run(async { if n < 3 { Err("not yet") } else { Ok(()) } }).await;
        assert_eq!(result.is_ok(), n == 3);
    }
    assert_eq!(counted("messaging_client_consumed_messages_total{", &[&topic]), 1.0);
    assert_eq!(counted("messaging_process_duration_seconds_count{", &[&topic]), 4.0);
    let spans = spans_of(trace);
    let tries = named(&spans, &format!("kafka.consume.{TYPE}"));
    let retries: Vec<_> = tries.iter().map(|s| attribute(s, "lacuna.kafka.retry")).collect();
    assert_eq!(retries, [None, Some("1".into()), Some("2".into()), Some("3".into())]);
}

#[trace_kafka_operation(message = message, group = "by-hand", fields(batch_id = "7"))]
async fn takes_a_message(message: OwnedMessage) -> Result<(), String> {
    tracing::info_span!("inside a message").in_scope(|| tracing::info!("by hand, a message"));
    // Moved by the body, after the span has read it.
    drop(message);
    Err("no slot".to_owned())
}

#[trace_kafka_operation(
    event_type = "parts.v1",
    headers = message.headers(),
    fields(correlation_id = "c-own")
)]
async fn takes_headers(message: &OwnedMessage) {
    tracing::info_span!("inside headers").in_scope(|| tracing::info!("by hand, headers"));
    let _ = message;
}

#[trace_kafka_operation(event_type = "owned.v1", headers = &headers)]
async fn takes_owned_headers(headers: OwnedHeaders) {
    drop(headers);
    assert_eq!(correlation::current().as_deref(), Some("c-1"));
}

#[tokio::test]
async fn a_hand_written_handler_is_linked_to_its_producer_and_carries_the_correlation_id() {
    let topic = unique("essays");
    let trace = send(&topic, b"{}").await;
    let stream = consumer(&topic, &topic);
    let message = receive(&stream).await.detach();
    takes_headers(&message).await;
    takes_owned_headers(message.headers().unwrap().clone()).await;
    takes_a_message(message).await.unwrap_err();

    let spans = spans_of(trace);
    let produced = one(&spans, &format!("kafka.produce.{TYPE}"));
    let whole = one(&spans, &format!("kafka.consume.{TYPE}"));
    let parts = one(&spans, "kafka.consume.parts.v1");
    for span in [whole, parts, one(&spans, "kafka.consume.owned.v1")] {
        assert_eq!(span.span_kind, SpanKind::Consumer);
        assert!(is_child_of(span, produced));
        assert_eq!(span.links.links.len(), 1, "{}", span.name);
        assert_eq!(span.links.links[0].span_context.span_id(), produced.span_context.span_id());
    }
    assert_eq!(whole.status, Status::error("no slot"));
    for (key, value) in [
        ("batch_id", "7"),
        ("kafka.offset", "0"),
        ("messaging.destination.name", &topic),
        ("messaging.consumer.group.name", "by-hand"),
        ("event_id", "e-1"),
    ] {
        assert_eq!(attribute(whole, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(counted("messaging_client_consumed_messages_total{", &[&topic, "by-hand"]), 1.0);
    for (inside, line, id) in [
        ("inside a message", "by hand, a message", "c-1"),
        ("inside headers", "by hand, headers", "c-own"),
    ] {
        assert_eq!(attribute(one(&spans, inside), "correlation_id").as_deref(), Some(id));
        let lines = memory().lines.json();
        let line = lines.iter().find(|l| l["message"] == line).unwrap();
        assert_eq!(line["correlation_id"], id);
    }
    assert_eq!(attribute(parts, "correlation_id").as_deref(), Some("c-own"));
}
