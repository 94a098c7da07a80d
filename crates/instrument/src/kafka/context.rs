//! The client context: rebalances as spans, commits, librdkafka's statistics and log lines.

use super::produce::error_type;
use super::statistics::{self, Latest};
use crate::metrics::meter;
use crate::span;
use crate::switch::{self, Part};
use opentelemetry::metrics::{Counter, Histogram};
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Statistics, TopicPartitionList};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

/// Bucket bounds in seconds for a rebalance, which can take minutes.
const REBALANCE_SECONDS: [f64; 9] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0];

/// A client context that tells what happens between messages.
///
/// Partitions given and taken away are spans `kafka.partition.assignment` and
/// `kafka.partition.revocation`; lag, broker state, retries and queue sizes are
/// metrics when `statistics.interval.ms` is set; librdkafka's log lines become `tracing` events of the
/// layer `infrastructure`.
///
/// ```no_run
/// use lacuna_instrument::kafka::TracedContext;
/// use rdkafka::ClientConfig;
/// use rdkafka::consumer::StreamConsumer;
///
/// # fn main() -> rdkafka::error::KafkaResult<()> {
/// let consumer: StreamConsumer<TracedContext> = ClientConfig::new()
///     .set("bootstrap.servers", "127.0.0.1:9092")
///     .set("group.id", "essay-lifecycle")
///     .set("statistics.interval.ms", "5000")
///     .create_with_context(TracedContext::new("essay-lifecycle"))?;
/// # drop(consumer);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TracedContext {
    shared: Arc<Shared>,
}

/// What a service does itself when its partitions change.
type OnRebalance = Box<dyn Fn(&Rebalance<'_>) + Send + Sync>;

struct Shared {
    on_rebalance: Option<OnRebalance>,
    group: StringValue,
    latest: Arc<Latest>,
    rebalance: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// When the callback under way began.
    began: Option<SystemTime>,
    /// When partitions were taken away and none given since.
    revoked: Option<SystemTime>,
}

impl std::fmt::Debug for TracedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TracedContext").field("group", &self.shared.group).finish_non_exhaustive()
    }
}

impl TracedContext {
    /// A context for a consumer of `group`; for a producer, name it as its `client.id`.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        Self::build(group.into(), None)
    }

    /// [`TracedContext::new`], with something to do after each change of the assignment: readiness,
    /// caches. It runs inside librdkafka's poll and must not block.
    #[must_use]
    pub fn with_rebalance(
        group: impl Into<String>,
        on_rebalance: impl Fn(&Rebalance<'_>) + Send + Sync + 'static,
    ) -> Self {
        Self::build(group.into(), Some(Box::new(on_rebalance)))
    }

    fn build(group: String, on_rebalance: Option<OnRebalance>) -> Self {
        let shared = Shared {
            on_rebalance,
            latest: statistics::register(group.clone()),
            // Shared text: every span takes a copy.
            group: Arc::<str>::from(group).into(),
            rebalance: Mutex::new(Times::default()),
        };
        Self { shared: Arc::new(shared) }
    }

    fn base(&self) -> Vec<KeyValue> {
        vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.consumer.group.name", self.shared.group.clone()),
        ]
    }

    fn rebalanced(
        &self,
        name: &'static str,
        partitions: Option<&TopicPartitionList>,
        error: Option<&KafkaError>,
    ) {
        let now = SystemTime::now();
        let (began, since_revocation) = {
            let mut times = self.shared.rebalance.lock().unwrap_or_else(PoisonError::into_inner);
            let began = times.began.take().unwrap_or(now);
            let since = match name {
                ASSIGNMENT => times.revoked.take(),
                REVOCATION => {
                    times.revoked.get_or_insert(began);
                    None
                }
                // What failed took nothing away.
                _ => None,
            };
            (began, since)
        };
        let taken =
            since_revocation.and_then(|t| now.duration_since(t).ok()).map(|d| d.as_secs_f64());
        if switch::metrics(Part::Kafka) {
            let mut a = self.base();
            a.push(KeyValue::new(
                "lacuna.kafka.rebalance.kind",
                name.rsplit('.').next().unwrap_or(name),
            ));
            metrics().rebalances.add(1, &a);
            if let Some(seconds) = taken {
                metrics().rebalance.record(seconds, &self.base());
            }
        }
        if !switch::spans(Part::Kafka) {
            return;
        }
        let mut a = self.base();
        a.push(KeyValue::new("messaging.operation.name", name));
        let partitions = partitions.map(names).unwrap_or_default();
        a.push(KeyValue::new("lacuna.kafka.partitions.count", partitions.len() as i64));
        a.push(KeyValue::new("lacuna.kafka.partitions", Value::Array(Array::String(partitions))));
        if let Some(seconds) = taken {
            a.push(KeyValue::new("lacuna.kafka.rebalance.duration", seconds));
        }
        let builder = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Internal)
            .with_start_time(began)
            .with_attributes(a);
        // Rebalances come from librdkafka's poll, which belongs to no message: a trace of its own.
        let cx = span::build(builder, &Context::new());
        if let Some(error) = error {
            cx.span().set_attribute(KeyValue::new("error.type", error_type(error)));
            cx.span().set_status(Status::error(error.to_string()));
        }
        cx.span().end();
    }
}

