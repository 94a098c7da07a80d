//! Circuit breakers: each call a span that says what the breaker thought.
//!
//! The breaker itself is `failsafe`'s state machine, with its policies and back-offs:
//!
//! ```
//! use failsafe::{Config, backoff, failure_policy};
//! use lacuna_instrument::breaker::Breaker;
//! use std::time::Duration;
//!
//! # async fn run() {
//! let policy = failure_policy::consecutive_failures(5, backoff::constant(Duration::from_secs(10)));
//! let breaker = Breaker::new(
//!     "essay-lifecycle-service",
//!     "kafka_producer",
//!     "publish",
//!     Config::new().failure_policy(policy),
//! );
//! let result: Result<u8, failsafe::Error<std::io::Error>> = breaker.call(async { Ok(7) }).await;
//! # assert_eq!(result.unwrap(), 7); }
//! # futures_block_on(run());
//! # fn futures_block_on(f: impl std::future::Future<Output = ()>) {
//! #     tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f)
//! # }
//! ```
//!
//! The conventions know no breakers; the span's name and the `circuit.*` attributes are the
//! post-mortem's own.

use crate::metrics::meter;
use crate::span;
use crate::switch::{self, Part};
use failsafe::{Config, Error, FailurePolicy, Instrument, StateMachine};
use opentelemetry::context::FutureExt;
use opentelemetry::metrics::Counter;
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use std::fmt::Display;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// A breaker around one operation of one component.
#[derive(Debug)]
pub struct Breaker<P> {
    machine: StateMachine<P, Watch>,
    watched: Arc<Watched>,
}

impl<P> Clone for Breaker<P> {
    /// Shares the state.
    fn clone(&self) -> Self {
        Self { machine: self.machine.clone(), watched: self.watched.clone() }
    }
}

/// What the state machine tells, and what it does not keep: counts since the last transition.
#[derive(Debug)]
struct Watched {
    /// `circuit_breaker.<service>.<component>.<operation>`.
    name: Arc<str>,
    state: AtomicU8,
    failures: AtomicU64,
    successes: AtomicU64,
}

const CLOSED: u8 = 0;
const HALF_OPEN: u8 = 1;
const OPEN: u8 = 2;

fn state_name(state: u8) -> &'static str {
    match state {
        CLOSED => "closed",
        HALF_OPEN => "half_open",
        _ => "open",
    }
}

/// The state machine's listener.
#[derive(Debug, Clone)]
pub struct Watch(Arc<Watched>);

impl Watch {
    fn became(&self, to: u8) {
        let from = self.0.state.swap(to, Ordering::Relaxed);
        if from == to {
            return;
        }
        self.0.failures.store(0, Ordering::Relaxed);
        self.0.successes.store(0, Ordering::Relaxed);
        let (from, to_name) = (state_name(from), state_name(to));
        if switch::metrics(Part::Breaker) {
            let a = [
                KeyValue::new("circuit.name", self.0.name.clone()),
                KeyValue::new("circuit.state.from", from),
                KeyValue::new("circuit.state.to", to_name),
            ];
            metrics().transitions.add(1, &a);
        }
        if switch::spans(Part::Breaker) {
            if to == OPEN {
                tracing::warn!(layer = "infrastructure", circuit.name = %self.0.name, from, to = to_name, "circuit opened");
            } else {
                tracing::info!(layer = "infrastructure", circuit.name = %self.0.name, from, to = to_name, "circuit changed");
            }
        }
    }
}

impl Instrument for Watch {
    fn on_call_rejected(&self) {}
    fn on_open(&self) {
        self.became(OPEN);
    }
    fn on_half_open(&self) {
        self.became(HALF_OPEN);
    }
    fn on_closed(&self) {
        self.became(CLOSED);
    }
}

