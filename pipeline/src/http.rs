//! What the three services' HTTP sides share: health, errors, spans, listening.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use opentelemetry::trace::{FutureExt, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use serde_json::json;
use tokio::net::TcpListener;

use crate::config::Listen;
use crate::error::Error;
use crate::stop::Stop;

/// Counts the parts of a service that must be up before it calls itself ready.
#[derive(Clone, Debug)]
pub struct Readiness {
    missing: Arc<AtomicUsize>,
}

impl Readiness {
    /// Not ready until `parts` parts have called [`Readiness::part_is_up`].
    pub fn of(parts: usize) -> Self {
        Self { missing: Arc::new(AtomicUsize::new(parts)) }
    }

    /// To be called once by each part.
    pub fn part_is_up(&self) {
        // More calls than parts would be a bug that must not wrap round to "not ready".
        let _ =
            self.missing.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1));
    }

    /// Whether every part is up.
    pub fn is_ready(&self) -> bool {
        self.missing.load(Ordering::Acquire) == 0
    }
}

/// An answer that is not a success, as `{"error": ...}`.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// The caller's fault.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        tracing::error!(layer = "application", error = %error, "request failed");
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: error.to_string() }
    }
}

impl From<axum::extract::rejection::JsonRejection> for ApiError {
    fn from(rejection: axum::extract::rejection::JsonRejection) -> Self {
        Self { status: rejection.status(), message: rejection.body_text() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.message }))).into_response()
    }
}

/// Adds health, readiness and spans to a service's own routes.
pub fn with_health(service: &'static str, routes: Router, readiness: Readiness) -> Router {
    let healthy = move || async move { Json(json!({ "status": "healthy", "service": service })) };
    let ready = move |State(readiness): State<Readiness>| async move {
        if readiness.is_ready() {
            (StatusCode::OK, Json(json!({ "status": "ready", "service": service })))
        } else {
            (
                StatusCode::SERVICE_UNAVAILABLE,
                Json(json!({ "status": "starting", "service": service })),
            )
        }
    };
    routes
        .route_layer(middleware::from_fn(server_span))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready).with_state(readiness))
}

/// One SERVER span a request, named by its route, child of the caller's `traceparent`.
async fn server_span(request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let route =
        request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str).to_owned();
    let parent = global::get_text_map_propagator(|p| p.extract(&Headers(request.headers())));
    let tracer = global::tracer("pipeline");
    let span = tracer
        .span_builder(format!("{method} {route}"))
        .with_kind(SpanKind::Server)
        .with_attributes([
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route),
            KeyValue::new("url.path", request.uri().path().to_owned()),
            KeyValue::new("url.scheme", "http"),
        ])
        .start_with_context(&tracer, &parent);
    let context = parent.with_span(span);
    let response = next.run(request).with_context(context.clone()).await;
    let status = response.status();
    context
        .span()
        .set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        context.span().set_attribute(KeyValue::new("error.type", status.as_u16().to_string()));
        context.span().set_status(Status::error(""));
    }
    context.span().end();
    response
}

/// Sets attributes on the span that is current.
pub fn annotate(attributes: impl IntoIterator<Item = KeyValue>) {
    Context::map_current(|context| context.span().set_attributes(attributes));
}

struct Headers<'a>(&'a axum::http::HeaderMap);

impl opentelemetry::propagation::Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// Listens first, so that a port in use is the first thing a user hears of.
pub async fn bind(listen: &Listen, default_port: u16) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(listen.host, listen.port.unwrap_or(default_port));
    TcpListener::bind(address).await.map_err(Error::io(format!("listening on {address}")))
}

/// Serves until `stop`, and writes the ready file when every part is up.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    listen: &Listen,
    readiness: Readiness,
    stop: Stop,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::io("local address"))?;
    tracing::info!(layer = "framework", address = %address, "listening");
    if let Some(path) = listen.ready_file.clone() {
        tokio::spawn(async move {
            while !readiness.is_ready() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            // Written beside and renamed: a reader must never see half a URL.
            let partial = path.with_extension("partial");
            let written = std::fs::write(&partial, format!("http://{address}"))
                .and_then(|()| std::fs::rename(&partial, &path));
            if let Err(error) = written {
                tracing::error!(layer = "framework", error = %error, path = %path.display(), "ready file");
            }
        });
    }
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.wait().await })
        .await
        .map_err(Error::io(format!("serving {address}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_part_is_up() {
        let readiness = Readiness::of(2);
        readiness.part_is_up();
        assert!(!readiness.is_ready());
        readiness.part_is_up();
        readiness.part_is_up();
        assert!(readiness.is_ready());
    }
}
