//! The client's side: a CLIENT span around one request.

use super::headers::inject;
use super::names::{OTHER, bare, method_name, name_of};
use super::server::HTTP_SECONDS;
use crate::metrics::meter;
use crate::span;
use crate::switch::{self, Part};
use http::{HeaderMap, Uri};
use opentelemetry::context::FutureExt;
use opentelemetry::metrics::Histogram;
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::error::Error;
use std::io::ErrorKind;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

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
            Context::map_current(|cx| inject(cx, &mut headers));
            return send(headers).await;
        }
        let uri: Option<Uri> = self.url.parse().ok();
        let method = method_name(&self.method);
        // With room for what the span, its end and the context add.
        let mut attributes = Vec::with_capacity(12);
        attributes.push(KeyValue::new("http.request.method", method));
        if let Some(uri) = &uri {
            if let Some(host) = uri.host() {
                attributes.push(KeyValue::new("server.address", Arc::<str>::from(bare(host))));
            }
            let port = uri.port_u16().or(match uri.scheme_str() {
                Some("https") => Some(443),
                Some("http") => Some(80),
                _ => None,
            });
            attributes.extend(port.map(|p| KeyValue::new("server.port", i64::from(p))));
        }
        let labels = if measured { attributes.clone() } else { vec![] };
        let mut cx = Context::current();
        if spans {
            if let Some(uri) = &uri {
                attributes.push(KeyValue::new("url.full", without_secrets(uri)));
            }
            if method == OTHER {
                let original = self.method.into_owned();
                attributes.push(KeyValue::new("http.request.method_original", original));
            }
            let name = match self.template {
                Some(template) => {
                    let name = format!("{} {template}", name_of(method));
                    attributes.push(KeyValue::new("url.template", template.into_owned()));
                    name.into()
                }
                None => Cow::Borrowed(name_of(method)),
            };
            cx = span::start(name, SpanKind::Client, attributes, &cx);
        }
        let started = measured.then(Instant::now);
        let mut ends = Ends { cx: spans.then(|| cx.clone()), labels, started, answered: false };
        let mut headers = HeaderMap::new();
        inject(&cx, &mut headers);
        let sent = send(headers);
        let result = if spans { sent.with_context(cx).await } else { sent.await };

        let code = result.as_ref().ok().map(status);
        let error: Option<Cow<'static, str>> = match (&result, code) {
            (Err(error), _) => Some(transport_error(error).into()),
            (Ok(_), Some(code)) if code >= 400 => Some(code.to_string().into()),
            _ => None,
        };
        let code = code.map(|c| KeyValue::new("http.response.status_code", i64::from(c)));
        ends.end(code, error, if result.is_err() { "the request had no answer" } else { "" });
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

/// A request under way. Ends also when the future is dropped before the answer.
struct Ends {
    cx: Option<Context>,
    labels: Vec<KeyValue>,
    started: Option<Instant>,
    answered: bool,
}

impl Ends {
    fn end(
        &mut self,
        code: Option<KeyValue>,
        error: Option<Cow<'static, str>>,
        text: &'static str,
    ) {
        self.answered = true;
        if let Some(cx) = &self.cx {
            code.iter().for_each(|kv| cx.span().set_attribute(kv.clone()));
            if let Some(error) = &error {
                span::fail(cx, error.clone(), text);
            }
            cx.span().end();
        }
        if let Some(started) = self.started {
            let mut labels = std::mem::take(&mut self.labels);
            labels.extend(code);
            labels.extend(error.map(|e| KeyValue::new("error.type", e)));
            duration().record(started.elapsed().as_secs_f64(), &labels);
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        if !self.answered {
            let text = "the request was dropped before it was answered";
            self.end(None, Some(span::CANCELLED.into()), text);
        }
    }
}

fn duration() -> &'static Histogram<f64> {
    static DURATION: OnceLock<Histogram<f64>> = OnceLock::new();
    DURATION.get_or_init(|| {
        meter()
            .f64_histogram("http.client.request.duration")
            .with_unit("s")
            .with_description("Duration of HTTP client requests")
            .with_boundaries(HTTP_SECONDS.to_vec())
            .build()
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
