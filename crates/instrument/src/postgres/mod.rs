//! PostgreSQL: queries, transactions from `BEGIN` to their end, and the wait for a connection.
//!
//! [`Pool`] wraps `sqlx`'s pool; it, [`Connection`] and [`Transaction`] are `sqlx` executors, so that
//! `sqlx::query` runs on them as before:
//!
//! ```no_run
//! use lacuna_instrument::postgres::Pool;
//!
//! # async fn run() -> Result<(), sqlx::Error> {
//! let pool = Pool::new(sqlx::PgPool::connect("postgres://localhost/essays").await?, "essays");
//!
//! let mut transaction = pool.begin().await?;
//! sqlx::query("INSERT INTO essays (id, state) VALUES ($1, $2)")
//!     .bind("essay-1")
//!     .bind("assigned")
//!     .execute(&mut transaction)
//!     .await?;
//! transaction.commit().await?;
//!
//! let count: i64 = sqlx::query_scalar("SELECT count(*) FROM essays").fetch_one(&pool).await?;
//! # let _ = count; Ok(()) }
//! ```
//!
//! Bound values are never recorded, and literals in the text are replaced by `?`. A deadlock, a
//! serialisation failure and an exhausted pool each have a `failure.reason` of their own.

mod classify;
mod metrics;
mod pool;
mod query;
mod record;
mod sanitise;
mod summary;
mod transaction;

pub use classify::{Failure, classify};
pub use pool::{Connection, Pool};
pub use sanitise::sanitise;
pub use summary::summarise;
pub use transaction::Transaction;
