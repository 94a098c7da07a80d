//! Transactions that fail: what is told of them, and what was applied.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::batch::{assign, batch, take, through_a_proxy};
use common::proxy::Then;
use common::{attribute, named, one, own_trace, spans_of};
use lacuna_instrument::redis::{ExclusiveConnection, TransactionError, TransactionOutcome};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::SpanData;
use redis::{AsyncCommands, Value, cmd};
use std::time::Duration;

/// The transaction of a trace, and its `EXEC`, have these attributes.
fn told(spans: &[SpanData], transaction: &[(&str, &str)], execute: &[(&str, &str)]) {
    let names = ["redis.transaction.assign_slot_atomic", "redis.transaction.execute"];
    for (name, expected) in names.into_iter().zip([transaction, execute]) {
        let span = one(spans, name);
        for (key, value) in expected {
            assert_eq!(attribute(span, key).as_deref(), Some(*value), "{key} of {span:#?}");
        }
        assert!(matches!(span.status, Status::Error { .. }), "{span:#?}");
    }
}

const IN_DOUBT: (&str, &str) = ("lacuna.redis.transaction.in_doubt", "true");

#[tokio::test]
async fn an_exec_that_was_applied_in_part_says_which_command_failed_and_what_the_others_answered() {
    let (batch, mut connection, _) = batch(1).await;
    let batch = &batch;
    let _: () = connection.set(&batch.assignments, "no hash").await.unwrap();
    let (cx, trace) = own_trace();
    let result: Result<TransactionOutcome<()>, _> = assign(batch)
        .run(&mut connection, |tx| async move {
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("SPOP").arg(&batch.slots));
            multi.add("assignments", cmd("HSET").arg(&batch.assignments).arg("e").arg("x"));
            multi.add("available_slots", cmd("SCARD").arg(&batch.slots));
            Ok(multi.commit(()))
        })
        .with_context(cx)
        .await;
    let error = result.unwrap_err();
    assert!(error.applied() && !error.in_doubt(), "{error:?}");
    let TransactionError::PartlyApplied { source, replies } = error else { panic!("{error:?}") };
    assert_eq!(source.code(), Some("WRONGTYPE"));
    assert_eq!(replies[0], Value::BulkString(b"slot-0".to_vec()), "the slot that was taken");
    assert!(matches!(replies[1], Value::ServerError(_)));
    let left: usize = connection.scard(&batch.slots).await.unwrap();
    assert_eq!(left, 0, "SPOP was applied");

    let spans = spans_of(trace);
    let failed = ("transaction.result", "failed");
    told(
        &spans,
        &[
            failed,
            ("failure.reason", "partly_applied"),
            ("lacuna.redis.transaction.applied", "true"),
        ],
        &[("failure.reason", "partly_applied"), ("db.response.status_code", "WRONGTYPE")],
    );
    let hset = one(&spans, "redis.hset.assignments");
    assert_eq!(attribute(hset, "lacuna.redis.result").as_deref(), Some("failed"));
    assert_eq!(attribute(hset, "error.type").as_deref(), Some("WRONGTYPE"));
    for other in ["redis.spop.available_slots", "redis.scard.available_slots"] {
        let other = one(&spans, other);
        assert_eq!(attribute(other, "lacuna.redis.result").as_deref(), Some("value"));
        assert_eq!(other.status, Status::Unset);
    }
}

#[tokio::test]
async fn an_exec_that_was_refused_applied_nothing() {
    let (batch, mut connection, _) = batch(1).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    let result: Result<TransactionOutcome<()>, _> = assign(batch)
        .run(&mut connection, |tx| async move {
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("SPOP").arg(&batch.slots));
            // Too few arguments: refused when it is queued.
            multi.add("assignments", cmd("HSET").arg(&batch.assignments));
            Ok(multi.commit(()))
        })
        .with_context(cx)
        .await;
    let error = result.unwrap_err();
    assert!(matches!(error, TransactionError::Refused(_)), "{error:?}");
    assert!(!error.applied() && !error.in_doubt());
    let left: usize = connection.scard(&batch.slots).await.unwrap();
    assert_eq!(left, 1);
    let spans = spans_of(trace);
    told(&spans, &[("failure.reason", "refused")], &[("failure.reason", "refused")]);
    let result = |name| attribute(one(&spans, name), "lacuna.redis.result").unwrap();
    assert_eq!(result("redis.hset.assignments"), "failed");
    assert_eq!(result("redis.spop.available_slots"), "discarded");
    assert_eq!(one(&spans, "redis.spop.available_slots").status, Status::Unset);
}

#[tokio::test]
async fn a_transaction_dropped_after_exec_was_sent_is_in_doubt() {
    let (batch, _, _) = batch(1).await;
    let (client, proxy) = through_a_proxy().await;
    let mut connection = ExclusiveConnection::connect(&client).await.unwrap();
    let (cx, trace) = own_trace();
    proxy.at("EXEC", Then::Hold);
    tokio::select! {
        _ = take(assign(&batch), &mut connection, &batch, "e").with_context(cx) => {
            panic!("the answer is kept back")
        }
        () = proxy.seen() => {}
    }
    let spans = spans_of(trace);
    let cancelled = ("failure.reason", "cancelled");
    told(&spans, &[("transaction.result", "failed"), cancelled, IN_DOUBT], &[cancelled]);
    let hset = one(&spans, "redis.hset.assignments");
    assert_eq!(attribute(hset, "lacuna.redis.result").as_deref(), Some("unanswered"));
    let taken: bool = connection.hexists(&batch.assignments, "slot-0").await.unwrap();
    assert!(taken, "it was applied");
}

