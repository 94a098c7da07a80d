//! The pipeline on real servers: healthy runs lose nothing, each fault loses essays in silence, and
//! telemetry and databases tell the same story either way.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::collections::HashSet;

use support::{Collected, Pipeline, Truth, url};

const PROVISIONED: &str = "kafka.consume.huleedu.file.essay.content.provisioned.v1";
const REGISTERED: &str = "kafka.consume.huleedu.batch.essays.registered.v1";
const READY: &str = "kafka.consume.huleedu.els.batch.essays.ready.v1";
const ASSIGN: &str = "redis.transaction.assign_slot_atomic";

/// What the contracts rest on, for every essay and batch, both ways.
fn assert_spans_tell_the_truth(collected: &Collected, truth: &Truth) {
    for essay in &truth.essays {
        let consumed = collected.of(PROVISIONED, &essay.correlation_id);
        assert!(!consumed.is_empty(), "no consume span for {}", essay.correlation_id);
        for span in &consumed {
            assert_eq!(span.attribute("essay_id"), essay.essay_id);
            assert_eq!(span.attribute("batch_id"), essay.batch_id);
        }
        let assigned = collected
            .of(ASSIGN, &essay.correlation_id)
            .iter()
            .any(|s| s.attribute("transaction.result") == "success");
        assert_eq!(
            assigned,
            essay.slot.is_some(),
            "spans against database for {}",
            essay.correlation_id
        );
    }
    for batch in &truth.batches {
        let of_batch = |name| {
            collected.named(name).filter(|s| s.attribute("batch_id") == batch.batch_id).count()
        };
        assert_eq!(of_batch(REGISTERED), 1);
        assert_eq!(of_batch(READY), usize::from(batch.ready), "{}", batch.batch_id);
    }
}

