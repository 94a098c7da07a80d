//! What the crate costs: a span of each part beside the same span by hand on the bare OpenTelemetry
//! SDK, a part that is off beside none, and round trips to real servers with all on beside all off.
//!
//! `cargo bench -p lacuna-instrument --all-features --bench cost`. Spans end in a processor that drops
//! them: this is the service's own side, not the exporter's thread. The bare side has a provider of
//! its own, without the crate's processors. What is compared runs in turn, round by round.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // a program of its own

mod by_hand;
mod measure;
mod round_trips;

use by_hand::{Bare, Instant};
use lacuna_instrument::breaker::Breaker;
use lacuna_instrument::http::{ClientRequest, ServerLayer};
use lacuna_instrument::kafka::{Consumer, serialize};
use lacuna_instrument::outcome::outcome;
use lacuna_instrument::redis::Traced;
use lacuna_instrument::switch::{self, Level};
use lacuna_instrument::{Telemetry, correlation};
use measure::compare;
use opentelemetry::context::FutureExt;
use opentelemetry::{Context, KeyValue};
use redis::aio::ConnectionLike;
use std::alloc::System;
use std::future::ready;
use std::time::Duration;
use tower::{Layer as _, Service as _};

#[global_allocator]
static GLOBAL: &stats_alloc::StatsAlloc<System> = &stats_alloc::INSTRUMENTED_SYSTEM;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let telemetry = Telemetry::builder("cost")
        .without_otlp()
        .without_stdout()
        .span_processor(by_hand::Dropping)
        .init()
        .unwrap();
    // As in a service: every span runs under a request with a correlation id.
    let cx = correlation::with(&Context::new(), "7b13b452-b676-48d5-b270-ba4920053cfe");
    let work = async {
        spans().await;
        match std::env::var("REDIS_URL") {
            Ok(url) => round_trips::redis(&url).await,
            Err(_) => println!("\nREDIS_URL is not set: the Redis transaction was not measured"),
        }
        match std::env::var("DATABASE_URL") {
            Ok(url) => round_trips::postgres(&url).await,
            Err(_) => println!("\nDATABASE_URL is not set: the query was not measured"),
        }
        match std::env::var("KAFKA_BROKERS") {
            Ok(brokers) => round_trips::kafka(&brokers).await,
            Err(_) => println!("\nKAFKA_BROKERS is not set: the record was not measured"),
        }
    };
    work.with_context(cx).await;
    telemetry.shutdown().await.unwrap();
}

async fn spans() {
    let bare = &Bare::new();
    println!("one span, ns (allocations), lower quartiles; `spans` without and `on` with metrics");
    measure::heading();

    let client = redis::Client::open("redis://127.0.0.1:6379").unwrap();
    let traced = &Traced::new(Instant, client.get_connection_info());
    let get = &redis::cmd("GET").arg("key").clone();
    compare(
        "redis command",
        || bare.redis_command(get),
        || async move { traced.clone().req_packed_command(get).await.map(drop).unwrap() },
        || async move { Instant.req_packed_command(get).await.map(drop).unwrap() },
    )
    .await;

    let message = &by_hand::message();
    let consumer = &Consumer::new("essay-lifecycle").client_id("worker-0");
    compare(
        "kafka consume",
        || bare.kafka_consume(message),
        || async move { consumer.start(message).begin().run(done()).await.unwrap() },
        || async { done().await.unwrap() },
    )
    .await;

    let encode = || Ok::<_, String>(vec![0_u8; 16]);
    compare(
        "kafka serialize",
        || bare.kafka_serialize(encode),
        || async move { drop(serialize("essays", "essay.v1", encode)) },
        || async move { drop(encode()) },
    )
    .await;

    const URL: &str = "http://127.0.0.1:6001/v1/batches/7";
    compare(
        "http client",
        || bare.http_client(URL),
        || async {
            let request = ClientRequest::new("GET", URL).template("/v1/batches/{id}");
            let status =
                request.send(|headers| ready(Ok::<_, std::io::Error>(headers.len())), |_| 200);
            std::hint::black_box(status.await.unwrap());
        },
        || async { done().await.unwrap() },
    )
    .await;

    let service = &ServerLayer::new().layer(tower::service_fn(answer));
    let plain = &tower::service_fn(answer);
    compare(
        "http server",
        || bare.http_server(request()),
        || async { drop(service.clone().call(request()).await) },
        || async { drop(plain.clone().call(request()).await) },
    )
    .await;

    compare(
        "outcome",
        || bare.outcome(),
        || async { outcome("slot_assigned").key("batch_id", "7").reached() },
        || async {},
    )
    .await;

    let policy = || {
        let wait = failsafe::backoff::constant(Duration::from_secs(1));
        failsafe::Config::new()
            .failure_policy(failsafe::failure_policy::consecutive_failures(3, wait))
    };
    let breaker = &Breaker::new("svc", "part", "op", policy());
    let machine = &policy().build();
    compare(
        "circuit breaker",
        || bare.guarded(machine),
        || async move { breaker.call(done()).await.unwrap() },
        || async move { by_hand::unwatched(machine, done()).await.unwrap() },
    )
    .await;
    all(Level::On);
}

/// Every part at one level.
fn all(level: Level) {
    switch::Part::ALL.into_iter().for_each(|part| switch::set(part, level));
}

/// A request as it comes from a caller with a trace.
fn request() -> http::Request<()> {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = http::Request::builder().uri("/v1/batches/7").header("host", "svc:6001");
    request.header("traceparent", parent).body(()).unwrap()
}

async fn answer(_: http::Request<()>) -> Result<http::Response<()>, std::io::Error> {
    Ok(http::Response::new(()))
}

async fn done() -> Result<(), String> {
    Ok(())
}

/// What both sides put on a span of Redis.
fn server() -> Vec<KeyValue> {
    vec![
        KeyValue::new("db.system.name", "redis"),
        KeyValue::new("db.namespace", "0".to_owned()),
        KeyValue::new("server.address", "127.0.0.1".to_owned()),
        KeyValue::new("server.port", 6379),
    ]
}
