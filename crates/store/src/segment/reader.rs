//! A segment being read.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use lacuna_signal::{Batch, SignalKind, TraceId};

use super::blocks::BlockFile;
use super::codec::{Codec, RowReader};
use super::index::{self, Directory};
use super::postings::{posting_hash, rows_of_pages};
use super::table::{Table, damaged};
use super::{INDEX_EXTENSION, PAGE_ROWS, WINDOW_PAGES, file_path};
use crate::bounds::{TimeBounds, TimeRange};
use crate::calls::{Calls, codec};
use crate::error::StoreError;
use crate::files::{Files, ReadFile};
use crate::lookup::{Lookup, Term};
use crate::manifest::SegmentMeta;
use crate::part::{Filter, Part, Source, Want, Window};
use crate::rows::RowSet;
use crate::summary::Summary;
use crate::trace_index::trace_hash;

/// Immutable rows of one kind on disk.
pub struct Segment {
    meta: SegmentMeta,
    index_path: std::path::PathBuf,
    directory: Directory,
    traces: Table,
    values: Table,
    index_file: Arc<dyn ReadFile>,
    data: BlockFile,
    reader: Arc<dyn RowReader>,
    summary: OnceLock<Arc<Summary>>,
    apart: AtomicBool,
}

impl Segment {
    /// Opens segment `id` in `folder`.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if its index or the data file's foot is not as written.
    pub fn open(
        files: &dyn Files,
        codec: &dyn Codec,
        folder: &Path,
        id: u64,
    ) -> Result<Self, StoreError> {
        let index_path = file_path(folder, id, INDEX_EXTENSION);
        let index = index::open(files, &index_path)?;
        let directory = index.directory;
        let mut meta = directory.meta.clone();
        let kind = meta.kind().ok_or_else(|| {
            StoreError::corrupt(&index_path, "holds signals of a kind that is not known")
        })?;
        let size = files.open(&index_path).and_then(|file| file.size());
        meta.index_bytes = size.map_err(|e| StoreError::io(&index_path, "read", e))?;
        let data_path = file_path(folder, id, codec.extension());
        let file = files
            .open(&data_path)
            .map_err(|error| StoreError::corrupt(&data_path, format!("cannot open: {error}")))?;
        let crcs = Arc::from(directory.crcs.as_slice());
        let data = BlockFile::new(&data_path, file, meta.data_bytes, crcs);
        let reader = codec.open(kind, data.clone())?;
        Ok(Self {
            meta,
            index_path,
            directory,
            traces: index.traces,
            values: index.values,
            index_file: index.file,
            data,
            reader,
            summary: OnceLock::new(),
            apart: AtomicBool::new(false),
        })
    }

    /// As the manifest lists it.
    pub fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// What it holds.
    pub fn kind(&self) -> SignalKind {
        // Opening made sure that the kind is known.
        self.meta.kind().unwrap_or(SignalKind::Spans)
    }

    /// Keeps it out of merges from now on, because it is damaged or its neighbour is.
    pub fn exclude_from_merges(&self) {
        self.apart.store(true, Ordering::Relaxed);
    }

    /// Whether it may be merged.
    pub fn may_merge(&self) -> bool {
        !self.apart.load(Ordering::Relaxed)
    }

    /// Reads every byte of both files; what is damaged.
    pub fn verify(&self) -> Vec<StoreError> {
        let mut errors = self.data.verify();
        let index = self.traces.verify().into_iter().chain(self.values.verify());
        errors.extend(index.map(damaged(&self.index_path)));
        errors.extend(self.calls().err());
        errors
    }

    /// First and last minute of which [`Self::calls`] say anything; `None` if there are none.
    pub fn call_minutes(&self) -> Option<(i64, i64)> {
        self.directory.calls.map(|at| (at.first, at.last))
    }

