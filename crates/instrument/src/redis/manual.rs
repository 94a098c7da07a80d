//! Transactions that are run by hand, made visible by `#[trace_redis_transaction]`.

use super::outcome::{TransactionError, TransactionOutcome};
use super::record::Record;
use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt;
use std::borrow::Cow;
use std::fmt::Display;

/// How a hand-written transaction's result reads as an outcome.
pub trait TransactionResult {
    /// The outcome, or the error's text.
    fn outcome(&self) -> Result<TransactionOutcome<()>, String>;
}

impl<T> TransactionResult for TransactionOutcome<T> {
    fn outcome(&self) -> Result<TransactionOutcome<()>, String> {
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
    fn outcome(&self) -> Result<TransactionOutcome<()>, String> {
        Ok(match self {
            Some(_) => TransactionOutcome::Committed(()),
            None => TransactionOutcome::Aborted { attempts: 1 },
        })
    }
}

impl<T: TransactionResult, E: Display> TransactionResult for Result<T, E> {
    fn outcome(&self) -> Result<TransactionOutcome<()>, String> {
        match self {
            Ok(value) => value.outcome(),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What `#[trace_redis_transaction]` expands to: runs `body` in a span
/// `redis.transaction.<operation>` and records its result.
pub async fn trace_by_hand<R: TransactionResult, F: Future<Output = R>>(
    operation: impl Into<Cow<'static, str>>,
    attributes: Vec<KeyValue>,
    body: F,
) -> R {
    let mut record = Record::start(operation.into(), attributes);
    record.attempt();
    let result = body.with_context(record.cx.clone()).await;
    record.end(&result.outcome().map_err(TransactionError::abandon));
    result
}
