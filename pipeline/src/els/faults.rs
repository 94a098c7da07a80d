//! The two faults of the incident, and some that break the pipeline's other promises, switched at run
//! time, each for a share of the essays.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Longer, and Kafka would take the waiting worker for dead.
const LONGEST_WINDOW_MS: u64 = 120_000;

/// Which fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// Workers share one Redis connection, so one worker's commands fall into another's transaction.
    SharedRedisConnection,
    /// Another client touches the watched keys between `WATCH` and `EXEC`.
    ConcurrentSlotModification,
    /// The essay's outcome is decided and never published; nor is the batch's readiness, where the
    /// essay was the last.
    DropPublish,
    /// What is published for the essay is published twice, as two events.
    PublishTwice,
    /// The published slot is not the one that the essay holds; a batch that the essay completes is
    /// published with one essay too few.
    WrongValue,
    /// The slot is made up instead of taken from Redis.
    SkipTransaction,
    /// The essay waits `window_ms` before it is handled.
    Late,
}

impl FaultKind {
    /// The fault of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|kind| kind.as_str() == name)
    }

    /// All names.
    pub fn names() -> Vec<&'static str> {
        Self::value_variants().iter().map(|kind| kind.as_str()).collect()
    }

    /// As in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SharedRedisConnection => "shared-redis-connection",
            Self::ConcurrentSlotModification => "concurrent-slot-modification",
            Self::DropPublish => "drop-publish",
            Self::PublishTwice => "publish-twice",
            Self::WrongValue => "wrong-value",
            Self::SkipTransaction => "skip-transaction",
            Self::Late => "late",
        }
    }
}

/// Body of `POST /faults`. `{"fault": null}` turns all faults off.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRequest {
    /// The fault to turn on; any other goes off.
    pub fault: Option<FaultKind>,
    /// Share of essays that the fault concerns, from 0 to 1. Which ones depends on their ids alone.
    #[serde(default = "all")]
    pub rate: f64,
    /// Milliseconds between a faulty worker's commands, for `shared-redis-connection`: the round trip
    /// to a Redis on another machine, without which transactions on one machine hardly overlap. For
    /// `late`, how long the essay waits.
    #[serde(default = "default_window_ms")]
    pub window_ms: u64,
}

impl FaultRequest {
    /// `fault` on for a share of the essays.
    pub fn on(fault: FaultKind, rate: f64) -> Self {
        Self { fault: Some(fault), rate, window_ms: default_window_ms() }
    }

    /// All faults off.
    pub fn off() -> Self {
        Self { fault: None, rate: all(), window_ms: default_window_ms() }
    }
}

fn all() -> f64 {
    1.0
}

fn default_window_ms() -> u64 {
    2
}

/// What `GET /faults` says.
#[derive(Clone, Debug, Serialize)]
pub struct FaultState {
    /// The fault that is on.
    pub fault: Option<FaultKind>,
    /// Share of essays that it concerns.
    pub rate: f64,
    /// See [`FaultRequest::window_ms`].
    pub window_ms: u64,
}

/// A fault that concerns the essay at hand.
#[derive(Clone, Copy, Debug)]
pub struct Active {
    /// Which fault.
    pub kind: FaultKind,
    /// See [`FaultRequest::window_ms`].
    pub window: Duration,
}

/// The switch, shared by the workers and the HTTP side.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<RwLock<FaultState>>,
}

impl Default for Faults {
    fn default() -> Self {
        let off = FaultState { fault: None, rate: all(), window_ms: default_window_ms() };
        Self { state: Arc::new(RwLock::new(off)) }
    }
}

impl Faults {
    /// Turns a fault on, or all off.
    pub fn set(&self, request: FaultRequest) -> Result<(), Error> {
        if !(0.0..=1.0).contains(&request.rate) {
            return Err(Error::Usage(format!("rate must be from 0 to 1, not {}", request.rate)));
        }
        if request.window_ms > LONGEST_WINDOW_MS {
            return Err(Error::Usage(format!(
                "window_ms must be at most {LONGEST_WINDOW_MS}, not {}",
                request.window_ms
            )));
        }
        tracing::warn!(layer = "framework", fault = ?request.fault, rate = request.rate, "fault switched");
        *self.state.write().unwrap_or_else(PoisonError::into_inner) =
            FaultState { fault: request.fault, rate: request.rate, window_ms: request.window_ms };
        Ok(())
    }

    /// Turns all faults off.
    pub fn clear(&self) {
        tracing::warn!(layer = "framework", "faults off");
        self.state.write().unwrap_or_else(PoisonError::into_inner).fault = None;
    }

    /// What is on.
    pub fn state(&self) -> FaultState {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this very fault concerns the essay.
    pub fn is(&self, kind: FaultKind, essay_id: &str) -> bool {
        self.for_essay(essay_id).is_some_and(|active| active.kind == kind)
    }

    /// The fault that concerns this essay, if any.
    pub fn for_essay(&self, essay_id: &str) -> Option<Active> {
        let state = self.state();
        let kind = state.fault.filter(|_| share_of(essay_id) < state.rate)?;
        Some(Active { kind, window: Duration::from_millis(state.window_ms) })
    }
}

/// A number in [0, 1) that depends on the id alone (FNV-1a), so that a redelivered essay meets the
/// same fate.
fn share_of(id: &str) -> f64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // FNV's low bits mix better than its high ones on short input; 2^32 steps are fine enough.
    f64::from((hash ^ (hash >> 32)) as u32) / 4_294_967_296.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_share_of_essays() {
        let faults = Faults::default();
        let hit = |faults: &Faults| {
            (0..10_000)
                .filter(|_| faults.for_essay(&uuid::Uuid::new_v4().to_string()).is_some())
                .count()
        };
        assert_eq!(hit(&faults), 0);
        faults.set(FaultRequest::on(FaultKind::SharedRedisConnection, 0.3)).unwrap();
        assert!((2_700..3_300).contains(&hit(&faults)), "{}", hit(&faults));
        faults.set(FaultRequest::on(FaultKind::SharedRedisConnection, 1.0)).unwrap();
        assert_eq!(hit(&faults), 10_000);
        faults.clear();
        assert_eq!(hit(&faults), 0);
    }

    #[test]
    fn a_fault_has_one_name_everywhere() {
        for kind in FaultKind::value_variants() {
            let json = serde_json::to_value(kind).unwrap();
            let option = kind.to_possible_value().unwrap();
            assert_eq!((json.as_str(), option.get_name()), (Some(kind.as_str()), kind.as_str()));
        }
    }

    #[test]
    fn a_request_is_read_and_checked() {
        let request: FaultRequest =
            serde_json::from_str(r#"{"fault":"concurrent-slot-modification"}"#).unwrap();
        assert_eq!(
            (request.fault, request.rate),
            (Some(FaultKind::ConcurrentSlotModification), 1.0)
        );
        assert!(serde_json::from_str::<FaultRequest>(r#"{"fault":"nonsense"}"#).is_err());
        assert!(serde_json::from_str::<FaultRequest>(r#"{"fault":null,"ratio":1}"#).is_err());
        assert!(
            Faults::default().set(FaultRequest::on(FaultKind::SharedRedisConnection, 1.5)).is_err()
        );
        assert!(
            Faults::default()
                .set(FaultRequest::on(FaultKind::SharedRedisConnection, f64::NAN))
                .is_err()
        );
    }
}
