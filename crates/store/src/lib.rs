//! Durable embedded store of telemetry.
//!
//! It uses `lacuna-signal` and nothing else of Lacuna. A [`Store`] takes OTLP requests with the rows
//! that were decoded from them, writes the requests to a write-ahead log, syncs it once for a group
//! of them, makes the rows visible to every query, and only then says so. Rows gather in memory and
//! move to immutable Parquet segments with a side index each, which are merged and expire in the
//! background. `docs/format.md` describes every byte and what each crash point leaves behind.
//!
//! The verbs are methods of [`Store`]: [`admit`](Store::admit), [`append`](Store::append), [`trace`](Store::trace),
//! [`find_traces`](Store::find_traces), [`scan`](Store::scan), [`newest`](Store::newest),
//! [`logs_of_trace`](Store::logs_of_trace), [`services`](Store::services),
//! [`operations`](Store::operations), [`attribute_keys`](Store::attribute_keys),
//! [`attribute_values`](Store::attribute_values), [`metrics`](Store::metrics),
//! [`series`](Store::series),
//! [`edges`](Store::edges), [`calls`](Store::calls), [`stats`](Store::stats). All block: async callers wrap them. Each has a
//! time and a row bound and tells in [`Found`] whether it was cut or met damage.

mod admit;
mod bounds;
mod calls;
mod check;
mod chunk;
mod code;
mod commit;
mod counters;
mod error;
pub mod files;
mod head;
mod imports;
mod lock;
mod lookup;
mod maintain;
mod manifest;
mod metric;
mod options;
mod packed;
mod part;
mod query;
mod question;
mod recover;
mod report;
mod rows;
mod segment;
mod state;
mod stats;
mod store;
mod summary;
mod tidy;
mod trace_index;
mod wake;
mod wal;

pub use admit::Admission;
pub use bounds::{Found, TimeBounds, TimeRange};
pub use calls::Latencies;
pub use check::Checked;
pub use counters::Counters;
pub use error::{BusyReason, StoreError};
pub use imports::Import;
pub use metric::MetricKey;
pub use options::{Clock, Decoder, Options};
pub use query::{
    AttributeKey, AttributeValue, Edge, EdgeKind, Edges, MetricMetadata, MetricSeries, MinuteCalls,
    Operation, OperationCalls, Scan, Series, SeriesAttribute, SeriesKey, Service, TraceMatch,
    Traces,
};
pub use report::{Finding, FindingKind, Recovery};
pub use stats::{KindStats, Stats};
pub use store::Store;
