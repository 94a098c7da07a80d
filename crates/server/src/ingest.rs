//! From a request's bytes to its acknowledgement.
//!
//! Bytes are decoded once. The store makes them durable and searchable; in the same step the
//! decoded batch goes to the live analysers; then the client is answered. A request whose client
//! has gone away takes the same way to its end, so analysers see exactly what the store holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lacuna_signal::otlp::to_json::to_json;
use lacuna_signal::otlp::{self, Decoded, Limits, Rejected};
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config::{Config, RequestLimits};
use crate::telemetry::{Limit, SharedTelemetry};

/// Requests of more bytes are decoded off the threads that serve connections.
const INLINE_DECODE: usize = 256 * 1024;

/// When a request that found no room among those on their way is to come again.
const IN_FLIGHT_RETRY: Duration = Duration::from_millis(100);

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
    limits: RequestLimits,
    in_flight: Arc<InFlight>,
}

/// Bytes of requests that have not been answered.
#[derive(Debug)]
struct InFlight {
    bytes: AtomicUsize,
    most: usize,
}

impl InFlight {
    /// Room for `bytes`, until it is dropped; `None` if there is none. One request always has room.
    fn enter(self: &Arc<Self>, bytes: usize) -> Option<Flight> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let flight = Flight { of: Arc::clone(self), bytes };
        (before == 0 || before.saturating_add(bytes) <= self.most).then_some(flight)
    }
}

/// One request's room.
#[derive(Debug)]
struct Flight {
    of: Arc<InFlight>,
    bytes: usize,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest").finish_non_exhaustive()
    }
}

impl Ingest {
    /// A way into `store` and on to `observer`, for requests within the limits of `config`.
    pub fn new(
        store: Store,
        observer: Arc<dyn Observer>,
        telemetry: SharedTelemetry,
        config: &Config,
    ) -> Self {
        let most = config.in_flight_bytes();
        let in_flight = Arc::new(InFlight { bytes: AtomicUsize::new(0), most });
        let limits = config.limits;
        Self { store, observer, telemetry, gate: Arc::default(), limits, in_flight }
    }

    /// What is taken of a request at most.
    pub fn limits(&self) -> RequestLimits {
        self.limits
    }

    /// Counts that a limit took effect.
    pub fn note_limit(&self, kind: SignalKind, limit: Limit) {
        self.telemetry.limited(kind, limit, 1);
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
        let Some(_flight) = self.in_flight.enter(body.len()) else {
            return Err(Refused::no_room(IN_FLIGHT_RETRY));
        };
        let size = body.len() as u64;
        let limits = self.limits.of_decoder();
        let (body, decoded) = if body.len() <= INLINE_DECODE {
            decode(kind, body, &limits)?
        } else {
            tokio::task::spawn_blocking(move || decode(kind, body, &limits))
                .await
                .map_err(|error| Refused::Broken(format!("the decoder stopped: {error}")))??
        };
        self.telemetry.limited(kind, Limit::Attributes, decoded.rejected.attributes);
        self.telemetry.limited(kind, Limit::AttributeLength, decoded.rejected.truncated);
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

/// Decodes `body`, and gives what is to be written to the log.
///
/// The log is read back without limits, or with those of another start. So if a limit took effect,
/// the request is written anew from what was kept: what was acknowledged is what comes back.
fn decode(kind: SignalKind, body: Bytes, limits: &Limits) -> Result<(Bytes, Decoded), Refused> {
    let decoded = otlp::decode_with(kind, body.clone(), limits)
        .map_err(|error| Refused::Unreadable(error.to_string()))?;
    let rejected = &decoded.rejected;
    if rejected.truncated == 0 && rejected.attributes == 0 {
        return Ok((body, decoded));
    }
    let broken = |error: &dyn std::fmt::Display| {
        Refused::Broken(format!("the request cannot be written within the limits: {error}"))
    };
    let json = to_json(&decoded.batch).map_err(|error| broken(&error))?;
    let (body, _) = otlp::decode_json(kind, &json).map_err(|error| broken(&error))?;
    Ok((body, decoded))
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
