//! The shapes that telemetry has inside Lacuna, and the ways in and out of them.
//!
//! This is the lowest floor of the house: every other engine crate stands on it and it uses none of
//! them. It holds
//!
//! - [`schema`]: the Arrow columns of spans, logs and metric points, and how an attribute's column
//!   is named;
//! - [`batch`]: a [`Batch`](batch::Batch) of one kind of signal with typed, by-row accessors;
//! - [`coded`]: columns whose values repeat, kept as codes;
//! - [`otlp`]: the OTLP codec. Bytes are decoded once, straight into Arrow builders whose strings
//!   point into the received body: there is no struct per span;
//! - [`selector`]: predicates over spans and log records, in TraceQL's syntax;
//! - [`finding`]: the one schema of everything that Lacuna reports;
//! - [`semconv`]: the attribute names that code refers to.

pub mod batch;
pub mod coded;
pub mod column;
pub mod finding;
pub mod ids;
pub mod otlp;
pub mod rows;
pub mod schema;
pub mod selector;
pub mod semconv;
pub mod value;

pub use batch::Batch;
pub use ids::{SpanId, TraceId};
pub use schema::SignalKind;
pub use selector::Selector;
pub use value::Value;
