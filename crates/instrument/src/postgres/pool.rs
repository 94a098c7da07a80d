//! The pool, and a connection borrowed from it.

use super::classify::{Failure, classify, record};
use super::metrics::{metrics, register};
use super::query::{Rebuilt, Running, Statement};
use super::transaction::Transaction;
use crate::metrics::ByName;
use crate::span::{CANCELLED, Leaf};
use crate::switch::{self, Part};
use futures::future::BoxFuture;
use futures::sink::SinkExt;
use futures::stream::{BoxStream, StreamExt};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::SpanKind;
use opentelemetry::{Context, KeyValue};
use sqlx::postgres::{PgQueryResult, PgRow, PgStatement, PgTypeInfo};
use sqlx::{Either, Error, Execute, Executor, PgPool, Postgres, SqlStr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// A pool whose waits, queries and transactions are traced. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

/// What a pool's connections and gauges need.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pool: PgPool,
    name: Arc<str>,
    attributes: Vec<KeyValue>,
    pending: AtomicI64,
    /// Connections that are borrowed.
    lent: AtomicI64,
    statements: ByName<Arc<Statement>>,
}

impl Shared {
    pub(crate) fn name_attribute(&self) -> KeyValue {
        KeyValue::new("db.client.connection.pool.name", self.name.clone())
    }

    pub(crate) fn pending(&self) -> i64 {
        self.pending.load(Ordering::Relaxed)
    }

    /// What is known of a statement.
    pub(crate) fn statement(&self, sql: &str) -> Arc<Statement> {
        self.statements.get(sql, || Arc::new(Statement::new(sql, &self.attributes)))
    }

    /// Why a call failed. `sqlx` waits for a connection as long while it cannot open one as while all
    /// are taken, and reports both as `PoolTimedOut`.
    fn classify(&self, error: &Error) -> Failure {
        let lent = self.lent.load(Ordering::Relaxed);
        match classify(error) {
            Failure::PoolExhausted
                if lent == 0 || self.pool.size() < self.pool.options().get_max_connections() =>
            {
                Failure::ConnectionLost
            }
            failure => failure,
        }
    }

    /// The server's attributes, for a span.
    pub(crate) fn attributes(&self) -> Vec<KeyValue> {
        let mut attributes = Vec::with_capacity(self.attributes.len() + 8);
        attributes.extend_from_slice(&self.attributes);
        attributes
    }
}

/// One more that waits; one fewer when dropped, also when the wait is cancelled.
struct Pending<'p>(&'p AtomicI64);

/// A wait for a connection, which ends also when nobody waits for its end.
struct Waiting<'p> {
    shared: &'p Shared,
    span: Option<Leaf>,
    started: Option<Instant>,
    done: bool,
}

impl Waiting<'_> {
    fn end(&mut self, error: Option<&Error>) {
        self.done = true;
        if let Some(started) = self.started {
            let name = [self.shared.name_attribute()];
            metrics().wait.record(started.elapsed().as_secs_f64(), &name);
            if matches!(error, Some(Error::PoolTimedOut)) {
                metrics().timeouts.add(1, &name);
            }
        }
        if let (Some(span), Some(error)) = (&mut self.span, error) {
            record(span, error, self.shared.classify(error));
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.end(None);
            if let Some(span) = &mut self.span {
                span.fail(CANCELLED, "the wait for a connection was given up by its caller");
            }
        }
    }
}

