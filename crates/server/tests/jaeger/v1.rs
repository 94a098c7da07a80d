//! Every endpoint of v1, snapshot by snapshot.

use http::StatusCode;
use insta::assert_json_snapshot;

use crate::harness::{SPANS, Server, spans};
use crate::source::MemorySource;

const TRACE: &str = "/api/traces/0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn catalogue() {
    let server = Server::new();
    assert_json_snapshot!("services", server.get("/api/services").await.json());
    let by_path = server.get("/api/services/essay_lifecycle_service/operations").await;
    assert_json_snapshot!("operations_by_path", by_path.json());
    let with_kind = server.get("/api/operations?service=batch_orchestrator_service").await;
    assert_json_snapshot!("operations_with_kind", with_kind.json());
    let producers = server.get("/api/operations?service=file_service&spanKind=producer").await;
    let name = "kafka.produce.huleedu.file.essay.content.provisioned.v1";
    assert_eq!(producers.data(), serde_json::json!([{ "name": name, "spanKind": "producer" }]));
    assert_eq!(server.get("/api/services/none/operations").await.data(), serde_json::json!([]));
}

/// References, tags, logs, processes and units as Jaeger's translator makes them, and event log
/// records among the logs, each event once.
#[tokio::test]
async fn a_trace_by_id() {
    let answer = Server::new().get(TRACE).await;
    assert_eq!(answer.content_type, "application/json");
    assert_json_snapshot!("trace", answer.json());
}

#[tokio::test]
async fn raw_leaves_logs_out_and_events_unsorted_spans_in_stored_order() {
    let raw = Server::new().get(&format!("{TRACE}?raw=true")).await.data();
    let names = |span: &serde_json::Value| span["logs"].as_array().unwrap().len();
    assert_eq!(raw[0]["spans"].as_array().unwrap().iter().map(names).max(), Some(2));
}

#[tokio::test]
async fn ids_in_every_spelling() {
    let server = Server::new();
    let short = server.get("/api/traces/ABC").await;
    assert_eq!(short.trace_ids(), ["0000000000000abc"]);
    assert_eq!(server.get("/api/traces/AAAAAAAAAAAAAAAAAAAKvA==").await.text, short.text);
    assert_eq!(server.get("/api/traces/AAAAAAAACrw=").await.text, short.text);
    let encoded = server
        .get("/api/traces/%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2F%2Fw==");
    assert_eq!(encoded.await.trace_ids(), ["f".repeat(32)]);
}

/// Grafana sends milliseconds where Jaeger reads microseconds: times of an id look-up are hints.
#[tokio::test]
async fn times_do_not_hide_a_trace_asked_for_by_id() {
    let answer = Server::new().get(&format!("{TRACE}?start=1700000000000&end=1700000060000")).await;
    assert_eq!(answer.trace_ids().len(), 1);
}

#[tokio::test]
async fn several_ids_at_once() {
    let uri =
        "/api/traces?traceID=abc&traceID=0&traceID=0af7651916cd43dd8448eb211c80319c&traceID=77";
    let answer = Server::new().get(uri).await;
    assert_eq!(answer.trace_ids(), ["0000000000000abc", "0af7651916cd43dd8448eb211c80319c"]);
    assert_json_snapshot!("several_ids_errors", answer.json()["errors"]);
}

#[tokio::test]
async fn equal_spans_are_shown_once_unless_raw() {
    let twice = lacuna_signal::Batch::concat(
        lacuna_signal::SignalKind::Spans,
        &[spans(SPANS), spans(SPANS)],
    );
    let logs = lacuna_signal::Batch::empty(lacuna_signal::SignalKind::Logs);
    let server = Server::over(MemorySource { spans: twice.unwrap(), logs });
    let count = |trace: serde_json::Value| trace[0]["spans"].as_array().unwrap().len();
    assert_eq!(count(server.get(TRACE).await.data()), 5);
    assert_eq!(count(server.get(&format!("{TRACE}?raw=1")).await.data()), 10);
}

/// Zipkin's client and server share a span id; Jaeger's UI needs each id once.
#[tokio::test]
async fn a_shared_span_id_is_separated() {
    let span = |id: &str, kind: u8, parent: &str, name: &str| {
        format!(
            r#"{{"traceId":"0000000000000000000000000000000b","spanId":"{id}","kind":{kind},
            "parentSpanId":"{parent}","name":"{name}","startTimeUnixNano":"1700000000000000000",
            "endTimeUnixNano":"1700000000000000000"}}"#
        )
    };
    let all = [
        span("00000000000000a1", 3, "", "call"),
        span("00000000000000a1", 2, "", "serve"),
        span("00000000000000a2", 1, "00000000000000a1", "work"),
    ];
    let json =
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, all.join(","));
    let logs = lacuna_signal::Batch::empty(lacuna_signal::SignalKind::Logs);
    let server = Server::over(MemorySource { spans: spans(&json), logs });
    let data = server.get("/api/traces/b").await.data();
    let parts = data[0]["spans"].as_array().unwrap().iter().map(|span| {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
        (
            text(&span["operationName"]),
            text(&span["spanID"]),
            text(&span["references"][0]["spanID"]),
        )
    });
    let expected = [
        ("call", "00000000000000a1", ""),
        ("serve", "0000000000000001", "00000000000000a1"),
        ("work", "00000000000000a2", "0000000000000001"),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(parts.collect::<Vec<_>>(), expected);
}

