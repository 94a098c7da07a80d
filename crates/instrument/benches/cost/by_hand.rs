//! The crate's spans written by hand: the same names, kinds, attributes and links, on the SDK alone.

use crate::server;
use failsafe::{FailurePolicy, Instrument, StateMachine};
use opentelemetry::context::FutureExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::propagation::{Extractor, Injector, TextMapCompositePropagator};
use opentelemetry::trace::{Link, SpanBuilder, SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use rdkafka::Message;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage, Timestamp};
use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, Value};
use std::hint::black_box;
use std::time::Duration;

/// A processor that drops every span.
#[derive(Debug)]
pub struct Dropping;

impl SpanProcessor for Dropping {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, span: SpanData) {
        black_box(span);
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A Redis connection that answers at once.
#[derive(Clone)]
pub struct Instant;

impl ConnectionLike for Instant {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        black_box(cmd);
        Box::pin(async { Ok(Value::Okay) })
    }
    fn req_packed_commands<'a>(
        &'a mut self,
        _: &'a Pipeline,
        _: usize,
        _: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn get_db(&self) -> i64 {
        0
    }
}

/// A message as a producer of this crate's writes it.
pub fn message() -> OwnedMessage {
    let text = |key, value| Header { key, value: Some(value) };
    let headers = OwnedHeaders::new()
        .insert(text("event_type", "huleedu.file.essay.content.provisioned.v1"))
        .insert(text("event_id", "2b7d5e4a-56ca-4fe8-83ad-1d7381b8e8db"))
        .insert(text("correlation_id", "7b13b452-b676-48d5-b270-ba4920053cfe"))
        .insert(text("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        .insert(text("tracestate", ""))
        .insert(text("baggage", "correlation_id=7b13b452-b676-48d5-b270-ba4920053cfe"));
    OwnedMessage::new(
        Some(vec![b'{'; 300]),
        Some(b"essay-1".to_vec()),
        "essays".to_owned(),
        Timestamp::NotAvailable,
        0,
        31,
        Some(headers),
    )
}

/// The breaker's state machine around an operation, with nobody watching.
pub async fn unwatched<P: FailurePolicy, I: Instrument>(
    machine: &StateMachine<P, I>,
    operation: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    assert!(machine.is_call_permitted());
    let result = operation.await;
    machine.on_success();
    result
}

/// A tracer of the SDK alone, and propagators as `init` sets them.
pub struct Bare {
    tracer: SdkTracer,
    propagator: TextMapCompositePropagator,
}

impl Bare {
    pub fn new() -> Self {
        let provider = SdkTracerProvider::builder().with_span_processor(Dropping).build();
        let propagator = TextMapCompositePropagator::new(vec![
            Box::new(TraceContextPropagator::new()),
            Box::new(BaggagePropagator::new()),
        ]);
        Self { tracer: provider.tracer("bare"), propagator }
    }

    fn start(&self, builder: SpanBuilder, parent: &Context) -> Context {
        parent.with_span(self.tracer.build_with_context(builder, parent))
    }

    pub async fn redis_command(&self, cmd: &Cmd) {
        let mut attributes = server();
        attributes.push(KeyValue::new("db.operation.name", "GET"));
        attributes.push(KeyValue::new("correlation_id", correlation()));
        let builder =
            SpanBuilder::from_name("GET").with_kind(SpanKind::Client).with_attributes(attributes);
        let cx = self.start(builder, &Context::current());
        Instant.req_packed_command(cmd).await.map(drop).unwrap();
        cx.span().end();
    }

    pub async fn kafka_consume(&self, message: &OwnedMessage) {
        let headers = message.headers().unwrap();
        let remote = self.propagator.extract_with_context(&Context::new(), &Read(headers));
        let producer = remote.span().span_context().clone();
        let text = |name: &str| {
            let header = headers.iter().find(|h| h.key == name).and_then(|h| h.value);
            String::from_utf8_lossy(header.unwrap_or_default()).into_owned()
        };
        let (event_type, event_id) = (text("event_type"), text("event_id"));
        let partition = message.partition();
        let attributes = vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.destination.name", message.topic().to_owned()),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.consumer.group.name", "essay-lifecycle".to_owned()),
            KeyValue::new("messaging.destination.partition.id", partition.to_string()),
            KeyValue::new("messaging.kafka.offset", message.offset()),
            KeyValue::new("kafka.partition", i64::from(partition)),
            KeyValue::new("kafka.offset", message.offset()),
            KeyValue::new("event_type", event_type.clone()),
            KeyValue::new("messaging.client.id", "worker-0".to_owned()),
            KeyValue::new("event_id", event_id.clone()),
            KeyValue::new("messaging.message.id", event_id),
            KeyValue::new(
                "messaging.kafka.message.key",
                String::from_utf8_lossy(message.key().unwrap()).into_owned(),
            ),
            KeyValue::new(
                "messaging.message.body.size",
                message.payload().map_or(0, <[u8]>::len) as i64,
            ),
            KeyValue::new("correlation_id", text("correlation_id")),
        ];
        let builder = SpanBuilder::from_name(format!("kafka.consume.{event_type}"))
            .with_kind(SpanKind::Consumer)
            .with_attributes(attributes)
            .with_links(vec![Link::new(producer, vec![], 0)]);
        let cx = self.start(builder, &remote);
        crate::done().with_context(cx.clone()).await.unwrap();
        cx.span().end();
    }

    pub async fn kafka_serialize(&self, encode: impl Fn() -> Result<Vec<u8>, String>) {
        let attributes = vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.destination.name", "essays".to_owned()),
            KeyValue::new("messaging.operation.name", "serialize"),
            KeyValue::new("messaging.operation.type", "create"),
            KeyValue::new("event_type", "essay.v1".to_owned()),
            KeyValue::new("correlation_id", correlation()),
        ];
        let builder = SpanBuilder::from_name("kafka.serialize").with_attributes(attributes);
        let cx = self.start(builder, &Context::current());
        let bytes = encode().unwrap();
        cx.span().set_attribute(KeyValue::new("messaging.message.body.size", bytes.len() as i64));
        cx.span().end();
    }

    pub async fn http_server(&self, request: http::Request<()>) {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let headers = [("traceparent".to_owned(), header("traceparent"))];
        let carrier: std::collections::HashMap<_, _> = headers.into();
        let parent = self.propagator.extract_with_context(&Context::current(), &carrier);
        let attributes = vec![
            KeyValue::new("http.request.method", "GET"),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("url.path", request.uri().path().to_owned()),
            KeyValue::new("network.protocol.version", "1.1"),
            KeyValue::new("server.address", "svc"),
            KeyValue::new("server.port", 6001),
            KeyValue::new("correlation_id", correlation()),
        ];
        let builder =
            SpanBuilder::from_name("GET").with_kind(SpanKind::Server).with_attributes(attributes);
        let cx = self.start(builder, &parent);
        let answered = crate::answer(request).with_context(cx.clone()).await.unwrap();
        let status = i64::from(answered.status().as_u16());
        cx.span().set_attribute(KeyValue::new("http.response.status_code", status));
        cx.span().end();
    }

    /// The outcome on a span alone: what an event log adds has no counterpart by hand.
    pub async fn outcome(&self) {
        let attributes =
            vec![KeyValue::new("outcome.slot_assigned", "reached"), KeyValue::new("batch_id", "7")];
        let builder = SpanBuilder::from_name("outcome").with_attributes(attributes);
        self.start(builder, &Context::current()).span().end();
    }

    pub async fn http_client(&self, url: &'static str) {
        let uri: http::Uri = url.parse().unwrap();
        let attributes = vec![
            KeyValue::new("http.request.method", "GET"),
            KeyValue::new("server.address", uri.host().unwrap().to_owned()),
            KeyValue::new("server.port", i64::from(uri.port_u16().unwrap())),
            KeyValue::new("url.full", url.to_owned()),
            KeyValue::new("url.template", "/v1/batches/{id}".to_owned()),
            KeyValue::new("correlation_id", correlation()),
        ];
        let builder = SpanBuilder::from_name("GET /v1/batches/{id}".to_owned())
            .with_kind(SpanKind::Client)
            .with_attributes(attributes);
        let cx = self.start(builder, &Context::current());
        let mut headers = http::HeaderMap::new();
        self.propagator.inject_context(&cx, &mut Write(&mut headers));
        headers.insert("x-correlation-id", correlation().try_into().unwrap());
        let sent = std::future::ready(Ok::<_, String>(headers.len()));
        black_box(sent.with_context(cx.clone()).await.unwrap());
        cx.span().set_attribute(KeyValue::new("http.response.status_code", 200));
        cx.span().end();
    }

    pub async fn guarded<P: FailurePolicy, I: Instrument>(&self, machine: &StateMachine<P, I>) {
        let attributes = vec![
            KeyValue::new("circuit.name", "circuit_breaker.svc.part.op".to_owned()),
            KeyValue::new("circuit.state", "closed"),
            KeyValue::new("circuit.failure_count", 0),
            KeyValue::new("circuit.success_count", 0),
            KeyValue::new("correlation_id", correlation()),
        ];
        let builder = SpanBuilder::from_name("circuit_breaker.svc.part.op".to_owned())
            .with_attributes(attributes);
        let cx = self.start(builder, &Context::current());
        unwatched(machine, crate::done()).with_context(cx.clone()).await.unwrap();
        cx.span().set_attribute(KeyValue::new("circuit.call_result", "success"));
        cx.span().end();
    }
}

/// The request's correlation id, as whoever writes spans by hand would take it from its context.
fn correlation() -> String {
    lacuna_instrument::correlation::current().unwrap_or_default()
}

struct Read<'h>(&'h OwnedHeaders);

impl Extractor for Read<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let header = self.0.iter().find(|header| header.key == key)?;
        std::str::from_utf8(header.value?).ok()
    }
    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|header| header.key).collect()
    }
}

struct Write<'h>(&'h mut http::HeaderMap);

impl Injector for Write<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name: http::HeaderName = key.parse().unwrap();
        self.0.insert(name, value.parse().unwrap());
    }
}
