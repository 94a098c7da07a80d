//! The whole way out: a process that was started with `OTEL_*` variables, and what a backend gets.
//!
//! The environment can only be given to a new process, so each test runs this binary again with one
//! of the `child_*` tests, which do nothing when they are not asked for.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod backend;
#[path = "../common/mod.rs"]
mod common;
mod environment;
#[cfg(feature = "tls")]
mod tls;

use axum::http::StatusCode;
use backend::{grpc_backend, http_backend};
use opentelemetry::context::FutureExt;
use opentelemetry::{Context, global};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runs one `child_*` test of this binary with only these `OTEL_*` and `LACUNA_*` variables.
async fn child(test: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("OTEL_") || name.starts_with("LACUNA_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env("LACUNA_TEST_CHILD", test).envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn is_child(test: &str) -> bool {
    std::env::var("LACUNA_TEST_CHILD").is_ok_and(|asked| asked == test)
}

/// The JSON lines among the test harness's own output.
fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|l| serde_json::from_str(&l[l.find('{')?..]).ok()).collect()
}

#[tokio::test]
async fn child_emits_one_of_each() {
    if !is_child("child_emits_one_of_each") {
        return;
    }
    let telemetry = lacuna_instrument::init("child_service").unwrap();
    global::meter("child").u64_counter("child_counter_total").build().add(1, &[]);
    {
        let span = tracing::info_span!("work");
        let _in_span = span.enter();
        tracing::info!("from the child");
    }
    telemetry.shutdown().await.unwrap();
}

#[tokio::test]
async fn child_floods() {
    if !is_child("child_floods") {
        return;
    }
    let telemetry = lacuna_instrument::init("child_service").unwrap();
    let started = Instant::now();
    for n in 0..5_000 {
        let work = async { tokio::task::yield_now().await }.with_context(Context::new());
        tracing::info_span!("flood", n).in_scope(|| tracing::debug!("x"));
        work.await;
    }
    let emitting = started.elapsed();
    // Not a measurement: a service that waits for the backend would take minutes here.
    assert!(emitting < Duration::from_secs(20), "emitting blocked: {emitting:?}");
    let _ = telemetry.shutdown().await;
}

