//! What a transaction leaves behind: its span, `redis.transaction.failed`, and its metrics.

use super::errors::describe;
use super::outcome::{TransactionError, TransactionOutcome};
use crate::metrics::{ByName, CLIENT_SECONDS, meter};
use crate::span::{self, Leaf};
use crate::switch::{self, Part};
use opentelemetry::metrics::{BoundCounter, BoundHistogram, Counter, Histogram};
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry::{Context, KeyValue, StringValue};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The post-mortem's words for a discarded `EXEC`.
pub(crate) const DISCARDED: &str = "Transaction discarded";
/// Reason of a discarded `EXEC`.
pub(crate) const CONCURRENT: &str = "concurrent_modification";

/// Attribute: `EXEC` was sent and not answered.
const IN_DOUBT: &str = "lacuna.redis.transaction.in_doubt";

/// The span that covers all attempts. It ends with a result even when the future is dropped.
pub(crate) struct Record {
    /// The span's context; `None` with spans off.
    cx: Option<Context>,
    operation: StringValue,
    started: Option<Instant>,
    bound: Option<Arc<Bound>>,
    pub(crate) attempts: u32,
    /// `EXEC` is on its way, and its answer is not here yet.
    pub(crate) exec_sent: bool,
    ended: bool,
}

impl Record {
    pub(crate) fn start(
        operation: Cow<'static, str>,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> Self {
        let (spans, measured) = (switch::spans(Part::Redis), switch::metrics(Part::Redis));
        let cx = spans.then(|| {
            let mut all = attributes();
            // With what the end and the context add.
            all.reserve(8);
            all.push(KeyValue::new("db.system.name", "redis"));
            all.push(KeyValue::new("transaction.type", "watch_multi_exec"));
            let name = format!("redis.transaction.{operation}");
            Context::map_current(|parent| span::start(name, SpanKind::Internal, all, parent))
        });
        let operation = match operation {
            Cow::Borrowed(name) => name.into(),
            Cow::Owned(name) => StringValue::from(Arc::<str>::from(name)),
        };
        let bound = measured.then(|| bound(&operation));
        let started = measured.then(Instant::now);
        Self { cx, operation, started, bound, attempts: 0, exec_sent: false, ended: false }
    }

    /// The context in which the transaction's span is current, if it has one.
    pub(crate) fn context(&self) -> Option<&Context> {
        self.cx.as_ref()
    }

    pub(crate) fn attempt(&mut self) {
        self.attempts += 1;
        if let Some(bound) = self.bound.as_ref().filter(|_| switch::metrics(Part::Redis)) {
            bound.attempts.add(1);
        }
    }

    /// An attempt was discarded and there is another: an outcome, not an error.
    pub(crate) fn retry(&self) {
        if switch::metrics(Part::Redis) {
            let operation = KeyValue::new("operation", self.operation.clone());
            metrics().retries.add(1, &[operation, KeyValue::new("reason", CONCURRENT)]);
        }
    }

    pub(crate) fn end<T>(mut self, result: &Result<TransactionOutcome<T>, TransactionError>) {
        match result {
            Ok(TransactionOutcome::Aborted { attempts }) => {
                // One attempt allowed: the modification is the reason. Several: that it kept
                // happening is.
                let reason = if *attempts > 1 { "exhausted" } else { CONCURRENT };
                self.finish("aborted", Some((reason, DISCARDED.into())));
            }
            Ok(outcome) => {
                if let TransactionOutcome::NoValue { reason, .. } = outcome {
                    self.set(KeyValue::new(
                        "lacuna.redis.transaction.no_value_reason",
                        reason.clone(),
                    ));
                }
                self.finish(outcome.result(), None);
            }
            Err(error) => {
                if error.applied() {
                    self.set(KeyValue::new("lacuna.redis.transaction.applied", true));
                }
                if error.in_doubt() {
                    self.set(KeyValue::new(IN_DOUBT, true));
                }
                self.finish("failed", Some((error.reason(), described(error))));
            }
        }
    }

    fn set(&self, attribute: KeyValue) {
        if let Some(cx) = &self.cx {
            cx.span().set_attribute(attribute);
        }
    }

