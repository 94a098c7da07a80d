//! Commands, pipelines and scripts against a real server.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::batch::{batch, through_a_proxy};
use common::proxy::Then;
use common::{attribute, named, one, own_trace, spans_of, unique};
use lacuna_instrument::redis::ExclusiveConnection;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status};
use redis::{AsyncCommands, AsyncConnectionConfig, RedisResult, Value, cmd};
use std::time::Duration;

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
async fn a_call_that_nobody_waits_for_any_more_does_not_hold_up_the_next() {
    let (batch, mut connection, client) = batch(0).await;
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    let name = unique("waits");
    let _: () = cmd("CLIENT").arg("SETNAME").arg(&name).query_async(&mut connection).await.unwrap();
    // Sixty seconds on the server, and on this socket.
    let mut waiting = cmd("BLPOP");
    waiting.arg(&batch.slots).arg(60);
    let wait = waiting.query_async::<Value>(&mut connection);
    assert!(tokio::time::timeout(Duration::from_millis(50), wait).await.is_err());
    let (cx, trace) = own_trace();
    let pong: String = cmd("PING").query_async(&mut connection).with_context(cx).await.unwrap();
    assert_eq!(pong, "PONG");
    one(&spans_of(trace), "redis.connect");
    // The server sees the old socket close when it comes to it.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let list: String = cmd("CLIENT").arg("LIST").query_async(&mut admin).await.unwrap();
        if !list.contains(&name) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the old socket is open: {list}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_socket_that_did_not_answer_in_time_is_replaced() {
    let (client, proxy) = through_a_proxy().await;
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_millis(50)));
    let mut connection = ExclusiveConnection::connect_with(&client, config).await.unwrap();
    proxy.at("ECHO", Then::Hold);
    let silent: RedisResult<String> = cmd("ECHO").arg("a").query_async(&mut connection).await;
    assert!(silent.unwrap_err().is_timeout());
    // The proxy keeps that socket silent for ever.
    let (cx, trace) = own_trace();
    let answer: RedisResult<String> =
        cmd("ECHO").arg("b").query_async(&mut connection).with_context(cx).await;
    assert_eq!(answer.unwrap(), "b");
    let spans = spans_of(trace);
    let connect = one(&spans, "redis.connect");
    assert_eq!(connect.span_kind, SpanKind::Client);
    assert_eq!(attribute(connect, "db.system.name").as_deref(), Some("redis"));
    assert_eq!(connect.status, Status::Unset);
}
