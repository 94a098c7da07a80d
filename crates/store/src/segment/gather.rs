//! Taking rows out of parts in the order of a segment, a column at a time.
//!
//! Parts keep most columns as codes. The values of all parts that a row group takes rows from become
//! one dictionary, so that a cell is a look-up in a table from codes to codes, and a value is looked
//! at once for each part that has it.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, NullBufferBuilder, new_null_array,
};
use arrow::buffer::Buffer;
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use hashbrown::HashSet;

use super::PAGE_ROWS;
use super::cells::{Cells, Coded};
use super::cluster::Placed;
use super::unite::Union;
use crate::error::StoreError;
use crate::packed::{Codes, Column, Packed};
use crate::part::{Columns, Part, Source};
use crate::rows::RowSet;

/// Cells that are read of a segment at once: few rows where there are very many columns.
const PIECE_CELLS: usize = 2 << 20;
/// Rows that are read of a segment at once, at most.
const PIECE_ROWS: usize = 16 * 1024;

/// Rows of one part.
struct Origin<'a> {
    rows: Cow<'a, Packed>,
    /// The row there of each row that is taken, ascending…
    from: Vec<u32>,
    /// …and its row in the group.
    to: Vec<u32>,
}

/// One column of an origin.
#[derive(Clone, Copy)]
enum Taken<'a> {
    /// The origin has no such column.
    Missing,
    Plain(&'a ArrayRef),
    Coded(&'a Codes, &'a ArrayRef),
}

/// Columns that had too many values for codes in a row group before.
#[derive(Debug, Default)]
pub struct Tried(HashSet<String>);

/// The rows of a row group, and where they are taken from.
pub struct Group<'a> {
    rows: usize,
    origins: Vec<Origin<'a>>,
    /// The origin of each row, and its row there.
    places: Vec<(usize, usize)>,
}

