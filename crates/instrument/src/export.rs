//! Bounded queues with exact drop counts in front of the SDK's batch processors.
//!
//! The SDK's processors drop when their queue is full but tell nobody until shutdown. Here every
//! record is admitted against the same bound first, so that a drop is counted when it happens, and
//! a reporter says once a minute how many there were.

use crate::metrics::meter;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, LogProcessor, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// One signal's queue: how many records wait, how many were lost and why.
#[derive(Debug)]
pub(crate) struct Queue {
    signal: &'static str,
    capacity: usize,
    waiting: AtomicUsize,
    full: AtomicU64,
    failed: AtomicU64,
    /// Why the last failed export failed.
    error: Mutex<Option<String>>,
}

impl Queue {
    pub(crate) fn new(signal: &'static str, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            signal,
            capacity,
            waiting: AtomicUsize::new(0),
            full: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            error: Mutex::new(None),
        })
    }

    fn admit(&self) -> bool {
        let admitted = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                (n < self.capacity).then_some(n + 1)
            })
            .is_ok();
        if !admitted {
            self.full.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// A batch left the queue. Records can also come past a queue (a simple processor in a test), so
    /// the count never goes below zero.
    fn taken(&self, n: usize) {
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |w| Some(w.saturating_sub(n)));
    }

    fn settle(&self, n: usize, result: &OTelSdkResult) {
        if let Err(error) = result {
            self.failed.fetch_add(n as u64, Ordering::Relaxed);
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
    }

    /// Why the last failed export failed, told once.
    fn last_error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Records dropped so far: queue full, export failed.
    pub(crate) fn dropped(&self) -> (u64, u64) {
        (self.full.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// Admits a span to the batch processor, or counts it as dropped.
#[derive(Debug)]
pub(crate) struct BoundedSpans<P> {
    pub(crate) inner: P,
    pub(crate) queue: Arc<Queue>,
}

impl<P: SpanProcessor> SpanProcessor for BoundedSpans<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.inner.on_start(span, cx);
    }
    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.queue.admit() {
            self.inner.on_end(span);
        }
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Keeps the last value of each attribute. The SDK appends without looking, so that an attribute which
/// is set twice (by the caller and from the baggage, say) would leave twice, which OTLP forbids. Done
/// here, because exporting is not on the service's path.
fn keep_last_values(attributes: &mut Vec<KeyValue>) {
    let mut i = attributes.len();
    while i > 1 {
        i -= 1;
        let (before, rest) = attributes.split_at(i);
        if let Some(earlier) = before.iter().position(|kv| kv.key == rest[0].key) {
            attributes.remove(earlier);
            // What is at `i - 1` now was at `i`; look at it again, it may be there a third time.
        }
    }
}

/// An exporter that gets each attribute once.
#[derive(Debug)]
pub(crate) struct EachAttributeOnce<E>(pub(crate) E);

impl<E: SpanExporter> SpanExporter for EachAttributeOnce<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(|span| keep_last_values(&mut span.attributes));
        self.0.export(batch).await
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// Counts what the exporter took out of the queue and what it failed to send.
#[derive(Debug)]
pub(crate) struct CountedSpans<E> {
    pub(crate) inner: E,
    pub(crate) queue: Arc<Queue>,
}

impl<E: SpanExporter> SpanExporter for CountedSpans<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let n = batch.len();
        self.queue.taken(n);
        let result = self.inner.export(batch).await;
        self.queue.settle(n, &result);
        result
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Admits a log record to the batch processor, or counts it as dropped.
#[derive(Debug)]
pub(crate) struct BoundedLogs<P> {
    pub(crate) inner: P,
    pub(crate) queue: Arc<Queue>,
}

impl<P: LogProcessor> LogProcessor for BoundedLogs<P> {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        if self.queue.admit() {
            self.inner.emit(record, scope);
        }
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts what the exporter took out of the queue and what it failed to send.
#[derive(Debug)]
pub(crate) struct CountedLogs<E> {
    pub(crate) inner: E,
    pub(crate) queue: Arc<Queue>,
}

impl<E: LogExporter> LogExporter for CountedLogs<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let n = batch.iter().count();
        self.queue.taken(n);
        let result = self.inner.export(batch).await;
        self.queue.settle(n, &result);
        result
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Counts the points of the exports that failed. With cumulative temporality the next export that
/// succeeds makes up for sums and histograms; what lay between is lost all the same.
#[derive(Debug)]
pub(crate) struct CountedMetrics<E> {
    pub(crate) inner: E,
    pub(crate) queue: Arc<Queue>,
}

impl<E: PushMetricExporter> PushMetricExporter for CountedMetrics<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.inner.export(metrics).await;
        if result.is_err() {
            let all = metrics.scope_metrics().flat_map(|s| s.metrics());
            self.queue.settle(all.map(|m| points(m.data())).sum(), &result);
        }
        result
    }
    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }
    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }
    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}

