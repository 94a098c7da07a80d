//! What the environment may say, and what becomes of the service when it says something else.

use crate::backend::{bare, grpc_backend, http_backend};
use crate::{child, lines};
use axum::http::StatusCode;

#[tokio::test]
async fn malformed_values_are_named_with_what_is_accepted_and_the_default_is_used() {
    let (url, received) = http_backend(StatusCode::OK).await;
    let output = child(
        "child_emits_one_of_each",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
            ("LACUNA_INSTRUMENT", "redis=loud,kafka=off"),
            ("RUST_LOG", "info,=,="),
        ],
    )
    .await;
    received.assert_complete();
    let lines = lines(&output);
    let warned = |variable: &str| {
        let line = lines.iter().find(|l| l["variable"] == variable);
        line.unwrap_or_else(|| panic!("no warning for {variable}: {lines:#?}"))
    };
    assert_eq!(warned("OTEL_EXPORTER_OTLP_PROTOCOL")["accepted"], "grpc, http/protobuf, http/json");
    assert_eq!(warned("OTEL_BSP_SCHEDULE_DELAY")["default"], "5000");
    assert!(warned("LACUNA_INSTRUMENT")["message"].as_str().unwrap().contains("redis=loud"));
    assert_eq!(warned("RUST_LOG")["default"], "info");
    assert_eq!(warned("OTEL_EXPORTER_OTLP_HEADERS")["value"], "(not shown)");
}

#[tokio::test]
async fn grpc_takes_a_bare_host_and_port() {
    let (url, received) = grpc_backend().await;
    child(
        "child_emits_one_of_each",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", bare(&url)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ],
    )
    .await;
    received.assert_complete();
}

/// The service starts, and one warning names the endpoint; the default one takes its place.
async fn assert_endpoint_is_refused(endpoint: &str, protocol: &str) {
    let output = child(
        "child_emits_one_of_each_or_loses_it",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ],
    )
    .await;
    let lines = lines(&output);
    let warned: Vec<_> =
        lines.iter().filter(|l| l["variable"] == "OTEL_EXPORTER_OTLP_ENDPOINT").collect();
    assert_eq!(warned.len(), 1, "{lines:#?}");
    assert_eq!(warned[0]["value"], endpoint);
    assert!(warned[0]["default"].as_str().unwrap().starts_with("http://localhost:43"));
}

#[tokio::test]
async fn an_endpoint_that_its_protocol_cannot_take_is_told_and_the_service_starts() {
    assert_endpoint_is_refused("localhost:4318", "http/protobuf").await;
    assert_endpoint_is_refused("ftp://localhost", "grpc").await;
    if cfg!(not(feature = "tls")) {
        assert_endpoint_is_refused("https://localhost:4317", "grpc").await;
        assert_endpoint_is_refused("https://localhost:4318", "http/json").await;
    }
}

#[tokio::test]
async fn values_that_would_break_the_sdk_are_told_and_not_used() {
    let (url, received) = http_backend(StatusCode::OK).await;
    let output = child(
        "child_emits_one_of_each",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
            ("OTEL_BSP_SCHEDULE_DELAY", "0"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "0"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "18446744073709551615"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "-0.5"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "100"),
        ],
    )
    .await;
    received.assert_complete();
    let lines = lines(&output);
    let warned = lines.iter().filter(|l| l["variable"].is_string()).count();
    assert_eq!(warned, 8, "{lines:#?}");
}
