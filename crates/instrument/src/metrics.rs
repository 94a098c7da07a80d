//! The crate's meter.

use crate::span::scope;
use opentelemetry::global;
use opentelemetry::metrics::Meter;

/// Meter of this crate's instruments. Instruments are made on first use, so they bind to the
/// provider that is global then: call `init` first.
pub(crate) fn meter() -> Meter {
    global::meter_with_scope(scope())
}

/// Bucket bounds in seconds for client operations, from the semantic conventions' advice for
/// `db.client.operation.duration`.
#[cfg(any(feature = "redis", feature = "kafka", feature = "postgres"))]
pub(crate) const CLIENT_SECONDS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
