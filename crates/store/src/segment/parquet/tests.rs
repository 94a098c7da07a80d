//! What our writer of column chunks writes, the parquet crate's ordinary reader reads.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int32Array,
    Int64Array, ListArray, StringViewArray, TimestampNanosecondArray, UInt8Array, UInt32Array,
    UInt64Array,
};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use proptest::prelude::*;

use super::super::blocks::BlockWriter;
use super::super::cells::{Cells, Coded};
use super::ParquetCodec;
use crate::files::{Files, OsFiles};
use crate::segment::codec::Codec;

/// Values of one type: `distinct` of them.
fn values(ty: usize, distinct: usize) -> ArrayRef {
    let numbers = || (0..distinct as i64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64));
    match ty {
        0 => {
            let text =
                |n| format!("value {n}{}", if n % 3 == 0 { " that is a long one" } else { "" });
            Arc::new(numbers().map(|n| Some(text(n))).collect::<StringViewArray>())
        }
        1 => Arc::new(Int64Array::from_iter_values(numbers())),
        2 => Arc::new(UInt64Array::from_iter_values(numbers().map(|n| n as u64))),
        3 => Arc::new(Float64Array::from_iter_values(numbers().map(|n| n as f64))),
        4 => Arc::new(Int32Array::from_iter_values(numbers().map(|n| n as i32))),
        5 => Arc::new(UInt32Array::from_iter_values(numbers().map(|n| n as u32))),
        6 => Arc::new(UInt8Array::from_iter_values((0..distinct.min(256)).map(|n| n as u8))),
        8 => Arc::new(TimestampNanosecondArray::from_iter_values(numbers())),
        9 => {
            let ids = numbers().map(i64::to_be_bytes);
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids).unwrap())
        }
        10 => {
            let bytes = numbers().map(|n| n.to_be_bytes()[..(n & 7) as usize].to_vec());
            Arc::new(BinaryViewArray::from_iter_values(bytes))
        }
        11 => Arc::new(BooleanArray::from_iter((0..distinct.min(2)).map(|n| Some(n == 1)))),
        _ => {
            let ids = numbers().map(|n| [n.to_le_bytes(), n.to_be_bytes()].concat());
            Arc::new(FixedSizeBinaryArray::try_from_iter(ids).unwrap())
        }
    }
}

/// How the codes of a column come: alone, in runs, in a pattern.
#[derive(Debug, Clone)]
struct Shape {
    ty: usize,
    plain: bool,
    distinct: usize,
    nullable: bool,
    /// Of 16 rows, those that are null.
    nulls: usize,
    run: usize,
    seed: u64,
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let distinct = prop_oneof![Just(1usize), 1usize..6, 200usize..300, 300usize..5000];
    let nulls = prop_oneof![Just(0usize), 0usize..16, Just(16usize)];
    (
        0usize..12,
        distinct,
        (any::<bool>(), any::<bool>()),
        nulls,
        prop_oneof![Just(1usize), 1usize..3000],
        any::<u64>(),
    )
        .prop_map(|(ty, distinct, (nullable, plain), nulls, run, seed)| {
            let distinct = match ty {
                6 => distinct.min(256),
                11 => distinct.min(2),
                _ => distinct,
            };
            let plain = plain || ty >= 8;
            Shape { ty, plain, distinct, nullable, nulls, run, seed }
        })
}

impl Shape {
    fn codes(&self, rows: usize) -> Vec<u16> {
        let mut state = self.seed | 1;
        let mut codes = Vec::with_capacity(rows);
        while codes.len() < rows {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let random = (state >> 33) as usize;
            let null = self.nullable && random % 16 < self.nulls;
            let code = if null { 0 } else { (random / 16 % self.distinct) as u16 + 1 };
            let len = 1 + random / 7 % self.run;
            codes.extend(std::iter::repeat_n(code, len.min(rows - codes.len())));
        }
        codes
    }

    /// A group of `rows` rows, and what it reads as.
    fn group(&self, rows: usize) -> (Coded, ArrayRef) {
        let all = values(self.ty, self.distinct);
        // Only what occurs is in the dictionary.
        let (mut known, mut picked) = (vec![0u16; self.distinct + 1], Vec::new());
        let codes: Vec<u16> = self
            .codes(rows)
            .into_iter()
            .map(|code| {
                let code = usize::from(code);
                if code > 0 && known[code] == 0 {
                    picked.push(code as u64 - 1);
                    known[code] = picked.len() as u16;
                }
                known[code]
            })
            .collect();
        let values = take(&all, &UInt64Array::from(picked), None).unwrap();
        let places: UInt64Array =
            codes.iter().map(|code| code.checked_sub(1).map(u64::from)).collect();
        let expected = take(&values, &places, None).unwrap();
        (Coded { codes, values }, expected)
    }
}

fn write(schema: &Arc<Schema>, groups: Vec<Vec<Cells>>) -> Bytes {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let out = BlockWriter::new(OsFiles.create(&path).unwrap());
    let codec = ParquetCodec::default();
    let mut writer = codec.write(Arc::clone(schema), out).unwrap();
    for group in groups {
        writer.append(&mut group.into_iter().map(Ok)).unwrap();
    }
    writer.finish().unwrap();
    Bytes::from(std::fs::read(&path).unwrap())
}

