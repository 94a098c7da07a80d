//! Names and values for completing a query.

use http::StatusCode;
use lacuna_store::{Options, Store};
use serde_json::{Value, json};

use crate::{START, append, filled, get, query};

#[tokio::test]
async fn names_and_values_of_both_versions() {
    let (_folder, store) = filled(Options::default());
    let names = get(&store, "/api/search/tags").await.json();
    let names = names["tagNames"].as_array().unwrap();
    assert!(names.contains(&json!("tenant")) && names.contains(&json!("service.name")));
    let values = get(&store, "/api/search/tag/tenant/values").await.json();
    assert_eq!(values, json!({"tagValues": ["a b", "c", "d"]}));
    let scoped = get(&store, "/api/v2/search/tag/span.tenant/values?limit=2").await.json();
    assert_eq!(scoped["tagValues"].as_array().unwrap().len(), 2);
    let warning = scoped["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("only a part: there are more values"), "{warning}");
    assert_eq!(get(&store, "/api/echo").await.1, "echo");
}

/// What Grafana's query builder completes with: the type says how it writes the value.
#[tokio::test]
async fn values_have_types_and_are_of_the_spans_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), Options::default()).unwrap();
    let mixed = [
        json!({"intValue": "200"}),
        json!({"stringValue": "200"}),
        json!({"doubleValue": 1.5}),
        json!({"boolValue": true}),
        json!({"arrayValue": {"values": [{"intValue": "7"}, {"stringValue": "x"}]}}),
        json!({"bytesValue": "AQI="}),
    ];
    let spans: Vec<Value> = (1..)
        .zip(mixed)
        .map(|(id, value): (u64, Value)| {
            let at = (START + id).to_string();
            let attribute = |key: &str| json!({"key": key, "value": value});
            json!({"traceId": format!("{id:032x}"), "spanId": format!("{id:016x}"),
                "name": format!("work {id}"), "startTimeUnixNano": at, "endTimeUnixNano": at,
                "parentSpanId": if id > 1 { "00000000000000aa" } else { "" },
                "status": {"code": 2, "message": format!("failed {id}")},
                "attributes": [attribute("code")],
                "events": [{"timeUnixNano": at, "name": "tried", "attributes": [attribute("try")]}],
                "links": [{"traceId": format!("{id:032x}"), "spanId": format!("{id:016x}"),
                    "attributes": [attribute("why")]}]})
        })
        .collect();
    let name = json!({"key": "service.name", "value": {"stringValue": "shop"}});
    let request = json!({"resourceSpans": [
        {"resource": {"attributes": [name]}, "scopeSpans": [{"spans": spans}]}]});
    append(&store, &serde_json::to_vec(&request).unwrap());
    let typed = json!([
        {"value": "1.5", "type": "float"}, {"value": "200", "type": "int"},
        {"value": "200", "type": "string"}, {"value": "7", "type": "int"},
        {"value": "true", "type": "bool"}, {"value": "x", "type": "string"},
    ]);
    let text = |text: &str| json!([{"value": text, "type": "string"}]);
    for place in ["memory", "segment"] {
        for (field, q, expected) in [
            ("span.code", "", typed.clone()),
            (".code", "", typed.clone()),
            ("event.try", "", typed.clone()),
            ("link.why", "", typed.clone()),
            ("span.code", "{ name = \"work 1\" }", json!([{"value": "200", "type": "int"}])),
            ("event.try", "{ span.code > 100 }", json!([{"value": "200", "type": "int"}])),
            ("rootName", "", text("work 1")),
            ("rootServiceName", "", text("shop")),
            ("statusMessage", "{ span.code = 1.5 }", text("failed 3")),
            ("name", "{ span.code }", text("work 4")),
            ("event:name", "", text("tried")),
        ] {
            let query: String = form_urlencoded::byte_serialize(q.as_bytes()).collect();
            let path = format!("/api/v2/search/tag/{field}/values?q={query}");
            let found = get(&store, &path).await.json();
            assert_eq!(found["tagValues"], expected, "{place}: {field} {q}");
            assert_eq!(found["warnings"], Value::Null, "{place}: {field} {q}");
        }
        let names = async |params: &str| {
            get(&store, &format!("/api/v2/search/tags?{params}")).await.json()["scopes"].clone()
        };
        assert_eq!(names("scope=event").await, json!([{"name": "event", "tags": ["try"]}]));
        assert_eq!(names("scope=link").await, json!([{"name": "link", "tags": ["why"]}]));
        let none = "scope=span&q=%7Bname%3D%22none%22%7D";
        assert_eq!(names(none).await, json!([{"name": "span", "tags": []}]));
        assert_eq!(names("scope=span").await, json!([{"name": "span", "tags": ["code"]}]));
        store.flush().unwrap();
    }
    // Every value finds its span when it is written as its type says.
    for value in typed.as_array().unwrap() {
        let text = value["value"].as_str().unwrap();
        let quote = if value["type"] == "string" { "\"" } else { "" };
        let found = query(&store, &format!("{{ span.code = {quote}{text}{quote} }}")).await;
        assert_eq!(found.traces().len(), 1, "{value}");
    }
    let odd = get(&store, "/api/v2/search/tag/span.code/values?q=%7B+span.x+%3D").await.json();
    assert!(odd["warnings"][0].as_str().unwrap().starts_with("q was passed over: column"), "{odd}");
    let one = get(&store, "/api/search?limit=0&spss=0").await.json();
    assert_eq!(one["traces"].as_array().unwrap().len(), 6);
    assert_eq!(get(&store, "/api/v2/search/tag/duration/values").await.0, StatusCode::BAD_REQUEST);
}
