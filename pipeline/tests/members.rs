//! Several processes of one service: what each of them knows, and what happens to one that was taken out
//! of its group.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};
use support::metrics::Scrape;
use support::{Pipeline, Service, url};

const ELS: &str = "essay_lifecycle_service";
const PROVISIONED: &str = "huleedu.file.essay.content.provisioned.v1";

async fn post(url: String, body: Value) -> Value {
    let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    response.json().await.unwrap()
}

fn essays(n: usize) -> Value {
    let file = |n| json!({ "name": format!("essay-{n}.txt"), "content": "the river" });
    json!({ "files": (0..n).map(file).collect::<Vec<_>>() })
}

/// The batches of which a process has series.
async fn known(els: &Service, batches: &[String]) -> Vec<String> {
    let scrape = Scrape::of(&els.url).await;
    batches.iter().filter(|id| !scrape.mentioning(id).is_empty()).cloned().collect()
}

/// Scenario: two processes of ELS share the essays of some batches, which become ready.
/// Guarantees: each process ends the series of all of them, whichever published that they are ready.
#[tokio::test(flavor = "multi_thread")]
async fn every_process_ends_the_series_of_a_ready_batch() {
    let namespace = support::namespace();
    let (bos, file) =
        (Service::start("bos", &namespace).await, Service::start("file", &namespace).await);
    // As many workers as there are partitions, so that each has some.
    let options = ["--workers", "2", "--series-linger", "1"];
    let start = || Service::start_with("els", &namespace, &options);
    let (one, two) = (start().await, start().await);

    let mut batches = vec![];
    for _ in 0..4 {
        let batch = post(format!("{}/v1/batches", bos.url), json!({ "expected_essays": 8 })).await;
        let id = batch["batch_id"].as_str().unwrap().to_owned();
        post(format!("{}/v1/batches/{id}/files", file.url), essays(7)).await;
        batches.push(id);
    }
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let (here, there) = (known(&one, &batches).await, known(&two, &batches).await);
        // One of them at least is known to both, and closed by one only.
        if here.iter().any(|id| there.contains(id)) && here.len() + there.len() > batches.len() {
            break;
        }
        assert!(Instant::now() < patience, "one has {here:?}, the other {there:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for id in &batches {
        post(format!("{}/v1/batches/{id}/files", file.url), essays(1)).await;
    }
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let (here, there) = (known(&one, &batches).await, known(&two, &batches).await);
        if here.is_empty() && there.is_empty() {
            break;
        }
        assert!(Instant::now() < patience, "one still has {here:?}, the other {there:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Scenario: a worker of ELS stands still while it handles an essay, until the group goes on without
/// it; then it finishes.
/// Guarantees: its commit is refused, and its span and a metric say so.
#[tokio::test(flavor = "multi_thread")]
async fn the_commit_of_a_member_that_was_taken_out_is_an_error() {
    let pipeline = Pipeline::start_with(&["--workers", "1"]).await;
    let els = pipeline.at.pids[2].to_string();
    // Longer than the session of ten seconds that the stopped member has.
    let late = json!({ "fault": "late", "rate": 1.0, "window_ms": 20_000 });
    post(format!("{}/faults", pipeline.at.els), late).await;
    let batch = pipeline.register(2, "refused").await;
    pipeline.upload(&batch, &[]).await;
    let patience = Instant::now() + Duration::from_secs(60);
    let folder = pipeline.log_folder();
    let taken = "Processing EssayContentProvisionedV1 event";
    while !folder.lines().iter().any(|line| line["message"] == taken) {
        assert!(Instant::now() < patience, "the essay is taken in hand");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let signal = |name: &str| Command::new("kill").args([name, &els]).status().unwrap().success();
    assert!(signal("-STOP"));
    // Another member, who gets the partitions once the group has given up the first.
    let group = format!("{}.{ELS}.essays", pipeline.namespace);
    let topic = format!("{}.{PROVISIONED}", pipeline.namespace);
    let joined = tokio::task::spawn_blocking(move || {
        let other: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", url("KAFKA_BROKERS"))
            .set("group.id", &group)
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        other.subscribe(&[&topic]).unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while other.assignment().unwrap().count() == 0 {
            assert!(Instant::now() < patience, "the partitions are given away");
            let _ = other.poll(Duration::from_millis(100));
        }
        other
    });
    let other = joined.await;
    assert!(signal("-CONT"));
    let other = other.unwrap();

    // It stays a member until the worker has tried to commit.
    let patience = Instant::now() + Duration::from_secs(60);
    let refused = loop {
        let _ = other.poll(Duration::ZERO);
        let collected = pipeline.so_far();
        let mut commits = collected.named("kafka.commit");
        if let Some(refused) = commits.find(|span| span.service == ELS && span.is_error) {
            break refused.clone();
        }
        assert!(Instant::now() < patience, "a refused commit is seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!refused.attribute("error.type").is_empty(), "{refused:?}");
    assert!(!refused.attribute("kafka.offset").is_empty(), "{refused:?}");
    let counted = Scrape::of(&pipeline.at.els).await;
    let name = "lacuna_kafka_commits_refused_total{";
    assert!(!counted.mentioning(name).is_empty(), "{:#?}", counted.mentioning("lacuna_kafka"));
    drop(other);
    pipeline.stop().await;
}
