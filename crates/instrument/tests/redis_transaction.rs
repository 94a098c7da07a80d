//! The transaction against a real server: every outcome, and the spans that it leaves.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::{attribute, is_child_of, named, one, own_trace, spans_of, unique, url};
use lacuna_instrument::redis::{
    ConnectionPool, ExclusiveConnection, Transaction, TransactionError, TransactionOutcome,
};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status};
use redis::{AsyncCommands, RedisResult, Value, cmd};
use std::time::Duration;

struct Batch {
    slots: String,
    assignments: String,
}

async fn batch(slots: usize) -> (Batch, ExclusiveConnection, redis::Client) {
    let client = redis::Client::open(url("REDIS_URL")).unwrap();
    let mut connection = ExclusiveConnection::connect(&client).await.unwrap();
    let id = unique("batch");
    let batch =
        Batch { slots: format!("{id}:available_slots"), assignments: format!("{id}:assignments") };
    for n in 0..slots {
        let _: () = connection.sadd(&batch.slots, format!("slot-{n}")).await.unwrap();
    }
    (batch, connection, client)
}

fn assign(batch: &Batch) -> Transaction {
    Transaction::new("assign_slot_atomic")
        .attribute("batch_id", "7")
        .watch("batch_slots", &[&batch.slots, &batch.assignments])
}

/// The reference use: look under WATCH, take and record in MULTI.
async fn take(
    transaction: Transaction,
    connection: &mut ExclusiveConnection,
    batch: &Batch,
    essay: &str,
) -> Result<TransactionOutcome<String>, TransactionError> {
    transaction
        .run(connection, |mut tx| async move {
            let slot: Option<String> =
                tx.query("available_slots", cmd("SRANDMEMBER").arg(&batch.slots)).await?;
            let Some(slot) = slot else {
                return Ok(tx.no_value("no_slot"));
            };
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("SREM").arg(&batch.slots).arg(&slot));
            multi.add("assignments", cmd("HSET").arg(&batch.assignments).arg(&slot).arg(essay));
            Ok(multi.commit(slot))
        })
        .await
}

#[tokio::test]
async fn a_commit_has_every_step_of_the_incident() {
    let (batch, mut connection, _) = batch(1).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    let outcome = async {
        assign(batch)
            .run(&mut connection, |tx| async move {
                let mut multi = tx.multi();
                multi.add("available_slots", cmd("SPOP").arg(&batch.slots));
                multi.add(
                    "assignments",
                    cmd("HSET").arg(&batch.assignments).arg("essay-1").arg("x"),
                );
                Ok(multi.commit_with("no_slot", |replies| {
                    Ok(redis::from_redis_value(replies[0].clone())?)
                }))
            })
            .await
    }
    .with_context(cx)
    .await
    .unwrap();
    assert_eq!(outcome, TransactionOutcome::Committed("slot-0".to_owned()));

    let spans = spans_of(trace);
    let all = one(&spans, "redis.transaction.assign_slot_atomic");
    assert_eq!(all.span_kind, SpanKind::Internal);
    assert_eq!(all.status, Status::Unset);
    for (key, value) in [
        ("batch_id", "7"),
        ("transaction.type", "watch_multi_exec"),
        ("transaction.result", "success"),
        ("attempts", "1"),
        ("db.system.name", "redis"),
    ] {
        assert_eq!(attribute(all, key).as_deref(), Some(value), "{key}");
    }
    let watch = one(&spans, "redis.watch.batch_slots");
    let execute = one(&spans, "redis.transaction.execute");
    let spop = one(&spans, "redis.spop.available_slots");
    assert!(is_child_of(watch, all) && is_child_of(execute, all) && is_child_of(spop, execute));
    for span in [watch, execute, spop] {
        assert_eq!(span.span_kind, SpanKind::Client);
        assert_eq!(attribute(span, "db.system.name").as_deref(), Some("redis"));
        assert!(
            attribute(span, "server.address").is_some() && attribute(span, "server.port").is_some()
        );
    }
    assert_eq!(attribute(watch, "db.operation.name").as_deref(), Some("WATCH"));
    assert_eq!(attribute(execute, "db.operation.name").as_deref(), Some("MULTI"));
    assert_eq!(attribute(execute, "db.operation.batch.size").as_deref(), Some("2"));
    assert_eq!(attribute(spop, "lacuna.redis.result").as_deref(), Some("value"));
    assert!(named(&spans, "redis.transaction.failed").is_empty());
}

