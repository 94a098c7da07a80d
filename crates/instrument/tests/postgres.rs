//! Queries, transactions and the pool against a real server.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::database::{pool, sql};
use common::{attribute, memory, named, one, own_trace, spans_of};
use lacuna_instrument::postgres::{Failure, Pool, classify};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use sqlx::Row;
use sqlx::postgres::PgPoolOptions;
use std::time::Duration;

#[tokio::test]
async fn a_query_has_text_summary_rows_and_no_values() {
    let (pool, table) = pool(2).await;
    let (cx, trace) = own_trace();
    async {
        let rows = sqlx::query(sql(format!(
            "SELECT id, state FROM {table} WHERE state <> 'secret' AND id < $1"
        )))
        .bind(3)
        .fetch_all(&pool)
        .await
        .unwrap();
        assert_eq!(rows.iter().map(|r| r.get::<i32, _>("id")).collect::<Vec<_>>(), [1, 2]);
        let updated = sqlx::query(sql(format!("UPDATE {table} SET state = 'done'")))
            .execute(&pool)
            .await
            .unwrap();
        assert_eq!(updated.rows_affected(), 3);
        let none = sqlx::query(sql(format!("SELECT id FROM {table} WHERE id = 9")))
            .fetch_optional(&pool)
            .await;
        assert!(none.unwrap().is_none());
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let queries = named(&spans, "db.query");
    assert_eq!(queries.len(), 3);
    let select = queries[0];
    assert_eq!(select.span_kind, SpanKind::Client);
    assert_eq!(select.status, Status::Unset);
    let text = format!("SELECT id, state FROM {table} WHERE state <> ? AND id < $1");
    for (key, value) in [
        ("db.system.name", "postgresql"),
        ("db.query.text", text.as_str()),
        ("db.query.summary", &format!("SELECT {table}")),
        ("db.operation.name", "SELECT"),
        ("db.collection.name", &table),
        ("db.response.returned_rows", "2"),
    ] {
        assert_eq!(attribute(select, key).as_deref(), Some(value), "{key}");
    }
    assert!(
        attribute(select, "server.address").is_some()
            && attribute(select, "db.namespace").is_some()
    );
    assert_eq!(attribute(queries[1], "lacuna.db.response.affected_rows").as_deref(), Some("3"));
    assert_eq!(attribute(queries[2], "db.response.returned_rows").as_deref(), Some("0"));
    assert_eq!(
        attribute(queries[2], "lacuna.db.response.affected_rows"),
        None,
        "sqlx does not tell it here, so it is not said to be zero"
    );
    assert_eq!(named(&spans, "db.connection").len(), 3);
}

#[tokio::test]
async fn a_deadlock_a_serialisation_failure_and_an_exhausted_pool_are_told_apart() {
    // Deadlock: two transactions take two rows in opposite order.
    let (pool, table) = pool(2).await;
    let (cx, trace) = own_trace();
    let update = |id: i32| sql(format!("UPDATE {table} SET state = 'x' WHERE id = {id}"));
    async {
        let (mut a, mut b) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
        sqlx::query(update(1)).execute(&mut a).await.unwrap();
        sqlx::query(update(2)).execute(&mut b).await.unwrap();
        let (x, y) = tokio::join!(
            async {
                let done = sqlx::query(update(2)).execute(&mut a).await.is_ok();
                if done {
                    a.commit().await.is_ok()
                } else {
                    drop(a);
                    false
                }
            },
            async {
                let done = sqlx::query(update(1)).execute(&mut b).await.is_ok();
                if done {
                    b.commit().await.is_ok()
                } else {
                    drop(b);
                    false
                }
            },
        );
        assert!(x != y, "exactly one was chosen to end");

        // Exhausted: both places are taken.
        let taken = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        assert_eq!(classify(&pool.acquire().await.unwrap_err()), Failure::PoolExhausted);
        drop(taken);

        // Serialisation failure: both read, both write what the other read.
        let (mut a, mut b) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
        for t in [&mut a, &mut b] {
            sqlx::query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                .execute(&mut *t)
                .await
                .unwrap();
            let read = sql(format!("SELECT count(*) FROM {table}"));
            sqlx::query(read).fetch_all(&mut *t).await.unwrap();
        }
        sqlx::query(sql(format!("INSERT INTO {table} VALUES (10, 'a')")))
            .execute(&mut a)
            .await
            .unwrap();
        sqlx::query(sql(format!("INSERT INTO {table} VALUES (11, 'b')")))
            .execute(&mut b)
            .await
            .unwrap();
        a.commit().await.unwrap();
        assert_eq!(classify(&b.commit().await.unwrap_err()), Failure::SerializationFailure);
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let mut reasons: Vec<_> = spans
        .iter()
        .filter(|s| s.name == "db.transaction" || s.name == "db.connection")
        .filter_map(|s| attribute(s, "failure.reason"))
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["deadlock", "pool_exhausted", "serialization_failure"]);
    let codes: Vec<_> = named(&spans, "db.query")
        .into_iter()
        .filter_map(|s| attribute(s, "db.response.status_code"))
        .collect();
    assert!(codes.contains(&"40P01".into()) && codes.contains(&"40001".into()), "{codes:?}");
}

#[tokio::test]
async fn the_pools_gauges_and_waits_are_metrics() {
    let (pool, name) = pool(3).await;
    let held = pool.acquire().await.unwrap();
    let _: i64 = sqlx::query_scalar("SELECT 1::bigint").fetch_one(&pool).await.unwrap();
    // sqlx takes a connection back in a task of its own.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while pool.inner().size() as usize - pool.inner().num_idle() != 1 {
        assert!(tokio::time::Instant::now() < deadline, "all others came back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    memory().telemetry.flush().await.unwrap();
    drop(held);
    memory().telemetry.flush().await.unwrap();
    let all = memory().metrics.get_finished_metrics().unwrap();
    let value = |metric: &str, state: Option<&str>| -> Vec<f64> {
        let metrics = all.iter().flat_map(|r| r.scope_metrics()).flat_map(|s| s.metrics());
        let ours = |a: Vec<&opentelemetry::KeyValue>| {
            let has = |key: &str, value: &str| {
                a.iter().any(|kv| kv.key.as_str() == key && kv.value.as_str() == value)
            };
            has("db.client.connection.pool.name", &name)
                && state.is_none_or(|s| has("db.client.connection.state", s))
        };
        metrics
            .filter(|m| m.name() == metric)
            .flat_map(|m| match m.data() {
                AggregatedMetrics::I64(MetricData::Sum(s)) => s
                    .data_points()
                    .filter(|p| ours(p.attributes().collect()))
                    .map(|p| p.value() as f64)
                    .collect::<Vec<_>>(),
                AggregatedMetrics::F64(MetricData::Histogram(h)) => h
                    .data_points()
                    .filter(|p| ours(p.attributes().collect()))
                    .map(|p| p.count() as f64)
                    .collect(),
                _ => vec![],
            })
            .collect()
    };
    assert_eq!(value("db.client.connection.max", None).last(), Some(&3.0));
    assert_eq!(value("db.client.connection.count", Some("used")).first(), Some(&1.0));
    assert_eq!(value("db.client.connection.idle.min", None).last(), Some(&0.0));
    assert_eq!(value("db.client.connection.pending_requests", None).last(), Some(&0.0));
    assert_eq!(value("db.client.connection.wait_time", None).last(), Some(&2.0));
    assert_eq!(value("db.client.connection.use_time", None).last(), Some(&2.0));
}

#[tokio::test]
async fn a_database_that_is_down_is_not_an_exhausted_pool() {
    let options =
        PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_millis(300));
    let (cx, trace) = own_trace();
    // Port 1 refuses, and sqlx tries again until the time is up.
    let pool = Pool::new(options.connect_lazy("postgres://x@127.0.0.1:1/x").unwrap(), "down");
    let (a, b) = async { tokio::join!(pool.acquire(), pool.acquire()) }.with_context(cx).await;
    for error in [a.unwrap_err(), b.unwrap_err()] {
        assert_eq!(pool.classify(&error), Failure::ConnectionLost);
    }
    let spans = spans_of(trace);
    let waits = named(&spans, "db.connection");
    assert_eq!(waits.len(), 2);
    for wait in waits {
        assert_eq!(attribute(wait, "failure.reason").as_deref(), Some("connection_lost"));
        assert_eq!(attribute(wait, "error.type").as_deref(), Some("connection_lost"));
    }
}

#[tokio::test]
async fn a_cancelled_query_and_a_cancelled_wait_are_no_successes() {
    // Two places stay taken by what was cancelled, until the server has slept.
    let (pool, name) = pool(3).await;
    let (cx, trace) = own_trace();
    async {
        let sleep = sqlx::query("SELECT pg_sleep(60)").execute(&pool);
        assert!(tokio::time::timeout(Duration::from_millis(100), sleep).await.is_err());
        let one_row = sqlx::query("SELECT pg_sleep(61)").fetch_optional(&pool);
        assert!(tokio::time::timeout(Duration::from_millis(100), one_row).await.is_err());
        let _held = pool.acquire().await.unwrap();
        let wait = pool.acquire();
        assert!(tokio::time::timeout(Duration::from_millis(20), wait).await.is_err());
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let cancelled = |s: &&&opentelemetry_sdk::trace::SpanData| {
        attribute(s, "error.type").as_deref() == Some("cancelled")
            && matches!(s.status, Status::Error { .. })
    };
    assert_eq!(named(&spans, "db.query").iter().filter(cancelled).count(), 2);
    assert_eq!(named(&spans, "db.connection").iter().filter(cancelled).count(), 1);
    let page = memory().telemetry.metrics_text().render();
    let measured = page.lines().any(|l| {
        l.starts_with("db_client_operation_duration_seconds_count")
            && l.contains(r#"error_type="cancelled""#)
            && l.contains(r#"db_system_name="postgresql""#)
    });
    assert!(measured, "{page}");
    let waits = format!(
        r#"db_client_connection_wait_time_seconds_count{{db_client_connection_pool_name="{name}"}} 4"#
    );
    assert!(page.contains(&waits), "{page}");
}

#[tokio::test]
async fn rows_that_nobody_wants_any_more_are_no_cancelled_query() {
    use futures::TryStreamExt;
    let (pool, table) = pool(1).await;
    let (cx, trace) = own_trace();
    async {
        let mut connection = pool.acquire().await.unwrap();
        let mut rows = sqlx::query(sql(format!("SELECT id FROM {table}"))).fetch(&mut connection);
        assert!(rows.try_next().await.unwrap().is_some());
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    assert_eq!(one(&spans, "db.query").status, Status::Unset);
}

#[tokio::test]
async fn what_the_server_quotes_does_not_leave_the_service() {
    let (pool, _) = pool(1).await;
    let (cx, trace) = own_trace();
    let refused = async {
        let mut transaction = pool.begin().await.unwrap();
        let cast = sqlx::query("SELECT $1::int").bind("geheim-4711");
        let refused = cast.execute(&mut transaction).await;
        transaction.commit().await.unwrap_err();
        refused
    }
    .with_context(cx)
    .await;
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("geheim-4711"), "the server quotes it to its caller: {told}");
    let spans = spans_of(trace);
    let failed = spans.iter().find(|s| attribute(s, "error.type").as_deref() == Some("22P02"));
    assert_eq!(failed.unwrap().status, Status::error("SQLSTATE 22P02: other"));
    assert!(!format!("{spans:?}").contains("geheim"), "{spans:#?}");
}
