//! `contracts run`, `contracts mine` and `explain` over files, a data folder and a running server.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use opentelemetry_proto::tonic::trace::v1::Status;
use prost::Message;
use serde_json::{Value, json};

use crate::support::otlp::{
    Encoding, MILLI, SECOND, headers, log, logs, now, span, trace_id, traces,
};
use crate::support::server::{Serve, Server, lacuna, run};

pub const CONTRACT: &str = r#"contracts:
  - name: taken-then-done
    severity: critical
    when:   '{ name = "take" }'
    expect: '{ name = "done" }'
    key:    {when: [span.correlation_id], expect: [span.correlation]}
    within: 10s
"#;

pub async fn send(server: &Server, signal: &str, body: Vec<u8>) {
    server.send(signal, &headers(Encoding::Protobuf, "identity"), body).await.ok();
}

/// Three activations a minute ago: `a` is done, `b` is lost below an error in its own trace, `c` is
/// not due before the data ends. Gives the time of the first.
async fn send_story(server: &Server) -> u64 {
    let start = now() - 60 * SECOND;
    let key = |key| [("correlation_id", key)];
    let mut failed = span(12, "redis.transaction.failed", start + SECOND + 5 * MILLI, &[]);
    failed.trace_id = trace_id(2).to_be_bytes().to_vec();
    failed.parent_span_id = 2u64.to_be_bytes().to_vec();
    failed.status = Some(Status { code: 2, message: "Transaction discarded".to_owned() });
    // Another instance in the same trace.
    let mut stranger = span(13, "take.other", start + SECOND + 6 * MILLI, &key("z"));
    stranger.trace_id = trace_id(2).to_be_bytes().to_vec();
    stranger.parent_span_id = 12u64.to_be_bytes().to_vec();
    let spans = vec![
        span(1, "take", start, &key("a")),
        span(2, "take", start + SECOND, &key("b")),
        failed,
        stranger,
        span(3, "take", start + 30 * SECOND, &key("c")),
        span(4, "done", start + 2 * SECOND, &[("correlation", "a")]),
        span(5, "tick", start + 31 * SECOND, &[]),
    ];
    send(server, "traces", traces("worker", spans).encode_to_vec()).await;
    let mut said = log("No available slot", &key("b"));
    said.time_unix_nano = start + SECOND + 7 * MILLI;
    send(server, "logs", logs("worker", vec![said]).encode_to_vec()).await;
    start
}

pub fn stdout(output: std::process::Output, status: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn rfc3339(nanos: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap().to_string()
}

pub fn verdicts(report: &Value) -> Value {
    let mut verdicts = report["contracts"][0]["verdicts"].as_object().unwrap().clone();
    verdicts.retain(|_, count| *count != json!(0));
    Value::Object(verdicts)
}

/// Everything that the server holds, as a file of lines.
pub async fn export(server: &Server, file: &Path) {
    let answer = server.get("/api/v1/export").await;
    assert_eq!(answer.status, 200);
    std::fs::write(file, answer.body).unwrap();
}

/// Scenario: the same history is a running server's, a file that it exported, and its data folder
/// after it has stopped.
/// Guarantees: `contracts run` says the same of all three, in the JSON that is promised; what is not
/// due before the data ends is open and says so; a window leaves out what lies outside it.
#[tokio::test]
async fn contracts_run_alike_over_a_server_a_file_and_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("all.jsonl"));
    let contracts = dir.path().join("c.yaml");
    std::fs::write(&contracts, CONTRACT).unwrap();
    let server = Serve::on(&data).start();
    let start = send_story(&server).await;
    export(&server, &file).await;
    let run_over = |source: &[&str], more: &[&str]| {
        let contracts = contracts.to_str().unwrap();
        let args = ["contracts", "run", contracts, "--format", "json"];
        let output = run(args.iter().chain(source).chain(more));
        let status = output.status.code().unwrap();
        (status, serde_json::from_str::<Value>(&stdout(output, status)).unwrap())
    };
    let (query, folder) = (server.query.clone(), data.to_str().unwrap());
    let url = ["--url", query.as_str()];
    let (status, report) = run_over(&url, &[]);
    assert_eq!(status, 1, "something was found");
    assert_eq!(verdicts(&report), json!({"fulfilled": 1, "missed": 1, "open": 1}));
    let contract = &report["contracts"][0];
    assert_eq!(contract["activations"], 3);
    assert_eq!(
        (&contract["name"], &contract["kind"]),
        (&json!("taken-then-done"), &json!("response"))
    );
    let missed = &contract["instances"][0];
    assert_eq!((&missed["key"], &missed["verdict"]), (&json!(["b"]), &json!("missed")));
    assert_eq!(missed["activated_at"], rfc3339(start + SECOND));
    assert_eq!(missed["deadline"], rfc3339(start + 11 * SECOND));
    assert_eq!(missed["trace_ids"], json!([format!("{:032x}", trace_id(2))]));
    assert!(missed["figures"].is_object() && missed["resolved_at"].is_string(), "{missed}");
    assert_eq!(contract["open"]["count"], 1);
    let why = contract["open"]["why"].as_str().unwrap();
    assert!(why.contains("after the data's end"), "{why}");

    let (from, to) = (rfc3339(start + SECOND), rfc3339(start + 30 * SECOND));
    let window = ["--from", from.as_str(), "--to", to.as_str()];
    let (_, windowed) = run_over(&url, &window);
    assert_eq!(windowed["contracts"][0]["activations"], 1);
    assert_eq!(run_over(&["--input", file.to_str().unwrap()], &window).1, windowed);
    let (_, recent) = run_over(&url, &["--from", "1h"]);
    assert_eq!(recent, report);
    let (status, none) = run_over(&url, &["--to", "1h"]);
    assert_eq!((status, &none["contracts"][0]["activations"]), (0, &json!(0)));

    assert!(server.stop().await.success());
    assert_eq!(run_over(&["--input", file.to_str().unwrap()], &[]), (1, report.clone()));
    assert_eq!(run_over(&["--data", folder], &[]), (1, report));
    assert_eq!(run_over(&["--data", folder], &window).1, windowed);
}

