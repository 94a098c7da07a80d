//! Putting telemetry together: providers, exporters, propagation, the `tracing` subscriber.

use super::{InitError, Providers, Telemetry};
use crate::correlation::{CorrelatedSpans, CorrelationLogProcessor};
use crate::env::{self, Lookup, Malformed, ProcessEnv};
use crate::export::{
    BoundedLogs, BoundedSpans, CountedLogs, CountedMetrics, CountedSpans, DropReporter,
    EachAttributeOnce, Queue, observe,
};
use crate::jsonlog::{JsonLines, Sink};
use crate::openmetrics::MetricsText;
use crate::otlp::Problem;
use crate::setup::{flush_on_panic, for_logs, for_spans, log_filter, propagator, resource};
use crate::{otlp, outcome, series, span, switch};
use opentelemetry::global;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::logs::{
    BatchConfigBuilder as LogBatchConfig, BatchLogProcessor, LogExporter, SdkLoggerProvider,
};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{MeterProviderBuilder, PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder as SpanBatchConfig, BatchSpanProcessor, SdkTracerProvider,
    SimpleSpanProcessor, SpanExporter, SpanProcessor,
};
use std::time::Duration;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, registry};

/// How often drops are reported.
const DROP_REPORT_EVERY: Duration = Duration::from_secs(60);

type WithLogs = Box<
    dyn FnOnce(
        opentelemetry_sdk::logs::LoggerProviderBuilder,
    ) -> opentelemetry_sdk::logs::LoggerProviderBuilder,
>;
type WithMetrics = Box<dyn FnOnce(MeterProviderBuilder, Duration) -> MeterProviderBuilder>;

/// How telemetry starts, where the environment's answer is not enough.
#[must_use]
pub struct TelemetryBuilder {
    service: String,
    otlp: bool,
    stdout: Option<Sink>,
    traces: Vec<Box<dyn SpanProcessor>>,
    logs: Vec<WithLogs>,
    metrics: Vec<WithMetrics>,
    report_drops_every: Duration,
}

impl std::fmt::Debug for TelemetryBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TelemetryBuilder")
            .field("service", &self.service)
            .field("otlp", &self.otlp)
            .finish_non_exhaustive()
    }
}

impl TelemetryBuilder {
    pub(super) fn new(service: String) -> Self {
        Self {
            service,
            otlp: true,
            stdout: Some(Box::new(std::io::stdout())),
            traces: vec![],
            logs: vec![],
            metrics: vec![],
            report_drops_every: DROP_REPORT_EVERY,
        }
    }

    /// No OTLP export, whatever the environment says: for tests.
    pub fn without_otlp(mut self) -> Self {
        self.otlp = false;
        self
    }

    /// No JSON lines on stdout.
    pub fn without_stdout(mut self) -> Self {
        self.stdout = None;
        self
    }

    /// JSON lines go to `sink` instead of stdout.
    pub fn log_lines_to(mut self, sink: impl std::io::Write + Send + 'static) -> Self {
        self.stdout = Some(Box::new(sink));
        self
    }

    /// One more span processor, told of each span as it starts and ends.
    pub fn span_processor(mut self, processor: impl SpanProcessor + 'static) -> Self {
        self.traces.push(Box::new(processor));
        self
    }

    /// One more span exporter, called as each span ends.
    pub fn span_exporter(mut self, exporter: impl SpanExporter + 'static) -> Self {
        self.traces.push(Box::new(SimpleSpanProcessor::new(EachAttributeOnce(exporter))));
        self
    }

    /// One more log exporter, called for each record.
    pub fn log_exporter(mut self, exporter: impl LogExporter + 'static) -> Self {
        self.logs.push(Box::new(|b| b.with_simple_exporter(exporter)));
        self
    }

    /// One more metric exporter, called each `OTEL_METRIC_EXPORT_INTERVAL` and at flush.
    pub fn metric_exporter(mut self, exporter: impl PushMetricExporter) -> Self {
        self.metrics.push(Box::new(|b, every| {
            b.with_reader(PeriodicReader::builder(exporter).with_interval(every).build())
        }));
        self
    }

    /// How often what was dropped is told, if anything was: a minute, unless said here.
    pub fn report_drops_every(mut self, period: Duration) -> Self {
        self.report_drops_every = period;
        self
    }

