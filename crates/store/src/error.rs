//! What can go wrong in the store, in one line each.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lacuna_signal::batch::BatchError;

/// Which budget a write ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BusyReason {
    /// More bytes wait for the disk than [`Options::queue_bytes`](crate::Options::queue_bytes).
    Queue,
    /// Rows in memory fill [`Options::memory_bytes`](crate::Options::memory_bytes).
    Memory,
    /// Files fill [`Options::disk_bytes`](crate::Options::disk_bytes).
    DiskBudget,
    /// The file system is full, or has less left than
    /// [`Options::disk_reserve_bytes`](crate::Options::disk_reserve_bytes).
    DiskFull,
    /// Answers that are being put together fill
    /// [`Options::query_bytes`](crate::Options::query_bytes).
    Answers,
}

impl std::fmt::Display for BusyReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queue => "too many writes wait for the disk",
            Self::Memory => "the memory budget is used up",
            Self::DiskBudget => "the disk budget is used up",
            Self::DiskFull => "the disk is full",
            Self::Answers => "the memory for answers is used up",
        })
    }
}

/// Why the store refused or failed. Cheap to clone: a failed group commit answers every writer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process holds the data folder.
    #[error("{}: the data folder is in use by another process{holder}", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
        /// ` (pid 123)`, or empty if it is not known.
        holder: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// A file does not hold what was written to it.
    #[error("{}: damaged: {detail}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A file was written by a Lacuna whose format this build does not read.
    #[error("{}: format version {found}, this build reads version {known}", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this build reads.
        known: u32,
    },
    /// Not now: try again after the given time. Nothing was stored.
    #[error("{reason}, retry in {} ms", retry_after.as_millis())]
    Busy {
        /// The budget that is used up.
        reason: BusyReason,
        /// When a retry has a chance.
        retry_after: Duration,
    },
    /// One request is larger than [`Options::frame_bytes`](crate::Options::frame_bytes).
    #[error("a request of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Size of the request.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The store was opened to be read only.
    #[error("the store was opened to be read only")]
    ReadOnly,
    /// Another process replaced segments again and again while they were to be read.
    #[error("{}: another process changes the data faster than it can be read", path.display())]
    Changing {
        /// The data folder.
        path: PathBuf,
    },
    /// The store has been closed, or is closing.
    #[error("the store is closed")]
    Closed,
    /// Background work panicked: a defect.
    #[error("background work of the store panicked")]
    Panicked,
    /// Rows do not fit their schema.
    #[error("rows do not fit their schema: {0}")]
    Batch(Arc<BatchError>),
    /// A segment could not be encoded.
    #[error("cannot encode a segment: {0}")]
    Encode(Arc<parquet::errors::ParquetError>),
}

impl StoreError {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), action, source: Arc::new(source) }
    }

    pub(crate) fn corrupt(path: &Path, detail: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), detail: detail.into() }
    }

    pub(crate) fn busy(reason: BusyReason, retry_after: Duration) -> Self {
        Self::Busy { reason, retry_after }
    }

    /// Whether the file system had no room for a write.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_disk_full(source),
            Self::Busy { reason, .. } => *reason == BusyReason::DiskFull,
            _ => false,
        }
    }
}

/// Whether `error` says that there is no room: full file system, quota or file-size limit.
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl From<BatchError> for StoreError {
    fn from(error: BatchError) -> Self {
        Self::Batch(Arc::new(error))
    }
}

impl From<arrow::error::ArrowError> for StoreError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Batch(Arc::new(BatchError::Arrow(error)))
    }
}
