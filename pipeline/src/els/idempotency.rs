//! The idempotency layer (`idempotency-v2`): each event is processed once, however often it comes.
//!
//! It knows whether processing returned, and nothing of what it achieved: that is why it reports
//! success for essays that were lost.

use std::future::Future;

use lacuna_instrument::redis::Traced;
use redis::aio::MultiplexedConnection;
use serde_json::Value;

use crate::envelope::Envelope;
use crate::error::Error;

/// Longer than any redelivery of Kafka's can lag behind.
const KEEP_DONE_SECONDS: u64 = 24 * 3_600;
/// A worker that died leaves its mark this long at most.
const KEEP_PROCESSING_SECONDS: u64 = 300;
const DONE: &str = "done";

/// Marks of processed events in Redis. Plain commands only, so its connection may be shared.
#[derive(Clone)]
pub struct Idempotency {
    redis: Traced<MultiplexedConnection>,
}

impl Idempotency {
    /// On a connection of its own.
    pub fn new(redis: Traced<MultiplexedConnection>) -> Self {
        Self { redis }
    }

    /// Runs `work` unless the event is known as done.
    ///
    /// A mark "processing" does not hold anyone back: one partition has one consumer, so it is the
    /// mark of a worker that died, and `work` itself must bear being done twice.
    pub async fn once<F>(&self, event: &Envelope<Value>, work: F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let mut redis = self.redis.clone();
        let key = format!("huleedu:idempotency:v2:{}:{}", event.event_type, event.event_id);
        let first: Option<String> = redis::cmd("SET")
            .arg(&key)
            .arg("processing")
            .arg("NX")
            .arg("EX")
            .arg(KEEP_PROCESSING_SECONDS)
            .query_async(&mut redis)
            .await?;
        if first.is_none() {
            let mark: Option<String> = redis::cmd("GET").arg(&key).query_async(&mut redis).await?;
            if mark.as_deref() == Some(DONE) {
                tracing::debug!(
                    target: "idempotency-v2",
                    layer = "framework",
                    event_id = event.event_id,
                    "DUPLICATE_SKIPPED: Event was processed before"
                );
                return Ok(());
            }
        }
        match work.await {
            Ok(()) => {
                redis::cmd("SET")
                    .arg(&key)
                    .arg(DONE)
                    .arg("EX")
                    .arg(KEEP_DONE_SECONDS)
                    .exec_async(&mut redis)
                    .await?;
                tracing::info!(
                    target: "idempotency-v2",
                    layer = "framework",
                    event_id = event.event_id,
                    event_type = event.event_type,
                    batch_id = event.batch_id,
                    "PROCESSING_SUCCESS: Event processed successfully"
                );
                Ok(())
            }
            Err(error) => {
                tracing::warn!(
                    target: "idempotency-v2",
                    layer = "framework",
                    event_id = event.event_id,
                    event_type = event.event_type,
                    batch_id = event.batch_id,
                    error = %error,
                    "PROCESSING_FAILED: Event will be delivered again"
                );
                // If this fails too, the mark expires, and it holds nobody back meanwhile.
                let _ = redis::cmd("DEL").arg(&key).exec_async(&mut redis).await;
                Err(error)
            }
        }
    }
}
