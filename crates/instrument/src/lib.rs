//! What a Rust service links so that the steps which fail in silence emit something.
//!
//! One call starts traces, logs and metrics over OTLP, by the standard `OTEL_*` variables:
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let telemetry = lacuna_instrument::init("essay_lifecycle_service")?;
//! tracing::info!(layer = "framework", "service started");
//! // ... the service ...
//! telemetry.shutdown().await?;
//! # Ok(()) }
//! ```
//!
//! The parts, each a crate feature that brings its client library with it:
//!
//! | feature | module | covers |
//! |---|---|---|
//! | `redis` | [`redis`] | commands, pipelines and the `WATCH`/`MULTI`/`EXEC` transaction |
//! | `kafka` | [`kafka`] | produce, consume, commit, (de)serialise, rebalances, librdkafka's statistics |
//! | `postgres` | [`postgres`] | queries, transactions from `BEGIN` to their end, the pool |
//! | `http` | [`http`] | a `tower` layer for servers, spans around any client |
//! | `breaker` | [`breaker`] | circuit breakers over `failsafe` |
//! | always | [`outcome`] | business outcomes, reached or missed |
//! | always | [`series`], [`openmetrics`] | metrics with an unbounded label kept bounded, `/metrics` |
//! | always | [`correlation`], [`switch`] | the correlation id; turning parts off |
//!
//! The crate knows nothing of Lacuna's engine and depends on none of its crates: it works with any
//! OTLP backend. `docs/instrumentation.md` lists every span, attribute and metric with its unit.
//!
//! Telemetry is best effort by design: nothing in this crate blocks or fails a service because a
//! backend is slow, refusing or gone. What is dropped is counted and logged once a minute.

#[cfg(feature = "breaker")]
pub mod breaker;
#[cfg(any(feature = "redis", feature = "kafka"))]
#[doc(hidden)]
pub mod by_hand;
pub mod correlation;
mod env;
mod export;
#[cfg(any(feature = "redis", feature = "kafka"))]
#[doc(hidden)]
pub mod field;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "tls")]
mod https;
mod jsonlog;
#[cfg(feature = "kafka")]
pub mod kafka;
mod metrics;
#[cfg(any(feature = "kafka", feature = "http"))]
mod moment;
#[cfg(any(feature = "kafka", feature = "http"))]
mod names;
pub mod openmetrics;
mod otlp;
pub mod outcome;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod pool;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
pub mod series;
mod setup;
// What starts spans and measures is for the parts; a build without them has only the scope.
#[cfg_attr(
    not(any(
        feature = "redis",
        feature = "kafka",
        feature = "postgres",
        feature = "http",
        feature = "breaker"
    )),
    allow(dead_code)
)]
mod span;
pub mod switch;
mod telemetry;

pub use telemetry::{InitError, ShutdownError, Telemetry, TelemetryBuilder, init};

/// The `opentelemetry` API that this crate is built on, so that a service uses the same version:
/// two versions in one program mean two global registries and silent loss.
pub use opentelemetry;
