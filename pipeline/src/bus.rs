//! Kafka: topics, publishing envelopes, and consumers that hand them to a service.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lacuna_instrument::correlation::{self, CORRELATION_ID};
use lacuna_instrument::kafka::{self, Event};
use opentelemetry::context::FutureExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance, StreamConsumer};
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
    producer: FutureProducer,
    namespace: Namespace,
}

impl Publisher {
    /// A producer that loses and repeats nothing on its own.
    pub fn connect(backends: &Backends, service: &str) -> Result<Self, Error> {
        let producer = client(backends)
            .set("client.id", service)
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .set("message.timeout.ms", "30000")
            .create()?;
        Ok(Self { producer, namespace: backends.namespace.namespace.clone() })
    }

    /// Sends the event and waits until the broker has it. `key` decides its partition.
    pub async fn publish<T: Serialize>(&self, event: &Envelope<T>, key: &str) -> Result<(), Error> {
        let topic = self.namespace.topic(&event.event_type);
        let payload = kafka::serialize(&topic, &event.event_type, || serde_json::to_vec(event))
            .map_err(|e| Error::Event(format!("{}: {e}", event.event_type)))?;
        let record = Event::new(&topic, &event.event_type, &payload)
            .key(key)
            .event_id(&event.event_id)
            .correlation_id(&event.correlation_id)
            .attribute("batch_id", event.batch_id.clone());
        kafka::produce(&self.producer, record, QUEUE_TIMEOUT).await?;
        Ok(())
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
        let consumer: StreamConsumer<Assigned> = client(backends)
            .set("client.id", &client_id)
            .set("group.id", &group)
            .set("auto.offset.reset", "earliest")
            // An offset is stored when its event is done, and stored offsets are committed.
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "500")
            .set("enable.auto.offset.store", "false")
            .set("session.timeout.ms", "10000")
            .create_with_context(Assigned { readiness, told: AtomicBool::new(false) })?;
        let topics: Vec<String> = self.event_types.iter().map(|t| namespace.topic(t)).collect();
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let spans = kafka::Consumer::new(group).client_id(client_id);
        let task = tokio::spawn(async move {
            loop {
                let received = tokio::select! {
                    () = stop.wait() => break,
                    received = consumer.recv() => received,
                };
                match received {
                    Ok(message) => {
                        if handle(&message, &spans, &handler, &stop).await
                            && let Err(error) = consumer.store_offset_from_message(&message)
                        {
                            // The partition went to another member, which will see the event again.
                            tracing::warn!(layer = "infrastructure", error = %error, "offset not stored");
                        }
                    }
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

/// Handles a message until it succeeds. False when stopped before that: the event is not done.
async fn handle<H, F>(
    message: &BorrowedMessage<'_>,
    spans: &kafka::Consumer,
    handler: &H,
    stop: &Stop,
) -> bool
where
    H: Fn(Envelope<Value>) -> F + Sync,
    F: Future<Output = Result<(), Error>> + Send,
{
    let mut pause = Duration::from_millis(20);
    loop {
        let span = spans.start(message).begin();
        let event =
            match span.deserialize(|| Envelope::parse(message.payload().unwrap_or_default())) {
                Ok(event) => event,
                Err(error) => {
                    skip(message, &error);
                    span.fail("deserialization", &error);
                    return true;
                }
            };
        span.set_attribute("batch_id", event.batch_id.clone());
        // The envelope decides: a producer of another make may write no header.
        let context = correlation::with(span.context(), event.correlation_id.clone());
        if correlation::of(span.context()).as_ref() != Some(&event.correlation_id) {
            span.set_attribute(CORRELATION_ID, event.correlation_id.clone());
        }
        match span.run(handler(event).with_context(context)).await {
            Ok(()) => return true,
            Err(error @ Error::Event(_)) => {
                skip(message, &error);
                return true;
            }
            Err(error) => {
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
            () = stop.wait() => return false,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

fn skip(message: &BorrowedMessage<'_>, error: &Error) {
    tracing::error!(
        layer = "framework",
        error = %error,
        topic = message.topic(),
        partition = message.partition(),
        offset = message.offset(),
        "event cannot be read, skipped"
    );
}

/// Says once that the group has given this consumer partitions.
struct Assigned {
    readiness: Readiness,
    told: AtomicBool,
}

impl ClientContext for Assigned {}

impl ConsumerContext for Assigned {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance
            && partitions.count() > 0
            && !self.told.swap(true, Ordering::AcqRel)
        {
            self.readiness.part_is_up();
        }
    }
}
