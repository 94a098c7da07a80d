//! Rows in memory, packed: a value that repeats is kept once, with a code of one or two bytes a row.
//!
//! A decoded batch takes 16 bytes for each text, null ones too, and its texts lie in the body of the
//! request that brought them, most of which is framing and repetition. Telemetry has some forty
//! columns, and in most of them few values: packed, a row takes a third or less. A query that asks
//! for a value finds out by the few values of a chunk whether any row has it.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow::datatypes::SchemaRef;
use lacuna_signal::batch::{BatchError, union_schema};
use lacuna_signal::schema::{EVENTS, OVERFLOW};
use lacuna_signal::{Batch, SignalKind};

use crate::code::{self, Share};
use crate::lookup::{Lookup, Term, is_event_column};
use crate::rows::RowSet;

pub use lacuna_signal::coded::{Codes, Column};

/// The rows that have `code`.
pub fn rows_of(codes: &Codes, code: usize) -> RowSet {
    match codes {
        Codes::One(rows) => rows_where(*rows, |_| code == 0),
        Codes::Byte(codes) => rows_where(codes.len(), |row| usize::from(codes[row]) == code),
        Codes::Word(codes) => rows_where(codes.len(), |row| usize::from(codes[row]) == code),
    }
}

/// Rows as they are kept.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// Their columns' names and types.
    pub schema: &'a SchemaRef,
    /// How many there are.
    pub rows: usize,
    /// Their columns.
    pub columns: &'a [Column],
    /// Whether the decoder gave codes to texts that are worth them.
    pub tried: bool,
}

/// Rows of one kind that share no memory with anything else.
#[derive(Debug, Clone)]
pub struct Packed {
    kind: SignalKind,
    schema: SchemaRef,
    rows: usize,
    columns: Vec<Column>,
}

impl Packed {
    /// All rows of `batches`, in order; `None` if there is no batch.
    pub fn of(batches: &[Batch]) -> Result<Option<Self>, BatchError> {
        let kept: Vec<Vec<Column>> = batches.iter().map(Batch::stored_columns).collect();
        let all = batches.iter().zip(&kept);
        let parts: Vec<_> = all
            .map(|(batch, columns)| Stored {
                schema: batch.schema(),
                rows: batch.num_rows(),
                columns,
                tried: batch.is_coded(),
            })
            .collect();
        batches.first().map(|first| Self::join(first.kind(), &parts)).transpose()
    }

    /// All rows of `parts`, in order.
    pub fn join(kind: SignalKind, parts: &[Stored<'_>]) -> Result<Self, BatchError> {
        let schema = match parts {
            [only] => Arc::clone(only.schema),
            many => {
                let schemas: Vec<_> = many.iter().map(|part| part.schema.as_ref()).collect();
                Arc::new(union_schema(kind, &schemas))
            }
        };
        // Batches have their columns in the same order: each is looked for where the last one was.
        let mut next = vec![0; parts.len()];
        let columns = schema.fields().iter().map(|field| {
            let shares: Vec<Share<'_>> = parts
                .iter()
                .zip(&mut next)
                .map(|(part, next)| {
                    let fields = part.schema.fields();
                    let here = fields.get(*next).filter(|at| at.name() == field.name());
                    let at = here.map(|_| *next);
                    let at = at.or_else(|| part.schema.index_of(field.name()).ok());
                    *next = at.map_or(*next, |at| at + 1);
                    let column = at.and_then(|at| part.columns.get(at));
                    Share { column, rows: part.rows, tried: part.tried }
                })
                .collect();
            code::join(field.data_type(), &shares)
        });
        let columns = columns.collect::<Result<_, _>>()?;
        let rows = parts.iter().map(|part| part.rows).sum();
        Ok(Self { kind, schema, rows, columns })
    }

    /// The kind of signal.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// The columns' names and types.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.rows
    }

