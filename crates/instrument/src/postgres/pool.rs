//! The pool, and a connection borrowed from it.

use super::classify::record;
use super::metrics::{metrics, register};
use super::query::{Rebuilt, Running};
use super::transaction::Transaction;
use crate::span;
use crate::switch::{self, Part};
use futures::future::BoxFuture;
use futures::sink::SinkExt;
use futures::stream::{BoxStream, StreamExt};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::{SpanKind, TraceContextExt};
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
}

impl Shared {
    pub(crate) fn name_attribute(&self) -> KeyValue {
        KeyValue::new("db.client.connection.pool.name", self.name.clone())
    }

    pub(crate) fn pending(&self) -> i64 {
        self.pending.load(Ordering::Relaxed)
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
        });
        register(&shared);
        Self { shared }
    }

    /// The pool without its spans.
    #[must_use]
    pub fn inner(&self) -> &PgPool {
        &self.shared.pool
    }

    /// Takes a connection, in a span `db.connection` over the wait for it.
    ///
    /// # Errors
    /// `PoolTimedOut` when none became free in time (`failure.reason=pool_exhausted`), or as connecting
    /// fails.
    pub async fn acquire(&self) -> Result<Connection, Error> {
        let (spans, measured) = (switch::spans(Part::Postgres), switch::metrics(Part::Postgres));
        let cx = spans.then(|| {
            let mut attributes = self.shared.attributes();
            attributes.push(self.shared.name_attribute());
            Context::map_current(|parent| {
                span::start("db.connection", SpanKind::Internal, attributes, parent)
            })
        });
        let started = Instant::now();
        let result = {
            let _pending = Pending::new(&self.shared.pending);
            self.shared.pool.acquire().await
        };
        if measured {
            let name = [self.shared.name_attribute()];
            metrics().wait.record(started.elapsed().as_secs_f64(), &name);
            if matches!(result, Err(Error::PoolTimedOut)) {
                metrics().timeouts.add(1, &name);
            }
        }
        if let Some(cx) = cx {
            if let Err(error) = &result {
                record(&cx, error);
            }
            cx.span().end();
        }
        Ok(Connection { inner: result?, shared: self.shared.clone(), taken: Instant::now() })
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
    taken: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if switch::metrics(Part::Postgres) {
            metrics()
                .used
                .record(self.taken.elapsed().as_secs_f64(), &[self.shared.name_attribute()]);
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
