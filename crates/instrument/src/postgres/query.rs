//! One query as a span `db.query`.

use super::classify::{classify, error_type, record};
use super::metrics::metrics;
use super::pool::Shared;
use super::sanitise::sanitise;
use super::summary::Summary;
use crate::metrics::ByName;
use crate::span::{Cancel, Guard, Leaf};
use crate::switch::{self, Part};
use futures::stream::{BoxStream, Stream, StreamExt};
use opentelemetry::metrics::BoundHistogram;
use opentelemetry::trace::SpanKind;
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

    pub(crate) fn text(&self) -> &str {
        self.sql.as_str()
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

/// What is worked out once for a statement's text.
#[derive(Debug)]
pub(crate) struct Statement {
    /// What the span has, the server's attributes included.
    attributes: Vec<KeyValue>,
    measured: Arc<Measured>,
}

/// What all statements with one summary are measured by: their texts may be without number.
#[derive(Debug)]
pub(crate) struct Measured {
    /// What the duration has.
    labels: Vec<KeyValue>,
    /// The duration of those that succeed.
    succeeded: BoundHistogram<f64>,
}

/// What is known of the statements of a pool.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    texts: ByName<Arc<Statement>>,
    summaries: ByName<Arc<Measured>>,
}

impl Statements {
    pub(crate) fn get(&self, sql: &str, server: &[KeyValue]) -> Arc<Statement> {
        self.texts.get(sql, || {
            let summary = Summary::of(sql);
            // Two statements can read alike in the summary, and be another's in operation.
            let Summary { text, operation, collection } = &summary;
            let key = format!("{text}\n{operation:?}\n{collection:?}");
            let measured = self.summaries.get(&key, || {
                let mut labels = server.to_vec();
                labels.extend(named(&summary));
                let succeeded = metrics().operation.bind(&labels);
                Arc::new(Measured { labels, succeeded })
            });
            let mut attributes = measured.labels.clone();
            attributes.push(KeyValue::new("db.query.text", Arc::<str>::from(sanitise(sql))));
            Arc::new(Statement { attributes, measured })
        })
    }
}

/// A query under way.
pub(crate) struct Running {
    span: Option<Leaf>,
    started: Option<Instant>,
    /// `None`: the part is off.
    statement: Option<Arc<Statement>>,
    rows: u64,
    /// Known only where the server's own count was seen.
    affected: Option<u64>,
    /// Somebody waits for the server: if that one goes away, the call was cancelled. Else enough rows
    /// were read, and no error is known.
    waiting: bool,
}

impl Running {
    pub(crate) fn start(shared: &Shared, query: &Rebuilt, parent: &Context) -> Guard<Self> {
        let (spans, measured) = (switch::spans(Part::Postgres), switch::metrics(Part::Postgres));
        let statement = (spans || measured).then(|| shared.statement(query.sql.as_str()));
        let span = statement.as_ref().filter(|_| spans).map(|statement| {
            // With room for what the end and the context add.
            let mut a = Vec::with_capacity(statement.attributes.len() + 4);
            a.extend_from_slice(&statement.attributes);
            Leaf::start("db.query", SpanKind::Client, a, parent)
        });
        let started = measured.then(Instant::now);
        Guard::new(Self { span, started, statement, rows: 0, affected: None, waiting: true })
    }

    fn end(&mut self, error: Option<&Error>) {
        let failure = error.map(|e| (e, classify(e)));
        self.finish(failure.map(|(e, f)| error_type(e, f)), |span| {
            if let Some((error, failure)) = failure {
                record(span, error, failure);
            }
        });
    }

    fn finish(&mut self, error: Option<String>, tell: impl FnOnce(&mut Leaf)) {
        if let (Some(started), Some(statement)) = (self.started, &self.statement) {
            let seconds = started.elapsed().as_secs_f64();
            match error {
                None => statement.measured.succeeded.record(seconds),
                Some(error) => {
                    let mut a = statement.measured.labels.clone();
                    a.push(KeyValue::new("error.type", error));
                    metrics().operation.record(seconds, &a);
                }
            }
        }
        if let Some(mut span) = self.span.take() {
            let rows = KeyValue::new("db.response.returned_rows", number(self.rows));
            let affected =
                self.affected.map(|n| KeyValue::new("lacuna.db.response.affected_rows", number(n)));
            span.add([Some(rows), affected].into_iter().flatten());
            tell(&mut span);
        }
    }
}

impl Cancel for Running {
    fn cancel(&mut self, why: &'static str) {
        if self.waiting {
            self.finish(Some(why.to_owned()), |span| {
                span.fail(why, "the query was dropped before it was answered");
            });
        } else {
            self.end(None);
        }
    }
}

impl Guard<Running> {
    /// Ends the query by a result that is there.
    pub(crate) fn settle(
        mut self,
        result: Result<Option<PgRow>, Error>,
    ) -> Result<Option<PgRow>, Error> {
        self.rows = u64::from(matches!(result, Ok(Some(_))));
        self.end(|running| running.end(result.as_ref().err()));
        result
    }

    /// Follows a stream of rows to its end, its error, or the point where nobody wants more.
    pub(crate) fn watch<'e>(
        self,
        stream: BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>,
    ) -> impl Stream<Item = Result<Either<PgQueryResult, PgRow>, Error>> + Send + 'e {
        Watching { running: self, stream }
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What the summary says, as attributes: all are low in cardinality. Shared texts: every call takes a
/// copy.
fn named(summary: &Summary) -> impl Iterator<Item = KeyValue> {
    let shared = |key: &'static str, text: &str| KeyValue::new(key, Arc::<str>::from(text));
    let operation = summary.operation.as_deref().map(|o| shared("db.operation.name", o));
    let collection = summary.collection.as_deref().map(|c| shared("db.collection.name", c));
    [Some(shared("db.query.summary", &summary.text)), operation, collection].into_iter().flatten()
}

struct Watching<'e> {
    running: Guard<Running>,
    stream: BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>,
}

impl Stream for Watching<'_> {
    type Item = Result<Either<PgQueryResult, PgRow>, Error>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(cx);
        self.running.waiting = next.is_pending();
        match &next {
            Poll::Ready(Some(Ok(Either::Left(result)))) => {
                *self.running.affected.get_or_insert(0) += result.rows_affected();
            }
            Poll::Ready(Some(Ok(Either::Right(_)))) => self.running.rows += 1,
            Poll::Ready(Some(Err(error))) => self.running.end(|running| running.end(Some(error))),
            Poll::Ready(None) => self.running.end(|running| running.end(None)),
            Poll::Pending => {}
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_with_one_summary_are_measured_by_one_instrument() {
        let known = Statements::default();
        let get = |sql: &str| known.get(sql, &[]);
        let (a, b) = (get("SELECT 1 FROM t"), get("SELECT 2, x FROM t WHERE y IN ($1, $2)"));
        assert!(Arc::ptr_eq(&a.measured, &b.measured));
        assert!(!Arc::ptr_eq(&a.measured, &get("SELECT 1 FROM t, u").measured));
        assert!(Arc::ptr_eq(&a, &get("SELECT 1 FROM t")), "a text is worked out once");
    }
}
