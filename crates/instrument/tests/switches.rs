//! Each part off: the service's work is done all the same, and that part alone is silent.
//!
//! The switches are the process's own, so this is one test in a binary of its own.
#![cfg(all(
    feature = "redis",
    feature = "kafka",
    feature = "postgres",
    feature = "http",
    feature = "breaker"
))]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::{memory, own_trace, spans_of, unique, url};
use lacuna_instrument::breaker::Breaker;
use lacuna_instrument::http::ClientRequest;
use lacuna_instrument::kafka::{Event, produce};
use lacuna_instrument::outcome::outcome;
use lacuna_instrument::postgres::Pool;
use lacuna_instrument::redis::{ExclusiveConnection, Transaction, TransactionOutcome};
use lacuna_instrument::series::Subjects;
use lacuna_instrument::switch::{self, Level, Part};
use opentelemetry::context::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::producer::FutureProducer;
use redis::cmd;
use std::time::Duration;

struct Service<P> {
    redis: ExclusiveConnection,
    pool: Pool,
    producer: FutureProducer,
    breaker: Breaker<P>,
    topic: String,
    subjects: Subjects,
}

/// Everything once; whether a trace context was sent with the HTTP request.
async fn work<P: failsafe::FailurePolicy>(service: &mut Service<P>) -> bool {
    let key = &service.topic;
    let outcome_of = Transaction::new("switch_test")
        .watch("keys", &[key])
        .run(&mut service.redis, |tx| async move {
            let mut multi = tx.multi();
            multi.add("counter", cmd("INCR").arg(key));
            Ok(multi.commit(()))
        })
        .await
        .unwrap();
    assert_eq!(outcome_of, TransactionOutcome::Committed(()));
    let mut transaction = service.pool.begin().await.unwrap();
    sqlx::query("SELECT 1").execute(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    let event = Event::new(&service.topic, "switch.v1", b"{}");
    produce(&service.producer, event, Duration::from_secs(20)).await.unwrap();
    service.breaker.call(async { Ok::<_, String>(()) }).await.unwrap();
    outcome("switch_outcome").key("correlation_id", "c").reached();
    service.subjects.counter("switch_series_total", "1", "").add("batch", &[], 1.0);
    ClientRequest::new("GET", "http://127.0.0.1:9/x")
        .template("/x")
        .send(|headers| async move { Ok::<_, std::io::Error>(headers) }, |_| 200)
        .await
        .unwrap()
        .contains_key("traceparent")
}

/// What each part leaves in a trace.
const SPANS: [(Part, &str); 5] = [
    (Part::Redis, "redis.transaction.switch_test"),
    (Part::Kafka, "kafka.produce.switch.v1"),
    (Part::Postgres, "db.transaction"),
    (Part::Breaker, "circuit_breaker.svc.part.op"),
    (Part::Http, "GET /x"),
];

/// What each part counts of a piece of work, on the page.
const METRICS: [(Part, &[&str]); 5] = [
    (
        Part::Redis,
        &["redis_transaction_attempts_total{", "redis_transaction_duration_seconds_count{"],
    ),
    (
        Part::Kafka,
        &[
            "messaging_client_sent_messages_total{",
            "messaging_client_operation_duration_seconds_count{",
        ],
    ),
    (
        Part::Postgres,
        &[
            "db_client_operation_duration_seconds_count{|postgresql",
            "lacuna_db_transaction_duration_seconds_count{",
            "db_client_connection_wait_time_seconds_count{",
        ],
    ),
    (Part::Breaker, &["lacuna_circuit_breaker_calls_total{"]),
    (Part::Http, &["http_client_request_duration_seconds_count{"]),
];

/// What a part shows by being asked, only while it is on.
const GAUGES: [(Part, &str); 2] = [
    (Part::Postgres, "db_client_connection_count{"),
    (Part::Breaker, "lacuna_circuit_breaker_state{"),
];

/// The sum of a metric's samples, of those with the text after `|` if there is one; 0 without any.
fn sum(page: &str, name: &str) -> f64 {
    let (name, label) = name.split_once('|').unwrap_or((name, ""));
    let values = page.lines().filter(|l| l.starts_with(name) && l.contains(label));
    values.map(|l| l.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn page() -> String {
    memory().telemetry.metrics_text().render()
}

fn all_on() {
    for part in Part::ALL {
        switch::set(part, Level::On);
    }
}

#[tokio::test]
async fn a_part_that_is_off_is_silent_and_the_rest_is_not() {
    memory();
    let client = redis::Client::open(url("REDIS_URL")).unwrap();
    let wait = failsafe::backoff::constant(Duration::from_secs(1));
    let config = failsafe::Config::new()
        .failure_policy(failsafe::failure_policy::consecutive_failures(3, wait));
    let mut service = Service {
        redis: ExclusiveConnection::connect(&client).await.unwrap(),
        pool: Pool::new(sqlx::PgPool::connect(&url("DATABASE_URL")).await.unwrap(), "switches"),
        producer: ClientConfig::new()
            .set("bootstrap.servers", url("KAFKA_BROKERS"))
            .create()
            .unwrap(),
        breaker: Breaker::new("svc", "part", "op", config),
        topic: unique("switch"),
        subjects: Subjects::new("batch_id"),
    };

    for (off, _) in SPANS {
        all_on();
        switch::set(off, Level::Off);
        let (cx, trace) = own_trace();
        let before = page();
        work(&mut service).with_context(cx).await;
        let after = page();
        for (part, names) in METRICS {
            for name in names {
                let grew = sum(&after, name) > sum(&before, name);
                assert_eq!(grew, part != off, "{name} while {} is off:\n{after}", off.name());
            }
        }
        for (part, name) in GAUGES {
            let there = after.lines().any(|l| l.starts_with(name));
            assert_eq!(there, part != off, "{name} while {} is off", off.name());
        }
        let spans = spans_of(trace);
        for (part, name) in SPANS {
            let there = spans.iter().any(|s| s.name == name);
            assert_eq!(there, part != off, "{name} while {} is off", off.name());
        }
        // Nothing of the part is left over: no child of a span that was not made.
        if off == Part::Redis {
            assert!(!spans.iter().any(|s| s.name.starts_with("redis.")));
        }
    }

    // Spans off, metrics on: the trace is bare and the page is not.
    all_on();
    let before = memory().telemetry.metrics_text().render();
    switch::set(Part::Redis, Level::Metrics);
    let (cx, trace) = own_trace();
    work(&mut service).with_context(cx).await;
    assert!(!spans_of(trace).iter().any(|s| s.name.starts_with("redis.")));
    let attempts = |page: &str| -> f64 {
        let name = "redis_transaction_attempts_total{operation=\"switch_test\"} ";
        page.lines().find_map(|l| l.strip_prefix(name)).unwrap().parse().unwrap()
    };
    let after = memory().telemetry.metrics_text().render();
    assert_eq!(attempts(&after), attempts(&before) + 1.0);

    // Metrics off, spans on.
    switch::set(Part::Redis, Level::Spans);
    let (cx, trace) = own_trace();
    work(&mut service).with_context(cx).await;
    assert!(spans_of(trace).iter().any(|s| s.name == "redis.transaction.switch_test"));
    assert_eq!(attempts(&memory().telemetry.metrics_text().render()), attempts(&after));

    // Propagation is a switch of its own.
    all_on();
    let (cx, _) = own_trace();
    assert!(work(&mut service).with_context(cx.clone()).await);
    switch::set(Part::Propagation, Level::Off);
    assert!(!work(&mut service).with_context(cx).await);

    // Everything off: a message is handled where its handler is, and its headers are left alone.
    for part in Part::ALL {
        switch::set(part, Level::Off);
    }
    let headers = rdkafka::message::OwnedHeaders::new().insert(rdkafka::message::Header {
        key: "correlation_id",
        value: Some("from-the-producer"),
    });
    let message = rdkafka::message::OwnedMessage::new(
        None,
        None,
        "switch".to_owned(),
        rdkafka::message::Timestamp::NotAvailable,
        0,
        0,
        Some(headers),
    );
    let (cx, trace) = own_trace();
    let seen = async {
        let span = lacuna_instrument::kafka::Consumer::new("group").start(&message).begin();
        span.run(async { Ok::<_, String>(lacuna_instrument::correlation::current()) }).await
    };
    assert_eq!(seen.with_context(cx).await, Ok(None));
    assert!(!spans_of(trace).iter().any(|s| s.name.starts_with("kafka.")));

    // Outcomes and business metrics.
    all_on();
    let outcomes = || {
        let logs = memory().logs.get_emitted_logs().unwrap();
        logs.iter().filter(|l| l.record.event_name() == Some("outcome.reached")).count()
    };
    let told = outcomes();
    switch::set(Part::Outcome, Level::Off);
    switch::set(Part::Business, Level::Off);
    work(&mut service).await;
    assert_eq!(outcomes(), told);
    assert!(!memory().telemetry.metrics_text().render().contains("switch_series_total"));
    all_on();
    assert!(
        memory()
            .telemetry
            .metrics_text()
            .render()
            .contains("switch_series_total{batch_id=\"batch\"}")
    );
}
