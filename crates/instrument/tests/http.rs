//! A client, a server and the trace between them, over a real socket.
#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use common::{attribute, is_child_of, memory, one, own_trace, spans_of};
use lacuna_instrument::correlation;
use lacuna_instrument::http::{ClientRequest, ServerLayer};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status};
use std::fmt::Write as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn server() -> String {
    memory();
    let app = Router::new()
        .route(
            "/v1/batches/{id}/files",
            post(|| async {
                tokio::task::yield_now().await;
                tracing::info_span!("handler").in_scope(|| tracing::info!("http handler line"));
                correlation::current().unwrap_or_default()
            }),
        )
        .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .layer(ServerLayer::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

struct Answer {
    status: u16,
    body: String,
}

/// The smallest HTTP/1.1 client: any library can stand here, so none is needed.
async fn exchange(method: &str, url: &str, headers: &HeaderMap) -> std::io::Result<Answer> {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut socket = tokio::net::TcpStream::connect(authority).await?;
    let mut request = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: 0\r\n"
    );
    for (name, value) in headers {
        let _ = write!(request, "{name}: {}\r\n", value.to_str().unwrap());
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    Ok(Answer { status, body })
}

async fn send(method: &str, url: String, template: &str) -> std::io::Result<Answer> {
    ClientRequest::new(method, url.clone())
        .template(template)
        .send(
            |headers| async move { exchange(method, &url, &headers).await },
            |answer| answer.status,
        )
        .await
}

#[tokio::test]
async fn one_trace_and_one_correlation_id_from_client_to_handler() {
    let url = server().await;
    let (cx, trace) = own_trace();
    let cx = correlation::with(&cx, "c-http");
    let path = format!("{url}/v1/batches/7/files?token=secret");
    let answer = send("POST", path, "/v1/batches/{id}/files").with_context(cx).await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "c-http"));
    let spans = spans_of(trace);
    let client = spans.iter().find(|s| s.span_kind == SpanKind::Client).unwrap();
    let server = spans.iter().find(|s| s.span_kind == SpanKind::Server).unwrap();
    assert!(is_child_of(server, client));
    assert!(is_child_of(one(&spans, "handler"), server));
    for span in [client, server] {
        assert_eq!(span.name, "POST /v1/batches/{id}/files");
        assert_eq!(attribute(span, "http.request.method").as_deref(), Some("POST"));
        assert_eq!(attribute(span, "http.response.status_code").as_deref(), Some("200"));
        assert_eq!(attribute(span, "correlation_id").as_deref(), Some("c-http"));
        assert_eq!(attribute(span, "server.address").as_deref(), Some("127.0.0.1"));
        assert_eq!(span.status, Status::Unset);
    }
    assert_eq!(attribute(server, "http.route").as_deref(), Some("/v1/batches/{id}/files"));
    assert_eq!(attribute(server, "url.path").as_deref(), Some("/v1/batches/7/files"));
    let full = attribute(client, "url.full").unwrap();
    assert!(full.ends_with("/v1/batches/7/files") && !full.contains("secret"));
    let lines = memory().lines.json();
    let line = lines
        .iter()
        .find(|l| l["message"] == "http handler line" && l["correlation_id"] == "c-http")
        .unwrap();
    assert_eq!(line["trace_id"], trace.to_string());
}

#[tokio::test]
async fn a_server_error_is_an_error_on_both_sides_and_a_client_error_on_one() {
    let url = server().await;
    let (cx, trace) = own_trace();
    send("GET", format!("{url}/broken"), "/broken").with_context(cx).await.unwrap();
    let spans = spans_of(trace);
    assert!(
        spans.iter().filter(|s| matches!(s.status, Status::Error { .. })).count() == 2,
        "{spans:#?}"
    );
    let types: Vec<_> = spans
        .iter()
        .filter(|s| s.name == "GET /broken")
        .map(|s| (s.name.clone(), attribute(s, "error.type")))
        .collect();
    assert!(types.iter().all(|(_, t)| t.as_deref() == Some("500")), "{types:?}");

    let (cx, trace) = own_trace();
    send("GET", format!("{url}/nowhere/4711"), "/nowhere/{id}").with_context(cx).await.unwrap();
    let spans = spans_of(trace);
    let server = spans.iter().find(|s| s.span_kind == SpanKind::Server).unwrap();
    assert_eq!(server.name, "GET", "a path that no route matched is no name");
    assert_eq!(server.status, Status::Unset);
    let client = spans.iter().find(|s| s.span_kind == SpanKind::Client).unwrap();
    assert!(matches!(client.status, Status::Error { .. }));
    assert_eq!(attribute(client, "error.type").as_deref(), Some("404"));
}

