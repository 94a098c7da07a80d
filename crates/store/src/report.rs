//! What recovery and checks have to say about the files.

use std::path::{Path, PathBuf};

/// What sort of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// Bytes are not what was written. What they held is lost; everything else is served.
    Damaged,
    /// Bytes are not what was written, but what they held is kept twice, and nothing is lost.
    Mended,
    /// The log ended within a write that was never acknowledged. It was cut off; or another process
    /// is just writing it.
    Torn,
    /// A file that the manifest names is not there.
    Missing,
    /// A file that no manifest names: left behind by a crash, and removed.
    Leftover,
    /// A request in the log is whole but could not be decoded.
    Undecodable,
}

/// One thing that recovery or a check found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What sort of thing.
    pub kind: FindingKind,
    /// In one line.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(path: &Path, kind: FindingKind, detail: impl Into<String>) -> Self {
        Self { path: path.to_owned(), kind, detail: detail.into() }
    }

    /// Whether acknowledged data may be lost.
    pub fn is_loss(&self) -> bool {
        matches!(self.kind, FindingKind::Damaged | FindingKind::Missing | FindingKind::Undecodable)
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.detail)
    }
}

/// What opening a store found and did.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Recovery {
    /// Requests read back from the log.
    pub requests: u64,
    /// Rows read back from the log.
    pub rows: u64,
    /// Bytes of the log's files.
    pub wal_bytes: u64,
    /// Segments opened.
    pub segments: u64,
    /// Everything that was not as it should be. Empty after a clean stop.
    pub findings: Vec<Finding>,
}
