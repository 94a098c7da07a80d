//! A breaker's calls, refusals and transitions.
#![cfg(feature = "breaker")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

mod common;

use common::{attribute, is_child_of, memory, named, own_trace, spans_of};
use failsafe::{Config, Error, backoff, failure_policy};
use lacuna_instrument::breaker::Breaker;
use opentelemetry::context::FutureExt;
use opentelemetry::trace::Status;
use std::time::Duration;

const NAME: &str = "circuit_breaker.essay-lifecycle-service.kafka_producer.publish";

fn breaker(failures: u32) -> Breaker<impl failsafe::FailurePolicy> {
    let policy = failure_policy::consecutive_failures(
        failures,
        backoff::constant(Duration::from_secs(3600)),
    );
    Breaker::new(
        "essay-lifecycle-service",
        "kafka_producer",
        "publish",
        Config::new().failure_policy(policy),
    )
}

#[tokio::test]
async fn each_call_says_state_counts_and_result() {
    let (cx, trace) = own_trace();
    let breaker = breaker(2);
    async {
        breaker
            .call(async { tracing::info_span!("inner").in_scope(|| Ok::<_, String>(1)) })
            .await
            .unwrap();
        for _ in 0..2 {
            let failed: Result<(), _> = breaker.call(async { Err("down".to_owned()) }).await;
            assert!(matches!(failed, Err(Error::Inner(e)) if e == "down"));
        }
        let ran = std::sync::atomic::AtomicBool::new(false);
        let refused: Result<(), Error<String>> = breaker
            .call(async {
                ran.store(true, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            })
            .await;
        assert!(matches!(refused, Err(Error::Rejected)));
        assert!(!ran.into_inner(), "an open circuit does not run the operation");
    }
    .with_context(cx)
    .await;
    let spans = spans_of(trace);
    let calls = named(&spans, NAME);
    let column =
        |key: &str| -> Vec<String> { calls.iter().map(|s| attribute(s, key).unwrap()).collect() };
    assert_eq!(column("circuit.call_result"), ["success", "failure", "failure", "rejected"]);
    assert_eq!(column("circuit.state"), ["closed", "closed", "closed", "open"]);
    assert_eq!(column("circuit.success_count"), ["0", "1", "1", "0"]);
    assert_eq!(column("circuit.failure_count"), ["0", "0", "1", "0"]);
    assert_eq!(calls[0].status, Status::Unset);
    assert_eq!(calls[1].status, Status::error("down"));
    assert_eq!(calls[3].status, Status::error("the circuit is open"));
    assert!(is_child_of(common::one(&spans, "inner"), calls[0]));
    let lines = memory().lines.json();
    let opened = lines.iter().find(|l| l["message"] == "circuit opened").unwrap();
    assert_eq!(opened["circuit.name"], NAME);
    assert_eq!(opened["layer"], "infrastructure");
}

#[tokio::test]
async fn an_error_that_is_no_failure_keeps_the_circuit_closed() {
    let (cx, trace) = own_trace();
    let breaker = breaker(1);
    let refused: Result<(), _> =
        breaker.call_with(|_| false, async { Err("400") }).with_context(cx).await;
    assert!(refused.is_err());
    breaker.call(async { Ok::<_, String>(()) }).await.unwrap();
    let spans = spans_of(trace);
    assert_eq!(
        attribute(named(&spans, NAME)[0], "circuit.call_result").as_deref(),
        Some("ignored_error")
    );
}

#[tokio::test]
async fn a_dropped_call_is_told_as_cancelled() {
    let (cx, trace) = own_trace();
    let breaker = breaker(1);
    let call = breaker.call(std::future::pending::<Result<(), String>>()).with_context(cx);
    assert!(tokio::time::timeout(Duration::from_millis(10), call).await.is_err());
    let spans = spans_of(trace);
    assert_eq!(
        attribute(named(&spans, NAME)[0], "circuit.call_result").as_deref(),
        Some("cancelled")
    );
    assert_eq!(attribute(named(&spans, NAME)[0], "error.type").as_deref(), Some("cancelled"));
    assert!(matches!(named(&spans, NAME)[0].status, Status::Error { .. }));
}

#[tokio::test]
async fn the_state_is_on_the_metrics_page() {
    memory();
    let policy =
        failure_policy::consecutive_failures(1, backoff::constant(Duration::from_secs(3600)));
    let breaker = Breaker::new("svc", "part", "scrape", Config::new().failure_policy(policy));
    let text = memory().telemetry.metrics_text();
    assert!(text.render().contains(
        "lacuna_circuit_breaker_state{circuit_name=\"circuit_breaker.svc.part.scrape\"} 0"
    ));
    let _: Result<(), _> = breaker.call(async { Err("x") }).await;
    let rendered = text.render();
    assert!(rendered.contains(
        "lacuna_circuit_breaker_state{circuit_name=\"circuit_breaker.svc.part.scrape\"} 2"
    ));
    assert!(rendered.contains(
        "circuit_name=\"circuit_breaker.svc.part.scrape\",circuit_state_from=\"closed\",circuit_state_to=\"open\"} 1"
    ));
    drop(breaker);
    assert!(!text.render().contains(
        "lacuna_circuit_breaker_state{circuit_name=\"circuit_breaker.svc.part.scrape\"}"
    ));
}
