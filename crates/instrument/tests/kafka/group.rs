//! Being a member of a group: partitions, commits, lag, brokers.

use super::common::{attribute, memory, one, own_trace, spans_of, unique};
use super::{PATIENCE, config, consumer, receive, send};
use lacuna_instrument::kafka::{TracedContext, commit, commit_and_wait};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::Status;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::producer::FutureProducer;
use std::sync::Arc;
use std::time::Duration;

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
    assert_eq!(attribute(&assigned, "messaging.client.id"), Some(format!("{group}-client")));
    // The first join takes as long as any other, and is measured as well.
    let waited: f64 =
        attribute(&assigned, "lacuna.kafka.rebalance.duration").unwrap().parse().unwrap();
    assert!(waited > 0.0);
    memory().telemetry.flush().await.unwrap();
    let measured = points(
        "lacuna.kafka.rebalance.duration",
        "messaging.client.id",
        &format!("{group}-client"),
    );
    assert_eq!(measured, [1.0]);
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

/// A group that never commits, because its consumer is stuck, is behind all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_never_committed_has_a_lag() {
    let topic = unique("essays");
    for _ in 0..3 {
        send(&topic, b"{}").await;
    }
    let stuck = consumer(&topic, &topic);
    drop(receive(&stuck).await);
    stuck.pause(&stuck.assignment().unwrap()).unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        memory().telemetry.flush().await.unwrap();
        let lag = points("lacuna.kafka.consumer.lag", "messaging.destination.name", &topic);
        if lag.contains(&2.0) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "lag {lag:?}");
        let _ = tokio::time::timeout(Duration::from_millis(50), stuck.recv()).await;
    }
    // A partition that is given back has no lag of this client's.
    stuck.unsubscribe();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        memory().telemetry.flush().await.unwrap();
        let lag = points("lacuna.kafka.consumer.lag", "messaging.destination.name", &topic);
        if lag.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "lag {lag:?} of what was given back");
        let _ = tokio::time::timeout(Duration::from_millis(50), stuck.recv()).await;
    }
}

/// Somebody who is no member of the group that has the partition commits for it: the broker refuses,
/// as it does a member that was taken out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_the_broker_refuses_is_an_error_and_is_counted_whoever_waits() {
    let topic = unique("essays");
    send(&topic, b"{}").await;
    let member = consumer(&topic, &topic);
    let _held = receive(&member).await;
    let outsider: Arc<StreamConsumer<TracedContext>> = Arc::new(
        config()
            .set("group.id", &topic)
            .set("client.id", "outsider")
            .set("enable.auto.commit", "false")
            .create_with_context(TracedContext::new(topic.clone()).client_id("outsider"))
            .unwrap(),
    );
    let mut all = rdkafka::TopicPartitionList::new();
    all.add_partition_offset(&topic, 0, rdkafka::Offset::Beginning).unwrap();
    outsider.assign(&all).unwrap();
    let message = receive(&outsider).await;

    // Waited for.
    let (cx, trace) = own_trace();
    let refused = commit_and_wait(&outsider, &message).with_context(cx).await;
    let error = refused.expect_err("the group has other members");
    let code = format!("{:?}", error.rdkafka_error_code().unwrap());
    let spans = spans_of(trace);
    let span = one(&spans, "kafka.commit");
    assert_eq!(attribute(span, "error.type"), Some(code));
    assert!(matches!(span.status, Status::Error { .. }));
    let counted = |key: &str, value: &str| points("lacuna.kafka.commits.refused", key, value);
    memory().telemetry.flush().await.unwrap();
    assert_eq!(counted("messaging.destination.name", &topic), [1.0]);

    // Not waited for: handed over without an error, and told when the broker has answered.
    commit(outsider.as_ref(), &message, CommitMode::Async).unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while counted("messaging.consumer.group.name", &topic) != [1.0] {
        assert!(tokio::time::Instant::now() < deadline, "the refusal is counted");
        let _ = tokio::time::timeout(Duration::from_millis(50), outsider.recv()).await;
        memory().telemetry.flush().await.unwrap();
    }
    let told = memory().spans.get_finished_spans().unwrap().into_iter().any(|s| {
        s.name == "kafka.commit"
            && matches!(s.status, Status::Error { .. })
            && attribute(&s, "messaging.consumer.group.name").as_ref() == Some(&topic)
            && attribute(&s, "messaging.client.id").as_deref() == Some("outsider")
    });
    assert!(told);
}
