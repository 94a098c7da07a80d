//! What the monitor writes down, and goes on from: stops, kills, damage.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Duration;

use prost::Message;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::otlp::{Encoding, MILLI, SECOND, headers, now, span, traces};
use crate::support::server::{Serve, Server, run};

fn contracts(dir: &Path, within: &str) {
    let text = format!(
        r#"contracts:
  - name: done-in-time
    when:   '{{ name = "take" }}'
    expect: '{{ name = "done" }}'
    key:    [span.correlation_id]
    within: {within}
  - name: done-once
    kind:   exactly
    when:   '{{ name = "take" }}'
    expect: '{{ name = "done" }}'
    key:    [span.correlation_id]
    within: {within}
"#
    );
    std::fs::write(dir.join("a.yaml"), text).unwrap();
}

fn serve(dir: &Path, args: &[&str]) -> Serve {
    Serve::on(&dir.join("data"))
        .contracts(dir)
        .args(&["--lateness", "1s", "--idle", "1h", "--checkpoint", "50ms"])
        .args(args)
}

/// Sends spans, which may come to nothing if the server is killed meanwhile; whether they were
/// acknowledged.
async fn send(server: &Server, spans: &[(u64, &str, &str, u64)]) -> bool {
    let spans = spans
        .iter()
        .map(|(id, name, key, start)| span(*id, name, *start, &[("correlation_id", key)]))
        .collect();
    let body = traces("worker", spans).encode_to_vec();
    let headers = headers(Encoding::Protobuf, "identity");
    server.send("traces", &headers, body).await.status == 200
}

async fn verdicts(server: &Server) -> Vec<BTreeMap<String, u64>> {
    let answer = server.json("/api/v1/contracts").await;
    let contracts = answer["contracts"].as_array().unwrap();
    let counts = |contract: &Value| {
        let all: BTreeMap<String, u64> =
            serde_json::from_value(contract["verdicts"].clone()).unwrap();
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    };
    contracts.iter().map(counts).collect()
}

async fn await_verdicts(server: &Server, expected: &[Value]) {
    let what = format!("{expected:?}");
    eventually(&what, || async {
        let found = verdicts(server).await;
        let found: Vec<Value> = found.iter().map(|counts| json!(counts)).collect();
        (found == expected).then_some(())
    })
    .await;
}

async fn await_checkpoint(server: &Server) {
    let written = server.metric("lacuna_checkpoints_written_total").await;
    eventually("a checkpoint", || async {
        let now = server.metric("lacuna_checkpoints_written_total").await;
        (now > written).then_some(())
    })
    .await;
}

/// Scenario: activations and outcomes come, some of them twice, some never, while the server is
/// killed at random moments, with checkpoints every 50 ms and segments written between.
/// Guarantees: in the end every obligation has the verdict that history gives it.
#[tokio::test]
async fn kills_at_random_moments_change_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    contracts(dir.path(), "1s");
    let start = now() - 10_000 * SECOND;
    let mut key = 0u64;
    for round in 0..6u64 {
        let server = serve(dir.path(), &[]).start();
        let patience = Duration::from_millis(50 + RandomState::new().hash_one(round) % 400);
        let end = std::time::Instant::now() + patience;
        while std::time::Instant::now() < end {
            key += 1;
            let (name, at) = (format!("k{key}"), start + key * 100 * MILLI);
            let mut spans = vec![(10 * key, "take", name.as_str(), at)];
            if !key.is_multiple_of(5) {
                spans.push((10 * key + 1, "done", name.as_str(), at + 200 * MILLI));
            }
            if key.is_multiple_of(7) {
                spans.push((10 * key + 2, "done", name.as_str(), at + 300 * MILLI));
            }
            assert!(send(&server, &spans).await);
            // What a client sends again counts once.
            if key.is_multiple_of(3) {
                assert!(send(&server, &spans).await);
            }
        }
        if round == 3 {
            assert!(server.stop().await.success());
        } else {
            server.kill();
        }
    }
    let server = serve(dir.path(), &[]).start();
    assert!(send(&server, &[(1, "tick", "x", start + (key + 1_000) * 100 * MILLI)]).await);
    let count = |keep: &dyn Fn(u64) -> bool| (1..=key).filter(|key| keep(*key)).count();
    let lost = count(&|key| key % 5 == 0 && key % 7 != 0);
    let twice = count(&|key| key % 5 != 0 && key % 7 == 0);
    let (all, once) = (key as usize, key as usize - lost - twice);
    await_verdicts(
        &server,
        &[
            json!({"fulfilled": all - lost, "missed": lost}),
            json!({"duplicate": twice, "fulfilled": once, "missed": lost}),
        ],
    )
    .await;
    let data = dir.path().join("data");
    assert!(server.stop().await.success());
    let file = dir.path().join("a.yaml");
    let args = ["contracts", "run", "--format", "json", "--data"].map(std::ffi::OsString::from);
    let history = run(args.into_iter().chain([data.into(), file.into()]));
    let report: Value = serde_json::from_slice(&history.stdout).unwrap();
    assert_eq!(report["contracts"][0]["verdicts"]["missed"], json!(lost));
    assert_eq!(report["contracts"][1]["verdicts"]["duplicate"], json!(twice));
}

