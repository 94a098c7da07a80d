//! Kafka: topics, publishing envelopes, and consumers that hand them to a service.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use failsafe::backoff::{self, Constant};
use failsafe::failure_policy::{self, ConsecutiveFailures};
use lacuna_instrument::breaker::Breaker;
use lacuna_instrument::kafka::{self, Broker, Event, TracedContext};
use opentelemetry::trace::FutureExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, Rebalance, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::FutureProducer;
use serde::Serialize;
use serde_json::Value;

use crate::config::{Backends, Namespace};
use crate::envelope::Envelope;
use crate::error::Error;
use crate::http::Readiness;
use crate::stop::Stop;

/// Partitions of each topic: the most workers of one group that get work.
pub const PARTITIONS: u16 = 4;

/// How long a publisher waits for room in its queue.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often librdkafka tells of lag, brokers and queues.
const STATISTICS_INTERVAL_MS: &str = "2000";

/// Publishing stops after this many failures in a row, for as long.
const FAILURES_TO_OPEN: u32 = 5;
const PAUSE_WHEN_OPEN: Duration = Duration::from_secs(5);

fn client(backends: &Backends) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &backends.kafka_brokers);
    config
}

/// Creates the topics of these event types, where they are missing.
pub async fn create_topics(backends: &Backends, event_types: &[&str]) -> Result<(), Error> {
    let admin: AdminClient<DefaultClientContext> = client(backends).create()?;
    let names: Vec<String> =
        event_types.iter().map(|t| backends.namespace.namespace.topic(t)).collect();
    let topics: Vec<NewTopic> = names
        .iter()
        .map(|name| NewTopic::new(name, i32::from(PARTITIONS), TopicReplication::Fixed(1)))
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(Duration::from_secs(15)))
        .operation_timeout(Some(Duration::from_secs(15)));
    for result in admin.create_topics(&topics, &options).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(Error::Event(format!("topic {topic} cannot be created: {code}")));
            }
        }
    }
    Ok(())
}

/// Publishes envelopes in the name of a service.
#[derive(Clone)]
pub struct Publisher {
    producer: FutureProducer<TracedContext>,
    namespace: Namespace,
    breaker: Breaker<ConsecutiveFailures<Constant>>,
    broker: Option<Broker>,
}

impl Publisher {
    /// A producer that loses and repeats nothing on its own.
    pub fn connect(backends: &Backends, service: &str) -> Result<Self, Error> {
        let producer = client(backends)
            .set("client.id", service)
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .set("message.timeout.ms", "30000")
            .set("statistics.interval.ms", STATISTICS_INTERVAL_MS)
            .create_with_context(TracedContext::new(service).client_id(service))?;
        let policy = failure_policy::consecutive_failures(
            FAILURES_TO_OPEN,
            backoff::constant(PAUSE_WHEN_OPEN),
        );
        // Named as the incident's own breaker was.
        let breaker = Breaker::new(
            &service.replace('_', "-"),
            "kafka_producer",
            "publish",
            failsafe::Config::new().failure_policy(policy),
        );
        let broker = Broker::only_of(&backends.kafka_brokers);
        Ok(Self { producer, namespace: backends.namespace.namespace.clone(), breaker, broker })
    }

    /// Sends the event and waits until the broker has it. `key` decides its partition. While Kafka
    /// takes nothing, fails at once.
    pub async fn publish<T: Serialize>(&self, event: &Envelope<T>, key: &str) -> Result<(), Error> {
        let topic = self.namespace.topic(&event.event_type);
        let payload = kafka::serialize(&topic, &event.event_type, || serde_json::to_vec(event))
            .map_err(|e| Error::Event(format!("{}: {e}", event.event_type)))?;
        let record = Event::new(&topic, &event.event_type, &payload)
            .key(key)
            .event_id(&event.event_id)
            .correlation_id(&event.correlation_id)
            .broker(self.broker.as_ref())
            .attribute("batch_id", event.batch_id.clone());
        let sent = self.breaker.call(kafka::produce(&self.producer, record, QUEUE_TIMEOUT)).await;
        match sent {
            Ok(_) => Ok(()),
            Err(failsafe::Error::Inner(error)) => Err(error.into()),
            Err(failsafe::Error::Rejected) => Err(Error::TryAgain(format!(
                "{} {}: not published, Kafka failed {FAILURES_TO_OPEN} times in a row",
                event.event_type, event.event_id
            ))),
        }
    }
}

/// What a consumer listens to.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// Consumer group; its members share the partitions.
    pub group: &'static str,
    /// Event types.
    pub event_types: &'static [&'static str],
    /// Number of this member in its group.
    pub worker: u16,
}

/// A consumer that runs until its [`Stop`].
pub struct Running {
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Waits until it has stopped, its offsets committed.
    pub async fn finished(self) {
        if let Err(error) = self.task.await {
            tracing::error!(layer = "framework", error = %error, "consumer ended by a panic");
        }
    }
}

