//! The incident, live: real services, load, the fault on and off, Lacuna's findings against the
//! databases.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Engine, Pipeline, Truth};

/// The contracts that the pipeline ships, with deadlines that a test can wait for.
fn contracts() -> String {
    let shipped = include_str!("../contracts/essays.yaml");
    assert!(shipped.contains("within: 30s") && shipped.contains("within: 60s"));
    shipped.replace("within: 30s", "within: 10s").replace("within: 60s", "within: 20s")
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().unwrap().iter()
}

/// Waits until the engine has seen `activations` for the contract and none of them is open.
async fn settled(engine: &Engine, contract: &str, activations: usize) {
    let patience = Instant::now() + Duration::from_secs(120);
    loop {
        let contracts = engine.get("/api/v1/contracts").await;
        let status = items(&contracts["contracts"]).find(|c| c["name"] == contract).unwrap();
        let open = status["verdicts"]["open"].as_u64().unwrap_or(0);
        if status["activations"] == activations && open == 0 {
            return;
        }
        assert!(Instant::now() < patience, "{contract} did not settle: {status:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Keys of all instances of a contract that the engine holds against the system.
async fn found(engine: &Engine, contract: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let path = format!("/api/v1/findings?status=open&contract={contract}");
    for finding in items(&engine.get(&path).await["findings"]) {
        let fingerprint = finding["fingerprint"].as_str().unwrap();
        let path = format!("/api/v1/findings/{fingerprint}/instances?limit=10000");
        let instances = engine.get(&path).await;
        assert_eq!(finding["count"], instances["instances"].as_array().unwrap().len());
        let key = |instance: &Value| instance["key"][0].as_str().unwrap().to_owned();
        keys.extend(items(&instances["instances"]).map(key));
    }
    keys
}

/// Scenario: a healthy load, one with a fault on, and one with it off again.
/// Guarantees: the engine's findings are the essays and batches that the databases lost, all of
/// them and no other.
async fn findings_match_the_databases(fault: &[&str]) {
    let engine = Engine::start(&contracts()).await;
    let pipeline = Pipeline::start_watched_by(&engine).await;
    let mut loads: Vec<Truth> = vec![pipeline.load(2, 10, 80, 101).await];
    pipeline.fault(fault).await;
    loads.push(pipeline.load(4, 12, 120, 102).await);
    pipeline.assert_green().await;
    pipeline.fault(&["off"]).await;
    loads.push(pipeline.load(2, 10, 80, 103).await);
    pipeline.stop().await;

    assert!(!loads[1].lost().is_empty(), "the fault lost nothing");
    let essays: Vec<_> = loads.iter().flat_map(|truth| &truth.essays).collect();
    let batches: Vec<_> = loads.iter().flat_map(|truth| &truth.batches).collect();
    settled(&engine, "essay-gets-a-slot", essays.len()).await;
    settled(&engine, "batch-becomes-ready", batches.len()).await;

    let lost = essays.iter().filter(|essay| essay.slot.is_none());
    let lost: BTreeSet<_> = lost.map(|essay| essay.correlation_id.clone()).collect();
    assert_eq!(found(&engine, "essay-gets-a-slot").await, lost);
    let unready = batches.iter().filter(|batch| !batch.ready);
    let unready: BTreeSet<_> = unready.map(|batch| batch.batch_id.clone()).collect();
    assert_eq!(found(&engine, "batch-becomes-ready").await, unready);

    // The post-mortem's own question has an answer now.
    let traces = engine
        .get("/api/traces?service=essay_lifecycle_service&operation=redis.transaction.assign_slot_atomic")
        .await;
    assert!(items(&traces["data"]).count() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_connection_is_found_live() {
    findings_match_the_databases(&["shared-redis-connection", "--rate", "0.5"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_modification_is_found_live() {
    findings_match_the_databases(&["concurrent-slot-modification", "--rate", "0.3"]).await;
}