fn read(file: &Bytes, selection: Option<RowSelection>) -> Vec<ArrayRef> {
    let mut builder = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    let batches: Vec<_> = builder.build().unwrap().map(Result::unwrap).collect();
    let columns = 0..batches[0].num_columns();
    let column =
        |i: usize| batches.iter().map(|batch| batch.column(i).as_ref()).collect::<Vec<_>>();
    columns.map(|i| concat(&column(i)).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_written_reads_back(
        shapes in proptest::collection::vec(any_shape(), 1..5),
        rows in proptest::collection::vec(prop_oneof![1usize..40, 4000usize..9000], 1..4),
        from in 0usize..4000,
    ) {
        let fields: Vec<Field> = shapes.iter().enumerate().map(|(i, shape)| {
            Field::new(format!("c{i}"), values(shape.ty, 1).data_type().clone(), shape.nullable)
        }).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut groups = Vec::new();
        let mut expected: Vec<Vec<ArrayRef>> = vec![Vec::new(); shapes.len()];
        for (group, rows) in rows.iter().enumerate() {
            let cells = shapes.iter().zip(&mut expected).map(|(shape, expected)| {
                let (coded, array) = shape.group(*rows);
                expected.push(Arc::clone(&array));
                // A column may have a dictionary in one row group and none in the next.
                let other = shape.ty != 6 && shape.seed & 2 == 0 && group % 2 == 1;
                if shape.plain || other { Cells::Plain(array) } else { Cells::Coded(coded) }
            });
            groups.push(cells.collect());
        }
        let file = write(&schema, groups);
        let metadata = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap();
        let groups = metadata.metadata().row_groups();
        for column in 0..shapes.len() {
            let codec = |group: usize| groups[group].column(column).compression_codec();
            prop_assert!((1..groups.len()).all(|group| codec(group) == codec(0)));
        }
        let all: usize = rows.iter().sum();
        let from = from.min(all - 1);
        let some = RowSelection::from(vec![RowSelector::skip(from), RowSelector::select(1)]);
        let (read_all, read_one) = (read(&file, None), read(&file, Some(some)));
        for ((expected, all), one) in expected.iter().zip(&read_all).zip(&read_one) {
            let arrays: Vec<&dyn Array> = expected.iter().map(AsRef::as_ref).collect();
            let expected = concat(&arrays).unwrap();
            prop_assert_eq!(all, &expected);
            prop_assert_eq!(one, &expected.slice(from, 1));
        }
    }
}

#[test]
fn a_whole_row_group_of_65535_values_reads_back() {
    let shape =
        Shape { ty: 1, plain: false, distinct: 65_535, nullable: true, nulls: 2, run: 1, seed: 5 };
    let schema = Arc::new(Schema::new(vec![Field::new("c", DataType::Int64, true)]));
    let (coded, expected) = shape.group(super::super::GROUP_ROWS);
    assert!(coded.values.len() > 50_000);
    let file = write(&schema, vec![vec![Cells::Coded(coded)]]);
    assert_eq!(read(&file, None).first(), Some(&expected));
}

#[test]
fn plain_nested_and_coded_columns_lie_side_by_side() {
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from_iter_values(0..5000));
    let flags: ArrayRef = Arc::new(BooleanArray::from_iter((0..5000).map(|i| Some(i % 3 == 0))));
    let lists = (0..5000i64).map(|i| (i % 5 > 1).then(|| (0..i % 4).map(Some)));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
    let shape =
        Shape { ty: 0, plain: false, distinct: 9, nullable: true, nulls: 5, run: 3, seed: 3 };
    let (coded, texts) = shape.group(5000);
    let field = |name, array: &ArrayRef| Field::new(name, array.data_type().clone(), true);
    let schema = Arc::new(Schema::new(vec![
        field("times", &times),
        field("lists", &lists),
        field("texts", &texts),
        field("flags", &flags),
    ]));
    let group = vec![
        Cells::Plain(Arc::clone(&times)),
        Cells::Plain(Arc::clone(&lists)),
        Cells::Coded(coded),
        Cells::Plain(Arc::clone(&flags)),
    ];
    let read = read(&write(&schema, vec![group]), None);
    assert_eq!(read, [times, lists, texts, flags]);
}

#[test]
fn a_null_where_none_may_be_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let out = BlockWriter::new(OsFiles.create(&dir.path().join("f")).unwrap());
    let schema = Arc::new(Schema::new(vec![Field::new("c", DataType::Int64, false)]));
    let codec = ParquetCodec::default();
    let mut writer = codec.write(schema, out).unwrap();
    let values: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let cells = Cells::Coded(Coded { codes: vec![1, 0], values });
    assert!(writer.append(&mut std::iter::once(Ok(cells))).is_err());
}

#[test]
fn sliced_columns_are_written_as_they_are() {
    let shapes = [0, 1, 8, 9, 10, 11].map(|ty| Shape {
        ty,
        plain: true,
        distinct: if ty == 11 { 2 } else { 700 },
        nullable: true,
        nulls: 4,
        run: 2,
        seed: 11 + ty as u64,
    });
    let arrays: Vec<ArrayRef> =
        shapes.iter().map(|shape| shape.group(3000).1.slice(333, 2222)).collect();
    let fields = arrays.iter().enumerate();
    let fields = fields.map(|(i, a)| Field::new(format!("c{i}"), a.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let group = arrays.iter().map(|array| Cells::Plain(Arc::clone(array))).collect();
    assert_eq!(read(&write(&schema, vec![group]), None), arrays);
}
