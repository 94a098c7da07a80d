//! `lacuna query` and the search API: the same answers from a folder, from files and from a server.

use std::ffi::OsStr;
use std::path::Path;

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;
use serde_json::{Value, json};

use crate::support::otlp::{Encoding, MILLI, SECOND, headers, log, logs, span, trace_id, traces};
use crate::support::server::{Serve, Server, run};

/// 2026-11-23T08:00:00Z.
const START: u64 = 1_795_420_800 * SECOND;

/// Trace 1: a consumer with a Redis step below it. Trace 2: a consumer without one, and a failed
/// step of another kind. Trace 3: a Redis step whose consumer never came.
fn spans() -> Vec<Span> {
    let named = |id, trace, parent: u64, name: &str, start| Span {
        trace_id: trace_id(trace).to_be_bytes().to_vec(),
        parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
        ..span(id, name, start, &[("essay.id", &format!("essay-{trace}"))])
    };
    let failed = Status { code: 2, message: "no slot".to_owned() };
    vec![
        named(1, 1, 0, "consume essays", START),
        named(11, 1, 1, "redis.transaction", START + MILLI),
        named(2, 2, 0, "consume essays", START + SECOND),
        Span { status: Some(failed), ..named(12, 2, 2, "publish", START + SECOND + MILLI) },
        named(13, 3, 99, "redis.transaction", START + 2 * SECOND),
    ]
}

fn records() -> Vec<LogRecord> {
    let record = |text: &str, severity, time| LogRecord {
        time_unix_nano: time,
        severity_number: severity,
        trace_id: trace_id(1).to_be_bytes().to_vec(),
        ..log(text, &[("essay.id", "essay-1")])
    };
    vec![record("Assigned slot", 9, START), record("No slot\nleft", 13, START + SECOND)]
}

async fn filled(data: &Path) -> Server {
    let server = Serve::on(data).start();
    let protobuf = headers(Encoding::Protobuf, "identity");
    let body = traces("els", spans()).encode_to_vec();
    server.send("traces", &protobuf, body).await.ok();
    server.send("logs", &protobuf, logs("els", records()).encode_to_vec()).await.ok();
    server
}

/// Runs `lacuna query` off the threads that answer requests.
async fn query(args: Vec<String>) -> std::process::Output {
    let done =
        tokio::task::spawn_blocking(move || run(std::iter::once("query".to_owned()).chain(args)));
    done.await.unwrap()
}

fn ids(answer: &Value) -> Vec<u64> {
    let traces = answer["traces"].as_array().unwrap().iter();
    let id = |trace: &Value| {
        let id = u128::from_str_radix(trace["traceID"].as_str().unwrap(), 16).unwrap();
        (id & u128::from(u64::MAX)) as u64
    };
    traces.map(id).collect()
}