/// Emits, and goes on until its own log told of the drops; only then ends.
#[tokio::test]
async fn child_is_told_of_drops_while_it_runs() {
    if !is_child("child_is_told_of_drops_while_it_runs") {
        return;
    }
    let lines = common::Lines::default();
    let telemetry = lacuna_instrument::Telemetry::builder("child_service")
        .log_lines_to(lines.clone())
        .report_drops_every(Duration::from_millis(50))
        .init()
        .unwrap();
    global::meter("child").u64_counter("child_counter_total").build().add(1, &[]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let told = |signal: &str| {
        let lines = lines.json();
        lines.into_iter().find(|l| l["signal"] == signal && l["export_failed"].as_u64() > Some(0))
    };
    let (traces, metrics) = loop {
        tracing::info_span!("lost").in_scope(|| ());
        match (told("traces"), told("metrics")) {
            (Some(traces), Some(metrics)) => break (traces, metrics),
            _ => assert!(Instant::now() < deadline, "both losses are told: {:#?}", lines.json()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for line in [traces, metrics] {
        assert!(!line["error"].as_str().unwrap().is_empty(), "{line:#?}");
    }
    let page = telemetry.metrics_text().render();
    assert!(
        page.contains(
            r#"lacuna_instrument_dropped_total{reason="export_failed",signal="metrics"}"#
        ),
        "{page}"
    );
    let _ = telemetry.shutdown().await;
}

#[test]
fn child_panics() {
    if !is_child("child_panics") {
        return;
    }
    // Leaked: only the hook can flush.
    std::mem::forget(lacuna_instrument::init("child_service").unwrap());
    let main = std::thread::Builder::new().name("main".into());
    let panicked = main.spawn(|| {
        tracing::info_span!("last words").in_scope(|| ());
        global::meter("child").u64_counter("last_words_total").build().add(1, &[]);
        panic!("on purpose");
    });
    assert!(panicked.unwrap().join().is_err());
}

#[tokio::test]
async fn http_protobuf_is_the_default_and_carries_all_three() {
    let (url, received) = http_backend(StatusCode::OK).await;
    let resource = "deployment.environment.name=test";
    let output = child(
        "child_emits_one_of_each",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_RESOURCE_ATTRIBUTES", resource)],
    )
    .await;
    received.assert_complete();
    assert!(received.0.lock().unwrap().content_types.iter().all(|t| t == "application/x-protobuf"));
    let lines = lines(&output);
    let line =
        lines.iter().find(|l| l["message"] == "from the child").expect("the line is on stdout");
    assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
    assert_eq!(line["layer"], "application");
}

#[tokio::test]
async fn grpc_carries_all_three() {
    let (url, received) = grpc_backend().await;
    child(
        "child_emits_one_of_each",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ],
    )
    .await;
    received.assert_complete();
}

#[tokio::test]
async fn http_json_is_sent_when_asked_for() {
    let (url, received) = http_backend(StatusCode::OK).await;
    child(
        "child_emits_one_of_each",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
    )
    .await;
    let types = received.0.lock().unwrap().content_types.clone();
    assert!(!types.is_empty() && types.iter().all(|t| t == "application/json"), "{types:?}");
}

#[tokio::test]
async fn a_signal_can_be_turned_off_and_the_service_renamed() {
    let (url, received) = http_backend(StatusCode::OK).await;
    child(
        "child_emits_one_of_each",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_SERVICE_NAME", "renamed"),
        ],
    )
    .await;
    let inbox = received.0.lock().unwrap();
    assert!(inbox.logs.is_empty());
    let resource = inbox.traces[0].resource_spans[0].resource.as_ref().unwrap();
    assert!(resource.attributes.iter().any(|kv| kv.key == "service.name"
        && matches!(kv.value.as_ref().unwrap().value.as_ref(), Some(Value::StringValue(s)) if s == "renamed")));
}

async fn assert_drops_are_told(url: &str, protocol: &str) {
    let output = child(
        "child_floods",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32"),
        ],
    )
    .await;
    let lines = lines(&output);
    let dropped: Vec<_> = lines.iter().filter(|l| l["signal"] == "traces").collect();
    assert_eq!(dropped.len(), 1, "one line for all drops: {lines:#?}");
    assert_eq!(dropped[0]["level"], "warn");
    let lost =
        dropped[0]["queue_full"].as_u64().unwrap() + dropped[0]["export_failed"].as_u64().unwrap();
    assert!(lost > 4_000, "nearly all of 5000 spans were lost and counted: {lost}");
    assert!(lines.len() < 10, "the log is not flooded: {lines:#?}");
}

#[tokio::test]
async fn an_unreachable_backend_never_blocks_and_its_drops_are_told() {
    // A port that was free a moment ago and that nobody listens on.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    assert_drops_are_told(&url, "http/protobuf").await;
    assert_drops_are_told(&url, "grpc").await;
}

#[tokio::test]
async fn a_backend_that_accepts_and_never_answers_does_not_block_either() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut open = vec![];
        while let Ok((socket, _)) = listener.accept().await {
            open.push(socket);
        }
    });
    assert_drops_are_told(&url, "http/protobuf").await;
    silent.abort();
}

#[tokio::test]
async fn a_refusing_backend_is_told_as_failed_exports() {
    let (url, _) = http_backend(StatusCode::FORBIDDEN).await;
    assert_drops_are_told(&url, "http/protobuf").await;
}

#[tokio::test]
async fn a_panic_of_the_main_thread_sends_what_is_buffered() {
    let (url, received) = http_backend(StatusCode::OK).await;
    child(
        "child_panics",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("OTEL_BSP_SCHEDULE_DELAY", "600000")],
    )
    .await;
    assert!(received.span_names().contains(&"last words".to_owned()));
    let inbox = received.0.lock().unwrap();
    let points = inbox.metrics.iter().flat_map(|r| &r.resource_metrics);
    let mut metrics = points.flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
    assert!(metrics.any(|m| m.name == "last_words_total"), "metrics are flushed as well");
    let records = inbox.logs.iter().flat_map(|r| &r.resource_logs).flat_map(|r| &r.scope_logs);
    assert!(
        records.flat_map(|s| &s.log_records).any(|r| r.severity_number == 17),
        "the panic is an ERROR record"
    );
}

#[tokio::test]
async fn a_running_service_tells_of_drops_with_the_reason() {
    let (url, _) = http_backend(StatusCode::FORBIDDEN).await;
    child(
        "child_is_told_of_drops_while_it_runs",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
        ],
    )
    .await;
}

#[tokio::test]
async fn child_emits_one_of_each_or_loses_it() {
    if !is_child("child_emits_one_of_each_or_loses_it") {
        return;
    }
    let telemetry = lacuna_instrument::init("child_service").unwrap();
    tracing::info_span!("work").in_scope(|| tracing::info!("from the child"));
    // Nobody listens at the default endpoint, or somebody does: both are well.
    let _ = telemetry.shutdown().await;
}
