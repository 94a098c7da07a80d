//! Reading the log back when a store opens.

use std::path::Path;

use bytes::Bytes;
use lacuna_signal::SignalKind;

use super::frame::{self, FLAG_ZSTD, FrameHead, HeadError, Item};
use super::{LogFile, parse_file_name};
use crate::error::StoreError;
use crate::files::Files;
use crate::report::{Finding, FindingKind};

/// The log's files in `folder`, oldest first.
pub fn log_files(files: &dyn Files, folder: &Path) -> Result<Vec<LogFile>, StoreError> {
    let entries = files.list(folder).map_err(|e| StoreError::io(folder, "list", e))?;
    let mut found: Vec<_> = entries
        .into_iter()
        .filter_map(|entry| {
            let first = parse_file_name(&entry.name)?;
            Some(LogFile { path: folder.join(&entry.name), first, bytes: entry.size })
        })
        .collect();
    found.sort_by_key(|file| file.first);
    Ok(found)
}

/// One request of the log.
#[derive(Debug, Clone)]
pub struct Request {
    /// Number of its frame.
    pub seq: u64,
    /// What it holds.
    pub kind: SignalKind,
    /// OTLP protobuf.
    pub body: Bytes,
}

/// What one log file holds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Whole requests, in order.
    pub requests: Vec<Request>,
    /// One more than the highest frame number seen.
    pub next: u64,
    /// Where an unfinished write begins, if the file ends with one.
    pub torn: Option<u64>,
    /// What is there may be a damaged frame as well as an unfinished one.
    pub doubtful: bool,
    /// What was found wrong.
    pub findings: Vec<Finding>,
}

/// Reads `file`: all requests whose numbers are `floor` or more. Damage is reported and skipped;
/// only a file that cannot be read at all, or that a newer Lacuna wrote, is an error.
pub fn read_file(files: &dyn Files, file: &LogFile, floor: u64) -> Result<Contents, StoreError> {
    let bytes = files.read(&file.path).map_err(|e| StoreError::io(&file.path, "read", e))?;
    let bytes = Bytes::from(bytes);
    let mut contents = Contents { next: file.first, ..Contents::default() };
    match frame::parse_file_head(&bytes) {
        Ok(_) => {}
        Err(HeadError::Short) => {
            // The file was being begun: nothing in it was acknowledged.
            contents.torn = Some(0);
            return Ok(contents);
        }
        Err(HeadError::Newer(found)) => {
            let path = file.path.clone();
            return Err(StoreError::OtherFormat { path, found, known: frame::VERSION });
        }
        Err(HeadError::Damaged) => contents.findings.push(Finding::new(
            &file.path,
            FindingKind::Damaged,
            "the file's head is not as written; its frames are read all the same",
        )),
    }
    for item in frame::scan(&bytes, frame::FILE_HEAD) {
        match item {
            Item::Frame(head, stored) => {
                contents.next = contents.next.max(head.seq.saturating_add(1));
                if head.seq < floor {
                    continue;
                }
                match body(&bytes, &head, stored) {
                    Ok(body) => {
                        contents.requests.push(Request { seq: head.seq, kind: head.kind, body });
                    }
                    Err(why) => contents.findings.push(Finding::new(
                        &file.path,
                        FindingKind::Damaged,
                        format!("frame {}: {why}", head.seq),
                    )),
                }
            }
            Item::Damage { offset, bytes } => contents.findings.push(Finding::new(
                &file.path,
                FindingKind::Damaged,
                format!("{bytes} bytes at offset {offset} are not as written; skipped"),
            )),
            Item::Mended { offset, what } => contents.findings.push(Finding::new(
                &file.path,
                FindingKind::Mended,
                format!(
                    "the {what} of the frame at offset {offset} is not as written; its copy served"
                ),
            )),
            Item::Torn { offset, known } => {
                contents.torn = Some(offset as u64);
                contents.doubtful = !known;
            }
        }
    }
    Ok(contents)
}

fn body(file: &Bytes, head: &FrameHead, stored: &[u8]) -> Result<Bytes, String> {
    if head.flags & FLAG_ZSTD == 0 {
        return Ok(file.slice_ref(stored));
    }
    zstd::bulk::decompress(stored, head.raw as usize)
        .map(Bytes::from)
        .map_err(|error| format!("cannot be decompressed: {error}"))
}