fn points(data: &AggregatedMetrics) -> usize {
    fn of<T>(data: &MetricData<T>) -> usize {
        match data {
            MetricData::Gauge(d) => d.data_points().count(),
            MetricData::Sum(d) => d.data_points().count(),
            MetricData::Histogram(d) => d.data_points().count(),
            MetricData::ExponentialHistogram(d) => d.data_points().count(),
        }
    }
    match data {
        AggregatedMetrics::F64(d) => of(d),
        AggregatedMetrics::U64(d) => of(d),
        AggregatedMetrics::I64(d) => of(d),
    }
}

/// Counts of the queues as a metric: `lacuna.instrument.dropped` by `signal` and `reason`.
pub(crate) fn observe(queues: Vec<Arc<Queue>>) {
    let _ = meter()
        .u64_observable_counter("lacuna.instrument.dropped")
        .with_unit("{record}")
        .with_description("Telemetry records that were dropped, by signal and reason")
        .with_callback(move |observer| {
            for queue in &queues {
                let (full, failed) = queue.dropped();
                for (reason, n) in [("queue_full", full), ("export_failed", failed)] {
                    observer.observe(
                        n,
                        &[KeyValue::new("signal", queue.signal), KeyValue::new("reason", reason)],
                    );
                }
            }
        })
        .build();
}

/// A thread that logs new drops at most once in `every`. Ends when dropped, with a last report.
#[derive(Debug)]
pub(crate) struct DropReporter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl DropReporter {
    pub(crate) fn start(queues: Vec<Arc<Queue>>, every: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread =
            std::thread::Builder::new().name("lacuna.drop-report".into()).spawn(move || {
                let mut seen = vec![(0, 0); queues.len()];
                loop {
                    let go_on =
                        matches!(stopped.recv_timeout(every), Err(RecvTimeoutError::Timeout));
                    for (queue, seen) in queues.iter().zip(&mut seen) {
                        report(queue, seen);
                    }
                    if !go_on {
                        return;
                    }
                }
            })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for DropReporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn report(queue: &Queue, seen: &mut (u64, u64)) {
    let now = queue.dropped();
    let (full, failed) = (now.0 - seen.0, now.1 - seen.1);
    if full + failed > 0 {
        tracing::warn!(
            layer = "infrastructure",
            signal = queue.signal,
            queue_full = full,
            export_failed = failed,
            queue_size = queue.capacity,
            error = queue.last_error(),
            "telemetry was dropped: the OTLP backend is slow, refusing or unreachable"
        );
    }
    *seen = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_an_attribute_stays_and_the_order_too() {
        let kv = |k: &'static str, v: i64| KeyValue::new(k, v);
        let mut all = vec![kv("a", 1), kv("b", 1), kv("a", 2), kv("c", 1), kv("a", 3), kv("b", 2)];
        keep_last_values(&mut all);
        assert_eq!(all, [kv("c", 1), kv("a", 3), kv("b", 2)]);
        let mut none: Vec<KeyValue> = vec![];
        keep_last_values(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn the_bound_holds_and_drops_are_counted() {
        let queue = Queue::new("traces", 2);
        assert!(queue.admit() && queue.admit());
        assert!(!queue.admit());
        queue.taken(1);
        assert!(queue.admit());
        queue.settle(
            3,
            &Err(opentelemetry_sdk::error::OTelSdkError::InternalFailure("refused".into())),
        );
        assert_eq!(queue.dropped(), (1, 3));
    }

    #[test]
    fn taking_more_than_waits_stays_at_zero() {
        let queue = Queue::new("logs", 1);
        queue.taken(5);
        assert!(queue.admit());
        assert!(!queue.admit());
    }
}
