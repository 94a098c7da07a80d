//! One part off by the environment, and a message that nobody can read.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use support::{Pipeline, url};

const PROVISIONED: &str = "huleedu.file.essay.content.provisioned.v1";

/// Scenario: `LACUNA_INSTRUMENT=redis=off,kafka=metrics` at start, one essay.
/// Guarantees: those parts have no spans, the others do, and the essay is placed.
#[tokio::test(flavor = "multi_thread")]
async fn one_part_off_by_the_environment_is_missing_alone() {
    let levels = [("LACUNA_INSTRUMENT", "redis=off,kafka=metrics")];
    let pipeline = Pipeline::start_in(&[], &levels).await;
    let placed = pipeline.place_one().await;
    let collected = pipeline.stop().await;
    let spans = collected.in_trace(&placed.trace_id);
    let any = |key: &str, value: &str| spans.iter().any(|s| s.attribute(key) == value);
    assert!(!any("db.system.name", "redis") && !any("messaging.system", "kafka"));
    assert!(any("db.system.name", "postgresql") && any("http.request.method", "POST"));
    let points = |name: &str| collected.points.iter().any(|p| p.name == name);
    assert!(points("messaging.client.sent.messages"), "kafka=metrics has its metrics");
    assert!(!points("redis_transaction_attempts_total"), "redis=off has none");
}

/// Scenario: bytes that are no event on a topic of the pipeline.
/// Guarantees: an ERROR span says where they lie; the next essay is placed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_message_is_an_error_that_says_where_it_lies() {
    let pipeline = Pipeline::start().await;
    let topic = format!("{}.{PROVISIONED}", pipeline.namespace);
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", url("KAFKA_BROKERS")).create().unwrap();
    let record = FutureRecord::<str, [u8]>::to(&topic).payload(b"not an event").partition(0);
    let sent = producer.send(record, Duration::from_secs(20)).await.unwrap();

    let deadline = Instant::now() + Duration::from_secs(60);
    let span = loop {
        let collected = pipeline.so_far();
        let poisoned = |s: &&support::Span| {
            s.name.starts_with("kafka.consume.") && s.attribute("error.type") == "deserialization"
        };
        if let Some(span) = collected.spans.iter().find(poisoned) {
            break span.clone();
        }
        assert!(Instant::now() < deadline, "the poison message is seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(span.is_error);
    assert_eq!(span.service, "essay_lifecycle_service");
    assert_eq!(span.attribute("messaging.destination.name"), topic);
    assert_eq!(span.attribute("kafka.partition"), sent.partition.to_string());
    assert_eq!(span.attribute("kafka.offset"), sent.offset.to_string());
    pipeline.place_one().await;
    pipeline.stop().await;
}