/// Scenario: findings and open obligations are older than what a start reads of history; the server
/// is stopped, and killed after a checkpoint; then a contract's deadline is edited.
/// Guarantees: unchanged contracts know them still, which only the checkpoint can tell; a changed
/// one is shown history.
#[tokio::test]
async fn what_is_older_than_the_replay_is_still_known() {
    let dir = tempfile::tempdir().unwrap();
    contracts(dir.path(), "2h");
    let start = now() - 86_400 * SECOND;
    let short = ["--replay", "1s"];
    let server = serve(dir.path(), &short).start();
    let spans = [
        (1, "take", "lost", start),
        (2, "take", "open", start + 3_600 * SECOND),
        (3, "tick", "x", start + 8_000 * SECOND),
    ];
    assert!(send(&server, &spans).await);
    let expected = vec![json!({"missed": 1, "open": 1}); 2];
    await_verdicts(&server, &expected).await;
    assert!(server.stop().await.success());
    let server = serve(dir.path(), &short).start();
    await_verdicts(&server, &expected).await;
    // Once more by kill, after something has come.
    assert!(send(&server, &[(4, "take", "new", start + 8_001 * SECOND)]).await);
    let expected = vec![json!({"missed": 1, "open": 2}); 2];
    await_verdicts(&server, &expected).await;
    await_checkpoint(&server).await;
    server.kill();
    let server = serve(dir.path(), &short).start();
    await_verdicts(&server, &expected).await;
    assert!(send(&server, &[(5, "done", "open", start + 8_002 * SECOND)]).await);
    // Exactly once is certain only when the time is over.
    let waits = json!({"missed": 1, "open": 2});
    let fulfilled = json!({"fulfilled": 1, "missed": 1, "open": 1});
    await_verdicts(&server, &[fulfilled, waits.clone()]).await;
    let found = server.json("/api/v1/findings?status=open").await;
    assert_eq!(found["findings"][0]["examples"][0]["key"], json!(["lost"]));
    assert!(server.stop().await.success());

    // A changed contract begins with history, of which there is a day now.
    let text = std::fs::read_to_string(dir.path().join("a.yaml")).unwrap();
    let text = text.replacen("within: 2h", "within: 3h", 1);
    std::fs::write(dir.path().join("a.yaml"), text).unwrap();
    let server = serve(dir.path(), &["--replay", "48h"]).start();
    await_verdicts(&server, &[json!({"fulfilled": 1, "open": 2}), waits]).await;
}

/// Scenario: the checkpoint and the book of findings are damaged, or of something else.
/// Guarantees: a warning that names the file, and the verdicts of history.
#[tokio::test]
async fn damaged_files_are_told_and_history_is_read() {
    let dir = tempfile::tempdir().unwrap();
    contracts(dir.path(), "1s");
    let start = now() - 100 * SECOND;
    let server = serve(dir.path(), &[]).start();
    assert!(send(&server, &[(1, "take", "a", start), (2, "tick", "x", start + SECOND * 50)]).await);
    let expected = vec![json!({"missed": 1}); 2];
    await_verdicts(&server, &expected).await;
    assert!(server.stop().await.success());
    for (name, bytes) in [("MONITOR", None), ("FINDINGS", None), ("MONITOR", Some("nonsense"))] {
        let path = dir.path().join("data").join(name);
        let mut damaged = std::fs::read(&path).unwrap();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        std::fs::write(&path, bytes.map_or(damaged, |text| text.as_bytes().to_vec())).unwrap();
        let server = serve(dir.path(), &[]).start();
        await_verdicts(&server, &expected).await;
        // The log comes by a pipe of its own, after what the server says on the other.
        crate::support::eventually("the warning", || async {
            let log = server.log();
            (log.contains("WARN") && log.contains(&path.display().to_string())).then_some(())
        })
        .await;
        assert_eq!(server.get("/readyz").await.status, 200);
        assert_eq!(server.metric("lacuna_ready").await, 1.0);
        assert!(server.stop().await.success());
    }
}

