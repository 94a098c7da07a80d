//! Database client metrics, by the conventions. Those of the pool are in [`crate::pool`].

use crate::metrics::{CLIENT_SECONDS, meter};
use opentelemetry::metrics::Histogram;
use std::sync::OnceLock;

pub(crate) struct Metrics {
    pub(crate) operation: Histogram<f64>,
    pub(crate) transaction: Histogram<f64>,
}

pub(crate) fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let meter = meter();
        let seconds = |name: &'static str, about: &'static str| {
            let builder = meter.f64_histogram(name).with_unit("s").with_description(about);
            builder.with_boundaries(CLIENT_SECONDS.to_vec()).build()
        };
        Metrics {
            operation: seconds(
                "db.client.operation.duration",
                "Duration of database client operations",
            ),
            transaction: seconds(
                "lacuna.db.transaction.duration",
                "Time from BEGIN to the end of a transaction",
            ),
        }
    })
}
