//! The crate's meter.

use crate::span::scope;
use opentelemetry::global;
use opentelemetry::metrics::Meter;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

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
/// attributes, a statement's text without values. At the bound, a new name takes the place of one that
/// was not asked for lately, so that a flood of names that come once does not keep out what comes often.
#[derive(Debug)]
pub(crate) struct ByName<T> {
    known: RwLock<Known<T>>,
}

/// A clock: a name that was used since the hand last came by stays.
#[derive(Debug)]
struct Known<T> {
    places: HashMap<Arc<str>, usize>,
    names: Vec<Name<T>>,
    hand: usize,
}

#[derive(Debug)]
struct Name<T> {
    name: Arc<str>,
    value: T,
    used: AtomicBool,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        let known = Known { places: HashMap::new(), names: vec![], hand: 0 };
        Self { known: RwLock::new(known) }
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
        if let Some(known) = known.find(name) {
            return known;
        }
        drop(known);
        let made = make();
        self.known.write().unwrap_or_else(PoisonError::into_inner).keep(name, made)
    }
}

#[cfg_attr(
    not(any(feature = "redis", feature = "kafka", feature = "postgres", feature = "http")),
    allow(dead_code)
)]
impl<T: Clone> Known<T> {
    fn find(&self, name: &str) -> Option<T> {
        let known = self.names.get(*self.places.get(name)?)?;
        // Written once a round of the hand, not at each use: all threads read it.
        if !known.used.load(Ordering::Relaxed) {
            known.used.store(true, Ordering::Relaxed);
        }
        Some(known.value.clone())
    }

    fn keep(&mut self, name: &str, value: T) -> T {
        // Somebody else was faster.
        if let Some(known) = self.find(name) {
            return known;
        }
        let made = Name { name: name.into(), value: value.clone(), used: AtomicBool::new(false) };
        if self.names.len() < NAMES {
            self.places.insert(made.name.clone(), self.names.len());
            self.names.push(made);
            return value;
        }
        // Two rounds at most: the first leaves every name unused.
        while self.names[self.hand].used.swap(false, Ordering::Relaxed) {
            self.hand = (self.hand + 1) % NAMES;
        }
        self.places.insert(made.name.clone(), self.hand);
        let gone = std::mem::replace(&mut self.names[self.hand], made);
        self.places.remove(&gone.name);
        self.hand = (self.hand + 1) % NAMES;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_name_that_comes_after_a_flood_is_worked_out_once() {
        let (names, made) = (ByName::default(), Cell::new(0));
        let get = |name: &str| names.get(name, || made.set(made.get() + 1));
        for n in 0..NAMES * 2 {
            get(&format!("once {n}"));
        }
        made.set(0);
        for _ in 0..10 {
            get("often");
        }
        assert_eq!(made.get(), 1);
    }

    #[test]
    fn a_name_that_is_used_stays_through_a_flood_of_others() {
        let (names, made) = (ByName::default(), Cell::new(0));
        let often = || names.get("often", || made.set(made.get() + 1));
        for n in 0..NAMES * 5 {
            often();
            names.get(&format!("once {n}"), || ());
        }
        assert_eq!(made.get(), 1);
        assert_eq!(names.known.read().unwrap().names.len(), NAMES);
        assert_eq!(names.known.read().unwrap().places.len(), NAMES);
    }
}
