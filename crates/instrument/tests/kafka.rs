//! Produce and consume against a real broker.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::{attribute, is_child_of, memory, named, one, own_trace, spans_of, unique, url};
use lacuna_instrument::correlation;
use lacuna_instrument::kafka::{
    Consumer, Event, Parent, TracedContext, commit, produce, serialize,
};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, TraceId};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::producer::FutureProducer;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const TYPE: &str = "huleedu.file.essay.content.provisioned.v1";

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url("KAFKA_BROKERS"));
    config
}

fn producer() -> FutureProducer<TracedContext> {
    config()
        .set("message.timeout.ms", "20000")
        .create_with_context(TracedContext::new("test-producer"))
        .unwrap()
}

fn consumer(topic: &str, group: &str) -> StreamConsumer<TracedContext> {
    let consumer: StreamConsumer<TracedContext> = config()
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("statistics.interval.ms", "100")
        .create_with_context(TracedContext::new(group))
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

async fn receive(consumer: &StreamConsumer<TracedContext>) -> BorrowedMessage<'_> {
    loop {
        // A topic that was just made may not be known to the consumer yet.
        match tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("a message in time") {
            Ok(message) => return message,
            Err(rdkafka::error::KafkaError::MessageConsumption(
                rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition,
            )) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn send(topic: &str, payload: &[u8]) -> TraceId {
    let (cx, trace) = own_trace();
    let event = Event::new(topic, TYPE, payload)
        .key("batch-7")
        .event_id("e-1")
        .correlation_id("c-1")
        .partition(0);
    let event = event.client_id("test-producer").attribute("batch_id", "7");
    produce(&producer(), event, PATIENCE).with_context(cx).await.unwrap();
    trace
}

#[tokio::test]
async fn one_trace_runs_from_the_producer_through_the_handler() {
    let topic = unique("essays");
    let trace = send(&topic, b"{}").await;
    let stream = consumer(&topic, &topic);
    let message = receive(&stream).await;
    let span =
        Consumer::new("els").client_id("els-1").start(&message).attribute("batch_id", "7").begin();
    let handled: Result<(), String> = span
        .run(async {
            tracing::info_span!("handler").in_scope(|| tracing::info!("kafka handler line"));
            assert_eq!(correlation::current().as_deref(), Some("c-1"));
            commit(&stream, &message, CommitMode::Sync).map_err(|e| e.to_string())
        })
        .await;
    handled.unwrap();

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

#[tokio::test]
async fn headers_carry_trace_baggage_and_the_events_names_once() {
    let topic = unique("essays");
    let trace = send(&topic, b"{}").await;
    // A record that is forwarded with its old headers gets the new trace, not a second one.
    let stream = consumer(&topic, &topic);
    let first = receive(&stream).await;
    let (cx, second_trace) = own_trace();
    let old = first.headers().unwrap().detach();
    let event = Event::new(&topic, TYPE, b"{}").headers(old);
    produce(&producer(), event, PATIENCE).with_context(cx).await.unwrap();
    let second = receive(&stream).await;
    for (message, trace) in [(&first, trace), (&second, second_trace)] {
        let headers = message.headers().unwrap();
        let parents: Vec<_> = headers.iter().filter(|h| h.key == "traceparent").collect();
        assert_eq!(parents.len(), 1);
        assert!(String::from_utf8_lossy(parents[0].value.unwrap()).contains(&trace.to_string()));
        assert!(headers.iter().any(|h| h.key == "event_type" && h.value == Some(TYPE.as_bytes())));
    }
    assert!(first.headers().unwrap().iter().any(|h| h.key == "baggage"
        && String::from_utf8_lossy(h.value.unwrap()).contains("correlation_id=c-1")));
}

#[tokio::test]
async fn a_send_that_cannot_be_delivered_is_an_error_with_its_name() {
    let (cx, trace) = own_trace();
    let nowhere: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", "127.0.0.1:1")
        .set("message.timeout.ms", "200")
        .set("log_level", "0")
        .create()
        .unwrap();
    let event = Event::new("nowhere", "x.v1", b"{}");
    let sent = produce(&nowhere, event, Duration::from_secs(1)).with_context(cx).await;
    assert!(sent.is_err());
    let spans = spans_of(trace);
    let produced = one(&spans, "kafka.produce.x.v1");
    assert!(matches!(produced.status, Status::Error { .. }));
    assert_eq!(attribute(produced, "error.type").as_deref(), Some("MessageTimedOut"));
}

#[test]
fn serialising_has_a_span_and_its_failure_too() {
    let (cx, trace) = own_trace();
    let _guard = cx.attach();
    serialize::<serde_json::Error>("essays", TYPE, || serde_json::to_vec(&1)).unwrap();
    serialize("essays", TYPE, || Err("no")).unwrap_err();
    let spans = spans_of(trace);
    let spans = named(&spans, "kafka.serialize");
    assert_eq!(spans[0].status, Status::Unset);
    assert_eq!(spans[1].status, Status::error("no"));
}

#[tokio::test]
async fn a_broker_that_was_never_reached_is_seen_as_down_and_a_producer_has_no_group() {
    let name = unique("unreached");
    memory();
    let nowhere: FutureProducer<TracedContext> = ClientConfig::new()
        .set("bootstrap.servers", "127.0.0.1:1")
        .set("client.id", &name)
        .set("statistics.interval.ms", "50")
        .set("log_level", "0")
        .create_with_context(TracedContext::new(&name))
        .unwrap();
    let series = |page: &str| -> Option<String> {
        let line = page.lines().find(|l| {
            l.starts_with("lacuna_kafka_broker_up{") && l.contains(&format!("id=\"{name}\""))
        });
        line.map(str::to_owned)
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let line = loop {
        if let Some(line) = series(&memory().telemetry.metrics_text().render()) {
            break line;
        }
        assert!(tokio::time::Instant::now() < deadline, "the broker has a series");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(line.ends_with(" 0"), "{line}");
    assert!(line.contains(r#"server_address="127.0.0.1",server_port="1""#), "{line}");
    assert!(!line.contains("consumer_group"), "{line}");
    drop(nowhere);
}

#[tokio::test]
async fn a_send_that_is_dropped_is_an_error_and_is_measured() {
    let (cx, trace) = own_trace();
    let topic = unique("cancelled");
    let nowhere: FutureProducer<TracedContext> = ClientConfig::new()
        .set("bootstrap.servers", "127.0.0.1:1")
        .set("log_level", "0")
        .create_with_context(TracedContext::new("dropping"))
        .unwrap();
    {
        let send = produce(&nowhere, Event::new(&topic, "x.v1", b"{}"), PATIENCE).with_context(cx);
        assert!(tokio::time::timeout(Duration::from_millis(50), send).await.is_err());
    }
    let spans = spans_of(trace);
    let sent = one(&spans, "kafka.produce.x.v1");
    assert_eq!(attribute(sent, "error.type").as_deref(), Some("cancelled"));
    let page = memory().telemetry.metrics_text().render();
    let lost = page.lines().any(|l| {
        l.starts_with("messaging_client_sent_messages_total{")
            && l.contains(r#"error_type="cancelled""#)
            && l.contains(&topic)
    });
    assert!(lost, "{page}");
}

/// All points of a metric that carry `key=value`, as numbers.
fn points(metric: &str, key: &str, value: &str) -> Vec<f64> {
    let all = memory().metrics.get_finished_metrics().unwrap();
    let Some(last) = all.last() else { return vec![] };
    let metrics = last.scope_metrics().flat_map(|s| s.metrics()).filter(|m| m.name() == metric);
    let has = |mut a: Box<dyn Iterator<Item = &opentelemetry::KeyValue> + '_>| {
        a.any(|kv| kv.key.as_str() == key && kv.value.as_str() == value)
    };
    metrics
        .flat_map(|m| match m.data() {
            AggregatedMetrics::I64(MetricData::Gauge(g)) => g
                .data_points()
                .filter(|p| has(Box::new(p.attributes())))
                .map(|p| p.value() as f64)
                .collect(),
            AggregatedMetrics::U64(MetricData::Sum(s)) => s
                .data_points()
                .filter(|p| has(Box::new(p.attributes())))
                .map(|p| p.value() as f64)
                .collect(),
            AggregatedMetrics::F64(MetricData::Histogram(h)) => h
                .data_points()
                .filter(|p| has(Box::new(p.attributes())))
                .map(|p| p.count() as f64)
                .collect(),
            _ => Vec::<f64>::new(),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_given_and_taken_lag_and_brokers_are_seen() {
    let topic = unique("essays");
    for _ in 0..3 {
        send(&topic, b"{}").await;
    }
    let group = topic.clone();
    let first = consumer(&topic, &group);
    let message = receive(&first).await;
    commit(&first, &message, CommitMode::Sync).unwrap();
    // librdkafka waits for its messages when a client is dropped.
    drop(message);
    // Paused, `recv` serves the callbacks and takes nothing more.
    first.pause(&first.assignment().unwrap()).unwrap();

    // Lag and broker state arrive with librdkafka's next statistics.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        memory().telemetry.flush().await.unwrap();
        let lag = points("lacuna.kafka.consumer.lag", "messaging.destination.name", &topic);
        let up = points("lacuna.kafka.broker.up", "messaging.consumer.group.name", &group);
        if lag.contains(&2.0) && up == [1.0] {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "lag {lag:?}, broker up {up:?}");
        let _ = tokio::time::timeout(Duration::from_millis(50), first.recv()).await;
    }
    first.unsubscribe();
    let ours = |name: &str| {
        let spans = memory().spans.get_finished_spans().unwrap();
        let mut found = spans.into_iter().filter(|s| s.name == *name);
        found.find(|s| {
            attribute(s, "messaging.consumer.group.name").as_deref() == Some(group.as_str())
        })
    };
    let assigned = ours("kafka.partition.assignment").expect("an assignment span");
    assert!(attribute(&assigned, "lacuna.kafka.partitions.count").is_some());
    assert!(
        attribute(&assigned, "lacuna.kafka.partitions").unwrap().contains(&format!("{topic}/0"))
    );
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while ours("kafka.partition.revocation").is_none() {
        assert!(tokio::time::Instant::now() < deadline, "a revocation span");
        let _ = tokio::time::timeout(Duration::from_millis(50), first.recv()).await;
    }
    drop(first);
    memory().telemetry.flush().await.unwrap();
    assert_eq!(
        points("lacuna.kafka.consumer.lag", "messaging.destination.name", &topic),
        Vec::<f64>::new()
    );
    assert!(
        !points("messaging.client.sent.messages", "messaging.destination.name", &topic).is_empty()
    );
}
