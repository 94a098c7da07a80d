//! Handling a message: `kafka.consume.<event_type>`.

use super::broker::Broker;
use super::headers::{EVENT_ID, EVENT_TYPE, texts};
use super::incoming::Incoming;
use super::record::{Taken, metrics, processing};
use crate::correlation::{self, CORRELATION_ID};
use crate::metrics::ByName;
use crate::moment::seconds;
use crate::names::Names;
use crate::span::{self, Leaf};
use crate::switch::{self, Level, Part};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanBuilder, SpanKind, SpanRef, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use rdkafka::Message;
use std::fmt::Display;
use std::sync::Arc;
use std::time::SystemTime;

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
    // Shared texts: every message's span takes a copy.
    group: Arc<str>,
    client_id: Option<Arc<str>>,
    broker: Option<Broker>,
    parent: Parent,
    /// The instruments, bound, by topic.
    topics: Arc<ByName<Arc<Taken>>>,
}

impl Consumer {
    /// Messages of the consumer group `group`, with the producer as parent.
    pub fn new(group: impl Into<String>) -> Self {
        let group: String = group.into();
        Self {
            group: group.into(),
            client_id: None,
            broker: None,
            parent: Parent::Producer,
            topics: Arc::default(),
        }
    }

    /// The consumer's `client.id`, as `messaging.client.id`.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        let id: String = id.into();
        self.client_id = Some(id.into());
        self
    }

    /// The only broker that the consumer knows, as `server.address` and `server.port`.
    pub fn broker(mut self, broker: impl Into<Option<Broker>>) -> Self {
        self.broker = broker.into();
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
        StartConsume {
            consumer: self,
            message,
            event_type: None,
            event_id: None,
            correlation_id: None,
            retry: 0,
            attributes: Vec::new(),
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
    retry: u32,
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

    /// The message is handled again, for the `n`th time: 0 is the first delivery. One that was handed
    /// over before is not counted again as consumed; its span has `lacuna.kafka.retry`.
    pub fn retry(mut self, n: u32) -> Self {
        self.retry = n;
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
        let (spans, measured) = (switch::spans(Part::Kafka), switch::metrics(Part::Kafka));
        let propagated = switch::get(Part::Propagation) != Level::Off;
        if !spans && !measured && !propagated && self.correlation_id.is_none() {
            // Nothing is read, told or changed.
            return ConsumeSpan { cx: None, handled: None, spans, ended: true };
        }
        let headers = message.headers().filter(|_| spans || propagated);
        let [event_type, event_id, sent_id] =
            headers.map_or([None; 3], |h| texts(h, [EVENT_TYPE, EVENT_ID, CORRELATION_ID]));

        let sent_id = sent_id.filter(|_| propagated).map(str::to_owned);
        let id = self.correlation_id.or(sent_id);
        let Incoming { parent, link } =
            Incoming::read(headers, self.consumer.parent, Context::current(), id);

        let taken = measured.then(|| {
            let bind = || Taken::bind(message.topic(), &self.consumer.group);
            let taken = self.consumer.topics.get(message.topic(), bind);
            if self.retry == 0 {
                taken.consumed.add(1);
            }
            taken
        });
        if !spans && !measured {
            return ConsumeSpan { cx: Some(parent), handled: None, spans, ended: true };
        }
        let place = Place {
            topic: taken.as_ref().map_or_else(|| message.topic().into(), |t| t.topic.clone()),
            partition: message.partition(),
            offset: message.offset(),
        };
        let started = SystemTime::now();
        let cx = if spans {
            let event_type: Arc<str> = match (self.event_type, event_type) {
                (Some(event_type), _) => event_type.into(),
                (None, Some(event_type)) => event_type.into(),
                (None, None) => place.topic.clone(),
            };
            // With room for what the handler and the context add.
            let mut a = Vec::with_capacity(20 + self.attributes.len());
            place.describe(&mut a);
            a.push(KeyValue::new("messaging.operation.name", "process"));
            a.push(KeyValue::new("messaging.operation.type", "process"));
            a.push(KeyValue::new("messaging.consumer.group.name", self.consumer.group.clone()));
            let partition = place.partition.to_string();
            a.push(KeyValue::new("messaging.destination.partition.id", partition));
            a.push(KeyValue::new("messaging.kafka.offset", place.offset));
            a.push(KeyValue::new("event_type", event_type.clone()));
            if let Some(id) = &self.consumer.client_id {
                a.push(KeyValue::new("messaging.client.id", id.clone()));
            }
            if let Some(broker) = &self.consumer.broker {
                broker.describe(&mut a);
            }
            if let Some(id) = self.event_id.as_deref().or(event_id) {
                let id: Arc<str> = id.into();
                a.push(KeyValue::new("event_id", id.clone()));
                a.push(KeyValue::new("messaging.message.id", id));
            }
            if let Some(key) = message.key().and_then(|k| std::str::from_utf8(k).ok()) {
                a.push(KeyValue::new("messaging.kafka.message.key", key.to_owned()));
            }
            a.push(match message.payload() {
                Some(payload) => KeyValue::new("messaging.message.body.size", payload.len() as i64),
                None => KeyValue::new("messaging.kafka.message.tombstone", true),
            });
            if self.retry > 0 {
                a.push(KeyValue::new("lacuna.kafka.retry", i64::from(self.retry)));
            }
            a.extend(self.attributes);

            static NAMES: Names = Names::new("kafka.consume.");
            let builder = SpanBuilder::from_name(NAMES.name(&event_type))
                .with_kind(SpanKind::Consumer)
                .with_start_time(started)
                .with_attributes(a)
                .with_links(link.into_iter().collect());
            span::build(builder, &parent)
        } else {
            parent
        };
        let group = self.consumer.group.clone();
        let handled = Handled { place, group, started, taken };
        ConsumeSpan { cx: Some(cx), handled: Some(handled), spans, ended: false }
    }
}

#[derive(Debug, Clone)]
struct Place {
    topic: Arc<str>,
    partition: i32,
    offset: i64,
}

impl Place {
    fn describe(&self, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new("messaging.system", "kafka"));
        attributes.push(KeyValue::new("messaging.destination.name", self.topic.clone()));
        attributes.push(KeyValue::new("kafka.partition", i64::from(self.partition)));
        attributes.push(KeyValue::new("kafka.offset", self.offset));
    }
}

