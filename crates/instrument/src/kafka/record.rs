//! Messaging metrics, by the conventions.

use crate::metrics::{CLIENT_SECONDS, meter};
use opentelemetry::metrics::{Counter, Histogram};
use std::sync::OnceLock;

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
