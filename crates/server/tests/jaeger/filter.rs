//! `query.filter` and `query.pagination` of v3, and what `/api/v3/capabilities` says of them.

use http::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Answer, Server};

const A: &str = "0af7651916cd43dd8448eb211c80319c";
const B: &str = "00000000000000000000000000000abc";
const RANGE: &str =
    "query.startTimeMin=2023-11-14T22:13:20Z&query.startTimeMax=2023-11-14T22:14:20.5Z";

async fn ask(filter: &Value) -> Answer {
    let filter: String = form_urlencoded::byte_serialize(filter.to_string().as_bytes()).collect();
    Server::new().get(&format!("/api/v3/trace-summaries?{RANGE}&query.filter={filter}")).await
}

fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let json = answer.json();
    let summaries = json["summaries"].as_array().unwrap().iter();
    summaries.map(|summary| summary["traceId"].as_str().unwrap().to_owned()).collect()
}

fn call(op: &str, args: Value) -> Value {
    json!({"op": op, "args": args})
}

fn attr(key: &str, level: &str) -> Value {
    json!({"attr": {"key": key, "level": level}})
}

fn field(level: &str, name: &str) -> Value {
    json!({"field": {"name": name, "level": level}})
}

fn scalar(value: &str) -> Value {
    json!({"scalar": {"value": value}})
}

fn typed(value: &str, ty: &str) -> Value {
    json!({"scalar": {"value": value, "type": ty}})
}

fn list(values: &[&str]) -> Value {
    json!({"list": {"values": values}})
}

fn nested(op: &str, args: Value) -> Value {
    json!({"call": call(op, args)})
}

#[tokio::test]
async fn attributes_of_every_level_and_type() {
    let cases = [
        (call("eq", json!([attr("http.response.status_code", ""), scalar("202")])), &[A][..]),
        (call("eq", json!([attr("http.response.status_code", "span"), typed("202", "int")])), &[A]),
        // A type that is said holds.
        (
            call("eq", json!([attr("http.response.status_code", "span"), typed("202", "string")])),
            &[],
        ),
        (call("eq", json!([attr("http.response.status_code", "resource"), scalar("202")])), &[]),
        (call("eq", json!([attr("host.name", "resource"), scalar("node-2")])), &[B]),
        (call("eq", json!([attr("host.name", ""), scalar("node-2")])), &[B]),
        (call("eq", json!([attr("transaction.final", "span"), scalar("true")])), &[A]),
        (call("gt", json!([attr("transaction.backoff", "span"), typed("0.2", "double")])), &[A]),
        // Numbers are ordered as numbers: "9" is not more than 202.
        (call("gt", json!([attr("http.response.status_code", "span"), scalar("9")])), &[A]),
        (call("lt", json!([scalar("9"), attr("http.response.status_code", "span")])), &[A]),
        (call("exists", json!([attr("opentracing.ref_type", "link")])), &[A]),
        (call("in", json!([attr("host.name", "resource"), list(&["node-1", "node-2"])])), &[B, A]),
        (call("not_in", json!([attr("host.name", "resource"), list(&["node-1", "x"])])), &[B]),
        // What is not there is neither equal nor unequal.
        (call("ne", json!([attr("transaction.result", "span"), scalar("committed")])), &[A]),
        (call("ne", json!([attr("transaction.result", "span"), scalar("aborted")])), &[]),
        (call("regex", json!([attr("transaction.result", "span"), scalar("b.r")])), &[A]),
        // As versions before 2.22 wrote it.
        (call("eq", json!([{"ref": {"name": "host.name"}}, scalar("node-1")])), &[A]),
        (call("eq", json!([{"ref": {"name": "name", "level": "span"}}, scalar("db.query")])), &[A]),
    ];
    for (filter, expected) in cases {
        assert_eq!(ids(&ask(&filter).await), expected, "{filter}");
    }
}

