//! The library of contracts in `contracts/`: a healthy run keeps every promise and teaches them to
//! `lacuna contracts mine`; each promise is broken once, in the real pipeline, and found.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use support::{Engine, Pipeline, Truth, url};

fn library_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contracts")
}

/// All contracts that the pipeline ships, as one file.
fn library() -> String {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(library_folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = "contracts:\n".to_owned();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        all.push_str(text.split_once("contracts:\n").unwrap().1);
    }
    all
}

/// The same with deadlines that a test can wait for.
fn impatient(library: &str) -> String {
    ["within: 30s", "within: 60s", "within: 10m", "every:  1m"]
        .iter()
        .for_each(|text| assert!(library.contains(text), "{text}"));
    library
        .replace("within: 30s", "within: 8s")
        .replace("within: 60s", "within: 16s")
        .replace("within: 10m", "within: 30s")
        .replace("every:  1m", "every:  10s")
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().unwrap().iter()
}

async fn lacuna(args: &[&str]) -> Output {
    let mut command = Command::new(Path::new(support::PIPELINE).with_file_name("lacuna"));
    command.args(args);
    support::output(command).await
}

fn text(output: &Output, status: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(status), "{said}\n{stdout}");
    stdout
}

/// Waits until nothing is open and the engine has seen as many activations of a contract.
async fn settled(engine: &Engine, activations: &[(&str, usize)]) -> BTreeMap<String, Value> {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = engine.get("/api/v1/contracts").await;
        let contracts: BTreeMap<String, Value> = items(&answer["contracts"])
            .map(|contract| (contract["name"].as_str().unwrap().to_owned(), contract.clone()))
            .collect();
        let open: u64 =
            contracts.values().map(|c| c["verdicts"]["open"].as_u64().unwrap_or(0)).sum();
        let there = activations.iter().all(|(name, n)| contracts[*name]["activations"] == *n);
        if open == 0 && there {
            return contracts;
        }
        let found: Vec<_> = contracts.values().map(|c| (&c["name"], &c["activations"])).collect();
        assert!(
            Instant::now() < patience,
            "did not settle: {open} open, {activations:?} expected, {found:?} found"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Names of spans that `selector` asks for.
fn names(selector: &str) -> BTreeSet<&str> {
    let parts = selector.split("name = \"").skip(1);
    parts.filter_map(|part| part.split('"').next()).collect()
}

/// Whether `mined` selects spans that `shipped` selects, on the same conditions.
fn same_side(shipped: &str, mined: &str) -> bool {
    let of_service = mined.replace("resource.service.name = \"", "service \"");
    let mined = names(&of_service);
    let conditions = ["status != error", "span.transaction.result = \"success\""];
    !mined.is_empty()
        && mined.is_subset(&names(shipped))
        && conditions.iter().all(|said| !shipped.contains(said) || of_service.contains(said))
}

/// Whether a proposal may be what a shipped contract says: of its kind, between its spans, by its key.
/// What comes from logs is told apart by conditions on values, which mining does not propose, so that
/// it is the verdicts alone that must show it.
fn may_be(contract: &Value, sides: [&str; 2], proposal: &Value) -> bool {
    let kind = contract["kind"].as_str().unwrap();
    // Exactly once is a response, and more.
    let kinds = if kind == "response" { vec!["response", "exactly"] } else { vec![kind] };
    let [when, expect] = ["when", "expect"].map(|side| proposal[side].as_str().unwrap());
    kinds.contains(&proposal["kind"].as_str().unwrap())
        && (sides[0].starts_with("log")
            || (proposal["key"] == contract["key"]
                && same_side(sides[0], when)
                && same_side(sides[1], expect)))
}

/// Of each contract of a file or folder, what is not fulfilled in `file` from `from` on: the keys, with
/// their verdicts.
async fn verdicts_over(contracts: &Path, file: &Path, from: &str) -> Broken {
    let (contracts, file) = (contracts.to_str().unwrap(), file.to_str().unwrap());
    let run = ["contracts", "run", contracts, "--input", file, "--from", from, "--format", "json"];
    let report: Value = serde_json::from_str(&text(&lacuna(&run).await, 1)).unwrap();
    let mut broken = Broken::new();
    for contract in items(&report["contracts"]) {
        let list = broken.entry(contract["name"].as_str().unwrap().to_owned()).or_default();
        for instance in items(&contract["instances"]) {
            let key = instance["key"][0].as_str().unwrap_or_default().to_owned();
            list.insert((key, instance["verdict"].as_str().unwrap().to_owned()));
        }
    }
    broken
}

/// All that the engine holds, and then a span ten minutes later, by which every deadline has passed.
async fn export(engine: &Engine, to: &Path) {
    let path = format!("{}/api/v1/export?signals=spans,logs", engine.url());
    let mut all = reqwest::get(path).await.unwrap().text().await.unwrap();
    let nanos = (jiff::Timestamp::now() + Duration::from_secs(600)).as_nanosecond().to_string();
    let tick = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "0123456789abcdef0123456789abcdef", "spanId": "0123456789abcdef",
        "name": "tick", "startTimeUnixNano": nanos, "endTimeUnixNano": nanos,
    }]}]}]});
    all.push_str(&format!("{tick}\n"));
    std::fs::write(to, all).unwrap();
}

