//! What Lacuna says of itself, on `/metrics` in the OpenMetrics text format.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use lacuna_signal::SignalKind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::connections::Connections;

/// The label that tells the three kinds of signal apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SignalLabel {
    signal: &'static str,
}

impl From<SignalKind> for SignalLabel {
    fn from(kind: SignalKind) -> Self {
        Self { signal: kind.name() }
    }
}

/// A limit on requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes as they come.
    Body,
    /// Bytes after decompression.
    Decompressed,
    /// Attributes of one item.
    Attributes,
    /// Bytes of one attribute.
    AttributeLength,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    signal: &'static str,
    limit: &'static str,
}

/// The label that tells ports apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabel {
    port: &'static str,
}

/// The labels that tell channels apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChannelLabel {
    /// `alertmanager` or `webhook`.
    pub channel: &'static str,
    /// Host and port.
    pub target: String,
}

/// Lacuna's own metrics.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    accepted: Family<SignalLabel, Counter>,
    rejected: Family<SignalLabel, Counter>,
    dropped_attributes: Family<SignalLabel, Counter>,
    dropped_links: Counter,
    limited: Family<LimitLabels, Counter>,
    received_bytes: Family<SignalLabel, Counter>,
    requests: Family<SignalLabel, Counter>,
    refused_requests: Family<SignalLabel, Counter>,
    acknowledge: Histogram,
    notified: Family<ChannelLabel, Counter>,
    not_notified: Family<ChannelLabel, Counter>,
    rejected_notices: Family<ChannelLabel, Counter>,
    ready: Gauge<u64, AtomicU64>,
    connections: Family<PortLabel, Gauge<u64, AtomicU64>>,
    refused_connections: Family<PortLabel, Counter>,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("lacuna");
        let accepted = Family::default();
        registry.register(
            "ingest_items",
            "Spans, log records and metric points made durable",
            Family::clone(&accepted),
        );
        let rejected = Family::default();
        registry.register(
            "ingest_rejected_items",
            "Spans, log records and metric points that could not be read",
            Family::clone(&rejected),
        );
        let dropped_attributes = Family::default();
        registry.register(
            "ingest_dropped_attributes",
            "Attributes beyond what a batch keeps",
            Family::clone(&dropped_attributes),
        );
        let dropped_links = Counter::default();
        registry.register(
            "ingest_dropped_links",
            "Span links without a valid id, left out of their spans",
            dropped_links.clone(),
        );
        let limited = Family::default();
        registry.register(
            "ingest_limited",
            "Requests refused, attributes dropped and attributes cut because of a limit",
            Family::clone(&limited),
        );
        let received_bytes = Family::default();
        registry.register_with_unit(
            "ingest_received",
            "Size of OTLP requests after decompression",
            Unit::Bytes,
            Family::clone(&received_bytes),
        );
        let requests = Family::default();
        registry.register(
            "ingest_requests",
            "OTLP requests acknowledged",
            Family::clone(&requests),
        );
        let refused_requests = Family::default();
        registry.register(
            "ingest_refused_requests",
            "OTLP requests answered with an error",
            Family::clone(&refused_requests),
        );
        let acknowledge = Histogram::new(exponential_buckets(0.000_25, 2.0, 14));
        registry.register_with_unit(
            "ingest_acknowledge_duration",
            "Time from a request's bytes to its acknowledgement, the sync to disk included",
            Unit::Seconds,
            acknowledge.clone(),
        );
        let notified = Family::default();
        registry.register(
            "notifications_sent",
            "Changes of findings that a channel has been told",
            Family::clone(&notified),
        );
        let not_notified = Family::default();
        registry.register(
            "notifications_failed",
            "Attempts to tell a channel that failed",
            Family::clone(&not_notified),
        );
        let rejected_notices = Family::default();
        registry.register(
            "notifications_rejected",
            "Requests about one finding that a channel will never take",
            Family::clone(&rejected_notices),
        );
        let ready = Gauge::default();
        registry.register(
            "ready",
            "1 when the monitor knows what it has to know of the past",
            ready.clone(),
        );
        let connections = Family::default();
        registry.register("connections", "Connections that are open", Family::clone(&connections));
        let refused_connections = Family::default();
        registry.register(
            "connections_refused",
            "Connections closed at once, because as many as may be were open",
            Family::clone(&refused_connections),
        );
        Self {
            registry,
            accepted,
            rejected,
            dropped_attributes,
            dropped_links,
            limited,
            received_bytes,
            requests,
            refused_requests,
            acknowledge,
            notified,
            not_notified,
            rejected_notices,
            ready,
            connections,
            refused_connections,
        }
    }
}

impl Telemetry {
    /// Counts an acknowledged request.
    pub fn acknowledged(
        &self,
        kind: SignalKind,
        items: u64,
        rejected: &lacuna_signal::otlp::Rejected,
        bytes: u64,
        took: Duration,
    ) {
        let label = SignalLabel::from(kind);
        self.requests.get_or_create(&label).inc();
        self.accepted.get_or_create(&label).inc_by(items);
        self.rejected.get_or_create(&label).inc_by(rejected.items);
        self.dropped_attributes.get_or_create(&label).inc_by(rejected.attributes);
        self.dropped_links.inc_by(rejected.links);
        self.received_bytes.get_or_create(&label).inc_by(bytes);
        self.acknowledge.observe(took.as_secs_f64());
    }

    /// Counts that a limit took effect `times` times.
    pub fn limited(&self, kind: SignalKind, limit: Limit, times: u64) {
        if times == 0 {
            return;
        }
        let limit = match limit {
            Limit::Body => "body",
            Limit::Decompressed => "decompressed",
            Limit::Attributes => "attributes",
            Limit::AttributeLength => "attribute_length",
        };
        let labels = LimitLabels { signal: kind.name(), limit };
        self.limited.get_or_create(&labels).inc_by(times);
    }

    /// Counts a request that was answered with an error.
    pub fn refused(&self, kind: SignalKind) {
        self.refused_requests.get_or_create(&kind.into()).inc();
    }

    /// Counts changes that a channel has been told.
    pub fn notified(&self, label: &ChannelLabel, changes: u64) {
        self.notified.get_or_create(label).inc_by(changes);
    }

    /// Counts an attempt to tell a channel that failed.
    pub fn not_notified(&self, label: &ChannelLabel) {
        self.not_notified.get_or_create(label).inc();
    }

    /// Counts a finding that a channel will never take.
    pub fn rejected_notice(&self, label: &ChannelLabel) {
        self.rejected_notices.get_or_create(label).inc();
    }

    /// What is counted of the connections to `port`.
    pub(crate) fn connections(&self, port: &'static str) -> Connections {
        let label = PortLabel { port };
        Connections {
            open: self.connections.get_or_create(&label).clone(),
            refused: self.refused_connections.get_or_create(&label).clone(),
        }
    }

    /// Says whether history has been replayed.
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(u64::from(ready));
    }

    /// The OpenMetrics text, with `more` families (already in that format) before its end.
    pub fn encode(&self, more: &str) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode_registry(&mut out, &self.registry)?;
        out.write_str(more)?;
        text::encode_eof(&mut out)?;
        Ok(out)
    }
}

/// The content type of [`Telemetry::encode`]'s text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Shared by everything that counts.
pub type SharedTelemetry = Arc<Telemetry>;
