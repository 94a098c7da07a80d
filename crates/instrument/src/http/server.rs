//! The server's side: a SERVER span for each request.

use super::headers::extract;
use super::names::{OTHER, host_and_port, method_name};
use super::record::{ByLabels, span_name, status as labels_of};
use crate::metrics::{ByName, meter};
use crate::moment::seconds;
use crate::span;
use crate::switch::{self, Level, Part};
use http::{Request, Response, StatusCode};
use opentelemetry::metrics::UpDownCounter;
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use pin_project_lite::pin_project;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::SystemTime;
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
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (spans, measured) = (switch::spans(Part::Http), switch::metrics(Part::Http));
        let propagated = switch::get(Part::Propagation) != Level::Off;
        if !spans && !measured && !propagated {
            return ServerFuture { inner: self.inner.call(request), cx: None, exchange: None };
        }
        let parent = extract(request.headers(), &Context::current());
        let (cx, exchange) = if spans || measured {
            let (cx, exchange) = Exchange::begin(&request, parent, spans, measured);
            (cx, Some(exchange))
        } else {
            // The caller's context still reaches the handler.
            (parent, None)
        };
        // Handlers run in the future; what `call` itself does belongs to the request as well.
        let guard = cx.clone().attach();
        let inner = self.inner.call(request);
        drop(guard);
        ServerFuture { inner, cx: Some(cx), exchange }
    }
}

pin_project! {
    /// The answer of a [`ServerService`]'s inner service, in the request's context.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct ServerFuture<F> {
        #[pin]
        inner: F,
        // `None`: the part is off, and so is propagation.
        cx: Option<Context>,
        exchange: Option<Exchange>,
    }
}

impl<F, R, E> Future for ServerFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _guard = this.cx.as_ref().map(|cx| cx.clone().attach());
        let result = std::task::ready!(this.inner.poll(task));
        if let Some(mut exchange) = this.exchange.take() {
            match &result {
                Ok(response) => exchange.answered(response.status()),
                Err(_) => exchange.failed(),
            }
        }
        Poll::Ready(result)
    }
}

/// What a request asks for, as a label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    method: &'static str,
    scheme: &'static str,
    route: Option<Arc<str>>,
}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The methods of one route are few.
        self.route.hash(state);
    }
}

impl Asked {
    fn of<B>(request: &Request<B>) -> Self {
        // Routes are few, and each is copied once.
        static ROUTES: OnceLock<ByName<Arc<str>>> = OnceLock::new();
        let route = request.extensions().get::<axum::extract::MatchedPath>();
        let known = |route: &str| ROUTES.get_or_init(ByName::default).get(route, || route.into());
        Self {
            method: method_name(request.method().as_str()),
            scheme: match request.uri().scheme_str() {
                Some("https") => "https",
                _ => "http",
            },
            route: route.map(|route| known(route.as_str())),
        }
    }

    fn method_and_scheme(&self) -> [KeyValue; 2] {
        let method = KeyValue::new("http.request.method", self.method);
        [method, KeyValue::new("url.scheme", self.scheme)]
    }

    fn describe(&self, attributes: &mut Vec<KeyValue>) {
        attributes.extend(self.method_and_scheme());
        attributes.extend(self.route.clone().map(|route| KeyValue::new("http.route", route)));
    }
}

/// A request being handled. Ends when it is dropped; without an answer, as cancelled.
#[derive(Debug)]
struct Exchange {
    /// The span's context; `None` with spans off.
    span: Option<Context>,
    measured: bool,
    started: SystemTime,
    asked: Asked,
    /// The status, or why there is none.
    end: Result<u16, &'static str>,
}

impl Exchange {
    /// The exchange, and the context in which it is handled.
    fn begin<B>(
        request: &Request<B>,
        parent: Context,
        spans: bool,
        measured: bool,
    ) -> (Context, Self) {
        let asked = Asked::of(request);
        if measured {
            metrics().active.add(1, &asked.method_and_scheme());
        }
        let started = SystemTime::now();
        let cx = if spans { asked.span(request, started, &parent) } else { parent };
        let span = spans.then(|| cx.clone());
        (cx, Self { span, measured, started, asked, end: Err(span::CANCELLED) })
    }

    fn answered(&mut self, status: StatusCode) {
        self.end = Ok(status.as_u16());
    }

    fn failed(&mut self) {
        self.end = Err("service");
    }
}

impl Asked {
    fn span<B>(&self, request: &Request<B>, started: SystemTime, parent: &Context) -> Context {
        // With room for what the end and the context add.
        let mut a = Vec::with_capacity(16);
        self.describe(&mut a);
        a.push(KeyValue::new("url.path", request.uri().path().to_owned()));
        a.push(KeyValue::new("network.protocol.version", version(request.version())));
        if self.method == OTHER {
            let original = request.method().as_str().to_owned();
            a.push(KeyValue::new("http.request.method_original", original));
        }
        let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
        if let Some(agent) = header("user-agent") {
            a.push(KeyValue::new("user_agent.original", agent.to_owned()));
        }
        // HTTP/2 has the authority in place of the header.
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        if let Some(host) = authority.or_else(|| header("host")) {
            let (address, port) = host_and_port(host);
            a.push(KeyValue::new("server.address", address.to_owned()));
            a.extend(port.map(|p| KeyValue::new("server.port", i64::from(p))));
        }
        // No route: the method alone, since paths are unbounded.
        let builder = SpanBuilder::from_name(span_name(self.method, self.route.as_deref()))
            .with_kind(SpanKind::Server)
            .with_start_time(started)
            .with_attributes(a);
        span::build(builder, parent)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = SystemTime::now();
        // A 4xx is the client's error: the server did its work.
        let is_error = |code: u16| (500..600).contains(&code);
        if let Some(cx) = &self.span {
            match self.end {
                Ok(code) => {
                    let status = KeyValue::new("http.response.status_code", i64::from(code));
                    cx.span().set_attribute(status);
                    if is_error(code) {
                        span::fail(cx, code.to_string(), "");
                    }
                }
                Err(span::CANCELLED) => {
                    let text = "the request was dropped before it was answered";
                    span::fail(cx, span::CANCELLED, text);
                }
                Err(why) => span::fail(cx, why, "the service failed without an answer"),
            }
            cx.span().end_with_timestamp(now);
        }
        if !self.measured {
            return;
        }
        metrics().active.add(-1, &self.asked.method_and_scheme());
        let lasted = seconds(self.started, now);
        match self.end {
            Ok(code) => {
                metrics().duration.record(&self.asked, code, lasted, || {
                    let mut labels = vec![];
                    self.asked.describe(&mut labels);
                    labels.extend(labels_of(code, is_error(code)));
                    labels
                });
            }
            Err(why) => {
                let mut labels = vec![];
                self.asked.describe(&mut labels);
                labels.push(KeyValue::new("error.type", why));
                metrics().duration.record_once(lasted, &labels);
            }
        }
    }
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
    /// By what was asked and the status of the answer.
    duration: ByLabels<Asked>,
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
            duration: ByLabels::new(
                meter
                    .f64_histogram("http.server.request.duration")
                    .with_unit("s")
                    .with_description("Duration of HTTP server requests")
                    .with_boundaries(HTTP_SECONDS.to_vec())
                    .build(),
            ),
        }
    })
}
