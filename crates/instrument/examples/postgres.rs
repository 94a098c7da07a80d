//! A transaction from BEGIN to COMMIT, its queries without their values. Needs `DATABASE_URL`.
//!
//! `cargo run -p lacuna-instrument --example postgres --features postgres`, with an OTLP backend at
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (default: `http://localhost:4318`).

use lacuna_instrument::postgres::Pool;
use sqlx::postgres::PgPoolOptions;
use std::error::Error;

#[tokio::main]
#[allow(dead_code, reason = "the tests include this file and call `run`")]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = lacuna_instrument::init("example_postgres")?;
    run().await?;
    // Without a backend the example has run all the same.
    telemetry.shutdown().await.ok();
    Ok(())
}

/// The example itself.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")
        .unwrap_or_else(|_| "postgres://localhost/postgres".to_owned());
    let pool = Pool::new(PgPoolOptions::new().max_connections(2).connect(&url).await?, "example");
    let mut transaction = pool.begin().await?;
    sqlx::query("CREATE TEMPORARY TABLE essays (id text, state text) ON COMMIT DROP")
        .execute(&mut transaction)
        .await?;
    sqlx::query("INSERT INTO essays (id, state) VALUES ($1, 'assigned')")
        .bind("essay-1")
        .execute(&mut transaction)
        .await?;
    transaction.commit().await?;
    let answer = sqlx::query("SELECT no_such_column").execute(&pool).await;
    if let Err(error) = answer {
        // `failure.reason` of the span: invalid_statement.
        tracing::warn!(reason = pool.classify(&error).reason(), "as expected");
    }
    Ok(())
}
