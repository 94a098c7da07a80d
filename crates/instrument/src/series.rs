//! Metrics with an unbounded label, such as `batch_id`, kept bounded.
//!
//! A subject's series live while it is open. [`Subjects::close`] ends them: their last values are
//! still collected for a while (the linger, so that every reader sees them), then they are gone. A
//! subject that nobody closes is gone when nothing was recorded about it for long (the idle time).
//! At most `cap` subjects have series of their own. Past the cap, the subject that was closed longest
//! ago makes room; where none is closed, counts go to the label value `other`, gauges are left out,
//! and `lacuna.instrument.series.overflow` counts every record that this happened to. The same becomes
//! of a record about a subject whose series have ended, so that none begins again from zero, and of one
//! that would be a metric's series beyond four for each subject of the cap.
//!
//! ```
//! use lacuna_instrument::series::Subjects;
//! use opentelemetry::KeyValue;
//!
//! let batches = Subjects::new("batch_id");
//! let attempts = batches.counter("slot_assignment_attempts_total", "{attempt}", "Slot assignment attempts");
//! let utilization = batches.gauge("batch_slot_utilization_ratio", "1", "Assigned slots by all slots");
//!
//! attempts.add("batch-7", &[KeyValue::new("service", "essay_lifecycle_service")], 1.0);
//! utilization.set("batch-7", &[], 0.5);
//! batches.close("batch-7");
//! ```

use crate::metrics::meter;
use crate::switch::{self, Part};
use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;
use opentelemetry_sdk::metrics::{Instrument, Stream};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The label value of counts past the cap.
pub const OTHER: &str = "other";

/// The subjects of one unbounded label, and the families of metrics about them.
#[derive(Debug, Clone)]
pub struct Subjects {
    inner: Arc<Inner>,
}

/// How many subjects have series of their own, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most subjects with series of their own.
    pub cap: usize,
    /// How long the series of a closed subject are still collected.
    pub linger: Duration,
    /// How long the series of an open subject are collected after the last record about it.
    pub idle: Duration,
}

impl Default for Bounds {
    /// 1,000 subjects; two minutes after closing, twice the default export interval; a day idle.
    fn default() -> Self {
        let linger = Duration::from_secs(120);
        Self { cap: 1_000, linger, idle: Duration::from_secs(24 * 3_600) }
    }
}

#[derive(Debug)]
struct Inner {
    label: &'static str,
    bounds: Bounds,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many series each family has; a family is its place here.
    families: Vec<usize>,
    open: HashMap<String, Subject>,
    /// How many of those that are open were closed and linger.
    lingering: usize,
    /// Those whose series ended last, oldest first: what comes about them late opens nothing.
    ended: VecDeque<Arc<str>>,
    ended_names: HashSet<Arc<str>>,
    swept: Option<Instant>,
    other: Values,
    overflow: u64,
    warned: bool,
}

/// Series of one family, by the cap on subjects. The SDK keeps as many, by [`view`].
const SERIES_EACH: usize = 4;
/// Label sets of `other`, which the SDK keeps beside those of subjects.
const OTHERS: usize = 200;
/// Ended subjects that are remembered, by the cap on subjects.
const ENDED_EACH: usize = 8;
/// How often subjects that are over are looked for while the cap is reached.
const SWEEP: Duration = Duration::from_secs(1);

/// How many series each of these metrics may have.
static LIMITS: Mutex<BTreeMap<&'static str, usize>> = Mutex::new(BTreeMap::new());

/// Lets the SDK keep as many series of a metric about subjects as there may be: its own limit of 2,000
/// would put the rest, without their names, under `otel.metric.overflow`.
pub(crate) fn view(instrument: &Instrument) -> Option<Stream> {
    let limit = *LIMITS.lock().unwrap_or_else(PoisonError::into_inner).get(instrument.name())?;
    Stream::builder().with_cardinality_limit(limit).build().ok()
}

#[derive(Debug)]
struct Subject {
    recorded: Instant,
    closed: Option<Instant>,
    values: Values,
}

impl Subject {
    fn new() -> Self {
        Self { recorded: Instant::now(), closed: None, values: Values::new() }
    }
}

/// Values by family and further labels.
type Values = HashMap<(usize, Vec<KeyValue>), f64>;

impl Subjects {
    /// Subjects of `label`, within the default [`Bounds`].
    #[must_use]
    pub fn new(label: &'static str) -> Self {
        Self::bounded(label, Bounds::default())
    }

