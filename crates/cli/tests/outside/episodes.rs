//! Incidents one after the other: each is told, and over when all is well again.

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use crate::channels::{Place, await_open, event, open_findings, send};
use crate::support::eventually;
use crate::support::otlp::{MILLI, SECOND, now};
use crate::support::receiver::{Mood, Receiver, Taken};
use crate::support::server::{Server, run};

/// A quiet time of 20 s, where deadlines are 1 s.
const QUIET: [&str; 2] = ["--resolve-after", "20s"];

/// Obligations of which nothing comes: `count` of them from `start` on, 10 ms apart.
fn lost(first: u64, count: u64, start: u64) -> Vec<Span> {
    (0..count)
        .map(|i| event(first + i, "take", &format!("lost-{}", first + i), start + i * 10 * MILLI))
        .collect()
}

/// An obligation that is kept, and time that passes after it.
fn kept(id: u64, start: u64) -> Vec<Span> {
    let key = format!("kept-{id}");
    vec![
        event(id, "take", &key, start),
        event(id + 1, "done", &key, start + 100 * MILLI),
        event(id + 2, "tick", "x", start + 10 * SECOND),
    ]
}

async fn acknowledge(server: &Server, finding: &Value) {
    let fingerprint = finding["fingerprint"].as_str().unwrap();
    let url = format!("{}/api/v1/findings/{fingerprint}/acknowledge", server.query);
    let json = [("content-type", "application/json")];
    server.http.post(&url, &json, r#"{"by": "ann"}"#).await.ok();
}

fn statuses(taken: &[Taken]) -> Vec<(&str, u64)> {
    taken
        .iter()
        .map(|taken| {
            (taken.body["status"].as_str().unwrap(), taken.body["count"].as_u64().unwrap())
        })
        .collect()
}

async fn findings_exit(server: &Server) -> Option<i32> {
    let query = server.query.clone();
    let told = tokio::task::spawn_blocking(move || run(["findings", "--url", &query]));
    told.await.unwrap().status.code()
}

/// Scenario: outcomes are lost, somebody takes it on, it is mended; later more are lost, while the
/// server is killed in between at every stage.
/// Guarantees: the webhook is told open, resolved, open, each once; the second incident has its own
/// count, times and examples, and nobody has taken it on; the command line is clean in between.
#[tokio::test]
async fn a_second_incident_is_told_as_the_first_was() {
    let place = Place::new();
    let receiver = Receiver::start(Mood::Takes).await;
    let args = [QUIET[0], QUIET[1], "--webhook", receiver.url.as_str()];
    let server = place.start(&args);
    let start = now() - 1_000 * SECOND;
    send(&server, lost(100, 3, start)).await;
    // What comes good soon after is no proof yet.
    send(&server, kept(200, start + 5 * SECOND)).await;
    let finding = await_open(&server, 1).await;
    assert_eq!((&finding["count"], &finding["rate"]), (&json!(3), &json!(0.75)));
    receiver.await_taken(1).await;
    acknowledge(&server, &finding).await;
    assert_eq!(findings_exit(&server).await, Some(1));
    server.kill();

    let server = place.start(&args);
    assert_eq!(await_open(&server, 1).await["acknowledged"]["by"], "ann");
    send(&server, kept(300, start + 60 * SECOND)).await;
    let taken = receiver.await_taken(2).await;
    assert_eq!(statuses(&taken), [("open", 3), ("resolved", 3)]);
    assert_eq!(findings_exit(&server).await, Some(0));
    server.kill();

    let server = place.start(&args);
    assert_eq!(open_findings(&server).await, [] as [Value; 0]);
    let second = start + 200 * SECOND;
    send(&server, lost(400, 5, second)).await;
    send(&server, kept(500, second + 2 * SECOND)).await;
    receiver.await_taken(3).await;
    let finding = eventually("the second incident", || async {
        let found = open_findings(&server).await;
        found.into_iter().find(|finding| finding["count"] == json!(5))
    })
    .await;
    assert_eq!(finding["acknowledged"], Value::Null);
    assert_eq!(finding["examples"].as_array().unwrap().len(), 5);
    assert_eq!(finding["first_seen"], finding["examples"][4]["activated_at"]);
    let path = format!("/api/v1/findings/{}/instances", finding["fingerprint"].as_str().unwrap());
    let instances = server.json(&path).await;
    assert_eq!(instances["instances"].as_array().unwrap().len(), 5, "of this episode");
    server.kill();

    // Nothing that came before is told again.
    let server = place.start(&args);
    assert_eq!(await_open(&server, 1).await["count"], json!(5));
    send(&server, kept(600, second + 100 * SECOND)).await;
    let taken = receiver.await_taken(4).await;
    assert_eq!(statuses(&taken)[..2], [("open", 3), ("resolved", 3)]);
    assert_eq!((statuses(&taken)[2].0, statuses(&taken)[3]), ("open", ("resolved", 5)));
    let mut keys: Vec<&str> = taken.iter().map(|taken| taken.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 4);
    assert!(server.stop().await.success());
}

/// Scenario: everything of the incident is long over when the server comes to know of it.
/// Guarantees: it is told all the same, as open and then as resolved.
#[tokio::test]
async fn an_incident_of_the_past_is_told() {
    let place = Place::new();
    let receiver = Receiver::start(Mood::Takes).await;
    let server = place.start(&[QUIET[0], QUIET[1], "--webhook", receiver.url.as_str()]);
    let start = now() - 3_000 * SECOND;
    let mut all = lost(100, 2, start);
    all.extend(kept(200, start + 600 * SECOND));
    send(&server, all).await;
    let taken = receiver.await_taken(2).await;
    assert_eq!(statuses(&taken), [("open", 2), ("resolved", 2)]);
    assert_eq!(open_findings(&server).await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_quiet_time_that_is_none_is_refused() {
    for (bad, says) in [("soon", "expected a duration"), ("0s", "longer than nothing")] {
        let told = run(["serve", "--resolve-after", bad]);
        let error = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(2), "{error}");
        assert!(error.contains(says), "{error}");
    }
}
