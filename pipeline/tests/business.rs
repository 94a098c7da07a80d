//! The business metrics of the pipeline against its databases.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::metrics::{Scrape, last_of};
use support::{Pipeline, Truth};

const ELS: &str = "essay_lifecycle_service";
const BOS: &str = "batch_orchestrator_service";

/// What the metrics must say of a finished load, as the databases have it.
fn expected_of(truth: &Truth) -> BTreeMap<String, f64> {
    let mut expected = BTreeMap::new();
    for batch in &truth.batches {
        let mine = || truth.essays.iter().filter(|essay| essay.batch_id == batch.batch_id);
        let lost = mine().filter(|essay| essay.slot.is_none()).count() as f64;
        let all = mine().count() as f64;
        let id = format!("batch_id=\"{}\"", batch.batch_id);
        let service = format!("service=\"{ELS}\"");
        let reason = "failure_reason=\"concurrent_modification\"";
        let no_slot = "failure_reason=\"no_slot\"";
        expected.extend([
            (format!("slot_assignment_attempts_total{{{id},{service}}}"), all),
            (format!("slot_assignment_failures_total{{{id},{reason},{service}}}"), lost),
            (format!("slot_assignment_failures_total{{{id},{no_slot},{service}}}"), 0.0),
            (format!("excess_content_events_total{{{id},{service}}}"), lost),
            (
                format!("batch_slot_utilization_ratio{{{id}}}"),
                (all - lost) / f64::from(batch.expected),
            ),
        ]);
    }
    expected
}

/// Scenario: a healthy load and one under the fault; then more batches than have series.
/// Guarantees: every business metric has the value that the databases give, on `/metrics` and by
/// OTLP; a ready batch's series end, an open one's do not; past the cap batches are counted together.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_say_what_the_databases_say() {
    let pipeline = Pipeline::start_with(&["--series-cap", "10", "--series-linger", "2"]).await;
    let healthy = pipeline.load(2, 6, 100, 71).await;
    healthy.assert_healthy();
    pipeline.fault(&["concurrent-slot-modification", "--rate", "0.4"]).await;
    let faulty = pipeline.load(3, 8, 100, 72).await;
    pipeline.fault(&["off"]).await;
    let essays: Vec<_> = healthy.essays.iter().chain(&faulty.essays).collect();
    let batches: Vec<_> = healthy.batches.iter().chain(&faulty.batches).collect();
    let (all, lost) = (essays.len() as f64, faulty.lost().len() as f64);
    let ready = batches.iter().filter(|batch| batch.ready).count() as f64;
    assert!(lost > 0.0, "the fault lost nothing");

    let (els, bos, file) = (
        Scrape::of(&pipeline.at.els).await,
        Scrape::of(&pipeline.at.bos).await,
        Scrape::of(&pipeline.at.file).await,
    );
    let events =
        |kind: &str| format!("huleedu_batch_coordination_events_total{{event_type=\"{kind}\"}}");
    for (series, value) in [
        ("batch_essays_ready_events_total".to_owned(), ready),
        ("slot_assignment_success_rate".to_owned(), (all - lost) / all),
        ("huleedu_essay_state_transitions_total".to_owned(), all),
        (events("batch_registered"), batches.len() as f64),
        (events("essay_provisioned"), all),
        (events("slot_assigned"), all - lost),
        (events("excess_content"), lost),
        (events("essays_ready"), ready),
    ] {
        assert_eq!(els.value(&series), value, "{series}");
    }
    // One transaction an essay at least, given up once for each lost one.
    let operation = "operation=\"assign_slot_atomic\"";
    assert!(els.value(&format!("redis_transaction_attempts_total{{{operation}}}")) >= all);
    let failures = format!(
        "redis_transaction_failures_total{{{operation},reason=\"concurrent_modification\"}}"
    );
    assert_eq!(els.value(&failures), lost);
    assert_eq!(file.value("huleedu_essay_state_transitions_total"), all);
    assert_eq!(bos.value("huleedu_batch_processing_duration_seconds_count"), ready);
    assert!(bos.value("huleedu_batch_processing_duration_seconds_sum") > 0.0);

    // Batches that wait for lost essays stay; those that are ready go.
    let open: Vec<_> = faulty.batches.iter().filter(|batch| !batch.ready).collect();
    assert!(!open.is_empty());
    for (series, value) in expected_of(&faulty) {
        if open.iter().any(|batch| series.contains(&batch.batch_id)) {
            assert_eq!(els.value(&series), value, "{series}");
        }
    }
    let gone = |scrape: &Scrape| {
        batches.iter().all(|b| b.ready == scrape.mentioning(&b.batch_id).is_empty())
    };
    let patience = Instant::now() + Duration::from_secs(30);
    while !gone(&Scrape::of(&pipeline.at.els).await) {
        assert!(Instant::now() < patience, "series of ready batches are still there");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // librdkafka tells its statistics every two seconds.
    for (base, family) in [
        (&pipeline.at.els, "lacuna_kafka_consumer_lag{"),
        (&pipeline.at.bos, "lacuna_kafka_broker_up{"),
        (&pipeline.at.file, "lacuna_kafka_broker_up{"),
        (&pipeline.at.file, "db_client_connection_count{"),
    ] {
        while Scrape::of(base).await.mentioning(family).is_empty() {
            assert!(Instant::now() < patience, "{family} at {base}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    // Past the cap.
    let mut last = String::new();
    for n in open.len()..12 {
        last = pipeline.register(2, &format!("past-the-cap-{n}")).await;
    }
    pipeline.upload(&last, &[]).await;
    let other = format!("slot_assignment_attempts_total{{batch_id=\"other\",service=\"{ELS}\"}}");
    let capped = loop {
        let scrape = Scrape::of(&pipeline.at.els).await;
        if scrape.samples.get(&other).is_some_and(|attempts| *attempts == 1.0) {
            break scrape;
        }
        assert!(Instant::now() < patience + Duration::from_secs(30), "{:#?}", scrape.samples);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(capped.mentioning(&last).is_empty());
    assert_eq!(capped.mentioning("batch_slot_utilization_ratio{batch_id=").len(), 10);
    assert!(capped.value("lacuna_instrument_series_overflow_total{label=\"batch_id\"}") > 0.0);

    // By OTLP the same, under the very same names; each series as it was last seen.
    let collected = pipeline.stop().await;
    let (els, bos) = (last_of(&collected.points, ELS), last_of(&collected.points, BOS));
    for (series, value) in expected_of(&healthy).into_iter().chain(expected_of(&faulty)) {
        assert_eq!(els.get(&series), Some(&value), "{series}");
    }
    assert_eq!(els["batch_essays_ready_events_total"], ready);
    assert_eq!(els[&events("essays_ready")], ready);
    assert_eq!(bos["huleedu_batch_processing_duration_seconds"], ready);
}
