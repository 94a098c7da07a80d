//! The fixed columns of a batch, found once and read by row.

mod logs;
mod points;
mod spans;

pub use logs::LogRows;
pub use points::{Exemplar, MetricType, Number, PointRows};
pub use spans::{SpanEvent, SpanLink, SpanRows};

use arrow::array::{
    Array, AsArray, FixedSizeBinaryArray, ListArray, PrimitiveArray, StringViewArray, StructArray,
};
use arrow::datatypes::ArrowPrimitiveType;

use crate::batch::Batch;
use crate::schema as c;
use crate::schema::{AttrType, Scope};
use crate::semconv;

fn text(column: Option<&StringViewArray>, row: usize) -> Option<&str> {
    column.filter(|a| a.is_valid(row)).map(|a| a.value(row))
}

fn number<T: ArrowPrimitiveType>(
    column: Option<&PrimitiveArray<T>>,
    row: usize,
) -> Option<T::Native> {
    column.filter(|a| a.is_valid(row)).map(|a| a.value(row))
}

fn id(column: Option<&FixedSizeBinaryArray>, row: usize) -> Option<&[u8]> {
    column.filter(|a| a.is_valid(row)).map(|a| a.value(row))
}

impl Batch {
    /// The text column `name`.
    pub fn text_column(&self, name: &str) -> Option<&StringViewArray> {
        self.column(name)?.as_string_view_opt()
    }

    /// The numeric column `name`.
    pub fn number_column<T: ArrowPrimitiveType>(&self, name: &str) -> Option<&PrimitiveArray<T>> {
        self.column(name)?.as_primitive_opt()
    }

    /// The id column `name`.
    pub fn id_column(&self, name: &str) -> Option<&FixedSizeBinaryArray> {
        self.column(name)?.as_fixed_size_binary_opt()
    }

    /// The list column `name`.
    pub fn list_column(&self, name: &str) -> Option<&ListArray> {
        self.column(name)?.as_list_opt()
    }

    /// The column of resource attribute `service.name`.
    pub fn service_column(&self) -> Option<&StringViewArray> {
        self.text_column(&c::attribute_column(
            Scope::Resource,
            AttrType::Str,
            semconv::SERVICE_NAME,
        ))
    }
}

/// The struct items of `row` of a list column.
fn items(
    column: Option<&ListArray>,
    row: usize,
) -> impl Iterator<Item = (&StructArray, usize)> + use<'_> {
    let list = column.filter(|list| list.is_valid(row));
    list.and_then(|list| {
        let offsets = list.value_offsets();
        let range = offsets[row] as usize..offsets[row + 1] as usize;
        list.values().as_struct_opt().map(|items| range.map(move |i| (items, i)))
    })
    .into_iter()
    .flatten()
}
