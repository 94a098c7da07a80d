//! The client's side: a CLIENT span around one request.

use super::headers::inject;
use super::names::{OTHER, bare, method_name};
use super::record::{ByLabels, span_name, status as labels_of};
use super::server::HTTP_SECONDS;
use crate::metrics::meter;
use crate::moment::seconds;
use crate::span;
use crate::switch::{self, Level, Part};
use http::{HeaderMap, Uri};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::error::Error;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// A request about to be sent, by any client library.
#[derive(Debug, Clone)]
#[must_use = "a request is sent by `send`"]
pub struct ClientRequest<'r> {
    method: Cow<'r, str>,
    url: Cow<'r, str>,
    template: Option<Cow<'r, str>>,
}

impl<'r> ClientRequest<'r> {
    /// A request of `method` to the absolute `url`.
    pub fn new(method: impl Into<Cow<'r, str>>, url: impl Into<Cow<'r, str>>) -> Self {
        Self { method: method.into(), url: url.into(), template: None }
    }

    /// The path's template, low in cardinality, for the span's name: `/v1/batches/{id}/files`.
    pub fn template(mut self, template: impl Into<Cow<'r, str>>) -> Self {
        self.template = Some(template.into());
        self
    }

    /// Sends by `send`, which gets the headers to add, and reads the answer's status by `status`. The
    /// span ends when the answer's head is there; reading its body is not in it.
    ///
    /// # Errors
    /// `send`'s own; the span is then an ERROR, as it is for a status of 400 and above.
    pub async fn send<T, E, Fut>(
        self,
        send: impl FnOnce(HeaderMap) -> Fut,
        status: impl FnOnce(&T) -> u16,
    ) -> Result<T, E>
    where
        E: Error + 'static,
        Fut: Future<Output = Result<T, E>>,
    {
        let (spans, measured) = (switch::spans(Part::Http), switch::metrics(Part::Http));
        if !spans && !measured {
            let mut headers = HeaderMap::new();
            if switch::get(Part::Propagation) != Level::Off {
                Context::map_current(|cx| inject(cx, &mut headers));
            }
            return send(headers).await;
        }
        let uri: Option<Uri> = self.url.parse().ok();
        let method = method_name(&self.method);
        // With room for what the span, its end and the context add.
        let mut attributes = Vec::with_capacity(12);
        let to = To {
            method,
            address: uri.as_ref().and_then(Uri::host).map(|host| bare(host).into()),
            port: uri.as_ref().and_then(|uri| {
                uri.port_u16().or(match uri.scheme_str() {
                    Some("https") => Some(443),
                    Some("http") => Some(80),
                    _ => None,
                })
            }),
        };
        let mut cx = Context::current();
        let started = SystemTime::now();
        if spans {
            to.describe(&mut attributes);
            if let Some(uri) = &uri {
                attributes.push(KeyValue::new("url.full", without_secrets(uri)));
            }
            if method == OTHER {
                let original = self.method.into_owned();
                attributes.push(KeyValue::new("http.request.method_original", original));
            }
            let name = span_name(method, self.template.as_deref());
            if let Some(template) = self.template {
                attributes.push(KeyValue::new("url.template", template.into_owned()));
            }
            let builder = SpanBuilder::from_name(name)
                .with_kind(SpanKind::Client)
                .with_start_time(started)
                .with_attributes(attributes);
            cx = span::build(builder, &cx);
        }
        let span = spans.then(|| cx.clone());
        let mut ends = Ends { cx: span, to, started, measured, answered: false };
        let mut headers = HeaderMap::new();
        inject(&cx, &mut headers);
        let sent = send(headers);
        let result = if spans { sent.with_context(cx).await } else { sent.await };

        match &result {
            Ok(answer) => ends.answered(status(answer)),
            Err(error) => ends.failed(transport_error(error), "the request had no answer"),
        }
        result
    }
}

