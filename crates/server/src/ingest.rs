//! From a request's bytes to its acknowledgement.
//!
//! Bytes are decoded once. The store makes them durable and searchable; in the same step the
//! decoded batch goes to the live analysers; then the client is answered. A request whose client
//! has gone away takes the same way to its end, so analysers see exactly what the store holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lacuna_signal::otlp::{self, Rejected};
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::telemetry::SharedTelemetry;

/// Requests of more bytes are decoded off the threads that serve connections.
const INLINE_DECODE: usize = 256 * 1024;

/// Where batches go as soon as they are durable, in the order in which they became so.
pub trait Observer: Send + Sync {
    /// Takes a batch. It may block, which holds back the acknowledgement of what comes after.
    fn observe(&self, batch: Batch);
}

/// What became of a request that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Items that could not be read.
    pub rejected: u64,
    /// What was wrong, if anything was.
    pub warning: Option<String>,
}

/// Why a request was refused. Nothing of it was kept.
#[derive(Debug)]
pub enum Refused {
    /// It can never be accepted.
    Unreadable(String),
    /// It is larger than the store takes.
    TooLarge(String),
    /// There is no room for it now.
    Busy {
        /// Why.
        message: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The store cannot take anything now.
    Broken(String),
}

impl Refused {
    fn no_room(retry_after: Duration) -> Self {
        let message = "no room for more telemetry now: try again later".to_owned();
        Self::Busy { message, retry_after }
    }
}

/// A refusal for lack of room counts for requests that come within this time, so that they are
/// refused before they are decoded. Decoding is most of what a request costs: an overloaded server
/// that decodes what it then refuses has nothing left to make room with.
const REFUSAL_COUNTS: Duration = Duration::from_millis(100);

/// Remembers that the store had no room.
#[derive(Debug, Default)]
struct Gate(Mutex<Option<(Instant, Duration)>>);

impl Gate {
    /// When to try again, if the store has just had no room.
    fn closed(&self, now: Instant) -> Option<Duration> {
        let refused = *self.0.lock();
        let (at, retry_after) = refused?;
        (now.saturating_duration_since(at) < REFUSAL_COUNTS).then_some(retry_after)
    }

    fn close(&self, now: Instant, retry_after: Duration) {
        *self.0.lock() = Some((now, retry_after));
    }
}

/// The way in, shared by all receivers.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    observer: Arc<dyn Observer>,
    telemetry: SharedTelemetry,
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").finish_non_exhaustive()
    }
}

impl Ingest {
    /// A way into `store` and on to `observer`.
    pub fn new(store: Store, observer: Arc<dyn Observer>, telemetry: SharedTelemetry) -> Self {
        Self { store, observer, telemetry, gate: Arc::default() }
    }

    /// Accepts a protobuf export request, or what is left of one of which `rejected` was refused
    /// already. The receiver that answers with an error counts it:
    /// [`Self::note_refused_request`].
    pub async fn accept(
        &self,
        kind: SignalKind,
        body: Bytes,
        mut rejected: Rejected,
    ) -> Result<Accepted, Refused> {
        let started = Instant::now();
        if let Some(retry_after) = self.gate.closed(started) {
            return Err(Refused::no_room(retry_after));
        }
        let size = body.len() as u64;
        let decoded = if body.len() <= INLINE_DECODE {
            otlp::decode(kind, body.clone())
        } else {
            let body = body.clone();
            tokio::task::spawn_blocking(move || otlp::decode(kind, body))
                .await
                .map_err(|error| Refused::Broken(format!("the decoder stopped: {error}")))?
        };
        let decoded = decoded.map_err(|error| Refused::Unreadable(error.to_string()))?;
        rejected.merge(decoded.rejected);
        let items = decoded.batch.num_rows() as u64;
        if items > 0 {
            self.make_durable(kind, body, decoded.batch).await?;
        }
        self.telemetry.acknowledged(kind, items, &rejected, size, started.elapsed());
        let warning = (!rejected.is_empty()).then(|| rejected.message());
        Ok(Accepted { rejected: rejected.items, warning })
    }

    async fn make_durable(
        &self,
        kind: SignalKind,
        body: Bytes,
        batch: Batch,
    ) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        let observer = Arc::clone(&self.observer);
        let observed = batch.clone();
        self.store.append(kind, body, batch, move |result| {
            if result.is_ok() {
                observer.observe(observed);
            }
            // A client that has gone away does not want its answer.
            let _ = answer.send(result);
        });
        match answered.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(StoreError::Busy { retry_after, .. })) => {
                self.gate.close(Instant::now(), retry_after);
                Err(Refused::no_room(retry_after))
            }
            Ok(Err(error @ StoreError::TooLarge { .. })) => {
                Err(Refused::TooLarge(error.to_string()))
            }
            Ok(Err(error)) => Err(Refused::Broken(error.to_string())),
            Err(_) => Err(Refused::Broken("the store has stopped".to_owned())),
        }
    }

    /// Counts a request that a receiver refused.
    pub fn note_refused_request(&self, kind: SignalKind) {
        self.telemetry.refused(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_for_a_moment_only() {
        let (gate, now, retry) = (Gate::default(), Instant::now(), Duration::from_secs(2));
        assert_eq!(gate.closed(now), None);
        gate.close(now, retry);
        assert_eq!(gate.closed(now), Some(retry));
        assert_eq!(gate.closed(now + REFUSAL_COUNTS / 2), Some(retry));
        assert_eq!(gate.closed(now + REFUSAL_COUNTS), None);
    }
}
