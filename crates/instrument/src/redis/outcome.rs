//! How a transaction ended.

use redis::RedisError;
use std::borrow::Cow;
use std::error::Error;

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
    /// The server refused a command. When `EXEC` itself was answered, redis does not roll back: the
    /// other queued commands were applied.
    #[error("redis refused a command of the transaction")]
    Refused(#[source] RedisError),
    /// `EXEC` applied every queued command, and its replies could not be read as the caller asked: the
    /// work is done, only the value is missing. Do not run it again.
    #[error("the redis transaction was applied, but its reply could not be read")]
    Unreadable(#[source] RedisError),
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

    /// `failure.reason`: `connection_lost`, `timeout`, `refused`, `unreadable_reply` or
    /// `abandoned`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ConnectionLost { .. } => "connection_lost",
            Self::Timeout { .. } => "timeout",
            Self::Refused(_) => "refused",
            Self::Unreadable(_) => "unreadable_reply",
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

    /// True when `EXEC` was applied, whatever else failed.
    #[must_use]
    pub fn applied(&self) -> bool {
        matches!(self, Self::Unreadable(_))
    }

    /// The same again, for a record of it; a caller's error by its text.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::ConnectionLost { source, in_doubt } => {
                Self::ConnectionLost { source: source.clone(), in_doubt: *in_doubt }
            }
            Self::Timeout { in_doubt } => Self::Timeout { in_doubt: *in_doubt },
            Self::Refused(source) => Self::Refused(source.clone()),
            Self::Unreadable(source) => Self::Unreadable(source.clone()),
            Self::Abandoned(source) => Self::Abandoned(source.to_string().into()),
        }
    }

    pub(crate) fn of(source: RedisError, in_doubt: bool) -> Self {
        if source.is_timeout() {
            Self::Timeout { in_doubt }
        } else if source.is_connection_dropped() || source.is_io_error() {
            Self::ConnectionLost { source, in_doubt }
        } else {
            Self::Refused(source)
        }
    }
}

impl From<RedisError> for TransactionError {
    fn from(source: RedisError) -> Self {
        Self::of(source, false)
    }
}
