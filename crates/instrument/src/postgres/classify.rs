//! What an error means to whoever is on call.

use crate::span::Leaf;
use opentelemetry::KeyValue;
use std::borrow::Cow;

/// Why a call to the database failed, coarse enough to alert on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// SQLSTATE 40P01: two transactions waited for each other; this one was chosen to end.
    Deadlock,
    /// SQLSTATE 40001: run the transaction again.
    SerializationFailure,
    /// No connection became free in time.
    PoolExhausted,
    /// SQLSTATE class 23.
    ConstraintViolation,
    /// SQLSTATE 57014, 55P03, 25P03, 25P04: a statement, lock or transaction ran out of time.
    Timeout,
    /// SQLSTATE 53300: the server has no connections left.
    TooManyConnections,
    /// SQLSTATE 25P02: an earlier statement failed, and the transaction with it.
    TransactionAborted,
    /// The connection broke or could not be made; SQLSTATE classes 08 and 57P.
    ConnectionLost,
    /// SQLSTATE class 42: the statement or its rights are wrong.
    InvalidStatement,
    /// A query that had to give a row gave none.
    NoRow,
    /// Anything else.
    Other,
}

impl Failure {
    /// The value of `failure.reason`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock",
            Self::SerializationFailure => "serialization_failure",
            Self::PoolExhausted => "pool_exhausted",
            Self::ConstraintViolation => "constraint_violation",
            Self::Timeout => "timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::TransactionAborted => "transaction_aborted",
            Self::ConnectionLost => "connection_lost",
            Self::InvalidStatement => "invalid_statement",
            Self::NoRow => "no_row",
            Self::Other => "other",
        }
    }
}

/// Tells what an error means. Codes: PostgreSQL's documentation, appendix A. A wait for a connection
/// that ran out of time says nothing of the cause by itself: [`Pool::classify`](super::Pool::classify)
/// tells a pool that is used up from a database that is down.
#[must_use]
pub fn classify(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(e) => of_sqlstate(e.code().as_deref().unwrap_or_default()),
        sqlx::Error::PoolTimedOut => Failure::PoolExhausted,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Failure::ConnectionLost,
        sqlx::Error::RowNotFound => Failure::NoRow,
        _ => Failure::Other,
    }
}

fn of_sqlstate(code: &str) -> Failure {
    match code {
        "40P01" => Failure::Deadlock,
        "40001" => Failure::SerializationFailure,
        "53300" => Failure::TooManyConnections,
        "25P02" => Failure::TransactionAborted,
        "57014" | "55P03" | "25P03" | "25P04" => Failure::Timeout,
        _ if code.starts_with("23") => Failure::ConstraintViolation,
        _ if code.starts_with("08") || code.starts_with("57P") => Failure::ConnectionLost,
        _ if code.starts_with("42") => Failure::InvalidStatement,
        _ => Failure::Other,
    }
}

/// Whether a `COMMIT` that ended so may have been applied: the server did not get to say no. SQLSTATE
/// 40003 is its own word for that.
pub(crate) fn leaves_doubt(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) => {
            let code = e.code();
            let code = code.as_deref().unwrap_or_default();
            code == "40003" || of_sqlstate(code) == Failure::ConnectionLost
        }
        _ => true,
    }
}

/// `error.type`: the SQLSTATE where there is one, as the conventions ask, else the reason.
pub(crate) fn error_type(error: &sqlx::Error, failure: Failure) -> String {
    let code = error.as_database_error().and_then(|e| e.code().map(|c| c.into_owned()));
    code.unwrap_or_else(|| failure.reason().to_owned())
}

/// What went wrong, without the server's message: that quotes values (22P02 has the whole input).
pub(crate) fn describe(error: &sqlx::Error, failure: Failure) -> Cow<'static, str> {
    let reason = failure.reason();
    match error {
        sqlx::Error::Database(e) => match e.code() {
            Some(code) => format!("SQLSTATE {code}: {reason}").into(),
            None => reason.into(),
        },
        sqlx::Error::Io(e) => format!("{reason}: {}", e.kind()).into(),
        sqlx::Error::Tls(_) => "connection_lost: TLS".into(),
        sqlx::Error::PoolTimedOut => format!("{reason}: no connection in time").into(),
        sqlx::Error::PoolClosed => "connection_lost: the pool is closed".into(),
        sqlx::Error::WorkerCrashed => "connection_lost: the worker is gone".into(),
        sqlx::Error::Protocol(_) => "other: protocol".into(),
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => "other: decoding".into(),
        sqlx::Error::Encode(_) => "other: encoding".into(),
        _ => reason.into(),
    }
}

/// The attributes that an error gives its span, `error.type` aside.
pub(crate) fn attributes(error: &sqlx::Error, failure: Failure) -> impl Iterator<Item = KeyValue> {
    let code = error.as_database_error().and_then(|e| e.code().map(|c| c.into_owned()));
    let reason = KeyValue::new("failure.reason", failure.reason());
    [Some(reason), code.map(|c| KeyValue::new("db.response.status_code", c))].into_iter().flatten()
}

/// Puts an error on a span. `RowNotFound` is the caller's reading of an answer, and no error of the
/// call.
pub(crate) fn record(span: &mut Leaf, error: &sqlx::Error, failure: Failure) {
    if matches!(error, sqlx::Error::RowNotFound) {
        return;
    }
    span.add(attributes(error, failure));
    span.fail(error_type(error, failure), describe(error, failure));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_that_look_alike_are_told_apart() {
        assert_eq!(of_sqlstate("40P01"), Failure::Deadlock);
        assert_eq!(of_sqlstate("40001"), Failure::SerializationFailure);
        assert_eq!(classify(&sqlx::Error::PoolTimedOut), Failure::PoolExhausted);
    }

    #[test]
    fn classes_are_read_from_the_front() {
        assert_eq!(of_sqlstate("23505"), Failure::ConstraintViolation);
        assert_eq!(of_sqlstate("57P01"), Failure::ConnectionLost);
        assert_eq!(of_sqlstate("57014"), Failure::Timeout);
        assert_eq!(of_sqlstate(""), Failure::Other);
    }
}
