//! What crashes leave behind is made up for: nothing is lost, and nothing counts twice.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use support::{Pipeline, Service, url};

const ASSIGN: &str = "redis.transaction.assign_slot_atomic";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_nothing() {
    let namespace = support::namespace();
    let (bos, file) =
        (Service::start("bos", &namespace).await, Service::start("file", &namespace).await);
    let els = Service::start("els", &namespace).await;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("truth.json");
    let mut load = std::process::Command::new(support::PIPELINE);
    load.args(["load", "--bos", &bos.url, "--file", &file.url, "--namespace", &namespace])
        .args(["--batches", "6", "--essays", "20", "--rate", "120", "--seed", "61", "--out"])
        .arg(&out);
    let load = tokio::spawn(support::output(load));

    let pool = sqlx::PgPool::connect(&url("DATABASE_URL")).await.unwrap();
    let decided = format!("SELECT count(*) FROM huleedu_{namespace}.essay_states");
    loop {
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(decided.clone()))
            .fetch_one(&pool)
            .await
            .unwrap();
        if count >= 30 {
            break;
        }
        tokio::task::yield_now().await;
    }
    els.kill();
    let _els = Service::start("els", &namespace).await;

    let output = load.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    support::read(&out).assert_healthy();
}

/// A worker killed between publishing that a batch is ready and noting so published it again under
/// another id, and the batch counted as told twice.
#[tokio::test(flavor = "multi_thread")]
async fn ready_published_again_after_a_crash_is_the_same_event() {
    use rdkafka::producer::{FutureProducer, FutureRecord};
    let pipeline = Pipeline::start().await;
    let truth = pipeline.load(1, 3, 50, 71).await;
    truth.assert_healthy();
    let (batch, essay) = (&truth.batches[0].batch_id, &truth.essays[0]);

    let pool = sqlx::PgPool::connect(&url("DATABASE_URL")).await.unwrap();
    let schema = format!("huleedu_{}", pipeline.namespace);
    let version = format!("SELECT xmin::text FROM {schema}.batches WHERE batch_id = $1");
    let version = async || {
        let version = sqlx::AssertSqlSafe(version.clone());
        sqlx::query_scalar::<_, String>(version).bind(batch).fetch_one(&pool).await.unwrap()
    };
    let before = version().await;
    let forget =
        format!("UPDATE {schema}.slot_batches SET ready_published = false WHERE batch_id = $1");
    sqlx::query(sqlx::AssertSqlSafe(forget)).bind(batch).execute(&pool).await.unwrap();
    let again = serde_json::json!({
        "event_id": uuid::Uuid::new_v4().to_string(),
        "event_type": "huleedu.file.essay.content.provisioned.v1",
        "event_timestamp": "2026-01-01T00:00:00Z",
        "source_service": "test",
        "correlation_id": essay.correlation_id,
        "batch_id": batch,
        "data": {"essay_id": essay.essay_id, "file_name": "a.txt", "content_length": 1},
    })
    .to_string();
    let producer: FutureProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", url("KAFKA_BROKERS"))
        .create()
        .unwrap();
    let topic = format!("{}.huleedu.file.essay.content.provisioned.v1", pipeline.namespace);
    let record = FutureRecord::<str, str>::to(&topic).payload(&again).key(&essay.essay_id);
    producer.send(record, std::time::Duration::from_secs(10)).await.unwrap();

    while version().await == before {
        tokio::task::yield_now().await;
    }
    let told = format!("SELECT ready_events FROM {schema}.batches WHERE batch_id = $1");
    let told: i32 =
        sqlx::query_scalar(sqlx::AssertSqlSafe(told)).bind(batch).fetch_one(&pool).await.unwrap();
    assert_eq!(told, 1);
    pipeline.stop().await;
}

/// What a crash between `EXEC` and PostgreSQL leaves behind: a slot that is neither free nor anybody's.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_taken_but_never_written_down_is_recovered() {
    use rdkafka::producer::{FutureProducer, FutureRecord};
    let pipeline = Pipeline::start().await;
    let http = reqwest::Client::new();
    let registered: serde_json::Value = http
        .post(format!("{}/v1/batches", pipeline.at.bos))
        .json(&serde_json::json!({"expected_essays": 3}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let batch = registered["batch_id"].as_str().unwrap();
    let essay = uuid::Uuid::new_v4().to_string();

    let client = redis::Client::open(url("REDIS_URL")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let slots = format!("batch:{batch}:available_slots");
    let popped: String = loop {
        let popped: Option<String> =
            redis::cmd("SPOP").arg(&slots).query_async(&mut redis).await.unwrap();
        match popped {
            Some(slot) => break slot,
            None => tokio::task::yield_now().await,
        }
    };
    let () = redis::cmd("HSET")
        .arg(format!("batch:{batch}:assignments"))
        .arg(&essay)
        .arg("{}")
        .query_async(&mut redis)
        .await
        .unwrap();

    let event = serde_json::json!({
        "event_id": uuid::Uuid::new_v4().to_string(),
        "event_type": "huleedu.file.essay.content.provisioned.v1",
        "event_timestamp": "2026-01-01T00:00:00Z",
        "source_service": "test",
        "correlation_id": "c-recovered",
        "batch_id": batch,
        "data": {"essay_id": essay, "file_name": "a.txt", "content_length": 1},
    })
    .to_string();
    let producer: FutureProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", url("KAFKA_BROKERS"))
        .create()
        .unwrap();
    let topic = format!("{}.huleedu.file.essay.content.provisioned.v1", pipeline.namespace);
    let record = FutureRecord::<str, str>::to(&topic).payload(&event).key(&essay);
    producer.send(record, std::time::Duration::from_secs(10)).await.unwrap();
    http.post(format!("{}/v1/batches/{batch}/files", pipeline.at.file))
        .json(&serde_json::json!({"files": [{"name": "b", "content": "b"}, {"name": "c", "content": "c"}]}))
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();

    let pool = sqlx::PgPool::connect(&url("DATABASE_URL")).await.unwrap();
    let schema = format!("huleedu_{}", pipeline.namespace);
    let ready = format!("SELECT state = 'ready' FROM {schema}.batches WHERE batch_id = $1");
    while !sqlx::query_scalar::<_, bool>(sqlx::AssertSqlSafe(ready.clone()))
        .bind(batch)
        .fetch_one(&pool)
        .await
        .unwrap()
    {
        tokio::task::yield_now().await;
    }
    let slot = format!("SELECT slot FROM {schema}.essay_states WHERE essay_id = $1");
    let slot: String =
        sqlx::query_scalar(sqlx::AssertSqlSafe(slot)).bind(&essay).fetch_one(&pool).await.unwrap();
    assert!(slot.starts_with(&batch[..8]));
    // With nobody else between EXEC and PostgreSQL it is the very slot; otherwise one as good.
    assert_eq!(slot.len(), popped.len());
    let collected = pipeline.stop().await;
    let assigned = collected.of(ASSIGN, "c-recovered");
    assert!(
        assigned.iter().any(|s| s.attribute("transaction.result") == "success"),
        "{assigned:?}"
    );
}
