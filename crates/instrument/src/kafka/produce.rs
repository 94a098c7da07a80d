//! Sending an event: `kafka.produce.<event_type>`.

use super::broker::Broker;
use super::headers::{EVENT_ID, EVENT_TYPE, inject_with};
use super::record::{metrics, sent_to};
use crate::correlation::{self, CORRELATION_ID};
use crate::moment::seconds;
use crate::names::Names;
use crate::span;
use crate::switch::{self, Level, Part};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::future_producer::Delivery;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::AsyncRuntime;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

/// What is sent.
#[derive(Debug, Clone)]
#[must_use = "an event is sent by `produce`"]
pub struct Event<'a> {
    topic: &'a str,
    event_type: &'a str,
    payload: &'a [u8],
    key: Option<&'a str>,
    event_id: Option<&'a str>,
    correlation_id: Option<&'a str>,
    client_id: Option<&'a str>,
    broker: Option<&'a Broker>,
    partition: Option<i32>,
    headers: Option<OwnedHeaders>,
    attributes: Vec<KeyValue>,
}

impl<'a> Event<'a> {
    /// An event for `topic`. `event_type` names the span and goes into a header.
    pub fn new(topic: &'a str, event_type: &'a str, payload: &'a [u8]) -> Self {
        Self {
            topic,
            event_type,
            payload,
            key: None,
            event_id: None,
            correlation_id: None,
            client_id: None,
            broker: None,
            partition: None,
            headers: None,
            attributes: vec![],
        }
    }

    /// The record's key, by which the broker picks the partition.
    pub fn key(mut self, key: &'a str) -> Self {
        self.key = Some(key);
        self
    }

    /// The event's own id, as the header and attribute `event_id`.
    pub fn event_id(mut self, id: &'a str) -> Self {
        self.event_id = Some(id);
        self
    }

    /// The correlation id, as a header, in the baggage and as an attribute. Without it, the current
    /// context's.
    pub fn correlation_id(mut self, id: &'a str) -> Self {
        self.correlation_id = Some(id);
        self
    }

    /// The producer's `client.id`, as `messaging.client.id`: `rdkafka` does not tell it.
    pub fn client_id(mut self, id: &'a str) -> Self {
        self.client_id = Some(id);
        self
    }

    /// The only broker that the producer knows, as `server.address` and `server.port`.
    pub fn broker(mut self, broker: impl Into<Option<&'a Broker>>) -> Self {
        self.broker = broker.into();
        self
    }

    /// A partition instead of the one that the key picks.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Headers of the caller's, such as those of a record that is forwarded. Those that the event or
    /// its trace writes itself are replaced.
    pub fn headers(mut self, headers: OwnedHeaders) -> Self {
        self.headers = Some(headers);
        self
    }

    /// An attribute of the produce span, such as `batch_id`.
    pub fn attribute(
        mut self,
        key: impl Into<opentelemetry::Key>,
        value: impl Into<opentelemetry::Value>,
    ) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    fn span_attributes(&mut self) -> Vec<KeyValue> {
        let mut a = messaging(self.topic, "send", "send");
        a.push(KeyValue::new("event_type", self.event_type.to_owned()));
        a.push(KeyValue::new("messaging.message.body.size", self.payload.len() as i64));
        if let Some(key) = self.key {
            a.push(KeyValue::new("messaging.kafka.message.key", key.to_owned()));
        }
        if let Some(id) = self.event_id {
            a.push(KeyValue::new("event_id", id.to_owned()));
            a.push(KeyValue::new("messaging.message.id", id.to_owned()));
        }
        if let Some(id) = self.client_id {
            a.push(KeyValue::new("messaging.client.id", id.to_owned()));
        }
        if let Some(broker) = self.broker {
            broker.describe(&mut a);
        }
        a.append(&mut self.attributes);
        a
    }

    fn record_headers(&mut self, cx: &Context) -> OwnedHeaders {
        let headers = self.headers.take().unwrap_or_default();
        // An id that the event was given is the event's own; the context's is propagation.
        let correlation = match self.correlation_id {
            Some(id) => Some(id.to_owned()),
            None if switch::get(Part::Propagation) == Level::Off => None,
            None => correlation::of(cx),
        };
        let own = [
            (EVENT_TYPE, Some(self.event_type)),
            (EVENT_ID, self.event_id),
            (CORRELATION_ID, correlation.as_deref()),
        ];
        inject_with(cx, headers, own)
    }
}

pub(crate) fn messaging(topic: &str, operation: &'static str, kind: &'static str) -> Vec<KeyValue> {
    let mut a = Vec::with_capacity(16);
    a.push(KeyValue::new("messaging.system", "kafka"));
    a.push(KeyValue::new("messaging.destination.name", topic.to_owned()));
    a.push(KeyValue::new("messaging.operation.name", operation));
    a.push(KeyValue::new("messaging.operation.type", kind));
    a
}