impl<'a> Group<'a> {
    /// The rows of `slice`.
    pub fn new(parts: &'a [Arc<dyn Part>], slice: &[Placed]) -> Result<Self, StoreError> {
        let mut by_part: Vec<Vec<(u32, u32)>> = vec![Vec::new(); parts.len()];
        for (to, placed) in slice.iter().enumerate() {
            if let Some(rows) = by_part.get_mut(placed.part as usize) {
                rows.push((placed.row, to as u32));
            }
        }
        let mut group = Self { rows: slice.len(), origins: Vec::new(), places: Vec::new() };
        for (part, mut rows) in parts.iter().zip(by_part) {
            rows.sort_unstable();
            let columns = part.schema().fields().len().max(1);
            let piece = (PIECE_CELLS / columns).clamp(PAGE_ROWS as usize, PIECE_ROWS);
            let mut rest = rows.as_slice();
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(piece.min(rest.len()));
                rest = group.take(part.as_ref(), piece, later)?;
            }
        }
        group.places = vec![(0, 0); slice.len()];
        for (number, origin) in group.origins.iter().enumerate() {
            for (from, to) in origin.from.iter().zip(&origin.to) {
                group.places[*to as usize] = (number, *from as usize);
            }
        }
        Ok(group)
    }

    /// Takes the rows `piece` of `part`, or these and `later` ones at once; what is left.
    fn take<'b>(
        &mut self,
        part: &'a dyn Part,
        piece: &'b [(u32, u32)],
        later: &'b [(u32, u32)],
    ) -> Result<&'b [(u32, u32)], StoreError> {
        let mut set = RowSet::default();
        piece.iter().for_each(|(row, _)| set.push(*row..*row + 1));
        let (rows, whole) = match part.source(&set)? {
            Source::Whole(Columns::Packed(packed)) => (Cow::Borrowed(packed), true),
            Source::Whole(Columns::Batch(batch)) => (pack(&batch)?, true),
            Source::Asked(batch) => (pack(&batch)?, false),
        };
        let mut origin = Origin { rows, from: Vec::new(), to: Vec::new() };
        if whole {
            let all = || piece.iter().chain(later);
            (origin.from, origin.to) = all().copied().unzip();
            self.origins.push(origin);
            return Ok(&[]);
        }
        origin.from = (0..piece.len() as u32).collect();
        origin.to = piece.iter().map(|(_, to)| *to).collect();
        self.origins.push(origin);
        Ok(later)
    }

    /// The cells of column `field`.
    pub fn column(&self, field: &Field, tried: &mut Tried) -> Result<Cells, StoreError> {
        let taken: Vec<Taken<'_>> = self
            .origins
            .iter()
            .map(|origin| match origin.rows.column(field.name()) {
                None => Taken::Missing,
                Some(Column::Plain(values)) => Taken::Plain(values),
                Some(Column::Coded { codes, values }) => Taken::Coded(codes, values),
            })
            .collect();
        if !tried.0.contains(field.name()) {
            if let Some(coded) = self.coded(field.data_type(), &taken)? {
                return Ok(Cells::Coded(coded));
            }
            tried.0.insert(field.name().clone());
        }
        Ok(Cells::Plain(self.plain(field.data_type(), &taken)?))
    }

    /// The column as codes, if that is worthwhile.
    fn coded(
        &self,
        data_type: &DataType,
        taken: &[Taken<'_>],
    ) -> Result<Option<Coded>, ArrowError> {
        let origins = || self.origins.iter().zip(taken);
        let plain = origins().filter(|(_, taken)| matches!(taken, Taken::Plain(_)));
        // Where values hardly repeat within a part, they do not in many; but parts in memory have no
        // codes for what is as short as they are.
        if *data_type != DataType::UInt8
            && plain.map(|(origin, _)| origin.from.len()).sum::<usize>() * 2 > self.rows
        {
            return Ok(None);
        }
        let Some(mut union) = Union::new(data_type) else { return Ok(None) };
        let mut codes = vec![0u16; self.rows];
        for (origin, taken) in origins() {
            let cells = origin.from.iter().zip(&origin.to);
            let enough = match *taken {
                Taken::Missing => true,
                Taken::Plain(values) => {
                    let mut part = union.part(values);
                    cells.into_iter().all(|(from, to)| {
                        let code = part.code(*from as usize);
                        code.map(|code| codes[*to as usize] = code).is_some()
                    })
                }
                Taken::Coded(Codes::One(_), values) => {
                    let code = union.part(values).code(0);
                    if code.is_some_and(|code| code != 0) {
                        origin.to.iter().for_each(|to| codes[*to as usize] = code.unwrap_or(0));
                    }
                    code.is_some()
                }
                Taken::Coded(Codes::Byte(local), values) => {
                    let mut part = union.part(values);
                    cells.into_iter().all(|(from, to)| {
                        let code = part.code(usize::from(local[*from as usize]));
                        code.map(|code| codes[*to as usize] = code).is_some()
                    })
                }
                Taken::Coded(Codes::Word(local), values) => {
                    let mut part = union.part(values);
                    cells.into_iter().all(|(from, to)| {
                        let code = part.code(usize::from(local[*from as usize]));
                        code.map(|code| codes[*to as usize] = code).is_some()
                    })
                }
            };
            if !enough {
                return Ok(None);
            }
        }
        let values = union.finish()?;
        Ok(Some(Coded { codes, values }))
    }

    /// The column with a value a row.
    fn plain(&self, data_type: &DataType, taken: &[Taken<'_>]) -> Result<ArrayRef, ArrowError> {
        let missing = new_null_array(data_type, 1);
        let values: Vec<&dyn Array> = taken
            .iter()
            .map(|taken| match taken {
                Taken::Missing => missing.as_ref(),
                Taken::Plain(values) | Taken::Coded(_, values) => values.as_ref(),
            })
            .collect();
        let as_they_are = taken.iter().all(|taken| matches!(taken, Taken::Plain(_)));
        let place = |place: &(usize, usize)| {
            let (origin, row) = *place;
            match taken[origin] {
                Taken::Missing => (origin, 0),
                Taken::Plain(_) => (origin, row),
                Taken::Coded(codes, _) => (origin, codes.get(row)),
            }
        };
        let places: Cow<'_, [(usize, usize)]> = match as_they_are {
            true => Cow::Borrowed(&self.places),
            false => self.places.iter().map(place).collect(),
        };
        match data_type {
            // Arrow takes these by a general way, an item at a time.
            DataType::FixedSizeBinary(size) => ids(*size, &values, &places),
            _ if values.is_empty() => Ok(new_null_array(data_type, self.rows)),
            _ => interleave(&values, &places),
        }
    }
}

fn pack<'a>(batch: &lacuna_signal::Batch) -> Result<Cow<'a, Packed>, StoreError> {
    let packed = Packed::of(std::slice::from_ref(batch))?;
    // One batch there is.
    packed.map(Cow::Owned).ok_or(StoreError::Panicked)
}

fn ids(
    size: i32,
    values: &[&dyn Array],
    places: &[(usize, usize)],
) -> Result<ArrayRef, ArrowError> {
    let values: Vec<&FixedSizeBinaryArray> =
        values.iter().map(|values| values.as_fixed_size_binary()).collect();
    let bytes = match size {
        16 => cells::<16>(&values, places),
        8 => cells::<8>(&values, places),
        _ => places.iter().flat_map(|(origin, row)| values[*origin].value(*row)).copied().collect(),
    };
    let nulls = values.iter().any(|values| values.null_count() > 0).then(|| {
        let mut nulls = NullBufferBuilder::new(places.len());
        places.iter().for_each(|(origin, row)| nulls.append(values[*origin].is_valid(*row)));
        nulls.finish()
    });
    let array = FixedSizeBinaryArray::try_new(size, Buffer::from_vec(bytes), nulls.flatten())?;
    Ok(Arc::new(array))
}

/// Cells of `N` bytes each: without a call to copy each of them.
fn cells<const N: usize>(values: &[&FixedSizeBinaryArray], places: &[(usize, usize)]) -> Vec<u8> {
    let values: Vec<&[[u8; N]]> =
        values.iter().map(|values| values.value_data().as_chunks().0).collect();
    let cells: Vec<[u8; N]> = places.iter().map(|(origin, row)| values[*origin][*row]).collect();
    cells.into_flattened()
}
