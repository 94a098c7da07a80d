//! A transaction as one span, from `BEGIN` to its end.

use super::pool::Connection;
use super::query::Rebuilt;
use super::record::{Record, Sent};
use super::sanitise::sanitise;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt};
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Error, Execute, Executor, Postgres, SqlStr};
use std::pin::Pin;
use std::task::Poll;

/// A transaction in a span `db.transaction`; its queries are the span's children. It ends by
/// [`commit`](Transaction::commit) or [`rollback`](Transaction::rollback). Dropped without either, the
/// server rolls it back (the connection is closed, not reused) and the span says so.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is rolled back"]
pub struct Transaction {
    /// `None` once it has ended.
    connection: Option<Connection>,
    record: Record,
}

impl Transaction {
    pub(crate) async fn begin(connection: Connection) -> Result<Self, Error> {
        let record = Record::start(|| connection.shared.attributes());
        // Whole before BEGIN is sent: dropped while that is on its way, it closes the socket. Given
        // back to the pool, the connection would hand an open transaction to whoever borrows it next.
        let mut transaction = Self { connection: Some(connection), record };
        // Our own BEGIN, not sqlx's: its transaction borrows the connection and would end unseen.
        if let Err(error) = transaction.control(Sent::Begin, "BEGIN").await {
            transaction.discard();
            transaction.record.not_begun(&error);
            return Err(error);
        }
        Ok(transaction)
    }

    /// Commits.
    ///
    /// # Errors
    /// As `COMMIT` fails; where the connection breaks under it, or the future is dropped, it may have
    /// been applied all the same, and the span says so. Also when an earlier statement failed:
    /// PostgreSQL then answers `COMMIT` with a rollback and no error, which is a success that did not
    /// happen. A failure that was undone by `ROLLBACK TO SAVEPOINT` does not count.
    pub async fn commit(mut self) -> Result<(), Error> {
        if self.record.unsettled() {
            // A statement was given up before its end: a transaction that failed takes no other.
            match self.control(Sent::Statement, "SELECT 1").await {
                Ok(()) => self.record.succeeded(false),
                Err(error) => self.record.saw(&error),
            }
        }
        if let Some(failure) = self.record.failed() {
            self.end_with(Sent::Rollback, "ROLLBACK").await.ok();
            let error = Error::Protocol(format!(
                "the transaction cannot be committed: a statement in it failed ({}), so it was rolled back",
                failure.reason()
            ));
            self.record.rolled_back(Some(&error));
            return Err(error);
        }
        let result = self.end_with(Sent::Commit, "COMMIT").await;
        self.record.committed(&result);
        result
    }

    /// Rolls back on purpose: an outcome, not an error.
    ///
    /// # Errors
    /// As `ROLLBACK` fails. The server forgets the transaction with the connection then.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let result = self.end_with(Sent::Rollback, "ROLLBACK").await;
        self.record.rolled_back(result.as_ref().err());
        result
    }

    /// The context in which the transaction's span is current, for other work that belongs to it.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.record.cx
    }

    async fn end_with(&mut self, what: Sent, statement: &'static str) -> Result<(), Error> {
        let result = self.control(what, statement).await;
        match &result {
            // Back to the pool.
            Ok(()) => drop(self.connection.take()),
            Err(_) => self.discard(),
        }
        result
    }

    /// Runs a statement that is the transaction's own, as a `db.query` span under its span.
    async fn control(&mut self, what: Sent, statement: &'static str) -> Result<(), Error> {
        let Some(connection) = self.connection.as_mut() else { return Err(ended()) };
        self.record.sends(what);
        let cx = self.record.cx.clone();
        // The query takes its parent when it is made, not when it is polled.
        let run = async { connection.execute(statement).await.map(|_| ()) };
        let result = run.with_context(cx).await;
        self.record.answered();
        result
    }

    /// Closes the connection instead of giving it back: a transaction may be open on it.
    fn discard(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.inner.close_on_drop();
        }
    }
}

fn ended() -> Error {
    Error::Protocol("the transaction has ended".into())
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.connection.is_some() {
            self.discard();
            self.record.dropped();
        }
    }
}

/// The rows of a statement, and what they say of the transaction.
struct Statements<'e> {
    stream: BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>,
    record: &'e mut Record,
    ends: bool,
    failed: bool,
}

impl Stream for Statements<'_> {
    type Item = Result<Either<PgQueryResult, PgRow>, Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(cx);
        match &next {
            Poll::Pending => self.record.sends(Sent::Statement),
            Poll::Ready(Some(Err(error))) => {
                self.failed = true;
                self.record.saw(error);
            }
            Poll::Ready(None) if !self.failed => {
                let ends = self.ends;
                self.record.succeeded(ends);
            }
            Poll::Ready(_) => self.record.answered(),
        }
        next
    }
}

/// True for a statement that a failed transaction takes and that does not undo the failure.
fn ends_transaction(sql: &str) -> bool {
    let text = sanitise(sql);
    let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    let is = |word: Option<&str>, any: &[&str]| {
        word.is_some_and(|w| any.iter().any(|a| w.eq_ignore_ascii_case(a)))
    };
    let first = words.next();
    if is(first, &["ROLLBACK"]) {
        return !words.take(2).any(|w| w.eq_ignore_ascii_case("TO"));
    }
    is(first, &["COMMIT", "END", "ABORT", "PREPARE"])
}

impl<'c> Executor<'c> for &'c mut Transaction {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Transaction { connection, record } = self;
        let Some(connection) = connection else {
            return futures::stream::once(std::future::ready(Err(ended()))).boxed();
        };
        record.statements += 1;
        let query = Rebuilt::new(query);
        let ends = record.failed().is_some() && ends_transaction(query.text());
        let _guard = record.cx.clone().attach();
        let stream = connection.fetch_many(query);
        Statements { stream, record, ends, failed: false }.boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Transaction { connection, record } = self;
        let Some(connection) = connection else {
            return Box::pin(std::future::ready(Err(ended())));
        };
        record.statements += 1;
        let query = Rebuilt::new(query);
        let ends = record.failed().is_some() && ends_transaction(query.text());
        let _guard = record.cx.clone().attach();
        let row = connection.fetch_optional(query);
        Box::pin(async move {
            record.sends(Sent::Statement);
            let row = row.await;
            match &row {
                Ok(_) => record.succeeded(ends),
                Err(error) => record.saw(error),
            }
            row
        })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        match &mut self.connection {
            Some(connection) => connection.prepare_with(sql, parameters),
            None => Box::pin(std::future::ready(Err(ended()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_transaction_is_told_from_what_mends_it() {
        for sql in ["ROLLBACK", "rollback work", " /* x */ COMMIT", "END;", "abort"] {
            assert!(ends_transaction(sql), "{sql}");
        }
        for sql in [
            "ROLLBACK TO SAVEPOINT a",
            "rollback to a",
            "ROLLBACK WORK TO SAVEPOINT a",
            "INSERT INTO t VALUES (1)",
            "",
        ] {
            assert!(!ends_transaction(sql), "{sql}");
        }
    }
}