    /// Starts.
    ///
    /// # Errors
    /// [`InitError`]; never for a backend that cannot be reached.
    pub fn init(self) -> Result<Telemetry, InitError> {
        let env = ProcessEnv;
        let malformed = env::check(&env);
        let switches = switch::parse(&env.get(switch::ENV).unwrap_or_default());
        for (part, level) in &switches.levels {
            switch::set(*part, *level);
        }

        let otlp = self.otlp && !env::disabled(&env);
        let resource = resource(&self.service);
        let service = resource
            .get(&opentelemetry::Key::from_static_str("service.name"))
            .map_or_else(|| self.service.clone(), |v| v.to_string());

        let mut parts = otlp::Parts::default();
        let mut spans = self.traces;
        let mut logs = SdkLoggerProvider::builder()
            .with_resource(resource.clone())
            .with_log_processor(CorrelationLogProcessor);
        let metrics_text = MetricsText::new();
        let mut metrics = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_view(series::view)
            .with_reader(metrics_text.reader());
        let every = env::millis(&env, ["OTEL_METRIC_EXPORT_INTERVAL"], 60_000);
        let mut queues = vec![];
        if otlp
            && env::exports(&env, "TRACES")
            && let Some(exporter) = parts.spans(&env)?
        {
            let size = env::records(&env, "OTEL_BSP_MAX_QUEUE_SIZE", 2048);
            let queue = Queue::new("traces", size);
            let exporter =
                CountedSpans { inner: EachAttributeOnce(exporter), queue: queue.clone() };
            let config = SpanBatchConfig::default()
                .with_max_queue_size(size)
                .with_max_export_batch_size(env::records(
                    &env,
                    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
                    512,
                ))
                .with_scheduled_delay(env::millis(&env, ["OTEL_BSP_SCHEDULE_DELAY"], 5_000));
            let inner =
                BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build();
            spans.push(Box::new(BoundedSpans { inner, queue: queue.clone() }));
            queues.push(queue);
        }
        if otlp
            && env::exports(&env, "LOGS")
            && let Some(exporter) = parts.logs(&env)?
        {
            let size = env::records(&env, "OTEL_BLRP_MAX_QUEUE_SIZE", 2048);
            let queue = Queue::new("logs", size);
            let exporter = CountedLogs { inner: exporter, queue: queue.clone() };
            let config = LogBatchConfig::default()
                .with_max_queue_size(size)
                .with_max_export_batch_size(env::records(
                    &env,
                    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
                    512,
                ))
                .with_scheduled_delay(env::millis(&env, ["OTEL_BLRP_SCHEDULE_DELAY"], 1_000));
            let inner =
                BatchLogProcessor::builder(exporter).with_batch_config(config.build()).build();
            logs = logs.with_log_processor(BoundedLogs { inner, queue: queue.clone() });
            queues.push(queue);
        }
        if otlp
            && env::exports(&env, "METRICS")
            && let Some(inner) = parts.metrics(&env)?
        {
            // Points wait in no queue: each collection is one request.
            let queue = Queue::new("metrics", 0);
            let exporter = CountedMetrics { inner, queue: queue.clone() };
            let reader = PeriodicReader::builder(exporter).with_interval(every).build();
            metrics = metrics.with_reader(reader);
            queues.push(queue);
        }
        let traces = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_sampler(env::sampler(&env))
            .with_span_processor(CorrelatedSpans::new(spans))
            .build();
        let logs = self.logs.into_iter().fold(logs, |b, with| with(b)).build();
        let metrics = self.metrics.into_iter().fold(metrics, |b, with| with(b, every)).build();

        let (filter, bad_filter) = log_filter(env.get("RUST_LOG"));
        registry()
            .with(filter)
            .with(
                tracing_opentelemetry::layer()
                    .with_tracer(traces.tracer_with_scope(span::scope()))
                    .with_filter(filter_fn(for_spans)),
            )
            .with(OpenTelemetryTracingBridge::new(&logs).with_filter(filter_fn(for_logs)))
            .with(self.stdout.map(|sink| JsonLines::new(service, sink)))
            .try_init()
            .map_err(InitError::AlreadyInstalled)?;

        global::set_text_map_propagator(propagator(&env));
        global::set_tracer_provider(traces.clone());
        global::set_meter_provider(metrics.clone());
        span::remember_tracer(&traces);
        outcome::remember_logger(&logs);
        observe(queues.clone());
        let reporter =
            DropReporter::start(queues, self.report_drops_every).map_err(InitError::Thread)?;
        flush_on_panic(&traces, &logs, &metrics);

        let problems = std::mem::take(&mut parts.problems);
        warn(&env, malformed, problems, switches.problems, bad_filter);
        Ok(Telemetry {
            metrics_text,
            providers: Some(Providers {
                traces,
                logs,
                metrics,
                reporter: Some(reporter),
                runtime: parts.into_runtime(),
            }),
        })
    }
}

/// Says what of the environment is not used, now that somebody listens.
fn warn(
    env: &impl Lookup,
    mut malformed: Vec<Malformed>,
    problems: Vec<Problem>,
    switches: Vec<switch::Problem>,
    bad_filter: Option<String>,
) {
    for problem in problems {
        match problem {
            Problem::Endpoint(endpoint) => malformed.push(endpoint),
            Problem::Exporter { signal, error, instead } => tracing::warn!(
                layer = "infrastructure", signal, %error, instead,
                "an OTLP exporter could not be built as the environment says: \
                 its signal goes to the default endpoint, or nowhere if none is named here"
            ),
        }
    }
    if let Some(error) = bad_filter {
        tracing::warn!(layer = "infrastructure", variable = "RUST_LOG", %error,
            accepted = "target=level,level with off, error, warn, info, debug, trace", default = "info",
            "malformed environment variable: using the default");
    }
    for m in malformed {
        tracing::warn!(
            layer = "infrastructure",
            variable = m.name,
            value = m.value,
            accepted = m.accepted,
            default = m.default,
            "malformed environment variable: using the default"
        );
    }
    for u in env::unsupported(env) {
        tracing::warn!(
            layer = "infrastructure",
            variable = u.name,
            instead = u.instead,
            "environment variable without effect: it is not supported"
        );
    }
    for problem in switches {
        tracing::warn!(layer = "infrastructure", variable = switch::ENV, "{problem}");
    }
}
