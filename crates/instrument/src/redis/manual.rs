//! Transactions that are run by hand, made visible by `#[trace_redis_transaction]`.

use super::outcome::{TransactionError, TransactionOutcome};
use super::record::Record;
use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt;
use redis::RedisError;
use std::any::Any;
use std::borrow::Cow;
use std::fmt::Display;

/// How a hand-written transaction's result reads as an outcome.
pub trait TransactionResult {
    /// The outcome, or why there is none.
    ///
    /// # Errors
    /// What the result's own error means: of a [`RedisError`] its kind, of a [`TransactionError`]
    /// itself, of any other that the caller abandoned the transaction.
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

impl<T: TransactionResult, E: Display + 'static> TransactionResult for Result<T, E> {
    fn outcome(&self) -> Result<TransactionOutcome<()>, TransactionError> {
        let error = match self {
            Ok(value) => return value.outcome(),
            Err(error) => error,
        };
        let any: &dyn Any = error;
        Err(match (any.downcast_ref::<RedisError>(), any.downcast_ref::<TransactionError>()) {
            // Whether EXEC was sent is not known from here.
            (Some(redis), _) => redis.clone().into(),
            (_, Some(error)) => error.copy(),
            _ => TransactionError::abandon(error.to_string()),
        })
    }
}

/// What `#[trace_redis_transaction]` expands to: runs `body` in a span
/// `redis.transaction.<operation>` and records its result. `attributes` are asked for only when there
/// is a span to put them on.
pub async fn trace_by_hand<R: TransactionResult>(
    operation: impl Into<Cow<'static, str>>,
    attributes: impl FnOnce() -> Vec<KeyValue>,
    body: impl Future<Output = R>,
) -> R {
    let mut record = Record::start(operation.into(), attributes);
    record.attempt();
    let result = match record.context().cloned() {
        Some(cx) => body.with_context(cx).await,
        None => body.await,
    };
    record.end(&result.outcome());
    result
}
