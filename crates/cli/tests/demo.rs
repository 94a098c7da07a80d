//! The demo from the outside: its findings against the truth about the recorded run.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lacuna")).arg("demo").args(args).output().unwrap()
}

fn truth() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/truth.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Keys of all instances that the demo lists for a contract.
fn found(story: &Value, contract: &str) -> BTreeSet<String> {
    let source = format!("contract/{contract}");
    let losses = story["losses"].as_array().unwrap().iter();
    let of_contract = losses.filter(|loss| loss["source"] == source.as_str());
    of_contract
        .flat_map(|loss| loss["instances"].as_array().unwrap())
        .map(|instance| instance["key"].as_str().unwrap().to_owned())
        .collect()
}

fn lost(list: &Value, key: &str, is_lost: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let all = list.as_array().unwrap().iter();
    all.filter(|item| is_lost(item)).map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

/// Scenario: the recorded run, with a fault on for a part of it, is replayed.
/// Guarantees: every lost essay and batch is found, nothing else is, and each lost essay comes with
/// the step where it was lost; exit status 1.
#[test]
fn findings_are_exactly_what_the_databases_lost() {
    let output = demo(&["--format", "json", "--list", "100000"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let story: Value = serde_json::from_slice(&output.stdout).unwrap();
    let truth = truth();

    let essays = lost(&truth["essays"], "correlation_id", |essay| essay["slot"].is_null());
    assert!(!essays.is_empty(), "the recording must hold lost essays");
    assert_eq!(found(&story, "essay-gets-a-slot"), essays);
    let batches = lost(&truth["batches"], "batch_id", |batch| batch["ready"] == false);
    assert!(!batches.is_empty(), "the recording must hold lost batches");
    assert_eq!(found(&story, "batch-becomes-ready"), batches);

    let expected = |name: &str| {
        let contracts = story["contracts"].as_array().unwrap().iter();
        contracts.into_iter().find(|c| c["name"] == name).unwrap()["expected"].as_u64().unwrap()
    };
    assert_eq!(expected("essay-gets-a-slot"), truth["essays"].as_array().unwrap().len() as u64);
    assert_eq!(expected("batch-becomes-ready"), truth["batches"].as_array().unwrap().len() as u64);

    for loss in story["losses"].as_array().unwrap() {
        for instance in loss["instances"].as_array().unwrap() {
            assert_ne!(instance["steps"].as_array().unwrap().len(), 0, "{instance}");
        }
    }
}

/// Guarantees: without a terminal the demo ends by itself and says what a person needs.
#[test]
fn the_story_names_layers_losses_and_where_to_look() {
    let output = demo(&["--exit"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "What every layer reported",
        "0 errors",
        "What was promised, and what happened",
        "essay-gets-a-slot",
        "batch-becomes-ready",
        "redis.transaction.",
        "How to open it",
        "/api/v1/findings",
    ] {
        assert!(text.contains(part), "`{part}` is missing from:\n{text}");
    }
    assert_eq!(output.status.code(), Some(1));
}

/// Scenario: the shipped contracts are run over the recording, which ends before the deadlines of
/// what it lost.
/// Guarantees: over history no outcome is missed before its deadline: what is open is what the
/// databases lost, and nothing else. What must not happen is found where it happened, without
/// waiting: the same essays.
#[test]
fn over_history_the_lost_are_open_and_what_must_not_happen_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO_BIN_EXE_lacuna"))
        .args(["contracts", "run", "--format", "json"])
        .arg(root.join("pipeline/contracts"))
        .arg("--input")
        .arg(root.join("demo/incident.otlp.jsonl.zst"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let contracts = report["contracts"].as_array().unwrap();
    let lost = lost(&truth()["essays"], "correlation_id", |essay| essay["slot"].is_null());
    for (name, verdict) in [("essay-gets-a-slot", "open"), ("discarded-is-not-excess", "forbidden")]
    {
        let contract = contracts.iter().find(|contract| contract["name"] == name).unwrap();
        let instances = contract["instances"].as_array().unwrap();
        assert!(instances.iter().all(|instance| instance["verdict"] == verdict), "{contract}");
        let keys: BTreeSet<_> =
            instances.iter().map(|i| i["key"][0].as_str().unwrap().to_owned()).collect();
        assert_eq!(keys, lost, "{name}");
    }
    for contract in contracts.iter().filter(|c| c["name"] != "discarded-is-not-excess") {
        let instances = contract["instances"].as_array().unwrap();
        assert!(instances.iter().all(|instance| instance["verdict"] == "open"), "{contract}");
    }
}