/// Sends `event` and waits for the broker's acknowledgement, in a PRODUCER span
/// `kafka.produce.<event_type>`. `queue_timeout` bounds the wait for room in the producer's queue;
/// delivery itself is bounded by librdkafka's `message.timeout.ms`.
///
/// # Errors
/// When the record could not be queued or delivered. The span is then an ERROR.
pub async fn produce<C, R>(
    producer: &FutureProducer<C, R>,
    mut event: Event<'_>,
    queue_timeout: Duration,
) -> Result<Delivery, KafkaError>
where
    C: ClientContext + 'static,
    R: AsyncRuntime,
{
    let mut cx = Context::current();
    if let Some(id) = event.correlation_id {
        cx = correlation::with(&cx, id);
    }
    let (spans, measured) = (switch::spans(Part::Kafka), switch::metrics(Part::Kafka));
    // Off, not even the clock is read.
    let started = if spans || measured { SystemTime::now() } else { SystemTime::UNIX_EPOCH };
    if spans {
        static NAMES: Names = Names::new("kafka.produce.");
        let builder = SpanBuilder::from_name(NAMES.name(event.event_type))
            .with_kind(SpanKind::Producer)
            .with_start_time(started)
            .with_attributes(event.span_attributes());
        cx = span::build(builder, &cx);
    }
    let span = spans.then(|| cx.clone());
    let mut sending = Sending { cx: span, topic: event.topic, started, measured };

    let headers = event.record_headers(&cx);
    let mut record =
        FutureRecord::<str, [u8]>::to(event.topic).payload(event.payload).headers(headers);
    record.key = event.key;
    record.partition = event.partition;
    let result = producer.send(record, queue_timeout).await.map_err(|(error, _)| error);

    match &result {
        Ok(delivery) => sending.delivered(delivery),
        Err(error) => sending.failed(error_type(error), error.to_string()),
    }
    result
}

/// A record under way. Dropped before the broker answered, it is an ERROR, since nobody knows whether
/// it was sent.
struct Sending<'t> {
    cx: Option<Context>,
    topic: &'t str,
    started: SystemTime,
    measured: bool,
}

impl Sending<'_> {
    fn delivered(&mut self, delivery: &Delivery) {
        if let Some(cx) = &self.cx {
            let partition = delivery.partition;
            cx.span().set_attributes([
                KeyValue::new("kafka.partition", i64::from(partition)),
                KeyValue::new("kafka.offset", delivery.offset),
                KeyValue::new("messaging.destination.partition.id", partition.to_string()),
                KeyValue::new("messaging.kafka.offset", delivery.offset),
            ]);
        }
        self.end(None);
    }

    fn failed(&mut self, error: String, text: String) {
        if let Some(cx) = &self.cx {
            span::fail(cx, error.clone(), text);
        }
        self.end(Some(error));
    }

    fn end(&mut self, error: Option<String>) {
        let (cx, measured) = (self.cx.take(), std::mem::take(&mut self.measured));
        if cx.is_none() && !measured {
            return;
        }
        let now = SystemTime::now();
        if let Some(cx) = cx {
            cx.span().end_with_timestamp(now);
        }
        if !measured {
            return;
        }
        let taken = seconds(self.started, now);
        match error {
            None => {
                let sent = sent_to(self.topic);
                sent.records.add(1);
                sent.operation.record(taken);
            }
            Some(error) => {
                let mut a = messaging(self.topic, "send", "send");
                a.push(KeyValue::new("error.type", error));
                metrics().sent.add(1, &a);
                metrics().operation.record(taken, &a);
            }
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.cx.is_some() || self.measured {
            let text = "the send was dropped before the broker answered";
            self.failed(span::CANCELLED.to_owned(), text.to_owned());
        }
    }
}

/// librdkafka's name of the error: `MessageTimedOut`, `QueueFull`.
pub(crate) fn error_type(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| "kafka_error".into(), |code| format!("{code:?}"))
}

/// Turns a value into bytes in a span `kafka.serialize`.
///
/// ```
/// let bytes = lacuna_instrument::kafka::serialize("essays", "essay.v1", || serde_json::to_vec(&7))?;
/// assert_eq!(bytes, b"7");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// # Errors
/// `encode`'s own; the span is then an ERROR.
pub fn serialize<E: Display>(
    topic: &str,
    event_type: &str,
    encode: impl FnOnce() -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    if !switch::spans(Part::Kafka) {
        return encode();
    }
    let mut attributes = messaging(topic, "serialize", "create");
    attributes.push(KeyValue::new("event_type", event_type.to_owned()));
    let cx = Context::map_current(|parent| {
        span::start("kafka.serialize", SpanKind::Internal, attributes, parent)
    });
    let result = encode();
    match &result {
        Ok(bytes) => cx
            .span()
            .set_attribute(KeyValue::new("messaging.message.body.size", bytes.len() as i64)),
        Err(error) => span::fail(&cx, "serialization", error.to_string()),
    }
    cx.span().end();
    result
}
