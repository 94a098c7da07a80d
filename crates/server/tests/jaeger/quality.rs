//! Trace quality: what is counted, against spans with every fault.

use serde_json::{Value, json};

use crate::harness::{Server, spans};
use crate::source::MemorySource;

const TRACE: &str = "000000000000000000000000000000aa";

fn span(id: u64, more: Value) -> Value {
    let mut span = json!({
        "traceId": TRACE, "spanId": format!("{id:016x}"), "name": "work", "kind": 1,
        "startTimeUnixNano": "1700000010000000000", "endTimeUnixNano": "1700000010001000000",
    });
    for (key, value) in more.as_object().unwrap() {
        span[key] = value.clone();
    }
    span
}

fn service(name: Option<&str>, spans: Vec<Value>) -> Value {
    let attributes: Vec<Value> = name
        .map(|name| json!({"key": "service.name", "value": {"stringValue": name}}))
        .into_iter()
        .collect();
    json!({"resource": {"attributes": attributes}, "scopeSpans": [{"spans": spans}]})
}

async fn measure(resources: Vec<Value>) -> Value {
    let request = json!({ "resourceSpans": resources }).to_string();
    let source = MemorySource { spans: spans(&request), ..MemorySource::fixtures() };
    Server::over(source).get("/api/quality-metrics?service=s&hours=1").await.json()
}

/// Passed, failed and exempt of a metric, and the first span that failed.
fn counts(answer: &Value, name: &str) -> (u64, u64, u64, String) {
    let metrics = answer["metrics"].as_array().unwrap();
    let found = metrics.iter().find(|metric| metric["name"] == name);
    let metric = found.unwrap_or_else(|| panic!("no {name}: {answer:#}"));
    let count = |key: &str| metric[key].as_u64().unwrap();
    let failed = metric["failureExamples"][0]["spanIDs"][0].as_str().unwrap_or_default();
    (count("passCount"), count("failureCount"), count("exemptionCount"), failed.to_owned())
}

#[tokio::test]
async fn every_fault_is_counted_where_it_is() {
    let link = |span: &str| json!([{"traceId": TRACE, "spanId": span}]);
    let failed = json!({"code": 2});
    let answer = measure(vec![
        service(
            Some("s"),
            vec![
                span(1, json!({})),
                span(2, json!({"parentSpanId": "0000000000000001"})),
                span(3, json!({"parentSpanId": "00000000000000ff"})),
                span(4, json!({"kind": 5, "links": link("0000000000000001")})),
                span(5, json!({"kind": 5, "links": link("00000000000000ff")})),
                span(6, json!({"kind": 5})),
                span(7, json!({"kind": 0})),
                span(8, json!({"status": failed})),
                span(9, json!({"status": {"code": 2, "message": "no slot"}})),
                span(10, json!({"status": failed, "events": [{"name": "exception"}]})),
                span(11, json!({"endTimeUnixNano": "1700000009000000000"})),
                span(
                    12,
                    json!({"parentSpanId": "0000000000000001",
                    "startTimeUnixNano": "1700000009000000000"}),
                ),
                span(13, json!({})),
                span(13, json!({"name": "other"})),
            ],
        ),
        service(None, vec![span(20, json!({"kind": 0}))]),
    ])
    .await;
    let id = |id: u64| format!("{id:016x}");
    assert_eq!(counts(&answer, "Parents are there"), (2, 1, 11, id(3)));
    assert_eq!(counts(&answer, "Links lead somewhere"), (1, 1, 12, id(5)));
    assert_eq!(counts(&answer, "Consumers know their producer"), (2, 1, 11, id(6)));
    assert_eq!(counts(&answer, "Services have names"), (14, 1, 0, id(20)));
    // The nameless service's span is judged for its name alone.
    assert_eq!(counts(&answer, "Span kinds are set"), (13, 1, 0, id(7)));
    assert_eq!(counts(&answer, "Span ids are unique"), (12, 2, 0, id(13)));
    assert_eq!(counts(&answer, "Errors say why"), (2, 1, 11, id(8)));
    let (passed, failures, _, _) = counts(&answer, "Times make sense");
    assert_eq!((passed, failures), (12, 2));
    let scores = answer["scores"].as_array().unwrap();
    assert!(scores.iter().all(|score| score["value"].as_u64().unwrap() < 100), "{scores:?}");
}

#[tokio::test]
async fn what_is_well_traced_has_full_marks() {
    let answer = measure(vec![service(Some("s"), vec![span(1, json!({}))])]).await;
    let scores = answer["scores"].as_array().unwrap();
    assert!(scores.iter().all(|score| score["value"] == 100), "{scores:?}");
    assert!(answer["bannerText"].as_str().unwrap().starts_with("s: 1 of the newest traces"));
    for (query, says) in [("", "'service' is required"), ("?service=s&hours=0", "from 1 to 8760")] {
        let answer = Server::new().get(&format!("/api/quality-metrics{query}")).await;
        assert_eq!(answer.status, http::StatusCode::BAD_REQUEST);
        assert!(answer.text.contains(says), "{}", answer.text);
    }
}