    fn finish(&mut self, result: &'static str, failure: Option<(&'static str, Cow<'static, str>)>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if let Some(cx) = &self.cx {
            let span = cx.span();
            span.set_attributes([
                KeyValue::new("transaction.result", result),
                KeyValue::new("attempts", i64::from(self.attempts)),
            ]);
            if let Some((reason, message)) = &failure {
                span.set_attribute(KeyValue::new("failure.reason", *reason));
                span::fail(cx, *reason, message.clone());
                let attributes = vec![
                    KeyValue::new("db.system.name", "redis"),
                    KeyValue::new("lacuna.redis.transaction.operation", self.operation.clone()),
                    KeyValue::new("failure.reason", *reason),
                    KeyValue::new("attempts", i64::from(self.attempts)),
                ];
                Leaf::start("redis.transaction.failed", SpanKind::Internal, attributes, cx)
                    .fail(*reason, message.clone());
            }
            span.end();
        }
        let Some(started) = self.started.filter(|_| switch::metrics(Part::Redis)) else { return };
        let seconds = started.elapsed().as_secs_f64();
        if let Some(bound) = self.bound.as_ref().filter(|_| result == SUCCESS) {
            bound.succeeded.record(seconds);
            return;
        }
        let operation = KeyValue::new("operation", self.operation.clone());
        if let Some((reason, _)) = failure {
            metrics().failures.add(1, &[operation.clone(), KeyValue::new("reason", reason)]);
        }
        metrics().duration.record(seconds, &[operation, KeyValue::new("result", result)]);
    }
}

impl Drop for Record {
    /// The future was dropped between its awaits: that is no success, and must not look like silence.
    fn drop(&mut self) {
        if !self.ended {
            if self.exec_sent {
                self.set(KeyValue::new(IN_DOUBT, true));
            }
            let why = "the transaction's future was dropped";
            self.finish("failed", Some((span::CANCELLED, why.into())));
        }
    }
}

/// What went wrong, without a value: only what the caller abandoned with is in the caller's words.
fn described(error: &TransactionError) -> Cow<'static, str> {
    match error {
        TransactionError::ConnectionLost { source, .. }
        | TransactionError::Refused(source)
        | TransactionError::PartlyApplied { source, .. }
        | TransactionError::Unreadable { source, .. } => {
            format!("{error}: {}", describe(source)).into()
        }
        TransactionError::Timeout { .. } => error.to_string().into(),
        // Without the time, which would make a text of its own for each.
        TransactionError::PoolExhausted { .. } => "no connection became free in time".into(),
        TransactionError::Abandoned(source) => format!("{error}: {source}").into(),
    }
}

/// The instruments of one operation, bound.
#[derive(Debug)]
struct Bound {
    attempts: BoundCounter<u64>,
    /// Duration of those that were applied.
    succeeded: BoundHistogram<f64>,
}

fn bound(operation: &StringValue) -> Arc<Bound> {
    static BOUND: OnceLock<ByName<Arc<Bound>>> = OnceLock::new();
    BOUND.get_or_init(ByName::default).get(operation.as_str(), || {
        let operation = KeyValue::new("operation", operation.clone());
        let result = KeyValue::new("result", SUCCESS);
        Arc::new(Bound {
            attempts: metrics().attempts.bind(std::slice::from_ref(&operation)),
            succeeded: metrics().duration.bind(&[operation, result]),
        })
    })
}

const SUCCESS: &str = "success";

struct Metrics {
    attempts: Counter<u64>,
    retries: Counter<u64>,
    failures: Counter<u64>,
    duration: Histogram<f64>,
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = meter();
        Metrics {
            attempts: meter
                .u64_counter("redis_transaction_attempts_total")
                .with_unit("{attempt}")
                .with_description("Attempts at a WATCH/MULTI/EXEC transaction, by operation")
                .build(),
            retries: meter
                .u64_counter("redis_transaction_retries_total")
                .with_unit("{attempt}")
                .with_description(
                    "Attempts that were discarded and made again, by operation and reason",
                )
                .build(),
            failures: meter
                .u64_counter("redis_transaction_failures_total")
                .with_unit("{transaction}")
                .with_description("Transactions that were given up, by operation and reason")
                .build(),
            duration: meter
                .f64_histogram("redis_transaction_duration_seconds")
                .with_unit("s")
                .with_description(
                    "Duration of a transaction with all its attempts, by operation and result",
                )
                .with_boundaries(CLIENT_SECONDS.to_vec())
                .build(),
        }
    })
}
