//! Starting and ending telemetry.

mod builder;

pub use builder::TelemetryBuilder;

use crate::export::DropReporter;
use crate::openmetrics::MetricsText;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

/// Why telemetry could not be started. Neither a backend that is not there nor a variable that means
/// nothing is among them: exporters connect when they send, and warnings name what is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// A global `tracing` subscriber or `log` logger is already installed, by another library or an
    /// earlier `init`.
    #[error("a tracing subscriber is already installed: call init once, before any other set-up")]
    AlreadyInstalled(#[source] tracing_subscriber::util::TryInitError),
    /// A helper thread or runtime could not be started.
    #[error("a background thread cannot be started")]
    Thread(#[source] std::io::Error),
}

/// A last flush that did not reach the backend. What was buffered is lost.
#[derive(Debug, thiserror::Error)]
#[error("telemetry was not flushed: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ShutdownError(Vec<OTelSdkError>);

/// Starts telemetry for `service` by the `OTEL_*` environment. See [`TelemetryBuilder`] for more.
///
/// # Errors
/// [`InitError`]; never for a backend that cannot be reached.
pub fn init(service: impl Into<String>) -> Result<Telemetry, InitError> {
    Telemetry::builder(service).init()
}

/// Keeps telemetry running; flushes and stops it on [`Telemetry::shutdown`] or when dropped.
#[must_use = "dropping the guard stops telemetry"]
#[derive(Debug)]
pub struct Telemetry {
    providers: Option<Providers>,
    metrics_text: MetricsText,
}

#[derive(Debug)]
struct Providers {
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
    metrics: SdkMeterProvider,
    reporter: Option<DropReporter>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Providers {
    fn flush(&self) -> Vec<OTelSdkError> {
        [self.traces.force_flush(), self.logs.force_flush(), self.metrics.force_flush()]
            .into_iter()
            .filter_map(Result::err)
            .collect()
    }

    /// Ends everything, bounded by the SDK's five seconds for each signal.
    fn stop(mut self) -> Vec<OTelSdkError> {
        // The reporter's last line must still go out.
        drop(self.reporter.take());
        let errors = [self.traces.shutdown(), self.logs.shutdown(), self.metrics.shutdown()]
            .into_iter()
            .filter_map(Result::err)
            .filter(|e| !matches!(e, OTelSdkError::AlreadyShutdown))
            .collect();
        if let Some(runtime) = self.runtime.take() {
            // Dropping a runtime inside another would panic.
            runtime.shutdown_background();
        }
        errors
    }
}

impl Telemetry {
    /// A builder, for tests and for services that export elsewhere as well.
    pub fn builder(service: impl Into<String>) -> TelemetryBuilder {
        TelemetryBuilder::new(service.into())
    }

    /// What renders the metrics for `GET /metrics`.
    #[must_use]
    pub fn metrics_text(&self) -> MetricsText {
        self.metrics_text.clone()
    }

    /// Sends what is buffered now. Waits without blocking the async runtime.
    ///
    /// # Errors
    /// When a backend did not take it; the service need not care.
    pub async fn flush(&self) -> Result<(), ShutdownError> {
        let Some(p) = &self.providers else {
            return Ok(());
        };
        let (traces, logs, metrics) = (p.traces.clone(), p.logs.clone(), p.metrics.clone());
        off_runtime(move || {
            let copy = Providers { traces, logs, metrics, reporter: None, runtime: None };
            copy.flush()
        })
        .await
    }

    /// Flushes and stops traces, logs and metrics: at most a few seconds, without blocking the
    /// async runtime.
    ///
    /// # Errors
    /// When a backend did not take the last batch.
    pub async fn shutdown(mut self) -> Result<(), ShutdownError> {
        match self.providers.take() {
            Some(providers) => off_runtime(move || providers.stop()).await,
            None => Ok(()),
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(providers) = self.providers.take() {
            for error in providers.stop() {
                tracing::warn!(layer = "infrastructure", %error, "telemetry was not flushed");
            }
        }
    }
}

/// Runs blocking SDK calls on a thread of their own: they wait for exporters.
async fn off_runtime(
    work: impl FnOnce() -> Vec<OTelSdkError> + Send + 'static,
) -> Result<(), ShutdownError> {
    let (done, result) = tokio::sync::oneshot::channel();
    let spawned = std::thread::Builder::new().name("lacuna.flush".into()).spawn(move || {
        let _ = done.send(work());
    });
    let errors = match spawned {
        Ok(_) => result.await.unwrap_or_default(),
        Err(e) => vec![OTelSdkError::InternalFailure(e.to_string())],
    };
    if errors.is_empty() { Ok(()) } else { Err(ShutdownError(errors)) }
}
