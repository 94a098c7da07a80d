//! Rows by selector and time, as a stream of batches.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lacuna_signal::selector::Selector;
use lacuna_signal::{Batch, SignalKind};

use super::plan::{Planned, Reader};
use crate::bounds::{TimeBounds, TimeRange};
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::part::{Filter, Part, Want};
use crate::report::Finding;
use crate::store::Store;

/// Batches of selected rows, read as they are asked for. The rows are those that the store had
/// when the scan began, older parts first, in no particular order within a part.
///
/// After the last batch, [`Scan::cut`] and [`Scan::damaged`] tell whether that was all.
pub struct Scan {
    store: Store,
    reader: ScanReader,
    selector: Option<Selector>,
    range: TimeRange,
    columns: Option<Vec<String>>,
    left: usize,
    cut: bool,
}

struct ScanReader {
    parts: Vec<Arc<dyn Part>>,
    planned: std::vec::IntoIter<Planned>,
    ready: Vec<Batch>,
    damaged: Vec<Finding>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("left", &self.left).field("cut", &self.cut).finish()
    }
}

impl Store {
    /// Rows of `kind` in `range` that `selector` selects (all, without one), at most `rows`; with
    /// `columns`, only those columns, the ones that the rows lack left out.
    pub fn scan(
        &self,
        kind: SignalKind,
        selector: Option<&Selector>,
        range: TimeRange,
        columns: Option<&[&str]>,
        rows: usize,
    ) -> Result<Scan, StoreError> {
        self.scan_parts(self.shared().parts(kind), selector, range, columns, rows)
    }

    /// A position in the store: whatever is acknowledged from now on comes at or after it, and all
    /// that came before has been answered. It is good in later processes on the same folder too.
    pub fn position(&self) -> u64 {
        self.shared().answered.load(Ordering::Acquire)
    }

    /// Rows of `kind` in `range` that came at or after `position`, by the parts that hold them:
    /// `whole` asks for parts of which every row did, `!whole` for parts of which some rows may
    /// have come before. Both together give all that came since, and possibly more.
    pub fn scan_since(
        &self,
        kind: SignalKind,
        position: u64,
        whole: bool,
        range: TimeRange,
    ) -> Result<Scan, StoreError> {
        let mut parts = self.shared().parts(kind);
        parts.retain(|part| {
            let frames = part.frames();
            frames.end > position && (frames.start >= position) == whole
        });
        self.scan_parts(parts, None, range, None, usize::MAX)
    }

    /// Bounds of the times of all that [`Self::scan_since`] would give of spans and logs.
    pub fn bounds_since(&self, position: u64) -> Option<TimeBounds> {
        [SignalKind::Spans, SignalKind::Logs]
            .into_iter()
            .flat_map(|kind| self.shared().parts(kind))
            .filter(|part| part.frames().end > position)
            .map(|part| part.bounds())
            .reduce(TimeBounds::join)
    }

    fn scan_parts(
        &self,
        mut parts: Vec<Arc<dyn Part>>,
        selector: Option<&Selector>,
        range: TimeRange,
        columns: Option<&[&str]>,
        rows: usize,
    ) -> Result<Scan, StoreError> {
        parts.retain(|part| part.bounds().overlaps(range));
        let mut reader = Reader::over(self.shared(), parts, Vec::new());
        let mut planned = reader.plan(&Lookup::of(selector), range)?;
        planned.sort_by_key(|planned| planned.bounds.min);
        let Reader { parts, damaged, .. } = reader;
        Ok(Scan {
            store: self.clone(),
            reader: ScanReader { parts, planned: planned.into_iter(), ready: Vec::new(), damaged },
            selector: selector.cloned(),
            range,
            columns: columns.map(|c| c.iter().map(|name| (*name).to_owned()).collect()),
            left: rows,
            cut: false,
        })
    }
}

impl Scan {
    /// Whether there are more rows than were asked for. Known when the scan has ended.
    pub fn cut(&self) -> bool {
        self.cut
    }

    /// Damaged places met so far; their rows are missing.
    pub fn damaged(&self) -> &[Finding] {
        &self.reader.damaged
    }

    fn advance(&mut self) -> Result<Option<Batch>, StoreError> {
        loop {
            if let Some(batch) = self.reader.ready.pop() {
                if batch.num_rows() > 0 {
                    return Ok(Some(batch));
                }
                continue;
            }
            let Some(planned) = self.reader.planned.next() else { return Ok(None) };
            let names: Option<Vec<&str>> =
                self.columns.as_ref().map(|c| c.iter().map(String::as_str).collect());
            let want = names.as_deref().map_or(Want::All, Want::Names);
            let filter = Filter { range: self.range, selector: self.selector.as_ref() };
            let mut reader = Reader::over(
                self.store.shared(),
                std::mem::take(&mut self.reader.parts),
                std::mem::take(&mut self.reader.damaged),
            );
            let read = reader.read(&planned, want, filter);
            (self.reader.parts, self.reader.damaged) = (reader.parts, reader.damaged);
            self.reader.ready = read?;
            self.reader.ready.reverse();
        }
    }
}

impl Iterator for Scan {
    type Item = Result<Batch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cut {
            return None;
        }
        let batch = match self.advance() {
            Ok(batch) => batch?,
            Err(error) => return Some(Err(error)),
        };
        if batch.num_rows() <= self.left {
            self.left -= batch.num_rows();
            return Some(Ok(batch));
        }
        self.cut = true;
        let kept = batch.slice(0, std::mem::take(&mut self.left));
        (kept.num_rows() > 0).then_some(Ok(kept))
    }
}
