//! Contracts live: what does not happen becomes a finding, and stays one.

use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::Status;
use prost::Message;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::otlp::{
    Encoding, MILLI, SECOND, headers, log, logs, now, span, trace_id, traces,
};
use crate::support::server::{Serve, Server};

/// A contract: after `take` of a correlation id, `done` must come within `within`.
fn contract(name: &str, within: &str) -> String {
    format!(
        r#"
  - name: {name}
    severity: critical
    when:   '{{ name = "take" }}'
    expect: '{{ name = "done" && span.result = "success" }}'
    key:    [span.correlation_id]
    within: {within}
"#
    )
}

fn write(dir: &Path, name: &str, contracts: &[String]) {
    std::fs::write(dir.join(name), format!("contracts:{}", contracts.concat())).unwrap();
}

/// Sends one span of the worker.
async fn event(server: &Server, id: u64, name: &str, key: &str, start: u64) {
    let attributes = [("correlation_id", key), ("result", "success")];
    let body = traces("worker", vec![span(id, name, start, &attributes)]).encode_to_vec();
    server.send("traces", &headers(Encoding::Protobuf, "identity"), body).await.ok();
}

async fn contract_status(server: &Server, name: &str) -> Option<Value> {
    let answer = server.json("/api/v1/contracts").await;
    let contracts = answer["contracts"].as_array().unwrap();
    contracts.iter().find(|contract| contract["name"] == name).cloned()
}

/// The verdicts of a contract that there are, without the zeros.
async fn verdicts(server: &Server, name: &str) -> Value {
    let status = contract_status(server, name).await.expect("the contract");
    let mut verdicts = status["verdicts"].as_object().unwrap().clone();
    verdicts.retain(|_, count| *count != json!(0));
    Value::Object(verdicts)
}

/// Waits until the verdicts of a contract are these: the monitor runs behind the acknowledgement.
async fn await_verdicts(server: &Server, name: &str, expected: &Value) {
    let last = std::cell::RefCell::new(Value::Null);
    let wait = eventually("", || async {
        let found = verdicts(server, name).await;
        let done = found == *expected;
        *last.borrow_mut() = found;
        done.then_some(())
    });
    let wait = tokio::time::timeout(crate::support::DEADLINE / 2, wait).await;
    assert!(wait.is_ok(), "{name}: expected {expected}, found {}", last.borrow());
}

async fn findings(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.json(&format!("/api/v1/findings{query}")).await;
    answer["findings"].as_array().unwrap().clone()
}

/// Sends the story of the tests below, all of it in the past, so that deadlines pass by the events'
/// own times: a and b are done in time, c is late, d is lost.
async fn send_story(server: &Server) {
    let start = now() - 120 * SECOND;
    for (id, key) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        event(server, id, "take", key, start + id * MILLI).await;
    }
    // What nobody looked at: below the activation of d, a step fails.
    let mut failed = span(5, "redis.transaction.failed", start + 10 * MILLI, &[]);
    failed.trace_id = trace_id(4).to_be_bytes().to_vec();
    failed.parent_span_id = 4u64.to_be_bytes().to_vec();
    failed.status = Some(Status { code: 2, message: "Transaction discarded".to_owned() });
    let body = traces("worker", vec![failed]).encode_to_vec();
    server.send("traces", &headers(Encoding::Protobuf, "identity"), body).await.ok();
    for (id, key) in [(11, "a"), (12, "b")] {
        event(server, id, "done", key, start + 500 * MILLI).await;
    }
    event(server, 13, "done", "c", start + 30 * SECOND).await;
    // Time goes on elsewhere.
    event(server, 20, "tick", "x", start + 100 * SECOND).await;
}

fn story_verdicts() -> Value {
    json!({"fulfilled": 2, "late": 1, "missed": 1})
}