/// Scenario: key `b` of the story, whose trace holds an error that does not carry the key, another
/// instance, and whose log record has no trace.
/// Guarantees: every source tells the same story: in order, what carries the key marked, the other
/// instance left out and counted, the missed verdict at its deadline, found by either of the names
/// that the contract joins; the text keeps to 80 columns and has no colour in a pipe.
#[tokio::test]
async fn the_story_of_a_key_is_told_across_traces() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("all.jsonl"));
    let contracts = dir.path().join("contracts");
    std::fs::create_dir(&contracts).unwrap();
    std::fs::write(contracts.join("c.yaml"), CONTRACT).unwrap();
    let server =
        Serve::on(&data).contracts(&contracts).args(&["--lateness", "1s", "--idle", "1h"]).start();
    let start = send_story(&server).await;
    export(&server, &file).await;
    let explain = |key: &str, source: &[&str], more: &[&str], status: i32| {
        let key = format!("correlation_id={key}");
        let args = ["explain", "--key", key.as_str()];
        stdout(run(args.iter().chain(source).chain(more)), status)
    };
    // The monitor runs behind the acknowledgement.
    crate::support::eventually("the verdict", || async {
        let findings = server.json("/api/v1/findings?status=open").await;
        (!findings["findings"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;

    let query = server.query.clone();
    let url = ["--url", query.as_str()];
    let told: Value = serde_json::from_str(&explain("b", &url, &["--format", "json"], 1)).unwrap();
    let events: Vec<_> = told["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let name = ["name", "body", "verdict"].iter().find_map(|field| event[field].as_str());
            (name.unwrap().to_owned(), event["carries_key"].as_bool().unwrap())
        })
        .collect();
    let expected = [
        ("take", true),
        ("redis.transaction.failed", false),
        ("No available slot", true),
        ("missed", true),
    ];
    assert_eq!(events, expected.map(|(name, own)| (name.to_owned(), own)));
    assert_eq!(told["others"], 1);
    let verdict = &told["events"][3];
    assert_eq!(verdict["at"], rfc3339(start + 11 * SECOND));
    assert_eq!(verdict["after"], 10 * SECOND);
    assert_eq!(verdict["contract"], "taken-then-done");

    // The outcome of `a` carries the key by the name that the contract gives it.
    let done: Value = serde_json::from_str(&explain("a", &url, &["--format", "json"], 0)).unwrap();
    assert!(done["events"].as_array().unwrap().iter().any(|e| e["name"] == "done"), "{done}");

    let text = explain("b", &url, &[], 1);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    for says in
        ["correlation_id = b", "+10.000 s", "MISSED  taken-then-done", "Transaction discarded"]
    {
        assert!(text.contains(says), "{says}:\n{text}");
    }

    let with = ["--contracts", contracts.to_str().unwrap(), "--format", "json"];
    let of_file = explain("b", &["--input", file.to_str().unwrap()], &with, 1);
    assert_eq!(serde_json::from_str::<Value>(&of_file).unwrap(), told);
    let mut piped = lacuna(["explain", "--key", "correlation_id=b", "--input", "-"])
        .args(with)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    piped.stdin.take().unwrap().write_all(&std::fs::read(&file).unwrap()).unwrap();
    let of_pipe = stdout(piped.wait_with_output().unwrap(), 1);
    assert_eq!(serde_json::from_str::<Value>(&of_pipe).unwrap(), told);
    assert!(server.stop().await.success());
    let of_folder = explain("b", &["--data", data.to_str().unwrap()], &with, 1);
    assert_eq!(serde_json::from_str::<Value>(&of_folder).unwrap(), told);
    let nothing =
        run(["explain", "--key", "correlation_id=nobody", "--data", data.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing carries that key"));
}

/// Scenario: the outcome is a log record that has the key in its text alone, outside any trace; two
/// records differ in nothing but an attribute.
/// Guarantees: the story has the record where a contract joins by the text, and not another key's
/// whose value only begins alike; both of the two are told.
#[tokio::test]
async fn a_story_has_what_carries_the_key_in_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let (data, contracts) = (dir.path().join("data"), dir.path().join("contracts"));
    std::fs::create_dir(&contracts).unwrap();
    let text = CONTRACT
        .replace("'{ name = \"done\" }'", "'log { body =~ \"Packed .*\" }'")
        .replace("[span.correlation]", r#"['body =~ "order_id=(\\S+)"']"#);
    std::fs::write(contracts.join("c.yaml"), text).unwrap();
    let server = Serve::on(&data).contracts(&contracts).start();
    let start = now() - 60 * SECOND;
    let take = span(1, "take", start, &[("correlation_id", "7")]);
    send(&server, "traces", traces("shop", vec![take]).encode_to_vec()).await;
    let retry = |attempt| log("retry", &[("correlation_id", "7"), ("attempt", attempt)]);
    let records = vec![
        log("Packed order_id=7 for somebody", &[]),
        log("Packed order_id=70 for somebody", &[]),
        retry("1"),
        retry("2"),
    ];
    let mut records: Vec<_> = records.into_iter().collect();
    records.iter_mut().for_each(|record| {
        record.time_unix_nano = start + SECOND;
        record.trace_id.clear();
        record.span_id.clear();
    });
    send(&server, "logs", logs("packer", records).encode_to_vec()).await;
    let told = server.json("/api/v1/explain?key=correlation_id%3D7").await;
    let events = told["events"].as_array().unwrap();
    let bodies: Vec<_> = events.iter().filter_map(|event| event["body"].as_str()).collect();
    assert_eq!(bodies, ["Packed order_id=7 for somebody", "retry", "retry"], "{told}");
    assert_eq!(told["key"][0]["texts"][0]["signal"], "logs");
    assert!(events.iter().all(|event| event["carries_key"] == true), "{told}");
}

/// Guarantees: times, keys, shares and addresses that are none are refused with what would be right.
#[tokio::test]
async fn wrong_questions_are_told_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, CONTRACT).unwrap();
    let file = file.to_str().unwrap();
    for (args, says) in [
        (&["contracts", "run", file, "--input", file, "--from", "yesterday"][..], "RFC 3339"),
        (
            &["contracts", "run", file, "--input", file, "--from", "1h", "--to", "2h"],
            "must come before",
        ),
        (&["contracts", "run", file, "--url", "localhost:16686"], "http://127.0.0.1:16686"),
        (&["contracts", "run", file, "--url", "http://127.0.0.1:1"], "no answer"),
        (&["contracts", "run", file], "--input <FILE>"),
        (&["contracts", "mine", "--input", file, "--min-support", "2"], "between 0 and 1"),
        (&["explain", "--key", "x", "--input", file], "an attribute and its value"),
    ] {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
    let server = Serve::on(&dir.path().join("data")).start();
    for (path, says) in [
        ("/api/v1/export?from=soon", "RFC 3339"),
        ("/api/v1/export?signals=smoke", "spans, logs and metrics"),
        ("/api/v1/explain", "a key is missing"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 400);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains(says), "{body}");
    }
}

/// Guarantees: `contracts check` tells what is beyond retention, what the data lacks, and that a
/// folder is empty, at the place; a file given to `serve` as its folder is told so.
#[tokio::test]
async fn contracts_are_checked_against_data_and_retention() {
    let dir = tempfile::tempdir().unwrap();
    let server = Serve::on(&dir.path().join("data")).start();
    send_story(&server).await;
    let file = dir.path().join("c.yaml");
    let wrong = CONTRACT.replace("expect: [span.correlation]", "expect: [span.correlation_ident]");
    std::fs::write(&file, wrong.replace("10s", "9d")).unwrap();
    let check = |more: &[&str]| {
        let args = ["contracts", "check", file.to_str().unwrap()];
        let output = run(args.iter().chain(more));
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let query = server.query.clone();
    let (status, said) = check(&["--retention-age", "7d", "--url", &query]);
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("c.yaml:7:13: `within` is 216h, but data is kept for 168h"), "{said}");
    let lacks = "c.yaml:6:13: a key that one side lacks: none of the 1 spans that `expect` matches \
                 has `span.correlation_ident` (did you mean `span.correlation`?)";
    assert!(said.contains(lacks), "{said}");
    assert_eq!(check(&["--retention-age", "30d"]).0, 0);

    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    for args in [&["contracts", "check", empty][..], &["contracts", "run", empty, "--url", &query]]
    {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("no contract files there (*.yaml, *.yml)"), "{said}");
    }
    let output = Serve::on(&dir.path().join("other")).contracts(&file).fail();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("contracts are read from a folder"), "{said}");
}
