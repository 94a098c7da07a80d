//! Which columns a file has that can be read here.

use ::parquet::basic::Type;
use ::parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};
use arrow::datatypes::{DataType, Field, Schema};

use super::page::Layout;
use super::sink::Shape;

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its type.
    pub data_type: DataType,
    /// Whether a row may be null.
    pub nullable: bool,
    /// Its leaves, from left to right: one, unless it is nested.
    pub leaves: Vec<Leaf>,
}

/// A column of Parquet.
#[derive(Debug)]
pub struct Leaf {
    /// Its number among the leaves of Parquet's schema.
    pub number: usize,
    /// Its type.
    pub data_type: DataType,
    /// How its pages are to be read.
    pub layout: Layout,
}

/// The columns of `schema` by their number, without those that are not to be read here. `packed`
/// tells which leaves are compressed, group after group.
pub fn of(described: &SchemaDescriptor, schema: &Schema, packed: &[bool]) -> Vec<Option<Column>> {
    let mut leaves: Vec<Vec<(usize, &ColumnDescPtr)>> = vec![Vec::new(); schema.fields().len()];
    for (number, leaf) in described.columns().iter().enumerate() {
        if let Some(root) = leaves.get_mut(described.get_column_root_idx(number)) {
            root.push((number, leaf));
        }
    }
    let fields = schema.fields().iter().zip(leaves);
    let column = |(field, leaves): (&std::sync::Arc<Field>, Vec<(usize, &ColumnDescPtr)>)| {
        let mut places = Vec::new();
        flatten(field, Levels::default(), &mut places)?;
        if places.len() != leaves.len() {
            return None;
        }
        let leaves = places.into_iter().zip(leaves).map(|((data_type, levels), (number, leaf))| {
            // A column of ours is compressed in all row groups or in none.
            let mut groups = packed.iter().skip(number).step_by(described.num_columns());
            let packed = groups.next().copied()?;
            if groups.any(|other| *other != packed) {
                return None;
            }
            let layout = layout(data_type, levels, leaf, packed)?;
            Some(Leaf { number, data_type: data_type.clone(), layout })
        });
        let leaves = leaves.collect::<Option<Vec<_>>>()?;
        let (data_type, nullable) = (field.data_type().clone(), field.is_nullable());
        Some(Column { data_type, nullable, leaves })
    };
    fields.map(column).collect()
}

#[derive(Clone, Copy, Default)]
struct Levels {
    repetition: u32,
    definition: u32,
    place: u32,
}

/// The leaves of `field`, which stands where `levels` are.
fn flatten<'a>(
    field: &'a Field,
    mut levels: Levels,
    leaves: &mut Vec<(&'a DataType, Levels)>,
) -> Option<()> {
    levels.place = levels.definition;
    levels.definition += u32::from(field.is_nullable());
    match field.data_type() {
        DataType::List(item) => {
            levels.repetition += 1;
            levels.definition += 1;
            // Our lists have no null items.
            (!item.is_nullable()).then_some(())?;
            flatten(item, levels, leaves)
        }
        DataType::Struct(fields) if !field.is_nullable() && !fields.is_empty() => {
            fields.iter().try_for_each(|field| flatten(field, levels, leaves))
        }
        flat => {
            leaves.push((flat, levels));
            Some(())
        }
    }
}

/// How the pages of `leaf` are to be read; `None` if its levels or its type are not as expected.
fn layout(
    data_type: &DataType,
    levels: Levels,
    leaf: &ColumnDescPtr,
    packed: bool,
) -> Option<Layout> {
    let shape = Shape::of(data_type)?;
    let width = usize::try_from(leaf.type_length()).unwrap_or_default();
    let double = *data_type == DataType::Float64;
    let fits = match leaf.physical_type() {
        Type::INT64 => shape == Shape::Words && !double,
        Type::DOUBLE => double,
        Type::INT32 => shape == Shape::Halves,
        Type::BOOLEAN => shape == Shape::Flags,
        Type::BYTE_ARRAY => matches!(shape, Shape::Text | Shape::Bytes),
        Type::FIXED_LEN_BYTE_ARRAY => shape == Shape::Fixed(width),
        _ => false,
    };
    let Levels { repetition, definition, place } = levels;
    let level = |level: i16| u32::try_from(level).ok();
    let alike = level(leaf.max_rep_level()) == Some(repetition)
        && level(leaf.max_def_level()) == Some(definition);
    (fits && alike).then_some(Layout { shape, repetition, definition, place, packed })
}