/// Scenario: every structural operator, from a server, from its folder, and from an export of it.
/// Guarantees: the same answers from all three; "a parent without such a child" among them.
#[tokio::test]
async fn traces_by_structure_from_everywhere() {
    let cases: [(&str, &[u64]); 12] = [
        ("{ }", &[3, 2, 1]),
        ("{ name = \"consume essays\" }", &[2, 1]),
        ("{ status = error }", &[2]),
        ("{ span.essay.id = \"essay-3\" }", &[3]),
        ("{ name = \"consume essays\" } > { name = \"redis.transaction\" }", &[1]),
        ("{ name = \"consume essays\" } >> { status = error }", &[2]),
        // A parent without such a child.
        ("{ name = \"redis.transaction\" } !< { name = \"consume essays\" }", &[2]),
        ("{ name = \"redis.transaction\" } !<< { name = \"consume essays\" }", &[2]),
        // A child without such a parent.
        ("{ name = \"consume essays\" } !> { name = \"redis.transaction\" }", &[3]),
        ("{ name = \"consume essays\" } !>> { name = \"redis.transaction\" }", &[3]),
        ("{ name = \"publish\" } || { name = \"redis.transaction\" }", &[3, 2, 1]),
        ("{ name = \"publish\" } ~ { name = \"redis.transaction\" }", &[]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = filled(&data).await;
    let url = server.query.clone();
    let ask = async |place: &[&str], text: &str| {
        let args = ["traces", text, "--format", "json"].into_iter().chain(place.iter().copied());
        let output = query(args.map(str::to_owned).collect()).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}: {stderr}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let mut answers = Vec::new();
    for (text, expected) in cases {
        let answer = ask(&["--url", &url], text).await;
        assert_eq!(ids(&answer), expected, "{text}");
        answers.push(answer);
    }
    assert!(server.stop().await.success());
    let export = dir.path().join("all.pb.gz");
    let args = ["export".as_ref(), "--format".as_ref(), "protobuf".as_ref(), "--out".as_ref()];
    let rest = [export.as_os_str(), "--data".as_ref(), data.as_os_str()];
    assert!(run(args.into_iter().chain::<[&OsStr; 3]>(rest)).status.success());
    let (data, export) = (data.to_str().unwrap(), export.to_str().unwrap());
    for ((text, _), answer) in cases.iter().zip(&answers) {
        assert_eq!(&ask(&["--data", data], text).await, answer, "{text}");
        assert_eq!(&ask(&["--input", export], text).await, answer, "{text}");
    }
}

/// Guarantees: `/api/search` answers in Tempo's shape, within its parameters; what is wrong is 400
/// with the column and what would be right.
#[tokio::test]
async fn the_search_api_is_tempos() {
    let dir = tempfile::tempdir().unwrap();
    let server = filled(dir.path()).await;
    let q = "%7B%20name%20%3D%20%22consume%20essays%22%20%7D";
    let found = server.json(&format!("/api/search?q={q}&limit=1&spss=1")).await;
    assert_eq!(ids(&found), [2]);
    assert_eq!(found["cut"], true);
    let trace = &found["traces"][0];
    assert_eq!(trace["rootServiceName"], "els");
    assert_eq!(trace["rootTraceName"], "consume essays");
    assert_eq!(trace["startTimeUnixNano"], (START + SECOND).to_string());
    assert_eq!(trace["durationMs"], 6);
    assert_eq!(trace["serviceStats"], json!({"els": {"spanCount": 2, "errorCount": 1}}));
    let set = json!({"matched": 1, "spans": [{
        "spanID": "0000000000000002", "name": "consume essays",
        "startTimeUnixNano": (START + SECOND).to_string(), "durationNanos": "5000000",
        "attributes": [{"key": "service.name", "value": {"stringValue": "els"}}],
    }]});
    assert_eq!(trace["spanSets"], json!([set]));
    assert_eq!(trace["spanSet"], set);

    // An orphan has no root yet; attributes of the query come with the span.
    let q = "%7B%20span.essay.id%20%3D%20%22essay-3%22%20%7D";
    let found = server.json(&format!("/api/search?q={q}")).await;
    assert_eq!(found["traces"][0]["rootTraceName"], "<root span not yet received>");
    let attributes = &found["traces"][0]["spanSet"]["spans"][0]["attributes"];
    assert_eq!(attributes[1], json!({"key": "essay.id", "value": {"stringValue": "essay-3"}}));

    let seconds = START / SECOND;
    for (range, expected) in [
        (format!("start={seconds}&end={}", seconds + 1), vec![1]),
        (format!("start={}", seconds + 1), vec![3, 2]),
        ("start=2026-11-23T08:00:01Z&end=2026-11-23T08:00:02Z".to_owned(), vec![2]),
    ] {
        let found = server.json(&format!("/api/search?{range}")).await;
        assert_eq!(ids(&found), expected, "{range}");
    }
    for (params, says) in [
        ("q=%7B%20nmae%20%3D%201%20%7D", "column 3: `nmae` is not a field (did you mean `name`?)"),
        ("q=%7B%20%7D%20%26%20%7B%20%7D", "`&` comes after the end"),
        ("q=log%20%7B%20%7D", "GET /api/v1/logs"),
        ("limit=10001", "expected a number from 1"),
        ("start=soon", "expected seconds since the epoch"),
        ("start=5&end=4", "start is not before end"),
    ] {
        let answer = server.get(&format!("/api/search?{params}")).await;
        assert_eq!(answer.status, 400, "{params}");
        assert!(answer.text().contains(says), "{params}: {}", answer.text());
    }

    let tags = server.json("/api/v2/search/tags?scope=span").await;
    assert_eq!(tags, json!({"scopes": [{"name": "span", "tags": ["essay.id"]}]}));
    let values = server.json("/api/v2/search/tag/resource.service.name/values").await;
    assert_eq!(values, json!({"tagValues": [{"type": "string", "value": "els"}]}));
    let names = server.json("/api/v2/search/tag/name/values").await;
    assert_eq!(names["tagValues"].as_array().unwrap().len(), 3);
    assert_eq!(server.get("/api/v2/search/tag/duration/values").await.status, 400);
    assert_eq!(server.get("/api/echo").await.ok().text(), "echo");
}

/// Guarantees: log records by selector, over HTTP and on the command line, as a table, as JSON and
/// as OTLP.
#[tokio::test]
async fn logs_by_selector() {
    let dir = tempfile::tempdir().unwrap();
    let server = filled(dir.path()).await;
    let found = server.json("/api/v1/logs?q=log%20%7B%20severity%20%3E%3D%20warn%20%7D").await;
    assert_eq!(found["cut"], false);
    let expected = json!([{
        "time": "2026-11-23T08:00:01Z", "severity": 13, "severity_text": "INFO", "service": "els",
        "body": "No slot\nleft", "trace_id": format!("{:032x}", trace_id(1)),
        "attributes": {"essay.id": "essay-1"}, "resource": {"service.name": "els"},
    }]);
    assert_eq!(found["logs"], expected);
    assert_eq!(server.json("/api/v1/logs?limit=1").await["cut"], true);
    assert_eq!(server.get("/api/v1/logs?q=%7B%20%7D").await.status, 400);
    let ask = async |more: &[&str]| {
        let args = ["logs", "log { .essay.id = \"essay-1\" }", "--url", &server.query];
        let output = query(args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (table, _) = ask(&[]).await;
    let trace = format!("{:032x}", trace_id(1));
    let lines = [
        format!("2026-11-23T08:00:01.000Z  INFO   els  No slot\\nleft  {trace}"),
        format!("2026-11-23T08:00:00.000Z  INFO   els  Assigned slot  {trace}"),
    ];
    assert_eq!(table.lines().collect::<Vec<_>>(), lines);
    let (json, more) = ask(&["--limit", "1", "--format", "json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["logs"], expected);
    assert!(more.contains("There are more log records"), "{more}");
    let (otlp, _) = ask(&["--format", "otlp", "--to", "2026-11-23T08:00:01Z"]).await;
    assert!(otlp.starts_with("{\"resourceLogs\"") && !otlp.contains("No slot"), "{otlp}");
}

/// Guarantees: a trace as a tree, its orphans counted; OTLP of it goes in again; what is wrong in a
/// query or an id is said where it is.
#[tokio::test]
async fn a_trace_as_a_tree_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let server = filled(dir.path()).await;
    assert!(server.stop().await.success());
    let data = dir.path().to_str().unwrap();
    let ask = async |args: &[&str]| {
        let args = args.iter().copied().chain(["--data", data]);
        query(args.map(str::to_owned).collect()).await
    };
    let id = |number| format!("{:032x}", trace_id(number));
    let output = ask(&["trace", &id(2)]).await;
    let expected = [
        format!("trace {}  2 spans", id(2)),
        "   5.0 ms  consume essays  els".to_owned(),
        "   5.0 ms    publish  els  error no slot".to_owned(),
    ];
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), expected);
    let output = ask(&["trace", &id(3), "--format", "json"]).await;
    let tree: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&tree["orphans"], &tree["spans"][0]["depth"]), (&1.into(), &0.into()));
    let output = ask(&["traces", "{ status = error }", "--format", "otlp"]).await;
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 1);
    assert_eq!(lines.matches("\"spanId\"").count(), 2);
    let table = ask(&["traces", "{ status = error }", "--from", "2026-11-01T00:00:00Z"]).await;
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("els consume essays  2 spans, 1 error"), "{table}");

    for (args, says) in [
        (&["trace", &id(9)][..], "there is no trace"),
        (&["trace", "xyz"], "invalid value 'xyz'"),
        (&["traces", "{ nmae = 1 }"], "column 3: `nmae` is not a field"),
        (&["traces", "log { }"], "lacuna query logs"),
        (&["logs", "{ }"], "lacuna query traces"),
        (&["traces", "{ }", "--from", "1h", "--to", "2h"], "`from` must come before `to`"),
        (&["traces", "{ }", "--from", "yesterday"], "is not a time: write RFC 3339"),
    ] {
        let output = ask(args).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(says), "{args:?}: {said}");
    }
}