    /// [`Subjects::new`] with bounds of the caller's.
    #[must_use]
    pub fn bounded(label: &'static str, bounds: Bounds) -> Self {
        let inner = Arc::new(Inner { label, bounds, state: Mutex::default() });
        let weak = Arc::downgrade(&inner);
        let _ = meter()
            .u64_observable_counter("lacuna.instrument.series.overflow")
            .with_unit("{record}")
            .with_description(
                "Records that had no series of their own, past the cap or too late, by label",
            )
            .with_callback(move |o| {
                if let Some(inner) = weak.upgrade() {
                    o.observe(inner.lock().overflow, &[KeyValue::new("label", inner.label)]);
                }
            })
            .build();
        Self { inner }
    }

    /// A counter with this label. `name` is used as it is, also by OTLP.
    #[must_use]
    pub fn counter(&self, name: &'static str, unit: &'static str, about: &'static str) -> Counter {
        let (family, weak) = self.family(name);
        let meter = meter();
        let builder = meter.f64_observable_counter(name).with_unit(unit).with_description(about);
        let _ = builder.with_callback(move |o| observe(&weak, family, o)).build();
        Counter { inner: self.inner.clone(), family }
    }

    /// A gauge with this label.
    #[must_use]
    pub fn gauge(&self, name: &'static str, unit: &'static str, about: &'static str) -> Gauge {
        let (family, weak) = self.family(name);
        let meter = meter();
        let builder = meter.f64_observable_gauge(name).with_unit(unit).with_description(about);
        let _ = builder.with_callback(move |o| observe(&weak, family, o)).build();
        Gauge { inner: self.inner.clone(), family }
    }

    fn family(&self, name: &'static str) -> (usize, Weak<Inner>) {
        let limit = self.inner.most_series().saturating_add(OTHERS + 1);
        LIMITS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name)
            .and_modify(|known| *known = limit.max(*known))
            .or_insert(limit);
        let mut state = self.inner.lock();
        state.families.push(0);
        (state.families.len() - 1, Arc::downgrade(&self.inner))
    }

    /// Ends a subject's series after the linger. A record that comes later is kept for another linger,
    /// so that a worker who is out of turn does not open the subject again; one that comes when the
    /// series are gone is counted as `other`.
    pub fn close(&self, subject: &str) {
        let mut state = self.inner.lock();
        let now = Instant::now();
        let was_open = state.open.get_mut(subject).is_some_and(|s| s.closed.replace(now).is_none());
        state.lingering += usize::from(was_open);
    }

    /// The subjects that have series and are not closed: for a process that has to ask elsewhere which of
    /// them are over, because another one closed them.
    #[must_use]
    pub fn open(&self) -> Vec<String> {
        let state = self.inner.lock();
        let open = state.open.iter().filter(|(_, subject)| subject.closed.is_none());
        open.map(|(name, _)| name.clone()).collect()
    }

    /// How many subjects have series of their own now.
    #[must_use]
    pub fn len(&self) -> usize {
        let mut state = self.inner.lock();
        self.inner.sweep(&mut state);
        state.open.len()
    }

    /// True when no subject has series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn most_series(&self) -> usize {
        self.bounds.cap.saturating_mul(SERIES_EACH)
    }

    fn sweep(&self, state: &mut State) {
        let Bounds { linger, idle, .. } = self.bounds;
        state.swept = Some(Instant::now());
        let is_over = |s: &Subject| match s.closed {
            Some(at) => at.elapsed() >= linger,
            None => s.recorded.elapsed() >= idle,
        };
        let over = state.open.iter().filter(|(_, s)| is_over(s)).map(|(name, _)| name.clone());
        let over: Vec<String> = over.collect();
        over.iter().for_each(|name| self.remove(state, name));
    }

    fn remove(&self, state: &mut State, name: &str) {
        let Some(subject) = state.open.remove(name) else { return };
        for (family, _) in subject.values.keys() {
            state.families[*family] -= 1;
        }
        // One that was only idle may begin again.
        if subject.closed.is_none() {
            return;
        }
        state.lingering -= 1;
        let name: Arc<str> = name.into();
        if state.ended_names.insert(name.clone()) {
            state.ended.push_back(name);
        }
        while state.ended.len() > self.bounds.cap.saturating_mul(ENDED_EACH) {
            if let Some(oldest) = state.ended.pop_front() {
                state.ended_names.remove(&oldest);
            }
        }
    }

    /// Calls `write` with the value to change, or not at all where there is no place for it.
    fn record(
        &self,
        subject: &str,
        family: usize,
        labels: &[KeyValue],
        adds: bool,
        write: impl FnOnce(&mut f64),
    ) {
        if !switch::metrics(Part::Business) {
            return;
        }
        let mut key: Vec<KeyValue> = labels.to_vec();
        key.sort_by(|a, b| a.key.cmp(&b.key));
        let key = (family, key);
        let mut state = self.lock();
        let known = state.open.get(subject).map(|s| s.values.contains_key(&key));
        let has_place = match known {
            Some(true) => true,
            Some(false) => state.families[family] < self.most_series(),
            None => self.may_open(&mut state, subject, family),
        };
        if has_place {
            if known.is_none() {
                state.open.insert(subject.to_owned(), Subject::new());
            }
            if known != Some(true) {
                state.families[family] += 1;
            }
            if let Some(entry) = state.open.get_mut(subject) {
                entry.recorded = Instant::now();
                entry.closed = entry.closed.map(|_| entry.recorded);
                write(entry.values.entry(key).or_default());
            }
            return;
        }
        state.overflow += 1;
        if adds {
            // Labels that turn out to have no bound leave their values here.
            let key = if state.other.len() < OTHERS || state.other.contains_key(&key) {
                key
            } else {
                (family, vec![])
            };
            write(state.other.entry(key).or_default());
        }
        let late = state.ended_names.contains(subject);
        if !late && !std::mem::replace(&mut state.warned, true) {
            drop(state);
            tracing::warn!(
                layer = "infrastructure",
                label = self.label,
                cap = self.bounds.cap,
                series = self.most_series(),
                "more subjects are open than have series of their own: further ones are counted as `other`"
            );
        }
    }

    /// True when a subject that has no series may have them, for which the longest closed makes room.
    fn may_open(&self, state: &mut State, subject: &str, family: usize) -> bool {
        if state.ended_names.contains(subject) {
            return false;
        }
        let full = |state: &State| state.open.len() >= self.bounds.cap;
        if full(state) && state.swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            self.sweep(state);
        }
        if full(state) && state.lingering > 0 {
            let closed = state.open.iter().filter_map(|(name, s)| Some((s.closed?, name)));
            if let Some(oldest) = closed.min().map(|(_, name)| name.clone()) {
                self.remove(state, &oldest);
            }
        }
        !full(state) && state.families[family] < self.most_series()
    }
}

