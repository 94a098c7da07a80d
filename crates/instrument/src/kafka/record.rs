//! Messaging metrics, by the conventions.

use super::produce::messaging;
use crate::metrics::{ByName, CLIENT_SECONDS, meter};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundCounter, BoundHistogram, Counter, Histogram};
use std::sync::{Arc, OnceLock};

pub(crate) struct Metrics {
    /// Records handed to the broker.
    pub(crate) sent: Counter<u64>,
    /// Records received.
    pub(crate) consumed: Counter<u64>,
    /// Commits that failed.
    pub(crate) refused: Counter<u64>,
    /// Time of a client operation: send, commit.
    pub(crate) operation: Histogram<f64>,
    /// Time of a handler.
    pub(crate) process: Histogram<f64>,
}

pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = meter();
        Metrics {
            sent: meter
                .u64_counter("messaging.client.sent.messages")
                .with_unit("{message}")
                .with_description("Messages that a producer tried to send to the broker")
                .build(),
            consumed: meter
                .u64_counter("messaging.client.consumed.messages")
                .with_unit("{message}")
                .with_description("Messages that were delivered to the application")
                .build(),
            refused: meter
                .u64_counter("lacuna.kafka.commits.refused")
                .with_unit("{commit}")
                .with_description("Offset commits that the broker or the client refused")
                .build(),
            operation: meter
                .f64_histogram("messaging.client.operation.duration")
                .with_unit("s")
                .with_description(
                    "Duration of a messaging operation by a producer or consumer client",
                )
                .with_boundaries(CLIENT_SECONDS.to_vec())
                .build(),
            process: meter
                .f64_histogram("messaging.process.duration")
                .with_unit("s")
                .with_description("Duration of processing a message")
                .with_boundaries(CLIENT_SECONDS.to_vec())
                .build(),
        }
    })
}

/// What is measured of the records sent to a topic that went well, bound to its attributes.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) records: BoundCounter<u64>,
    pub(crate) operation: BoundHistogram<f64>,
}

pub(crate) fn sent_to(topic: &str) -> Arc<Sent> {
    static BOUND: OnceLock<ByName<Arc<Sent>>> = OnceLock::new();
    BOUND.get_or_init(ByName::default).get(topic, || {
        let a = messaging(topic, "send", "send");
        let (records, operation) = (metrics().sent.bind(&a), metrics().operation.bind(&a));
        Arc::new(Sent { records, operation })
    })
}

/// The duration of commits of a topic that went well.
pub(crate) fn committed_of(topic: &str) -> Arc<BoundHistogram<f64>> {
    static BOUND: OnceLock<ByName<Arc<BoundHistogram<f64>>>> = OnceLock::new();
    let bind = || Arc::new(metrics().operation.bind(&messaging(topic, "commit", "settle")));
    BOUND.get_or_init(ByName::default).get(topic, bind)
}

/// What is measured of the messages of a topic that a group takes.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Shared text: every span takes a copy.
    pub(crate) topic: Arc<str>,
    pub(crate) consumed: BoundCounter<u64>,
    /// Of those that were handled well.
    pub(crate) processed: OnceLock<BoundHistogram<f64>>,
}

impl Taken {
    pub(crate) fn bind(topic: &str, group: &Arc<str>) -> Arc<Self> {
        let mut a = messaging(topic, "consume", "receive");
        a.push(KeyValue::new("messaging.consumer.group.name", group.clone()));
        let consumed = metrics().consumed.bind(&a);
        Arc::new(Self { topic: topic.into(), consumed, processed: OnceLock::new() })
    }

    /// A message was handled well, in `seconds`.
    pub(crate) fn processed(&self, group: &Arc<str>, seconds: f64) {
        let bind = || metrics().process.bind(&processing(&self.topic, group));
        self.processed.get_or_init(bind).record(seconds);
    }
}

/// What says of which topic and group a message was that was handled.
pub(crate) fn processing(topic: &str, group: &Arc<str>) -> Vec<KeyValue> {
    let mut a = messaging(topic, "process", "process");
    a.push(KeyValue::new("messaging.consumer.group.name", group.clone()));
    a
}
