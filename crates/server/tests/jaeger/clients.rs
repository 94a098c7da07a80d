//! What Jaeger's UI and Grafana's Jaeger data source ask, whole answers to it, and whether each answer is
//! one that the client takes. The requests are put together from the clients' sources, not captured from
//! running ones: each file says from which sources, and how.

use http::StatusCode;
use insta::assert_json_snapshot;
use serde::Deserialize;
use serde_json::Value;

use crate::harness::Server;
use crate::schemas;

#[derive(Deserialize)]
struct Reconstructed {
    requests: Vec<Request>,
}

#[derive(Deserialize)]
struct Request {
    name: String,
    schema: String,
    uri: String,
}

async fn replay(client: &str, file: &str) {
    let client_asks: Reconstructed = serde_json::from_str(file).unwrap();
    let server = Server::new();
    for Request { name, schema, uri } in client_asks.requests {
        let answer = server.get(&uri).await;
        assert_eq!(answer.status, StatusCode::OK, "{client} {name}: {}", answer.text);
        let json: Value = answer.json();
        if let Err(why) = schemas::check(&schema, &json) {
            panic!("{client} would not take the answer to {name}: {why}\n{json:#}");
        }
        assert_json_snapshot!(format!("{client}_{name}"), json);
    }
}

#[tokio::test]
async fn jaeger_ui_is_answered() {
    replay("ui", include_str!("fixtures/requests/jaeger_ui.json")).await;
}

#[tokio::test]
async fn grafana_is_answered() {
    replay("grafana", include_str!("fixtures/requests/grafana.json")).await;
}

/// Grafana reads the first element of `data` without looking whether there is one: a trace that is not
/// there must not be an empty list.
#[tokio::test]
async fn grafana_is_told_of_a_missing_trace_by_the_status() {
    for uri in ["/api/traces/12345", "/api/v3/traces/12345"] {
        assert_eq!(Server::new().get(uri).await.status, StatusCode::NOT_FOUND, "{uri}");
    }
}

/// The UI shows the messages of `errors` if the status is 400 or more, and passes over them else.
#[tokio::test]
async fn what_is_wrong_comes_as_the_ui_reads_it() {
    let answer = Server::new().get("/api/traces?limit=x").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    assert!(errors[0]["code"] == 400 && errors[0]["msg"].is_string());
}

#[test]
fn the_schemas_refuse_what_the_clients_would() {
    let trace = |span: &str| {
        format!(r#"{{"result":{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}}}"#)
    };
    let good =
        r#"{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"00f067aa0ba90201","kind":2}"#;
    for (schema, json, takes) in [
        ("services", r#"{"services":["a"]}"#.to_owned(), true),
        ("services", r#"{"services":[1]}"#.to_owned(), false),
        ("summaries", r#"{"summaries":[{"traceId":"abc"}]}"#.to_owned(), false),
        ("trace_v3", trace(good), true),
        ("trace_v3", trace(&good.replace("2}", "\"SPAN_KIND_SERVER\"}")), false),
        ("trace_v3", trace(&good.replace("2}", r#"2,"parentSpanId":""}"#)), false),
        ("trace_v3", trace(&good.replace("2}", r#"2,"startTimeUnixNano":5}"#)), false),
        (
            "trace_v3",
            trace(&good.replace("2}", r#"2,"attributes":[{"key":"k","value":{"intValue":5}}]}"#)),
            false,
        ),
        ("go_names", r#"{"data":[1]}"#.to_owned(), false),
        ("go_one_trace", r#"{"data":[]}"#.to_owned(), false),
        ("quality", r#"{"scores":[],"metrics":[]}"#.to_owned(), false),
    ] {
        let json = serde_json::from_str(&json).unwrap();
        assert_eq!(schemas::check(schema, &json).is_ok(), takes, "{schema} {json}");
    }
}
