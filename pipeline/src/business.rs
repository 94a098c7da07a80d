//! The pipeline's business metrics, by the names of the incident's post-mortem.
//!
//! Those with a `batch_id` live while their batch is open: from its registration until it is ready,
//! and no longer than its slots in Redis. Past the cap of `lacuna_instrument::series`, further batches
//! are counted as `batch_id="other"`. A batch's counters begin at zero when it is registered, so that
//! `rate()` sees the first failure too.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lacuna_instrument::series::{self, Bounds, Subjects};
use lacuna_instrument::switch::{self, Part};
use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{KeyValue, global};

/// Seconds from the registration of a batch to its readiness: uploads take as long as their teachers.
const BATCH_SECONDS: [f64; 12] =
    [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0, 86_400.0];

/// How far back `slot_assignment_success_rate` looks, in steps of [`STEP`].
const WINDOW: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_secs(5);

/// Reasons whose series begin with the batch; others appear when they come.
const USUAL_REASONS: [&str; 2] = ["no_slot", "concurrent_modification"];

fn meter() -> Meter {
    global::meter("pipeline")
}

/// A counter that the switch `business` turns off.
#[derive(Clone, Debug)]
pub struct Count(Counter<u64>);

impl Count {
    fn new(name: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self(meter().u64_counter(name).with_unit(unit).with_description(about).build())
    }

    /// One more.
    pub fn one(&self, labels: &[KeyValue]) {
        if switch::metrics(Part::Business) {
            self.0.add(1, labels);
        }
    }
}

/// A histogram of seconds that the switch `business` turns off.
#[derive(Clone, Debug)]
pub struct Seconds(Histogram<f64>);

impl Seconds {
    /// One more duration, in seconds.
    pub fn record(&self, seconds: f64) {
        if switch::metrics(Part::Business) {
            self.0.record(seconds, &[]);
        }
    }
}

/// `huleedu_essay_state_transitions_total`: each service counts the transitions that it makes.
pub fn essay_state_transitions() -> Count {
    Count::new(
        "huleedu_essay_state_transitions_total",
        "{transition}",
        "Essays that went from one state to the next",
    )
}

/// `huleedu_batch_processing_duration_seconds`, from a batch's registration to its readiness.
pub fn batch_processing_duration() -> Seconds {
    Seconds(
        meter()
            .f64_histogram("huleedu_batch_processing_duration_seconds")
            .with_unit("s")
            .with_description("Time from the registration of a batch until every essay has a slot")
            .with_boundaries(BATCH_SECONDS.to_vec())
            .build(),
    )
}

/// What ELS counts about slots and batches.
#[derive(Clone, Debug)]
pub struct Coordination {
    service: KeyValue,
    batches: Subjects,
    attempts: series::Counter,
    failures: series::Counter,
    excess: series::Counter,
    utilization: series::Gauge,
    ready: Count,
    events: Count,
    transitions: Count,
    recent: Arc<Mutex<Recent>>,
}

impl Coordination {
    /// The instruments of `service`, with `bounds` on the series of batches.
    pub fn new(service: &'static str, bounds: Bounds) -> Self {
        let batches = Subjects::bounded("batch_id", bounds);
        let recent = Arc::<Mutex<Recent>>::default();
        let seen = recent.clone();
        let _ = meter()
            .f64_observable_gauge("slot_assignment_success_rate")
            // No unit: a ratio's would become part of the name on `/metrics`.
            .with_description(
                "Share of slot assignment attempts of the last five minutes that gave a slot",
            )
            .with_callback(move |observer| {
                let rate = seen.lock().unwrap_or_else(PoisonError::into_inner).rate(Instant::now());
                if let Some(rate) = rate.filter(|_| switch::metrics(Part::Business)) {
                    observer.observe(rate, &[]);
                }
            })
            .build();
        Self {
            service: KeyValue::new("service", service),
            attempts: batches.counter(
                "slot_assignment_attempts_total",
                "{attempt}",
                "Slot assignment attempts",
            ),
            failures: batches.counter(
                "slot_assignment_failures_total",
                "{attempt}",
                "Slot assignment attempts that gave no slot, by reason",
            ),
            excess: batches.counter(
                "excess_content_events_total",
                "{event}",
                "Essays published as excess content",
            ),
            utilization: batches.gauge(
                "batch_slot_utilization_ratio",
                "1",
                "Assigned slots by all slots of the batch",
            ),
            batches,
            ready: Count::new(
                "batch_essays_ready_events_total",
                "{event}",
                "Batches published as ready",
            ),
            events: Count::new(
                "huleedu_batch_coordination_events_total",
                "{event}",
                "Events that ELS took or published to coordinate batches, by event_type",
            ),
            transitions: essay_state_transitions(),
            recent,
        }
    }

