//! The side index: a file beside each data file that tells where to look.
//!
//! It has two tables ([`super::table`]), of traces and of values ([`super::postings`]), then sums of
//! calls ([`crate::calls`]), a directory with everything that is kept in memory, and a foot. `docs/format.md` has the bytes.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::PAGE_ROWS;
use super::blocks::BlockWriter;
use super::table::{Built, Shape, Table, put_varint, take_varint};
use crate::bounds::TimeBounds;
use crate::calls::{Calls, codec, worthwhile};
use crate::error::StoreError;
use crate::files::{Files, ReadFile};
use crate::manifest::SegmentMeta;
use crate::summary::Summary;

/// Last bytes of a side index.
const MAGIC: [u8; 8] = *b"LACUNAIX";
/// Version of the format that this build writes.
const VERSION: u32 = 3;
/// Length of the foot.
const FOOT: usize = 32;

/// What of a side index is kept in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Directory {
    /// The segment.
    pub meta: SegmentMeta,
    /// Columns whose values are not in the table of values.
    pub unindexed: Vec<String>,
    /// Bounds of the times of each page.
    pub pages: Vec<TimeBounds>,
    /// Checksums of the data file's blocks.
    pub crcs: Vec<u32>,
    /// JSON of the [`Summary`], compressed with zstd: read when the catalogue is asked for.
    pub summary: Vec<u8>,
    /// Where the sums of calls lie; `None` if there are none.
    pub calls: Option<CallsAt>,
    trace_offsets: Vec<u32>,
    value_start: u64,
    value_offsets: Vec<u32>,
}

/// Where a segment's [`Calls`] lie in its side index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallsAt {
    /// Their first byte.
    pub start: u64,
    /// How many bytes.
    pub len: u64,
    /// CRC-32 of these.
    pub crc: u32,
    /// The first minute that they say anything of.
    pub first: i64,
    /// The last.
    pub last: i64,
}

impl CallsAt {
    /// Numbers of which its section is made, each of 8 bytes.
    const NUMBERS: usize = 5;

    fn encode(&self) -> Vec<u8> {
        let Self { start, len, crc, first, last } = *self;
        let numbers: [u64; Self::NUMBERS] = [start, len, crc.into(), first as u64, last as u64];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let numbers: &[[u8; 8]; Self::NUMBERS] = numbers.try_into().ok()?;
        let [start, len, crc, first, last] = numbers.map(u64::from_le_bytes);
        let (first, last) = (first as i64, last as i64);
        let crc = u32::try_from(crc).ok().filter(|_| rest.is_empty())?;
        Some(Self { start, len, crc, first, last })
    }
}

/// The [`Calls`] of a segment as they are written.
#[derive(Debug, Default)]
pub struct CallBytes {
    bytes: Vec<u8>,
    minutes: (i64, i64),
}

impl CallBytes {
    /// Those of `calls`; nothing if they would take too much beside `rows` spans.
    pub fn new(calls: &Calls, rows: u32) -> std::io::Result<Self> {
        let bytes = codec::encode(calls)?;
        let minutes = calls.minutes().filter(|_| worthwhile(bytes.len(), rows));
        Ok(minutes.map(|minutes| Self { bytes, minutes }).unwrap_or_default())
    }
}

impl Directory {
    /// The directory of a segment with these tables.
    pub fn new(
        meta: SegmentMeta,
        unindexed: Vec<String>,
        pages: Vec<TimeBounds>,
        crcs: Vec<u32>,
        summary: &Summary,
        (traces, values): (&Built, &Built),
        calls: &CallBytes,
    ) -> std::io::Result<Self> {
        let json = serde_json::to_vec(summary)?;
        let (first, last) = calls.minutes;
        let start = (traces.bytes.len() + values.bytes.len()) as u64;
        let (len, crc) = (calls.bytes.len() as u64, crc32fast::hash(&calls.bytes));
        Ok(Self {
            calls: (len > 0).then_some(CallsAt { start, len, crc, first, last }),
            meta,
            unindexed,
            pages,
            crcs,
            summary: zstd::bulk::compress(&json, 3)?,
            trace_offsets: traces.offsets.clone(),
            value_start: traces.bytes.len() as u64,
            value_offsets: values.offsets.clone(),
        })
    }

    /// Reads the summary.
    pub fn read_summary(&self) -> Result<Summary, String> {
        let json = zstd::stream::decode_all(self.summary.as_slice()).map_err(|e| e.to_string())?;
        serde_json::from_slice(&json).map_err(|e| e.to_string())
    }

    fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut section = |bytes: &[u8]| {
            put_varint(&mut out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        };
        section(&serde_json::to_vec(&self.meta)?);
        section(&serde_json::to_vec(&self.unindexed)?);
        let mut pages = Vec::new();
        let mut last = 0i64;
        for page in &self.pages {
            put_varint(&mut pages, zigzag(page.min.wrapping_sub(last)));
            put_varint(&mut pages, page.max.wrapping_sub(page.min) as u64);
            last = page.min;
        }
        section(&pages);
        section(&self.crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect::<Vec<_>>());
        section(&self.summary);
        section(&offsets(&self.trace_offsets));
        section(&self.value_start.to_le_bytes());
        section(&offsets(&self.value_offsets));
        section(&self.calls.map(|calls| calls.encode()).unwrap_or_default());
        Ok(out)
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut section = || -> Option<&[u8]> {
            let len = usize::try_from(take_varint(&mut bytes)?).ok()?;
            let (section, rest) = bytes.split_at_checked(len)?;
            bytes = rest;
            Some(section)
        };
        let meta = serde_json::from_slice(section()?).ok()?;
        let unindexed = serde_json::from_slice(section()?).ok()?;
        let mut rest = section()?;
        let (mut pages, mut last) = (Vec::new(), 0i64);
        while !rest.is_empty() {
            let min = last.wrapping_add(unzigzag(take_varint(&mut rest)?));
            let max = min.wrapping_add(take_varint(&mut rest)? as i64);
            pages.push(TimeBounds { min, max });
            last = min;
        }
        let (crcs, _) = section()?.as_chunks::<4>();
        let crcs = crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect();
        let summary = section()?.to_vec();
        let trace_offsets = read_offsets(section()?)?;
        let value_start = u64::from_le_bytes(section()?.try_into().ok()?);
        let value_offsets = read_offsets(section()?)?;
        // Earlier versions end here.
        let calls = section().and_then(CallsAt::decode);
        Some(Self {
            calls,
            meta,
            unindexed,
            pages,
            crcs,
            summary,
            trace_offsets,
            value_start,
            value_offsets,
        })
    }
}

/// A signed number as an unsigned one that is small if it is near zero.
pub fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// [`zigzag`] undone.
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn offsets(offsets: &[u32]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = 0;
    for offset in offsets {
        put_varint(&mut out, u64::from(offset - last));
        last = *offset;
    }
    out
}

fn read_offsets(mut bytes: &[u8]) -> Option<Vec<u32>> {
    let (mut offsets, mut last) = (Vec::new(), 0u32);
    while !bytes.is_empty() {
        last = last.checked_add(u32::try_from(take_varint(&mut bytes)?).ok()?)?;
        offsets.push(last);
    }
    Some(offsets)
}

/// Writes a side index; its length in bytes.
pub fn write(
    out: Box<dyn crate::files::WriteFile>,
    directory: &Directory,
    traces: &Built,
    values: &Built,
    calls: &CallBytes,
) -> std::io::Result<u64> {
    let mut out = BlockWriter::new(out);
    out.write_all(&traces.bytes)?;
    out.write_all(&values.bytes)?;
    out.write_all(&calls.bytes)?;
    let start = out.position();
    let bytes = directory.encode()?;
    out.write_all(&bytes)?;
    let mut foot = Vec::with_capacity(FOOT);
    foot.extend_from_slice(&start.to_le_bytes());
    foot.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    foot.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    foot.extend_from_slice(&VERSION.to_le_bytes());
    foot.extend_from_slice(&MAGIC);
    out.write_all(&foot)?;
    Ok(out.finish()?.0)
}

/// A side index, opened.
pub struct Index {
    /// What is kept in memory.
    pub directory: Directory,
    /// From the hash of a trace id to the trace's rows.
    pub traces: Table,
    /// From the hash of a column and value to the pages that have it.
    pub values: Table,
    /// The file.
    pub file: Arc<dyn ReadFile>,
}

/// Opens the side index `path`.
pub fn open(files: &dyn Files, path: &Path) -> Result<Index, StoreError> {
    let damaged = |detail: &str| StoreError::corrupt(path, detail);
    let file = files.open(path).map_err(|error| damaged(&format!("cannot open: {error}")))?;
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        let read = file.read_at(&mut bytes, at);
        read.map_err(|error| damaged(&format!("cannot read: {error}"))).map(|()| bytes)
    };
    let size = file.size().map_err(|error| damaged(&format!("cannot read: {error}")))?;
    let foot_at = size.checked_sub(FOOT as u64).ok_or_else(|| damaged("too short for an index"))?;
    let foot = read(foot_at, FOOT)?;
    let word = |at: usize| -> u64 {
        foot.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    if foot[24..] != MAGIC {
        return Err(damaged("the foot is not as written"));
    }
    let (crc, version) = (word(16) as u32, (word(16) >> 32) as u32);
    let (start, len) = (word(0), word(8));
    if version != VERSION {
        // A damaged version is likelier to be some absurd number than a neighbour.
        return Err(if (1..=VERSION + 1).contains(&version) {
            StoreError::OtherFormat { path: path.to_owned(), found: version, known: VERSION }
        } else {
            damaged("the foot is not as written")
        });
    }
    if start.checked_add(len) != Some(foot_at) {
        return Err(damaged("the foot is not as written"));
    }
    let bytes = read(start, usize::try_from(len).unwrap_or(usize::MAX))?;
    if crc32fast::hash(&bytes) != crc {
        return Err(damaged("the directory's checksum does not match"));
    }
    let directory =
        Directory::decode(&bytes).ok_or_else(|| damaged("the directory cannot be read"))?;
    let file: Arc<dyn ReadFile> = file.clone();
    let rows = directory.meta.rows;
    let (traces, values) = (Shape::of_rows(rows), Shape::of_pages(rows.div_ceil(PAGE_ROWS)));
    Ok(Index {
        traces: Table::new(file.clone(), 0, directory.trace_offsets.clone(), traces),
        values: Table::new(
            file.clone(),
            directory.value_start,
            directory.value_offsets.clone(),
            values,
        ),
        directory,
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn signed_numbers_read_back(value: i64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Directory::decode(&bytes);
        }
    }
}
