//! Jaeger's query API, v1 and v3, over anything that can find traces.
//!
//! Jaeger removed the search of v1 in August 2026; its own UI speaks v3, with v1 for a trace by
//! id, while Grafana's Jaeger data source speaks v1. Both are served here. `docs/api-jaeger.md`
//! lists every endpoint, its parameters and units, and where an answer differs from Jaeger's.
//!
//! The module reads through [`TraceSource`] alone, which [`lacuna_store::Store`] implements. Answers are serialised from Arrow columns as
//! they are sent; no tree of values is built.

mod adjust;
mod error;
mod filter;
mod found;
mod go;
mod metrics;
mod page;
mod paths;
mod plain;
mod quality;
mod query;
mod search;
mod source;
mod stored;
mod summary;
mod tags;
mod transform;
mod ui;
mod unnamed;
mod v1;
mod v3;

use std::sync::Arc;

use axum::Router;

use crate::gate::Gate;
use error::ApiError;

pub use source::{
    Edge, Edges, Listed, Matches, Operation, SourceError, Trace, TraceLogs, TraceSource,
};
pub use unnamed::{NO_SERVICE, shown};

/// Nanoseconds since the epoch.
type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The query API.
#[derive(Clone)]
pub struct JaegerApi {
    source: Arc<dyn TraceSource>,
    clock: Clock,
    gate: Gate,
}

impl std::fmt::Debug for JaegerApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JaegerApi").finish_non_exhaustive()
    }
}

impl JaegerApi {
    /// The API over `source`.
    pub fn new(source: Arc<dyn TraceSource>) -> Self {
        let now = || i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        Self { source, clock: Arc::new(now), gate: Gate::default() }
    }

    /// Takes the time, in nanoseconds since the epoch, from `clock`: requests without an end mean
    /// now.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Waits at `gate` before heavy questions, as others do.
    #[must_use]
    pub fn with_gate(self, gate: Gate) -> Self {
        Self { gate, ..self }
    }

    /// Every endpoint under `/api` and `/api/v3`, and `/analytics/v1/dependencies`.
    pub fn router(self) -> Router {
        v1::routes().merge(v3::routes()).with_state(self)
    }

    fn now(&self) -> i64 {
        (self.clock)()
    }

    /// Runs `work` on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<dyn TraceSource>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let source = Arc::clone(&self.source);
        let done = tokio::task::spawn_blocking(move || {
            let question = source.question()?;
            work(&question.unwrap_or(source))
        });
        let done = done.await;
        done.unwrap_or_else(|error| Err(ApiError::Internal(error.to_string())))
    }

    /// [`Self::ask`] for what takes much memory while it is computed: a few at a time.
    async fn ask_heavy<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<dyn TraceSource>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = self.gate.enter().await;
        self.ask(move |source| {
            let _place = place;
            work(source)
        })
        .await
    }
}
