//! What the store counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

use lacuna_signal::SignalKind;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A reading of the store's counters. All only rise while the store is open.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters themselves.
        #[derive(Debug, Default)]
        pub(crate) struct Meters {
            $(pub $name: AtomicU64,)*
        }

        impl Meters {
            pub fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Requests acknowledged.
    requests,
    /// Bytes of the requests acknowledged, before compression.
    request_bytes,
    /// Rows of spans acknowledged.
    span_rows,
    /// Rows of logs acknowledged.
    log_rows,
    /// Rows of points acknowledged.
    point_rows,
    /// Bytes written to the log.
    wal_bytes,
    /// Times that the log was synced: one for a group of requests.
    wal_syncs,
    /// Log files removed because their rows are in segments.
    wal_files_removed,
    /// Writes refused because a budget was used up.
    rejected_busy,
    /// Writes refused for their size.
    rejected_too_large,
    /// Writes that failed on the disk.
    write_failures,
    /// Segments written from memory.
    flushes,
    /// Flushes that failed and will be tried again.
    flush_failures,
    /// Merges finished.
    merges,
    /// Merges that failed.
    merge_failures,
    /// Segments removed by retention.
    segments_expired,
    /// Rows removed by retention.
    rows_expired,
    /// Bytes of segments and side indexes written.
    segment_bytes_written,
    /// Rows that scans and searches looked at.
    rows_read,
    /// Answers that were cut, or refused, for want of memory for answers.
    answers_short,
    /// Damaged places found, in any file.
    corruptions,
    /// Bytes of an unfinished write cut off the log at start.
    torn_bytes,
    /// Requests read back from the log at start.
    replayed_requests,
    /// Rows read back from the log at start.
    replayed_rows,
}

impl Meters {
    /// The rows acknowledged of `kind`.
    pub fn rows_of(&self, kind: SignalKind) -> &AtomicU64 {
        match kind {
            SignalKind::Spans => &self.span_rows,
            SignalKind::Logs => &self.log_rows,
            SignalKind::Points => &self.point_rows,
        }
    }
}

/// Adds `n`.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}