/// What is told of a message at its end.
#[derive(Debug)]
struct Handled {
    place: Place,
    group: Arc<str>,
    started: SystemTime,
    /// `None` with metrics off.
    taken: Option<Arc<Taken>>,
}

/// A message being handled. Ends by [`ConsumeSpan::run`], [`ConsumeSpan::succeed`] or
/// [`ConsumeSpan::fail`]; dropped without one of them, it is an ERROR, because a message that nobody
/// answered for is how an incident starts.
#[derive(Debug)]
#[must_use = "a span that is dropped without a result is an ERROR"]
pub struct ConsumeSpan {
    /// `None`: the one that is current where it is asked for.
    cx: Option<Context>,
    /// `None`: the part was off when the message came.
    handled: Option<Handled>,
    spans: bool,
    ended: bool,
}

impl ConsumeSpan {
    /// The context in which the message is handled: attach it, or give it to
    /// `opentelemetry::context::FutureExt::with_context`.
    #[must_use]
    pub fn context(&self) -> Context {
        self.cx.clone().unwrap_or_else(Context::current)
    }

    /// The span, if there is one.
    fn span(&self) -> Option<SpanRef<'_>> {
        self.cx.as_ref().filter(|_| self.spans).map(Context::span)
    }

    /// One more attribute, such as `batch_id`, known only after the payload was read.
    pub fn set_attribute(
        &self,
        key: impl Into<opentelemetry::Key>,
        value: impl Into<opentelemetry::Value>,
    ) {
        if let Some(span) = self.span() {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// The correlation id that the payload gives, where it is not the one of the headers: from here on
    /// the handler's spans and log lines carry this one.
    pub fn correlate(&mut self, id: impl Into<String>) {
        let id: String = id.into();
        let cx = self.context();
        if correlation::of(&cx).as_deref() == Some(&id) {
            return;
        }
        if let Some(span) = self.span() {
            span.set_attribute(KeyValue::new(CORRELATION_ID, id.clone()));
        }
        self.cx = Some(correlation::with(&cx, id));
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
        let (Some(handled), Some(cx), true) = (&self.handled, &self.cx, self.spans) else {
            return decode();
        };
        let mut attributes = Vec::with_capacity(8);
        handled.place.describe(&mut attributes);
        attributes.push(KeyValue::new("messaging.consumer.group.name", handled.group.clone()));
        let mut span = Leaf::start("kafka.deserialize", SpanKind::Internal, attributes, cx);
        let result = decode();
        if let Err(error) = &result {
            span.fail("deserialization", error.to_string());
        }
        result
    }

    /// Runs the handler inside the span and ends it by the result: an error is an ERROR.
    pub async fn run<T, E: Display>(
        self,
        handler: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let result = match &self.cx {
            Some(cx) => handler.with_context(cx.clone()).await,
            None => handler.await,
        };
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
        if self.ended {
            return;
        }
        self.end(Some((error_type, error.to_string())));
    }

    fn end(&mut self, failure: Option<(&'static str, String)>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Some(Handled { place, group, started, taken }) = &self.handled else { return };
        let now = SystemTime::now();
        if let Some(taken) = taken {
            let lasted = seconds(*started, now);
            match &failure {
                None => taken.processed(group, lasted),
                Some((error_type, _)) => {
                    let mut a = processing(&place.topic, group);
                    a.push(KeyValue::new("error.type", *error_type));
                    metrics().process.record(lasted, &a);
                }
            }
        }
        if let Some(cx) = self.cx.as_ref().filter(|_| self.spans) {
            if let Some((error_type, message)) = failure {
                span::fail(cx, error_type, message);
            }
            cx.span().end_with_timestamp(now);
        }
    }
}

impl Drop for ConsumeSpan {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let why = if std::thread::panicking() { "panic" } else { "cancelled" };
        self.end(Some((why, format!("the message was dropped without a result ({why})"))));
    }
}
