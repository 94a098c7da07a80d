//! A connection that one task owns.

use super::command::{Server, traced};
use super::errors::{describe, error_type};
use super::names::{name_of, name_of_batch, script_of};
use crate::pool;
use crate::span::{Cancel, Guard, Leaf};
use crate::switch::{self, Part};
use opentelemetry::trace::SpanKind;
use opentelemetry::{Context, KeyValue};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    Value,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;
use tokio::time::error::Elapsed;

/// A Redis connection with one owner: not `Clone`, and never a handle to a shared one, since it opens
/// its own socket. Commands and pipelines on it are traced, as with [`Traced`](super::Traced).
///
/// A connection that was lost, that did not answer in time, or whose answer nobody waited for (a
/// future dropped half-way) is opened again by the next call, in a span `redis.connect`. One whose
/// transaction was cancelled between two calls is cleaned with `UNWATCH` before it is used again.
///
/// ```compile_fail
/// fn needs_clone<T: Clone>() {}
/// needs_clone::<lacuna_instrument::redis::ExclusiveConnection>();
/// ```
#[derive(Debug)]
pub struct ExclusiveConnection {
    /// Lent to an attempt while its body runs, so that the body's future borrows nothing (and can be
    /// spawned). Never shared otherwise: the lock is only ever tried, not waited for.
    inner: Arc<Mutex<Inner>>,
    server: Server,
    db: i64,
}

/// The socket and what is known of it.
#[derive(Debug)]
pub(crate) struct Inner {
    opener: Opener,
    connection: MultiplexedConnection,
    /// The socket is gone, or says nothing: open another before the next call.
    lost: bool,
    /// A call was sent and not answered. Where nobody waits for it any more, what comes next on this
    /// socket waits behind it, for as long as a `BLPOP` likes.
    busy: bool,
    /// A transaction began and has not ended: keys may still be watched.
    watching: bool,
}

/// The connection, lent out.
pub(crate) type Lent = OwnedMutexGuard<Inner>;

/// When a transaction's time is up; `None` leaves only the connection's own limits.
pub(crate) type Deadline = Option<Instant>;

/// The deadline after `limit`. A limit beyond what the clock can say is none.
pub(crate) fn deadline_in(limit: Option<Duration>) -> Deadline {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}

pub(crate) async fn within<T>(
    deadline: Deadline,
    work: impl Future<Output = T>,
) -> Result<T, Elapsed> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await,
        None => Ok(work.await),
    }
}

pub(crate) fn out_of_time(why: &'static str) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, why).into()
}

impl ExclusiveConnection {
    /// Opens a connection with the client's defaults: 1 s to connect, 500 ms for an answer.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn connect(client: &Client) -> RedisResult<Self> {
        Self::connect_with(client, AsyncConnectionConfig::new()).await
    }

    /// Opens a connection with timeouts and limits of the caller's.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn connect_with(client: &Client, config: AsyncConnectionConfig) -> RedisResult<Self> {
        let server = Server::new(client.get_connection_info());
        Self::open(Opener { client: client.clone(), config, server, pool: None }).await
    }

    pub(crate) async fn open(opener: Opener) -> RedisResult<Self> {
        let connection = opener.open().await?;
        let db = opener.client.get_connection_info().redis_settings().db();
        let server = opener.server.clone();
        let inner = Inner { opener, connection, lost: false, busy: false, watching: false };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), server, db })
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The connection, lent and fit for a new command.
    async fn fit(&mut self) -> RedisResult<Lent> {
        let mut inner = self.lend()?;
        inner.ready(None).await?;
        Ok(inner)
    }

    /// The connection for one call or one phase of an attempt.
    ///
    /// # Errors
    /// When a `Watched` was kept beyond its attempt: using both would interleave.
    pub(crate) fn lend(&mut self) -> RedisResult<Lent> {
        self.inner.clone().try_lock_owned().map_err(|_| {
            RedisError::from((
                ErrorKind::Client,
                "the connection is still held by an attempt kept beyond its body",
            ))
        })
    }
}

