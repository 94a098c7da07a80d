//! Requests as Jaeger's UI (2.20.0) and Grafana's Jaeger data source send them, byte for byte in
//! their query strings, and what each client needs in the answer.

use http::StatusCode;
use serde_json::Value;

use crate::harness::Server;

const A: &str = "0af7651916cd43dd8448eb211c80319c";

fn is_hex(value: &Value, digits: usize) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_decimal(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
}

#[tokio::test]
async fn jaeger_ui_search() {
    let server = Server::new();
    let services = server.get("/api/v3/services").await.json();
    assert!(services["services"].as_array().unwrap().iter().all(Value::is_string));
    let operations = server.get("/api/v3/operations?service=essay_lifecycle_service").await.json();
    for operation in operations["operations"].as_array().unwrap() {
        assert!(operation["name"].is_string() && operation["spanKind"].is_string());
    }
    let uri = "/api/v3/trace-summaries?query.serviceName=essay_lifecycle_service\
        &query.operationName=redis.transaction.assign_slot_atomic\
        &query.startTimeMin=2023-11-14T21%3A14%3A20.000Z&query.startTimeMax=2023-11-14T22%3A14%3A20.000Z\
        &query.searchDepth=20&query.durationMin=1ms&query.durationMax=10s\
        &query.attributes=%7B%22error%22%3A%22true%22%7D";
    let answer = server.get(uri).await;
    assert_eq!(answer.status, StatusCode::OK);
    let summaries = answer.json()["summaries"].as_array().unwrap().clone();
    assert_eq!(summaries.len(), 1);
    for summary in summaries {
        assert!(is_hex(&summary["traceId"], 32), "{summary}");
        assert!(is_decimal(&summary["minStartTimeUnixNano"]), "{summary}");
        assert!(is_decimal(&summary["maxEndTimeUnixNano"]), "{summary}");
        for count in ["spanCount", "errorSpanCount", "orphanSpanCount"] {
            assert!(summary[count].is_u64(), "{summary}");
        }
    }
}

/// An older release of the UI calls the parameters by their snake-case names and the operation
/// the span's name.
#[tokio::test]
async fn jaeger_ui_older_search() {
    let uri = "/api/v3/trace-summaries?query.service_name=essay_lifecycle_service&query.span_name=db.query\
        &query.start_time_min=2023-11-14T21%3A14%3A20.000Z&query.start_time_max=2023-11-14T22%3A14%3A20.000Z\
        &query.num_traces=20";
    let answer = Server::new().get(uri).await.json();
    assert_eq!(answer["summaries"][0]["traceId"], A);
}

#[tokio::test]
async fn jaeger_ui_pages() {
    let server = Server::new();
    let trace = server.get(&format!("/api/traces/{A}")).await.data();
    let spans = trace[0]["spans"].as_array().unwrap();
    for span in spans {
        assert!(is_hex(&span["spanID"], 16));
        assert!(span["startTime"].is_u64() && span["duration"].is_u64());
        let process = span["processID"].as_str().unwrap();
        assert!(trace[0]["processes"][process]["serviceName"].is_string());
    }
    let dependencies = server.get("/api/dependencies?endTs=1700000060000&lookback=604800000").await;
    assert!(dependencies.data()[0]["callCount"].is_u64());
    let metrics = "service=file_service&endTs=1700000060000&groupByOperation=true&lookback=3600000\
        &quantile=0.95&ratePer=600000&spanKind=server&step=60000";
    for kind in ["latencies", "calls", "errors"] {
        let family = server.get(&format!("/api/metrics/{kind}?{metrics}")).await.json();
        let labels = family["metrics"][0]["labels"].as_array().unwrap().clone();
        let names: Vec<_> = labels.iter().map(|label| label["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["operation", "service_name"], "{kind}");
    }
}

/// Grafana's data source reads the first element of `data` without looking whether there is one.
#[tokio::test]
async fn grafana() {
    let server = Server::new();
    let services = server.get("/api/services").await.json();
    assert!(services["data"].as_array().unwrap().iter().all(Value::is_string));
    assert!(
        services["total"].is_u64() && services["limit"].is_u64() && services["offset"].is_u64()
    );
    let operations = server.get("/api/services/essay_lifecycle_service/operations").await.data();
    assert!(operations.as_array().unwrap().iter().all(Value::is_string));
    let search = "/api/traces?limit=20&maxDuration=10s&minDuration=1ms\
        &operation=redis.transaction.assign_slot_atomic&service=essay_lifecycle_service\
        &tags=%7B%22error%22%3A%22true%22%2C%22transaction.result%22%3A%22aborted%22%7D";
    assert_eq!(server.get(search).await.trace_ids(), [A]);
    let with_times = format!("/api/traces/{A}?end=1700000060000&start=1699996460000");
    assert_eq!(server.get(&with_times).await.trace_ids(), [A]);
    assert_eq!(server.get("/api/traces/12345").await.status, StatusCode::NOT_FOUND);
    let dependencies = "/api/dependencies?endTs=1700000060000&lookback=3600000";
    assert!(server.get(dependencies).await.data().is_array());
}

/// Its client of v3 leaves times unescaped, so that the `+` of a time zone arrives as a space.
#[tokio::test]
async fn grafana_v3() {
    let server = Server::new();
    let uri = "/api/v3/traces?query.service_name=essay_lifecycle_service\
        &query.start_time_min=2023-11-14T23:13:20.5+02:00&query.start_time_max=2023-11-15T00:14:20+02:00";
    let answer = server.get(uri).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let json = answer.json();
    let spans = json["result"]["resourceSpans"].as_array().unwrap().iter();
    let spans = spans.flat_map(|r| r["scopeSpans"][0]["spans"].as_array().unwrap());
    for span in spans {
        assert!(span["kind"].is_u64() && is_decimal(&span["startTimeUnixNano"]), "{span}");
        for attribute in span["attributes"].as_array().into_iter().flatten() {
            let int = &attribute["value"]["intValue"];
            assert!(int.is_null() || int.is_string(), "{attribute}");
        }
    }
    let by_id = format!(
        "/api/v3/traces/{A}?start_time=2023-11-14T21:13:20+00:00&end_time=2023-11-14T23:13:20+00:00"
    );
    assert_eq!(server.get(&by_id).await.status, StatusCode::OK);
}