#[tokio::test]
async fn an_empty_set_is_no_value_and_no_error() {
    let (batch, mut connection, _) = batch(0).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    let outcome = take(assign(batch), &mut connection, batch, "e").with_context(cx).await.unwrap();
    assert_eq!(outcome, TransactionOutcome::NoValue { reason: "no_slot".into(), attempts: 1 });
    let spans = spans_of(trace);
    let all = one(&spans, "redis.transaction.assign_slot_atomic");
    assert_eq!(attribute(all, "transaction.result").as_deref(), Some("no_value"));
    assert_eq!(all.status, Status::Unset);
    let read = one(&spans, "redis.srandmember.available_slots");
    assert_eq!(attribute(read, "lacuna.redis.result").as_deref(), Some("nil"));
    assert!(named(&spans, "redis.transaction.execute").is_empty());
}

#[tokio::test]
async fn nil_from_spop_inside_exec_is_no_value() {
    let (batch, mut connection, _) = batch(0).await;
    let batch = &batch;
    let outcome: TransactionOutcome<String> = assign(batch)
        .run(&mut connection, |tx| async move {
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("SPOP").arg(&batch.slots));
            Ok(multi
                .commit_with("no_slot", |replies| Ok(redis::from_redis_value(replies[0].clone())?)))
        })
        .await
        .unwrap();
    assert_eq!(outcome.result(), "no_value");
}

/// Runs the reference transaction while another client touches the keys in each of the first
/// `disturbed` attempts.
async fn disturbed(
    disturbed: u32,
    attempts: u32,
) -> (TransactionOutcome<String>, Vec<opentelemetry_sdk::trace::SpanData>) {
    let (batch, mut connection, client) = batch(3).await;
    let batch = &batch;
    let other = client.get_multiplexed_async_connection().await.unwrap();
    let (cx, trace) = own_trace();
    let outcome = assign(batch)
        .attempts(attempts)
        .backoff(Duration::from_micros(10), Duration::from_micros(10))
        .run(&mut connection, |mut tx| {
            let mut other = other.clone();
            async move {
                let slot: String =
                    tx.query("available_slots", cmd("SRANDMEMBER").arg(&batch.slots)).await?;
                if tx.attempt() <= disturbed {
                    let _: () = other.hset(&batch.assignments, "other", tx.attempt()).await?;
                }
                let mut multi = tx.multi();
                multi.add("available_slots", cmd("SREM").arg(&batch.slots).arg(&slot));
                Ok(multi.commit(slot))
            }
        })
        .with_context(cx)
        .await
        .unwrap();
    let left: usize = connection.scard(&batch.slots).await.unwrap();
    assert_eq!(left, if matches!(outcome, TransactionOutcome::Committed(_)) { 2 } else { 3 });
    (outcome, spans_of(trace))
}

#[tokio::test]
async fn a_discarded_attempt_that_is_retried_is_no_error() {
    let (outcome, spans) = disturbed(2, 5).await;
    assert!(matches!(outcome, TransactionOutcome::Committed(_)));
    let all = one(&spans, "redis.transaction.assign_slot_atomic");
    assert_eq!(attribute(all, "attempts").as_deref(), Some("3"));
    assert_eq!(attribute(all, "transaction.result").as_deref(), Some("success"));
    let executes = named(&spans, "redis.transaction.execute");
    assert_eq!(executes.len(), 3);
    for discarded in &executes[..2] {
        assert_eq!(
            attribute(discarded, "failure.reason").as_deref(),
            Some("concurrent_modification")
        );
        assert_eq!(attribute(discarded, "lacuna.redis.result").as_deref(), Some("discarded"));
    }
    assert!(spans.iter().all(|s| s.status == Status::Unset), "no span is an error");
    assert!(named(&spans, "redis.transaction.failed").is_empty());
}

