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

#[derive(Debug, thiserror::Error)]
enum ServiceError {
    #[error("the slots are not there")]
    Slots(#[from] redis::RedisError),
    #[error(transparent)]
    Transparent(redis::RedisError),
    #[error("no connection")]
    Pool(#[from] lacuna_instrument::redis::PoolError),
    #[error("not my batch")]
    Batch,
}

fn broken(kind: std::io::ErrorKind) -> redis::RedisError {
    std::io::Error::from(kind).into()
}

#[trace_redis_transaction(operation = "wrapped")]
async fn wrapped(error: ServiceError) -> Result<Option<String>, ServiceError> {
    Err(error)
}

#[trace_redis_transaction(operation = "wrapped")]
async fn boxed() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Err(ServiceError::from(broken(std::io::ErrorKind::ConnectionReset)).into())
}

#[trace_redis_transaction(operation = "wrapped")]
async fn late() -> Result<(), tokio::time::error::Elapsed> {
    tokio::time::timeout(std::time::Duration::ZERO, std::future::pending()).await
}

#[trace_redis_transaction(operation = "wrapped")]
async fn in_part(
    connection: &mut lacuna_instrument::redis::ExclusiveConnection,
    key: &str,
) -> redis::RedisResult<(i64, i64)> {
    redis::pipe().atomic().set(key, 1).ignore().hlen(key).incr(key, 1).query_async(connection).await
}

struct Wordless;

#[trace_redis_transaction(operation = "wrapped")]
async fn wordless() -> Result<u8, Wordless> {
    Err(Wordless)
}

#[trace_redis_transaction(operation = "plain")]
async fn a_string() -> redis::RedisResult<String> {
    Ok(String::new())
}

#[trace_redis_transaction(operation = "plain")]
async fn a_bool() -> redis::RedisResult<bool> {
    Ok(false)
}

#[trace_redis_transaction(operation = "plain")]
async fn values() -> redis::RedisResult<Vec<redis::Value>> {
    Ok(vec![])
}

#[trace_redis_transaction(operation = "plain")]
async fn any<T: Default + Send>() -> redis::RedisResult<T> {
    Ok(T::default())
}

#[trace_redis_transaction(operation = "plain")]
async fn no_result() -> u32 {
    7
}

#[trace_kafka_operation(event_type = "counted.v1")]
async fn counted() -> usize {
    3
}

#[trace_kafka_operation(event_type = "counted.v1")]
async fn kafka_wordless() -> Result<usize, Wordless> {
    Err(Wordless)
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

#[tokio::test]
async fn a_redis_error_inside_a_services_own_keeps_its_reason() {
    use std::io::ErrorKind::{BrokenPipe, TimedOut};
    let client = redis::Client::open(common::url("REDIS_URL")).unwrap();
    let mut connection =
        lacuna_instrument::redis::ExclusiveConnection::connect(&client).await.unwrap();
    let key = common::unique("in-part");
    let (cx, trace) = own_trace();
    async {
        wrapped(broken(BrokenPipe).into()).await.unwrap_err();
        wrapped(broken(TimedOut).into()).await.unwrap_err();
        wrapped(ServiceError::Transparent(broken(BrokenPipe))).await.unwrap_err();
        let waited = std::time::Duration::from_secs(1);
        let exhausted = lacuna_instrument::redis::PoolError::Exhausted { size: 1, waited };
        wrapped(exhausted.into()).await.unwrap_err();
        boxed().await.unwrap_err();
        late().await.unwrap_err();
        in_part(&mut connection, &key).await.unwrap_err();
        wrapped(ServiceError::Batch).await.unwrap_err();
        assert!(wordless().await.is_err());
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let reasons: Vec<_> = named(&spans, "redis.transaction.wrapped")
        .iter()
        .map(|s| attribute(s, "failure.reason").unwrap())
        .collect();
    let expected = [
        "connection_lost",
        "timeout",
        "connection_lost",
        "pool_exhausted",
        "connection_lost",
        "timeout",
        "partly_applied",
        "abandoned",
        "abandoned",
    ];
    assert_eq!(reasons, expected);
}

#[tokio::test]
async fn whatever_a_hand_written_function_returns_is_read() {
    let (cx, trace) = own_trace();
    async {
        a_string().await.unwrap();
        a_bool().await.unwrap();
        values().await.unwrap();
        any::<u8>().await.unwrap();
        assert_eq!(no_result().await, 7);
        assert_eq!(counted().await, 3);
        assert!(kafka_wordless().await.is_err());
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let runs = named(&spans, "redis.transaction.plain");
    assert_eq!(runs.len(), 5);
    for run in runs {
        assert_eq!(attribute(run, "transaction.result").as_deref(), Some("success"));
        assert_eq!(run.status, Status::Unset);
    }
    let handled = named(&spans, "kafka.consume.counted.v1");
    assert_eq!(handled[0].status, Status::Unset);
    assert!(matches!(handled[1].status, Status::Error { .. }));
}
