//! An event is sent and handled in one trace. Needs `KAFKA_BROKERS`.
//!
//! `cargo run -p lacuna-instrument --example kafka --features kafka`, with an OTLP backend at
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (default: `http://localhost:4318`).

use lacuna_instrument::kafka::{Consumer, Event, TracedContext, commit, produce};
use rdkafka::ClientConfig;
use rdkafka::Message as _;
use rdkafka::consumer::{CommitMode, Consumer as _, StreamConsumer};
use rdkafka::producer::FutureProducer;
use std::error::Error;
use std::time::Duration;

#[tokio::main]
#[allow(dead_code, reason = "the tests include this file and call `run`")]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = lacuna_instrument::init("example_kafka")?;
    run().await?;
    // Without a backend the example has run all the same.
    telemetry.shutdown().await.ok();
    Ok(())
}

/// The example itself.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let brokers = std::env::var("KAFKA_BROKERS").unwrap_or_else(|_| "127.0.0.1:9092".to_owned());
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("statistics.interval.ms", "5000");
    let producer: FutureProducer<TracedContext> =
        config.clone().create_with_context(TracedContext::new("example-producer"))?;
    let event = Event::new("lacuna.example", "essay.provisioned.v1", br#"{"essay":"1"}"#)
        .key("batch-7")
        .event_id("e-1")
        .correlation_id("c-1");
    produce(&producer, event, Duration::from_secs(20)).await?;

    let consumer: StreamConsumer<TracedContext> = config
        .set("group.id", "lacuna-example")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create_with_context(TracedContext::new("lacuna-example"))?;
    consumer.subscribe(&["lacuna.example"])?;
    let message = consumer.recv().await?;
    let span = Consumer::new("lacuna-example").start(&message).begin();
    let essay: serde_json::Value =
        match span.deserialize(|| serde_json::from_slice(message.payload().unwrap_or_default())) {
            Ok(essay) => essay,
            Err(error) => {
                // A poison message ends as an ERROR with its topic, partition and offset.
                span.fail("deserialization", &error);
                return Err(error.into());
            }
        };
    span.run(async {
        tracing::info!(%essay, "handled");
        commit(&consumer, &message, CommitMode::Sync)
    })
    .await?;
    Ok(())
}
