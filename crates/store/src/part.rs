//! What a query sees of the store: parts. A part is immutable rows of one kind, in memory or in a
//! segment; every verb is written once, over parts.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{BooleanArray, UInt64Array};
use arrow::compute::and;
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use lacuna_signal::selector::{Columns as SelectorColumns, Selector};
use lacuna_signal::{Batch, TraceId};

use crate::bounds::{TimeBounds, TimeRange};
use crate::chunk::{Chunk, Rows};
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::packed::Packed;
use crate::rows::RowSet;
use crate::summary::Summary;

/// Rows that are read together, and when they are.
#[derive(Debug, Clone)]
pub struct Window {
    /// The rows.
    pub rows: RowSet,
    /// Bounds of their times; they may be wider than the rows' own.
    pub bounds: TimeBounds,
}

/// Which columns to read.
#[derive(Debug, Clone, Copy)]
pub enum Want<'a> {
    /// All of them.
    All,
    /// Those of a list; names that the part lacks are left out.
    Names(&'a [&'a str]),
    /// Those that a selector reads, and those of a list.
    Selector(&'a SelectorColumns, &'a [&'a str]),
}

impl Want<'_> {
    /// Whether column `name` is wanted.
    pub fn wants(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(&name),
            Self::Selector(columns, names) => names.contains(&name) || columns.wants(name),
        }
    }
}

/// Which rows to read.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'a> {
    /// Rows in this range.
    pub range: TimeRange,
    /// Rows that it selects.
    pub selector: Option<&'a Selector>,
}

impl Filter<'_> {
    /// Rows of `batch` that pass; `None` if all do. The batch has the time column and those that
    /// the selector reads.
    pub fn mask(&self, batch: &Batch) -> Result<Option<BooleanArray>, StoreError> {
        let in_range = self.time_mask(batch);
        let Some(selector) = self.selector else { return Ok(in_range) };
        let selected = selector.mask(batch);
        Ok(Some(match in_range {
            Some(in_range) => and(&in_range, &selected)?,
            None => selected,
        }))
    }

    /// Rows of `batch` in the range; `None` if all are.
    pub fn time_mask(&self, batch: &Batch) -> Option<BooleanArray> {
        if self.range == TimeRange::ALL {
            return None;
        }
        let column = batch.kind().time_column();
        let Some(times) = batch.number_column::<TimestampNanosecondType>(column) else {
            let inside = self.range.contains(0);
            return (!inside).then(|| BooleanArray::from(vec![false; batch.num_rows()]));
        };
        let all = TimeBounds::of(times.values().iter().copied())
            .is_none_or(|bounds| bounds.within(self.range));
        (!all).then(|| times.values().iter().map(|t| Some(self.range.contains(*t))).collect())
    }
}

/// Columns as a part keeps or reads them.
pub enum Columns<'a> {
    /// A value a row.
    Batch(Batch),
    /// Packed.
    Packed(&'a Packed),
}

/// Where rows are taken from when a segment is written.
pub enum Source<'a> {
    /// All rows of the part.
    Whole(Columns<'a>),
    /// Only those that were asked for.
    Asked(Batch),
}

/// Immutable rows of one kind.
pub trait Part: Send + Sync {
    /// Number of rows.
    fn rows(&self) -> u32;
    /// Bounds of their times.
    fn bounds(&self) -> TimeBounds;
    /// From the first log frame that held any of the rows to one past the last.
    fn frames(&self) -> Range<u64>;
    /// Its columns.
    fn schema(&self) -> SchemaRef;
    /// Rows of trace `id`, and rarely a few more.
    fn trace_rows(&self, id: TraceId) -> Result<RowSet, StoreError>;
    /// Rows among which all are that satisfy `lookup`; `None` if no index can tell.
    fn candidates(&self, lookup: &Lookup) -> Result<Option<RowSet>, StoreError>;
    /// All rows, in windows small enough to be read at once.
    fn windows(&self) -> Vec<Window>;
    /// Bounds of the times of each page of [`PAGE_ROWS`](crate::segment::PAGE_ROWS) rows; none if it
    /// has no pages.
    fn pages(&self) -> &[TimeBounds];
    /// The wanted columns of `rows`.
    fn read(&self, rows: &RowSet, want: Want<'_>) -> Result<Batch, StoreError>;
    /// The wanted columns of those of `rows` that pass `filter`.
    fn read_where(
        &self,
        rows: &RowSet,
        want: Want<'_>,
        filter: Filter<'_>,
    ) -> Result<Batch, StoreError>;
    /// All columns of `rows`, or of all rows if that is cheaper.
    fn source(&self, rows: &RowSet) -> Result<Source<'_>, StoreError>;
    /// What the rows are about.
    fn summary(&self) -> Result<Arc<Summary>, StoreError>;
}

impl Part for Chunk {
    fn rows(&self) -> u32 {
        self.num_rows() as u32
    }

