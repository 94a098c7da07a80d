//! Which windows of which parts a verb has to read, and reading them.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use lacuna_signal::{Batch, SignalKind};

use crate::bounds::{TimeBounds, TimeRange};
use crate::counters::add;
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::part::{Filter, Part, Want};
use crate::report::{Finding, FindingKind};
use crate::rows::RowSet;
use crate::segment::{PAGE_ROWS, WINDOW_PAGES};
use crate::store::Shared;

/// Rows of one part that have to be read.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// Position of the part.
    pub part: usize,
    /// The rows.
    pub rows: RowSet,
    /// Bounds of their times.
    pub bounds: TimeBounds,
}

/// The parts that a verb reads, and the damage that it met.
pub(super) struct Reader<'a> {
    shared: &'a Shared,
    pub parts: Vec<Arc<dyn Part>>,
    pub damaged: Vec<Finding>,
}

impl<'a> Reader<'a> {
    /// All parts of `kind` that may have rows in `range`.
    pub fn new(shared: &'a Shared, kind: SignalKind, range: TimeRange) -> Self {
        let mut parts = shared.parts(kind);
        parts.retain(|part| part.bounds().overlaps(range));
        Self { shared, parts, damaged: Vec::new() }
    }

    /// A reader of `parts` that has met `damaged` before.
    pub fn over(shared: &'a Shared, parts: Vec<Arc<dyn Part>>, damaged: Vec<Finding>) -> Self {
        Self { shared, parts, damaged }
    }

    /// The windows that may hold rows in `range` that satisfy `lookup`.
    pub fn plan(&mut self, lookup: &Lookup, range: TimeRange) -> Result<Vec<Planned>, StoreError> {
        let mut planned = Vec::new();
        if lookup.never {
            return Ok(planned);
        }
        for (position, part) in self.parts.clone().iter().enumerate() {
            let mut rows = None;
            if let Some(trace) = lookup.trace {
                rows = self.note(part.trace_rows(trace))?;
            }
            if !lookup.terms.is_empty() && rows.as_ref().is_none_or(|rows| !rows.is_empty()) {
                let found = self.note(part.candidates(lookup))?.flatten();
                rows = match (rows, found) {
                    (Some(a), Some(b)) => Some(a.and(&b)),
                    (a, b) => a.or(b),
                };
            }
            if !part.bounds().within(range) && !part.pages().is_empty() {
                let pages = pages_in(part.as_ref(), range);
                rows = Some(rows.map_or(pages.clone(), |rows| rows.and(&pages)));
            }
            for window in part.windows() {
                if !window.bounds.overlaps(range) {
                    continue;
                }
                let rows = rows
                    .as_ref()
                    .map_or_else(|| window.rows.clone(), |candidates| window.rows.and(candidates));
                if !rows.is_empty() {
                    planned.push(Planned { part: position, rows, bounds: window.bounds });
                }
            }
        }
        Ok(planned)
    }

    /// The rows of `planned` that pass `filter`. Damage is noted, and what can be read returned: a
    /// window that cannot be read as a whole is read by pages, so that a damaged one takes no more
    /// with it than itself.
    pub fn read(
        &mut self,
        planned: &Planned,
        want: Want<'_>,
        filter: Filter<'_>,
    ) -> Result<Vec<Batch>, StoreError> {
        let Some(part) = self.parts.get(planned.part).cloned() else { return Ok(Vec::new()) };
        add(&self.shared.meters.rows_read, planned.rows.len() as u64);
        let error = match part.read_where(&planned.rows, want, filter) {
            Ok(batch) => return Ok(vec![batch]),
            Err(error @ StoreError::Corrupt { .. }) => error,
            Err(error) => return Err(error),
        };
        let pieces = pieces(&planned.rows);
        if pieces.len() == 1 {
            self.note::<()>(Err(error))?;
            return Ok(Vec::new());
        }
        let mut batches = Vec::new();
        for (_, piece) in pieces {
            batches.extend(self.note(part.read_where(&piece, want, filter))?);
        }
        Ok(batches)
    }