#[tokio::test]
async fn a_timeout_under_exec_is_told_alike_by_all_spans_and_the_socket_is_replaced() {
    let (batch, _, _) = batch(2).await;
    let (client, proxy) = through_a_proxy().await;
    let mut connection = ExclusiveConnection::connect(&client).await.unwrap();
    let (cx, trace) = own_trace();
    proxy.at("EXEC", Then::Hold);
    let limited = assign(&batch).timeout(Some(Duration::from_millis(100)));
    let result = take(limited, &mut connection, &batch, "e").with_context(cx).await;
    assert!(matches!(result, Err(TransactionError::Timeout { in_doubt: true })), "{result:?}");
    let spans = spans_of(trace);
    let timeout = ("failure.reason", "timeout");
    told(&spans, &[timeout, IN_DOUBT], &[timeout, ("error.type", "timeout")]);
    for queued in ["redis.srem.available_slots", "redis.hset.assignments"] {
        let queued = one(&spans, queued);
        assert_eq!(attribute(queued, "lacuna.redis.result").as_deref(), Some("unanswered"));
        assert_eq!(attribute(queued, "error.type").as_deref(), Some("timeout"));
    }
    // The silent socket is not used again.
    let again = take(assign(&batch), &mut connection, &batch, "f").await.unwrap();
    assert_eq!(again.result(), "success");
}

#[tokio::test]
async fn a_connection_that_breaks_under_exec_is_told_alike_by_all_spans() {
    let (batch, _, _) = batch(1).await;
    let (client, proxy) = through_a_proxy().await;
    let mut connection = ExclusiveConnection::connect(&client).await.unwrap();
    let (cx, trace) = own_trace();
    proxy.at("EXEC", Then::Break);
    let result = take(assign(&batch), &mut connection, &batch, "e").with_context(cx).await;
    let error = result.unwrap_err();
    assert!(error.in_doubt() && error.reason() == "connection_lost", "{error:?}");
    let spans = spans_of(trace);
    let lost = ("failure.reason", "connection_lost");
    told(&spans, &[lost, IN_DOUBT], &[lost, ("error.type", "connection_lost")]);
    let hset = one(&spans, "redis.hset.assignments");
    assert_eq!(attribute(hset, "lacuna.redis.result").as_deref(), Some("unanswered"));
}

#[tokio::test]
async fn a_reply_under_watch_that_cannot_be_read_applied_nothing() {
    let (batch, mut connection, _) = batch(1).await;
    let batch = &batch;
    let (cx, trace) = own_trace();
    let result: Result<TransactionOutcome<()>, _> = assign(batch)
        .run(&mut connection, |mut tx| async move {
            // The slot's name is no number.
            let _: u64 = tx.query("available_slots", cmd("SRANDMEMBER").arg(&batch.slots)).await?;
            Ok(tx.multi().commit(()))
        })
        .with_context(cx)
        .await;
    let error = result.unwrap_err();
    assert!(matches!(error, TransactionError::Unreadable { applied: false, .. }), "{error:?}");
    assert!(!error.applied());
    let spans = spans_of(trace);
    let all = one(&spans, "redis.transaction.assign_slot_atomic");
    assert_eq!(attribute(all, "failure.reason").as_deref(), Some("unreadable_reply"));
    assert_eq!(attribute(all, "lacuna.redis.transaction.applied"), None);
    assert!(named(&spans, "redis.transaction.execute").is_empty());
}

#[tokio::test]
async fn an_empty_queue_asks_whether_the_watched_keys_held() {
    let (batch, mut connection, client) = batch(1).await;
    let batch = &batch;
    let other = client.get_multiplexed_async_connection().await.unwrap();
    let mut run = async |touched: bool| {
        let outcome = assign(batch).attempts(1).run(&mut connection, |tx| {
            let mut other = other.clone();
            async move {
                if touched {
                    let _: () = other.hset(&batch.assignments, "other", 1).await?;
                }
                Ok(tx.multi().commit(()))
            }
        });
        outcome.await.unwrap()
    };
    assert_eq!(run(false).await, TransactionOutcome::Committed(()));
    assert_eq!(run(true).await, TransactionOutcome::Aborted { attempts: 1 });
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
    let error = result.unwrap_err();
    assert!(matches!(error, TransactionError::PartlyApplied { .. }), "{error:?}");
    let spans = spans_of(trace);
    let execute = one(&spans, "redis.transaction.execute");
    assert_eq!(attribute(execute, "db.response.status_code").as_deref(), Some("WRONGTYPE"));
    assert_eq!(
        attribute(one(&spans, "redis.transaction.failed"), "failure.reason").as_deref(),
        Some("partly_applied")
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
    assert!(error.applied() && matches!(error, TransactionError::Unreadable { .. }), "{error:?}");
    let left: usize = connection.scard(&batch.slots).await.unwrap();
    assert_eq!(left, 0, "the slot is taken");
    let spans = spans_of(trace);
    let all = one(&spans, "redis.transaction.assign_slot_atomic");
    assert_eq!(attribute(all, "failure.reason").as_deref(), Some("unreadable_reply"));
    assert_eq!(attribute(all, "lacuna.redis.transaction.applied").as_deref(), Some("true"));
}