const ASSIGNMENT: &str = "kafka.partition.assignment";
const REVOCATION: &str = "kafka.partition.revocation";
const FAILED: &str = "kafka.partition.rebalance_error";

fn names(list: &TopicPartitionList) -> Vec<StringValue> {
    list.elements().iter().map(|e| format!("{}/{}", e.topic(), e.partition()).into()).collect()
}

impl ClientContext for TracedContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let layer = "infrastructure";
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::error!(target: "librdkafka", layer, facility, "{message}");
            }
            RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", layer, facility, "{message}")
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", layer, facility, "{message}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", layer, facility, "{message}")
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        if switch::metrics(Part::Kafka) {
            self.shared.latest.set(statistics);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka goes on by itself: it reports that a broker is down, and reconnects.
        tracing::warn!(target: "librdkafka", layer = "infrastructure", %error, "{reason}");
    }
}

impl ConsumerContext for TracedContext {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, _rebalance: &Rebalance<'_>) {
        let mut times = self.shared.rebalance.lock().unwrap_or_else(PoisonError::into_inner);
        times.began = Some(SystemTime::now());
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.rebalanced(ASSIGNMENT, Some(list), None),
            Rebalance::Revoke(list) => self.rebalanced(REVOCATION, Some(list), None),
            Rebalance::Error(error) => self.rebalanced(FAILED, None, Some(error)),
        }
        if let Some(on_rebalance) = &self.shared.on_rebalance {
            on_rebalance(rebalance);
        }
    }

    /// A commit that failed when nobody waited for it. (rdkafka 0.39 calls this only where librdkafka
    /// posts an event for it, which 2.12 does not for `commit`: commit synchronously where it matters.)
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        if switch::spans(Part::Kafka) {
            let mut a = self.base();
            a.push(KeyValue::new("messaging.operation.name", "commit"));
            a.push(KeyValue::new("messaging.operation.type", "settle"));
            a.push(KeyValue::new(
                "lacuna.kafka.partitions",
                Value::Array(Array::String(names(offsets))),
            ));
            a.push(KeyValue::new("error.type", error_type(&error)));
            let cx = span::start("kafka.commit", SpanKind::Client, a, &Context::new());
            cx.span().set_status(Status::error(error.to_string()));
            cx.span().end();
        }
    }
}

struct Metrics {
    rebalances: Counter<u64>,
    rebalance: Histogram<f64>,
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = meter();
        Metrics {
            rebalances: meter
                .u64_counter("lacuna.kafka.rebalances")
                .with_unit("{rebalance}")
                .with_description("Assignments, revocations and failed rebalances of partitions, by group and kind")
                .build(),
            rebalance: meter
                .f64_histogram("lacuna.kafka.rebalance.duration")
                .with_unit("s")
                .with_description(
                    "Time from the loss of partitions to the next assignment, by group",
                )
                .with_boundaries(REBALANCE_SECONDS.to_vec())
                .build(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::error::RDKafkaErrorCode;

    #[test]
    fn a_failed_rebalance_takes_nothing_away() {
        let context = TracedContext::new("group");
        let error = KafkaError::Rebalance(RDKafkaErrorCode::Fail);
        context.rebalanced(FAILED, None, Some(&error));
        assert!(context.shared.rebalance.lock().unwrap().revoked.is_none());
        context.rebalanced(REVOCATION, None, None);
        assert!(context.shared.rebalance.lock().unwrap().revoked.is_some());
    }
}