impl Inner {
    /// Makes the connection fit for a new transaction or command.
    pub(crate) async fn ready(&mut self, deadline: Deadline) -> RedisResult<()> {
        if self.lost || self.busy {
            self.lost = true;
            let opened = within(deadline, self.opener.open()).await;
            self.connection =
                opened.map_err(|_| out_of_time("the transaction's time was up"))??;
            (self.lost, self.busy, self.watching) = (false, false, false);
        }
        if self.watching {
            self.send(&redis::cmd("UNWATCH"), deadline).await?.extract_error()?;
            self.watching = false;
        }
        Ok(())
    }

    /// Says that keys are watched from here until [`Inner::unwatched`]. Set before the first await,
    /// so that a dropped future leaves it set.
    pub(crate) fn watching(&mut self) {
        self.watching = true;
    }

    pub(crate) fn unwatched(&mut self) {
        self.watching = false;
    }

    /// Sends a command, without a span: for callers that make their own. The server's error is a
    /// value of the answer.
    pub(crate) async fn send(&mut self, cmd: &Cmd, deadline: Deadline) -> RedisResult<Value> {
        self.busy = true;
        let answer = within(deadline, self.connection.req_packed_command(cmd)).await;
        self.answered(answer)
    }

    /// [`Inner::send`] for a pipeline.
    pub(crate) async fn send_all(
        &mut self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
        deadline: Deadline,
    ) -> RedisResult<Vec<Value>> {
        self.busy = true;
        let sent = self.connection.req_packed_commands(pipeline, offset, count);
        let answer = within(deadline, sent).await;
        self.answered(answer)
    }

    /// Learns from an answer whether the socket is still good.
    fn answered<T>(&mut self, answer: Result<RedisResult<T>, Elapsed>) -> RedisResult<T> {
        self.busy = false;
        let result = answer.unwrap_or_else(|_| Err(out_of_time("the transaction's time was up")));
        self.lost |= result.as_ref().err().is_some_and(needs_new_socket);
        result
    }
}

/// A peer that does not answer in time may never: a pool would hand the same dead socket out again
/// and again.
fn needs_new_socket(error: &RedisError) -> bool {
    error.is_timeout() || error.is_connection_dropped() || error.is_unrecoverable_error()
}

/// Opens a connection's sockets, the first and those after a loss.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    pub(crate) client: Client,
    pub(crate) config: AsyncConnectionConfig,
    pub(crate) server: Server,
    /// The name of the pool that the connection belongs to.
    pub(crate) pool: Option<KeyValue>,
}

impl Opener {
    /// Opens a socket in a span `redis.connect`, within the time that the configuration allows.
    pub(crate) async fn open(&self) -> RedisResult<MultiplexedConnection> {
        let span = switch::spans(Part::Redis).then(|| {
            let mut attributes = self.server.attributes();
            attributes.extend(self.pool.clone());
            Context::map_current(|parent| {
                Leaf::start("redis.connect", SpanKind::Client, attributes, parent)
            })
        });
        let started = Instant::now();
        let mut opening = Guard::new(Opening(span));
        let opened = self.client.get_multiplexed_async_connection_with_config(&self.config).await;
        opening.end(|Opening(span)| {
            if let (Some(span), Err(error)) = (span, &opened) {
                span.fail(error_type(error), describe(error));
            }
        });
        if let (Ok(_), Some(name), true) = (&opened, &self.pool, switch::metrics(Part::Redis)) {
            pool::metrics().opened(started.elapsed(), name);
        }
        opened
    }
}

struct Opening(Option<Leaf>);

impl Cancel for Opening {
    fn cancel(&mut self, why: &'static str) {
        if let Some(span) = &mut self.0 {
            span.fail(why, "given up before the connection was open");
        }
    }
}

impl ConnectionLike for ExclusiveConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        let server = self.server.clone();
        let sent = async move { self.fit().await?.send(cmd, None).await };
        traced(&server, || name_of(cmd), || script_of(cmd), None, Box::pin(sent))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let server = self.server.clone();
        let sent = async move { self.fit().await?.send_all(pipeline, offset, count, None).await };
        traced(&server, || name_of_batch(pipeline), || None, Some(pipeline.len()), Box::pin(sent))
    }

    fn get_db(&self) -> i64 {
        self.db
    }
}
