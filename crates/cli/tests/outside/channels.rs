//! Who is told of findings: webhooks, Alertmanager, the stream, the command line.

use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::otlp::{Encoding, MILLI, SECOND, headers, now, span, trace_id, traces};
use crate::support::receiver::{Mood, Receiver};
use crate::support::server::{Serve, Server, run};

pub const CONTRACT: &str = r#"contracts:
  - name: taken-then-done
    severity: critical
    runbook_url: https://wiki.example/runbook
    when:   '{ name = "take" }'
    expect: '{ name = "done" }'
    key:    [span.correlation_id]
    within: 1s
"#;

pub struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), CONTRACT).unwrap();
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn start(&self, args: &[&str]) -> Server {
        Serve::on(&self.path().join("data"))
            .contracts(self.path())
            .args(&["--lateness", "100ms", "--idle", "1h", "--checkpoint", "200ms"])
            .args(args)
            .start()
    }
}

pub async fn send(server: &Server, spans: Vec<Span>) {
    let body = traces("worker", spans).encode_to_vec();
    server.send("traces", &headers(Encoding::Protobuf, "identity"), body).await.ok();
}

pub fn event(id: u64, name: &str, key: &str, start: u64) -> Span {
    span(id, name, start, &[("correlation_id", key)])
}

/// Sends an activation whose outcome never comes, and time that passes elsewhere.
pub async fn lose(server: &Server, id: u64, key: &str, start: u64) {
    send(server, vec![event(id, "take", key, start)]).await;
    send(server, vec![event(id + 1, "tick", "x", start + 10 * SECOND)]).await;
}

pub async fn open_findings(server: &Server) -> Vec<Value> {
    let answer = server.json("/api/v1/findings?status=open").await;
    answer["findings"].as_array().unwrap().clone()
}

/// Waits until so many findings are open, and gives the first.
pub async fn await_open(server: &Server, count: usize) -> Value {
    eventually("the findings", || async {
        let found = open_findings(server).await;
        (found.len() == count).then(|| found.first().cloned().unwrap_or_default())
    })
    .await
}

/// Scenario: a finding opens while the webhook is down in every way that there is; then it works;
/// the outcome comes at last; another is lost.
/// Guarantees: opened, resolved and opened again are delivered once each, in order, as the finding
/// itself under keys that differ; failed attempts are counted.
#[tokio::test]
async fn a_webhook_is_told_each_change_once_it_can_be() {
    let place = Place::new();
    let receiver = Receiver::start(Mood::Fails).await;
    let hook = format!("{}/hook?x=1", receiver.url);
    let server = place.start(&["--webhook", &hook]);
    let start = now() - 100 * SECOND;
    lose(&server, 1, "a", start).await;
    for mood in [Mood::Fails, Mood::Refuses] {
        receiver.set(mood);
        let before = receiver.refused();
        eventually("an attempt", || async { (receiver.refused() > before).then_some(()) }).await;
    }
    receiver.set(Mood::Hangs);
    assert_eq!(receiver.taken().len(), 0);
    let target = receiver.url.trim_start_matches("http://").to_owned();
    let labels = format!("{{channel=\"webhook\",target=\"{target}\"}}");
    assert_eq!(server.metric(&format!("lacuna_notifications_pending{labels}")).await, 1.0);
    receiver.set(Mood::Takes);
    let taken = receiver.await_taken(1).await;
    assert_eq!(taken[0].path, "/hook?x=1");
    assert_eq!(taken[0].body["status"], "open");
    assert_eq!(taken[0].body["examples"][0]["key"], json!(["a"]));

    send(&server, vec![event(5, "done", "a", start + 200 * MILLI)]).await;
    let taken = receiver.await_taken(2).await;
    assert_eq!(taken[1].body["status"], "resolved");
    lose(&server, 7, "b", start + 20 * SECOND).await;
    let taken = receiver.await_taken(3).await;
    assert_eq!(taken[2].body["status"], "open");
    let mut keys: Vec<&str> = taken.iter().map(|taken| taken.key.as_str()).collect();
    let fingerprint = taken[0].body["fingerprint"].as_str().unwrap();
    assert!(keys.iter().all(|key| key.starts_with(fingerprint)), "{keys:?}");
    keys.dedup();
    assert_eq!(keys.len(), 3);

    let metric = |name: &str| {
        let (server, series) = (&server, format!("lacuna_notifications_{name}{labels}"));
        async move { server.metric(&series).await }
    };
    eventually("all told", || async { (metric("pending").await == 0.0).then_some(()) }).await;
    assert_eq!(metric("sent_total").await, 3.0);
    assert!(metric("failed_total").await >= 2.0);
    assert_eq!(server.metric("lacuna_findings{status=\"open\"}").await, 1.0);
}