/// Scenario: the clock of one service is five seconds behind; its outcomes seem to come before what
/// they follow from.
/// Guarantees: they fulfil; the offset is told with the contract, and as a metric; over history the
/// same.
#[tokio::test]
async fn a_clock_that_is_behind_is_measured_and_allowed_for() {
    let dir = tempfile::tempdir().unwrap();
    contracts(dir.path(), "2s");
    let server = serve(dir.path(), &[]).start();
    let start = now() - 1_000 * SECOND;
    for i in 0..30u64 {
        let at = start + i * SECOND;
        let mut client = span(1_000 + 2 * i, "GET /", at, &[]);
        client.kind = 3;
        client.end_time_unix_nano = at + 40 * MILLI;
        let mut served = span(1_001 + 2 * i, "serve", at - 5 * SECOND + 15 * MILLI, &[]);
        served.kind = 2;
        served.trace_id.clone_from(&client.trace_id);
        served.parent_span_id.clone_from(&client.span_id);
        for (service, span) in [("shop", client), ("pay", served)] {
            let body = traces(service, vec![span]).encode_to_vec();
            server.send("traces", &headers(Encoding::Protobuf, "identity"), body).await.ok();
        }
    }
    let key = [("correlation_id", "k")];
    let at = start + 100 * SECOND;
    for (service, span) in [
        ("shop", span(1, "take", at, &key)),
        ("pay", span(2, "done", at - 4 * SECOND, &key)),
        ("shop", span(3, "tick", at + 100 * SECOND, &[])),
    ] {
        let body = traces(service, vec![span]).encode_to_vec();
        server.send("traces", &headers(Encoding::Protobuf, "identity"), body).await.ok();
    }
    await_verdicts(&server, &vec![json!({"fulfilled": 1}); 2]).await;
    let offset = server.metric("lacuna_clock_offset_seconds{service=\"pay\"}").await;
    assert!((-5.01..-4.98).contains(&offset), "{offset}");
    let answer = server.json("/api/v1/contracts").await;
    let problems = answer["contracts"][0]["health"]["problems"].to_string();
    assert!(problems.contains("the clock of `pay` is 5.00 s behind; allowed for"), "{problems}");
    assert!(server.stop().await.success());
    let (data, file) = (dir.path().join("data"), dir.path().join("a.yaml"));
    let args = ["contracts", "run", "--format", "json", "--data"].map(std::ffi::OsString::from);
    let history = run(args.into_iter().chain([data.into(), file.into()]));
    let report: Value = serde_json::from_slice(&history.stdout).unwrap();
    assert_eq!(report["contracts"][0]["verdicts"]["fulfilled"], 1, "{report}");
}

/// Scenario: the first that a fresh server is sent is an activation, together with a span that begins
/// in an hour.
/// Guarantees: the span from the future settles nothing.
#[tokio::test]
async fn a_signal_from_the_future_that_comes_first_settles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    contracts(dir.path(), "1h");
    let server = serve(dir.path(), &[]).start();
    let (now, future) = (now(), now() + 2 * 3_600 * SECOND);
    assert!(send(&server, &[(1, "take", "k", now), (2, "other", "k", future)]).await);
    await_verdicts(&server, &[json!({"open": 1}), json!({"open": 1})]).await;
    eventually("a checkpoint", || async {
        let written = server.metric("lacuna_checkpoints_written_total").await;
        (written > 0.0).then_some(())
    })
    .await;
    assert_eq!(verdicts(&server).await, vec![BTreeMap::from([("open".to_owned(), 1)]); 2]);
}

/// Scenario: an outcome happens while no server runs to take it; its sender comes again with it a
/// little after the start.
/// Guarantees: nothing was ever missed, though the idle fallback is quick and the deadline long over.
#[tokio::test]
async fn what_happened_while_nobody_listened_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    contracts(dir.path(), "1s");
    let args = ["--lateness", "8s", "--idle", "100ms", "--checkpoint", "50ms"];
    let serve = || Serve::on(&dir.path().join("data")).contracts(dir.path()).args(&args);
    let server = serve().start();
    let start = now();
    assert!(send(&server, &[(1, "take", "k", start)]).await);
    await_checkpoint(&server).await;
    server.kill();
    // By now, without anybody having listened, the deadline and the lateness are over.
    while now() < start + 10 * SECOND {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let server = serve().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(send(&server, &[(2, "done", "k", start + SECOND / 2)]).await);
    await_verdicts(&server, &[json!({"fulfilled": 1}), json!({"fulfilled": 1})]).await;
    let missed = r#"lacuna_contract_verdicts_total{contract="done-in-time",verdict="missed"}"#;
    assert_eq!(server.metric(missed).await, 0.0);
    let findings = server.json("/api/v1/findings").await;
    assert_eq!(findings["findings"].as_array().map_or(0, Vec::len), 0, "{findings}");
}
