//! From a request's bytes to its acknowledgement.
//!
//! Bytes are decoded once. The store makes them durable and searchable; in the same step the
//! decoded batch goes to the live analysers; then the client is answered. A request whose client
//! has gone away takes the same way to its end, so analysers see exactly what the store holds.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lacuna_signal::otlp::{self, Decoded, Limits, Rejected};
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Admission, Store, StoreError};
use tokio::sync::oneshot;

use crate::config::{Config, RequestLimits};
use crate::telemetry::{Limit, SharedTelemetry};

/// Requests of more bytes are decoded off the threads that serve connections.
const INLINE_DECODE: usize = 256 * 1024;

/// Where batches go as soon as they are durable, in the order in which they became so.
pub trait Observer: Send + Sync {
    /// Takes a batch that came as so many bytes. It may block, which holds back the acknowledgement
    /// of what comes after.
    fn observe(&self, batch: Batch, bytes: usize);
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

/// Room in memory for one request, which a receiver takes as the request's bytes come. Dropped, it is
/// given back.
#[derive(Debug)]
pub struct Room {
    store: Store,
    admission: Option<Admission>,
    most: usize,
}

impl Room {
    /// Makes it enough for a request of `bytes`, as they come or decompressed.
    ///
    /// # Errors
    /// [`Refused::Busy`] if there is no room now.
    pub fn cover(&mut self, bytes: usize) -> Result<(), Refused> {
        // What is larger than a request may be is refused for that, elsewhere.
        let bytes = bytes.min(self.most);
        match &mut self.admission {
            Some(admission) => self.store.extend_admission(admission, bytes),
            None => self.store.admit(bytes).map(|admission| self.admission = Some(admission)),
        }
        .map_err(refusal)
    }
}

/// What a client is told of an error of the store.
fn refusal(error: StoreError) -> Refused {
    match error {
        StoreError::Busy { retry_after, .. } => {
            let message = "no room for more telemetry now: try again later".to_owned();
            Refused::Busy { message, retry_after }
        }
        StoreError::TooLarge { .. } => Refused::TooLarge(error.to_string()),
        error => Refused::Broken(error.to_string()),
    }
}

/// The way in, shared by all receivers.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    observer: Arc<dyn Observer>,
    telemetry: SharedTelemetry,
    limits: RequestLimits,
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
        Self { store, observer, telemetry, limits: config.limits }
    }

    /// What is taken of a request at most.
    pub fn limits(&self) -> RequestLimits {
        self.limits
    }

    /// Counts that a limit took effect.
    pub fn note_limit(&self, kind: SignalKind, limit: Limit) {
        self.telemetry.limited(kind, limit, 1);
    }

    /// Room for a request; none yet.
    pub fn room(&self) -> Room {
        Room { store: self.store.clone(), admission: None, most: self.limits.decompressed }
    }

    /// Accepts a protobuf export request, for which `room` was taken, or what is left of one of which `rejected` was refused
    /// already. The receiver that answers with an error counts it:
    /// [`Self::note_refused_request`].
    pub async fn accept(
        &self,
        kind: SignalKind,
        body: Bytes,
        mut rejected: Rejected,
        mut room: Room,
    ) -> Result<Accepted, Refused> {
        let started = Instant::now();
        // Decoding is most of what a request costs: an overloaded server that decodes what it then
        // refuses has nothing left to make room with.
        room.cover(body.len())?;
        let admission = room.admission.take();
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
            let Some(admission) = admission else {
                return Err(Refused::Broken("the request was not admitted".to_owned()));
            };
            self.make_durable(admission, kind, body, decoded.batch).await?;
        }
        self.telemetry.acknowledged(kind, items, &rejected, size, started.elapsed());
        let warning = Some(rejected.message()).filter(|message| !message.is_empty());
        Ok(Accepted { rejected: rejected.items, warning })
    }

    async fn make_durable(
        &self,
        admission: Admission,
        kind: SignalKind,
        body: Bytes,
        batch: Batch,
    ) -> Result<(), Refused> {
        let (answer, answered) = oneshot::channel();
        let observer = Arc::clone(&self.observer);
        let (observed, bytes) = (batch.clone(), body.len());
        self.store.append_admitted(admission, kind, body, batch, move |result| {
            if result.is_ok() {
                observer.observe(observed, bytes);
            }
            // A client that has gone away does not want its answer.
            let _ = answer.send(result);
        });
        match answered.await {
            Ok(result) => result.map_err(refusal),
            Err(_) => Err(Refused::Broken("the store has stopped".to_owned())),
        }
    }

    /// Counts a request that a receiver refused.
    pub fn note_refused_request(&self, kind: SignalKind) {
        self.telemetry.refused(kind);
    }
}

/// Decodes `body`, and gives what is to be written to the log.
fn decode(kind: SignalKind, body: Bytes, limits: &Limits) -> Result<(Bytes, Decoded), Refused> {
    let received = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let received = i64::try_from(received).unwrap_or(i64::MAX);
    otlp::receive(kind, body, limits, received)
        .map_err(|error| Refused::Unreadable(error.to_string()))
}
