//! A small pool of exclusive connections.

use super::ExclusiveConnection;
use super::command::Server;
use super::connection::{Deadline, Opener, deadline_in, out_of_time, within};
use super::errors::{describe, error_type};
use crate::pool::{self, Pooled, Standing, Wait};
use crate::span::Leaf;
use crate::switch::{self, Part};
use opentelemetry::KeyValue;
use redis::{AsyncConnectionConfig, Client, RedisError};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// How long [`ConnectionPool::get`] waits where nothing else was said.
const WAIT: Duration = Duration::from_secs(30);

/// Hands out connections that their holder owns alone. Cloning the pool shares it; a connection that
/// was taken is nobody else's until it is dropped.
///
/// Waiting for a connection is a span `redis.connection` (where it is at hand, there is none), opening
/// one a span `redis.connect`; the pool's connections and waits are the metrics
/// `db.client.connection.*`.
///
/// ```no_run
/// # async fn run() -> redis::RedisResult<()> {
/// use lacuna_instrument::redis::ConnectionPool;
///
/// let pool = ConnectionPool::new(redis::Client::open("redis://127.0.0.1:6379")?, 4);
/// let mut connection = pool.get().await?;
/// redis::cmd("PING").exec_async(&mut *connection).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct ConnectionPool {
    shared: Arc<Shared>,
    wait: Option<Duration>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    config: AsyncConnectionConfig,
    server: Server,
    size: usize,
    /// Set by [`ConnectionPool::named`] or the first use.
    name: OnceLock<Arc<str>>,
    registered: OnceLock<()>,
    idle: Mutex<Vec<Slot>>,
    places: Arc<Semaphore>,
    pending: AtomicI64,
}

/// A connection's place in the pool. The lock is the loan: it is never contended, because a slot that
/// is on loan is not in the idle list.
type Slot = Arc<tokio::sync::Mutex<ExclusiveConnection>>;

/// Why a pool gave no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// None became free in time.
    #[error(
        "no connection to redis became free within {waited:?}: all {size} of the pool are taken"
    )]
    Exhausted {
        /// Connections that the pool may have.
        size: usize,
        /// How long it was waited.
        waited: Duration,
    },
    /// A new one could not be opened.
    #[error("no connection to redis could be opened")]
    Connect(#[source] RedisError),
}

/// For callers who speak only of [`RedisError`]: an exhausted pool is a timeout then, with the same
/// words.
impl From<PoolError> for RedisError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Connect(source) => source,
            exhausted => std::io::Error::new(std::io::ErrorKind::TimedOut, exhausted).into(),
        }
    }
}

impl PoolError {
    fn tell(&self, span: &mut Leaf) {
        let (reason, error, text) = match self {
            Self::Exhausted { .. } => {
                let text = "pool_exhausted: no connection in time".into();
                ("pool_exhausted", "pool_exhausted".into(), text)
            }
            Self::Connect(source) => {
                let reason = if source.is_timeout() { "timeout" } else { "connection_lost" };
                (reason, error_type(source), describe(source))
            }
        };
        span.add([KeyValue::new("failure.reason", reason)]);
        span.fail(error, text);
    }
}

impl ConnectionPool {
    /// A pool of at most `size` connections (at least one), opened when they are first needed.
    #[must_use]
    pub fn new(client: Client, size: usize) -> Self {
        Self::with_config(client, size, AsyncConnectionConfig::new())
    }

    /// [`ConnectionPool::new`] with timeouts and limits of the caller's.
    #[must_use]
    pub fn with_config(client: Client, size: usize, config: AsyncConnectionConfig) -> Self {
        let size = size.clamp(1, Semaphore::MAX_PERMITS);
        let server = Server::new(client.get_connection_info());
        let shared = Shared {
            client,
            config,
            server,
            size,
            name: OnceLock::new(),
            registered: OnceLock::new(),
            idle: Mutex::new(vec![]),
            places: Arc::new(Semaphore::new(size)),
            pending: AtomicI64::new(0),
        };
        Self { shared: Arc::new(shared), wait: Some(WAIT) }
    }

    /// Names the pool in `db.client.connection.pool.name`, once and before its first use. Without a
    /// name it has that of its server, `host:port/database`, as the conventions ask.
    #[must_use]
    pub fn named(self, name: impl AsRef<str>) -> Self {
        self.shared.name.get_or_init(|| name.as_ref().into());
        self
    }

