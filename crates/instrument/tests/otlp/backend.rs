//! Backends that keep what they are sent.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1 as logs;
use opentelemetry_proto::tonic::collector::metrics::v1 as metrics;
use opentelemetry_proto::tonic::collector::trace::v1 as trace;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use std::sync::{Arc, Mutex};

#[derive(Default, Clone)]
pub struct Received(pub Arc<Mutex<Inbox>>);

#[derive(Default)]
pub struct Inbox {
    pub traces: Vec<trace::ExportTraceServiceRequest>,
    pub logs: Vec<logs::ExportLogsServiceRequest>,
    pub metrics: Vec<metrics::ExportMetricsServiceRequest>,
    pub content_types: Vec<String>,
}

impl Received {
    pub fn span_names(&self) -> Vec<String> {
        let inbox = self.0.lock().unwrap();
        let spans =
            inbox.traces.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        spans.flat_map(|s| &s.spans).map(|s| s.name.clone()).collect()
    }

    /// Everything that the child sends, each signal once and joined to the others.
    pub fn assert_complete(&self) {
        assert!(self.span_names().contains(&"work".to_owned()), "{:?}", self.span_names());
        let inbox = self.0.lock().unwrap();
        let resource = inbox.traces[0].resource_spans[0].resource.as_ref().unwrap();
        let attribute = |name: &str| {
            let found = resource.attributes.iter().find(|kv| kv.key == name)?;
            match found.value.as_ref()?.value.as_ref()? {
                Value::StringValue(s) => Some(s.clone()),
                other => Some(format!("{other:?}")),
            }
        };
        assert_eq!(attribute("service.name").as_deref(), Some("child_service"));
        assert_eq!(attribute("deployment.environment.name").as_deref(), Some("test"));
        assert!(attribute("service.instance.id").is_some());

        let span = inbox.traces.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        let span = span.flat_map(|s| &s.spans).find(|s| s.name == "work").unwrap().clone();
        let records = inbox.logs.iter().flat_map(|r| &r.resource_logs).flat_map(|r| &r.scope_logs);
        let mut records = records.flat_map(|s| &s.log_records);
        let record = records
            .find(|r| {
                let body = r.body.as_ref().and_then(|b| b.value.as_ref());
                matches!(body, Some(Value::StringValue(s)) if s == "from the child")
            })
            .expect("the log line came");
        assert_eq!(record.trace_id, span.trace_id);
        assert_eq!(record.span_id, span.span_id);

        let points =
            inbox.metrics.iter().flat_map(|r| &r.resource_metrics).flat_map(|r| &r.scope_metrics);
        let names: Vec<_> = points.flat_map(|s| &s.metrics).map(|m| m.name.as_str()).collect();
        assert!(names.contains(&"child_counter_total"), "{names:?}");
    }
}

pub async fn http_backend(status: StatusCode) -> (String, Received) {
    let received = Received::default();
    let app = http_routes(status, &received);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, received)
}

/// OTLP over HTTP, each request answered by `status`.
pub fn http_routes(status: StatusCode, received: &Received) -> Router {
    async fn take<M: Message + Default>(
        headers: HeaderMap,
        body: Bytes,
        received: Received,
        add: impl FnOnce(&mut Inbox, M),
    ) {
        let mut inbox = received.0.lock().unwrap();
        let content_type =
            headers.get("content-type").map_or("", |v| v.to_str().unwrap()).to_owned();
        if content_type == "application/x-protobuf" {
            add(&mut inbox, M::decode(body).unwrap());
        }
        inbox.content_types.push(content_type);
    }
    Router::new()
        .route(
            "/v1/traces",
            post(move |State(r): State<Received>, h: HeaderMap, b: Bytes| async move {
                take(h, b, r, |i, m| i.traces.push(m)).await;
                status
            }),
        )
        .route(
            "/v1/logs",
            post(move |State(r): State<Received>, h: HeaderMap, b: Bytes| async move {
                take(h, b, r, |i, m| i.logs.push(m)).await;
                status
            }),
        )
        .route(
            "/v1/metrics",
            post(move |State(r): State<Received>, h: HeaderMap, b: Bytes| async move {
                take(h, b, r, |i, m| i.metrics.push(m)).await;
                status
            }),
        )
        .with_state(received.clone())
}

macro_rules! grpc_service {
    ($service:path, $request:ty, $response:ty, $field:ident) => {
        #[tonic::async_trait]
        impl $service for Received {
            async fn export(
                &self,
                request: tonic::Request<$request>,
            ) -> Result<tonic::Response<$response>, tonic::Status> {
                self.0.lock().unwrap().$field.push(request.into_inner());
                Ok(tonic::Response::new(Default::default()))
            }
        }
    };
}
grpc_service!(
    trace::trace_service_server::TraceService,
    trace::ExportTraceServiceRequest,
    trace::ExportTraceServiceResponse,
    traces
);
grpc_service!(
    logs::logs_service_server::LogsService,
    logs::ExportLogsServiceRequest,
    logs::ExportLogsServiceResponse,
    logs
);
grpc_service!(
    metrics::metrics_service_server::MetricsService,
    metrics::ExportMetricsServiceRequest,
    metrics::ExportMetricsServiceResponse,
    metrics
);

/// `host:port` of a backend's URL.
pub fn bare(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

pub async fn grpc_backend() -> (String, Received) {
    let received = Received::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = grpc_services(tonic::transport::Server::builder(), &received)
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    tokio::spawn(async move { server.await.unwrap() });
    (url, received)
}

/// OTLP over gRPC.
pub fn grpc_services(
    mut server: tonic::transport::Server,
    received: &Received,
) -> tonic::transport::server::Router {
    server
        .add_service(trace::trace_service_server::TraceServiceServer::new(received.clone()))
        .add_service(logs::logs_service_server::LogsServiceServer::new(received.clone()))
        .add_service(metrics::metrics_service_server::MetricsServiceServer::new(received.clone()))
}
