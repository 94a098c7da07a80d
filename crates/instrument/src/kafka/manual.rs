//! Messages that are handled by hand, made visible by `#[trace_kafka_operation]`.

use super::consume::{ConsumeSpan, Parent};
use super::incoming::Incoming;
use crate::correlation::{self, CORRELATION_ID};
use crate::span;
use crate::switch::{self, Part};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use rdkafka::message::Headers;

/// What `#[trace_kafka_operation]` knows of a call before its body runs. Event type and attributes are
/// asked for only when there is a span to put them on.
#[derive(Debug)]
#[must_use = "give it to `trace_by_hand`"]
pub struct Operation {
    /// The context in which the body runs; `None`: the current one.
    cx: Option<Context>,
    spans: bool,
}

impl Operation {
    /// Begins the span of `operation` (`consume`, `produce`).
    pub fn begin(
        operation: &'static str,
        correlation_id: Option<String>,
        event: impl FnOnce() -> (String, Vec<KeyValue>),
    ) -> Self {
        let parent = correlation_id.map(|id| Context::map_current(|cx| correlation::with(cx, id)));
        if !switch::spans(Part::Kafka) {
            return Self { cx: parent, spans: false };
        }
        let parent = parent.unwrap_or_else(Context::current);
        let (name, attributes) = described(operation, event());
        let kind = if operation == "produce" { SpanKind::Producer } else { SpanKind::Consumer };
        Self { cx: Some(span::start(name, kind, attributes, &parent)), spans: true }
    }

    /// [`Operation::begin`] for a message of which the headers are at hand: under the producer's span,
    /// and linked to it.
    pub fn of_headers<'h, H: Headers + 'h>(
        operation: &'static str,
        headers: impl Into<Option<&'h H>>,
        correlation_id: Option<String>,
        event: impl FnOnce() -> (String, Vec<KeyValue>),
    ) -> Self {
        let headers = headers.into();
        let sent = || {
            let propagated = switch::get(Part::Propagation) != switch::Level::Off;
            let headers = headers.filter(|_| propagated)?;
            super::headers::text(headers, CORRELATION_ID).map(str::to_owned)
        };
        let id = correlation_id.or_else(sent);
        let Incoming { parent, link } =
            Incoming::read(headers, Parent::Producer, Context::current(), id);
        if !switch::spans(Part::Kafka) {
            return Self { cx: Some(parent), spans: false };
        }
        let (name, attributes) = described(operation, event());
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(link.into_iter().collect());
        Self { cx: Some(span::build(builder, &parent)), spans: true }
    }
}

fn described(
    operation: &'static str,
    (event_type, mut attributes): (String, Vec<KeyValue>),
) -> (String, Vec<KeyValue>) {
    let operation_type = if operation == "produce" { "send" } else { "process" };
    let name = format!("kafka.{operation}.{event_type}");
    attributes.push(KeyValue::new("messaging.system", "kafka"));
    attributes.push(KeyValue::new("messaging.operation.name", operation));
    attributes.push(KeyValue::new("messaging.operation.type", operation_type));
    attributes.push(KeyValue::new("event_type", event_type));
    (name, attributes)
}

/// What `#[trace_kafka_operation]` expands to: runs `body` in the operation's span
/// `kafka.<operation>.<event_type>`. `read` gives the text of an error, if the body returned one.
/// Dropped before its end, or by a panic, it is an ERROR.
pub async fn trace_by_hand<R>(
    operation: Operation,
    body: impl Future<Output = R>,
    read: impl FnOnce(&R) -> Option<String>,
) -> R {
    let Operation { cx, spans } = operation;
    let Some(cx) = cx else { return body.await };
    if !spans {
        return body.with_context(cx).await;
    }
    let mut ends = Ends { cx: cx.clone(), answered: false };
    let result = body.with_context(cx).await;
    ends.answered = true;
    if let Some(error) = read(&result) {
        span::fail(&ends.cx, "handler", error);
    }
    result
}

/// What `#[trace_kafka_operation(message = ...)]` expands to: runs `body` in the message's span and
/// ends it by the result.
pub async fn trace_message<R>(
    span: ConsumeSpan,
    body: impl Future<Output = R>,
    read: impl FnOnce(&R) -> Option<String>,
) -> R {
    let result = body.with_context(span.context()).await;
    match read(&result) {
        None => span.succeed(),
        Some(error) => span.fail("handler", &error),
    }
    result
}

struct Ends {
    cx: Context,
    answered: bool,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if !self.answered {
            let why = if std::thread::panicking() { "panic" } else { span::CANCELLED };
            span::fail(&self.cx, why, "the operation was dropped before it ended");
        }
        self.cx.span().end();
    }
}
