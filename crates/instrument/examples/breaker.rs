//! A circuit breaker that opens, each of its calls a span.
//!
//! `cargo run -p lacuna-instrument --example breaker --features breaker`, with an OTLP backend at
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (default: `http://localhost:4318`).

use failsafe::{Config, backoff, failure_policy};
use lacuna_instrument::breaker::Breaker;
use std::error::Error;
use std::time::Duration;

#[tokio::main]
#[allow(dead_code, reason = "the tests include this file and call `run`")]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = lacuna_instrument::init("example_breaker")?;
    run().await?;
    // Without a backend the example has run all the same.
    telemetry.shutdown().await.ok();
    Ok(())
}

/// The example itself.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let wait = backoff::constant(Duration::from_secs(10));
    let policy = failure_policy::consecutive_failures(2, wait);
    let config = Config::new().failure_policy(policy);
    let breaker = Breaker::new("example", "kafka_producer", "publish", config);
    for call in 1..=3 {
        let result: Result<(), _> = breaker.call(async { Err("the broker is down") }).await;
        // The third is refused without being tried.
        let refused = matches!(result, Err(failsafe::Error::Rejected));
        tracing::info!(call, refused, "called");
    }
    Ok(())
}