#[tokio::test]
async fn giving_up_after_one_attempt_says_concurrent_modification() {
    let (outcome, spans) = disturbed(1, 1).await;
    assert_eq!(outcome, TransactionOutcome::Aborted { attempts: 1 });
    let all = one(&spans, "redis.transaction.assign_slot_atomic");
    assert_eq!(attribute(all, "transaction.result").as_deref(), Some("aborted"));
    assert_eq!(all.status, Status::error("Transaction discarded"));
    let failed = one(&spans, "redis.transaction.failed");
    assert!(is_child_of(failed, all));
    assert_eq!(attribute(failed, "failure.reason").as_deref(), Some("concurrent_modification"));
    assert_eq!(failed.status, Status::error("Transaction discarded"));
    assert_eq!(
        one(&spans, "redis.transaction.execute").status,
        Status::error("Transaction discarded")
    );
}

#[tokio::test]
async fn giving_up_after_several_attempts_says_exhausted() {
    let (outcome, spans) = disturbed(9, 3).await;
    assert_eq!(outcome, TransactionOutcome::Aborted { attempts: 3 });
    assert_eq!(
        attribute(one(&spans, "redis.transaction.failed"), "failure.reason").as_deref(),
        Some("exhausted")
    );
    let executes = named(&spans, "redis.transaction.execute");
    assert_eq!(executes.len(), 3);
    assert_eq!(
        executes.iter().filter(|s| s.status != Status::Unset).count(),
        1,
        "only the last is an error"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_on_connections_of_their_own_take_each_slot_once() {
    let (batch, _, client) = batch(12).await;
    let pool = ConnectionPool::new(client, 4);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..12 {
        let pool = pool.clone();
        let batch = Batch { slots: batch.slots.clone(), assignments: batch.assignments.clone() };
        // The transaction's future is Send: it runs in a spawned task.
        tasks.spawn(async move {
            let mut connection = pool.get().await.unwrap();
            take(assign(&batch).attempts(500), &mut connection, &batch, &format!("essay-{n}"))
                .await
                .unwrap()
        });
    }
    let mut taken = vec![];
    while let Some(outcome) = tasks.join_next().await {
        match outcome.unwrap() {
            TransactionOutcome::Committed(slot) => taken.push(slot),
            other => panic!("{other:?}"),
        }
    }
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 12, "each essay has a slot of its own");
}

#[tokio::test]
async fn a_refused_command_is_a_failure_with_the_servers_code() {
    let (batch, mut connection, _) = batch(1).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    let result: Result<TransactionOutcome<()>, _> = assign(batch)
        .run(&mut connection, |tx| async move {
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("HSET").arg(&batch.slots).arg("f").arg("v"));
            Ok(multi.commit(()))
        })
        .with_context(cx)
        .await;
    assert!(matches!(result, Err(TransactionError::Refused(_))), "{result:?}");
    let spans = spans_of(trace);
    let execute = one(&spans, "redis.transaction.execute");
    assert_eq!(attribute(execute, "db.response.status_code").as_deref(), Some("WRONGTYPE"));
    assert_eq!(
        attribute(one(&spans, "redis.transaction.failed"), "failure.reason").as_deref(),
        Some("refused")
    );
}

#[tokio::test]
async fn a_killed_connection_is_connection_lost_and_the_next_use_heals() {
    let (batch, mut connection, client) = batch(1).await;
    let batch = &batch;
    let admin = client.get_multiplexed_async_connection().await.unwrap();
    let (cx, trace) = own_trace();
    let id: i64 = cmd("CLIENT").arg("ID").query_async(&mut connection).await.unwrap();
    let result: Result<TransactionOutcome<()>, _> = assign(batch)
        .run(&mut connection, |tx| {
            let mut admin = admin.clone();
            async move {
                let _: i64 =
                    cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(&mut admin).await?;
                let mut multi = tx.multi();
                multi.add("available_slots", cmd("SCARD").arg(&batch.slots));
                Ok(multi.commit(()))
            }
        })
        .with_context(cx)
        .await;
    let error = result.unwrap_err();
    assert_eq!(error.reason(), "connection_lost", "{error:?}");
    assert!(error.in_doubt(), "EXEC was sent");
    let spans = spans_of(trace);
    assert_eq!(
        attribute(one(&spans, "redis.transaction.failed"), "failure.reason").as_deref(),
        Some("connection_lost")
    );
    assert_eq!(take(assign(batch), &mut connection, batch, "e").await.unwrap().result(), "success");
}

