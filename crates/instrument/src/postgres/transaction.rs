//! A transaction as one span, from `BEGIN` to its end.

use super::classify::{Failure, attributes, classify, describe, error_type};
use super::metrics::metrics;
use super::pool::Connection;
use super::query::Rebuilt;
use super::sanitise::sanitise;
use crate::span;
use crate::switch::{self, Part};
use futures::future::BoxFuture;
use futures::stream::{BoxStream, Stream, StreamExt};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Error, Execute, Executor, Postgres, SqlStr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

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

#[derive(Debug)]
struct Record {
    cx: Context,
    spans: bool,
    started: Instant,
    statements: i64,
    failed: Option<Failure>,
}

impl Transaction {
    pub(crate) async fn begin(mut connection: Connection) -> Result<Self, Error> {
        let spans = switch::spans(Part::Postgres);
        let cx = Context::map_current(|parent| {
            if spans {
                span::start(
                    "db.transaction",
                    SpanKind::Internal,
                    connection.shared.attributes(),
                    parent,
                )
            } else {
                parent.clone()
            }
        });
        let record = Record { cx, spans, started: Instant::now(), statements: 0, failed: None };
        // Our own BEGIN, not sqlx's: its transaction borrows the connection and would end unseen.
        let begun = control(&mut connection, "BEGIN", &record.cx).await;
        let mut transaction = Self { connection: Some(connection), record };
        if let Err(error) = begun {
            transaction.discard();
            transaction.record.end("failed", Some(&error));
            return Err(error);
        }
        Ok(transaction)
    }

    /// Commits.
    ///
    /// # Errors
    /// As `COMMIT` fails. Also when an earlier statement failed: PostgreSQL then answers `COMMIT` with
    /// a rollback and no error, which is a success that did not happen. A failure that was undone by
    /// `ROLLBACK TO SAVEPOINT` does not count.
    pub async fn commit(mut self) -> Result<(), Error> {
        if let Some(failure) = self.record.failed {
            self.end_with("ROLLBACK").await.ok();
            let error = Error::Protocol(format!(
                "the transaction cannot be committed: a statement in it failed ({}), so it was rolled back",
                failure.reason()
            ));
            self.record.end("rolled_back", Some(&error));
            return Err(error);
        }
        let result = self.end_with("COMMIT").await;
        self.record.end(if result.is_ok() { "committed" } else { "failed" }, result.as_ref().err());
        result
    }

    /// Rolls back on purpose: an outcome, not an error.
    ///
    /// # Errors
    /// As `ROLLBACK` fails. The server forgets the transaction with the connection then.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let result = self.end_with("ROLLBACK").await;
        self.record.end("rolled_back", result.as_ref().err());
        result
    }

    /// The context in which the transaction's span is current, for other work that belongs to it.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.record.cx
    }

    async fn end_with(&mut self, statement: &'static str) -> Result<(), Error> {
        let Some(connection) = self.connection.as_mut() else { return Err(ended()) };
        let result = control(connection, statement, &self.record.cx).await;
        match &result {
            // Back to the pool.
            Ok(()) => drop(self.connection.take()),
            Err(_) => self.discard(),
        }
        result
    }

    /// Closes the connection instead of giving it back: a transaction may be open on it.
    fn discard(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.inner.close_on_drop();
        }
    }
}

/// Runs a statement that makes or ends a transaction, as a `db.query` span under the transaction's.
async fn control(
    connection: &mut Connection,
    statement: &'static str,
    cx: &Context,
) -> Result<(), Error> {
    // The query takes its parent when it is made, not when it is polled.
    async { connection.execute(statement).await.map(|_| ()) }.with_context(cx.clone()).await
}

fn ended() -> Error {
    Error::Protocol("the transaction has ended".into())
}

impl Record {
    fn saw(&mut self, error: &Error) {
        // Only what the server refused aborts the transaction; `RowNotFound` is our own reading.
        if matches!(error, Error::Database(_)) {
            self.failed = Some(classify(error));
        }
    }

    /// A statement succeeded. In a transaction that has failed, the server takes nothing but its end
    /// and `ROLLBACK TO SAVEPOINT`: whatever else succeeds says that the failure was undone.
    fn succeeded(&mut self, ends: bool) {
        if !ends {
            self.failed = None;
        }
    }

    fn end(&mut self, result: &'static str, error: Option<&Error>) {
        if switch::metrics(Part::Postgres) {
            let mut a = vec![KeyValue::new("transaction.result", result)];
            if let Some(failure) = self.failed {
                a.push(KeyValue::new("failure.reason", failure.reason()));
            }
            metrics().transaction.record(self.started.elapsed().as_secs_f64(), &a);
        }
        if !std::mem::take(&mut self.spans) {
            return;
        }
        let span = self.cx.span();
        span.set_attribute(KeyValue::new("transaction.result", result));
        span.set_attribute(KeyValue::new("lacuna.db.transaction.statements", self.statements));
        if let Some(error) = error {
            match self.failed {
                Some(failure) => {
                    span.set_attribute(KeyValue::new("failure.reason", failure.reason()));
                    span.set_attribute(KeyValue::new("error.type", failure.reason()));
                    span.set_status(Status::error(format!(
                        "a statement failed: {}",
                        failure.reason()
                    )));
                }
                None if !matches!(error, Error::RowNotFound) => {
                    let failure = classify(error);
                    span.set_attributes(attributes(error, failure));
                    let error_type = error_type(error, failure);
                    span::fail(&self.cx, error_type, describe(error, failure));
                }
                None => {}
            }
        } else if let Some(failure) = self.failed {
            // Rolled back because a statement failed.
            span.set_attribute(KeyValue::new("failure.reason", failure.reason()));
            span.set_attribute(KeyValue::new("error.type", failure.reason()));
            span.set_status(Status::error(format!("a statement failed: {}", failure.reason())));
        }
        span.end();
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.connection.is_some() {
            self.discard();
            if self.record.spans {
                self.record
                    .cx
                    .span()
                    .set_attribute(KeyValue::new("lacuna.db.transaction.dropped", true));
            }
            self.record.end("rolled_back", None);
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
            Poll::Ready(Some(Err(error))) => {
                self.failed = true;
                self.record.saw(error);
            }
            Poll::Ready(None) if !self.failed => {
                let ends = self.ends;
                self.record.succeeded(ends);
            }
            _ => {}
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
        let ends = record.failed.is_some() && ends_transaction(query.text());
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
        let ends = record.failed.is_some() && ends_transaction(query.text());
        let _guard = record.cx.clone().attach();
        let row = connection.fetch_optional(query);
        Box::pin(async move {
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
