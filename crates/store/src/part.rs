//! What a query sees of the store: parts. A part is immutable rows of one kind, in memory or in a
//! segment; every verb is written once, over parts.

use std::sync::Arc;

use arrow::array::{BooleanArray, UInt64Array};
use arrow::compute::and;
use arrow::datatypes::{SchemaRef, TimestampNanosecondType};
use lacuna_signal::selector::{Columns, Selector};
use lacuna_signal::{Batch, TraceId};

use crate::bounds::{TimeBounds, TimeRange};
use crate::chunk::Chunk;
use crate::error::StoreError;
use crate::lookup::Lookup;
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
    Selector(&'a Columns, &'a [&'a str]),
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

/// Immutable rows of one kind.
pub trait Part: Send + Sync {
    /// Number of rows.
    fn rows(&self) -> u32;
    /// Bounds of their times.
    fn bounds(&self) -> TimeBounds;
    /// Its columns.
    fn schema(&self) -> SchemaRef;
    /// Rows of trace `id`, and rarely a few more.
    fn trace_rows(&self, id: TraceId) -> Result<RowSet, StoreError>;
    /// Rows among which all are that satisfy `lookup`; `None` if no index can tell.
    fn candidates(&self, lookup: &Lookup) -> Result<Option<RowSet>, StoreError>;
    /// All rows, in windows small enough to be read at once.
    fn windows(&self) -> Vec<Window>;
    /// Rows of the pages that may have rows in `range`; `None` if it has no pages.
    fn pages_in(&self, range: TimeRange) -> Option<RowSet>;
    /// The wanted columns of `rows`.
    fn read(&self, rows: &RowSet, want: Want<'_>) -> Result<Batch, StoreError>;
    /// The wanted columns of those of `rows` that pass `filter`.
    fn read_where(
        &self,
        rows: &RowSet,
        want: Want<'_>,
        filter: Filter<'_>,
    ) -> Result<Batch, StoreError>;
    /// What the rows are about.
    fn summary(&self) -> Result<Arc<Summary>, StoreError>;
}

impl Part for Chunk {
    fn rows(&self) -> u32 {
        self.batch().num_rows() as u32
    }

    fn bounds(&self) -> TimeBounds {
        Chunk::bounds(self)
    }

    fn schema(&self) -> SchemaRef {
        self.batch().record().schema()
    }

    fn trace_rows(&self, id: TraceId) -> Result<RowSet, StoreError> {
        Ok(Chunk::trace_rows(self, id))
    }

    fn candidates(&self, _: &Lookup) -> Result<Option<RowSet>, StoreError> {
        Ok(None)
    }

    fn windows(&self) -> Vec<Window> {
        vec![Window { rows: RowSet::range(0..self.rows()), bounds: Chunk::bounds(self) }]
    }

    fn pages_in(&self, _: TimeRange) -> Option<RowSet> {
        None
    }

    fn read(&self, rows: &RowSet, want: Want<'_>) -> Result<Batch, StoreError> {
        take_rows(&project(self.batch(), want)?, rows)
    }

    fn read_where(
        &self,
        rows: &RowSet,
        want: Want<'_>,
        filter: Filter<'_>,
    ) -> Result<Batch, StoreError> {
        let read = filter.selector.map(Selector::columns).unwrap_or_default();
        let time = self.batch().kind().time_column();
        let narrow =
            project_by(self.batch(), |name| want.wants(name) || read.wants(name) || name == time)?;
        let batch = take_rows(&narrow, rows)?;
        let mask = filter.mask(&batch)?;
        let batch = project(&batch, want)?;
        Ok(match mask {
            Some(mask) => batch.filter(&mask)?,
            None => batch,
        })
    }

    fn summary(&self) -> Result<Arc<Summary>, StoreError> {
        Ok(Chunk::summary(self).clone())
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
    let schema = batch.record().schema();
    let names: Vec<&str> =
        schema.fields().iter().map(|f| f.name().as_str()).filter(|n| wanted(n)).collect();
    Ok(batch.project(&names)?)
}