/// Scenario: the webhook is down while a finding opens; the server is killed; again and again; then
/// the webhook works, and the server is killed at random moments.
/// Guarantees: the finding is delivered, and after the delivery never again; its verdicts stay.
#[tokio::test]
async fn kills_lose_no_notification_and_repeat_none() {
    let place = Place::new();
    let receiver = Receiver::start(Mood::Fails).await;
    let args = ["--webhook", receiver.url.as_str()];
    let server = place.start(&args);
    let start = now() - 1_000 * SECOND;
    lose(&server, 1, "a", start).await;
    eventually("an attempt", || async { (receiver.refused() > 0).then_some(()) }).await;
    server.kill();
    receiver.set(Mood::Takes);
    let server = place.start(&args);
    let taken = receiver.await_taken(1).await;
    assert_eq!(taken[0].body["status"], "open");
    eventually("the book", || async {
        let name = format!(
            "lacuna_notifications_pending{{channel=\"webhook\",target=\"{}\"}}",
            receiver.url.trim_start_matches("http://")
        );
        (server.metric(&name).await == 0.0).then_some(())
    })
    .await;
    server.kill();
    // From here on, what is open stays open: whatever is killed when, there is nothing to tell.
    for round in 0..6u64 {
        let server = place.start(&args);
        assert_eq!(await_open(&server, 1).await["count"], json!(1 + round));
        let id = 100 + 10 * round;
        lose(&server, id, &format!("k{round}"), start + (1 + round) * 20 * SECOND).await;
        await_count(&server, 2 + round).await;
        // With a checkpoint after the last event, and without one.
        if round % 2 == 0 {
            let written = server.metric("lacuna_checkpoints_written_total").await;
            // Where nothing is new there is nothing to write down.
            send(&server, vec![event(id + 9, "other", "", start)]).await;
            eventually("a checkpoint", || async {
                let now = server.metric("lacuna_checkpoints_written_total").await;
                (now > written).then_some(())
            })
            .await;
        }
        server.kill();
    }
    let server = place.start(&args);
    await_count(&server, 7).await;
    for key in ["a", "k0", "k1", "k2", "k3", "k4", "k5"] {
        send(&server, vec![event(now(), "done", key, now() - SECOND)]).await;
    }
    // The outcomes came late: what was missed is resolved, and a finding of its own says late.
    let taken = receiver.await_taken(3).await;
    let told: Vec<_> = taken
        .iter()
        .map(|taken| (taken.body["verdict"].clone(), taken.body["status"].clone()))
        .collect();
    let count = |verdict: &str, status: &str| {
        told.iter().filter(|told| **told == (json!(verdict), json!(status))).count()
    };
    assert_eq!(count("missed", "open"), 1, "{told:?}");
    assert_eq!(count("missed", "resolved"), 1, "{told:?}");
    assert_eq!(count("late", "open"), 1, "{told:?}");
    assert!(server.stop().await.success());
}

async fn await_count(server: &Server, count: u64) {
    eventually("the count", || async {
        let found = open_findings(server).await;
        found.iter().any(|finding| finding["count"] == json!(count)).then_some(())
    })
    .await;
}

