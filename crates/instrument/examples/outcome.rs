//! Business outcomes, said as such.
//!
//! `cargo run -p lacuna-instrument --example outcome`, with an OTLP backend at
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (default: `http://localhost:4318`).

use lacuna_instrument::outcome::outcome;
use lacuna_instrument::series::Subjects;
use opentelemetry::KeyValue;
use std::error::Error;

#[tokio::main]
#[allow(dead_code, reason = "the tests include this file and call `run`")]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = lacuna_instrument::init("example_outcome")?;
    run().await?;
    // Without a backend the example has run all the same.
    telemetry.shutdown().await.ok();
    Ok(())
}

/// The example itself.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let batches = Subjects::new("batch_id");
    let attempts = batches.counter("example_attempts_total", "{attempt}", "Attempts by batch");
    attempts.add("batch-7", &[KeyValue::new("service", "example")], 1.0);
    outcome("slot_assigned").key("correlation_id", "c-1").reached();
    outcome("slot_assigned").key("correlation_id", "c-2").missed("no_slot");
    batches.close("batch-7");
    Ok(())
}
