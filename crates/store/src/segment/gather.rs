//! Taking rows out of parts in the order of a segment: each cell is copied once.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, NullBufferBuilder, RecordBatch,
    RecordBatchOptions, new_null_array,
};
use arrow::buffer::Buffer;
use arrow::compute::interleave;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use hashbrown::HashMap;

use super::cluster::Placed;
use crate::error::StoreError;
use crate::packed::{Codes, Column};
use crate::part::{Columns, Part, Source};
use crate::rows::RowSet;

/// Where rows of one part are taken from.
struct Origin<'a> {
    columns: Columns<'a>,
    /// The rows that were read, ascending; none if `columns` has all rows.
    rows: Option<Vec<u32>>,
}

/// One column of an origin.
struct Taken<'a> {
    values: ArrayRef,
    codes: Option<&'a Codes>,
    /// The origin has no such column: `values` is one null.
    missing: bool,
}

impl<'a> Origin<'a> {
    fn new(part: &'a dyn Part, rows: Vec<u32>) -> Result<Self, StoreError> {
        let mut set = RowSet::default();
        rows.iter().for_each(|row| set.push(*row..*row + 1));
        Ok(match part.source(&set)? {
            Source::Whole(columns) => Self { columns, rows: None },
            Source::Asked(batch) => Self { columns: Columns::Batch(batch), rows: Some(rows) },
        })
    }

    fn column(&self, name: &str, data_type: &DataType) -> Taken<'_> {
        let known = match &self.columns {
            Columns::Batch(batch) => batch.column(name).map(|values| (values, None)),
            Columns::Packed(packed) => packed.column(name).map(|column| match column {
                Column::Plain(values) => (values, None),
                Column::Coded { codes, values } => (values, Some(codes)),
            }),
        };
        match known {
            Some((values, codes)) => Taken { values: Arc::clone(values), codes, missing: false },
            None => Taken { values: new_null_array(data_type, 1), codes: None, missing: true },
        }
    }
}

/// The rows of `slice` with the columns of `schema`.
pub fn gather(
    schema: &SchemaRef,
    parts: &[Arc<dyn Part>],
    slice: &[Placed],
) -> Result<RecordBatch, StoreError> {
    let mut by_part: HashMap<u32, Vec<u32>> = HashMap::new();
    for placed in slice {
        by_part.entry(placed.part).or_default().push(placed.row);
    }
    let mut numbers: HashMap<u32, usize> = HashMap::new();
    let mut origins = Vec::with_capacity(by_part.len());
    for (number, mut rows) in by_part {
        let Some(part) = parts.get(number as usize) else { continue };
        rows.sort_unstable();
        numbers.insert(number, origins.len());
        origins.push(Origin::new(part.as_ref(), rows)?);
    }
    let mut places: Vec<(usize, usize)> = Vec::with_capacity(slice.len());
    for placed in slice {
        let Some(number) = numbers.get(&placed.part) else { continue };
        let row = match &origins[*number].rows {
            None => placed.row as usize,
            Some(rows) => rows.binary_search(&placed.row).unwrap_or_default(),
        };
        places.push((*number, row));
    }
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let from: Vec<Taken<'_>> =
                origins.iter().map(|o| o.column(field.name(), field.data_type())).collect();
            column(&from, &places)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(slice.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

fn column(from: &[Taken<'_>], places: &[(usize, usize)]) -> Result<ArrayRef, ArrowError> {
    let values: Vec<&dyn Array> = from.iter().map(|from| from.values.as_ref()).collect();
    let place = |(origin, row): (usize, usize)| {
        let from = &from[origin];
        match from.codes {
            Some(codes) => (origin, codes.get(row)),
            None if from.missing => (origin, 0),
            None => (origin, row),
        }
    };
    if from.iter().all(|from| from.codes.is_none() && !from.missing) {
        return take(&values, places);
    }
    let places: Vec<(usize, usize)> = places.iter().copied().map(place).collect();
    take(&values, &places)
}

fn take(values: &[&dyn Array], places: &[(usize, usize)]) -> Result<ArrayRef, ArrowError> {
    match values.first().map(|first| first.data_type()) {
        // Arrow takes these by a general way, an item at a time.
        Some(DataType::FixedSizeBinary(size)) => ids(*size, values, places),
        _ => interleave(values, places),
    }
}

fn ids(
    size: i32,
    values: &[&dyn Array],
    places: &[(usize, usize)],
) -> Result<ArrayRef, ArrowError> {
    let values: Vec<&FixedSizeBinaryArray> =
        values.iter().map(|values| values.as_fixed_size_binary()).collect();
    let mut bytes = Vec::with_capacity(size as usize * places.len());
    let mut nulls = NullBufferBuilder::new(places.len());
    for (origin, row) in places {
        let values = values[*origin];
        bytes.extend_from_slice(values.value(*row));
        nulls.append(values.is_valid(*row));
    }
    let array = FixedSizeBinaryArray::try_new(size, Buffer::from_vec(bytes), nulls.finish())?;
    Ok(Arc::new(array))
}