    /// What the spans add up to, read from the disk each time; `None` if that was not written down,
    /// which [`crate::calls::gather`] can make good.
    pub fn calls(&self) -> Result<Option<Calls>, StoreError> {
        let Some(at) = self.directory.calls else { return Ok(None) };
        let damaged = |detail: String| StoreError::corrupt(&self.index_path, detail);
        let within = at.start.checked_add(at.len).is_some_and(|end| end <= self.meta.index_bytes);
        let mut bytes = vec![0; if within { at.len as usize } else { 0 }];
        self.index_file
            .read_at(&mut bytes, at.start)
            .map_err(|error| damaged(format!("cannot read the sums of calls: {error}")))?;
        if crc32fast::hash(&bytes) != at.crc {
            return Err(damaged("the checksum of the sums of calls does not match".to_owned()));
        }
        let calls = codec::decode(&bytes);
        calls.map(Some).ok_or_else(|| damaged("the sums of calls cannot be read".to_owned()))
    }

    fn term(&self, term: &Term) -> Result<Option<RowSet>, StoreError> {
        let schema = self.reader.schema();
        if term.arrays.iter().any(|name| schema.index_of(name).is_ok()) {
            return Ok(None);
        }
        let mut rows = RowSet::default();
        for column in &term.columns {
            if self.directory.unindexed.contains(column) {
                return Ok(None);
            }
            self.values
                .lookup(posting_hash(column, &term.text), |pages| {
                    rows = rows.or(&rows_of_pages(pages, self.meta.rows));
                })
                .map_err(damaged(&self.index_path))?;
        }
        Ok(Some(rows))
    }
}

impl Part for Segment {
    fn rows(&self) -> u32 {
        self.meta.rows
    }

    fn bounds(&self) -> TimeBounds {
        self.meta.bounds
    }

    fn frames(&self) -> std::ops::Range<u64> {
        self.meta.wal_first..self.meta.wal_end
    }

    fn schema(&self) -> SchemaRef {
        self.reader.schema()
    }

    fn trace_rows(&self, id: TraceId) -> Result<RowSet, StoreError> {
        let mut ranges = Vec::new();
        self.traces
            .lookup(trace_hash(&id.0), |runs| {
                let rows = self.meta.rows;
                let within = |run: &Range<u32>| run.start.min(rows)..run.end.min(rows);
                ranges.extend(runs.iter().map(within));
            })
            .map_err(damaged(&self.index_path))?;
        Ok(RowSet::from_unsorted(ranges))
    }

    fn candidates(&self, lookup: &Lookup) -> Result<Option<RowSet>, StoreError> {
        let mut rows: Option<RowSet> = None;
        for term in &lookup.terms {
            if let Some(found) = self.term(term)? {
                rows = Some(rows.map_or(found.clone(), |rows| rows.and(&found)));
            }
            if rows.as_ref().is_some_and(RowSet::is_empty) {
                break;
            }
        }
        Ok(rows)
    }

    fn windows(&self) -> Vec<Window> {
        let step = PAGE_ROWS * WINDOW_PAGES as u32;
        let starts = (0..self.meta.rows).step_by(step as usize);
        let windows = starts.zip(self.directory.pages.chunks(WINDOW_PAGES));
        windows
            .map(|(start, pages)| Window {
                rows: RowSet::range(start..start.saturating_add(step).min(self.meta.rows)),
                bounds: pages.iter().copied().reduce(TimeBounds::join).unwrap_or(self.meta.bounds),
            })
            .collect()
    }

    fn pages(&self) -> &[TimeBounds] {
        &self.directory.pages
    }

    fn read(&self, rows: &RowSet, want: Want<'_>) -> Result<Batch, StoreError> {
        let everything = Filter { range: TimeRange::ALL, selector: None };
        self.reader.read(rows, want, everything)
    }

    fn read_where(
        &self,
        rows: &RowSet,
        want: Want<'_>,
        filter: Filter<'_>,
    ) -> Result<Batch, StoreError> {
        let inside = self.meta.bounds.within(filter.range);
        let range = if inside { TimeRange::ALL } else { filter.range };
        self.reader.read(rows, want, Filter { range, ..filter })
    }

    fn source(&self, rows: &RowSet) -> Result<Source<'_>, StoreError> {
        Ok(Source::Asked(self.read(rows, Want::All)?))
    }

    fn summary(&self) -> Result<Arc<Summary>, StoreError> {
        if let Some(summary) = self.summary.get() {
            return Ok(summary.clone());
        }
        let summary = self.directory.read_summary().map_err(damaged(&self.index_path))?;
        Ok(self.summary.get_or_init(|| Arc::new(summary)).clone())
    }
}