    /// A batch was registered: its series begin.
    pub fn batch_opened(&self, batch_id: &str) {
        self.event("batch_registered");
        let service = [self.service.clone()];
        self.attempts.add(batch_id, &service, 0.0);
        self.excess.add(batch_id, &service, 0.0);
        for reason in USUAL_REASONS {
            self.failures.add(batch_id, &self.because(reason), 0.0);
        }
        self.utilization.set(batch_id, &[], 0.0);
    }

    /// An attempt to give an essay a slot has ended; `failure` says why without one.
    pub fn attempted(&self, batch_id: &str, failure: Option<&'static str>) {
        self.attempts.add(batch_id, std::slice::from_ref(&self.service), 1.0);
        if let Some(reason) = failure {
            self.failures.add(batch_id, &self.because(reason), 1.0);
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.add(Instant::now(), failure.is_none());
    }

    /// An essay's outcome was written down; `utilization` is its batch's, where it took a slot.
    pub fn decided(&self, batch_id: &str, utilization: Option<f64>) {
        self.transitions.one(&[]);
        if let Some(ratio) = utilization {
            // Slots are only ever taken, and workers may come here out of turn.
            self.utilization.raise(batch_id, &[], ratio);
        }
    }

    /// An essay was taken in hand.
    pub fn essay_provisioned(&self) {
        self.event("essay_provisioned");
    }

    /// An essay was published as assigned.
    pub fn slot_assigned(&self) {
        self.event("slot_assigned");
    }

    /// An essay was published as excess.
    pub fn excess_content(&self, batch_id: &str) {
        self.event("excess_content");
        self.excess.add(batch_id, std::slice::from_ref(&self.service), 1.0);
    }

    /// A batch was published as ready.
    pub fn batch_ready(&self) {
        self.event("essays_ready");
        self.ready.one(&[]);
    }

    /// Batches of which more is expected, as far as this process knows.
    pub fn open_batches(&self) -> Vec<String> {
        self.batches.open()
    }

    /// Nothing more is expected of the batch: its series end.
    pub fn batch_closed(&self, batch_id: &str) {
        self.batches.close(batch_id);
    }

    fn event(&self, event_type: &'static str) {
        self.events.one(&[KeyValue::new("event_type", event_type)]);
    }

    fn because(&self, reason: &'static str) -> [KeyValue; 2] {
        [KeyValue::new("failure_reason", reason), self.service.clone()]
    }
}

/// Successes and attempts of the last [`WINDOW`].
#[derive(Debug, Default)]
struct Recent {
    steps: VecDeque<(Instant, u64, u64)>,
}

impl Recent {
    fn add(&mut self, now: Instant, success: bool) {
        self.forget(now);
        match self.steps.back_mut() {
            Some((began, successes, attempts)) if now.duration_since(*began) < STEP => {
                *successes += u64::from(success);
                *attempts += 1;
            }
            _ => self.steps.push_back((now, u64::from(success), 1)),
        }
    }

    /// `None` without any attempt: no rate is not a rate of zero.
    fn rate(&mut self, now: Instant) -> Option<f64> {
        self.forget(now);
        let sum = |(s, a): (u64, u64), step: &(Instant, u64, u64)| (s + step.1, a + step.2);
        let (successes, attempts) = self.steps.iter().fold((0, 0), sum);
        (attempts > 0).then(|| successes as f64 / attempts as f64)
    }

    fn forget(&mut self, now: Instant) {
        while self.steps.front().is_some_and(|(began, ..)| now.duration_since(*began) >= WINDOW) {
            self.steps.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_success_rate_is_that_of_the_window() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        assert_eq!(recent.rate(start), None);
        for n in 0..10 {
            recent.add(start, n < 5);
        }
        assert_eq!(recent.rate(start), Some(0.5));
        let later = start + WINDOW - STEP;
        (0..10).for_each(|_| recent.add(later, true));
        assert_eq!(recent.rate(later), Some(0.75));
        assert_eq!(recent.rate(start + WINDOW), Some(1.0));
        assert_eq!(recent.rate(later + WINDOW), None);
        assert!(recent.steps.is_empty());
    }
}