#[tokio::test]
async fn running_out_of_time_is_a_timeout() {
    let (batch, mut connection, _) = batch(1).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    let result: Result<TransactionOutcome<()>, _> = assign(batch)
        .timeout(Some(Duration::from_millis(20)))
        .run(&mut connection, |_| std::future::pending())
        .with_context(cx)
        .await;
    assert!(matches!(result, Err(TransactionError::Timeout { in_doubt: false })), "{result:?}");
    assert_eq!(
        attribute(one(&spans_of(trace), "redis.transaction.failed"), "failure.reason").as_deref(),
        Some("timeout")
    );
    // The keys were still watched; the connection is clean again for the next transaction.
    assert_eq!(take(assign(batch), &mut connection, batch, "e").await.unwrap().result(), "success");
}

#[tokio::test]
async fn a_dropped_transaction_ends_as_failed_not_as_silence() {
    let (batch, mut connection, _) = batch(1).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    {
        let run = assign(batch)
            .timeout(None)
            .run::<(), _, _>(&mut connection, |_| std::future::pending());
        let dropped = tokio::time::timeout(Duration::from_millis(20), run.with_context(cx)).await;
        assert!(dropped.is_err());
    }
    let spans = spans_of(trace);
    let all = one(&spans, "redis.transaction.assign_slot_atomic");
    assert_eq!(attribute(all, "transaction.result").as_deref(), Some("failed"));
    assert_eq!(attribute(all, "failure.reason").as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn commands_and_pipelines_are_client_spans() {
    let (batch, mut connection, _) = batch(0).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    async {
        let _: () = connection.set(&batch.slots, 1).await.unwrap();
        let wrong: RedisResult<Value> =
            cmd("LPUSH").arg(&batch.slots).arg(1).query_async(&mut connection).await;
        assert!(wrong.is_err());
        redis::pipe()
            .del(&batch.slots)
            .del(&batch.assignments)
            .exec_async(&mut connection)
            .await
            .unwrap();
        let script = redis::Script::new("return ARGV[1]");
        let _: i64 = script.arg(3).invoke_async(&mut connection).await.unwrap();
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    assert_eq!(one(&spans, "SET").span_kind, SpanKind::Client);
    let wrong = one(&spans, "LPUSH");
    assert_eq!(attribute(wrong, "error.type").as_deref(), Some("WRONGTYPE"));
    assert!(matches!(wrong.status, Status::Error { .. }));
    assert_eq!(
        attribute(one(&spans, "PIPELINE DEL"), "db.operation.batch.size").as_deref(),
        Some("2")
    );
    let scripts = named(&spans, "EVALSHA");
    assert!(!scripts.is_empty());
    let digest = attribute(scripts[0], "db.stored_procedure.name").unwrap();
    assert_eq!(digest, redis::Script::new("return ARGV[1]").get_hash());
    assert!(
        spans.iter().all(|s| attribute(s, "db.query.text").is_none()),
        "values never leave the service"
    );
}

#[tokio::test]
async fn an_attempt_kept_beyond_its_body_cannot_be_used_beside_the_transaction() {
    let (batch, mut connection, _) = batch(1).await;
    let kept = std::sync::Mutex::new(None);
    let result: Result<TransactionOutcome<()>, _> = assign(&batch)
        .run(&mut connection, |tx| {
            let step = Ok(tx.multi().commit(()));
            *kept.lock().unwrap() = Some(tx);
            std::future::ready(step)
        })
        .await;
    assert!(result.is_err(), "{result:?}");
    drop(kept);
    assert_eq!(
        take(assign(&batch), &mut connection, &batch, "e").await.unwrap().result(),
        "success"
    );
}

#[tokio::test]
async fn a_cancelled_command_is_no_success() {
    let (batch, mut connection, _) = batch(0).await;
    let (cx, trace) = own_trace();
    let mut waiting = cmd("BLPOP");
    waiting.arg(&batch.slots).arg(60);
    let wait = waiting.query_async::<Value>(&mut connection).with_context(cx);
    assert!(tokio::time::timeout(Duration::from_millis(50), wait).await.is_err());
    let spans = spans_of(trace);
    let blpop = one(&spans, "BLPOP");
    assert_eq!(attribute(blpop, "error.type").as_deref(), Some("cancelled"));
    assert!(matches!(blpop.status, Status::Error { .. }));
    let page = common::memory().telemetry.metrics_text().render();
    let measured = page.lines().any(|l| {
        l.starts_with("db_client_operation_duration_seconds_count")
            && l.contains(r#"db_operation_name="BLPOP""#)
            && l.contains(r#"error_type="cancelled""#)
    });
    assert!(measured, "{page}");
}

#[tokio::test]
async fn arguments_that_the_server_quotes_do_not_leave_the_service() {
    let (_, mut connection, _) = batch(0).await;
    let (cx, trace) = own_trace();
    let refused: RedisResult<Value> =
        cmd("NOSUCH").arg("geheim-4711").query_async(&mut connection).with_context(cx).await;
    assert!(refused.unwrap_err().to_string().contains("geheim-4711"), "the caller sees it");
    let spans = spans_of(trace);
    assert!(matches!(one(&spans, "NOSUCH").status, Status::Error { .. }));
    assert!(!format!("{spans:?}").contains("geheim"), "{spans:#?}");
}

#[tokio::test]
async fn a_reply_that_cannot_be_read_is_told_as_applied() {
    let (batch, mut connection, _) = batch(1).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    let result: Result<TransactionOutcome<u64>, _> = assign(batch)
        .run(&mut connection, |tx| async move {
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("SPOP").arg(&batch.slots));
            // The slot's name is no number.
            Ok(multi
                .commit_with("no_slot", |replies| Ok(redis::from_redis_value(replies[0].clone())?)))
        })
        .with_context(cx)
        .await;
    let error = result.unwrap_err();
    assert!(error.applied() && matches!(error, TransactionError::Unreadable(_)), "{error:?}");
    let left: usize = connection.scard(&batch.slots).await.unwrap();
    assert_eq!(left, 0, "the slot is taken");
    let spans = spans_of(trace);
    let all = one(&spans, "redis.transaction.assign_slot_atomic");
    assert_eq!(attribute(all, "failure.reason").as_deref(), Some("unreadable_reply"));
    assert_eq!(attribute(all, "lacuna.redis.transaction.applied").as_deref(), Some("true"));
}

#[tokio::test]
async fn retries_failures_and_durations_are_measured() {
    let (outcome, _) = disturbed(9, 3).await;
    assert_eq!(outcome.result(), "aborted");
    let page = common::memory().telemetry.metrics_text().render();
    // Other tests of this binary run the same operation: there is at least this.
    let value = |series: &str| -> f64 {
        let line = page.lines().find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} in {page}")).parse().unwrap()
    };
    let of = r#"operation="assign_slot_atomic""#;
    let retried =
        format!(r#"redis_transaction_retries_total{{{of},reason="concurrent_modification"}}"#);
    assert!(value(&retried) >= 2.0);
    assert!(
        value(&format!(r#"redis_transaction_failures_total{{{of},reason="exhausted"}}"#)) >= 1.0
    );
    let aborted = format!(r#"redis_transaction_duration_seconds_count{{{of},result="aborted"}}"#);
    assert!(value(&aborted) >= 1.0);
    assert!(page.contains("# UNIT redis_transaction_duration_seconds seconds"));
    assert!(page.contains("# UNIT db_client_operation_duration_seconds seconds"));
}