/// Everything that people look at is green, and the essays are gone.
fn assert_silent(collected: &Collected, truth: &Truth) {
    assert!(!truth.lost().is_empty(), "the fault lost nothing");
    for span in &collected.spans {
        let is_redis = span.attribute("db.system.name") == "redis";
        assert!(is_redis || !span.is_error, "{} is an error: {}", span.name, span.message);
        if span.name.starts_with("POST ") {
            assert!(
                ["200", "201"].contains(&span.attribute("http.response.status_code")),
                "{span:?}"
            );
        }
    }
    for essay in truth.lost() {
        let framework = collected.logs_of("framework", &essay.correlation_id);
        assert!(
            framework.iter().any(|l| l.body.starts_with("PROCESSING_SUCCESS")),
            "{framework:?}"
        );
        let application = collected.logs_of("application", &essay.correlation_id);
        assert!(application.iter().any(|l| l.body == "Processing EssayContentProvisionedV1 event"));
        assert!(application.iter().any(|l| l.body.contains("excess content")), "{application:?}");
        let infrastructure = collected.logs_of("infrastructure", &essay.correlation_id);
        assert!(
            infrastructure.iter().any(|l| l.body.starts_with("Redis WATCH: keys=(batch:")),
            "{infrastructure:?}"
        );
        // The step where it was lost.
        let failed = collected.of("redis.transaction.failed", &essay.correlation_id);
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert!(failed[0].is_error && failed[0].message == "Transaction discarded", "{failed:?}");
        assert!(!failed[0].attribute("failure.reason").is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_run_loses_nothing() {
    let pipeline = Pipeline::start().await;
    let truth = pipeline.load(6, 15, 150, 11).await;
    truth.assert_healthy();
    assert_eq!(truth.essays.len(), 6 * 15);
    pipeline.assert_green().await;

    let client = redis::Client::open(url("REDIS_URL")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    for batch in &truth.batches {
        let key = |part: &str| format!("batch:{}:{part}", batch.batch_id);
        let (free, assigned, expected, ttl): (u32, u32, u32, i64) = redis::pipe()
            .scard(key("available_slots"))
            .hlen(key("assignments"))
            .hget(key("metadata"), "expected_essays")
            .ttl(key("timeout"))
            .query_async(&mut redis)
            .await
            .unwrap();
        assert_eq!((free, assigned, expected), (0, 15, 15));
        assert!(ttl > 0);
    }

    let collected = pipeline.stop().await;
    assert_spans_tell_the_truth(&collected, &truth);
    let errors: Vec<_> = collected.spans.iter().filter(|s| s.is_error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    // One trace from the upload to the slot, and one more hop to BOS for whoever filled the batch.
    for essay in &truth.essays {
        let consumed = collected.of(PROVISIONED, &essay.correlation_id);
        let produced = collected
            .of("kafka.produce.huleedu.file.essay.content.provisioned.v1", &essay.correlation_id);
        assert_eq!((produced.len(), consumed.len()), (1, 1));
        assert_eq!(consumed[0].parent_id, produced[0].span_id);
        assert_eq!(
            (produced[0].service.as_str(), consumed[0].service.as_str()),
            ("file_service", "essay_lifecycle_service")
        );
        let assign = collected.of(ASSIGN, &essay.correlation_id);
        assert_eq!(assign[0].trace_id, consumed[0].trace_id);
        for step in
            ["redis.watch.batch_slots", "redis.spop.available_slots", "redis.transaction.execute"]
        {
            assert!(!collected.of(step, &essay.correlation_id).is_empty(), "{step}");
        }
        assert!(
            !collected
                .of("kafka.produce.huleedu.els.essay.slot.assigned.v1", &essay.correlation_id)
                .is_empty()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_connection_loses_essays_in_silence_until_it_is_off() {
    let pipeline = Pipeline::start().await;
    let before = pipeline.load(2, 8, 100, 21).await;
    before.assert_healthy();
    pipeline.fault(&["shared-redis-connection"]).await;
    let during = pipeline.load(5, 12, 200, 22).await;
    during.assert_consistent();
    pipeline.assert_green().await;
    pipeline.fault(&["off"]).await;
    let after = pipeline.load(2, 8, 100, 23).await;
    after.assert_healthy();

    let collected = pipeline.stop().await;
    for truth in [&before, &during, &after] {
        assert_spans_tell_the_truth(&collected, truth);
    }
    assert_silent(&collected, &during);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_modification_loses_a_share_of_essays_in_silence() {
    let pipeline =
        Pipeline::start_with(&["--fault", "concurrent-slot-modification", "--fault-rate", "0.4"])
            .await;
    let truth = pipeline.load(4, 15, 150, 31).await;
    truth.assert_consistent();
    pipeline.assert_green().await;
    let lost = truth.lost().len();
    assert!(lost < truth.essays.len(), "only a share is concerned");

    let collected = pipeline.stop().await;
    assert_spans_tell_the_truth(&collected, &truth);
    assert_silent(&collected, &truth);
    for essay in truth.lost() {
        let failed = collected.of("redis.transaction.failed", &essay.correlation_id);
        assert_eq!(failed[0].attribute("failure.reason"), "concurrent_modification");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_cannot_be_read_stops_nobody() {
    use rdkafka::producer::{FutureProducer, FutureRecord};
    let pipeline = Pipeline::start().await;
    let producer: FutureProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", url("KAFKA_BROKERS"))
        .create()
        .unwrap();
    let topic = format!("{}.huleedu.file.essay.content.provisioned.v1", pipeline.namespace);
    for partition in 0..4 {
        for payload in ["{", "{\"event_id\": 1}", ""] {
            let record = FutureRecord::<str, str>::to(&topic).payload(payload).partition(partition);
            producer.send(record, std::time::Duration::from_secs(10)).await.unwrap();
        }
    }
    pipeline.load(3, 6, 100, 41).await.assert_healthy();
    let collected = pipeline.stop().await;
    let skipped =
        collected.logs.iter().filter(|l| l.body == "event cannot be read, skipped").count();
    assert_eq!(skipped, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    let pipeline = Pipeline::start().await;
    let http = reqwest::Client::new();
    let post = |url: String, body: &'static str| {
        let http = http.clone();
        async move {
            let response = http
                .post(url)
                .header("content-type", "application/json")
                .body(body)
                .send()
                .await
                .unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        }
    };
    let (bos, file, els) = (&pipeline.at.bos, &pipeline.at.file, &pipeline.at.els);
    let batch = uuid::Uuid::new_v4();
    let refused: HashSet<u16> = HashSet::from([400, 415, 422]);
    for (url, body) in [
        (format!("{bos}/v1/batches"), r#"{"expected_essays": 0}"#),
        (format!("{bos}/v1/batches"), r#"{"expected_essays": -1}"#),
        (format!("{bos}/v1/batches"), "{"),
        (format!("{file}/v1/batches/no-uuid/files"), r#"{"files":[{"name":"a","content":"b"}]}"#),
        (format!("{file}/v1/batches/{batch}/files"), r#"{"files":[]}"#),
        (format!("{els}/faults"), r#"{"fault":"no-such-fault"}"#),
        (format!("{els}/faults"), r#"{"fault":"shared-redis-connection","rate":2}"#),
    ] {
        let (status, text) = post(url.clone(), body).await;
        assert!(refused.contains(&status), "{url} {body}: {status} {text}");
        assert!(text.contains("\"error\""), "{text}");
    }
    pipeline.load(1, 3, 50, 51).await.assert_healthy();
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_one_clear_line() {
    for (variable, value, says) in [
        ("DATABASE_URL", "postgres://lacuna@127.0.0.1:1/lacuna", "PostgreSQL: "),
        ("REDIS_URL", "redis://127.0.0.1:1", "Redis: "),
        ("REDIS_URL", "nonsense", "Redis: "),
    ] {
        let mut els = std::process::Command::new(support::PIPELINE);
        els.args(["els", "--port", "0", "--namespace", &support::namespace()])
            .env("OTEL_SDK_DISABLED", "true")
            .env(variable, value);
        let output = support::output(els).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.starts_with(&format!("pipeline: {says}")) && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut bos = std::process::Command::new(support::PIPELINE);
    bos.args(["bos", "--port", &port, "--namespace", &support::namespace()])
        .env("OTEL_SDK_DISABLED", "true");
    let output = support::output(bos).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains(&port) && stderr.contains("in use") && stderr.lines().count() == 1,
        "{stderr}"
    );
}