impl<'p> Pending<'p> {
    fn new(count: &'p AtomicI64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// Wraps `pool`; `name` tells it from the service's other pools.
    #[must_use]
    pub fn new(pool: PgPool, name: impl AsRef<str>) -> Self {
        let options = pool.connect_options();
        let mut attributes = vec![KeyValue::new("db.system.name", "postgresql")];
        // Shared texts: every query takes a copy.
        if let Some(database) = options.get_database() {
            attributes.push(KeyValue::new("db.namespace", Arc::<str>::from(database)));
        }
        attributes.push(KeyValue::new("server.address", Arc::<str>::from(options.get_host())));
        attributes.push(KeyValue::new("server.port", i64::from(options.get_port())));
        let shared = Arc::new(Shared {
            pool,
            name: name.as_ref().into(),
            attributes,
            pending: AtomicI64::new(0),
            lent: AtomicI64::new(0),
            statements: ByName::default(),
        });
        register(&shared);
        Self { shared }
    }

    /// The pool without its spans.
    #[must_use]
    pub fn inner(&self) -> &PgPool {
        &self.shared.pool
    }

    /// What an error of this pool means: as [`classify`], and where a wait for a connection ran out of
    /// time, whether all were taken (`PoolExhausted`) or none could be opened (`ConnectionLost`), as
    /// the pool stands now.
    #[must_use]
    pub fn classify(&self, error: &Error) -> Failure {
        self.shared.classify(error)
    }

    /// Takes a connection, in a span `db.connection` over the wait for it.
    ///
    /// # Errors
    /// `PoolTimedOut` when none became free in time (`failure.reason=pool_exhausted`) or none could be
    /// opened (`connection_lost`), or as connecting fails.
    pub async fn acquire(&self) -> Result<Connection, Error> {
        let span = switch::spans(Part::Postgres).then(|| {
            let mut attributes = self.shared.attributes();
            attributes.push(self.shared.name_attribute());
            Context::map_current(|parent| {
                Leaf::start("db.connection", SpanKind::Internal, attributes, parent)
            })
        });
        let started = switch::metrics(Part::Postgres).then(Instant::now);
        let mut waiting = Waiting { shared: &self.shared, span, started, done: false };
        let result = {
            let _pending = Pending::new(&self.shared.pending);
            self.shared.pool.acquire().await
        };
        waiting.end(result.as_ref().err());
        drop(waiting);
        let inner = result?;
        self.shared.lent.fetch_add(1, Ordering::Relaxed);
        let taken = switch::metrics(Part::Postgres).then(Instant::now);
        Ok(Connection { inner, shared: self.shared.clone(), taken })
    }

    /// Begins a transaction: a span `db.transaction` until it ends.
    ///
    /// # Errors
    /// As taking a connection or `BEGIN` fails.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        Transaction::begin(self.acquire().await?).await
    }
}

/// A connection borrowed from a [`Pool`]; dropping it gives it back.
#[derive(Debug)]
pub struct Connection {
    pub(crate) inner: sqlx::pool::PoolConnection<Postgres>,
    pub(crate) shared: Arc<Shared>,
    /// `None`: metrics were off.
    taken: Option<Instant>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.lent.fetch_sub(1, Ordering::Relaxed);
        if let Some(taken) = self.taken.filter(|_| switch::metrics(Part::Postgres)) {
            metrics().used.record(taken.elapsed().as_secs_f64(), &[self.shared.name_attribute()]);
        }
    }
}

type Item = Result<Either<PgQueryResult, PgRow>, Error>;

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Item>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = Rebuilt::new(query);
        let running = Running::start(&self.shared, &query, &Context::current());
        running.watch(self.inner.fetch_many(query)).boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = Rebuilt::new(query);
        let running = Running::start(&self.shared, &query, &Context::current());
        Box::pin(async move { running.settle(self.inner.fetch_optional(query).await) })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        self.inner.prepare_with(sql, parameters)
    }
}

impl<'c> Executor<'c> for &Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Item>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (pool, query) = (self.clone(), Rebuilt::new(query));
        // The rows borrow from a connection that this stream has to own: a future that owns both
        // hands them over, and is polled together with the receiving end.
        let (mut rows, received) = futures::channel::mpsc::channel(0);
        let fetch = async move {
            let fetched = async {
                let mut connection = pool.acquire().await?;
                let mut stream = (&mut connection).fetch_many(query);
                while let Some(row) = stream.next().await {
                    if rows.send(row).await.is_err() {
                        break;
                    }
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = fetched.await {
                let _ = rows.send(Err(error)).await;
            }
        };
        let fetch = futures::stream::once(fetch.with_context(Context::current()));
        futures::stream::select(received, fetch.filter_map(|()| std::future::ready(None))).boxed()
    }

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<PgQueryResult, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (pool, query) = (self.clone(), Rebuilt::new(query));
        Box::pin(async move {
            let mut connection = pool.acquire().await?;
            (&mut connection).execute(query).await
        })
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (pool, query) = (self.clone(), Rebuilt::new(query));
        Box::pin(async move {
            let mut connection = pool.acquire().await?;
            (&mut connection).fetch_all(query).await
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let (pool, query) = (self.clone(), Rebuilt::new(query));
        Box::pin(async move {
            let mut connection = pool.acquire().await?;
            (&mut connection).fetch_optional(query).await
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
        let pool = self.clone();
        Box::pin(async move { pool.acquire().await?.inner.prepare_with(sql, parameters).await })
    }
}
