//! Transactions that are run by hand, made visible by `#[trace_redis_transaction]`.

use super::outcome::{TransactionError, TransactionOutcome};
use super::pool::PoolError;
use super::record::Record;
use crate::by_hand::Failed;
use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt;
use redis::{ErrorKind, ParsingError, RedisError, ServerError, ServerErrorKind};
use std::borrow::Cow;
use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;
use tokio::time::error::Elapsed;

/// How a value that a hand-written transaction gives back reads as an outcome. Of a `Result`, it is
/// asked of the value in `Ok`; a value that does not implement this says that the transaction was
/// applied.
pub trait TransactionResult {
    /// The outcome, or why there is none.
    ///
    /// # Errors
    /// When the value says that the transaction failed.
    fn outcome(&self) -> Result<TransactionOutcome<()>, TransactionError>;
}

/// A transaction that gives nothing back was applied when it returns.
impl TransactionResult for () {
    fn outcome(&self) -> Result<TransactionOutcome<()>, TransactionError> {
        Ok(TransactionOutcome::Committed(()))
    }
}

impl<T> TransactionResult for TransactionOutcome<T> {
    fn outcome(&self) -> Result<TransactionOutcome<()>, TransactionError> {
        Ok(match self {
            Self::Committed(_) => TransactionOutcome::Committed(()),
            Self::Aborted { attempts } => TransactionOutcome::Aborted { attempts: *attempts },
            Self::NoValue { reason, attempts } => {
                TransactionOutcome::NoValue { reason: reason.clone(), attempts: *attempts }
            }
        })
    }
}

/// `None` is what `EXEC` answers when it was discarded, and is recorded as that. Code which also says
/// `None` for "no value" hides one in the other: return a [`TransactionOutcome`] instead.
impl<T> TransactionResult for Option<T> {
    fn outcome(&self) -> Result<TransactionOutcome<()>, TransactionError> {
        Ok(match self {
            Some(_) => TransactionOutcome::Committed(()),
            None => TransactionOutcome::Aborted { attempts: 1 },
        })
    }
}

/// A value that a transaction returned, borrowed: for the macro's expansion, as [`crate::by_hand`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Value<'v, T>(pub &'v T);

/// What a value says of the transaction.
#[doc(hidden)]
pub trait Outcome {
    /// The outcome, or why there is none.
    ///
    /// # Errors
    /// As [`TransactionResult::outcome`].
    fn outcome(&self) -> Result<TransactionOutcome<()>, TransactionError>;
}

impl<T: TransactionResult> Outcome for Value<'_, T> {
    fn outcome(&self) -> Result<TransactionOutcome<()>, TransactionError> {
        self.0.outcome()
    }
}

/// Whatever else it gives back, it was applied.
impl<T> Outcome for &Value<'_, T> {
    fn outcome(&self) -> Result<TransactionOutcome<()>, TransactionError> {
        Ok(TransactionOutcome::Committed(()))
    }
}

/// Why a transaction failed.
#[doc(hidden)]
pub trait Reason {
    /// Of an error that comes from Redis, wherever in its chain, what that means; of any other, that
    /// the caller abandoned the transaction.
    fn reason(&self) -> TransactionError;
}

impl<E: Error + 'static> Reason for &&&&Failed<'_, E> {
    fn reason(&self) -> TransactionError {
        of_chain(self.0)
    }
}

/// `anyhow::Error`, `Box<dyn Error + Send + Sync>`.
impl<E: AsRef<dyn Error + Send + Sync>> Reason for &&&Failed<'_, E> {
    fn reason(&self) -> TransactionError {
        of_chain(self.0.as_ref())
    }
}

/// `Box<dyn Error>`.
impl<E: AsRef<dyn Error>> Reason for &&Failed<'_, E> {
    fn reason(&self) -> TransactionError {
        of_chain(self.0.as_ref())
    }
}

impl<E: Display> Reason for &Failed<'_, E> {
    fn reason(&self) -> TransactionError {
        TransactionError::abandon(self.0.to_string())
    }
}

impl<E> Reason for Failed<'_, E> {
    fn reason(&self) -> TransactionError {
        TransactionError::abandon("an error without words")
    }
}

fn of_chain(error: &(dyn Error + 'static)) -> TransactionError {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(reason) = of_link(error) {
            return reason;
        }
        next = error.source();
    }
    TransactionError::abandon(error.to_string())
}

/// What one error of a chain means, if it is of a connection or a server. A transparent wrapper leaves
/// out the `RedisError` itself: its sources are read as it reads them. Whether `EXEC` was sent is not
/// known from here.
fn of_link(error: &(dyn Error + 'static)) -> Option<TransactionError> {
    if let Some(error) = error.downcast_ref::<TransactionError>() {
        return Some(error.copy());
    }
    if let Some(error) = error.downcast_ref::<RedisError>() {
        return Some(of_redis(error));
    }
    if let Some(&PoolError::Exhausted { size, waited }) = error.downcast_ref() {
        return Some(TransactionError::PoolExhausted { size, waited });
    }
    if let Some(error) = error.downcast_ref::<ServerError>() {
        return Some(RedisError::from(error.clone()).into());
    }
    if let Some(error) = error.downcast_ref::<ParsingError>() {
        return Some(RedisError::from(error.clone()).into());
    }
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return of_link(&**shared);
    }
    if error.is::<Elapsed>() {
        return Some(TransactionError::Timeout { in_doubt: false });
    }
    let error =
        RedisError::from(std::io::Error::from(error.downcast_ref::<std::io::Error>()?.kind()));
    (error.is_timeout() || error.is_connection_dropped()).then(|| error.into())
}

fn of_redis(error: &RedisError) -> TransactionError {
    // Commands of an `EXEC` (or of a pipeline) that failed, while the others were applied: unlike the
    // error of one command, it has no source, and unlike `EXECABORT`, which applied nothing, no kind
    // of its own.
    let of_several = error.source().is_none() && error.clone().into_server_errors().is_some();
    if of_several && error.kind() != ErrorKind::Server(ServerErrorKind::ExecAbort) {
        return TransactionError::PartlyApplied { source: error.clone(), replies: vec![] };
    }
    error.clone().into()
}

/// What `#[trace_redis_transaction]` expands to: runs `body` in a span
/// `redis.transaction.<operation>` and records its result, as `read` understands it. `attributes` are
/// asked for only when there is a span to put them on.
pub async fn trace_by_hand<R>(
    operation: impl Into<Cow<'static, str>>,
    attributes: impl FnOnce() -> Vec<KeyValue>,
    body: impl Future<Output = R>,
    read: impl FnOnce(&R) -> Result<TransactionOutcome<()>, TransactionError>,
) -> R {
    let mut record = Record::start(operation.into(), attributes);
    record.attempt();
    let result = match record.context().cloned() {
        Some(cx) => body.with_context(cx).await,
        None => body.await,
    };
    record.end(&read(&result));
    result
}
