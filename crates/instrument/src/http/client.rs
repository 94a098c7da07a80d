//! The client's side: a CLIENT span around one request.

use super::headers::inject;
use super::server::{HTTP_SECONDS, method_name};
use crate::metrics::meter;
use crate::span;
use crate::switch::{self, Part};
use http::{HeaderMap, Method, Uri};
use opentelemetry::context::FutureExt;
use opentelemetry::metrics::Histogram;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::fmt::Display;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A request about to be sent, by any client library.
#[derive(Debug, Clone)]
#[must_use = "a request is sent by `send`"]
pub struct ClientRequest {
    method: &'static str,
    url: String,
    template: Option<String>,
}

impl ClientRequest {
    /// A request of `method` to the absolute `url`.
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        let method = Method::from_bytes(method.as_bytes()).map_or("_OTHER", |m| method_name(&m));
        Self { method, url: url.into(), template: None }
    }

    /// The path's template, low in cardinality, for the span's name: `/v1/batches/{id}/files`.
    pub fn template(mut self, template: impl Into<String>) -> Self {
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
        E: Display,
        Fut: Future<Output = Result<T, E>>,
    {
        let (spans, measured) = (switch::spans(Part::Http), switch::metrics(Part::Http));
        if !spans && !measured {
            let mut headers = HeaderMap::new();
            Context::map_current(|cx| inject(cx, &mut headers));
            return send(headers).await;
        }
        let uri: Option<Uri> = self.url.parse().ok();
        // With room for what the span, its end and the context add.
        let mut attributes = Vec::with_capacity(10);
        attributes.push(KeyValue::new("http.request.method", self.method));
        if let Some(uri) = &uri {
            if let Some(host) = uri.host() {
                attributes.push(KeyValue::new("server.address", Arc::<str>::from(host)));
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
            let name = match self.template {
                Some(template) => {
                    let name = format!("{} {template}", self.method);
                    attributes.push(KeyValue::new("url.template", template));
                    name.into()
                }
                None => Cow::Borrowed(self.method),
            };
            cx = span::start(name, SpanKind::Client, attributes, &cx);
        }
        let mut ends = Ends { cx: spans.then(|| cx.clone()), answered: false };
        let mut headers = HeaderMap::new();
        inject(&cx, &mut headers);
        let started = Instant::now();
        let result = send(headers).with_context(cx.clone()).await;

        let code = result.as_ref().ok().map(status);
        let error = match (&result, code) {
            (Err(_), _) => Some("request".to_owned()),
            (Ok(_), Some(code)) if code >= 400 => Some(code.to_string()),
            _ => None,
        };
        let code = code.map(|c| KeyValue::new("http.response.status_code", i64::from(c)));
        let why = error.map(|e| KeyValue::new("error.type", e));
        if spans {
            let span = cx.span();
            if why.is_some() {
                let text = result.as_ref().err().map_or_else(String::new, ToString::to_string);
                span.set_status(Status::error(text));
            }
            code.iter().chain(&why).for_each(|kv| span.set_attribute(kv.clone()));
        }
        ends.answered = true;
        if measured {
            let mut labels = labels;
            labels.extend(code.into_iter().chain(why));
            duration().record(started.elapsed().as_secs_f64(), &labels);
        }
        result
    }
}

/// The URL without user, password and query: those are secrets, or may be.
fn without_secrets(uri: &Uri) -> String {
    let (scheme, host) = (uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default());
    match uri.port_u16() {
        Some(port) => format!("{scheme}://{host}:{port}{}", uri.path()),
        None => format!("{scheme}://{host}{}", uri.path()),
    }
}

/// Ends the span also when the future is dropped before the answer.
struct Ends {
    cx: Option<Context>,
    answered: bool,
}

impl Drop for Ends {
    fn drop(&mut self) {
        if let Some(cx) = &self.cx {
            if !self.answered {
                cx.span().set_attribute(KeyValue::new("error.type", "cancelled"));
                cx.span()
                    .set_status(Status::error("the request was dropped before it was answered"));
            }
            cx.span().end();
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
