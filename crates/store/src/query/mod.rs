//! The verbs by which the rest of Lacuna reads the store.
//!
//! A verb takes a snapshot of the parts (a few reference counts), so it sees one state of the
//! store, whatever is flushed, merged or removed meanwhile. Damaged places are reported and the
//! rest is answered.

mod calls;
mod catalogue;
mod edges;
mod newest;
mod plan;
mod scan;
mod series;
mod together;
mod trace;
mod traces;

pub use calls::{MinuteCalls, OperationCalls};
pub use catalogue::{AttributeKey, AttributeValue, MetricMetadata, Operation, Service};
pub use edges::{Edge, EdgeKind, Edges};
pub(crate) use edges::{Names, causes, span_key};
pub use scan::Scan;
pub use series::{MetricSeries, Series, SeriesAttribute, SeriesKey};
pub use together::Traces;
pub use traces::TraceMatch;
