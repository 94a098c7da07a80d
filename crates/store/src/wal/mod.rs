//! The write-ahead log: what is acknowledged is here first, and synced.
//!
//! A log is a row of files in the folder `wal`, each named by the number of its first frame. Frames
//! hold received OTLP requests as they came. A file is removed when the rows of all its frames are
//! in segments that the manifest names.

pub mod frame;
pub mod replay;
pub mod writer;

use std::path::{Path, PathBuf};

/// Extension of log files.
pub const EXTENSION: &str = "wal";

/// A log file on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Where it is.
    pub path: PathBuf,
    /// Number of its first frame.
    pub first: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// The path of the log file in `folder` that begins with frame `first`.
pub fn file_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.{EXTENSION}"))
}

/// Reads a log file's name back.
pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    if digits.len() != 20 { None } else { digits.parse().ok() }
}
