//! Kafka against a real broker: what producing, consuming and being a member of a group leave behind.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests say what broke by panicking

#[path = "../common/mod.rs"]
mod common;
mod consume;
mod group;
mod produce;

use common::{own_trace, url};
use lacuna_instrument::kafka::{Broker, Event, TracedContext, produce};
use opentelemetry::context::FutureExt;
use opentelemetry::trace::TraceId;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::FutureProducer;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const TYPE: &str = "huleedu.file.essay.content.provisioned.v1";

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url("KAFKA_BROKERS"));
    config
}

fn producer() -> FutureProducer<TracedContext> {
    config()
        .set("message.timeout.ms", "20000")
        .create_with_context(TracedContext::new("test-producer"))
        .unwrap()
}

fn consumer(topic: &str, group: &str) -> StreamConsumer<TracedContext> {
    let consumer: StreamConsumer<TracedContext> = config()
        .set("group.id", group)
        .set("client.id", format!("{group}-client"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("statistics.interval.ms", "100")
        .create_with_context(TracedContext::new(group).client_id(format!("{group}-client")))
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

async fn receive(consumer: &StreamConsumer<TracedContext>) -> BorrowedMessage<'_> {
    loop {
        // A topic that was just made may not be known to the consumer yet.
        match tokio::time::timeout(PATIENCE, consumer.recv()).await.expect("a message in time") {
            Ok(message) => return message,
            Err(rdkafka::error::KafkaError::MessageConsumption(
                rdkafka::error::RDKafkaErrorCode::UnknownTopicOrPartition,
            )) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

async fn send(topic: &str, payload: &[u8]) -> TraceId {
    let (cx, trace) = own_trace();
    let event = Event::new(topic, TYPE, payload)
        .key("batch-7")
        .event_id("e-1")
        .correlation_id("c-1")
        .partition(0);
    let broker = Broker::only_of(&url("KAFKA_BROKERS"));
    let event = event.broker(broker.as_ref()).client_id("test-producer").attribute("batch_id", "7");
    produce(&producer(), event, PATIENCE).with_context(cx).await.unwrap();
    trace
}