/// Scenario: of four activations two get their outcome in time, one late, one never.
/// Guarantees: verdict counts say so; the lost and the late one are findings, with their keys and
/// traces; the fulfilled ones are in none; `/metrics` counts the same; an outcome that comes at
/// last resolves the finding.
#[tokio::test]
async fn what_never_came_is_a_finding_and_what_came_is_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &[contract("taken-then-done", "2s")]);
    let server = Serve::on(&dir.path().join("data"))
        .contracts(dir.path())
        .args(&["--lateness", "1s", "--idle", "1h"])
        .start();
    send_story(&server).await;
    await_verdicts(&server, "taken-then-done", &story_verdicts()).await;

    let found = findings(&server, "?contract=taken-then-done&status=open").await;
    assert_eq!(found.len(), 2, "{found:?}");
    let finding = found.iter().find(|finding| finding["verdict"] == "missed").unwrap();
    assert_eq!(finding["kind"], "silent_failure");
    assert_eq!(finding["severity"], "critical");
    assert_eq!(finding["source"], "contract/taken-then-done");
    assert_eq!(finding["title"], "taken-then-done: 1 of 4 outcomes never came");
    assert_eq!(finding["services"], json!(["worker"]));
    assert_eq!((&finding["count"], &finding["concerned"]), (&json!(1), &json!(4)));
    assert_eq!(finding["key"], json!(["span.correlation_id"]));
    assert_eq!(finding["examples"][0]["key"], json!(["d"]));
    let late = found.iter().find(|finding| finding["verdict"] == "late").unwrap();
    assert_eq!(late["examples"][0]["key"][0], "c");

    let fingerprint = finding["fingerprint"].as_str().unwrap();
    let one = server.json(&format!("/api/v1/findings/{fingerprint}")).await;
    assert_eq!(one, *finding);
    let path = format!("/api/v1/findings/{fingerprint}/instances?evidence=true");
    let instances = server.json(&path).await;
    assert_eq!(instances["cut"], false);
    let instances = instances["instances"].as_array().unwrap();
    assert_eq!(instances.len(), 1);
    let trace = format!("{:032x}", trace_id(4));
    assert_eq!(instances[0]["trace_ids"], json!([trace]));
    let step = &instances[0]["evidence"][0];
    assert_eq!(step["name"], "redis.transaction.failed", "{}", instances[0]);
    assert_eq!((&step["service"], &step["status"]), (&json!("worker"), &json!("error")));
    assert_eq!(step["message"], "Transaction discarded");
    assert_eq!(server.get("/api/v1/findings/0000000000000000").await.status, 404);
    assert_eq!(server.get("/api/v1/findings?status=sleeping").await.status, 400);

    let metric = |verdict: &str| {
        let labels = format!("{{contract=\"taken-then-done\",verdict=\"{verdict}\"}}");
        let series = format!("lacuna_contract_verdicts_total{labels}");
        let server = &server;
        async move { server.metric(&series).await }
    };
    assert_eq!((metric("fulfilled").await, metric("missed").await), (2.0, 1.0));
    let status = contract_status(&server, "taken-then-done").await.unwrap();
    assert_eq!(status["activations"], 4);
    assert_eq!(status["health"]["matched"], json!({"when": 4, "expect": 3}));

    event(&server, 30, "done", "d", now() - SECOND).await;
    await_verdicts(&server, "taken-then-done", &json!({"fulfilled": 2, "late": 2})).await;
    let one = server.json(&format!("/api/v1/findings/{fingerprint}")).await;
    assert_eq!((&one["status"], &one["count"]), (&json!("resolved"), &json!(0)));
    assert!(server.stop().await.success());
}

/// Scenario: nothing at all arrives any more after an activation.
/// Guarantees: the clock passes the deadline, and the finding comes all the same.
#[tokio::test]
async fn silence_does_not_stop_deadlines() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &[contract("taken-then-done", "300ms")]);
    let server = Serve::on(&dir.path().join("data"))
        .contracts(dir.path())
        .args(&["--lateness", "100ms", "--idle", "200ms"])
        .start();
    let start = now() - 20 * MILLI;
    let attributes = |key| [("correlation_id", key), ("result", "success")];
    let spans = vec![
        span(1, "take", start, &attributes("kept")),
        span(2, "done", start + 10 * MILLI, &attributes("kept")),
        span(3, "take", start + 5 * MILLI, &attributes("lost")),
    ];
    let body = traces("worker", spans).encode_to_vec();
    server.send("traces", &headers(Encoding::Protobuf, "identity"), body).await.ok();
    await_verdicts(&server, "taken-then-done", &json!({"fulfilled": 1, "missed": 1})).await;
    let found = findings(&server, "").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["examples"][0]["key"][0], "lost");
}