    /// Turns damage into a finding; other errors stay errors.
    pub fn note<T>(&mut self, result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Corrupt { path, detail }) => {
                tracing::warn!(path = %path.display(), detail, "damaged file met by a query");
                add(&self.shared.meters.corruptions, 1);
                let finding = Finding::new(&path, FindingKind::Damaged, detail);
                if !self.damaged.contains(&finding) {
                    self.damaged.push(finding);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Pages that are read at once at first, when reading may stop early.
const FIRST_PAGES: usize = 8;

/// Planned rows, newest first, a few pages at a time and then more: what a search for the newest
/// rows reads until it has enough.
pub(super) struct NewestFirst {
    heap: BinaryHeap<ByNewest>,
    reads: u32,
    /// Rows that are read at once at most, so that large ones are not read by the thousand.
    rows: usize,
}

/// Rows that are read at once have about this many bytes at most.
const READ_BYTES: usize = 8 << 20;

struct ByNewest(Planned);

impl NewestFirst {
    /// All of `planned`.
    pub fn new(planned: Vec<Planned>) -> Self {
        let heap = planned.into_iter().map(ByNewest).collect();
        Self { heap, reads: 0, rows: usize::MAX }
    }

    /// The same, with one page first: rows whose size is not known may be large.
    pub fn careful(planned: Vec<Planned>) -> Self {
        Self { rows: PAGE_ROWS as usize, ..Self::new(planned) }
    }

    /// What was read so far: `rows` that were found have `bytes`.
    pub fn saw(&mut self, rows: usize, bytes: usize) {
        let each = bytes.checked_div(rows);
        self.rows = each.map_or(usize::MAX, |each| (READ_BYTES / each.max(1)).max(1));
    }

    /// What to read next: no rows that are left may be newer than its bounds.
    pub fn next(&mut self, reader: &Reader<'_>) -> Option<Planned> {
        loop {
            let ByNewest(planned) = self.heap.pop()?;
            let pages = reader.parts.get(planned.part).map_or(&[][..], |part| part.pages());
            if planned.rows.len() > self.rows.max(PAGE_ROWS as usize) {
                let (first, rest) = newest_rows(&planned, pages, self.rows);
                self.heap.extend([ByNewest(first), ByNewest(rest)]);
                continue;
            }
            let most = (FIRST_PAGES << (self.reads / 2).min(16)).min(WINDOW_PAGES);
            if pages.is_empty() || planned.rows.len() <= most * PAGE_ROWS as usize {
                self.reads += 1;
                return Some(planned);
            }
            for piece in pieces(&planned.rows).chunks(most) {
                let mut rows = RowSet::default();
                let mut bounds: Option<TimeBounds> = None;
                for (page, set) in piece {
                    set.ranges().iter().cloned().for_each(|range| rows.push(range));
                    let page = pages.get(*page as usize).copied().unwrap_or(planned.bounds);
                    bounds = Some(bounds.map_or(page, |bounds| bounds.join(page)));
                }
                let bounds = bounds.unwrap_or(planned.bounds);
                self.heap.push(ByNewest(Planned { part: planned.part, rows, bounds }));
            }
        }
    }
}

/// About `count` rows of `planned`, the newest ones as far as `pages` tell, and the others.
fn newest_rows(planned: &Planned, pages: &[TimeBounds], count: usize) -> (Planned, Planned) {
    let made = |rows, bounds| Planned { part: planned.part, rows, bounds };
    if pages.is_empty() {
        let (first, rest) = planned.rows.split(count);
        return (made(first, planned.bounds), made(rest, planned.bounds));
    }
    let bounds = |page: u32| pages.get(page as usize).copied().unwrap_or(planned.bounds);
    let mut pieces = pieces(&planned.rows);
    pieces.sort_by_key(|(page, _)| std::cmp::Reverse(bounds(*page).max));
    let mut rows = 0;
    let first = pieces.iter().take_while(|(_, piece)| {
        let fits = rows == 0 || rows + piece.len() <= count;
        rows += piece.len();
        fits
    });
    let rest = pieces.split_off(first.count());
    let join = |pieces: Vec<(u32, RowSet)>| {
        let all = pieces.iter().map(|(page, _)| bounds(*page)).reduce(TimeBounds::join);
        let ranges = pieces.iter().flat_map(|(_, piece)| piece.ranges().iter().cloned());
        made(RowSet::from_unsorted(ranges.collect()), all.unwrap_or(planned.bounds))
    };
    (join(pieces), join(rest))
}

impl Ord for ByNewest {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.bounds.max.cmp(&other.0.bounds.max)
    }
}

impl PartialOrd for ByNewest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByNewest {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByNewest {}

/// Rows of the pages that may have rows in `range`.
fn pages_in(part: &dyn Part, range: TimeRange) -> RowSet {
    let mut rows = RowSet::default();
    for (start, bounds) in (0..part.rows()).step_by(PAGE_ROWS as usize).zip(part.pages()) {
        if bounds.overlaps(range) {
            rows.push(start..start.saturating_add(PAGE_ROWS).min(part.rows()));
        }
    }
    rows
}

/// `rows` by pages, with the pages' numbers.
fn pieces(rows: &RowSet) -> Vec<(u32, RowSet)> {
    let mut pieces: Vec<(u32, RowSet)> = Vec::new();
    for range in rows.ranges() {
        let mut start = range.start;
        while start < range.end {
            let page = start / PAGE_ROWS;
            let end = range.end.min((page + 1).saturating_mul(PAGE_ROWS));
            match pieces.last_mut() {
                Some((last, piece)) if *last == page => piece.push(start..end),
                _ => pieces.push((page, RowSet::range(start..end))),
            }
            start = end;
        }
    }
    pieces
}