impl Subscription {
    /// Starts the consumer. Each event is handled before the next one of its partition is; one that
    /// fails is handled again, one that cannot be read is skipped, with an error in the log.
    pub fn spawn<H, F>(
        self,
        backends: &Backends,
        readiness: Readiness,
        stop: Stop,
        handler: H,
    ) -> Result<Running, Error>
    where
        H: Fn(Envelope<Value>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let namespace = &backends.namespace.namespace;
        let group = namespace.group(self.group);
        let client_id = format!("{}-{}", self.group, self.worker);
        let told = AtomicBool::new(false);
        let context = TracedContext::with_rebalance(group.clone(), move |rebalance| {
            // Ready once the group has given this consumer partitions.
            if let Rebalance::Assign(partitions) = rebalance
                && partitions.count() > 0
                && !told.swap(true, Ordering::AcqRel)
            {
                readiness.part_is_up();
            }
        })
        .client_id(client_id.as_str());
        let consumer: StreamConsumer<TracedContext> = client(backends)
            .set("client.id", &client_id)
            .set("group.id", &group)
            .set("auto.offset.reset", "earliest")
            // An offset is committed when its event is done.
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "10000")
            .set("statistics.interval.ms", STATISTICS_INTERVAL_MS)
            .create_with_context(context)?;
        let topics: Vec<String> = self.event_types.iter().map(|t| namespace.topic(t)).collect();
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let spans = kafka::Consumer::new(group)
            .client_id(client_id)
            .broker(Broker::only_of(&backends.kafka_brokers));
        let consumer = Arc::new(consumer);
        let task = tokio::spawn(async move {
            loop {
                let received = tokio::select! {
                    () = stop.wait() => break,
                    received = consumer.recv() => received,
                };
                match received {
                    Ok(message) => handle(&consumer, &message, &spans, &handler, &stop).await,
                    Err(error) => {
                        tracing::warn!(layer = "infrastructure", error = %error, "Kafka consumer");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
            // Leaving the group waits for the broker, which must not hold up other tasks.
            let _ = tokio::task::spawn_blocking(move || drop(consumer)).await;
        });
        Ok(Running { task })
    }
}

/// Handles a message until it succeeds, then commits it. Stopped before that, it is not committed
/// and comes again.
async fn handle<H, F>(
    consumer: &Arc<StreamConsumer<TracedContext>>,
    message: &BorrowedMessage<'_>,
    spans: &kafka::Consumer,
    handler: &H,
    stop: &Stop,
) where
    H: Fn(Envelope<Value>) -> F + Sync,
    F: Future<Output = Result<(), Error>> + Send,
{
    let mut pause = Duration::from_millis(20);
    for n in 0.. {
        let mut span = spans.start(message).retry(n).begin();
        let event =
            match span.deserialize(|| Envelope::parse(message.payload().unwrap_or_default())) {
                Ok(event) => event,
                Err(error) => {
                    let context = span.context();
                    span.fail("deserialization", &error);
                    return skip(consumer, message, &error).with_context(context).await;
                }
            };
        span.set_attribute("batch_id", event.batch_id.clone());
        // The envelope decides: a producer of another make may write no header.
        span.correlate(event.correlation_id.clone());
        let context = span.context();
        match span.run(handler(event)).await {
            Ok(()) => return commit(consumer, message).with_context(context).await,
            Err(error @ Error::Event(_)) => {
                return skip(consumer, message, &error).with_context(context).await;
            }
            Err(error) => {
                let _guard = context.attach();
                tracing::warn!(
                    layer = "framework",
                    error = %error,
                    topic = message.topic(),
                    partition = message.partition(),
                    offset = message.offset(),
                    "event failed, trying again"
                );
            }
        }
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Commits and waits for the broker's answer. A commit that is lost or refused means that the event
/// comes again, maybe to another member, which its handler bears.
async fn commit(consumer: &Arc<StreamConsumer<TracedContext>>, message: &BorrowedMessage<'_>) {
    if let Err(error) = kafka::commit_and_wait(consumer, message).await {
        tracing::warn!(
            layer = "infrastructure",
            error = %error,
            topic = message.topic(),
            partition = message.partition(),
            offset = message.offset(),
            "offset not committed"
        );
    }
}

/// Says that an event cannot be read, and goes on after it.
async fn skip(
    consumer: &Arc<StreamConsumer<TracedContext>>,
    message: &BorrowedMessage<'_>,
    error: &Error,
) {
    tracing::error!(
        layer = "framework",
        error = %error,
        topic = message.topic(),
        partition = message.partition(),
        offset = message.offset(),
        "event cannot be read, skipped"
    );
    commit(consumer, message).await;
}