/// Scenario: a healthy load; later a second one, which nobody learns from.
/// Then loads with faults, and a message that nobody of the pipeline sent.
/// Guarantees: no contract of the library finds anything in the healthy ones. From the first, mining
/// with the support that it asks for of itself finds every contract that the pipeline ships, of the kinds
/// that it looks for: of its kind, between its spans, by its key, and with its verdict for every key of
/// the loads with faults. What it mined finds nothing in the second.
#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_run_keeps_every_promise_and_teaches_them() {
    let engine = Engine::start(&library()).await;
    let pipeline = Pipeline::start_watched_by(&engine).await;
    // A crowd and a trickle: what order is an accident shows in one of them. Batches enough that
    // those in the middle of the time, 765 at the least, support a promise by 0.995.
    pipeline.load(700, 2, 150, 301).await.assert_healthy();
    pipeline.load(300, 2, 60, 303).await.assert_healthy();
    let between = jiff::Timestamp::now().to_string();
    let held_out = pipeline.load(20, 3, 60, 302).await;
    held_out.assert_healthy();
    let findings = engine.get("/api/v1/findings").await;
    assert_eq!(findings["findings"], json!([]));
    let from_faults_on = jiff::Timestamp::now().to_string();
    for (fault, seed) in [("publish-twice", 304), ("drop-publish", 305), ("skip-transaction", 306)]
    {
        pipeline.fault(&[fault]).await;
        load(&pipeline, 3, seed).await;
    }
    pipeline.fault(&["off"]).await;
    let phantom = stranger(&pipeline).await;
    handled(&engine, &phantom, "kafka.produce.huleedu.els.essay.slot.assigned.v1").await;
    pipeline.stop().await;

    // Over history: nothing waits for deadlines that lie in the future.
    let query = engine.url();
    let folder = library_folder();
    let run = ["contracts", "run", folder.to_str().unwrap(), "--url", query, "--format", "json"];
    let run: Vec<&str> = run.into_iter().chain(["--to", &from_faults_on]).collect();
    let report: Value = serde_json::from_str(&text(&lacuna(&run).await, 0)).unwrap();
    for contract in items(&report["contracts"]) {
        // What only ever follows a failure has nothing to follow.
        let idle = contract["name"] == "discarded-is-not-excess";
        assert_eq!(contract["activations"] == 0, idle, "{contract:#}");
        for side in ["when", "expect", "left", "right"] {
            let missing = &contract["health"]["key_missing"][side];
            assert!(missing.is_null() || *missing == 0, "{contract:#}");
        }
    }

    let mine = ["contracts", "mine", "--url", query, "--to", &between];
    let as_json = mine.iter().chain(&["--format", "json"]).copied().collect::<Vec<_>>();
    let proposals: Value = serde_json::from_str(&text(&lacuna(&as_json).await, 0)).unwrap();
    let mined = tempfile::tempdir().unwrap();
    let (file, all) = (mined.path().join("mined.yaml"), mined.path().join("all.jsonl"));
    std::fs::write(&file, text(&lacuna(&mine).await, 0)).unwrap();
    let run = ["contracts", "run", file.to_str().unwrap(), "--url", query, "--from", &between];
    let run: Vec<&str> = run.into_iter().chain(["--to", &from_faults_on]).collect();
    let told = text(&lacuna(&run).await, 0);
    assert!(told.contains("fulfilled"), "{told}");

    export(&engine, &all).await;
    let shipped = verdicts_over(&folder, &all, &from_faults_on).await;
    // Here the data is whole: what came before it is nothing. On a slow day a mined precedence looks
    // back further than the data goes.
    let whole = mined.path().join("whole.yaml");
    let yaml = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&whole, yaml.replace("    before_data: unknown\n", "")).unwrap();
    let of_mined = verdicts_over(&whole, &all, &from_faults_on).await;
    let contracts = engine.get("/api/v1/contracts").await;
    let mut looked_for = 0;
    for contract in items(&contracts["contracts"]) {
        let (kind, selectors) = (contract["kind"].as_str().unwrap(), &contract["selectors"]);
        let sides = if kind == "balance" { ["left", "right"] } else { ["when", "expect"] };
        let sides = sides.map(|side| selectors[side].as_str().unwrap());
        if ["absence", "heartbeat"].contains(&kind) {
            continue;
        }
        looked_for += 1;
        let name = contract["name"].as_str().unwrap();
        let expected = &shipped[name];
        // Nothing that was done to the pipeline keeps its messages from being handled.
        assert_eq!(expected.is_empty(), name == "content-provisioned-is-consumed", "{expected:?}");
        let candidates: Vec<_> =
            items(&proposals).filter(|proposal| may_be(contract, sides, proposal)).collect();
        let found = candidates.iter().any(|proposal| {
            let mut verdicts = of_mined[proposal["name"].as_str().unwrap()].clone();
            if kind == "response" {
                verdicts.retain(|(_, verdict)| verdict != "duplicate");
            }
            verdicts == *expected
        });
        let verdicts: Vec<_> = candidates
            .iter()
            .map(|p| (&p["name"], &of_mined[p["name"].as_str().unwrap()]))
            .collect();
        let names: Vec<_> = items(&proposals).map(|p| (&p["kind"], &p["name"])).collect();
        assert!(found, "{name}: {expected:#?}\nis not among {verdicts:#?}\nof {names:#?}");
    }
    assert_eq!(looked_for, 8);
}

