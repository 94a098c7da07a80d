//! The pool, and a connection borrowed from it.

use super::classify::{Failure, classify, record};
use super::query::{Rebuilt, Running, Statement, Statements};
use super::transaction::Transaction;
use crate::pool::{self, Pooled, Standing, Wait};
use crate::span::Leaf;
use crate::switch::{self, Part};
use futures::future::BoxFuture;
use futures::sink::SinkExt;
use futures::stream::{BoxStream, StreamExt};
use opentelemetry::context::FutureExt;
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
    statements: Statements,
}

impl Shared {
    /// What is known of a statement.
    pub(crate) fn statement(&self, sql: &str) -> Arc<Statement> {
        self.statements.get(sql, &self.attributes)
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

impl Pooled for Shared {
    fn part(&self) -> Part {
        Part::Postgres
    }

    fn name(&self) -> KeyValue {
        pool::name(self.name.clone())
    }

    fn now(&self) -> Standing {
        let options = self.pool.options();
        let idle = i64::try_from(self.pool.num_idle()).unwrap_or(i64::MAX);
        Standing {
            idle,
            used: i64::from(self.pool.size()).saturating_sub(idle).max(0),
            max: i64::from(options.get_max_connections()),
            idle_min: i64::from(options.get_min_connections()),
            pending: self.pending.load(Ordering::Relaxed),
        }
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
            statements: Statements::default(),
        });
        pool::register(&shared);
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
        let shared = &self.shared;
        let mut wait =
            Wait::start(&**shared, &shared.pending, "db.connection", || shared.attributes());
        let result = shared.pool.acquire().await;
        let error = result.as_ref().err();
        wait.end(|wait| {
            let timed_out = matches!(error, Some(Error::PoolTimedOut));
            let failed =
                error.map(|error| |span: &mut Leaf| record(span, error, shared.classify(error)));
            wait.finish(timed_out, failed);
        });
        drop(wait);
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

    /// Runs a query on a connection that is taken for it.
    fn on_one<'e, 'q: 'e, T: 'e>(
        &self,
        query: impl Execute<'q, Postgres>,
        run: impl for<'c> FnOnce(&'c mut Connection, Rebuilt) -> BoxFuture<'c, Result<T, Error>>
        + Send
        + 'e,
    ) -> BoxFuture<'e, Result<T, Error>> {
        let (pool, query) = (self.clone(), Rebuilt::new(query));
        Box::pin(async move { run(&mut pool.acquire().await?, query).await })
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
            pool::metrics().used(taken, self.shared.name());
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
        self.on_one(query, |connection, query| connection.execute(query))
    }

    fn fetch_all<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Vec<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.on_one(query, |connection, query| connection.fetch_all(query))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.on_one(query, |connection, query| connection.fetch_optional(query))
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