    /// The column `name`, if any row may have a value in it.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.schema.index_of(name).ok().and_then(|i| self.columns.get(i))
    }

    /// The columns, in the schema's order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Bytes of memory.
    pub fn footprint(&self) -> usize {
        let mut seen = HashSet::new();
        self.columns.iter().map(|column| column_footprint(column, &mut seen)).sum()
    }

    /// All rows.
    #[cfg(test)]
    pub fn unpack(&self) -> Result<Batch, BatchError> {
        self.read(&RowSet::range(0..self.rows as u32), |_| true)
    }

    /// The wanted columns of `rows`.
    pub fn read(&self, rows: &RowSet, wanted: impl Fn(&str) -> bool) -> Result<Batch, BatchError> {
        let keep: Vec<usize> =
            (0..self.columns.len()).filter(|i| wanted(self.schema.field(*i).name())).collect();
        let schema = Arc::new(self.schema.project(&keep)?);
        let wanted = keep.iter().filter_map(|i| self.columns.get(*i));
        let columns: Vec<ArrayRef> = match rows.ranges() {
            [all] if all.len() == self.rows => {
                wanted.map(|column| column.all()).collect::<Result<_, _>>()?
            }
            [one] => wanted
                .map(|column| column.slice(one.start as usize, one.len()))
                .collect::<Result<_, _>>()?,
            many => {
                let rows = many.iter().cloned().flatten().map(u64::from);
                let rows = UInt64Array::from_iter_values(rows);
                wanted.map(|column| column.pick(&rows)).collect::<Result<_, _>>()?
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let record = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Batch::try_new(self.kind, record)
    }

    /// Rows among which all are that satisfy `lookup`; `None` if that cannot be told.
    pub fn candidates(&self, lookup: &Lookup) -> Option<RowSet> {
        let mut rows: Option<RowSet> = None;
        for term in &lookup.terms {
            if let Some(found) = self.term(term) {
                rows = Some(rows.map_or(found.clone(), |rows| rows.and(&found)));
            }
        }
        rows
    }

    fn term(&self, term: &Term) -> Option<RowSet> {
        let arrays = term.arrays.iter().any(|name| self.column(name).is_some());
        if arrays || self.column(OVERFLOW).is_some() {
            return None;
        }
        let mut found = RowSet::default();
        for name in &term.columns {
            if is_event_column(name) && self.column(EVENTS).is_some() {
                return None;
            }
            let Some(column) = self.column(name) else { continue };
            let (texts, codes) = match column {
                Column::Plain(array) => (array, None),
                Column::Coded { codes, values } => (values, Some(codes)),
            };
            // Numbers and the like have texts of their own; there are few such look-ups.
            let texts = texts.as_string_view_opt()?;
            let has = |at: usize| texts.is_valid(at) && texts.value(at) == term.text;
            found = found.or(&match codes {
                None => rows_where(self.rows, has),
                Some(codes) => match (0..texts.len()).find(|at| has(*at)) {
                    None => RowSet::default(),
                    Some(code) => rows_of(codes, code),
                },
            });
        }
        Some(found)
    }
}

/// The rows below `rows` that `has` accepts.
pub fn rows_where(rows: usize, has: impl Fn(usize) -> bool) -> RowSet {
    let mut set = RowSet::default();
    for row in (0..rows).filter(|row| has(*row)) {
        set.push(row as u32..row as u32 + 1);
    }
    set
}

/// Bytes of memory that `batch` keeps alive. A buffer that many columns share counts once, unlike
/// in Arrow's own sum.
pub fn footprint(batch: &Batch) -> usize {
    let mut seen = HashSet::new();
    let columns = batch.stored_columns();
    columns.iter().map(|column| column_footprint(column, &mut seen)).sum()
}

fn column_footprint(column: &Column, seen: &mut HashSet<*const u8>) -> usize {
    match column {
        Column::Plain(array) => data_footprint(&array.to_data(), seen),
        Column::Coded { codes, values } => codes.bytes() + data_footprint(&values.to_data(), seen),
    }
}

fn data_footprint(data: &ArrayData, seen: &mut HashSet<*const u8>) -> usize {
    let buffers = data.buffers().iter().chain(data.nulls().map(|nulls| nulls.buffer()));
    let own: usize = buffers
        .filter(|buffer| seen.insert(buffer.data_ptr().as_ptr().cast_const()))
        .map(|buffer| buffer.capacity())
        .sum();
    own + data.child_data().iter().map(|child| data_footprint(child, seen)).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        FixedSizeBinaryArray, Int64Array, StringViewArray, TimestampNanosecondArray,
    };
    use arrow::datatypes::{DataType, Field, Schema};
    use lacuna_signal::schema::{self, AttrType, Scope};
    use proptest::prelude::*;

    fn logs(bodies: &[Option<String>], numbers: &[Option<i64>], ids: &[Option<u8>]) -> Batch {
        let times = TimestampNanosecondArray::from_iter_values(0..bodies.len() as i64);
        let ids = ids.iter().map(|id| id.map(|id| [id; 16]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(times.with_timezone("UTC")),
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).unwrap()),
            Arc::new(bodies.iter().map(Option::as_deref).collect::<StringViewArray>()),
            Arc::new(Int64Array::from(numbers.to_vec())),
        ];
        let schema = Schema::new(vec![
            Field::new(schema::TIME, schema::timestamp_type(), false),
            Field::new(schema::TRACE_ID, DataType::FixedSizeBinary(16), true),
            Field::new(schema::BODY, DataType::Utf8View, true),
            Field::new(
                schema::attribute_column(Scope::Log, AttrType::Int, "n"),
                DataType::Int64,
                true,
            ),
        ]);
        let record = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
        Batch::try_new(SignalKind::Logs, record).unwrap()
    }

    fn line(i: u16) -> String {
        let long = if i.is_multiple_of(2) { " of more than twelve bytes" } else { "" };
        format!("line {i}{long}")
    }

    fn any_row(values: u16) -> impl Strategy<Value = (Option<String>, Option<i64>, Option<u8>)> {
        let some = move || proptest::option::weighted(0.8, 0..values);
        (some(), some(), some()).prop_map(|(text, number, id)| {
            (text.map(line), number.map(i64::from), id.map(|id| (id % 256) as u8 | 1))
        })
    }

    fn batch(rows: &[(Option<String>, Option<i64>, Option<u8>)]) -> Batch {
        let (mut texts, mut numbers, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for (text, number, id) in rows.iter().cloned() {
            texts.push(text);
            numbers.push(number);
            ids.push(id);
        }
        logs(&texts, &numbers, &ids)
    }

    proptest! {
        #[test]
        fn what_is_packed_reads_back(
            rows in (1u16..600).prop_flat_map(|n| proptest::collection::vec(any_row(n), 1..700)),
            cuts in proptest::collection::vec(0u32..700, 0..8),
        ) {
            let batch = batch(&rows);
            let packed = Packed::of(std::slice::from_ref(&batch)).unwrap().unwrap();
            prop_assert_eq!(&packed.unpack().unwrap(), &batch);
            let len = rows.len() as u32;
            let mut cuts: Vec<u32> = cuts.into_iter().map(|cut| cut.min(len)).collect();
            cuts.sort_unstable();
            let mut set = RowSet::default();
            cuts.chunks_exact(2).for_each(|pair| set.push(pair[0]..pair[1]));
            let picked = UInt64Array::from_iter_values(
                set.ranges().iter().cloned().flatten().map(u64::from));
            prop_assert_eq!(&packed.read(&set, |_| true).unwrap(), &batch.take(&picked).unwrap());
        }

        #[test]
        fn parts_joined_are_the_parts_one_after_the_other(
            parts in proptest::collection::vec(
                (1u16..600).prop_flat_map(|n| {
                    (proptest::collection::vec(any_row(n), 0..500), 0u8..4)
                }),
                1..6,
            ),
        ) {
            // A part may come as it is, without a column, packed, or both.
            let some = [schema::TIME, schema::BODY];
            let parts: Vec<(Batch, bool)> = parts
                .iter()
                .map(|(rows, how)| {
                    let batch = batch(rows);
                    let batch = if how & 1 == 0 { batch } else { batch.project(&some).unwrap() };
                    (batch, how & 2 == 0)
                })
                .collect();
            let batches: Vec<Batch> = parts.iter().map(|(batch, _)| batch.clone()).collect();
            let expected = Batch::concat(SignalKind::Logs, &batches).unwrap();
            let kept: Vec<(SchemaRef, usize, Vec<Column>)> = parts
                .iter()
                .map(|(batch, packed)| {
                    let columns = match packed {
                        false => batch.stored_columns(),
                        true => Packed::of(std::slice::from_ref(batch)).unwrap().unwrap().columns,
                    };
                    (batch.schema().clone(), batch.num_rows(), columns)
                })
                .collect();
            let kept: Vec<Stored<'_>> = kept
                .iter()
                .map(|(schema, rows, columns)| Stored {
                    schema,
                    rows: *rows,
                    columns,
                    tried: *rows > 100,
                })
                .collect();
            let joined = Packed::join(SignalKind::Logs, &kept).unwrap();
            prop_assert_eq!(&joined.unpack().unwrap(), &expected);
            for column in joined.columns() {
                if let Column::Coded { codes, values } = column {
                    let counts = codes.count(values.len());
                    prop_assert!(counts.iter().all(|rows| *rows > 0), "an unused value");
                }
            }
        }

        #[test]
        fn look_ups_name_the_rows_that_have_the_text(
            rows in proptest::collection::vec(any_row(40), 1..300), wanted in 0u16..60,
        ) {
            let packed = Packed::of(&[batch(&rows)]).unwrap().unwrap();
            let text = line(wanted);
            let columns = vec![schema::BODY.to_owned(), "nobody".to_owned()];
            let lookup = Lookup { terms: vec![Term { columns, text, arrays: Vec::new() }], ..Lookup::default() };
            let found = packed.candidates(&lookup).unwrap();
            let expected = rows_where(rows.len(), |row| rows[row].0 == Some(line(wanted)));
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn repeated_text_is_kept_once() {
        let text = "the same line of more than twelve bytes ".repeat(20);
        let batch = logs(&vec![Some(text); 500], &vec![Some(1); 500], &vec![None; 500]);
        let packed = Packed::of(&[batch.clone(), batch.clone()]).unwrap().unwrap();
        assert!(packed.footprint() < 20_000, "{}", packed.footprint());
        assert_eq!(
            packed.unpack().unwrap().slice(0, 500).record().columns(),
            batch.record().columns()
        );
    }

    #[test]
    fn a_slice_lets_go_of_the_rest() {
        let lines: Vec<_> = (0..1000).map(|i| Some(format!("line number {i:0>100}"))).collect();
        let batch = logs(&lines, &vec![None; 1000], &vec![None; 1000]);
        let packed = Packed::of(&[batch.slice(10, 2)]).unwrap().unwrap();
        assert!(packed.footprint() * 10 < footprint(&batch));
        assert_eq!(
            packed.unpack().unwrap().text_column(schema::BODY).unwrap().value(1),
            lines[11].as_deref().unwrap()
        );
    }
}
