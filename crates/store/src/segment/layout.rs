//! Which columns a segment has, and what goes into the overflow column instead.
//!
//! A batch has at most so many attribute columns, but batches of different clients, or of one that
//! invents keys, have different ones, and a segment has those of all. Each column costs a reader
//! memory, whether it has values or not. So a segment too has so many at most: those that most rows
//! have a value in. Attributes of others are kept, typed and indexed, in the overflow column, as those
//! are that found no column in their batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, StringViewBuilder, StructArray, UInt8Builder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type};
use arrow::error::ArrowError;
use lacuna_signal::SignalKind;
use lacuna_signal::schema::{
    AttrType, OVERFLOW, Scope, attribute_column, attribute_list_fields, attribute_list_type,
    parse_attribute_column,
};
use lacuna_signal::semconv::SERVICE_NAME;

use super::cells::Cells;
use super::gather::{Group, Tried};
use super::postings::{Texts, column_texts};
use crate::error::StoreError;
use crate::part::Part;

/// Attribute columns of a segment, at most: twice those of a batch.
pub const MAX_COLUMNS: usize = 1024;

/// The columns of a segment.
pub struct Layout {
    /// Fixed ones first, then attributes by name.
    pub schema: SchemaRef,
    /// Columns of the parts whose values go into the overflow column.
    demoted: Vec<Field>,
}

impl Layout {
    /// The columns of all `parts`.
    pub fn of(kind: SignalKind, parts: &[Arc<dyn Part>]) -> Result<Self, StoreError> {
        let schemas: Vec<SchemaRef> = parts.iter().map(|part| part.schema()).collect();
        let all = schemas.iter().flat_map(|schema| schema.fields().iter());
        let names: BTreeSet<&str> = all
            .map(|field| field.name().as_str())
            .filter(|name| parse_attribute_column(name).is_some())
            .collect();
        let kept = if names.len() > MAX_COLUMNS { Some(most_used(parts)?) } else { None };
        let field = |name: &str| {
            let (_, ty, _) = parse_attribute_column(name)?;
            Some(Field::new(name, ty.data_type(), true))
        };
        let is_kept = |name: &&str| kept.as_ref().is_none_or(|kept| kept.contains(*name));
        let (attributes, demoted): (Vec<&str>, Vec<&str>) = names.into_iter().partition(is_kept);
        let mut fields: Vec<Field> = Vec::new();
        for fixed in kind.fixed_fields() {
            let have = schemas.iter().filter(|s| s.field_with_name(fixed.name()).is_ok()).count();
            if have > 0 || (fixed.name() == OVERFLOW && !demoted.is_empty()) {
                let nullable = fixed.is_nullable() || have < schemas.len();
                fields.push(fixed.as_ref().clone().with_nullable(nullable));
            }
        }
        fields.extend(attributes.into_iter().filter_map(field));
        let demoted = demoted.into_iter().filter_map(field).collect();
        Ok(Self { schema: Arc::new(Schema::new(fields)), demoted })
    }

    /// The cells of column `field` in `group`.
    pub fn cells(
        &self,
        group: &Group<'_>,
        field: &Field,
        tried: &mut Tried,
    ) -> Result<Cells, StoreError> {
        let cells = group.column(field, tried)?;
        if self.demoted.is_empty() || field.name() != OVERFLOW {
            return Ok(cells);
        }
        let Cells::Plain(overflow) = cells else { return Ok(cells) };
        let mut entries = Entries::default();
        for field in &self.demoted {
            entries.add(field, &group.column(field, tried)?);
        }
        Ok(Cells::Plain(entries.append_to(&overflow)?))
    }
}

