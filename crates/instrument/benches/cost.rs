//! What a span of the crate costs beside one of the bare OpenTelemetry SDK, in the same run, and what
//! a part costs that is switched off.
//!
//! `cargo bench -p lacuna-instrument --features http,breaker --bench cost` prints the median time of a
//! call over many rounds. The exporter throws everything away: this is the service's side only.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // a program of its own

use lacuna_instrument::Telemetry;
use lacuna_instrument::breaker::Breaker;
use lacuna_instrument::http::ClientRequest;
use lacuna_instrument::switch::{self, Level, Part};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::future::ready;
use std::hint::black_box;
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        black_box(batch);
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Nanoseconds of one call: the median of 31 rounds of 10,000.
async fn time<F: Future<Output = ()>>(mut call: impl FnMut() -> F) -> f64 {
    let mut rounds = vec![];
    for _ in 0..31 {
        let started = Instant::now();
        for _ in 0..10_000 {
            call().await;
        }
        rounds.push(started.elapsed().as_secs_f64() * 1e9 / 10_000.0);
    }
    rounds.sort_by(f64::total_cmp);
    rounds[15]
}

/// The breaker's span by hand: the same name, kind and attributes on the global tracer.
async fn by_hand() {
    let tracer = global::tracer("bare");
    let attributes = vec![
        KeyValue::new("circuit.name", "circuit_breaker.svc.part.op".to_owned()),
        KeyValue::new("circuit.state", "closed"),
        KeyValue::new("circuit.failure_count", 0),
        KeyValue::new("circuit.success_count", 0),
    ];
    let builder = SpanBuilder::from_name("circuit_breaker.svc.part.op".to_owned())
        .with_kind(SpanKind::Internal)
        .with_attributes(attributes);
    let cx = Context::current();
    let cx = cx.with_span(tracer.build_with_context(builder, &cx));
    opentelemetry::context::FutureExt::with_context(ready(()), cx.clone()).await;
    cx.span().set_attribute(KeyValue::new("circuit.call_result", "success"));
    cx.span().end();
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let telemetry = Telemetry::builder("cost")
        .without_otlp()
        .without_stdout()
        .span_exporter(Nowhere)
        .init()
        .unwrap();
    let wait = failsafe::backoff::constant(Duration::from_secs(1));
    let policy = failsafe::failure_policy::consecutive_failures(3, wait);
    let breaker = Breaker::new("svc", "part", "op", failsafe::Config::new().failure_policy(policy));
    let breaker = &breaker;
    let guarded = || async move { breaker.call(ready(Ok::<_, String>(()))).await.unwrap() };
    let request = || async {
        let request = ClientRequest::new("GET", "http://127.0.0.1/x").template("/x");
        black_box(
            request.send(|headers| ready(Ok::<_, String>(headers.len())), |_| 200).await.unwrap(),
        );
    };

    switch::set(Part::Breaker, Level::Spans);
    let (bare, ours) = (time(by_hand).await, time(guarded).await);
    println!("span by hand on the API      {bare:8.0} ns");
    println!("span of the crate            {ours:8.0} ns   {:.2} of it", ours / bare);
    switch::set(Part::Breaker, Level::On);
    println!("with its metrics             {:8.0} ns", time(guarded).await);
    switch::set(Part::Breaker, Level::Off);
    println!("switched off                 {:8.0} ns", time(guarded).await);
    println!("nothing but the future       {:8.0} ns", time(|| ready(())).await);
    println!("HTTP client span and headers {:8.0} ns", time(request).await);
    telemetry.shutdown().await.unwrap();
}