#[tokio::test]
async fn a_plain_caller_with_only_a_correlation_header_is_followed() {
    let url = server().await;
    let mut headers = HeaderMap::new();
    headers.insert("x-correlation-id", "c-plain".parse().unwrap());
    headers.insert("traceparent", "garbage".parse().unwrap());
    let answer = exchange("POST", &format!("{url}/v1/batches/8/files"), &headers).await.unwrap();
    assert_eq!(answer.body, "c-plain");
}

#[tokio::test]
async fn a_refused_connection_is_an_error_of_the_client() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    drop(listener);
    let (cx, trace) = own_trace();
    assert!(send("GET", url, "/x").with_context(cx).await.is_err());
    let spans = spans_of(trace);
    let refused = one(&spans, "GET /x");
    assert_eq!(refused.status, Status::error("the request had no answer"));
    assert_eq!(attribute(refused, "error.type").as_deref(), Some("connection_refused"));
}

#[tokio::test]
async fn an_errors_text_with_its_url_does_not_leave_the_service() {
    let (cx, trace) = own_trace();
    let sent: Result<(), _> = ClientRequest::new("GET", "http://127.0.0.1:9/x?token=geheim")
        .send(
            |_| async {
                Err(std::io::Error::other("error sending http://127.0.0.1:9/x?token=geheim"))
            },
            |()| 200,
        )
        .with_context(cx)
        .await;
    assert!(sent.is_err());
    let spans = spans_of(trace);
    assert_eq!(attribute(one(&spans, "GET"), "error.type").as_deref(), Some("request"));
    assert!(!format!("{spans:?}").contains("geheim"), "{spans:#?}");
}

#[tokio::test]
async fn a_method_that_nobody_knows_is_no_label() {
    let url = server().await;
    let (cx, trace) = own_trace();
    send("BREW", format!("{url}/broken"), "/broken").with_context(cx).await.unwrap();
    let spans = spans_of(trace);
    for (kind, name) in [(SpanKind::Client, "HTTP /broken"), (SpanKind::Server, "HTTP /broken")] {
        let span = spans.iter().find(|s| s.span_kind == kind).unwrap();
        assert_eq!(span.name, name);
        assert_eq!(attribute(span, "http.request.method").as_deref(), Some("_OTHER"));
        assert_eq!(attribute(span, "http.request.method_original").as_deref(), Some("BREW"));
    }
}

#[tokio::test]
async fn an_address_in_brackets_is_an_address_and_an_authority_is_a_host() {
    use tower::{Layer as _, Service as _};
    let (cx, trace) = own_trace();
    let sent = ClientRequest::new("GET", "http://[::1]:9/x")
        .send(|_| async { Ok::<_, std::io::Error>(()) }, |()| 200);
    sent.with_context(cx.clone()).await.unwrap();
    let mut service = ServerLayer::new().layer(tower::service_fn(|_: http::Request<()>| async {
        Ok::<_, std::io::Error>(http::Response::new(()))
    }));
    // As HTTP/2 has it: the authority in the URI, and no header.
    let request = http::Request::builder()
        .version(http::Version::HTTP_2)
        .uri("https://[::1]:8443/y")
        .body(())
        .unwrap();
    async { service.call(request).await }.with_context(cx).await.unwrap();
    let spans = spans_of(trace);
    for (kind, port) in [(SpanKind::Client, "9"), (SpanKind::Server, "8443")] {
        let span = spans.iter().find(|s| s.span_kind == kind).unwrap();
        assert_eq!(attribute(span, "server.address").as_deref(), Some("::1"));
        assert_eq!(attribute(span, "server.port").as_deref(), Some(port));
    }
    let page = memory().telemetry.metrics_text().render();
    for metric in ["http_client_request_duration_seconds", "http_server_request_duration_seconds"] {
        assert!(page.contains(&format!("# UNIT {metric} seconds")), "{page}");
    }
}
