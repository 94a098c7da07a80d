//! The transaction against a real server: every outcome, and the spans that it leaves.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::batch::{Batch, assign, batch, take};
use common::{attribute, is_child_of, named, one, own_trace, spans_of};
use lacuna_instrument::redis::{ConnectionPool, TransactionOutcome};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status};
use redis::{AsyncCommands, cmd};
use std::time::Duration;

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