    /// How long [`ConnectionPool::get`] may take on this handle, opening a connection included; 30 s
    /// by default. `None`: as long as it takes.
    #[must_use]
    pub fn wait_limit(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// Waits for a free place, then takes an idle connection or opens one.
    ///
    /// # Errors
    /// When no place became free in time, or a connection cannot be opened. The place is free again.
    pub async fn get(&self) -> Result<PooledConnection, PoolError> {
        self.get_before(None).await
    }

    /// [`ConnectionPool::get`], before a deadline that may be nearer than the pool's own limit.
    pub(crate) async fn get_before(
        &self,
        deadline: Deadline,
    ) -> Result<PooledConnection, PoolError> {
        let shared = &self.shared;
        shared.registered.get_or_init(|| pool::register(shared));
        let place = shared.places.clone().try_acquire_owned().ok();
        let idle = place.as_ref().and_then(|_| shared.idle());
        let place = match (place, idle) {
            // A wait that is none: a measurement, and no span.
            (Some(place), Some(slot)) => {
                if switch::metrics(Part::Redis) {
                    pool::metrics().waited(Duration::ZERO, shared.name());
                }
                return Ok(shared.lend(slot, place).await);
            }
            (place, _) => place,
        };
        let deadline = match (deadline, deadline_in(self.wait)) {
            (Some(theirs), Some(ours)) => Some(theirs.min(ours)),
            (theirs, ours) => theirs.or(ours),
        };
        let mut wait = Wait::start(&**shared, &shared.pending, "redis.connection", || {
            shared.server.attributes()
        });
        let taken = self.take(deadline, place).await;
        let error = taken.as_ref().err();
        wait.end(|wait| {
            let exhausted = matches!(error, Some(PoolError::Exhausted { .. }));
            wait.finish(exhausted, error.map(|error| |span: &mut Leaf| error.tell(span)));
        });
        taken
    }

    async fn take(
        &self,
        deadline: Deadline,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<PooledConnection, PoolError> {
        let started = Instant::now();
        let shared = &self.shared;
        let place = match place {
            Some(place) => place,
            None => {
                let exhausted =
                    || PoolError::Exhausted { size: shared.size, waited: started.elapsed() };
                let place = within(deadline, shared.places.clone().acquire_owned()).await;
                // The semaphore is never closed.
                place.map_err(|_| exhausted())?.map_err(|_| exhausted())?
            }
        };
        let slot = match shared.idle() {
            Some(slot) => slot,
            None => {
                let opener = Opener {
                    client: shared.client.clone(),
                    config: shared.config.clone(),
                    server: shared.server.clone(),
                    pool: Some(shared.name()),
                };
                let opened = within(deadline, ExclusiveConnection::open(opener)).await;
                let opened = opened.unwrap_or_else(|_| {
                    Err(out_of_time("the wait for a connection was over before it was open"))
                });
                Arc::new(tokio::sync::Mutex::new(opened.map_err(PoolError::Connect)?))
            }
        };
        Ok(shared.lend(slot, place).await)
    }
}

impl Shared {
    /// The connection that came back last.
    fn idle(&self) -> Option<Slot> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn lend(self: &Arc<Self>, slot: Slot, place: OwnedSemaphorePermit) -> PooledConnection {
        let taken = switch::metrics(Part::Redis).then(Instant::now);
        let connection = slot.lock_owned().await;
        PooledConnection { connection, shared: self.clone(), taken, _place: place }
    }
}

impl Pooled for Shared {
    fn part(&self) -> Part {
        Part::Redis
    }

    fn name(&self) -> KeyValue {
        let name = self.name.get_or_init(|| {
            let info = self.client.get_connection_info();
            format!("{}/{}", info.addr(), info.redis_settings().db()).into()
        });
        pool::name(name.clone())
    }

    fn now(&self) -> Standing {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).len();
        let used = self.size.saturating_sub(self.places.available_permits());
        Standing {
            idle: number(idle),
            used: number(used),
            max: number(self.size),
            idle_min: 0,
            pending: self.pending.load(Ordering::Relaxed),
        }
    }
}

/// A connection on loan; dropping it gives it back.
#[derive(Debug)]
pub struct PooledConnection {
    connection: OwnedMutexGuard<ExclusiveConnection>,
    shared: Arc<Shared>,
    /// `None`: metrics were off.
    taken: Option<Instant>,
    // Last: whoever gets the place finds the connection unlocked.
    _place: OwnedSemaphorePermit,
}

impl Deref for PooledConnection {
    type Target = ExclusiveConnection;

    fn deref(&self) -> &ExclusiveConnection {
        &self.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut ExclusiveConnection {
        &mut self.connection
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let slot = OwnedMutexGuard::mutex(&self.connection).clone();
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        if let Some(taken) = self.taken.filter(|_| switch::metrics(Part::Redis)) {
            pool::metrics().used(taken, self.shared.name());
        }
    }
}
