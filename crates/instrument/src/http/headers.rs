//! Trace context, baggage and correlation id in HTTP headers.

use crate::correlation;
use crate::switch::{self, Level, Part};
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};

/// Header with the correlation id, for callers who speak no baggage.
pub const X_CORRELATION_ID: &str = "x-correlation-id";

/// Writes the trace context, baggage and correlation id of `cx` into `headers`, in place of what was
/// there.
pub fn inject(cx: &Context, headers: &mut HeaderMap) {
    if switch::get(Part::Propagation) == Level::Off {
        return;
    }
    global::get_text_map_propagator(|p| p.inject_context(cx, &mut Injected(headers)));
    if let Some(value) = correlation::of(cx).and_then(|id| HeaderValue::try_from(id).ok()) {
        headers.insert(HeaderName::from_static(X_CORRELATION_ID), value);
    }
}

/// `parent` with what `headers` carry. An `x-correlation-id` wins over the baggage's. Malformed
/// headers are ignored.
#[must_use]
pub fn extract(headers: &HeaderMap, parent: &Context) -> Context {
    if switch::get(Part::Propagation) == Level::Off {
        return parent.clone();
    }
    let cx =
        global::get_text_map_propagator(|p| p.extract_with_context(parent, &Extracted(headers)));
    match headers.get(X_CORRELATION_ID).and_then(|v| v.to_str().ok()).filter(|id| !id.is_empty()) {
        Some(id) => correlation::with(&cx, id),
        None => cx,
    }
}

struct Injected<'h>(&'h mut HeaderMap);

impl Injector for Injected<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct Extracted<'h>(&'h HeaderMap);

impl Extractor for Extracted<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|v| v.to_str().ok())
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