#[tokio::test]
async fn fields_and_combinations() {
    let service = |name: &str| nested("eq", json!([field("resource", "service"), scalar(name)]));
    let failed = nested("eq", json!([field("span", "status"), scalar("Error")]));
    let long = nested("gte", json!([field("span", "duration"), scalar("1.5s")]));
    let cases = [
        (call("and", json!([service("batch_orchestrator_service"), long])), &[B][..]),
        (call("and", json!([service("file_service"), long])), &[]),
        (call("or", json!([service("file_service"), long])), &[B, A]),
        (call("not", json!([nested("exists", json!([field("span", "parentSpanID")]))])), &[B, A]),
        (call("and", json!([failed, service("batch_orchestrator_service")])), &[B]),
        (call("eq", json!([field("span", "kind"), scalar("producer")])), &[A]),
        (call("regex", json!([field("span", "kind"), scalar("^prod")])), &[A]),
        (call("ne", json!([field("span", "kind"), scalar("server")])), &[B, A]),
        (call("eq", json!([field("span", "traceID"), scalar("ABC")])), &[B]),
        (call("eq", json!([field("scope", "version"), scalar("0.1.0")])), &[A]),
        (call("eq", json!([field("link", "spanID"), scalar("fe")])), &[A]),
        (call("eq", json!([field("event", "name"), scalar("redis.exec.discarded")])), &[A]),
        (call("lt", json!([field("event", "timeSinceStart"), scalar("3500us")])), &[A]),
        (
            call("eq", json!([attr("host.name", "resource"), attr("host.name", "resource")])),
            &[B, A],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(ids(&ask(&filter).await), expected, "{filter}");
    }
    let event = json!({"nested": {"level": "event"}});
    let name =
        |op: &str| nested(op, json!([field("event", "name"), scalar("redis.exec.discarded")]));
    assert_eq!(ids(&ask(&call("some", json!([event, name("eq")]))).await), [A]);
    assert!(ids(&ask(&call("some", json!([event, name("regex")]))).await).contains(&A.to_owned()));
    // Beside the older parameters both hold.
    let filter = call("exists", json!([attr("host.name", "resource")])).to_string();
    let filter: String = form_urlencoded::byte_serialize(filter.as_bytes()).collect();
    let both = format!("{RANGE}&query.filter={filter}&query.serviceName=file_service");
    assert_eq!(ids(&Server::new().get(&format!("/api/v3/trace-summaries?{both}")).await), [A]);
}

#[tokio::test]
async fn what_is_wrong_is_said_and_what_cannot_be_answered_too() {
    let name = field("span", "name");
    let wrong = [
        (json!({"op": "matches"}), "unknown filter operator \"matches\": operators are and, or"),
        (json!({"op": "eq", "args": [{}]}), "line 1 column"),
        (json!({"op": "eq", "args": [name], "more": 1}), "unknown field `more`"),
        (call("eq", json!([name])), "`eq` takes 2 arguments, not 1"),
        (call("and", json!([nested("exists", json!([name]))])), "two predicates or more"),
        (call("not", json!([name])), "`not` takes predicates"),
        (call("eq", json!([attr("a", "pod"), scalar("b")])), "unknown filter level \"pod\""),
        (call("eq", json!([field("span", "nmae"), scalar("b")])), "has no field \"nmae\""),
        (call("eq", json!([attr("a", "span"), typed("x", "int")])), "\"x\" is not of type int"),
        (call("gt", json!([field("span", "duration"), scalar("5")])), "duration"),
        (call("eq", json!([field("span", "status"), scalar("bad")])), "unset, ok, error"),
        (call("gt", json!([field("span", "kind"), scalar("server")])), "has no order"),
        (call("eq", json!([field("span", "traceID"), scalar("xyz")])), "not an id of 32"),
        (call("in", json!([attr("a", ""), list(&[])])), "a list without values"),
        (call("regex", json!([name, scalar("a)|(b")])), "bad regular expression"),
        (call("regex", json!([field("span", "duration"), scalar("2s")])), "which is no text"),
    ];
    for (filter, says) in wrong {
        let answer = ask(&filter).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{filter}: {}", answer.text);
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("malformed parameter query.filter: "), "{filter}: {message}");
        assert!(message.contains(says), "{filter}: {message}");
    }
    let event = json!({"nested": {"level": "event"}});
    let exists = nested("exists", json!([attr("a", "event")]));
    let unsupported = [
        (call("fulltext", json!([attr("a", ""), list(&["b"])])), "operator `fulltext`"),
        (
            call("gt", json!([field("span", "startTime"), scalar("2023-11-14T22:13:20Z")])),
            "startTimeMin",
        ),
        (call("eq", json!([scalar("1"), scalar("1")])), "two constants"),
        (call("some", json!([event, nested("and", json!([exists, exists]))])), "one condition"),
        (call("some", json!([event, nested("not", json!([exists]))])), "`not` within `some`"),
    ];
    for (filter, says) in unsupported {
        let answer = ask(&filter).await;
        assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED, "{filter}: {}", answer.text);
        assert!(answer.text.contains(says), "{filter}: {}", answer.text);
    }
    let deep = (0..500)
        .fold(call("exists", json!([name])), |inner, _| call("not", json!([{"call": inner}])));
    assert_eq!(ask(&deep).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let server = Server::new();
    let page = async |more: &str| {
        let path = format!("/api/v3/trace-summaries?{RANGE}&query.pagination.pageSize=1{more}");
        server.get(&path).await
    };
    let first = page("").await;
    assert_eq!(ids(&first), [B]);
    let token = first.json()["nextPageToken"].as_str().unwrap().to_owned();
    let second = page(&format!("&query.pagination.pageToken={token}")).await;
    assert_eq!(ids(&second), [A]);
    assert_eq!(second.json()["nextPageToken"], Value::Null);
    let traces =
        server.get(&format!("/api/v3/traces?{RANGE}&query.pagination.pageSize=1")).await.json();
    assert_eq!(traces["nextPageToken"], json!(token));
    let capable = server.get("/api/v3/capabilities").await.json();
    assert_eq!(capable["search"]["paginated"], true);
    assert!(capable["search"]["filter"]["operators"].as_array().unwrap().contains(&json!("regex")));
    assert_eq!(capable["search"]["filter"]["levels"].as_array().unwrap().len(), 5);
}
