//! Rates and latencies, over calls that are counted by hand.

use insta::assert_json_snapshot;
use lacuna_signal::{Batch, SignalKind};
use serde_json::{Value, json};

use crate::harness::{Server, spans};
use crate::source::MemorySource;

/// Ten calls, one a second from the first second, lasting 10, 20, … 100 ms; every fifth fails.
fn server() -> Server {
    let spans_json: Vec<String> = (1..=10)
        .map(|n| {
            let start = 1_700_000_000 + n;
            let name = if n % 2 == 0 { "even" } else { "odd" };
            let status = if n % 5 == 0 { 2 } else { 0 };
            format!(
                r#"{{"traceId":"0000000000000000000000000000000a","spanId":"{n:016x}","name":"{name}",
                "kind":2,"startTimeUnixNano":"{start}000000000","endTimeUnixNano":"{start}{n:02}0000000",
                "status":{{"code":{status}}}}}"#
            )
        })
        .collect();
    let json = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":
        {{"stringValue":"s"}}}}]}},"scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
        spans_json.join(",")
    );
    Server::over(MemorySource { spans: spans(&json), logs: Batch::empty(SignalKind::Logs) })
}

/// Twelve seconds in steps of six, windows of five: at 0 s nothing, at 6 s calls 2 to 6, at 12 s
/// calls 8 to 10.
const WINDOW: &str = "service=s&endTs=1700000012000&lookback=12000&step=6000&ratePer=5000";

async fn values(uri: &str) -> Vec<Vec<Value>> {
    let answer = server().get(uri).await.json();
    let metrics = answer["metrics"].as_array().unwrap().clone();
    let points = |metric: Value| metric["metricPoints"].as_array().unwrap().clone();
    let value = |point: Value| point["gaugeValue"]["doubleValue"].clone();
    metrics.into_iter().map(|m| points(m).into_iter().map(value).collect()).collect()
}

#[tokio::test]
async fn calls_errors_and_latencies() {
    let calls = values(&format!("/api/metrics/calls?{WINDOW}")).await;
    assert_eq!(calls, [[json!(0.0), json!(1.0), json!(0.6)]]);
    let errors = values(&format!("/api/metrics/errors?{WINDOW}")).await;
    assert_eq!(errors, [[json!("NaN"), json!(0.2), json!(1.0 / 3.0)]]);
    let median = values(&format!("/api/metrics/latencies?{WINDOW}&quantile=0.5")).await;
    assert_eq!(median, [[json!("NaN"), json!(40.0), json!(90.0)]]);
    let worst = values(&format!("/api/metrics/latencies?{WINDOW}&quantile=1")).await;
    assert_eq!(worst, [[json!("NaN"), json!(60.0), json!(100.0)]]);
}

#[tokio::test]
async fn families_as_the_ui_reads_them() {
    let server = server();
    let grouped = format!("/api/metrics/latencies?{WINDOW}&quantile=0.95&groupByOperation=true");
    assert_json_snapshot!("metrics_grouped", server.get(&grouped).await.json());
    let errors = format!("/api/metrics/errors?{WINDOW}");
    assert_json_snapshot!("metrics_errors", server.get(&errors).await.json());
    assert_eq!(server.get("/api/metrics/minstep").await.data(), 1);
}

#[tokio::test]
async fn kinds_and_services_are_asked_for() {
    let none = |kind: &str| format!("/api/metrics/calls?{WINDOW}&spanKind={kind}");
    assert!(values(&none("client")).await.is_empty());
    let both = format!("/api/metrics/calls?{WINDOW}&spanKind=client&spanKind=server&service=t");
    assert_eq!(values(&both).await.len(), 1);
    assert!(values("/api/metrics/calls?service=t").await.is_empty());
}
