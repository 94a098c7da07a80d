//! The crate's meter.

use crate::span::scope;
use opentelemetry::global;
use opentelemetry::metrics::Meter;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Meter of this crate's instruments. Instruments are made on first use, so they bind to the
/// provider that is global then: call `init` first.
pub(crate) fn meter() -> Meter {
    global::meter_with_scope(scope())
}

/// Bucket bounds in seconds for client operations, from the semantic conventions' advice for
/// `db.client.operation.duration`.
#[cfg(any(feature = "redis", feature = "kafka", feature = "postgres"))]
pub(crate) const CLIENT_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// Most names that [`ByName`] keeps.
const NAMES: usize = 1_000;

/// What is worked out once for each of a bounded number of names: instruments bound to their
/// attributes, a statement's text without values. Past the bound, names are worked out each time.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    known: RwLock<HashMap<Box<str>, T>>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { known: RwLock::default() }
    }
}

#[cfg_attr(
    not(any(feature = "redis", feature = "kafka", feature = "postgres", feature = "http")),
    allow(dead_code)
)]
impl<T: Clone> ByName<T> {
    /// What is known of `name`, or made of it now.
    pub(crate) fn get(&self, name: &str, make: impl FnOnce() -> T) -> T {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name) {
            return known.clone();
        }
        let full = known.len() >= NAMES;
        drop(known);
        let made = make();
        if !full {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(name.into(), made.clone());
        }
        made
    }
}
