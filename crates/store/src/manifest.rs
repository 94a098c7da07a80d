//! The manifest: which segments there are, and up to where the log is in them.
//!
//! One line of head (`lacuna-store`, format version, CRC-32 of what follows in hex), then JSON.
//! It is only ever replaced as a whole, by renaming.

use std::path::{Path, PathBuf};

use lacuna_signal::SignalKind;
use serde::{Deserialize, Serialize};

use crate::bounds::TimeBounds;
use crate::error::StoreError;
use crate::files::Files;
use crate::wal::frame::{kind_code, kind_of};

/// Name of the manifest in the data folder.
pub const FILE_NAME: &str = "MANIFEST";
const MAGIC: &str = "lacuna-store";
/// Version of the store's format that this build writes.
pub const VERSION: u32 = 1;

/// A segment, as the manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMeta {
    /// Number, never used again; also in the file names.
    pub id: u64,
    /// What it holds: 0 spans, 1 logs, 2 points.
    #[serde(rename = "kind")]
    pub kind_code: u8,
    /// Rows.
    pub rows: u32,
    /// Bytes of the Parquet file.
    pub data_bytes: u64,
    /// Bytes of the side index.
    pub index_bytes: u64,
    /// Bounds of the rows' times.
    pub bounds: TimeBounds,
    /// How many merges it went through at most.
    pub level: u32,
    /// First log frame whose rows are in it.
    pub wal_first: u64,
    /// One past the last such frame.
    pub wal_end: u64,
    /// Numbers of the segments that were merged into it.
    pub replaces: Vec<u64>,
    /// When its newest rows were written to a segment, nanoseconds since the epoch; 0 if an older
    /// version wrote it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub written: i64,
}

fn is_zero(written: &i64) -> bool {
    *written == 0
}

impl SegmentMeta {
    /// A segment of `kind`; everything else is zero.
    pub fn new(id: u64, kind: SignalKind) -> Self {
        Self {
            id,
            kind_code: kind_code(kind),
            rows: 0,
            data_bytes: 0,
            index_bytes: 0,
            bounds: TimeBounds { min: 0, max: 0 },
            level: 0,
            wal_first: 0,
            wal_end: 0,
            replaces: Vec::new(),
            written: 0,
        }
    }

    /// What it holds; `None` if a newer version knows more kinds.
    pub fn kind(&self) -> Option<SignalKind> {
        kind_of(self.kind_code)
    }

    /// The time that retention goes by at `now`: of its newest row, or, if that came from a clock
    /// that was ahead, when the row was written.
    pub fn newest(&self, now: i64) -> i64 {
        let TimeBounds { min, max } = self.bounds;
        // If all rows are later than their writing, it may be our own clock that was behind.
        let trusted =
            self.written == 0 || max <= self.written || (min > self.written && max <= now);
        if trusted { max } else { self.written }
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.data_bytes + self.index_bytes
    }
}

/// The manifest's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Rows of log frames below this number are in segments.
    pub floor: u64,
    /// The next segment's number.
    pub next_segment: u64,
    /// All segments, by number.
    pub segments: Vec<SegmentMeta>,
}

/// What stands in a data folder's manifest.
#[derive(Debug)]
pub enum Loaded {
    /// No manifest: a new store.
    Absent,
    /// A whole one.
    Manifest(Manifest),
    /// Its bytes are not as written.
    Damaged(String),
}

/// Where the manifest of the store in `dir` is.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(FILE_NAME)
}

/// Reads the manifest of the store in `dir`.
pub fn load(files: &dyn Files, dir: &Path) -> Result<Loaded, StoreError> {
    let path = path(dir);
    let bytes = match files.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Loaded::Absent),
        Err(error) => return Err(StoreError::io(&path, "read", error)),
    };
    match parse(&bytes) {
        Ok(manifest) => Ok(Loaded::Manifest(manifest)),
        Err(Unreadable::Newer(found)) => {
            Err(StoreError::OtherFormat { path, found, known: VERSION })
        }
        Err(Unreadable::Damaged(why)) => Ok(Loaded::Damaged(why)),
    }
}

/// Replaces the manifest of the store in `dir`.
pub fn save(files: &dyn Files, dir: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let path = path(dir);
    let bytes = encode(manifest)
        .map_err(|error| StoreError::io(&path, "encode", std::io::Error::other(error)))?;
    files.replace(&path, &bytes).map_err(|error| StoreError::io(&path, "replace", error))
}

fn encode(manifest: &Manifest) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec_pretty(manifest)?;
    let mut bytes = format!("{MAGIC} {VERSION} {:08x}\n", crc32fast::hash(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

enum Unreadable {
    Newer(u32),
    Damaged(String),
}

fn parse(bytes: &[u8]) -> Result<Manifest, Unreadable> {
    let damaged = |why: &str| Unreadable::Damaged(why.to_owned());
    let end = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("no head line"))?;
    let (head, body) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| damaged("the head line is not text"))?;
    let mut words = head.split(' ');
    let (magic, version, crc) = (words.next(), words.next(), words.next());
    if magic != Some(MAGIC) || words.next().is_some() {
        return Err(damaged("not a store's manifest"));
    }
    let crc = crc.and_then(|crc| u32::from_str_radix(crc, 16).ok());
    if crc != Some(crc32fast::hash(body)) {
        return Err(damaged("the checksum does not match"));
    }
    match version.and_then(|version| version.parse().ok()) {
        Some(VERSION) => {}
        Some(newer) if newer > VERSION => return Err(Unreadable::Newer(newer)),
        _ => return Err(damaged("no version")),
    }
    serde_json::from_slice(body).map_err(|error| Unreadable::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let bounds = TimeBounds { min: i64::MIN, max: i64::MAX };
        let segments = vec![SegmentMeta { bounds, ..SegmentMeta::new(3, SignalKind::Logs) }];
        Manifest { floor: u64::MAX, next_segment: 4, segments }
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let bytes = encode(&sample()).unwrap();
        assert_eq!(parse(&bytes).ok(), Some(sample()));
    }

    #[test]
    fn finds_every_flipped_bit_and_every_cut() {
        let bytes = encode(&sample()).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                // A version that reads as another digit is a newer format; hex has two cases.
                let same = parse(&other).is_ok_and(|m| m == sample());
                assert!(parse(&other).is_err() || same, "byte {at} bit {bit}");
            }
            assert!(parse(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