fn observe(inner: &Weak<Inner>, family: usize, observer: &dyn AsyncInstrument<f64>) {
    let Some(inner) = inner.upgrade() else { return };
    if !switch::metrics(Part::Business) {
        return;
    }
    let mut state = inner.lock();
    inner.sweep(&mut state);
    let subjects = state.open.iter().map(|(name, s)| (Cow::Borrowed(name.as_str()), &s.values));
    for (name, values) in subjects.chain([(Cow::Borrowed(OTHER), &state.other)]) {
        for ((of, labels), value) in values {
            if *of == family {
                let mut attributes = Vec::with_capacity(labels.len() + 1);
                attributes.push(KeyValue::new(inner.label, name.clone().into_owned()));
                attributes.extend_from_slice(labels);
                observer.observe(*value, &attributes);
            }
        }
    }
}

/// A counter about subjects.
#[derive(Debug, Clone)]
pub struct Counter {
    inner: Arc<Inner>,
    family: usize,
}

impl Counter {
    /// Adds `n`, which must not be negative, for a subject and further (bounded) labels.
    pub fn add(&self, subject: &str, labels: &[KeyValue], n: f64) {
        if n >= 0.0 && n.is_finite() {
            self.inner.record(subject, self.family, labels, true, |v| *v += n);
        }
    }
}

/// A gauge about subjects.
#[derive(Debug, Clone)]
pub struct Gauge {
    inner: Arc<Inner>,
    family: usize,
}

impl Gauge {
    /// Sets the value for a subject and further (bounded) labels. Not a number: ignored.
    pub fn set(&self, subject: &str, labels: &[KeyValue], value: f64) {
        if value.is_finite() {
            self.inner.record(subject, self.family, labels, false, |v| *v = value);
        }
    }

    /// [`Gauge::set`], unless the value is larger already: for what only grows and is told by workers
    /// that may overtake each other. A new series begins at zero.
    pub fn raise(&self, subject: &str, labels: &[KeyValue], value: f64) {
        if value.is_finite() {
            self.inner.record(subject, self.family, labels, false, |v| *v = v.max(value));
        }
    }
}

#[cfg(test)]
mod tests;
