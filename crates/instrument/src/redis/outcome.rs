//! How a transaction ended.

use super::pool::PoolError;
use redis::{ErrorKind, RedisError, Value};
use std::borrow::Cow;
use std::error::Error;
use std::time::Duration;

/// What became of a transaction that the server answered.
///
/// `#[must_use]` and no `Option`: the incident that this crate exists for read the nil of a discarded
/// `EXEC` as "no slot".
#[must_use = "a transaction that was discarded or found no value did not do its work"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionOutcome<T> {
    /// `EXEC` applied the queued commands.
    Committed(T),
    /// The server discarded every attempt, because a watched key changed each time. Nothing was
    /// applied. The value that was sought may well exist: try later, or report.
    Aborted {
        /// Attempts made, at least one.
        attempts: u32,
    },
    /// There was nothing to take, seen under `WATCH` or in `EXEC`'s reply.
    NoValue {
        /// The caller's reason, low in cardinality: `no_slot`.
        reason: Cow<'static, str>,
        /// Attempts made, at least one.
        attempts: u32,
    },
}

impl<T> TransactionOutcome<T> {
    /// `transaction.result`: `success`, `aborted` or `no_value`.
    #[must_use]
    pub fn result(&self) -> &'static str {
        match self {
            Self::Committed(_) => "success",
            Self::Aborted { .. } => "aborted",
            Self::NoValue { .. } => "no_value",
        }
    }
}

/// A transaction that did not come to an outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// The connection broke. The next use of it opens another.
    #[error("the connection to redis was lost{}", doubt(*in_doubt))]
    ConnectionLost {
        /// What broke.
        #[source]
        source: RedisError,
        /// True when `EXEC` had been sent: it may have been applied.
        in_doubt: bool,
    },
    /// The server did not answer in time, or the transaction's own time ran out.
    #[error("the redis transaction timed out{}", doubt(*in_doubt))]
    Timeout {
        /// True when `EXEC` had been sent: it may have been applied.
        in_doubt: bool,
    },
    /// No connection of the pool became free in time. Nothing was applied.
    #[error(
        "no connection to redis became free within {waited:?}: all {size} of the pool are taken"
    )]
    PoolExhausted {
        /// Connections that the pool may have.
        size: usize,
        /// How long it was waited.
        waited: Duration,
    },
    /// The server refused a command before `EXEC` was applied: under `WATCH`, or when it was queued
    /// (`EXECABORT`). Nothing was applied.
    #[error("redis refused a command of the transaction, and nothing was applied")]
    Refused(#[source] RedisError),
    /// `EXEC` was applied, and some of its commands answered with an error. Redis does not roll back:
    /// the others did their work. Do not run it again before that is undone or taken for done.
    #[error("redis applied the transaction in part: a command failed in EXEC")]
    PartlyApplied {
        /// Of the first command that failed.
        #[source]
        source: RedisError,
        /// What each queued command answered, in their order; a [`Value::ServerError`] where it
        /// failed. Empty where that is not known: of a transaction that is run by hand.
        replies: Vec<Value>,
    },
    /// A reply could not be read as the caller asked. Where `applied`, it is `EXEC`'s, which applied
    /// every queued command: the work is done, only the value is missing, and it must not be run
    /// again. Else it is that of a read under `WATCH`, and nothing was applied.
    #[error("a reply of the redis transaction could not be read{}", if *applied { ", and it was applied" } else { "" })]
    Unreadable {
        /// What the reply is instead.
        #[source]
        source: RedisError,
        /// True when `EXEC` was applied.
        applied: bool,
    },
    /// The caller's own code gave up under `WATCH`. Nothing was applied.
    #[error("the transaction was abandoned by its caller")]
    Abandoned(#[source] Box<dyn Error + Send + Sync>),
}

fn doubt(in_doubt: bool) -> &'static str {
    if in_doubt { " after EXEC was sent: it may have been applied" } else { "" }
}

impl TransactionError {
    /// Ends the transaction from inside with an error of the caller's.
    pub fn abandon(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Abandoned(error.into())
    }

    /// `failure.reason`: `connection_lost`, `timeout`, `pool_exhausted`, `refused`,
    /// `partly_applied`, `unreadable_reply` or `abandoned`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ConnectionLost { .. } => "connection_lost",
            Self::Timeout { .. } => "timeout",
            Self::PoolExhausted { .. } => "pool_exhausted",
            Self::Refused(_) => "refused",
            Self::PartlyApplied { .. } => "partly_applied",
            Self::Unreadable { .. } => "unreadable_reply",
            Self::Abandoned(_) => "abandoned",
        }
    }

    /// True when `EXEC` may have been applied all the same.
    #[must_use]
    pub fn in_doubt(&self) -> bool {
        matches!(
            self,
            Self::ConnectionLost { in_doubt: true, .. } | Self::Timeout { in_doubt: true }
        )
    }

    /// True when `EXEC` was applied, in whole or in part, whatever else failed.
    #[must_use]
    pub fn applied(&self) -> bool {
        matches!(self, Self::Unreadable { applied: true, .. } | Self::PartlyApplied { .. })
    }

    /// The same again, for a record of it; a caller's error by its text.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::ConnectionLost { source, in_doubt } => {
                Self::ConnectionLost { source: source.clone(), in_doubt: *in_doubt }
            }
            Self::Timeout { in_doubt } => Self::Timeout { in_doubt: *in_doubt },
            Self::PoolExhausted { size, waited } => {
                Self::PoolExhausted { size: *size, waited: *waited }
            }
            Self::Refused(source) => Self::Refused(source.clone()),
            Self::PartlyApplied { source, replies } => {
                Self::PartlyApplied { source: source.clone(), replies: replies.clone() }
            }
            Self::Unreadable { source, applied } => {
                Self::Unreadable { source: source.clone(), applied: *applied }
            }
            Self::Abandoned(source) => Self::Abandoned(source.to_string().into()),
        }
    }

    /// What an error means before `EXEC` is sent.
    fn before_exec(source: RedisError) -> Self {
        if source.is_timeout() {
            Self::Timeout { in_doubt: false }
        } else if source.is_connection_dropped() || source.is_io_error() {
            Self::ConnectionLost { source, in_doubt: false }
        } else if matches!(source.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) {
            Self::Unreadable { source, applied: false }
        } else {
            Self::Refused(source)
        }
    }

    /// What an error means that came instead of `EXEC`'s answer, with so many commands queued.
    pub(crate) fn of_exec(source: RedisError, queued: usize) -> Self {
        match source.clone().into_server_errors() {
            // Each refusal names its command; another's is that of MULTI, without which each command
            // was applied as it came.
            Some(errors) if errors.iter().any(|(command, _)| *command > queued) => {
                Self::PartlyApplied { source, replies: vec![] }
            }
            Some(_) => Self::Refused(source),
            None if source.is_timeout() => Self::Timeout { in_doubt: true },
            // Whatever else came, it is not the server's word on EXEC.
            None => Self::ConnectionLost { source, in_doubt: true },
        }
    }
}

impl From<RedisError> for TransactionError {
    fn from(source: RedisError) -> Self {
        Self::before_exec(source)
    }
}

impl From<PoolError> for TransactionError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Exhausted { size, waited } => Self::PoolExhausted { size, waited },
            PoolError::Connect(source) => source.into(),
        }
    }
}
