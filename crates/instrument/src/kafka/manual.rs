//! Messages that are handled by hand, made visible by `#[trace_kafka_operation]`.

use crate::span;
use crate::switch::{self, Part};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use std::fmt::Display;

/// How a hand-written operation's result reads.
pub trait OperationResult {
    /// The error's text, if it failed.
    fn error(&self) -> Option<String>;
}

impl OperationResult for () {
    fn error(&self) -> Option<String> {
        None
    }
}

impl<T, E: Display> OperationResult for Result<T, E> {
    fn error(&self) -> Option<String> {
        self.as_ref().err().map(ToString::to_string)
    }
}

/// What `#[trace_kafka_operation]` expands to: runs `body` in a span `kafka.<operation>.<event_type>`.
/// Event type and attributes are asked for only when there is a span to put them on; dropped before its
/// end, or by a panic, it is an ERROR.
pub async fn trace_by_hand<R: OperationResult>(
    operation: &'static str,
    event: impl FnOnce() -> (String, Vec<KeyValue>),
    body: impl Future<Output = R>,
) -> R {
    if !switch::spans(Part::Kafka) {
        return body.await;
    }
    let (kind, operation_type) = match operation {
        "produce" => (SpanKind::Producer, "send"),
        _ => (SpanKind::Consumer, "process"),
    };
    let (event_type, mut attributes) = event();
    let name = format!("kafka.{operation}.{event_type}");
    attributes.push(KeyValue::new("messaging.system", "kafka"));
    attributes.push(KeyValue::new("messaging.operation.name", operation));
    attributes.push(KeyValue::new("messaging.operation.type", operation_type));
    attributes.push(KeyValue::new("event_type", event_type));
    let cx = Context::map_current(|parent| span::start(name, kind, attributes, parent));
    let mut ends = Ends { cx: cx.clone(), answered: false };
    let result = body.with_context(cx).await;
    ends.answered = true;
    if let Some(error) = result.error() {
        span::fail(&ends.cx, "handler", error);
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
