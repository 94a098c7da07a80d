//! Outcomes: what a service was meant to achieve, said in telemetry as such.
//!
//! "Processed successfully" says that nothing threw. An outcome says that the essay got its slot, or
//! why not, under the key by which everybody knows the essay:
//!
//! ```
//! use lacuna_instrument::outcome::outcome;
//!
//! outcome("slot_assigned").key("correlation_id", "7b13b452").reached();
//! outcome("slot_assigned").key("correlation_id", "2b7d5e4a").missed("no_slot");
//! ```
//!
//! Each emits, under the documented `outcome.*` namespace:
//!
//! - a log record with the event name `outcome.reached` or `outcome.missed` and the attributes
//!   `outcome.name`, `outcome.result`, `outcome.reason` and every key under its own name, so that a
//!   contract can say `log { log.outcome.name = "slot_assigned" && log.outcome.result = "reached" }` and key
//!   on `log.correlation_id`; the line on stdout has them under the same names;
//! - on the current span `outcome.<name>` = `reached` | `missed` and `outcome.<name>.reason`;
//! - the counter `outcome.count` by `outcome.name`, `outcome.result`, `outcome.reason`. Keys are not
//!   on it: they are unbounded.

use crate::metrics::meter;
use crate::switch::{self, Part};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::metrics::Counter;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, Key, KeyValue, Value};
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Target of the `tracing` event that makes the line on stdout; the OTLP record is made apart,
/// because `tracing` fields are fixed and keys are not.
pub(crate) const TARGET: &str = "lacuna_instrument::outcome";

static LOGGER: OnceLock<SdkLogger> = OnceLock::new();

pub(crate) fn remember_logger(provider: &SdkLoggerProvider) {
    let _ = LOGGER.set(provider.logger_with_scope(crate::span::scope()));
}

/// Names an outcome: `slot_assigned`. Low in cardinality; the instance goes into [`Outcome::key`].
pub fn outcome(name: impl Into<Cow<'static, str>>) -> Outcome {
    Outcome { name: name.into(), keys: vec![], attributes: vec![] }
}

/// An outcome about to be told.
#[derive(Debug, Clone)]
#[must_use = "say `reached` or `missed`"]
pub struct Outcome {
    name: Cow<'static, str>,
    keys: Vec<KeyValue>,
    attributes: Vec<KeyValue>,
}

impl Outcome {
    /// A key by which this instance is known: `correlation_id`, `batch_id`.
    pub fn key(mut self, name: impl Into<Key>, value: impl Into<Value>) -> Self {
        // Keys are for the log record; without one they are not even copied.
        if switch::spans(Part::Outcome) {
            self.keys.push(KeyValue::new(name, value));
        }
        self
    }

    /// Something more that is worth knowing, on the log record only.
    pub fn attribute(mut self, name: impl Into<Key>, value: impl Into<Value>) -> Self {
        if switch::spans(Part::Outcome) {
            self.attributes.push(KeyValue::new(name, value));
        }
        self
    }

    /// It came about.
    pub fn reached(self) {
        self.tell("reached", None);
    }

    /// It did not, and will not. `reason` is low in cardinality: `no_slot`.
    pub fn missed(self, reason: impl Into<Cow<'static, str>>) {
        self.tell("missed", Some(reason.into()));
    }

    fn tell(self, result: &'static str, reason: Option<Cow<'static, str>>) {
        if switch::metrics(Part::Outcome) {
            let mut a = vec![
                KeyValue::new("outcome.name", self.name.clone()),
                KeyValue::new("outcome.result", result),
            ];
            if let Some(reason) = &reason {
                a.push(KeyValue::new("outcome.reason", reason.clone()));
            }
            counter().add(1, &a);
        }
        if switch::spans(Part::Outcome) {
            self.mark_span(result, reason.as_ref());
            self.log(result, reason);
        }
    }

    fn mark_span(&self, result: &'static str, reason: Option<&Cow<'static, str>>) {
        Context::map_current(|cx| {
            let span = cx.span();
            if span.is_recording() {
                span.set_attribute(KeyValue::new(format!("outcome.{}", self.name), result));
                if let Some(reason) = reason {
                    span.set_attribute(KeyValue::new(
                        format!("outcome.{}.reason", self.name),
                        reason.clone(),
                    ));
                }
            }
        });
    }

    fn log(self, result: &'static str, reason: Option<Cow<'static, str>>) {
        let keys = Keys(&self.keys);
        let because = reason.as_deref().unwrap_or_default();
        let reached = result == "reached";
        if reached {
            tracing::info!(target: TARGET, layer = "application", outcome.name = %self.name, outcome.result = result,
                outcome.keys = %keys, "outcome {} reached", self.name);
        } else {
            tracing::warn!(target: TARGET, layer = "application", outcome.name = %self.name, outcome.result = result,
                outcome.reason = because, outcome.keys = %keys, "outcome {} missed: {because}", self.name);
        }
        let Some(logger) = LOGGER.get() else { return };
        let mut record = logger.create_log_record();
        record.set_event_name(if reached { "outcome.reached" } else { "outcome.missed" });
        record.set_target(TARGET);
        record.set_timestamp(SystemTime::now());
        let (severity, text) =
            if reached { (Severity::Info, "INFO") } else { (Severity::Warn, "WARN") };
        record.set_severity_number(severity);
        record.set_severity_text(text);
        record.set_body(AnyValue::from(match reason.as_deref() {
            Some(reason) => format!("outcome {} missed: {reason}", self.name),
            None => format!("outcome {} reached", self.name),
        }));
        record.add_attribute("layer", AnyValue::from("application"));
        record.add_attribute("outcome.name", AnyValue::from(self.name.into_owned()));
        record.add_attribute("outcome.result", AnyValue::from(result));
        if let Some(reason) = reason {
            record.add_attribute("outcome.reason", AnyValue::from(reason.into_owned()));
        }
        for kv in self.keys.into_iter().chain(self.attributes) {
            record.add_attribute(kv.key, any(kv.value));
        }
        logger.emit(record);
    }
}

/// The field of the `tracing` event with the keys, whose names `tracing` cannot have as fields: a JSON
/// object, of which the line on stdout has each key under its own name.
pub(crate) const KEYS: &str = "outcome.keys";

/// The keys as JSON, written only where somebody reads it.
struct Keys<'k>(&'k [KeyValue]);

impl fmt::Display for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Value| match value {
            Value::Bool(v) => (*v).into(),
            Value::I64(v) => (*v).into(),
            Value::F64(v) => (*v).into(),
            other => serde_json::Value::from(other.to_string()),
        };
        let keys: serde_json::Map<_, _> =
            self.0.iter().map(|kv| (kv.key.to_string(), value(&kv.value))).collect();
        serde_json::Value::Object(keys).fmt(f)
    }
}

fn any(value: Value) -> AnyValue {
    match value {
        Value::Bool(v) => v.into(),
        Value::I64(v) => v.into(),
        Value::F64(v) => v.into(),
        other => other.to_string().into(),
    }
}

fn counter() -> &'static Counter<u64> {
    static COUNTER: OnceLock<Counter<u64>> = OnceLock::new();
    COUNTER.get_or_init(|| {
        meter()
            .u64_counter("outcome.count")
            .with_unit("{outcome}")
            .with_description("Business outcomes, by name, result and reason")
            .build()
    })
}
