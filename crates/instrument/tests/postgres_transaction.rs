//! Transactions against a real server: from `BEGIN` to every end that they can have.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::database::{behind_a_proxy, ids, pool, sql};
use common::proxy::Then;
use common::{attribute, is_child_of, memory, named, one, own_trace, spans_of};
use lacuna_instrument::postgres::{Failure, Transaction, classify};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::SpanData;

async fn insert(transaction: &mut Transaction, table: &str, id: i32) -> Result<(), sqlx::Error> {
    let text = sql(format!("INSERT INTO {table} VALUES ({id}, 'x')"));
    sqlx::query(text).execute(transaction).await.map(|_| ())
}

/// The one transaction of a trace has these attributes, and the status is an ERROR.
fn failed<'s>(spans: &'s [SpanData], expected: &[(&str, &str)]) -> &'s SpanData {
    let transaction = one(spans, "db.transaction");
    for (key, value) in expected {
        assert_eq!(attribute(transaction, key).as_deref(), Some(*value), "{key}: {transaction:#?}");
    }
    assert!(matches!(transaction.status, Status::Error { .. }), "{transaction:#?}");
    transaction
}

/// How many transactions ended with this result and reason, in all tests so far.
fn measured(result: &str, reason: &str) -> f64 {
    let page = memory().telemetry.metrics_text().render();
    let series = format!(
        r#"lacuna_db_transaction_duration_seconds_count{{failure_reason="{reason}",transaction_result="{result}"}} "#
    );
    page.lines().find_map(|l| l.strip_prefix(&series)).map_or(0.0, |n| n.parse().unwrap())
}

#[tokio::test]
async fn a_begin_that_is_cancelled_leaves_no_transaction_to_the_next_borrower() {
    let (pool, proxy, straight, table) = behind_a_proxy().await;
    let (cx, trace) = own_trace();
    proxy.at("BEGIN", Then::Hold);
    tokio::select! {
        _ = pool.begin().with_context(cx) => panic!("the answer is kept back"),
        () = proxy.seen() => {}
    }
    proxy.release();
    sqlx::query(sql(format!("INSERT INTO {table} VALUES (4, 'd')"))).execute(&pool).await.unwrap();
    assert_eq!(ids(&straight, &table).await, [1, 2, 3, 4], "others see what was committed");
    let spans = spans_of(trace);
    let expected = [
        ("transaction.result", "failed"),
        ("failure.reason", "cancelled"),
        ("error.type", "cancelled"),
        ("lacuna.db.transaction.dropped", "true"),
    ];
    failed(&spans, &expected);
    assert!(measured("failed", "cancelled") >= 1.0);
}

