//! Handling a message: `kafka.consume.<event_type>`.

use super::headers::{EVENT_ID, EVENT_TYPE, extract, text};
use super::produce::messaging;
use super::record::metrics;
use crate::correlation::{self, CORRELATION_ID};
use crate::span;
use crate::switch::{self, Part};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{Link, SpanBuilder, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use rdkafka::Message;
use std::fmt::Display;
use std::time::Instant;

/// Which span is the consume span's parent. The link to the producer is there either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parent {
    /// The producer's span: one trace through the pipeline.
    #[default]
    Producer,
    /// The span that is current where the message is handled, or none.
    Ambient,
}

/// How a consumer's messages are traced.
#[derive(Debug, Clone)]
#[must_use]
pub struct Consumer {
    group: String,
    client_id: Option<String>,
    parent: Parent,
}

impl Consumer {
    /// Messages of the consumer group `group`, with the producer as parent.
    pub fn new(group: impl Into<String>) -> Self {
        Self { group: group.into(), client_id: None, parent: Parent::Producer }
    }

    /// The consumer's `client.id`, as `messaging.client.id`.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Which span is the parent.
    pub fn parent(mut self, parent: Parent) -> Self {
        self.parent = parent;
        self
    }

    /// Prepares the span of one message. What the headers say is taken from them; what only the
    /// payload says can be added before [`StartConsume::begin`].
    pub fn start<'m, M: Message>(&'m self, message: &'m M) -> StartConsume<'m, M> {
        let header = |name| message.headers().and_then(|h| text(h, name)).map(str::to_owned);
        StartConsume {
            consumer: self,
            message,
            event_type: header(EVENT_TYPE),
            event_id: header(EVENT_ID),
            correlation_id: header(CORRELATION_ID),
            attributes: vec![],
        }
    }
}

/// A consume span before it begins.
#[derive(Debug)]
#[must_use = "call `begin`"]
pub struct StartConsume<'m, M> {
    consumer: &'m Consumer,
    message: &'m M,
    event_type: Option<String>,
    event_id: Option<String>,
    correlation_id: Option<String>,
    attributes: Vec<KeyValue>,
}

impl<M: Message> StartConsume<'_, M> {
    /// The event's type, where the producer wrote no header.
    pub fn event_type(mut self, event_type: impl Into<String>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// The event's id, where the producer wrote no header.
    pub fn event_id(mut self, id: impl Into<String>) -> Self {
        self.event_id = Some(id.into());
        self
    }

    /// The correlation id, where the producer wrote neither header nor baggage.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.correlation_id = Some(id.into());
        self
    }

    /// An attribute of the consume span, such as `batch_id`.
    pub fn attribute(
        mut self,
        key: impl Into<opentelemetry::Key>,
        value: impl Into<opentelemetry::Value>,
    ) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Begins the CONSUMER span. Without an event type it is named after the topic.
    pub fn begin(self) -> ConsumeSpan {
        let message = self.message;
        let remote = extract(message.headers(), &Context::new());
        let producer = remote.span().span_context().clone();
        let mut parent = match self.consumer.parent {
            Parent::Producer => extract(message.headers(), &Context::current()),
            Parent::Ambient => Context::current(),
        };
        if let Some(id) = self.correlation_id.or_else(|| correlation::of(&remote)) {
            parent = correlation::with(&parent, id);
        } else if parent.baggage().is_empty() && !remote.baggage().is_empty() {
            parent = parent.with_baggage(correlation::copy(remote.baggage()));
        }

        let place = Place {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
        };
        let (spans, measured) = (switch::spans(Part::Kafka), switch::metrics(Part::Kafka));
        if measured {
            metrics().consumed.add(1, &messaging(&place.topic, "consume", "receive"));
        }
        if !spans {
            let started = measured.then(Instant::now);
            return ConsumeSpan {
                cx: parent,
                place,
                group: self.consumer.group.clone(),
                spans,
                started,
                ended: false,
            };
        }
        let event_type = self.event_type.unwrap_or_else(|| place.topic.clone());
        let mut a = messaging(&place.topic, "process", "process");
        a.push(KeyValue::new("messaging.consumer.group.name", self.consumer.group.clone()));
        a.push(KeyValue::new("messaging.destination.partition.id", place.partition.to_string()));
        a.push(KeyValue::new("messaging.kafka.offset", place.offset));
        a.push(KeyValue::new("kafka.partition", i64::from(place.partition)));
        a.push(KeyValue::new("kafka.offset", place.offset));
        a.push(KeyValue::new("event_type", event_type.clone()));
        if let Some(id) = &self.consumer.client_id {
            a.push(KeyValue::new("messaging.client.id", id.clone()));
        }
        if let Some(id) = self.event_id {
            a.push(KeyValue::new("event_id", id.clone()));
            a.push(KeyValue::new("messaging.message.id", id));
        }
        if let Some(key) = message.key().and_then(|k| std::str::from_utf8(k).ok()) {
            a.push(KeyValue::new("messaging.kafka.message.key", key.to_owned()));
        }
        match message.payload() {
            Some(payload) => {
                a.push(KeyValue::new("messaging.message.body.size", payload.len() as i64))
            }
            None => a.push(KeyValue::new("messaging.kafka.message.tombstone", true)),
        }
        a.extend(self.attributes);

        let mut builder = SpanBuilder::from_name(format!("kafka.consume.{event_type}"))
            .with_kind(SpanKind::Consumer)
            .with_attributes(a);
        if producer.is_valid() {
            builder = builder.with_links(vec![Link::new(producer, vec![], 0)]);
        }
        let cx = span::build(builder, &parent);
        let started = measured.then(Instant::now);
        ConsumeSpan { cx, place, group: self.consumer.group.clone(), spans, started, ended: false }
    }
}