/// The attribute columns in which most rows of `parts` have a value, and that of the service.
fn most_used(parts: &[Arc<dyn Part>]) -> Result<BTreeSet<String>, StoreError> {
    let mut rows: BTreeMap<String, u64> = BTreeMap::new();
    for part in parts {
        for (name, column) in &part.summary()?.columns {
            *rows.entry(name.clone()).or_default() += column.rows;
        }
    }
    let service = attribute_column(Scope::Resource, AttrType::Str, SERVICE_NAME);
    rows.entry(service).and_modify(|rows| *rows = u64::MAX);
    let mut order: Vec<(String, u64)> = rows.into_iter().collect();
    order.sort_by(|(a, x), (b, y)| (y, a).cmp(&(x, b)));
    order.truncate(MAX_COLUMNS);
    Ok(order.into_iter().map(|(name, _)| name).collect())
}

/// Attributes of rows that go into the overflow column.
#[derive(Default)]
struct Entries {
    /// Key as it stands there, and the code of its type.
    keys: Vec<(String, u8)>,
    /// Row, place in `keys`, and value.
    values: Vec<(u32, u32, String)>,
}

/// The texts of an array, by their place in it.
#[derive(Default)]
struct Collected(Vec<(usize, String)>);

impl Texts for Collected {
    fn put(&mut self, row: usize, text: &[u8]) {
        self.0.push((row, String::from_utf8_lossy(text).into_owned()));
    }
}

impl Entries {
    fn add(&mut self, field: &Field, cells: &Cells) {
        let Some((scope, ty, key)) = parse_attribute_column(field.name()) else { return };
        let number = self.keys.len() as u32;
        self.keys.push((format!("{}.{key}", scope.name()), ty.code()));
        let mut texts = Collected::default();
        match cells {
            Cells::Plain(values) => {
                column_texts(values.as_ref(), ty, &mut texts);
                let values = texts.0.into_iter().map(|(row, text)| (row as u32, number, text));
                self.values.extend(values);
            }
            Cells::Coded(coded) => {
                column_texts(coded.values.as_ref(), ty, &mut texts);
                let rows = coded.codes.iter().enumerate();
                self.values.extend(rows.filter_map(|(row, code)| {
                    let (_, text) = texts.0.get(usize::from(code.checked_sub(1)?))?;
                    Some((row as u32, number, text.clone()))
                }));
            }
        }
    }

    /// `overflow` with these attributes after each row's own.
    fn append_to(mut self, overflow: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        self.values.sort_unstable_by_key(|(row, key, _)| (*row, *key));
        let lists: &ListArray = overflow.as_list();
        let items = lists.values().as_struct();
        let (own_keys, own_values) =
            (items.column(0).as_string_view(), items.column(2).as_string_view());
        let own_types = items.column(1).as_primitive::<UInt8Type>();
        let mut keys = StringViewBuilder::new().with_deduplicate_strings();
        let (mut types, mut values) = (UInt8Builder::new(), StringViewBuilder::new());
        let (mut lengths, mut valid) = (Vec::with_capacity(lists.len()), Vec::new());
        let mut more = self.values.iter().peekable();
        for row in 0..lists.len() {
            let offsets = lists.value_offsets();
            let own = if lists.is_valid(row) { offsets[row]..offsets[row + 1] } else { 0..0 };
            let mut length = own.len();
            for item in own.map(|item| item as usize) {
                keys.append_value(own_keys.value(item));
                types.append_value(own_types.value(item));
                values.append_value(own_values.value(item));
            }
            while let Some((_, key, text)) = more.next_if(|(at, _, _)| *at as usize == row) {
                let (key, ty) = &self.keys[*key as usize];
                keys.append_value(key);
                types.append_value(*ty);
                values.append_value(text);
                length += 1;
            }
            valid.push(length > 0);
            lengths.push(length);
        }
        let columns: Vec<ArrayRef> =
            vec![Arc::new(keys.finish()), Arc::new(types.finish()), Arc::new(values.finish())];
        let items = StructArray::try_new(attribute_list_fields(), columns, None)?;
        let DataType::List(item) = attribute_list_type() else {
            return Err(ArrowError::SchemaError("an attribute list is a list".to_owned()));
        };
        let offsets = OffsetBuffer::from_lengths(lengths);
        let nulls = NullBuffer::from(valid);
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(items), Some(nulls))?))
    }
}
