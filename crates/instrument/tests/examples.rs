//! The examples do what they say, against the real services.
#![cfg(all(
    feature = "redis",
    feature = "kafka",
    feature = "postgres",
    feature = "http",
    feature = "breaker"
))]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

#[path = "../examples/breaker.rs"]
mod breaker;
#[path = "../examples/http.rs"]
mod http;
#[path = "../examples/kafka.rs"]
mod kafka;
#[path = "../examples/outcome.rs"]
mod outcome;
#[path = "../examples/postgres.rs"]
mod postgres;
#[path = "../examples/redis.rs"]
mod redis;

use common::{memory, named, one, own_trace, spans_of};
use opentelemetry::context::FutureExt;
use opentelemetry_sdk::trace::SpanData;
use std::error::Error;

async fn spans_left_by(example: impl Future<Output = Result<(), Box<dyn Error>>>) -> Vec<SpanData> {
    let (cx, trace) = own_trace();
    example.with_context(cx).await.unwrap();
    spans_of(trace)
}

#[tokio::test]
async fn redis() {
    let spans = spans_left_by(redis::run()).await;
    one(&spans, "redis.transaction.assign_slot");
    one(&spans, "redis.hset.assignments");
}

#[tokio::test]
async fn kafka() {
    let spans = spans_left_by(kafka::run()).await;
    one(&spans, "kafka.produce.essay.provisioned.v1");
}

#[tokio::test]
async fn postgres() {
    let spans = spans_left_by(postgres::run()).await;
    one(&spans, "db.transaction");
    assert_eq!(named(&spans, "db.query").len(), 5);
}

#[tokio::test]
async fn http() {
    let spans = spans_left_by(http::run()).await;
    assert_eq!(named(&spans, "GET /v1/batches/{id}").len(), 2);
}

#[tokio::test]
async fn breaker() {
    let spans = spans_left_by(breaker::run()).await;
    assert_eq!(named(&spans, "circuit_breaker.example.kafka_producer.publish").len(), 3);
}

#[tokio::test]
async fn outcome() {
    spans_left_by(outcome::run()).await;
    let page = memory().telemetry.metrics_text().render();
    assert!(
        page.contains(
            r#"outcome_count_total{outcome_name="slot_assigned",outcome_result="reached"}"#
        ),
        "{page}"
    );
}
