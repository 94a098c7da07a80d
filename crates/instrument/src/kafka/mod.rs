//! Kafka: produce and consume spans that carry the trace across the broker.
//!
//! [`produce`] writes the W3C trace context and baggage into the record's headers, beside
//! `event_type`, `event_id` and `correlation_id`; [`Consumer::start`] reads them. The consume span
//! always has a link to the producer's span. By default the producer's span is its parent too, so that
//! one trace runs through a pipeline of single-message hops; [`Parent::Ambient`] keeps the link only,
//! which is what the conventions ask for when a span is already current (a batch, a poll loop).
//!
//! ```no_run
//! use lacuna_instrument::kafka::{Consumer, Event, produce};
//! use rdkafka::Message as _;
//! use rdkafka::consumer::StreamConsumer;
//! use rdkafka::producer::FutureProducer;
//! use std::time::Duration;
//!
//! # async fn run(producer: FutureProducer, stream: StreamConsumer) -> Result<(), Box<dyn std::error::Error>> {
//! let event = Event::new("essays", "huleedu.file.essay.content.provisioned.v1", b"{}")
//!     .key("batch-7")
//!     .event_id("2b7d5e4a")
//!     .correlation_id("7b13b452");
//! produce(&producer, event, Duration::from_secs(5)).await?;
//!
//! let consumer = Consumer::new("essay-lifecycle");
//! let message = stream.recv().await?;
//! let span = consumer.start(&message).begin();
//! span.run(async {
//!     // Spans and log lines in here belong to the message's trace and carry its correlation id.
//!     tracing::info!(bytes = message.payload_len(), "handled");
//!     Ok::<_, std::io::Error>(())
//! })
//! .await?;
//! # Ok(()) }
//! ```
//!
//! A handler that takes its messages some other way has an attribute. With the message, or its
//! headers, it is as linked to the producer as any other:
//!
//! ```
//! use lacuna_instrument::kafka::trace_kafka_operation;
//! use rdkafka::message::{BorrowedMessage, OwnedHeaders};
//!
//! #[trace_kafka_operation(message = message, group = "essay-lifecycle")]
//! async fn handle(message: BorrowedMessage<'_>) -> Result<(), std::io::Error> {
//!     Ok(())
//! }
//!
//! #[trace_kafka_operation(event_type = event_type, headers = &headers, fields(correlation_id))]
//! async fn handle_parts(
//!     event_type: &str,
//!     headers: OwnedHeaders,
//!     correlation_id: &str,
//! ) -> Result<(), std::io::Error> {
//!     Ok(())
//! }
//! ```

mod broker;
mod commit;
mod consume;
mod context;
mod headers;
mod incoming;
mod manual;
mod produce;
mod record;
mod statistics;

pub use broker::Broker;
pub use commit::{commit, commit_and_wait};
pub use consume::{ConsumeSpan, Consumer, Parent, StartConsume};
pub use context::TracedContext;
pub use headers::{extract, inject};
pub use lacuna_instrument_macros::trace_kafka_operation;
pub use manual::{Operation, trace_by_hand, trace_message};
pub use produce::{Event, produce, serialize};
