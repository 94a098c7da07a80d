//! Redis: commands, pipelines, and the transaction that cannot be shared.
//!
//! `redis` documents that `WATCH`/`MULTI`/`EXEC` on clones of one multiplexed connection interleave:
//! one task's commands fall into another's transaction. A [`Transaction`] therefore runs on an
//! [`ExclusiveConnection`] only, which is not `Clone` and is borrowed mutably while it runs. It has a
//! bounded number of attempts, and its [`TransactionOutcome`] is no `Option`: "the server discarded
//! it" and "there was no value" cannot be mistaken for one another.
//!
//! ```no_run
//! use lacuna_instrument::redis::{ExclusiveConnection, Transaction, TransactionOutcome};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = redis::Client::open("redis://127.0.0.1:6379")?;
//! let mut connection = ExclusiveConnection::connect(&client).await?;
//!
//! let (slots, assignments) = ("batch:7:available_slots", "batch:7:assignments");
//! let outcome = Transaction::new("assign_slot_atomic")
//!     .attribute("batch_id", "7")
//!     .watch("batch_slots", &[slots, assignments])
//!     .attempts(5)
//!     .run(&mut connection, |mut tx| async move {
//!         // Reads under WATCH: what is decided here holds, or EXEC discards.
//!         let slot: Option<String> =
//!             tx.query("available_slots", redis::cmd("SRANDMEMBER").arg(slots)).await?;
//!         let Some(slot) = slot else { return Ok(tx.no_value("no_slot")) };
//!         // Queued commands: applied all together by EXEC.
//!         let mut multi = tx.multi();
//!         multi.add("available_slots", redis::cmd("SREM").arg(slots).arg(&slot));
//!         multi.add("assignments", redis::cmd("HSET").arg(assignments).arg(&slot).arg("essay-1"));
//!         Ok(multi.commit(slot))
//!     })
//!     .await?;
//!
//! match outcome {
//!     TransactionOutcome::Committed(slot) => println!("slot {slot}"),
//!     TransactionOutcome::NoValue { reason, .. } => println!("refused: {reason}"),
//!     TransactionOutcome::Aborted { attempts } => println!("gave up after {attempts}: try later"),
//! }
//! # Ok(()) }
//! ```
//!
//! [`Transaction::run_in`] runs on a connection of a [`ConnectionPool`].
//!
//! Where the value is known only from `EXEC`'s reply, as with `SPOP`, end with
//! [`Multi::commit_with`], which reads it from the replies.
//!
//! A transaction that is still written by hand is made visible, not safe, by an attribute:
//!
//! ```
//! use lacuna_instrument::redis::trace_redis_transaction;
//!
//! #[trace_redis_transaction(operation = "assign_slot_atomic", fields(batch_id))]
//! async fn assign_slot(batch_id: &str) -> redis::RedisResult<Option<String>> {
//!     // WATCH, MULTI, SPOP, EXEC ...
//!     Ok(None)
//! }
//! ```

/// For the expansion of `#[trace_redis_transaction]`.
#[doc(hidden)]
pub mod by_hand {
    pub use super::manual::{Outcome, Reason, Value};
}
mod command;
mod connection;
mod errors;
mod exec;
mod manual;
mod names;
mod outcome;
mod pool;
mod record;
mod traced;
mod transaction;
mod watched;

pub use connection::ExclusiveConnection;
pub use lacuna_instrument_macros::trace_redis_transaction;
pub use manual::{TransactionResult, trace_by_hand};
pub use outcome::{TransactionError, TransactionOutcome};
pub use pool::{ConnectionPool, PoolError, PooledConnection};
pub use traced::Traced;
pub use transaction::Transaction;
pub use watched::{Multi, Step, Watched};
