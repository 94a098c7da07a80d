//! Every endpoint of v3, snapshot by snapshot.

use http::StatusCode;
use insta::assert_json_snapshot;

use crate::harness::{Server, spans};
use crate::source::MemorySource;

const RANGE: &str =
    "query.startTimeMin=2023-11-14T22:13:20Z&query.startTimeMax=2023-11-14T22:14:20.5Z";

#[tokio::test]
async fn catalogue() {
    let server = Server::new();
    assert_json_snapshot!("v3_services", server.get("/api/v3/services").await.json());
    let operations = server.get("/api/v3/operations?service=batch_orchestrator_service").await;
    assert_json_snapshot!("v3_operations", operations.json());
    let servers = server.get("/api/v3/operations?service=file_service&spanKind=server").await;
    let old = server.get("/api/v3/operations?service=file_service&span_kind=server").await;
    assert_eq!(servers.json()["operations"].as_array().unwrap().len(), 1);
    assert_eq!(servers.text, old.text);
}

#[tokio::test]
async fn a_trace_by_id_is_otlp() {
    let answer = Server::new().get("/api/v3/traces/0af7651916cd43dd8448eb211c80319c").await;
    assert_eq!(answer.content_type, "application/json");
    assert_json_snapshot!("v3_trace", answer.json());
    // What went out is OTLP that can come in again.
    let again = spans(&answer.json()["result"].to_string());
    assert_eq!(again.num_rows(), 5);
}

#[tokio::test]
async fn search_and_summaries() {
    let server = Server::new();
    let summaries = server.get(&format!("/api/v3/trace-summaries?{RANGE}")).await;
    assert_json_snapshot!("v3_summaries", summaries.json());
    let one = format!("/api/v3/traces?{RANGE}&query.serviceName=essay_lifecycle_service");
    let found = server.get(&one).await.json();
    let resources = found["result"]["resourceSpans"].as_array().unwrap();
    assert_eq!(resources.len(), 2, "whole traces, with the spans of other services");
}

#[tokio::test]
async fn every_parameter_in_both_spellings() {
    let server = Server::new();
    let old =
        "query.start_time_min=2023-11-14T22:13:20Z&query.start_time_max=2023-11-14T22:14:20.5Z";
    let conditions = [
        ("query.serviceName=file_service", "query.service_name=file_service"),
        ("query.operationName=db.query", "query.operation_name=db.query"),
        ("query.spanName=db.query", "query.span_name=db.query"),
        ("query.durationMin=1s", "query.duration_min=1s"),
        (
            "query.durationMax=40ms&query.operationName=db.query",
            "query.duration_max=40ms&query.operation_name=db.query",
        ),
        (
            "query.attributes=%7B%22correlation_id%22%3A%22c-1%22%7D",
            "query.attributes=%7B%22correlation_id%22%3A%22c-1%22%7D",
        ),
        ("query.searchDepth=1", "query.search_depth=1"),
        ("query.searchDepth=1&query.rawTraces=true", "query.num_traces=1&query.raw_traces=true"),
    ];
    for (new, alias) in conditions {
        let by_new = server.get(&format!("/api/v3/trace-summaries?{RANGE}&{new}")).await;
        let by_old = server.get(&format!("/api/v3/trace-summaries?{old}&{alias}")).await;
        assert_eq!(by_new.json()["summaries"].as_array().unwrap().len(), 1, "{new}");
        assert_eq!(by_new.text, by_old.text, "{new}");
    }
    let all = server.get(&format!("/api/v3/trace-summaries?{RANGE}&query.searchDepth=0")).await;
    assert_eq!(all.json()["summaries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_end_of_the_range_is_not_in_it() {
    let server = Server::new();
    let until = |end: &str| {
        format!(
            "/api/v3/trace-summaries?query.startTimeMin=2023-11-14T22:13:30Z&query.startTimeMax={end}"
        )
    };
    let at = server.get(&until("2023-11-14T22:13:30.000000001Z")).await.json();
    assert_eq!(at["summaries"].as_array().unwrap().len(), 1);
    let before = "/api/v3/trace-summaries?query.startTimeMin=2023-11-14T22:13:29Z&query.startTimeMax=2023-11-14T22:13:30Z";
    assert_eq!(server.get(before).await.json(), serde_json::json!({ "summaries": [] }));
}

#[tokio::test]
async fn nothing_found_is_404_for_traces_and_an_empty_list_for_summaries() {
    let server = Server::new();
    let range = "query.startTimeMin=2020-01-01T00:00:00Z&query.startTimeMax=2020-01-02T00:00:00Z";
    for uri in
        [format!("/api/v3/traces?{range}"), "/api/v3/traces/1".into(), "/api/v3/traces/0".into()]
    {
        let answer = server.get(&uri).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{uri}");
        let error =
            serde_json::json!({ "error": { "httpCode": 404, "message": "No traces found" } });
        assert_eq!(answer.json(), error);
    }
    let summaries = server.get(&format!("/api/v3/trace-summaries?{range}")).await;
    assert_eq!(summaries.status, StatusCode::OK);
    assert_eq!(summaries.text, r#"{"summaries":[]}"#);
}

#[tokio::test]
async fn dependencies() {
    let uri = "/api/v3/dependencies?startTime=2023-11-14T22:13:20Z&endTime=2023-11-14T22:14:20Z";
    assert_json_snapshot!("v3_dependencies", Server::new().get(uri).await.json());
}

/// A span without a kind is shown as internal: it is found so, and shown once beside others of its name.
#[tokio::test]
async fn a_kind_that_is_not_given_is_internal() {
    let spans = |kinds: &[u8]| {
        let span = |(i, kind): (usize, &u8)| {
            format!(
                r#"{{"traceId":"{:032x}","spanId":"{:016x}","name":"work","kind":{kind},
                "startTimeUnixNano":"1700000010000000000","endTimeUnixNano":"1700000010000000001"}}"#,
                i + 1,
                i + 1
            )
        };
        let spans: Vec<String> = kinds.iter().enumerate().map(span).collect();
        format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name",
            "value":{{"stringValue":"s"}}}}]}},"scopeSpans":[{{"spans":[{}]}}]}}]}}"#,
            spans.join(",")
        )
    };
    let source = MemorySource {
        spans: crate::harness::spans(&spans(&[0, 1, 2, 0])),
        ..MemorySource::fixtures()
    };
    let server = Server::over(source);
    let both = server.get("/api/v3/operations?service=s").await.json();
    let operation = |kind: &str| serde_json::json!({"name": "work", "spanKind": kind});
    assert_eq!(both["operations"], serde_json::json!([operation("internal"), operation("server")]));
    let internal = server.get("/api/v3/operations?service=s&spanKind=internal").await.json();
    assert_eq!(internal["operations"], serde_json::json!([operation("internal")]));
}
