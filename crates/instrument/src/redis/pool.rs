//! A small pool of exclusive connections.

use super::ExclusiveConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// Hands out connections that their holder owns alone. Cloning the pool shares it; a connection that
/// was taken is nobody else's until it is dropped.
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
}

#[derive(Debug)]
struct Shared {
    client: Client,
    config: AsyncConnectionConfig,
    idle: Mutex<Vec<Slot>>,
    places: Arc<Semaphore>,
}

/// A connection's place in the pool. The lock is the loan: it is never contended, because a slot that
/// is on loan is not in the idle list.
type Slot = Arc<tokio::sync::Mutex<ExclusiveConnection>>;

impl ConnectionPool {
    /// A pool of at most `size` connections (at least one), opened when they are first needed.
    #[must_use]
    pub fn new(client: Client, size: usize) -> Self {
        Self::with_config(client, size, AsyncConnectionConfig::new())
    }

    /// [`ConnectionPool::new`] with timeouts and limits of the caller's.
    #[must_use]
    pub fn with_config(client: Client, size: usize, config: AsyncConnectionConfig) -> Self {
        let places = Arc::new(Semaphore::new(size.max(1)));
        Self { shared: Arc::new(Shared { client, config, idle: Mutex::new(vec![]), places }) }
    }

    /// Waits for a free place, then takes an idle connection or opens one.
    ///
    /// # Errors
    /// When a connection cannot be opened. The place is free again.
    pub async fn get(&self) -> RedisResult<PooledConnection> {
        let shared = self.shared.clone();
        let place = shared.places.clone().acquire_owned().await.map_err(|_| {
            redis::RedisError::from((redis::ErrorKind::Client, "the connection pool is closed"))
        })?;
        let idle = shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = match idle {
            Some(slot) => slot,
            None => {
                let opened =
                    ExclusiveConnection::connect_with(&shared.client, shared.config.clone())
                        .await?;
                Arc::new(tokio::sync::Mutex::new(opened))
            }
        };
        Ok(PooledConnection { connection: slot.lock_owned().await, shared, _place: place })
    }
}

/// A connection on loan; dropping it gives it back.
#[derive(Debug)]
pub struct PooledConnection {
    connection: OwnedMutexGuard<ExclusiveConnection>,
    shared: Arc<Shared>,
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
    }
}
