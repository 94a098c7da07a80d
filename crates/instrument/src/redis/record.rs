//! What a transaction leaves behind: its span, `redis.transaction.failed`, and its metrics.

use super::outcome::{TransactionError, TransactionOutcome};
use crate::metrics::{CLIENT_SECONDS, meter};
use crate::span;
use crate::switch::{self, Part};
use opentelemetry::metrics::{Counter, Histogram};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue, StringValue};
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The post-mortem's words for a discarded `EXEC`.
pub(crate) const DISCARDED: &str = "Transaction discarded";
/// Reason of a discarded `EXEC`.
pub(crate) const CONCURRENT: &str = "concurrent_modification";

/// The span that covers all attempts. It ends with a result even when the future is dropped.
pub(crate) struct Record {
    pub(crate) cx: Context,
    operation: StringValue,
    started: Instant,
    pub(crate) attempts: u32,
    /// The span is ours: with spans off, `cx` is the caller's and must be left alone.
    spans: bool,
    ended: bool,
}

impl Record {
    pub(crate) fn start(operation: Cow<'static, str>, attributes: Vec<KeyValue>) -> Self {
        let spans = switch::spans(Part::Redis);
        let cx = Context::map_current(|parent| {
            if !spans {
                return parent.clone();
            }
            let mut all = attributes;
            // With what the end and the context add.
            all.reserve(8);
            all.push(KeyValue::new("db.system.name", "redis"));
            all.push(KeyValue::new("transaction.type", "watch_multi_exec"));
            span::start(format!("redis.transaction.{operation}"), SpanKind::Internal, all, parent)
        });
        Self {
            cx,
            operation: match operation {
                Cow::Borrowed(name) => name.into(),
                Cow::Owned(name) => Arc::<str>::from(name).into(),
            },
            started: Instant::now(),
            attempts: 0,
            spans,
            ended: false,
        }
    }

    pub(crate) fn attempt(&mut self) {
        self.attempts += 1;
        if switch::metrics(Part::Redis) {
            metrics().attempts.add(1, &[KeyValue::new("operation", self.operation.clone())]);
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
                if error.in_doubt() {
                    self.set(KeyValue::new("lacuna.redis.transaction.in_doubt", true));
                }
                self.finish("failed", Some((error.reason(), described(error))));
            }
        }
    }

    fn set(&self, attribute: KeyValue) {
        if self.spans {
            self.cx.span().set_attribute(attribute);
        }
    }

    fn finish(&mut self, result: &'static str, failure: Option<(&'static str, String)>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if self.spans {
            let span = self.cx.span();
            span.set_attribute(KeyValue::new("transaction.result", result));
            span.set_attribute(KeyValue::new("attempts", i64::from(self.attempts)));
            if let Some((reason, message)) = &failure {
                span.set_attribute(KeyValue::new("failure.reason", *reason));
                span.set_attribute(KeyValue::new("error.type", *reason));
                span.set_status(Status::error(message.clone()));
                let failed = span::start(
                    "redis.transaction.failed",
                    SpanKind::Internal,
                    vec![
                        KeyValue::new("db.system.name", "redis"),
                        KeyValue::new("lacuna.redis.transaction.operation", self.operation.clone()),
                        KeyValue::new("failure.reason", *reason),
                        KeyValue::new("error.type", *reason),
                        KeyValue::new("attempts", i64::from(self.attempts)),
                    ],
                    &self.cx,
                );
                failed.span().set_status(Status::error(message.clone()));
                failed.span().end();
            }
            span.end();
        }
        if switch::metrics(Part::Redis) {
            let operation = KeyValue::new("operation", self.operation.clone());
            if let Some((reason, _)) = failure {
                metrics().failures.add(1, &[operation.clone(), KeyValue::new("reason", reason)]);
            }
            metrics().duration.record(
                self.started.elapsed().as_secs_f64(),
                &[operation, KeyValue::new("result", result)],
            );
        }
    }
}

impl Drop for Record {
    /// The future was dropped between its awaits: that is no success, and must not look like silence.
    fn drop(&mut self) {
        self.finish("failed", Some(("cancelled", "the transaction's future was dropped".into())));
    }
}

fn described(error: &TransactionError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

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
