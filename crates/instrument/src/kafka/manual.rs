//! Messages that are handled by hand, made visible by `#[trace_kafka_operation]`.

use crate::span;
use crate::switch::{self, Part};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
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
pub async fn trace_by_hand<R: OperationResult, F: Future<Output = R>>(
    operation: &'static str,
    event_type: String,
    mut attributes: Vec<KeyValue>,
    body: F,
) -> R {
    if !switch::spans(Part::Kafka) {
        return body.await;
    }
    let (kind, operation_type) = match operation {
        "produce" => (SpanKind::Producer, "send"),
        _ => (SpanKind::Consumer, "process"),
    };
    attributes.push(KeyValue::new("messaging.system", "kafka"));
    attributes.push(KeyValue::new("messaging.operation.name", operation));
    attributes.push(KeyValue::new("messaging.operation.type", operation_type));
    attributes.push(KeyValue::new("event_type", event_type.clone()));
    let name = format!("kafka.{operation}.{event_type}");
    let ends = Ends(Context::map_current(|parent| span::start(name, kind, attributes, parent)));
    let result = body.with_context(ends.0.clone()).await;
    if let Some(error) = result.error() {
        ends.0.span().set_attribute(KeyValue::new("error.type", "handler"));
        ends.0.span().set_status(Status::error(error));
    }
    result
}

struct Ends(Context);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.span().end();
    }
}