impl<P: FailurePolicy> Breaker<P> {
    /// A breaker by `config`, named `circuit_breaker.<service>.<component>.<operation>`. A listener in
    /// `config` is replaced by the crate's own.
    pub fn new<I>(service: &str, component: &str, operation: &str, config: Config<P, I>) -> Self {
        let watched = Arc::new(Watched {
            name: format!("circuit_breaker.{service}.{component}.{operation}").into(),
            state: AtomicU8::new(CLOSED),
            failures: AtomicU64::new(0),
            successes: AtomicU64::new(0),
        });
        let mut all = metrics().breakers.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|b| b.strong_count() > 0);
        all.push(Arc::downgrade(&watched));
        Self { machine: config.instrument(Watch(watched.clone())).build(), watched }
    }

    /// Runs `operation` if the breaker lets it, in a span; every error counts as a failure.
    ///
    /// # Errors
    /// `Rejected` without running it while the circuit is open, else the operation's own.
    pub async fn call<T, E: Display>(
        &self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error<E>> {
        self.call_with(|_| true, operation).await
    }

    /// [`Breaker::call`], where `is_failure` says which errors speak against the component: a refused
    /// request usually does not.
    ///
    /// # Errors
    /// As [`Breaker::call`].
    pub async fn call_with<T, E: Display>(
        &self,
        is_failure: impl FnOnce(&E) -> bool,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error<E>> {
        let permitted = self.machine.is_call_permitted();
        let watched = &self.watched;
        let state = state_name(watched.state.load(Ordering::Relaxed));
        let count = |n: &AtomicU64| i64::try_from(n.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let cx = switch::spans(Part::Breaker).then(|| {
            // With room for what the end and the context add.
            let mut a = Vec::with_capacity(8);
            a.push(KeyValue::new("circuit.name", watched.name.clone()));
            a.push(KeyValue::new("circuit.state", state));
            a.push(KeyValue::new("circuit.failure_count", count(&watched.failures)));
            a.push(KeyValue::new("circuit.success_count", count(&watched.successes)));
            let name = String::from(&*watched.name);
            Context::map_current(|parent| span::start(name, SpanKind::Internal, a, parent))
        });
        let ends = Ends { cx: cx.clone(), watched, result: span::CANCELLED };
        if !permitted {
            ends.with("rejected", Some("the circuit is open".into()));
            return Err(Error::Rejected);
        }
        let result = match cx {
            Some(cx) => operation.with_context(cx).await,
            None => operation.await,
        };
        match result {
            Ok(value) => {
                watched.successes.fetch_add(1, Ordering::Relaxed);
                self.machine.on_success();
                ends.with("success", None);
                Ok(value)
            }
            Err(error) => {
                if is_failure(&error) {
                    watched.failures.fetch_add(1, Ordering::Relaxed);
                    self.machine.on_error();
                    ends.with("failure", Some(error.to_string()));
                } else {
                    self.machine.on_success();
                    ends.with("ignored_error", None);
                }
                Err(Error::Inner(error))
            }
        }
    }
}

/// Ends the call's span and counts it, also when its future is dropped.
struct Ends<'w> {
    cx: Option<Context>,
    watched: &'w Watched,
    result: &'static str,
}

impl Ends<'_> {
    fn with(mut self, result: &'static str, error: Option<String>) {
        self.result = result;
        if let (Some(cx), Some(error)) = (&self.cx, error) {
            span::fail(cx, result, error);
        }
    }
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if switch::metrics(Part::Breaker) {
            let name = KeyValue::new("circuit.name", self.watched.name.clone());
            metrics().calls.add(1, &[name, KeyValue::new("circuit.call_result", self.result)]);
        }
        if let Some(cx) = &self.cx {
            cx.span().set_attribute(KeyValue::new("circuit.call_result", self.result));
            if self.result == span::CANCELLED {
                span::fail(cx, span::CANCELLED, "the call was dropped before it ended");
            }
            cx.span().end();
        }
    }
}

struct Metrics {
    calls: Counter<u64>,
    transitions: Counter<u64>,
    breakers: Arc<Mutex<Vec<Weak<Watched>>>>,
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = meter();
        let breakers = Arc::<Mutex<Vec<Weak<Watched>>>>::default();
        let live = breakers.clone();
        let _ = meter
            .i64_observable_gauge("lacuna.circuit_breaker.state")
            .with_description("0 closed, 1 half open, 2 open, by circuit.name")
            .with_callback(move |o| {
                if !switch::metrics(Part::Breaker) {
                    return;
                }
                for b in live
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .iter()
                    .filter_map(Weak::upgrade)
                {
                    let state = i64::from(b.state.load(Ordering::Relaxed));
                    o.observe(state, &[KeyValue::new("circuit.name", b.name.clone())]);
                }
            })
            .build();
        Metrics {
            calls: meter
                .u64_counter("lacuna.circuit_breaker.calls")
                .with_unit("{call}")
                .with_description(
                    "Calls through circuit breakers, by circuit.name and circuit.call_result",
                )
                .build(),
            transitions: meter
                .u64_counter("lacuna.circuit_breaker.transitions")
                .with_unit("{transition}")
                .with_description(
                    "State changes, by circuit.name, circuit.state.from and circuit.state.to",
                )
                .build(),
            breakers,
        }
    })
}
