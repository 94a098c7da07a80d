//! One query as a span `db.query`.

use super::classify::{error_type, record};
use super::metrics::metrics;
use super::pool::Shared;
use super::sanitise::{sanitise, summarise};
use crate::span;
use crate::switch::{self, Part};
use futures::stream::{BoxStream, Stream, StreamExt};
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgQueryResult, PgRow, PgStatement};
use sqlx::{Either, Error, Execute, Postgres, SqlStr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

/// A query taken apart and put together: its text can only be read by consuming it.
pub(crate) struct Rebuilt {
    sql: SqlStr,
    statement: Option<PgStatement>,
    arguments: Option<Result<Option<PgArguments>, BoxDynError>>,
    persistent: bool,
}

impl Rebuilt {
    pub(crate) fn new<'q>(mut query: impl Execute<'q, Postgres>) -> Self {
        let arguments = Some(query.take_arguments());
        let statement = query.statement().cloned();
        let persistent = query.persistent();
        Self { statement, arguments, persistent, sql: query.sql() }
    }
}

impl<'q> Execute<'q, Postgres> for Rebuilt {
    fn sql(self) -> SqlStr {
        self.sql
    }
    fn statement(&self) -> Option<&PgStatement> {
        self.statement.as_ref()
    }
    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.arguments.take().unwrap_or(Ok(None))
    }
    fn persistent(&self) -> bool {
        self.persistent
    }
}

/// A query under way.
pub(crate) struct Running {
    cx: Option<Context>,
    started: Option<Instant>,
    shared: Arc<Shared>,
    summary: String,
    rows: u64,
    affected: u64,
    done: bool,
}

impl Running {
    pub(crate) fn start(shared: &Arc<Shared>, query: &Rebuilt, parent: &Context) -> Self {
        let (spans, measured) = (switch::spans(Part::Postgres), switch::metrics(Part::Postgres));
        let sql = query.sql.as_str();
        let summary = if spans || measured { summarise(sql) } else { String::new() };
        let cx = spans.then(|| {
            let mut a = shared.attributes();
            a.push(KeyValue::new("db.query.text", sanitise(sql)));
            a.extend(named(&summary));
            span::start("db.query", SpanKind::Client, a, parent)
        });
        let started = measured.then(Instant::now);
        Self { cx, started, shared: shared.clone(), summary, rows: 0, affected: 0, done: false }
    }

    /// Ends the query by a result that is there.
    pub(crate) fn settle(
        mut self,
        result: Result<Option<PgRow>, Error>,
    ) -> Result<Option<PgRow>, Error> {
        self.rows = u64::from(matches!(result, Ok(Some(_))));
        self.end(result.as_ref().err());
        result
    }

    /// Follows a stream of rows to its end, its error, or the point where nobody wants more.
    pub(crate) fn watch<'e>(
        self,
        stream: BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>,
    ) -> impl Stream<Item = Result<Either<PgQueryResult, PgRow>, Error>> + Send + 'e {
        Watching { running: self, stream }
    }

    fn end(&mut self, error: Option<&Error>) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        if let Some(started) = self.started {
            let mut a = self.shared.attributes();
            a.extend(named(&self.summary));
            if let Some(error) = error {
                a.push(KeyValue::new("error.type", error_type(error)));
            }
            metrics().operation.record(started.elapsed().as_secs_f64(), &a);
        }
        if let Some(cx) = &self.cx {
            let span = cx.span();
            span.set_attribute(KeyValue::new("db.response.returned_rows", number(self.rows)));
            span.set_attribute(KeyValue::new(
                "lacuna.db.response.affected_rows",
                number(self.affected),
            ));
            if let Some(error) = error {
                record(cx, error);
            }
            span.end();
        }
    }
}

impl Drop for Running {
    /// Enough rows were read, or the caller went away: the query is over, and no error is known.
    fn drop(&mut self) {
        self.end(None);
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What the summary says, as attributes: both are low in cardinality.
fn named(summary: &str) -> Vec<KeyValue> {
    let mut words = summary.split(' ');
    let mut a = vec![KeyValue::new("db.query.summary", summary.to_owned())];
    if let Some(operation) = words.next().filter(|w| !w.is_empty()) {
        a.push(KeyValue::new("db.operation.name", operation.to_owned()));
    }
    // A collection only where there is exactly one: the convention leaves it out for several.
    if let (Some(table), None) = (words.next(), words.next()) {
        a.push(KeyValue::new("db.collection.name", table.to_owned()));
    }
    a
}

struct Watching<'e> {
    running: Running,
    stream: BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>,
}

impl Stream for Watching<'_> {
    type Item = Result<Either<PgQueryResult, PgRow>, Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(cx);
        match &next {
            Poll::Ready(Some(Ok(Either::Left(result)))) => {
                self.running.affected += result.rows_affected()
            }
            Poll::Ready(Some(Ok(Either::Right(_)))) => self.running.rows += 1,
            Poll::Ready(Some(Err(error))) => self.running.end(Some(error)),
            Poll::Ready(None) => self.running.end(None),
            Poll::Pending => {}
        }
        next
    }
}
