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

/// Spans of the only trace in an answer of Jaeger's API, as (service, operation).
fn hops(answer: &Value) -> BTreeSet<(String, String)> {
    let trace = &answer["data"][0];
    let hop = |span: &Value| {
        let process = span["processID"].as_str().unwrap();
        let service = trace["processes"][process]["serviceName"].as_str().unwrap();
        (service.to_owned(), span["operationName"].as_str().unwrap().to_owned())
    };
    items(&trace["spans"]).map(hop).collect()
}

/// Guarantees: each query that the post-mortem asked Jaeger in vain has an answer in Lacuna's Jaeger
/// API: Redis, database, Kafka, and one trace over all three services.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_post_mortem_asked_of_jaeger_is_answered() {
    let engine = Engine::start(&contracts()).await;
    let pipeline = Pipeline::start_watched_by(&engine).await;
    let placed = pipeline.place_one().await;
    pipeline.stop().await;

    let (els, bos) = ("essay_lifecycle_service", "batch_orchestrator_service");
    for operation in [
        "redis.transaction.assign_slot_atomic",
        "redis.watch.batch_slots",
        "redis.spop.available_slots",
        "db.query",
        "db.transaction",
        "db.connection",
        "kafka.serialize",
        "kafka.deserialize",
        "kafka.commit",
        "kafka.partition.assignment",
        "circuit_breaker.essay-lifecycle-service.kafka_producer.publish",
    ] {
        let path = format!("/api/traces?service={els}&operation={operation}");
        let found = engine.get(&path).await;
        assert!(items(&found["data"]).count() > 0, "{operation}");
    }
    let tags = "%7B%22messaging.system%22%3A%22kafka%22%7D";
    let kafka = engine.get(&format!("/api/traces?service={els}&tags={tags}")).await;
    assert!(items(&kafka["data"]).count() > 0);

    // By the correlation id alone, and by the trace's.
    let tags = format!("%7B%22correlation_id%22%3A%22{}%22%7D", placed.correlation_id);
    let by_essay = engine.get(&format!("/api/traces?service={els}&tags={tags}")).await;
    let whole = engine.get(&format!("/api/traces/{}", placed.trace_id)).await;
    assert_eq!(by_essay["data"][0]["traceID"], placed.trace_id.as_str());
    let hops = hops(&whole);
    for (service, operation) in [
        ("file_service", "POST /v1/batches/{id}/files"),
        ("file_service", "kafka.produce.huleedu.file.essay.content.provisioned.v1"),
        (els, "kafka.consume.huleedu.file.essay.content.provisioned.v1"),
        (els, "redis.transaction.execute"),
        (els, "db.transaction"),
        (els, "kafka.produce.huleedu.els.batch.essays.ready.v1"),
        (bos, "kafka.consume.huleedu.els.batch.essays.ready.v1"),
    ] {
        assert!(
            hops.contains(&(service.to_owned(), operation.to_owned())),
            "{operation}: {hops:#?}"
        );
    }

    let services = engine.get("/api/dependencies").await;
    for (parent, child) in [("file_service", els), (els, bos), ("file_service", bos)] {
        let edge = |edge: &&Value| edge["parent"] == parent && edge["child"] == child;
        assert!(items(&services["data"]).any(|e| edge(&e)), "{parent} to {child}: {services}");
    }
}