/// Scenario: a finding is taken on; the server is killed and started; the finding is given back.
/// Guarantees: who has taken it on is shown with it, by the API and the command line, also after
/// the kill; wrong requests are answered with what is wrong.
#[tokio::test]
async fn who_has_taken_a_finding_on_survives_a_kill() {
    let place = Place::new();
    let server = place.start(&[]);
    lose(&server, 1, "a", now() - 100 * SECOND).await;
    let finding = await_open(&server, 1).await;
    let fingerprint = finding["fingerprint"].as_str().unwrap().to_owned();
    let url =
        |server: &Server| format!("{}/api/v1/findings/{fingerprint}/acknowledge", server.query);
    let json_type = [("content-type", "application/json")];
    for bad in [r#"{"by": " "}"#, r#"{"who": "ann"}"#, "{"] {
        let answer = server.http.post(&url(&server), &json_type, bad).await;
        assert!((400..500).contains(&answer.status), "{bad}: {answer:?}");
    }
    let answer = server.http.post(&url(&server), &json_type, r#"{"by": "ann"}"#).await.ok().json();
    assert_eq!(answer["acknowledged"]["by"], "ann");
    server.kill();

    let server = place.start(&[]);
    let finding = await_open(&server, 1).await;
    assert_eq!(finding["acknowledged"]["by"], "ann");
    assert_eq!(server.metric("lacuna_findings{status=\"acknowledged\"}").await, 1.0);
    let query = server.query.clone();
    let told = tokio::task::spawn_blocking(move || run(["findings", "--url", &query]));
    let told = told.await.unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(1), "{text}");
    assert!(text.contains("acknowledged critical"), "{text}");
    assert!(text.contains("taken-then-done: 1 of 1 outcomes never came  (taken on by ann)"));
    let link = format!("{}/api/traces/{:032x}", server.query, trace_id(1));
    assert!(text.contains(&format!("span.correlation_id=a  {link}\n")), "{text}");

    let delete = server.http.send(http::Method::DELETE, &url(&server), &[], "").await.unwrap();
    assert_eq!(delete.ok().json()["acknowledged"], Value::Null);
    assert_eq!(await_open(&server, 1).await["acknowledged"], Value::Null);
    // The same from the command line.
    let command = |args: &[&str]| {
        let query = server.query.clone();
        let mut all: Vec<String> = vec!["findings".to_owned()];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all.extend(["--url".to_owned(), query]);
        async move { tokio::task::spawn_blocking(move || run(all)).await.unwrap() }
    };
    let told = command(&["ack", &fingerprint, "--by", "bob", "--comment", "on it"]).await;
    let text = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.status.code(), Some(0), "{text}");
    assert!(text.contains("(taken on by bob: on it)"), "{text}");
    let acknowledged = &await_open(&server, 1).await["acknowledged"];
    assert_eq!((&acknowledged["by"], &acknowledged["comment"]), (&json!("bob"), &json!("on it")));
    assert_eq!(command(&["unack", &fingerprint]).await.status.code(), Some(0));
    assert_eq!(await_open(&server, 1).await["acknowledged"], Value::Null);
    let told = command(&["ack", "0000000000000000", "--by", "bob"]).await;
    let error = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(2), "{error}");
    assert!(error.contains("no finding has the fingerprint"), "{error}");
    let unknown = format!("{}/api/v1/findings/0000000000000000/acknowledge", server.query);
    let answer = server.http.post(&unknown, &json_type, r#"{"by": "ann"}"#).await;
    assert_eq!(answer.status, 404);
    let answer = server.get("/api/v1/findings?sattus=open").await;
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("`status`"), "{}", answer.text());
}

/// Scenario: the command line watches; a finding opens, the server is killed and started, the
/// finding is resolved.
/// Guarantees: the watcher tells each change, and finds the server again.
#[tokio::test]
async fn the_command_line_watches_through_a_restart() {
    use std::io::BufRead;

    let place = Place::new();
    let server = place.start(&[]);
    let port = server.query.rsplit(':').next().unwrap().to_owned();
    let start = now() - 100 * SECOND;
    let mut watcher = crate::support::server::lacuna([
        "findings",
        "--watch",
        "--format",
        "json",
        "--url",
        &server.query,
    ])
    .stdout(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    let lines = std::io::BufReader::new(watcher.stdout.take().unwrap()).lines();
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = say.send(serde_json::from_str::<Value>(&line).unwrap());
        }
    });
    // It begins with what is open, or is told of it: either way it says so.
    lose(&server, 1, "a", start).await;
    let first = said.recv().await.unwrap();
    assert!(first["change"] == "opened" || first["change"] == "open", "{first}");
    assert_eq!(first["finding"]["verdict"], "missed");
    server.kill();
    let server = Serve::on(&place.path().join("data"))
        .contracts(place.path())
        .args(&["--lateness", "100ms", "--idle", "1h"])
        .port("--query", &port)
        .start();
    send(&server, vec![event(5, "done", "a", start + 200 * MILLI)]).await;
    loop {
        let next = tokio::time::timeout(crate::support::DEADLINE, said.recv()).await;
        let next = next.expect("the resolution").unwrap();
        if next["finding"]["status"] == "resolved" {
            break;
        }
    }
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    assert!(server.stop().await.success());
}
