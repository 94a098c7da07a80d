//! PostgreSQL: a pool whose search path is the run's schema, and the tables of a service.

use std::str::FromStr;
use std::time::Duration;

use lacuna_instrument::postgres::Pool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor};

use crate::config::Namespace;
use crate::error::Error;

/// Held while schema and tables are made: `IF NOT EXISTS` alone races between processes.
const SETUP_LOCK: i64 = 0x6c61_6375_6e61;

/// A pool on the namespace's schema, whose waits, queries and transactions are traced.
pub async fn connect(url: &str, namespace: &Namespace, connections: u32) -> Result<Pool, Error> {
    let options = PgConnectOptions::from_str(url)?.options([("search_path", namespace.schema())]);
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options)
        .await?;
    Ok(Pool::new(pool, namespace.schema()))
}

/// Creates the schema and `tables`, where they are missing. Untraced: it belongs to no request.
pub async fn create(
    pool: &Pool,
    namespace: &Namespace,
    tables: &'static [&'static str],
) -> Result<(), Error> {
    let mut transaction = pool.inner().begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(SETUP_LOCK)
        .execute(&mut *transaction)
        .await?;
    // Everything exists at most starts, which the server would remark on each time.
    transaction.execute("SET LOCAL client_min_messages = warning").await?;
    // A namespace holds nothing but lower-case letters, digits and `_` (see `Namespace::parse`).
    let schema = AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {}", namespace.schema()));
    transaction.execute(schema).await?;
    for table in tables {
        transaction.execute(*table).await?;
    }
    transaction.commit().await?;
    Ok(())
}
