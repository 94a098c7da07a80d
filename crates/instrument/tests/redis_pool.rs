//! The pool of exclusive connections: waits, openings, and what is told when there is none.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::batch::{assign, batch, client};
use common::{attribute, is_child_of, memory, named, one, own_trace, spans_of, unique};
use lacuna_instrument::redis::{
    ConnectionPool, PoolError, Step, Transaction, TransactionError, TransactionOutcome, Watched,
};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status};
use redis::{Client, cmd};
use std::time::Duration;

async fn nothing(tx: Watched) -> Result<Step<()>, TransactionError> {
    Ok(tx.multi().commit(()))
}

#[tokio::test]
async fn waits_and_openings_are_spans_and_the_pool_is_metrics() {
    let name = unique("slots");
    let pool = ConnectionPool::new(client(), 3).named(&name);
    let (cx, trace) = own_trace();
    let held = async {
        let first = pool.get().await.unwrap();
        drop(first);
        let mut again = pool.get().await.unwrap();
        cmd("PING").exec_async(&mut *again).await.unwrap();
        again
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    // The first had to be opened; the second was at hand.
    let wait = one(&spans, "redis.connection");
    assert_eq!(wait.span_kind, SpanKind::Internal);
    assert_eq!(wait.status, Status::Unset);
    let pool_name = attribute(wait, "db.client.connection.pool.name");
    assert_eq!(pool_name.as_deref(), Some(name.as_str()));
    assert_eq!(one(&spans, "redis.connect").span_kind, SpanKind::Client);

    let page = memory().telemetry.metrics_text().render();
    let value = |series: &str| {
        let of = format!(r#"db_client_connection_pool_name="{name}""#);
        page.lines()
            .find(|l| l.starts_with(series) && l.contains(&of))
            .and_then(|l| l.rsplit_once(' '))
            .unwrap_or_else(|| panic!("{series} in {page}"))
            .1
            .to_owned()
    };
    for (series, expected) in [
        ("db_client_connection_max", "3"),
        ("db_client_connection_idle_max", "3"),
        ("db_client_connection_idle_min", "0"),
        ("db_client_connection_pending_requests", "0"),
        ("db_client_connection_wait_time_seconds_count", "2"),
        ("db_client_connection_create_time_seconds_count", "1"),
        ("db_client_connection_use_time_seconds_count", "1"),
    ] {
        assert_eq!(value(series), expected, "{series}");
    }
    let count = |state| {
        let series = format!(
            r#"db_client_connection_count{{db_client_connection_pool_name="{name}",db_client_connection_state="{state}"}} "#
        );
        page.lines().find_map(|l| l.strip_prefix(&series)).unwrap_or_else(|| panic!("{page}"))
    };
    assert_eq!((count("used"), count("idle")), ("1", "0"));
    drop(held);
}

#[tokio::test]
async fn a_wait_that_runs_out_of_time_says_that_all_connections_are_taken() {
    let name = unique("exhausted");
    let pool =
        ConnectionPool::new(client(), 1).named(&name).wait_limit(Some(Duration::from_millis(20)));
    let held = pool.get().await.unwrap();
    let (cx, trace) = own_trace();
    let error = pool.get().with_context(cx.clone()).await.unwrap_err();
    assert!(matches!(error, PoolError::Exhausted { size: 1, .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("all 1 of the pool are taken"), "{said}");
    let as_redis: redis::RedisError = error.into();
    assert!(as_redis.is_timeout() && as_redis.to_string().contains("all 1 of the pool"));
    let ran = Transaction::new("on_no_connection").run_in(&pool, nothing).with_context(cx).await;
    let error = ran.unwrap_err();
    assert_eq!(error.reason(), "pool_exhausted", "{error:?}");
    drop(held);

    let spans = spans_of(trace);
    assert_eq!(named(&spans, "redis.connection").len(), 2);
    for wait in named(&spans, "redis.connection") {
        assert_eq!(attribute(wait, "failure.reason").as_deref(), Some("pool_exhausted"));
        assert_eq!(attribute(wait, "error.type").as_deref(), Some("pool_exhausted"));
    }
    let all = one(&spans, "redis.transaction.on_no_connection");
    assert_eq!(attribute(all, "failure.reason").as_deref(), Some("pool_exhausted"));
    assert_eq!(attribute(all, "attempts").as_deref(), Some("0"));
    let page = memory().telemetry.metrics_text().render();
    let timeouts = format!(
        r#"db_client_connection_timeouts_total{{db_client_connection_pool_name="{name}"}} 2"#
    );
    assert!(page.contains(&timeouts), "{page}");
    pool.get().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_down_is_a_failed_transaction_with_its_reason() {
    // Port 1 refuses.
    let pool = ConnectionPool::new(Client::open("redis://127.0.0.1:1").unwrap(), 1);
    let (cx, trace) = own_trace();
    let ran = Transaction::new("on_no_server").run_in(&pool, nothing).with_context(cx).await;
    let error = ran.unwrap_err();
    assert_eq!(error.reason(), "connection_lost", "{error:?}");
    assert!(!error.in_doubt());
    let spans = spans_of(trace);
    let all = one(&spans, "redis.transaction.on_no_server");
    let (wait, connect) = (one(&spans, "redis.connection"), one(&spans, "redis.connect"));
    assert!(is_child_of(wait, all) && is_child_of(connect, all));
    for span in [all, wait, connect] {
        assert_eq!(attribute(span, "error.type").as_deref(), Some("connection_lost"));
        assert!(matches!(span.status, Status::Error { .. }), "{span:#?}");
    }
    let pool_name = attribute(wait, "db.client.connection.pool.name");
    assert_eq!(pool_name.as_deref(), Some("127.0.0.1:1/0"), "as the conventions ask");
    let page = memory().telemetry.metrics_text().render();
    let failures =
        r#"redis_transaction_failures_total{operation="on_no_server",reason="connection_lost"} 1"#;
    assert!(page.contains(failures), "{page}");
}

#[tokio::test]
async fn a_wait_that_is_given_up_is_cancelled_and_its_place_is_free() {
    let pool = ConnectionPool::new(client(), 1);
    let held = pool.get().await.unwrap();
    let (cx, trace) = own_trace();
    let wait = tokio::time::timeout(Duration::from_millis(20), pool.get());
    assert!(wait.with_context(cx).await.is_err());
    drop(held);
    let spans = spans_of(trace);
    let wait = one(&spans, "redis.connection");
    assert_eq!(attribute(wait, "error.type").as_deref(), Some("cancelled"));
    pool.get().await.unwrap();
}

#[tokio::test]
async fn a_transaction_runs_on_a_connection_of_the_pool() {
    let (batch, _, _) = batch(0).await;
    let pool = ConnectionPool::new(client(), 1);
    for _ in 0..2 {
        let ran = assign(&batch).run_in(&pool, nothing).await;
        assert_eq!(ran.unwrap(), TransactionOutcome::Committed(()));
    }
}
