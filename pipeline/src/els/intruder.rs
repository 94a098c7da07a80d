//! The other client of the fault `concurrent-slot-modification`.
//!
//! It has a connection of its own, and no spans: whoever touches somebody else's keys is seldom so
//! kind as to say so.

use redis::aio::MultiplexedConnection;

use crate::error::Error;

/// Touches the slots of a batch, without changing what they hold.
#[derive(Clone)]
pub struct Intruder {
    redis: MultiplexedConnection,
}

impl Intruder {
    /// Opens the intruder's own connection.
    pub async fn connect(client: &redis::Client) -> Result<Self, Error> {
        Ok(Self { redis: client.get_multiplexed_async_connection().await? })
    }

    /// Adds a member and takes it away again, in one step so that no worker can pop it. Whoever
    /// watches the key has lost its transaction by the time this returns.
    pub async fn touch(&self, slots_key: &str) -> Result<(), Error> {
        let mut redis = self.redis.clone();
        redis::pipe()
            .atomic()
            .sadd(slots_key, "intruder")
            .srem(slots_key, "intruder")
            .exec_async(&mut redis)
            .await?;
        Ok(())
    }
}
