//! A router over the fixtures, and ways to ask it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use lacuna_server::jaeger::{JaegerApi, TraceSource};
use lacuna_signal::otlp::decode;
use lacuna_signal::{Batch, SignalKind};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;
use tower::ServiceExt;

use crate::source::MemorySource;

pub const SPANS: &str = include_str!("fixtures/spans.otlp.json");
pub const LOGS: &str = include_str!("fixtures/logs.otlp.json");

/// The time at which every request is made: a minute after the fixture's incident.
pub const NOW: i64 = 1_700_000_060_000_000_000;

pub fn batch(kind: SignalKind, protobuf: Vec<u8>) -> Batch {
    let decoded = decode(kind, Bytes::from(protobuf)).unwrap();
    assert!(decoded.rejected.is_empty(), "{:?}", decoded.rejected);
    decoded.batch
}

pub fn spans(json: &str) -> Batch {
    batch(SignalKind::Spans, spans_request(json))
}

pub fn logs(json: &str) -> Batch {
    batch(SignalKind::Logs, logs_request(json))
}

/// An export request in protobuf of the same in JSON.
pub fn spans_request(json: &str) -> Vec<u8> {
    let request: ExportTraceServiceRequest = serde_json::from_str(json).unwrap();
    request.encode_to_vec()
}

pub fn logs_request(json: &str) -> Vec<u8> {
    let request: ExportLogsServiceRequest = serde_json::from_str(json).unwrap();
    request.encode_to_vec()
}

pub struct Answer {
    pub status: StatusCode,
    pub content_type: String,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// v1's `data` of a good answer.
    pub fn data(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.json()["data"].clone()
    }

    /// Ids of the traces of a good v1 answer.
    pub fn trace_ids(&self) -> Vec<String> {
        let data = self.data();
        let traces = data.as_array().unwrap().iter();
        traces.map(|trace| trace["traceID"].as_str().unwrap().to_owned()).collect()
    }
}

pub struct Server(Router);

impl Server {
    /// Over the fixtures.
    pub fn new() -> Self {
        Self::over(MemorySource::fixtures())
    }

    pub fn over(source: impl TraceSource) -> Self {
        Self(JaegerApi::new(Arc::new(source)).with_clock(|| NOW).router())
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, Body::empty()).await
    }

    pub async fn post(&self, uri: &str, body: impl Into<Body>) -> Answer {
        self.send(Method::POST, uri, body.into()).await
    }

    async fn send(&self, method: Method, uri: &str, body: Body) -> Answer {
        let request = Request::builder().method(method).uri(uri).body(body).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.map_or("", |value| value.to_str().unwrap()).to_owned();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, content_type, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }
}