/// Scenario: records of two services, written in turn, and a limit between them.
/// Guarantees: a server gives the same rows as its folder, newest first across services, in every
/// format; that there are more is told.
#[tokio::test]
async fn logs_of_two_services_are_in_order_from_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Serve::on(&data).start();
    let protobuf = headers(Encoding::Protobuf, "identity");
    for (service, first) in [("alpha", 0), ("beta", 1)] {
        let record = |i: u64| LogRecord {
            time_unix_nano: START + (2 * i + first) * SECOND,
            ..log(&format!("{service} {i}"), &[])
        };
        let body = logs(service, (0..5).map(record).collect()).encode_to_vec();
        server.send("logs", &protobuf, body).await.ok();
    }
    let ask = async |place: &[&str], format: &str| {
        let args = ["logs", "log { }", "--limit", "3", "--format", format];
        let args = args.into_iter().chain(place.iter().copied());
        let output = query(args.map(str::to_owned).collect()).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("There are more log records"), "{format}: {said}");
        String::from_utf8(output.stdout).unwrap()
    };
    let url = server.query.clone();
    let formats = ["table", "json", "otlp"];
    let mut from_server = Vec::new();
    for format in formats {
        from_server.push(ask(&["--url", &url], format).await);
    }
    let lines: Vec<&str> = from_server[0].lines().collect();
    for (line, text) in lines.iter().zip(["beta 4", "alpha 4", "beta 3"]) {
        assert!(line.contains(text), "{line}");
    }
    assert_eq!(lines.len(), 3);
    assert!(server.stop().await.success());
    for (format, expected) in formats.into_iter().zip(&from_server) {
        let found = ask(&["--data", data.to_str().unwrap()], format).await;
        assert_eq!(&found, expected, "{format}");
    }
}