#[derive(Debug, Clone)]
struct Place {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Place {
    fn attributes(&self) -> [KeyValue; 4] {
        [
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.destination.name", self.topic.clone()),
            KeyValue::new("kafka.partition", i64::from(self.partition)),
            KeyValue::new("kafka.offset", self.offset),
        ]
    }
}

/// A message being handled. Ends by [`ConsumeSpan::run`], [`ConsumeSpan::succeed`] or
/// [`ConsumeSpan::fail`]; dropped without one of them, it is an ERROR, because a message that nobody
/// answered for is how an incident starts.
#[derive(Debug)]
#[must_use = "a span that is dropped without a result is an ERROR"]
pub struct ConsumeSpan {
    cx: Context,
    place: Place,
    group: String,
    spans: bool,
    started: Option<Instant>,
    ended: bool,
}

impl ConsumeSpan {
    /// The context in which the message is handled: attach it, or give it to
    /// `opentelemetry::context::FutureExt::with_context`.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// One more attribute, such as `batch_id`, known only after the payload was read.
    pub fn set_attribute(
        &self,
        key: impl Into<opentelemetry::Key>,
        value: impl Into<opentelemetry::Value>,
    ) {
        if self.spans {
            self.cx.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// The correlation id that the payload gives, where it is not the one of the headers: from here on
    /// the handler's spans and log lines carry this one.
    pub fn correlate(&mut self, id: impl Into<String>) {
        let id: String = id.into();
        if correlation::of(&self.cx).as_deref() == Some(&id) {
            return;
        }
        if self.spans {
            self.cx.span().set_attribute(KeyValue::new(CORRELATION_ID, id.clone()));
        }
        self.cx = correlation::with(&self.cx, id);
    }

    /// Reads the payload in a span `kafka.deserialize`. A payload that cannot be read is an ERROR
    /// with its topic, partition and offset, so that a poison message can be found again.
    ///
    /// # Errors
    /// `decode`'s own.
    pub fn deserialize<T, E: Display>(
        &self,
        decode: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.spans {
            return decode();
        }
        let mut attributes = self.place.attributes().to_vec();
        attributes.push(KeyValue::new("messaging.consumer.group.name", self.group.clone()));
        let cx = span::start("kafka.deserialize", SpanKind::Internal, attributes, &self.cx);
        let result = decode();
        if let Err(error) = &result {
            cx.span().set_attribute(KeyValue::new("error.type", "deserialization"));
            cx.span().set_status(Status::error(error.to_string()));
        }
        cx.span().end();
        result
    }

    /// Runs the handler inside the span and ends it by the result: an error is an ERROR.
    pub async fn run<T, E: Display>(
        self,
        handler: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let result = handler.with_context(self.cx.clone()).await;
        match &result {
            Ok(_) => self.succeed(),
            Err(error) => self.fail("handler", error),
        }
        result
    }

    /// Ends the span; its status stays unset, as the conventions ask.
    pub fn succeed(mut self) {
        self.end(None);
    }

    /// Ends the span as an ERROR. `error_type` is low in cardinality: `deserialization`.
    pub fn fail(mut self, error_type: &'static str, error: &impl Display) {
        self.end(Some((error_type, error.to_string())));
    }

    fn end(&mut self, failure: Option<(&'static str, String)>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(started) = self.started {
            let mut a = messaging(&self.place.topic, "process", "process");
            a.push(KeyValue::new("messaging.consumer.group.name", self.group.clone()));
            if let Some((error_type, _)) = &failure {
                a.push(KeyValue::new("error.type", *error_type));
            }
            metrics().process.record(started.elapsed().as_secs_f64(), &a);
        }
        if self.spans {
            let span = self.cx.span();
            if let Some((error_type, message)) = failure {
                span.set_attribute(KeyValue::new("error.type", error_type));
                span.set_status(Status::error(message));
            }
            span.end();
        }
    }
}

impl Drop for ConsumeSpan {
    fn drop(&mut self) {
        let why = if std::thread::panicking() { "panic" } else { "cancelled" };
        self.end(Some((why, format!("the message was dropped without a result ({why})"))));
    }
}
