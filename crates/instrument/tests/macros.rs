//! The attributes on hand-written code.
#![cfg(all(feature = "redis", feature = "kafka"))]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::{attribute, is_child_of, named, one, own_trace, spans_of};
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

struct Event {
    event_type: &'static str,
}

#[trace_kafka_operation(event_type = event.event_type, fields(correlation_id))]
async fn handle(event: Event, correlation_id: u32) -> Result<(), String> {
    if correlation_id == 0 { Err("no id".to_owned()) } else { Ok(()) }
}

#[trace_kafka_operation(operation = "produce", event_type = "b.v1")]
async fn publish() {}

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
}
