//! What the three services' HTTP sides share: health, metrics, switches, errors, spans, listening.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use lacuna_instrument::correlation::{self, CORRELATION_ID};
use lacuna_instrument::http::{ServerLayer, X_CORRELATION_ID};
use lacuna_instrument::openmetrics::{self, MetricsText};
use lacuna_instrument::switch::{self, Part};
use opentelemetry::trace::{FutureExt, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

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

    /// What was asked about is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into() }
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

/// A service's own routes, each request in a span and with a correlation id, beside those that every
/// service has.
fn routes_of(
    service: &'static str,
    own: Router,
    readiness: Readiness,
    metrics: MetricsText,
) -> Router {
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
    let metrics =
        move || async move { ([(CONTENT_TYPE, openmetrics::CONTENT_TYPE)], metrics.render()) };
    // The last layer is the outermost: the span is there when the request gets its correlation id.
    own.route_layer(middleware::from_fn(correlated))
        .route_layer(ServerLayer::new())
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready).with_state(readiness))
        .route("/metrics", get(metrics))
        .route("/instrument", get(show_switches).post(set_switches))
}

/// Follows a request by the id that its caller gave, or by a new one, and answers with it.
async fn correlated(request: Request, next: Next) -> Response {
    let id = match correlation::current() {
        Some(id) => id,
        None => {
            let id = Uuid::new_v4().to_string();
            annotate([KeyValue::new(CORRELATION_ID, id.clone())]);
            id
        }
    };
    let context = correlation::with(&Context::current(), id.clone());
    let mut response = next.run(request).with_context(context).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static(X_CORRELATION_ID), value);
    }
    response
}

/// The id by which the request at hand is followed.
pub fn correlation_id() -> String {
    correlation::current().unwrap_or_else(|| Uuid::new_v4().to_string())
}

/// How much each part of the instrumentation emits.
async fn show_switches() -> Json<Value> {
    let levels = Part::ALL.map(|part| (part.name().to_owned(), switch::get(part).name().into()));
    Json(Value::Object(levels.into_iter().collect()))
}

/// Takes a list like `LACUNA_INSTRUMENT`'s. What it does not understand it refuses by name; the rest
/// counts all the same.
async fn set_switches(list: String) -> Result<Json<Value>, ApiError> {
    let problems = switch::apply(&list);
    tracing::warn!(layer = "framework", list, "instrumentation switched");
    if problems.is_empty() {
        return Ok(show_switches().await);
    }
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(ApiError::bad_request(problems.join("; ")))
}

/// Sets attributes on the span that is current.
pub fn annotate(attributes: impl IntoIterator<Item = KeyValue>) {
    Context::map_current(|context| context.span().set_attributes(attributes));
}

/// Listens first, so that a port in use is the first thing a user hears of.
pub async fn bind(listen: &Listen, default_port: u16) -> Result<TcpListener, Error> {
    let address = SocketAddr::new(listen.host, listen.port.unwrap_or(default_port));
    TcpListener::bind(address).await.map_err(Error::io(format!("listening on {address}")))
}

/// What a service gets from the process that it runs in.
#[derive(Clone, Debug)]
pub struct Process {
    /// When to end.
    pub stop: Stop,
    /// What `GET /metrics` shows.
    pub metrics: MetricsText,
}

/// Serves `routes` until it is time to stop, and writes the ready file when every part is up.
pub async fn serve(
    service: &'static str,
    listener: TcpListener,
    routes: Router,
    listen: &Listen,
    readiness: Readiness,
    process: Process,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::io("local address"))?;
    tracing::info!(layer = "framework", address = %address, "listening");
    let Process { stop, metrics } = process;
    let router = routes_of(service, routes, readiness.clone(), metrics);
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
