//! The correlation id: one business key that every span and log line of a request carries.
//!
//! It travels as the W3C baggage entry `correlation_id`, so it crosses HTTP and Kafka beside the
//! trace context and outlives a trace that is broken. Every span and log record that starts while a
//! context with a correlation id is current gets it as the attribute `correlation_id`.
//!
//! ```
//! use lacuna_instrument::correlation;
//! use opentelemetry::Context;
//!
//! let cx = correlation::with(&Context::current(), "7b13b452-b676-48d5-b270-ba4920053cfe");
//! assert_eq!(correlation::of(&cx).as_deref(), Some("7b13b452-b676-48d5-b270-ba4920053cfe"));
//! ```

use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::logs::{AnyValue, LogRecord as _};
use opentelemetry::trace::Span as _;
use opentelemetry::{Context, InstrumentationScope, Key, KeyValue, StringValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use std::sync::Arc;
use std::time::Duration;

use crate::jsonlog::default_layer;

/// Attribute, baggage entry and log field that carry the correlation id.
pub const CORRELATION_ID: &str = "correlation_id";

/// `cx` with the correlation id `id`; other baggage stays. An id that W3C baggage cannot carry (over
/// 4,096 bytes) is left out rather than cut: half a key finds nothing.
#[must_use]
pub fn with(cx: &Context, id: impl Into<String>) -> Context {
    let id: String = id.into();
    if cx.baggage().get(CORRELATION_ID).map(StringValue::as_str) == Some(id.as_str()) {
        return cx.clone();
    }
    let mut baggage = copy(cx.baggage());
    // Shared, since every span under this context takes a copy.
    baggage.insert(CORRELATION_ID, Arc::<str>::from(id));
    cx.with_baggage(baggage)
}

/// `Baggage` is not `Clone`.
pub(crate) fn copy(baggage: &Baggage) -> Baggage {
    let mut copy = Baggage::new();
    for (key, (value, metadata)) in baggage {
        copy.insert_with_metadata(key.clone(), value.clone(), metadata.clone());
    }
    copy
}

/// The correlation id that `cx` carries.
#[must_use]
pub fn of(cx: &Context) -> Option<String> {
    cx.baggage().get(CORRELATION_ID).map(|v| v.as_str().to_owned())
}

/// The correlation id of the current context.
#[must_use]
pub fn current() -> Option<String> {
    Context::map_current(of)
}

/// Puts the correlation id on every span that starts under a context which has one, and hands the span
/// on. The only processor of its provider: the SDK clones a span for each of several.
#[derive(Debug)]
pub(crate) struct CorrelatedSpans {
    next: Vec<Box<dyn SpanProcessor>>,
}

impl CorrelatedSpans {
    pub(crate) fn new(next: Vec<Box<dyn SpanProcessor>>) -> Self {
        Self { next }
    }

    fn each(&self, ask: impl Fn(&dyn SpanProcessor) -> OTelSdkResult) -> OTelSdkResult {
        let mut all = Ok(());
        for next in &self.next {
            // All are asked; the first failure is told.
            let one = ask(next.as_ref());
            all = all.and(one);
        }
        all
    }
}

impl SpanProcessor for CorrelatedSpans {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        // A look through the few entries that baggage has costs less than hashing the name.
        let mut entries = cx.baggage().iter();
        if let Some((_, (id, _))) = entries.find(|(key, _)| key.as_str() == CORRELATION_ID) {
            span.set_attribute(KeyValue::new(CORRELATION_ID, id.clone()));
        }
        self.next.iter().for_each(|next| next.on_start(span, cx));
    }

    fn on_end(&self, span: SpanData) {
        let Some((last, others)) = self.next.split_last() else { return };
        others.iter().for_each(|next| next.on_end(span.clone()));
        last.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.each(|next| next.force_flush())
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.each(|next| next.shutdown_with_timeout(timeout))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.iter_mut().for_each(|next| next.set_resource(resource));
    }
}

/// Puts `correlation_id` and `layer` on every log record that lacks them.
#[derive(Debug)]
pub(crate) struct CorrelationLogProcessor;

impl LogProcessor for CorrelationLogProcessor {
    fn emit(&self, record: &mut SdkLogRecord, _scope: &InstrumentationScope) {
        let (mut has_id, mut layer) = (false, None); // Some(None): it has one
        for (key, value) in record.attributes_iter() {
            match (key.as_str(), value) {
                (CORRELATION_ID, _) => has_id = true,
                ("layer", _) => layer = Some(None),
                // A record of the `log` crate names its origin in an attribute.
                ("log.target", AnyValue::String(target)) if layer.is_none() => {
                    layer = Some(Some(default_layer(target.as_str())));
                }
                _ => {}
            }
        }
        if !has_id && let Some(id) = current() {
            record.add_attribute(Key::from_static_str(CORRELATION_ID), AnyValue::from(id));
        }
        let layer = layer.unwrap_or_else(|| {
            Some(default_layer(record.target().map_or("", |target| target.as_ref())))
        });
        if let Some(layer) = layer {
            record.add_attribute(Key::from_static_str("layer"), AnyValue::from(layer));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_other_baggage_and_replaces_the_id() {
        let cx = Context::new().with_baggage([KeyValue::new("tenant", "a")]);
        let cx = with(&with(&cx, "one"), "two");
        assert_eq!(of(&cx).as_deref(), Some("two"));
        assert_eq!(cx.baggage().get("tenant").map(StringValue::as_str), Some("a"));
    }

    #[test]
    fn no_id_means_none() {
        assert_eq!(of(&Context::new()), None);
    }
}