/// What the engine holds against the system: for each contract, the keys and their verdicts.
type Broken = BTreeMap<String, BTreeSet<(String, String)>>;

async fn broken(engine: &Engine) -> Broken {
    let mut broken = Broken::new();
    for finding in items(&engine.get("/api/v1/findings?status=open").await["findings"]) {
        let contract = finding["source"].as_str().unwrap().trim_start_matches("contract/");
        let fingerprint = finding["fingerprint"].as_str().unwrap();
        let path = format!("/api/v1/findings/{fingerprint}/instances?limit=10000");
        for instance in items(&engine.get(&path).await["instances"]) {
            let key = instance["key"][0].as_str().unwrap_or_default().to_owned();
            let verdict = instance["verdict"].as_str().unwrap().to_owned();
            broken.entry(contract.to_owned()).or_default().insert((key, verdict));
        }
    }
    broken
}

/// A load whose outcomes need not come.
async fn load(pipeline: &Pipeline, essays: u32, seed: u64) -> Truth {
    let out = pipeline.folder.path().join(format!("truth-{seed}.json"));
    let mut load = Command::new(support::PIPELINE);
    load.args(["load", "--bos", &pipeline.at.bos, "--file", &pipeline.at.file])
        .args(["--namespace", &pipeline.namespace, "--batches", "1", "--rate", "80"])
        .args(["--essays", &essays.to_string(), "--seed", &seed.to_string()])
        .args(["--settle", "3", "--out"])
        .arg(&out);
    let output = support::output(load).await;
    assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
    support::read(&out)
}