#[tokio::test]
async fn a_commit_that_is_cancelled_on_the_wire_is_in_doubt_and_not_rolled_back() {
    let (pool, proxy, straight, table) = behind_a_proxy().await;
    let (cx, trace) = own_trace();
    async {
        let mut transaction = pool.begin().await.unwrap();
        insert(&mut transaction, &table, 4).await.unwrap();
        proxy.at("COMMIT", Then::Hold);
        tokio::select! {
            _ = transaction.commit() => panic!("the answer is kept back"),
            () = proxy.seen() => {}
        }
        proxy.release();
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let expected = [
        ("transaction.result", "failed"),
        ("failure.reason", "cancelled"),
        ("lacuna.db.transaction.in_doubt", "true"),
    ];
    failed(&spans, &expected);
    // It was applied: the server had it before the caller went away. Until it has ended, this waits
    // for its row.
    let twice = sql(format!("INSERT INTO {table} VALUES (4, 'y')"));
    let twice = sqlx::query(twice).execute(straight.inner()).await;
    assert_eq!(classify(&twice.unwrap_err()), Failure::ConstraintViolation);
}

#[tokio::test]
async fn a_commit_under_which_the_connection_breaks_is_in_doubt() {
    let (pool, proxy, _, table) = behind_a_proxy().await;
    let (cx, trace) = own_trace();
    async {
        let mut transaction = pool.begin().await.unwrap();
        insert(&mut transaction, &table, 4).await.unwrap();
        proxy.at("COMMIT", Then::Break);
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(classify(&error), Failure::ConnectionLost, "{error:?}");
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let expected = [
        ("transaction.result", "failed"),
        ("failure.reason", "connection_lost"),
        ("lacuna.db.transaction.in_doubt", "true"),
    ];
    failed(&spans, &expected);
    assert!(measured("failed", "connection_lost") >= 1.0);
}

#[tokio::test]
async fn a_connection_lost_inside_a_transaction_is_an_error() {
    let (pool, proxy, straight, table) = behind_a_proxy().await;
    let (cx, trace) = own_trace();
    async {
        let mut transaction = pool.begin().await.unwrap();
        proxy.at("INSERT", Then::Break);
        insert(&mut transaction, &table, 4).await.unwrap_err();
        drop(transaction);
    }
    .with_context(cx)
    .await;
    assert_eq!(ids(&straight, &table).await, [1, 2, 3]);
    let spans = spans_of(trace);
    let expected = [
        ("transaction.result", "rolled_back"),
        ("failure.reason", "connection_lost"),
        ("error.type", "connection_lost"),
    ];
    let transaction = failed(&spans, &expected);
    assert_eq!(attribute(transaction, "lacuna.db.transaction.in_doubt"), None);
}

#[tokio::test]
async fn a_transaction_dropped_while_a_statement_runs_is_cancelled() {
    let (pool, proxy, straight, table) = behind_a_proxy().await;
    let (cx, trace) = own_trace();
    let work = async {
        let mut transaction = pool.begin().await.unwrap();
        proxy.at("INSERT", Then::Hold);
        insert(&mut transaction, &table, 4).await.unwrap();
        transaction.commit().await.unwrap();
    };
    tokio::select! {
        () = work.with_context(cx) => panic!("the answer is kept back"),
        () = proxy.seen() => {}
    }
    proxy.release();
    // The server rolls back when it sees that the socket is closed; until then this waits for the row.
    sqlx::query(sql(format!("INSERT INTO {table} VALUES (4, 'y')")))
        .execute(straight.inner())
        .await
        .unwrap();
    let spans = spans_of(trace);
    failed(&spans, &[("transaction.result", "rolled_back"), ("failure.reason", "cancelled")]);
    assert!(measured("rolled_back", "cancelled") >= 1.0);
}

#[tokio::test]
async fn committing_after_a_statement_whose_failure_nobody_saw_is_no_success() {
    let (pool, proxy, straight, table) = behind_a_proxy().await;
    let (cx, trace) = own_trace();
    async {
        let mut transaction = pool.begin().await.unwrap();
        insert(&mut transaction, &table, 4).await.unwrap();
        // One message, so that it runs as soon as the server has it.
        let twice = sql(format!("INSERT INTO {table} VALUES (1, 'x')"));
        proxy.at("INSERT", Then::Hold);
        tokio::select! {
            _ = sqlx::raw_sql(twice).execute(&mut transaction) => panic!("the answer is kept back"),
            () = proxy.seen() => {}
        }
        proxy.release();
        transaction.commit().await.unwrap_err();
    }
    .with_context(cx)
    .await;
    assert_eq!(ids(&straight, &table).await, [1, 2, 3]);
    failed(&spans_of(trace), &[("transaction.result", "rolled_back")]);
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_has_its_reason_in_the_metric() {
    let (pool, table) = pool(1).await;
    sqlx::raw_sql(sql(format!(
        "ALTER TABLE {table} ADD CONSTRAINT {table}_u UNIQUE (state) DEFERRABLE INITIALLY DEFERRED"
    )))
    .execute(pool.inner())
    .await
    .unwrap();
    let before = measured("failed", "constraint_violation");
    let (cx, trace) = own_trace();
    async {
        let mut transaction = pool.begin().await.unwrap();
        let twice = sql(format!("INSERT INTO {table} VALUES (4, 'a')"));
        sqlx::query(twice).execute(&mut transaction).await.unwrap();
        transaction.commit().await.unwrap_err();
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let expected = [
        ("transaction.result", "failed"),
        ("failure.reason", "constraint_violation"),
        ("db.response.status_code", "23505"),
    ];
    let transaction = failed(&spans, &expected);
    assert_eq!(
        attribute(transaction, "lacuna.db.transaction.in_doubt"),
        None,
        "the server said no"
    );
    assert_eq!(measured("failed", "constraint_violation"), before + 1.0);
}

#[tokio::test]
async fn a_transaction_is_a_span_from_begin_to_commit() {
    let (pool, table) = pool(2).await;
    let (cx, trace) = own_trace();
    async {
        let mut transaction = pool.begin().await.unwrap();
        sqlx::query(sql(format!("INSERT INTO {table} VALUES (4, 'd')")))
            .execute(&mut transaction)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        let undone = pool.begin().await.unwrap();
        undone.rollback().await.unwrap();
    }
    .with_context(cx)
    .await;
    let count: i64 = sqlx::query_scalar(sql(format!("SELECT count(*) FROM {table}")))
        .fetch_one(pool.inner())
        .await
        .unwrap();
    assert_eq!(count, 4);
    let spans = spans_of(trace);
    let transactions = named(&spans, "db.transaction");
    let results: Vec<_> =
        transactions.iter().map(|s| attribute(s, "transaction.result").unwrap()).collect();
    assert_eq!(results, ["committed", "rolled_back"]);
    assert!(
        transactions.iter().all(|s| s.status == Status::Unset),
        "a rollback on purpose is an outcome"
    );
    let inside: Vec<_> = named(&spans, "db.query")
        .into_iter()
        .filter(|q| is_child_of(q, transactions[0]))
        .map(|q| attribute(q, "db.operation.name").unwrap())
        .collect();
    assert_eq!(inside, ["BEGIN", "INSERT", "COMMIT"]);
    assert_eq!(
        attribute(transactions[0], "lacuna.db.transaction.statements").as_deref(),
        Some("1")
    );
}

#[tokio::test]
async fn committing_after_a_failed_statement_is_no_success() {
    let (pool, table) = pool(2).await;
    let (cx, trace) = own_trace();
    let committed = async {
        let mut transaction = pool.begin().await.unwrap();
        sqlx::query(sql(format!("INSERT INTO {table} VALUES (5, 'e')")))
            .execute(&mut transaction)
            .await
            .unwrap();
        let twice = sqlx::query(sql(format!("INSERT INTO {table} VALUES (1, 'x')")))
            .execute(&mut transaction)
            .await;
        assert_eq!(classify(&twice.unwrap_err()), Failure::ConstraintViolation);
        // PostgreSQL would say ROLLBACK, and sqlx Ok.
        transaction.commit().await
    }
    .with_context(cx)
    .await;
    assert!(committed.is_err());
    let spans = spans_of(trace);
    let transaction = one(&spans, "db.transaction");
    assert_eq!(attribute(transaction, "transaction.result").as_deref(), Some("rolled_back"));
    assert_eq!(attribute(transaction, "failure.reason").as_deref(), Some("constraint_violation"));
    assert!(matches!(transaction.status, Status::Error { .. }));
    let failed = named(&spans, "db.query").into_iter().find(|q| q.status != Status::Unset).unwrap();
    assert_eq!(attribute(failed, "db.response.status_code").as_deref(), Some("23505"));
    assert_eq!(attribute(failed, "error.type").as_deref(), Some("23505"));
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_and_says_so() {
    let (pool, table) = pool(1).await;
    let (cx, trace) = own_trace();
    async {
        let mut transaction = pool.begin().await.unwrap();
        sqlx::query(sql(format!("DELETE FROM {table}"))).execute(&mut transaction).await.unwrap();
        drop(transaction);
    }
    .with_context(cx)
    .await;
    let count: i64 = sqlx::query_scalar(sql(format!("SELECT count(*) FROM {table}")))
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(count, 3, "and the pool's only place is free again");
    let spans = spans_of(trace);
    let transaction = one(&spans, "db.transaction");
    assert_eq!(attribute(transaction, "transaction.result").as_deref(), Some("rolled_back"));
    assert_eq!(attribute(transaction, "lacuna.db.transaction.dropped").as_deref(), Some("true"));
}

#[tokio::test]
async fn a_failure_undone_by_a_savepoint_does_not_keep_a_transaction_from_committing() {
    let (pool, table) = pool(2).await;
    let (cx, trace) = own_trace();
    async {
        let mut transaction = pool.begin().await.unwrap();
        let insert = |id: i32| sql(format!("INSERT INTO {table} VALUES ({id}, 'x')"));
        sqlx::query("SAVEPOINT a").execute(&mut transaction).await.unwrap();
        sqlx::query(insert(1)).execute(&mut transaction).await.unwrap_err();
        sqlx::query("ROLLBACK TO SAVEPOINT a").execute(&mut transaction).await.unwrap();
        sqlx::query(insert(9)).execute(&mut transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }
    .with_context(cx)
    .await;
    let kept: i64 = sqlx::query_scalar(sql(format!("SELECT count(*) FROM {table} WHERE id = 9")))
        .fetch_one(pool.inner())
        .await
        .unwrap();
    assert_eq!(kept, 1);
    let spans = spans_of(trace);
    let transaction = one(&spans, "db.transaction");
    assert_eq!(attribute(transaction, "transaction.result").as_deref(), Some("committed"));
    assert_eq!(transaction.status, Status::Unset);
}
