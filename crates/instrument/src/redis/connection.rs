//! A connection that one task owns.

use super::command::{Server, name_of, name_of_batch, script_of, traced};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    Value,
};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A Redis connection with one owner: not `Clone`, and never a handle to a shared one, since it opens
/// its own socket. Commands and pipelines on it are traced, as with [`Traced`](super::Traced).
///
/// A connection that was lost is opened again by the next call. One whose transaction was cancelled
/// half-way (its future dropped) is cleaned with `UNWATCH` before it is used again.
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
    client: Client,
    config: AsyncConnectionConfig,
    connection: MultiplexedConnection,
    /// The socket is gone: open another before the next call.
    lost: bool,
    /// A transaction began and has not ended: keys may still be watched.
    watching: bool,
}

/// The connection, lent out.
pub(crate) type Lent = OwnedMutexGuard<Inner>;

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
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let info = client.get_connection_info();
        let (server, db) = (Server::new(info), info.redis_settings().db());
        let inner =
            Inner { client: client.clone(), config, connection, lost: false, watching: false };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), server, db })
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// The connection, lent and fit for a new command.
    async fn fit(&mut self) -> RedisResult<Lent> {
        let mut inner = self.lend()?;
        inner.ready().await?;
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
    /// The connection without spans, for callers that make their own.
    pub(crate) fn raw(&mut self) -> &mut MultiplexedConnection {
        &mut self.connection
    }

    /// Makes the connection fit for a new transaction or command.
    pub(crate) async fn ready(&mut self) -> RedisResult<()> {
        if self.lost {
            self.connection =
                self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
            self.lost = false;
            self.watching = false;
        }
        if self.watching {
            let cleaned = redis::cmd("UNWATCH").exec_async(&mut self.connection).await;
            self.note(&cleaned);
            cleaned?;
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

    /// Learns from a result whether the socket is still good.
    pub(crate) fn note<T>(&mut self, result: &RedisResult<T>) {
        self.lost |= result.as_ref().err().is_some_and(needs_new_socket);
    }
}

fn needs_new_socket(error: &RedisError) -> bool {
    error.is_connection_dropped() || error.is_unrecoverable_error()
}

impl ConnectionLike for ExclusiveConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        let server = self.server.clone();
        let sent = async move {
            let mut inner = self.fit().await?;
            let result = inner.connection.req_packed_command(cmd).await;
            inner.note(&result);
            result
        };
        traced(&server, || name_of(cmd), || script_of(cmd), None, Box::pin(sent))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let server = self.server.clone();
        let sent = async move {
            let mut inner = self.fit().await?;
            let result = inner.connection.req_packed_commands(pipeline, offset, count).await;
            inner.note(&result);
            result
        };
        traced(&server, || name_of_batch(pipeline), || None, Some(pipeline.len()), Box::pin(sent))
    }

    fn get_db(&self) -> i64 {
        self.db
    }
}