/// Scenario: five obligations are opened where three may be.
/// Guarantees: the two due first are given up, which is counted and told; the others are judged.
#[tokio::test]
async fn open_obligations_are_bounded_and_evictions_told() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &[contract("taken-then-done", "100s")]);
    let server = Serve::on(&dir.path().join("data"))
        .contracts(dir.path())
        .args(&["--lateness", "1s", "--idle", "1h", "--max-open", "3"])
        .start();
    let start = now() - 400 * SECOND;
    for id in 1..=5 {
        event(&server, id, "take", &format!("key-{id}"), start + id * 10 * SECOND).await;
    }
    await_verdicts(&server, "taken-then-done", &json!({"open": 3})).await;
    event(&server, 20, "tick", "x", start + 300 * SECOND).await;
    await_verdicts(&server, "taken-then-done", &json!({"missed": 3})).await;
    let status = contract_status(&server, "taken-then-done").await.unwrap();
    assert_eq!(status["health"]["evicted_open"], 2, "{status}");
    let problems = status["health"]["problems"].to_string();
    assert!(problems.contains("2 open obligations were given up"), "{problems}");
    let series = "lacuna_contract_evicted_total{contract=\"taken-then-done\"}";
    assert_eq!(server.metric(series).await, 2.0);
    let found = findings(&server, "").await;
    let keys: Vec<_> =
        found[0]["examples"].as_array().unwrap().iter().map(|e| e["key"][0].clone()).collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
    assert!(!keys.contains(&json!("key-1")) && !keys.contains(&json!("key-2")), "{keys:?}");
}

/// Scenario: the outcome is known only from a log record.
/// Guarantees: logs are seen by the contracts as spans are.
#[tokio::test]
async fn an_outcome_may_be_a_log_record() {
    let dir = tempfile::tempdir().unwrap();
    let receipt = r#"
  - name: receipt-sent
    when:   '{ name = "take" }'
    expect: 'log { service = "mailer" && body =~ "receipt sent.*" }'
    key:    {when: [span.correlation_id], expect: [log.order_id]}
    within: 1h
"#;
    write(dir.path(), "a.yaml", &[receipt.to_owned()]);
    let data = dir.path().join("data");
    let server = Serve::on(&data).contracts(dir.path()).start();
    for (id, key) in [(1, "a"), (2, "b")] {
        event(&server, id, "take", key, now() - 10 * SECOND).await;
    }
    let records = vec![
        log("receipt sent to somebody", &[("order_id", "a")]),
        log("receipt not sent", &[("order_id", "b")]),
    ];
    let body = logs("mailer", records).encode_to_vec();
    server.send("logs", &headers(Encoding::Protobuf, "identity"), body).await.ok();
    await_verdicts(&server, "receipt-sent", &json!({"fulfilled": 1, "open": 1})).await;
}

/// Scenario: findings there are; the server is stopped and started, then killed and started.
/// Guarantees: the same findings and verdicts each time, by the same fingerprints.
#[tokio::test]
async fn findings_survive_a_restart_and_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    write(dir.path(), "a.yaml", &[contract("taken-then-done", "2s")]);
    let start = || {
        let args = ["--lateness", "1s", "--idle", "1h", "--external-url", "http://lacuna.example"];
        Serve::on(&data).contracts(dir.path()).args(&args).start()
    };
    let server = start();
    send_story(&server).await;
    await_verdicts(&server, "taken-then-done", &story_verdicts()).await;
    let expected = findings(&server, "").await;
    assert_eq!(expected.len(), 2);
    assert!(server.stop().await.success());

    for _ in 0..2 {
        let server = start();
        assert_eq!(verdicts(&server, "taken-then-done").await, story_verdicts());
        assert_eq!(findings(&server, "").await, expected);
        server.kill();
    }
}

/// Scenario: the server is killed while obligations are open. After the restart one outcome comes;
/// one deadline passed while nobody watched.
/// Guarantees: the first is fulfilled, the second is found.
#[tokio::test]
async fn open_obligations_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    write(dir.path(), "a.yaml", &[contract("slow", "1h"), contract("fast", "300ms")]);
    let start = || {
        Serve::on(&data)
            .contracts(dir.path())
            .args(&["--lateness", "100ms", "--idle", "200ms"])
            .start()
    };
    let server = start();
    event(&server, 1, "take", "k", now() - 10 * MILLI).await;
    server.kill();
    let server = start();
    await_verdicts(&server, "fast", &json!({"missed": 1})).await;
    assert_eq!(verdicts(&server, "slow").await, json!({"open": 1}));
    event(&server, 2, "done", "k", now() - 10 * MILLI).await;
    await_verdicts(&server, "slow", &json!({"fulfilled": 1})).await;
    await_verdicts(&server, "fast", &json!({"late": 1})).await;
}

