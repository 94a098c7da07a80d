//! How a store behaves, and by which budgets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lacuna_signal::{Batch, SignalKind};

use crate::files::{Files, OsFiles};

/// Turns an OTLP protobuf request back into rows when the log is replayed. It must give the same
/// rows as those that were appended with the request.
pub type Decoder = Arc<dyn Fn(SignalKind, Bytes) -> Result<Batch, String> + Send + Sync>;

/// Wall-clock time in nanoseconds since the epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Settings of a store. `Options::default()` suits a machine with a few GiB to spare.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Memory for what came and is not in segments yet, in bytes: rows of all kinds, and requests
    /// from [`Store::admit`](crate::Store::admit) on, at twice their bodies. Requests are refused
    /// above it. What the process takes besides does not grow with the load: a flush and a merge
    /// some 100 bytes for each of their rows, queries what their answers have. Default 512 MiB.
    pub memory_bytes: usize,
    /// Memory for answers, in bytes: what verbs gather for questions
    /// ([`Store::question`](crate::Store::question)), all together. Answers are cut there. Default
    /// 256 MiB.
    pub query_bytes: usize,
    /// When rows in memory reach this many bytes they are written to a segment. Default 256 MiB.
    pub flush_bytes: usize,
    /// Rows are written to a segment at the latest this long after they came. Default 10 min.
    pub flush_after: Duration,
    /// Bytes that may wait for the disk. Default 64 MiB.
    pub queue_bytes: usize,
    /// Largest request that is taken. Default 64 MiB.
    pub frame_bytes: usize,
    /// Compresses requests in the log with zstd at this level; `None` writes them as they are.
    /// Default -3: a tenth of the bytes for a sixth of the processor time that the kernel takes to
    /// copy them uncompressed.
    pub wal_zstd_level: Option<i32>,
    /// A log file is closed when it has this many bytes. Default 64 MiB.
    pub wal_file_bytes: u64,
    /// All files together. Writes are refused above it. `None`: no limit.
    pub disk_bytes: Option<u64>,
    /// Writes are refused when the file system has less than this left. Default 64 MiB.
    pub disk_reserve_bytes: u64,
    /// Segments whose newest row is older than this are removed. `None`: kept.
    pub retain_for: Option<Duration>,
    /// The oldest segments are removed while all segments together have more bytes. `None`: kept.
    pub retain_bytes: Option<u64>,
    /// Segments of one kind and about one size are merged when there are this many. Default 6.
    pub merge_fan_in: usize,
    /// Segments of at least this many rows are not merged any more. A merge takes about 100 bytes
    /// of memory a row. Default 2 million.
    pub merge_max_rows: u64,
    /// Runs merging and retention in the background. Off, [`Store::compact`](crate::Store::compact)
    /// and [`Store::enforce_retention`](crate::Store::enforce_retention) are the only ways.
    pub background: bool,
    /// A verb that returns one trace, or its logs, returns at most this many rows. Default 100,000.
    pub trace_rows: usize,
    /// Who calls whom and how often is found by reading spans if no more than this many are in
    /// range; beyond, what segments say that theirs add up to is taken. Default 1 million.
    pub summary_rows: usize,
    /// Reads the log back.
    pub decoder: Decoder,
    /// The file system.
    pub files: Arc<dyn Files>,
    /// The clock that retention by age goes by.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            query_bytes: 256 << 20,
            flush_bytes: 256 << 20,
            flush_after: Duration::from_secs(600),
            queue_bytes: 64 << 20,
            frame_bytes: 64 << 20,
            wal_zstd_level: Some(-3),
            wal_file_bytes: 64 << 20,
            disk_bytes: None,
            disk_reserve_bytes: 64 << 20,
            retain_for: None,
            retain_bytes: None,
            merge_fan_in: 6,
            merge_max_rows: 2_000_000,
            background: true,
            trace_rows: 100_000,
            summary_rows: 1_000_000,
            decoder: Arc::new(decode_otlp),
            files: Arc::new(OsFiles),
            clock: Arc::new(system_time),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("memory_bytes", &self.memory_bytes)
            .field("flush_bytes", &self.flush_bytes)
            .field("disk_bytes", &self.disk_bytes)
            .field("retain_for", &self.retain_for)
            .field("retain_bytes", &self.retain_bytes)
            .finish_non_exhaustive()
    }
}

fn decode_otlp(kind: SignalKind, body: Bytes) -> Result<Batch, String> {
    match lacuna_signal::otlp::decode(kind, body) {
        Ok(decoded) => Ok(decoded.batch),
        Err(error) => Err(error.to_string()),
    }
}

fn system_time() -> i64 {
    use std::time::SystemTime;
    let nanos = |d: Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => nanos(since),
        Err(before) => -nanos(before.duration()),
    }
}
