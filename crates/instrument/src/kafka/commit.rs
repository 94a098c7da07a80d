//! Committing a message's offset: `kafka.commit`.

use super::produce::{error_type, messaging};
use super::record::metrics;
use crate::span;
use crate::switch::{self, Part};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use rdkafka::Message;
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::message::BorrowedMessage;
use std::time::Instant;

/// Commits the offset of `message` in a CLIENT span `kafka.commit`. With [`CommitMode::Sync`] it
/// blocks until the broker answered; with [`CommitMode::Async`] the span covers the hand-over only,
/// and a later failure is told by [`TracedContext`](super::TracedContext).
///
/// # Errors
/// As the broker or the client refuses; the span is then an ERROR.
pub fn commit<C, X>(
    consumer: &C,
    message: &BorrowedMessage<'_>,
    mode: CommitMode,
) -> KafkaResult<()>
where
    C: Consumer<X>,
    X: ConsumerContext,
{
    let started = Instant::now();
    let cx = switch::spans(Part::Kafka).then(|| {
        let mut a = messaging(message.topic(), "commit", "settle");
        a.push(KeyValue::new(
            "messaging.destination.partition.id",
            message.partition().to_string(),
        ));
        a.push(KeyValue::new("messaging.kafka.offset", message.offset()));
        a.push(KeyValue::new("kafka.partition", i64::from(message.partition())));
        a.push(KeyValue::new("kafka.offset", message.offset()));
        Context::map_current(|parent| span::start("kafka.commit", SpanKind::Client, a, parent))
    });
    let result = consumer.commit_message(message, mode);
    if switch::metrics(Part::Kafka) {
        let mut a = messaging(message.topic(), "commit", "settle");
        if let Err(error) = &result {
            a.push(KeyValue::new("error.type", error_type(error)));
        }
        metrics().operation.record(started.elapsed().as_secs_f64(), &a);
    }
    if let Some(cx) = cx {
        if let Err(error) = &result {
            cx.span().set_attribute(KeyValue::new("error.type", error_type(error)));
            cx.span().set_status(Status::error(error.to_string()));
        }
        cx.span().end();
    }
    result
}