    fn bounds(&self) -> TimeBounds {
        Chunk::bounds(self)
    }

    fn frames(&self) -> Range<u64> {
        Chunk::frames(self)
    }

    fn schema(&self) -> SchemaRef {
        Chunk::schema(self).clone()
    }

    fn trace_rows(&self, id: TraceId) -> Result<RowSet, StoreError> {
        Ok(Chunk::trace_rows(self, id))
    }

    fn candidates(&self, lookup: &Lookup) -> Result<Option<RowSet>, StoreError> {
        Ok(match Chunk::rows(self) {
            Rows::Received(_) => None,
            Rows::Packed(packed, _) => packed.candidates(lookup),
        })
    }

    fn windows(&self) -> Vec<Window> {
        vec![Window { rows: RowSet::range(0..Part::rows(self)), bounds: Chunk::bounds(self) }]
    }

    fn pages(&self) -> &[TimeBounds] {
        &[]
    }

    fn read(&self, rows: &RowSet, want: Want<'_>) -> Result<Batch, StoreError> {
        self.read_by(rows, |name| want.wants(name))
    }

    fn read_where(
        &self,
        rows: &RowSet,
        want: Want<'_>,
        filter: Filter<'_>,
    ) -> Result<Batch, StoreError> {
        let read = filter.selector.map(Selector::columns).unwrap_or_default();
        let time = self.kind().time_column();
        // What passes is found out by few columns; the others are read for what passes only.
        let tested = self.read_by(rows, |name| read.wants(name) || name == time)?;
        let Some(mask) = filter.mask(&tested)? else { return self.read(rows, want) };
        let passed = rows.filter(&mask);
        if passed.is_empty() {
            return Ok(Batch::empty(self.kind()));
        }
        self.read(&passed, want)
    }

    fn source(&self, rows: &RowSet) -> Result<Source<'_>, StoreError> {
        let _ = rows;
        Ok(match Chunk::rows(self) {
            Rows::Received(batch) => Source::Whole(Columns::Batch(batch.clone())),
            Rows::Packed(packed, _) => Source::Whole(Columns::Packed(packed)),
        })
    }

    fn summary(&self) -> Result<Arc<Summary>, StoreError> {
        Ok(Chunk::summary(self)?.clone())
    }
}

impl Chunk {
    fn read_by(&self, rows: &RowSet, wanted: impl Fn(&str) -> bool) -> Result<Batch, StoreError> {
        Ok(match Chunk::rows(self) {
            Rows::Received(batch) => take_rows(&project_by(batch, wanted)?, rows)?,
            Rows::Packed(packed, _) => packed.read(rows, wanted)?,
        })
    }
}

/// `rows` of `batch`.
fn take_rows(batch: &Batch, rows: &RowSet) -> Result<Batch, StoreError> {
    Ok(match rows.ranges() {
        [all] if all.len() == batch.num_rows() => batch.clone(),
        [one] => batch.slice(one.start as usize, one.len()),
        many => {
            let rows = many.iter().cloned().flatten().map(u64::from);
            batch.take(&UInt64Array::from_iter_values(rows))?
        }
    })
}

/// The wanted columns of `batch`.
pub fn project(batch: &Batch, want: Want<'_>) -> Result<Batch, StoreError> {
    if matches!(want, Want::All) {
        return Ok(batch.clone());
    }
    project_by(batch, |name| want.wants(name))
}

fn project_by(batch: &Batch, wanted: impl Fn(&str) -> bool) -> Result<Batch, StoreError> {
    let schema = batch.schema();
    let names: Vec<&str> =
        schema.fields().iter().map(|f| f.name().as_str()).filter(|n| wanted(n)).collect();
    Ok(batch.project(&names)?)
}