/// Waits until the next window of a heartbeat begins.
async fn next_window(every: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let every = every * 1_000;
    tokio::time::sleep(Duration::from_millis(every - now % every + 100)).await;
}

/// Waits until the story of a key has come so far.
async fn handled(engine: &Engine, correlation_id: &str, step: &str) {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let path = format!("/api/v1/explain?key=correlation_id={correlation_id}");
        let story = engine.get(&path).await;
        if items(&story["events"]).any(|event| event["name"] == step) {
            return;
        }
        assert!(Instant::now() < patience, "{correlation_id} did not come to {step}: {story:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Sends ELS an essay that file service knows nothing of, for a batch that has a slot for it; gives
/// its correlation id.
async fn stranger(pipeline: &Pipeline) -> String {
    let id = || uuid::Uuid::new_v4().to_string();
    let batch: Value = reqwest::Client::new()
        .post(format!("{}/v1/batches", pipeline.at.bos))
        .json(&json!({"expected_essays": 1}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let (essay, correlation) = (id(), id());
    let event = json!({
        "event_id": id(),
        "event_type": "huleedu.file.essay.content.provisioned.v1",
        "event_timestamp": jiff::Timestamp::now().to_string(),
        "source_service": "a_stranger",
        "correlation_id": correlation,
        "batch_id": batch["batch_id"],
        "data": {"essay_id": essay, "file_name": "x.txt", "content_length": 1},
    });
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", url("KAFKA_BROKERS")).create().unwrap();
    let topic = format!("{}.huleedu.file.essay.content.provisioned.v1", pipeline.namespace);
    let payload = event.to_string();
    // Its spans are named after the event, as those of the pipeline's own messages.
    let named = Header { key: "event_type", value: event["event_type"].as_str() };
    let headers = OwnedHeaders::new().insert(named);
    let record = FutureRecord::to(&topic).payload(&payload).key(&essay).headers(headers);
    producer.send(record, Duration::from_secs(30)).await.unwrap();
    correlation
}

/// Scenario: one fault after the other, each with a load of its own; an essay too many; a message that
/// nobody of the pipeline sent.
/// Guarantees: every contract of the library is broken by what it is there for, with the keys that the
/// databases name, and by nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn each_promise_is_broken_once_and_found() {
    let engine = Engine::start(&impatient(&library())).await;
    let pipeline = Pipeline::start_watched_by(&engine).await;
    let fault = async |name: &str| pipeline.fault(&[name]).await;
    let whole = pipeline.load(1, 4, 80, 401).await;
    whole.assert_healthy();
    let full = &whole.batches[0].batch_id;
    let files = json!({"files": [{"name": "late.txt", "content": "one more"}]});
    let upload = format!("{}/v1/batches/{full}/files", pipeline.at.file);
    let answer = reqwest::Client::new().post(upload).json(&files).send().await.unwrap();
    let answer: Value = answer.error_for_status().unwrap().json().await.unwrap();
    let too_many = answer["essays"][0]["correlation_id"].as_str().unwrap().to_owned();
    handled(&engine, &too_many, "kafka.consume.huleedu.els.excess.content.v1").await;

    fault("publish-twice").await;
    let twice = load(&pipeline, 4, 402).await;
    fault("drop-publish").await;
    let dropped = load(&pipeline, 3, 403).await;
    fault("wrong-value").await;
    let wrong = load(&pipeline, 3, 404).await;
    fault("skip-transaction").await;
    let skipped = load(&pipeline, 3, 405).await;
    fault("off").await;
    let phantom = stranger(&pipeline).await;
    handled(&engine, &phantom, "kafka.produce.huleedu.els.essay.slot.assigned.v1").await;
    fault("concurrent-slot-modification").await;
    next_window(10).await;
    let discarded = load(&pipeline, 4, 406).await;
    next_window(10).await;
    pipeline.fault(&["late", "--window-ms", "9000"]).await;
    let late = pipeline.load(1, 2, 80, 407).await;
    fault("off").await;
    pipeline.stop().await;

    let loads = [&whole, &twice, &dropped, &wrong, &skipped, &discarded, &late];
    let essays: usize = loads.iter().map(|truth| truth.essays.len()).sum();
    let batches = loads.iter().map(|truth| truth.batches.len()).sum::<usize>();
    settled(
        &engine,
        &[
            // With the essay too many; with the stranger's too, which nobody produced.
            ("content-provisioned-is-consumed", essays + 1),
            ("batch-ready-once", batches + 1),
            ("batch-ready-with-all-essays", batches + 1),
        ],
    )
    .await;
    let mut broken = broken(&engine).await;
    // What is late breaks much else on the way, which depends on who waits for whom.
    let held_back: BTreeSet<&str> =
        late.essays.iter().map(|essay| essay.correlation_id.as_str()).collect();
    let mut expect = |contract: &str, expected: Vec<(&str, Vec<String>)>| {
        let mut found = broken.remove(contract).unwrap_or_default();
        let of_late = |key: &str| held_back.contains(key) || key == late.batches[0].batch_id;
        if contract != "content-provisioned-is-consumed" {
            found.retain(|(key, _)| !of_late(key));
        }
        let expected: BTreeSet<(String, String)> = expected
            .into_iter()
            .flat_map(|(verdict, keys)| keys.into_iter().map(|key| (key, verdict.to_owned())))
            .collect();
        assert_eq!(found, expected, "{contract}");
    };
    let of = |loads: &[&Truth], more: &[&str]| -> Vec<String> {
        let essays = loads.iter().flat_map(|truth| &truth.essays);
        let keys = essays.map(|essay| essay.correlation_id.clone());
        keys.chain(more.iter().map(|key| (*key).to_owned())).collect()
    };
    let batches = |loads: &[&Truth]| -> Vec<String> {
        loads.iter().map(|truth| truth.batches[0].batch_id.clone()).collect()
    };
    expect("content-provisioned-is-consumed", vec![("late", of(&[&late], &[]))]);
    expect("essay-gets-a-slot", vec![("missed", of(&[&skipped, &discarded], &[&too_many]))]);
    let unready = [&dropped, &discarded];
    expect("batch-becomes-ready", vec![("missed", batches(&unready))]);
    let told_twice = ("duplicate", batches(&[&twice]));
    expect("batch-ready-once", vec![("missed", batches(&unready)), told_twice]);
    let wrongly = [&dropped, &discarded, &wrong];
    expect("batch-ready-with-all-essays", vec![("missed", batches(&wrongly))]);
    let told_twice = ("duplicate", of(&[&twice], &[]));
    let untold = ("missed", of(&unready, &[&too_many]));
    expect("essay-assigned-once", vec![untold, told_twice]);
    expect("assigned-only-when-provisioned", vec![("phantom", vec![phantom])]);
    expect("nothing-after-batch-ready", vec![("forbidden", batches(&[&whole]))]);
    expect("discarded-is-not-excess", vec![("forbidden", of(&[&discarded], &[]))]);
    expect("batch-accounted-for", vec![("unbalanced", batches(&[&twice, &dropped]))]);
    // A window in which essays came and none got a slot.
    let still = broken.remove("slots-are-given-while-essays-come").unwrap_or_default();
    assert!(still.contains(&(String::new(), "missed".to_owned())), "{still:?}");
    assert!(broken.is_empty(), "{broken:?}");
}