/// Why there was no answer, told by the error and its sources: `timeout`, `connection_refused`,
/// `connection_lost`, `dns`, `tls`, or `request`. The error's own text is not recorded: it has the URL,
/// query included.
fn transport_error(error: &(dyn Error + 'static)) -> &'static str {
    let mut next = Some(error);
    let mut found = "request";
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                ErrorKind::TimedOut => return "timeout",
                ErrorKind::ConnectionRefused => return "connection_refused",
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof => return "connection_lost",
                _ => {}
            }
        }
        if error.is::<tokio::time::error::Elapsed>() {
            return "timeout";
        }
        // Clients hide their kinds in private types; only the links of the chain are read here, and
        // nothing of them is kept.
        let text = error.to_string();
        if text.ends_with("timed out") {
            return "timeout";
        } else if text.starts_with("dns error") || text.contains("failed to lookup address") {
            return "dns";
        } else if text.contains("certificate") || text.contains("handshake") {
            found = "tls";
        }
        // An `io::Error` around another error shows that one only here.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = inner.map(|e| e as &(dyn Error + 'static)).or_else(|| error.source());
    }
    found
}

/// The URL without user, password and query: those are secrets, or may be.
fn without_secrets(uri: &Uri) -> String {
    let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
    match uri.port_u16() {
        Some(port) => format!("{scheme}://{host}:{port}{}", uri.path()),
        None => format!("{scheme}://{host}{}", uri.path()),
    }
}

/// Where a request goes, as a label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct To {
    method: &'static str,
    // Shared text: the span and the labels take copies.
    address: Option<Arc<str>>,
    port: Option<u16>,
}

impl Hash for To {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The methods of one host are few.
        self.address.hash(state);
    }
}

impl To {
    fn describe(&self, attributes: &mut Vec<KeyValue>) {
        attributes.push(KeyValue::new("http.request.method", self.method));
        let address = self.address.clone();
        attributes.extend(address.map(|address| KeyValue::new("server.address", address)));
        attributes.extend(self.port.map(|p| KeyValue::new("server.port", i64::from(p))));
    }
}

/// A request under way. Ends also when the future is dropped before the answer.
struct Ends {
    cx: Option<Context>,
    to: To,
    started: SystemTime,
    measured: bool,
    answered: bool,
}

impl Ends {
    fn answered(&mut self, code: u16) {
        self.answered = true;
        let is_error = code >= 400;
        let now = SystemTime::now();
        if let Some(cx) = &self.cx {
            cx.span().set_attribute(KeyValue::new("http.response.status_code", i64::from(code)));
            if is_error {
                span::fail(cx, code.to_string(), "");
            }
            cx.span().end_with_timestamp(now);
        }
        if self.measured {
            durations().record(&self.to, code, seconds(self.started, now), || {
                let mut labels = vec![];
                self.to.describe(&mut labels);
                labels.extend(labels_of(code, is_error));
                labels
            });
        }
    }

    fn failed(&mut self, error: &'static str, text: &'static str) {
        self.answered = true;
        let now = SystemTime::now();
        if let Some(cx) = &self.cx {
            span::fail(cx, error, text);
            cx.span().end_with_timestamp(now);
        }
        if self.measured {
            let mut labels = vec![];
            self.to.describe(&mut labels);
            labels.push(KeyValue::new("error.type", error));
            durations().record_once(seconds(self.started, now), &labels);
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if !self.answered {
            self.failed(span::CANCELLED, "the request was dropped before it was answered");
        }
    }
}

/// By where requests went and the status that came back.
fn durations() -> &'static ByLabels<To> {
    static DURATIONS: OnceLock<ByLabels<To>> = OnceLock::new();
    DURATIONS.get_or_init(|| {
        let histogram = meter()
            .f64_histogram("http.client.request.duration")
            .with_unit("s")
            .with_description("Duration of HTTP client requests")
            .with_boundaries(HTTP_SECONDS.to_vec())
            .build();
        ByLabels::new(histogram)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn transport_errors_are_told_apart() {
        for (kind, told) in [
            (ErrorKind::TimedOut, "timeout"),
            (ErrorKind::ConnectionRefused, "connection_refused"),
            (ErrorKind::ConnectionReset, "connection_lost"),
            (ErrorKind::Other, "request"),
        ] {
            assert_eq!(transport_error(&io::Error::from(kind)), told);
            let wrapped = io::Error::other(io::Error::from(kind));
            assert_eq!(transport_error(&wrapped), told, "as another's source");
        }
        let dns = io::Error::other("failed to lookup address information: no such host");
        assert_eq!(transport_error(&dns), "dns");
        let tls = io::Error::new(ErrorKind::InvalidData, "invalid peer certificate: Expired");
        assert_eq!(transport_error(&tls), "tls");
    }
}
