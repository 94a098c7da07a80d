//! The client context: rebalances as spans, commits, librdkafka's statistics and log lines.

use super::produce::error_type;
use super::record::metrics as of_clients;
use super::statistics::{self, Latest};
use crate::metrics::meter;
use crate::span;
use crate::switch::{self, Part};
use opentelemetry::metrics::{Counter, Histogram};
use opentelemetry::trace::{SpanBuilder, SpanKind, TraceContextExt};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Statistics, TopicPartitionList};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

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
    /// Said by the caller, or told by the first statistics.
    client_id: OnceLock<StringValue>,
    latest: Arc<Latest>,
    rebalance: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    /// When the callback under way began.
    began: Option<SystemTime>,
    /// Since when there are no partitions: from the beginning, or since they were taken away.
    without: Option<Instant>,
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
            client_id: OnceLock::new(),
            // The first assignment is waited for as well.
            rebalance: Mutex::new(Times { began: None, without: Some(Instant::now()) }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The client's `client.id`, as `messaging.client.id` of rebalances and refused commits, which would
    /// not know it before the first statistics arrive. The first one said wins.
    #[must_use]
    pub fn client_id(self, id: impl Into<String>) -> Self {
        let id: String = id.into();
        let _ = self.shared.client_id.set(Arc::<str>::from(id).into());
        self
    }

    fn base(&self) -> Vec<KeyValue> {
        let mut a = Vec::with_capacity(8);
        a.push(KeyValue::new("messaging.system", "kafka"));
        a.push(KeyValue::new("messaging.consumer.group.name", self.shared.group.clone()));
        let client = self.shared.client_id.get();
        a.extend(client.map(|id| KeyValue::new("messaging.client.id", id.clone())));
        a
    }

    /// A commit failed for which nobody waited.
    fn commit_refused(&self, error: &'static str, text: String, partitions: Vec<StringValue>) {
        let mut a = self.base();
        if switch::metrics(Part::Kafka) {
            a.push(KeyValue::new("error.type", error));
            of_clients().refused.add(1, &a);
            a.pop();
        }
        if switch::spans(Part::Kafka) {
            a.push(KeyValue::new("messaging.operation.name", "commit"));
            a.push(KeyValue::new("messaging.operation.type", "settle"));
            if !partitions.is_empty() {
                let partitions = Value::Array(Array::String(partitions));
                a.push(KeyValue::new("lacuna.kafka.partitions", partitions));
            }
            let cx = span::start("kafka.commit", SpanKind::Client, a, &Context::new());
            span::fail(&cx, error, text);
            cx.span().end();
        }
    }

    fn rebalanced(
        &self,
        name: &'static str,
        partitions: Option<&TopicPartitionList>,
        error: Option<&KafkaError>,
    ) {
        let now = SystemTime::now();
        let (began, taken) = {
            let mut times = self.shared.rebalance.lock().unwrap_or_else(PoisonError::into_inner);
            let began = times.began.take().unwrap_or(now);
            let taken = match name {
                ASSIGNMENT => times.without.take().map(|since| since.elapsed().as_secs_f64()),
                REVOCATION => {
                    times.without.get_or_insert_with(Instant::now);
                    None
                }
                // What failed took nothing away.
                _ => None,
            };
            (began, taken)
        };
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
            span::fail(&cx, error_type(error), error.to_string());
        }
        cx.span().end();
    }
}

const ASSIGNMENT: &str = "kafka.partition.assignment";
const REVOCATION: &str = "kafka.partition.revocation";
const FAILED: &str = "kafka.partition.rebalance_error";

/// The facility of librdkafka's log line about a commit that was refused when nobody waited for it.
const COMMIT_FAILED: &str = "COMMITFAIL";

fn names(list: &TopicPartitionList) -> Vec<StringValue> {
    list.elements().iter().map(|e| format!("{}/{}", e.topic(), e.partition()).into()).collect()
}

impl ClientContext for TracedContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == COMMIT_FAILED {
            // The only word that librdkafka has of it; nothing else will tell.
            self.commit_refused("commit_refused", message.to_owned(), vec![]);
        }
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
        if self.shared.client_id.get().is_none() {
            let id = Arc::<str>::from(statistics.client_id.as_str());
            let _ = self.shared.client_id.set(id.into());
        }
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

    /// A commit that failed when nobody waited for it. rdkafka 0.39 calls this where librdkafka posts an
    /// event, which 2.12 does only with a callback of C that rdkafka does not set; librdkafka writes a
    /// log line then, and [`TracedContext::log`] reads it. It never does both.
    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(error) = result {
            self.commit_refused("commit_refused", error.to_string(), names(offsets));
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
                .with_description("Assignments, revocations and failed rebalances of partitions, by group, client and kind")
                .build(),
            rebalance: meter
                .f64_histogram("lacuna.kafka.rebalance.duration")
                .with_unit("s")
                .with_description(
                    "Time without partitions: from their loss, or from the client's beginning, to \
                     the next assignment",
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
        let without = || context.shared.rebalance.lock().unwrap().without.is_some();
        context.rebalanced(ASSIGNMENT, None, None);
        context.rebalanced(FAILED, None, Some(&error));
        assert!(!without());
        context.rebalanced(REVOCATION, None, None);
        assert!(without());
    }
}
