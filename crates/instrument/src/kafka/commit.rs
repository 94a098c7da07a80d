//! Committing a message's offset: `kafka.commit`.

use super::produce::{error_type, messaging};
use super::record::{committed_of, metrics};
use crate::moment::seconds;
use crate::span;
use crate::switch::{self, Part};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use rdkafka::consumer::{CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::SystemTime;

/// Commits the offset of `message` in a CLIENT span `kafka.commit`. With [`CommitMode::Sync`] it
/// blocks until the broker answered: in async code use [`commit_and_wait`]. With [`CommitMode::Async`]
/// the span covers the hand-over only; that the broker refused it is told by
/// [`TracedContext`](super::TracedContext), as a span of its own and in `lacuna.kafka.commits.refused`.
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
    let mut committing = Committing::begin(message);
    let result = consumer.commit_message(message, mode);
    committing.answered(result.as_ref().err());
    result
}

/// Commits the offset of `message` and waits for the broker's answer without blocking the runtime, in
/// a CLIENT span `kafka.commit`. A member that was taken out of its group learns so here: the commit
/// is refused, and the message comes again to another member.
///
/// Needs a `tokio` runtime. Dropped before the answer, the span is an ERROR, `cancelled`: nobody knows
/// whether the offset was committed.
///
/// # Errors
/// As the broker or the client refuses; the span is then an ERROR.
pub async fn commit_and_wait<C, X>(consumer: &Arc<C>, message: &impl Message) -> KafkaResult<()>
where
    C: Consumer<X> + Send + Sync + 'static,
    X: ConsumerContext + 'static,
{
    let mut committing = Committing::begin(message);
    let mut offsets = TopicPartitionList::with_capacity(1);
    // What is committed is the next offset to read.
    let next = Offset::Offset(message.offset() + 1);
    let result = match offsets.add_partition_offset(message.topic(), message.partition(), next) {
        Ok(()) => {
            let consumer = consumer.clone();
            let commit = move || consumer.commit(&offsets, CommitMode::Sync);
            // A runtime that shuts down runs nothing more; the commit has not happened then.
            let cancelled = |_| Err(KafkaError::Canceled);
            tokio::task::spawn_blocking(commit).await.unwrap_or_else(cancelled)
        }
        Err(error) => Err(error),
    };
    committing.answered(result.as_ref().err());
    result
}

/// A commit under way.
struct Committing<'m> {
    cx: Option<Context>,
    topic: &'m str,
    started: SystemTime,
    measured: bool,
}

impl<'m> Committing<'m> {
    fn begin(message: &'m impl Message) -> Self {
        let (spans, measured) = (switch::spans(Part::Kafka), switch::metrics(Part::Kafka));
        // Off, not even the clock is read.
        let started = if spans || measured { SystemTime::now() } else { SystemTime::UNIX_EPOCH };
        let cx = spans.then(|| {
            let partition = message.partition();
            let mut a = messaging(message.topic(), "commit", "settle");
            a.push(KeyValue::new("messaging.destination.partition.id", partition.to_string()));
            a.push(KeyValue::new("messaging.kafka.offset", message.offset()));
            a.push(KeyValue::new("kafka.partition", i64::from(partition)));
            a.push(KeyValue::new("kafka.offset", message.offset()));
            let builder = SpanBuilder::from_name("kafka.commit")
                .with_kind(SpanKind::Client)
                .with_start_time(started)
                .with_attributes(a);
            Context::map_current(|parent| span::build(builder, parent))
        });
        Self { cx, topic: message.topic(), started, measured }
    }

    fn answered(&mut self, error: Option<&KafkaError>) {
        self.end(error.map(|error| (error_type(error), error.to_string())));
    }

    fn end(&mut self, failure: Option<(String, String)>) {
        let (cx, measured) = (self.cx.take(), std::mem::take(&mut self.measured));
        if cx.is_none() && !measured {
            return;
        }
        let now = SystemTime::now();
        if measured {
            let taken = seconds(self.started, now);
            match &failure {
                None => committed_of(self.topic).record(taken),
                Some((error, _)) => {
                    let error = KeyValue::new("error.type", error.clone());
                    let topic = KeyValue::new("messaging.destination.name", self.topic.to_owned());
                    metrics().refused.add(1, &[topic, error.clone()]);
                    let mut a = messaging(self.topic, "commit", "settle");
                    a.push(error);
                    metrics().operation.record(taken, &a);
                }
            }
        }
        if let Some(cx) = cx {
            if let Some((error, text)) = failure {
                span::fail(&cx, error, text);
            }
            cx.span().end_with_timestamp(now);
        }
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        if self.cx.is_some() || self.measured {
            let text = "the commit was dropped before the broker answered";
            self.end(Some((span::CANCELLED.to_owned(), text.to_owned())));
        }
    }
}
