//! W3C trace context and baggage in Kafka headers.

use crate::switch::{self, Level, Part};
use opentelemetry::propagation::{Extractor, Injector};
use opentelemetry::{Context, global};
use rdkafka::message::{Header, Headers, OwnedHeaders};

/// Header with the event's type, so that a consumer can name its span before it reads the payload.
pub(crate) const EVENT_TYPE: &str = "event_type";
/// Header with the event's id.
pub(crate) const EVENT_ID: &str = "event_id";

/// `headers` with the trace context and baggage of `cx`. Headers of the same names are replaced, so
/// that a forwarded record does not carry two parents.
#[must_use]
pub fn inject(cx: &Context, headers: OwnedHeaders) -> OwnedHeaders {
    inject_with(cx, headers, [])
}

/// [`inject`], with more headers that replace those of the same names.
pub(crate) fn inject_with<const N: usize>(
    cx: &Context,
    headers: OwnedHeaders,
    more: [(&str, Option<&str>); N],
) -> OwnedHeaders {
    let mut injected = Injected(vec![]);
    if switch::get(Part::Propagation) != Level::Off {
        global::get_text_map_propagator(|p| p.inject_context(cx, &mut injected));
    }
    let new = || {
        let more = more.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        more.chain(injected.0.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    };
    let mut all = OwnedHeaders::new_with_capacity(headers.count() + N + injected.0.len());
    for header in headers.iter() {
        // Readers of headers look at names in this way.
        if !new().any(|(name, _)| name.eq_ignore_ascii_case(header.key)) {
            all = all.insert(header);
        }
    }
    for (name, value) in new() {
        all = all.insert(Header { key: name, value: Some(value) });
    }
    all
}

struct Injected(Vec<(String, String)>);

impl Injector for Injected {
    fn set(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value));
    }
}

/// `parent` with the trace context and baggage that `headers` carry. Malformed ones are ignored: the
/// message is handled, in a trace of its own.
#[must_use]
pub fn extract<H: Headers>(headers: Option<&H>, parent: &Context) -> Context {
    match headers {
        Some(headers) if switch::get(Part::Propagation) != Level::Off => {
            global::get_text_map_propagator(|p| p.extract_with_context(parent, &Extracted(headers)))
        }
        _ => parent.clone(),
    }
}

struct Extracted<'h, H>(&'h H);

impl<H: Headers> Extractor for Extracted<'_, H> {
    fn get(&self, key: &str) -> Option<&str> {
        text(self.0, key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|h| h.key).collect()
    }
}

/// The last headers of these names, as text, in one pass: each header is a call into librdkafka.
pub(crate) fn texts<'h, H: Headers, const N: usize>(
    headers: &'h H,
    names: [&str; N],
) -> [Option<&'h str>; N] {
    let mut found = [None; N];
    for header in headers.iter() {
        if let Some(n) = names.iter().position(|name| header.key.eq_ignore_ascii_case(name)) {
            found[n] = header.value.and_then(|value| std::str::from_utf8(value).ok());
        }
    }
    found
}

/// The last header of a name, as text. The last: that is the one a producer added itself.
pub(crate) fn text<'h, H: Headers>(headers: &'h H, name: &str) -> Option<&'h str> {
    (0..headers.count())
        .rev()
        .map(|i| headers.get(i))
        .find(|h| h.key.eq_ignore_ascii_case(name))
        .and_then(|h| std::str::from_utf8(h.value?).ok())
}
