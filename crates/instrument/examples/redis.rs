//! A slot is taken in a Redis transaction whose outcome cannot be overlooked. Needs `REDIS_URL`.
//!
//! `cargo run -p lacuna-instrument --example redis --features redis`, with an OTLP backend at
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (default: `http://localhost:4318`).

use lacuna_instrument::redis::{ExclusiveConnection, Transaction, TransactionOutcome};
use redis::{AsyncCommands, cmd};
use std::error::Error;

#[tokio::main]
#[allow(dead_code, reason = "the tests include this file and call `run`")]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = lacuna_instrument::init("example_redis")?;
    run().await?;
    // Without a backend the example has run all the same.
    telemetry.shutdown().await.ok();
    Ok(())
}

/// The example itself.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let mut connection = ExclusiveConnection::connect(&redis::Client::open(url)?).await?;
    let (slots, assignments) = ("example:available_slots", "example:assignments");
    let _: () = connection.sadd(slots, "slot-1").await?;

    let outcome = Transaction::new("assign_slot")
        .attribute("batch_id", "example")
        .watch("batch_slots", &[slots, assignments])
        .run(&mut connection, |mut tx| async move {
            let slot: Option<String> =
                tx.query("available_slots", cmd("SRANDMEMBER").arg(slots)).await?;
            let Some(slot) = slot else { return Ok(tx.no_value("no_slot")) };
            let mut multi = tx.multi();
            multi.add("available_slots", cmd("SREM").arg(slots).arg(&slot));
            multi.add("assignments", cmd("HSET").arg(assignments).arg(&slot).arg("essay-1"));
            Ok(multi.commit(slot))
        })
        .await?;
    match outcome {
        TransactionOutcome::Committed(slot) => tracing::info!(slot, "assigned"),
        TransactionOutcome::NoValue { reason, .. } => tracing::warn!(%reason, "refused"),
        TransactionOutcome::Aborted { attempts } => tracing::warn!(attempts, "gave up: try later"),
    }
    connection.del::<_, ()>(&[slots, assignments]).await?;
    Ok(())
}