/// Scenario: while the server runs, a contract is added, a file is broken, then mended.
/// Guarantees: what is good takes effect; what is broken changes nothing, and `reload_error` says
/// where and why until it is mended; the obligations of unchanged contracts stay.
#[tokio::test]
async fn changed_files_take_effect_and_broken_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &[contract("old", "1h")]);
    let server = Serve::on(&dir.path().join("data")).contracts(dir.path()).start();
    event(&server, 1, "take", "early", now() - SECOND).await;
    await_verdicts(&server, "old", &json!({"open": 1})).await;
    assert_eq!(server.json("/api/v1/contracts").await["reload_error"], Value::Null);

    write(dir.path(), "b.yaml", &[contract("new", "1h")]);
    eventually("the new contract", || contract_status(&server, "new")).await;
    // A new contract is shown the past too, as on a start.
    await_verdicts(&server, "new", &json!({"open": 1})).await;
    event(&server, 2, "take", "later", now() - SECOND).await;
    await_verdicts(&server, "new", &json!({"open": 2})).await;
    await_verdicts(&server, "old", &json!({"open": 2})).await;

    let broken = contract("new", "1h").replace("expect:", "expcet:");
    write(dir.path(), "b.yaml", &[broken]);
    let error = eventually("the error", || async {
        let answer = server.json("/api/v1/contracts").await;
        answer["reload_error"].as_str().map(str::to_owned)
    })
    .await;
    let file = dir.path().join("b.yaml");
    assert!(error.contains(&format!("{}:5:", file.display())), "{error}");
    assert!(error.contains("did you mean `expect`?"), "{error}");
    event(&server, 3, "take", "last", now() - SECOND).await;
    await_verdicts(&server, "new", &json!({"open": 3})).await;
    await_verdicts(&server, "old", &json!({"open": 3})).await;

    std::fs::remove_file(file).unwrap();
    eventually("the good set", || async {
        let answer = server.json("/api/v1/contracts").await;
        let names = answer["contracts"].as_array().unwrap().len();
        (answer["reload_error"].is_null() && names == 1).then_some(())
    })
    .await;
    assert_eq!(verdicts(&server, "old").await, json!({"open": 3}));

    // An edited contract keeps what it knew: its findings must not vanish with a new severity.
    write(dir.path(), "a.yaml", &[contract("old", "1h").replace("critical", "warning")]);
    eventually("the new severity", || async {
        let status = contract_status(&server, "old").await?;
        (status["severity"] == "warning").then_some(())
    })
    .await;
    assert_eq!(verdicts(&server, "old").await, json!({"open": 3}));
    assert!(server.log().contains("contracts not reloaded"), "{}", server.log());
}

/// Scenario: a contract is added while there is much history to be read for it; meanwhile an outcome
/// does not come, and another one does.
/// Guarantees: the deadlines of the contracts that there were go on, before the new one is in use.
#[tokio::test]
async fn deadlines_go_on_while_history_is_read_for_a_new_contract() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.yaml", &[contract("old", "300ms")]);
    let server = Serve::on(&dir.path().join("data"))
        .contracts(dir.path())
        .args(&["--lateness", "100ms", "--idle", "200ms", "--replay", "1000d"])
        .start();
    // History is read in windows, however little there is in them.
    event(&server, 1, "tick", "x", now() - 900 * 86_400 * SECOND).await;
    write(dir.path(), "b.yaml", &[contract("new", "300ms")]);
    eventually("the reading of history", || async {
        server.log().contains("reading history").then_some(())
    })
    .await;
    event(&server, 2, "take", "lost", now() - 10 * MILLI).await;
    event(&server, 3, "take", "kept", now() - 10 * MILLI).await;
    event(&server, 4, "done", "kept", now() - 5 * MILLI).await;
    await_verdicts(&server, "old", &json!({"fulfilled": 1, "missed": 1})).await;
    assert!(contract_status(&server, "new").await.is_none(), "history was read too soon to tell");
    assert!(server.stop().await.success());
}

/// Scenario: the folder of contracts is as Kubernetes mounts it: each file is a link through the
/// link `..data`, which is swapped for another when the config map changes. The new file has the
/// size of the old.
/// Guarantees: the change takes effect.
#[cfg(unix)]
#[tokio::test]
async fn a_swapped_config_map_takes_effect() {
    use std::os::unix::fs::symlink;

    let dir = tempfile::tempdir().unwrap();
    for (version, name) in [("..1", "one"), ("..2", "two")] {
        std::fs::create_dir(dir.path().join(version)).unwrap();
        write(dir.path(), &format!("{version}/a.yaml"), &[contract(name, "1h")]);
    }
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/a.yaml", dir.path().join("a.yaml")).unwrap();
    let data = tempfile::tempdir().unwrap();
    let server = Serve::on(data.path()).contracts(dir.path()).start();
    assert!(contract_status(&server, "one").await.is_some());
    symlink("..2", dir.path().join("..new")).unwrap();
    std::fs::rename(dir.path().join("..new"), dir.path().join("..data")).unwrap();
    eventually("the new contract", || contract_status(&server, "two")).await;
    assert!(contract_status(&server, "one").await.is_none());
}
