//! The attributes on hand-written code.
#![cfg(all(feature = "redis", feature = "kafka"))]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::{attribute, is_child_of, memory, named, one, own_trace, spans_of};
use lacuna_instrument::kafka::trace_kafka_operation;
use lacuna_instrument::redis::{TransactionOutcome, trace_redis_transaction};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status};

#[trace_redis_transaction(operation = "assign_slot_atomic", fields(batch_id, essays = essays.len()))]
async fn assign(batch_id: &str, essays: &[u8], answer: Option<u8>) -> Result<Option<u8>, String> {
    tokio::task::yield_now().await;
    tracing::info_span!("inside").in_scope(|| ());
    if essays.is_empty() {
        return Err("nothing to assign".to_owned());
    }
    let checked: u8 = "7".parse::<u8>().map_err(|e| e.to_string())?;
    Ok(answer.map(|a| a.min(checked)))
}

#[trace_redis_transaction]
async fn named_after_itself() -> TransactionOutcome<()> {
    TransactionOutcome::NoValue { reason: "no_slot".into(), attempts: 1 }
}

#[trace_redis_transaction(operation = "lost", fields(tries = 3_u32, sure = false))]
async fn lost() -> Result<(), redis::RedisError> {
    Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into())
}

#[trace_redis_transaction(operation = "applied")]
async fn applied() -> Result<(), String> {
    Ok(())
}

#[trace_kafka_operation(event_type = "hangs.v1")]
async fn hangs() {
    std::future::pending().await
}

#[trace_kafka_operation(event_type = "panics.v1")]
async fn panics() {
    panic!("on purpose")
}

struct Event {
    event_type: &'static str,
}

#[trace_kafka_operation(event_type = event.event_type, fields(correlation_id))]
async fn handle(event: Event, correlation_id: u32) -> Result<(), String> {
    if correlation_id == 0 { Err("no id".to_owned()) } else { Ok(()) }
}

#[trace_kafka_operation(operation = "produce", event_type = "b.v1", fields(correlation_id = "c-b"))]
async fn publish() {
    tracing::info_span!("inside publish").in_scope(|| tracing::info!("published by hand"));
}

#[tokio::test]
async fn a_hand_written_transactions_nil_is_a_discarded_one() {
    let (cx, trace) = own_trace();
    async {
        assert_eq!(assign("7", b"e", Some(9)).await, Ok(Some(7)));
        assert_eq!(assign("7", b"e", None).await, Ok(None));
        assert!(assign("7", b"", None).await.is_err());
        let _ = named_after_itself().await;
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let runs = named(&spans, "redis.transaction.assign_slot_atomic");
    let results: Vec<_> =
        runs.iter().map(|s| attribute(s, "transaction.result").unwrap()).collect();
    assert_eq!(results, ["success", "aborted", "failed"]);
    assert_eq!(attribute(runs[0], "batch_id").as_deref(), Some("7"));
    assert_eq!(attribute(runs[0], "essays").as_deref(), Some("1"));
    assert_eq!(attribute(runs[0], "transaction.type").as_deref(), Some("watch_multi_exec"));
    assert_eq!(runs[1].status, Status::error("Transaction discarded"));
    let failed = named(&spans, "redis.transaction.failed");
    assert!(is_child_of(failed[0], runs[1]));
    assert_eq!(attribute(failed[0], "failure.reason").as_deref(), Some("concurrent_modification"));
    assert!(is_child_of(named(&spans, "inside")[0], runs[0]));
    let own = one(&spans, "redis.transaction.named_after_itself");
    assert_eq!(attribute(own, "transaction.result").as_deref(), Some("no_value"));
}

#[tokio::test]
async fn a_hand_written_transactions_error_keeps_its_reason_and_fields_their_kind() {
    let (cx, trace) = own_trace();
    async {
        lost().await.unwrap_err();
        applied().await.unwrap();
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let lost = one(&spans, "redis.transaction.lost");
    assert_eq!(attribute(lost, "failure.reason").as_deref(), Some("connection_lost"));
    let field = |key: &str| lost.attributes.iter().find(|kv| kv.key.as_str() == key).unwrap();
    assert_eq!(field("tries").value, opentelemetry::Value::I64(3));
    assert_eq!(field("sure").value, opentelemetry::Value::Bool(false));
    let applied = one(&spans, "redis.transaction.applied");
    assert_eq!(attribute(applied, "transaction.result").as_deref(), Some("success"));
}

#[tokio::test]
async fn a_hand_written_handler_that_is_dropped_or_panics_is_an_error() {
    let (cx, trace) = own_trace();
    let hung = tokio::time::timeout(std::time::Duration::from_millis(10), hangs());
    assert!(hung.with_context(cx.clone()).await.is_err());
    assert!(tokio::spawn(panics().with_context(cx)).await.is_err());
    let spans = spans_of(trace);
    for (name, why) in
        [("kafka.consume.hangs.v1", "cancelled"), ("kafka.consume.panics.v1", "panic")]
    {
        let span = one(&spans, name);
        assert_eq!(attribute(span, "error.type").as_deref(), Some(why));
        assert!(matches!(span.status, Status::Error { .. }));
    }
}

#[tokio::test]
async fn a_hand_written_handler_is_a_consume_span() {
    let (cx, trace) = own_trace();
    async {
        handle(Event { event_type: "a.v1" }, 1).await.unwrap();
        handle(Event { event_type: "a.v1" }, 0).await.unwrap_err();
        publish().await;
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let consumed = named(&spans, "kafka.consume.a.v1");
    assert_eq!(consumed[0].span_kind, SpanKind::Consumer);
    assert_eq!(consumed[0].status, Status::Unset);
    assert_eq!(consumed[1].status, Status::error("no id"));
    assert_eq!(attribute(consumed[0], "correlation_id").as_deref(), Some("1"));
    assert_eq!(one(&spans, "kafka.produce.b.v1").span_kind, SpanKind::Producer);
    // A correlation id among the fields is the body's as well.
    let inside = one(&spans, "inside publish");
    assert_eq!(attribute(inside, "correlation_id").as_deref(), Some("c-b"));
    let lines = memory().lines.json();
    let line = lines.iter().find(|l| l["message"] == "published by hand").unwrap();
    assert_eq!(line["correlation_id"], "c-b");
}
