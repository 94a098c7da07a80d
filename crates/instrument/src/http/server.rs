//! The server's side: a SERVER span for each request.

use super::headers::extract;
use crate::metrics::meter;
use crate::span;
use crate::switch::{self, Part};
use http::{Method, Request, Response, StatusCode};
use opentelemetry::context::FutureExt;
use opentelemetry::metrics::{Histogram, UpDownCounter};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Instant;
use tower::{Layer, Service};

/// Bucket bounds in seconds, from the advice for `http.server.request.duration`.
pub(crate) const HTTP_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Puts every request into a span `{method} {route}`, under the caller's. Give it to
/// `axum::Router::layer` after the routes, so that it knows which one matched.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerLayer;

impl ServerLayer {
    /// The layer.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = ServerService<S>;

    fn layer(&self, inner: S) -> ServerService<S> {
        ServerService { inner }
    }
}

/// A service with [`ServerLayer`] around it.
#[derive(Debug, Clone)]
pub struct ServerService<S> {
    inner: S,
}

impl<S, B, R> Service<Request<B>> for ServerService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: std::fmt::Display + Send + 'static,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (spans, measured) = (switch::spans(Part::Http), switch::metrics(Part::Http));
        let parent = extract(request.headers(), &Context::current());
        if !spans && !measured {
            // The caller's context still reaches the handler.
            return Box::pin(self.inner.call(request).with_context(parent));
        }
        let mut exchange = Exchange::begin(&request, parent, spans, measured);
        let cx = exchange.cx.clone();
        // Handlers run in the future; what `call` itself does belongs to the request as well.
        let guard = cx.clone().attach();
        let handled = self.inner.call(request);
        drop(guard);
        Box::pin(async move {
            let result = handled.with_context(cx).await;
            match &result {
                Ok(response) => exchange.answered(response.status()),
                Err(error) => exchange.failed(&error.to_string()),
            }
            result
        })
    }
}

/// A request being handled. Ends when it is dropped; without an answer, as cancelled.
struct Exchange {
    cx: Context,
    spans: bool,
    measured: bool,
    started: Instant,
    attributes: Vec<KeyValue>,
    answered: bool,
}

impl Exchange {
    fn begin<B>(request: &Request<B>, parent: Context, spans: bool, measured: bool) -> Self {
        let method = method_name(request.method());
        let route =
            request.extensions().get::<axum::extract::MatchedPath>().map(|p| p.as_str().to_owned());
        let scheme = request.uri().scheme_str().unwrap_or("http").to_owned();
        let mut attributes =
            vec![KeyValue::new("http.request.method", method), KeyValue::new("url.scheme", scheme)];
        if measured {
            metrics().active.add(1, &attributes);
        }
        if let Some(route) = &route {
            attributes.push(KeyValue::new("http.route", route.clone()));
        }
        let cx = if spans {
            let mut a = attributes.clone();
            a.push(KeyValue::new("url.path", request.uri().path().to_owned()));
            a.push(KeyValue::new("network.protocol.version", version(request.version())));
            let header =
                |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
            if let Some(agent) = header("user-agent") {
                a.push(KeyValue::new("user_agent.original", agent));
            }
            if let Some(host) = header("host") {
                let (address, port) = match host.rsplit_once(':') {
                    Some((address, port)) => (address.to_owned(), port.parse::<i64>().ok()),
                    None => (host, None),
                };
                a.push(KeyValue::new("server.address", address));
                a.extend(port.map(|p| KeyValue::new("server.port", p)));
            }
            // No route: the method alone, since paths are unbounded.
            let name = route.map_or_else(|| method.to_owned(), |r| format!("{method} {r}"));
            span::start(name, SpanKind::Server, a, &parent)
        } else {
            parent
        };
        Self { cx, spans, measured, started: Instant::now(), attributes, answered: false }
    }

    fn answered(&mut self, status: StatusCode) {
        self.answered = true;
        let mut added =
            vec![KeyValue::new("http.response.status_code", i64::from(status.as_u16()))];
        if status.is_server_error() {
            added.push(KeyValue::new("error.type", status.as_u16().to_string()));
        }
        if self.spans {
            self.cx.span().set_attributes(added.clone());
            // A 4xx is the client's error: the server did its work.
            if status.is_server_error() {
                self.cx.span().set_status(Status::error(""));
            }
        }
        self.attributes.extend(added);
    }

    fn failed(&mut self, error: &str) {
        self.answered = true;
        self.attributes.push(KeyValue::new("error.type", "service"));
        if self.spans {
            self.cx.span().set_attribute(KeyValue::new("error.type", "service"));
            self.cx.span().set_status(Status::error(error.to_owned()));
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            self.attributes.push(KeyValue::new("error.type", "cancelled"));
        }
        if self.spans {
            let span = self.cx.span();
            if !self.answered {
                span.set_attribute(KeyValue::new("error.type", "cancelled"));
                span.set_status(Status::error("the request was dropped before it was answered"));
            }
            span.end();
        }
        if self.measured {
            metrics().active.add(-1, &self.attributes[..2]);
            metrics().duration.record(self.started.elapsed().as_secs_f64(), &self.attributes);
        }
    }
}

/// The method, or `_OTHER` for one that is not known: clients choose it, and it is a label.
pub(crate) fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|k| *k == method.as_str()).unwrap_or("_OTHER")
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

struct Metrics {
    active: UpDownCounter<i64>,
    duration: Histogram<f64>,
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = meter();
        Metrics {
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_unit("{request}")
                .with_description("Requests being handled")
                .build(),
            duration: meter
                .f64_histogram("http.server.request.duration")
                .with_unit("s")
                .with_description("Duration of HTTP server requests")
                .with_boundaries(HTTP_SECONDS.to_vec())
                .build(),
        }
    })
}