/// The case of Jaeger's own fixture `otlp2jaeger`: equal spans stay (nothing is stored, nothing
/// adjusted), scope first among the tags, kind after the attributes, empty lists as `[]`.
#[tokio::test]
async fn transform_shows_otlp_as_jaeger() {
    let server = Server::new();
    let span = r#"{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
        "parentSpanId":"eee19b7ec3c1b173","name":"I am a span","kind":2,
        "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712660300000000",
        "attributes":[{"key":"my.attr","value":{"stringValue":"some value"}}],"status":{}}"#;
    let json = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name",
        "value":{{"stringValue":"my.service"}}}}]}},"scopeSpans":[{{"scope":{{"name":"my.library"}},
        "spans":[{span},{span}]}}]}}]}}"#
    );
    assert_json_snapshot!("transform", server.post("/api/transform", json).await.json());
    let several = server.post("/api/transform", SPANS).await;
    let expected = ["0af7651916cd43dd8448eb211c80319c", "0000000000000abc", &"f".repeat(32)];
    assert_eq!(several.trace_ids(), expected);
    let none = server.post("/api/transform", "{}").await;
    assert_eq!(none.data(), serde_json::json!([]));
}

#[tokio::test]
async fn dependencies() {
    let server = Server::new();
    assert_json_snapshot!("dependencies", server.get("/api/dependencies").await.json());
    let ui = "/api/dependencies?endTs=1700000060000&lookback=604800000";
    assert_eq!(server.get(ui).await.data(), server.get("/api/dependencies").await.data());
    let nothing = serde_json::json!([]);
    assert_eq!(server.get("/api/dependencies?endTs=1600000060000").await.data(), nothing);
    assert_eq!(server.get("/api/dependencies?lookback=1000").await.data(), nothing);
    let other = "/api/dependencies?service=batch_orchestrator_service";
    assert_eq!(server.get(other).await.data(), nothing);
}

#[tokio::test]
async fn deep_dependencies() {
    let server = Server::new();
    let uri = "service=essay_lifecycle_service&operation=redis.transaction.assign_slot_atomic";
    let answer = server.get(&format!("/analytics/v1/dependencies?{uri}&start=0&end=0")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_json_snapshot!("deep_dependencies", answer.json());
    let same = server.get(&format!("/api/deep-dependencies?{uri}")).await;
    assert_eq!(same.text, answer.text);
    let whole = server.get("/api/deep-dependencies?service=file_service").await.json();
    let path = whole["dependencies"][0]["path"].as_array().unwrap();
    let services: Vec<_> = path.iter().map(|step| step["service"].as_str().unwrap()).collect();
    assert_eq!(services, ["file_service", "essay_lifecycle_service"]);
}

/// Spans that name each other, or themselves, as parents: every answer still ends.
#[tokio::test]
async fn circles_of_parents_end() {
    let span = |id: u8, parent: u8| {
        format!(
            r#"{{"traceId":"0000000000000000000000000000000c","spanId":"{id:016x}",
            "parentSpanId":"{parent:016x}","name":"n{id}","startTimeUnixNano":"1700000000000000000"}}"#
        )
    };
    let service = |name: &str, spans: &[String]| {
        format!(
            r#"{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{name}"}}}}]}},
            "scopeSpans":[{{"spans":[{}]}}]}}"#,
            spans.join(",")
        )
    };
    let a = service("a", &[span(1, 2), span(3, 3), span(4, 1)]);
    let b = service("b", &[span(2, 1), span(5, 6), span(6, 5)]);
    let logs = lacuna_signal::Batch::empty(lacuna_signal::SignalKind::Logs);
    let json = format!(r#"{{"resourceSpans":[{a},{b}]}}"#);
    let server = Server::over(MemorySource { spans: spans(&json), logs });
    let paths = server.get("/api/deep-dependencies?service=a").await;
    assert_eq!(paths.status, StatusCode::OK);
    assert!(paths.json()["dependencies"].is_array());
    assert_eq!(server.get("/api/traces/c").await.trace_ids().len(), 1);
}

#[tokio::test]
async fn pretty_print_indents_by_four() {
    let server = Server::new();
    let pretty = server.get("/api/services?prettyPrint=true").await;
    assert!(pretty.text.starts_with("{\n    \"data\": [\n        \""), "{}", pretty.text);
    let plain = server.get("/api/services?prettyPrint=false").await;
    assert_eq!(plain.json(), pretty.json());
    assert!(!plain.text.contains('\n'));
}

#[tokio::test]
async fn what_is_not_there_says_so() {
    let server = Server::new();
    let archive = server.post("/api/archive/abc", "").await;
    assert_eq!(archive.status, StatusCode::NOT_IMPLEMENTED);
    assert_json_snapshot!("archive", archive.json());
}
