//! Commands and pipelines of any async connection as spans.

use super::command::{Server, traced};
use super::names::{name_of, name_of_batch, script_of};
use redis::aio::ConnectionLike;
use redis::{Cmd, ConnectionInfo, Pipeline, RedisFuture, Value};

/// A connection whose commands, scripts and pipelines are CLIENT spans and durations.
///
/// Shared connections are fine here: a command or a pipeline is whole by itself. For `WATCH` use
/// [`ExclusiveConnection`](super::ExclusiveConnection).
///
/// ```no_run
/// use lacuna_instrument::redis::Traced;
/// use redis::AsyncCommands;
///
/// # async fn run() -> redis::RedisResult<()> {
/// let client = redis::Client::open("redis://127.0.0.1:6379")?;
/// let connection = client.get_multiplexed_async_connection().await?;
/// let mut connection = Traced::new(connection, client.get_connection_info());
/// let _: () = connection.set("key", 1).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Traced<C> {
    inner: C,
    server: Server,
}

impl<C: ConnectionLike> Traced<C> {
    /// Wraps `inner`, a connection to the server that `info` names.
    pub fn new(inner: C, info: &ConnectionInfo) -> Self {
        Self { inner, server: Server::new(info) }
    }

    /// The connection without its spans.
    pub fn into_inner(self) -> C {
        self.inner
    }
}

impl<C: ConnectionLike + Send> ConnectionLike for Traced<C> {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        traced(
            &self.server,
            || name_of(cmd),
            || script_of(cmd),
            None,
            self.inner.req_packed_command(cmd),
        )
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let sent = self.inner.req_packed_commands(pipeline, offset, count);
        traced(&self.server, || name_of_batch(pipeline), || None, Some(pipeline.len()), sent)
    }

    fn get_db(&self) -> i64 {
        self.inner.get_db()
    }
}
