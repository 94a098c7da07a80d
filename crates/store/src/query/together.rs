//! Several traces, read together.
//!
//! The traces that a search finds are often neighbours, and reading a page of rows costs the same for
//! one of them as for twenty.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use lacuna_signal::schema::TRACE_ID;
use lacuna_signal::{Batch, SignalKind, TraceId};

use super::newest::sort;
use super::plan::{Planned, Reader};
use crate::bounds::{Found, TimeRange};
use crate::error::StoreError;
use crate::lookup::Lookup;
use crate::part::{Filter, Want};
use crate::question::Charge;
use crate::store::Store;

/// Traces that are read at once, at most: who stops early has not waited for many that it leaves.
const TOGETHER: usize = 32;

/// Traces by id, read a few at a time.
pub struct Traces<'a> {
    store: &'a Store,
    ids: &'a [TraceId],
    /// Those that are read, the next one last.
    read: Vec<Found<Batch>>,
    /// What those take.
    charge: Charge<'a>,
}

impl Store {
    /// The spans of each of `ids`, in their order, as [`Store::trace`] gives them one by one, and
    /// sooner. In memory are as many of them at a time as have
    /// [`Options::trace_rows`](crate::Options::trace_rows) spans together, or one.
    pub fn traces<'a>(&'a self, ids: &'a [TraceId]) -> Traces<'a> {
        Traces { store: self, ids, read: Vec::new(), charge: self.charge() }
    }
}

impl Iterator for Traces<'_> {
    type Item = Result<Found<Batch>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read.is_empty() && !self.ids.is_empty() {
            match read_some(self.store, self.ids, &mut self.charge) {
                Ok(read) => {
                    self.ids = self.ids.get(read.len()..).unwrap_or_default();
                    self.read = read;
                    self.read.reverse();
                }
                Err(error) => {
                    self.ids = &[];
                    return Some(Err(error));
                }
            }
        }
        self.read.pop().map(Ok)
    }
}

/// The first of `ids`, and as many after it as are worth reading with it.
fn read_some(
    store: &Store,
    ids: &[TraceId],
    charge: &mut Charge<'_>,
) -> Result<Vec<Found<Batch>>, StoreError> {
    // What was read before has been taken by now.
    charge.set(0);
    let (kind, range) = (SignalKind::Spans, TimeRange::ALL);
    let limit = store.shared().options.trace_rows;
    let mut reader = Reader::new(store.shared(), kind, range);
    let mut parts: BTreeMap<usize, Planned> = BTreeMap::new();
    let (mut taken, mut rows) = (0, 0usize);
    for id in ids.iter().take(TOGETHER) {
        let planned = reader.plan(&Lookup { trace: Some(*id), ..Lookup::default() }, range)?;
        rows += planned.iter().map(|planned| planned.rows.len()).sum::<usize>();
        if rows > limit {
            break;
        }
        for planned in planned {
            let joined = parts.entry(planned.part).or_insert_with(|| planned.clone());
            joined.rows = joined.rows.or(&planned.rows);
        }
        taken += 1;
    }
    // What is too large to be read beside others may be too large to be read whole.
    let one = |charge: &mut Charge<'_>| {
        ids.iter().take(1).map(|id| store.spans_of_trace(*id, None, charge)).collect()
    };
    let (Some(several), false) = (ids.get(..taken), taken < 2) else { return one(charge) };
    let positions: HashMap<[u8; 16], usize> =
        several.iter().enumerate().map(|(position, id)| (id.0, position)).collect();
    let mut batches: Vec<Batch> = Vec::new();
    for planned in parts.values() {
        batches.extend(reader.read(planned, Want::All, Filter { range, selector: None })?);
        if !charge.set(batches.iter().map(Batch::memory_size).sum()) {
            // There is no room for them together; one by one there may be.
            drop(batches);
            charge.set(0);
            return one(charge);
        }
    }
    let ids = several;
    let all = Batch::concat(kind, &batches)?;
    let places = places(&all, &positions);
    let mut counts = vec![0usize; ids.len()];
    for place in &places {
        if let Some(count) = counts.get_mut(*place as usize) {
            *count += 1;
        }
    }
    let (rows, places): (usize, ArrayRef) = (all.num_rows(), Arc::new(UInt32Array::from(places)));
    let sorted = sort(all, Some(places), false, rows)?;
    let starts: Vec<usize> =
        counts.iter().scan(0, |next, count| Some(std::mem::replace(next, *next + count))).collect();
    let damaged = reader.damaged;
    // An id that is asked for twice has one position.
    let found = ids.iter().map(|id| {
        let position = positions.get(&id.0).copied().unwrap_or_default();
        let at = |numbers: &[usize]| numbers.get(position).copied().unwrap_or_default();
        let mut found = Found::new(sorted.slice(at(&starts), at(&counts)));
        found.damaged.clone_from(&damaged);
        found
    });
    Ok(found.collect())
}

/// For each row of `batch` the position of its trace, or a greater number: indexes may give a few
/// rows of others.
fn places(batch: &Batch, positions: &HashMap<[u8; 16], usize>) -> Vec<u32> {
    let ids = batch.id_column(TRACE_ID);
    let place = |row: usize| {
        let id = ids.filter(|ids| ids.is_valid(row))?.value(row).try_into().ok()?;
        positions.get::<[u8; 16]>(&id).and_then(|position| u32::try_from(*position).ok())
    };
    (0..batch.num_rows()).map(|row| place(row).unwrap_or(u32::MAX)).collect()
}
