//! Lists put together from the levels of their leaves.
//!
//! Source: the record assembly of Dremel, as Parquet has it
//! (<https://github.com/apache/parquet-format/blob/master/README.md#nested-encoding>).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, NullBufferBuilder, StructArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;

use super::Fault;
use super::page::Levels;

/// A leaf's levels, and an array of its places.
pub type Leaf = (Levels, ArrayRef);

const MISMATCH: Fault = Fault::Page("its levels do not fit those of its neighbours");

/// A column of `data_type` from its `leaves`.
pub fn assemble(data_type: &DataType, nullable: bool, leaves: &[Leaf]) -> Result<ArrayRef, Fault> {
    let mut leaves = leaves.iter();
    build(data_type, nullable, At::default(), &mut leaves)
}

/// Where in the tree something stands: lists around it, and the definition level from which on it
/// has a place.
#[derive(Clone, Copy, Default)]
struct At {
    repetition: u32,
    definition: u32,
}

fn build<'a>(
    data_type: &DataType,
    nullable: bool,
    at: At,
    leaves: &mut (impl Iterator<Item = &'a Leaf> + Clone),
) -> Result<ArrayRef, Fault> {
    match data_type {
        DataType::List(item) => {
            let (levels, _) = leaves.clone().next().ok_or(MISMATCH)?;
            let present = at.definition + u32::from(nullable);
            let inside = At { repetition: at.repetition + 1, definition: present + 1 };
            let mut nulls = NullBufferBuilder::new(0);
            let (mut ends, mut end) = (vec![0i32], 0i32);
            for (repetition, definition) in levels.repetitions.iter().zip(&levels.definitions) {
                if *definition < at.definition || *repetition > inside.repetition {
                    continue;
                }
                if *repetition <= at.repetition {
                    // A list begins.
                    nulls.append(*definition >= present);
                    ends.push(end);
                }
                if *definition >= inside.definition {
                    end = end.checked_add(1).ok_or(MISMATCH)?;
                }
                match ends.last_mut() {
                    Some(last) if !nulls.is_empty() => *last = end,
                    _ => return Err(MISMATCH),
                }
            }
            let items = build(item.data_type(), item.is_nullable(), inside, leaves)?;
            if items.len() != end as usize {
                return Err(MISMATCH);
            }
            let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
            let nulls = if nullable { nulls.finish() } else { None };
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), ends, items, nulls)?))
        }
        DataType::Struct(fields) => {
            let columns = fields
                .iter()
                .map(|field| build(field.data_type(), field.is_nullable(), at, leaves))
                .collect::<Result<Vec<_>, _>>()?;
            let rows = columns.first().map_or(0, |column| column.len());
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, None, rows)?))
        }
        _ => Ok(Arc::clone(&leaves.next().ok_or(MISMATCH)?.1)),
    }
}
