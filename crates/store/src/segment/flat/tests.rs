//! What is read here is what the parquet crate reads.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
};
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::file::metadata::PageIndexPolicy;
use ::parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use ::parquet::schema::types::ColumnPath;
use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BinaryViewArray, BooleanArray, FixedSizeBinaryArray,
    Float64Array, Int32Array, Int64Array, ListBuilder, RecordBatch, StringViewArray,
    StringViewBuilder, StructBuilder, TimestampNanosecondArray, UInt8Array, UInt8Builder,
    UInt32Array, UInt64Array, UInt64Builder, new_null_array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Schema};
use proptest::prelude::*;

use super::page::Layout;
use super::sink::Shape;
use super::*;
use crate::files::{Files, OsFiles};
use crate::segment::blocks::BlockWriter;
use crate::segment::pages::{Contexts, as_plain};

/// How a file is written.
#[derive(Debug, Clone)]
struct Style {
    second: bool,
    packed: bool,
    dictionary: bool,
    delta: bool,
    page_rows: usize,
    group_rows: usize,
    /// Dictionaries of more bytes are given up in the middle of a row group.
    dictionary_bytes: usize,
    statistics: bool,
}

fn any_style() -> impl Strategy<Value = Style> {
    let flags = proptest::array::uniform5(any::<bool>());
    let sizes = (1usize..200, 50usize..800, prop_oneof![Just(64usize), Just(1 << 20)]);
    (flags, sizes).prop_map(|(flags, (page_rows, group_rows, dictionary_bytes))| {
        let [second, packed, dictionary, delta, statistics] = flags;
        let sizes = (page_rows, group_rows, dictionary_bytes);
        let (page_rows, group_rows, dictionary_bytes) = sizes;
        Style {
            second,
            packed,
            dictionary,
            delta,
            page_rows,
            group_rows,
            dictionary_bytes,
            statistics,
        }
    })
}

impl Style {
    fn properties(&self) -> WriterProperties {
        let version =
            if self.second { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 };
        let zstd = Compression::ZSTD(ZstdLevel::try_new(1).unwrap());
        let statistics =
            if self.statistics { EnabledStatistics::Page } else { EnabledStatistics::None };
        let mut properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(if self.packed { zstd } else { Compression::UNCOMPRESSED })
            .set_dictionary_enabled(self.dictionary)
            .set_dictionary_page_size_limit(self.dictionary_bytes)
            .set_data_page_row_count_limit(self.page_rows)
            .set_write_batch_size(self.page_rows)
            .set_statistics_enabled(statistics)
            .set_max_row_group_row_count(Some(self.group_rows));
        if self.delta {
            for name in ["int64", "time", "uint64"] {
                let path = ColumnPath::new(vec![name.to_owned()]);
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        }
        properties.build()
    }

    /// Whether the crate falls back to an encoding that we do not write.
    fn is_foreign(&self) -> bool {
        self.second
    }
}

fn pair_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8View, false),
        Field::new("type", DataType::UInt8, false),
    ])
}

fn event_fields() -> Fields {
    let pairs = Field::new("item", DataType::Struct(pair_fields()), false);
    Fields::from(vec![
        Field::new("time", DataType::UInt64, false),
        Field::new("note", DataType::Utf8View, true),
        Field::new("pairs", DataType::List(Arc::new(pairs)), false),
    ])
}

/// Rows of all types: column `i` has values and nulls by turns as the bits say.
fn record(rows: usize, seed: u64, values: u64, nulls: u8) -> RecordBatch {
    let mix = crate::trace_index::mix;
    let random = |column: u64, row: usize| mix(seed ^ column << 48 ^ row as u64);
    let value = move |column: u64, row: usize| -> Option<u64> {
        let stretch = mix(seed ^ column << 40 ^ (row / 97) as u64);
        let null = match (nulls.wrapping_add(column as u8)) % 5 {
            0 => false,
            1 => true,
            2 => !random(column, row).is_multiple_of(3),
            3 => stretch.is_multiple_of(2),
            _ => !random(column, row).is_multiple_of(50),
        };
        (!null).then(|| random(column + 100, row) % values)
    };
    let text = |n: u64| format!("{n}{}", "-more than twelve".repeat((n % 3) as usize));
    let all = 0..rows;
    let item = Field::new("item", DataType::UInt64, false);
    let mut lists = ListBuilder::new(UInt64Builder::new()).with_field(item);
    for row in all.clone() {
        match value(10, row) {
            None => lists.append(false),
            Some(n) => {
                (0..n % 3).for_each(|item| lists.values().append_value(item));
                lists.append(true);
            }
        }
    }
    let mut events = ListBuilder::new(StructBuilder::from_fields(event_fields(), 0))
        .with_field(Field::new("item", DataType::Struct(event_fields()), false));
    for row in all.clone() {
        let Some(n) = value(14, row) else {
            events.append(false);
            continue;
        };
        for item in 0..n % 4 {
            let event = events.values();
            event.field_builder::<UInt64Builder>(0).unwrap().append_value(n + item);
            let note = (item == 2).then(|| text(n));
            event.field_builder::<StringViewBuilder>(1).unwrap().append_option(note);
            let pairs = event.field_builder::<ListBuilder<Box<dyn ArrayBuilder>>>(2).unwrap();
            for pair in 0..(n + item) % 3 {
                let pairs = pairs.values().as_any_mut().downcast_mut::<StructBuilder>().unwrap();
                pairs.field_builder::<StringViewBuilder>(0).unwrap().append_value(text(pair));
                pairs.field_builder::<UInt8Builder>(1).unwrap().append_value(pair as u8);
                pairs.append(true);
            }
            pairs.append(true);
            event.append(true);
        }
        events.append(true);
    }
    let bytes = |n: u64| [&n.to_le_bytes()[..], &n.to_be_bytes()].concat();
    let ids = all.clone().map(|row| value(5, row).map(bytes));
    let floats: Float64Array =
        all.clone().map(|row| value(4, row).map(|n| n as f64 / 7.0)).collect();
    let numbers = |column: u64| all.clone().map(move |row| value(column, row));
    let times: TimestampNanosecondArray =
        numbers(1).map(|n| n.map(|n| n.wrapping_mul(1 << 40) as i64)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("int64", Arc::new(numbers(0).map(|n| n.map(|n| n as i64 - 50)).collect::<Int64Array>())),
        ("time", Arc::new(times.with_timezone("UTC"))),
        ("uint64", Arc::new(numbers(2).collect::<UInt64Array>())),
        ("uint32", Arc::new(numbers(3).map(|n| n.map(|n| n as u32)).collect::<UInt32Array>())),
        ("double", Arc::new(floats)),
        ("id", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(ids, 16).unwrap())),
        ("flag", Arc::new(numbers(6).map(|n| n.map(|n| n % 2 == 1)).collect::<BooleanArray>())),
        ("text", Arc::new(numbers(7).map(|n| n.map(text)).collect::<StringViewArray>())),
        ("bytes", Arc::new(numbers(8).map(|n| n.map(bytes)).collect::<BinaryViewArray>())),
        ("uint8", Arc::new(numbers(9).map(|n| n.map(|n| n as u8)).collect::<UInt8Array>())),
        ("list", Arc::new(lists.finish())),
        ("events", Arc::new(events.finish())),
        ("int32", Arc::new(numbers(11).map(|n| n.map(|n| n as i32)).collect::<Int32Array>())),
        (
            "always",
            Arc::new(StringViewArray::from_iter_values(
                all.clone().map(|row| text(random(12, row) % values)),
            )),
        ),
        (
            "flags",
            Arc::new(BooleanArray::from_iter(
                all.map(|row| Some(random(13, row / 20).is_multiple_of(2))),
            )),
        ),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| {
            let nullable = !["always", "flags"].contains(name);
            Field::new(*name, array.data_type().clone(), nullable)
        })
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

struct Written {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    file: BlockFile,
}

fn write(record: &RecordBatch, style: &Style) -> Written {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.parquet");
    let out = BlockWriter::new(OsFiles.create(&path).unwrap());
    let mut writer = ArrowWriter::try_new(out, record.schema(), Some(style.properties())).unwrap();
    writer.write(record).unwrap();
    let (len, crcs) = writer.into_inner().unwrap().finish().unwrap();
    let file = BlockFile::new(&path, OsFiles.open(&path).unwrap(), len, Arc::from(crcs.as_slice()));
    Written { _dir: dir, path, file }
}

fn flat(file: &BlockFile) -> (Flat, usize) {
    let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Required);
    let loaded = ArrowReaderMetadata::load(file, options).unwrap();
    let (metadata, packed) = as_plain(ParquetMetaData::clone(loaded.metadata())).unwrap();
    let dictionaries = Arc::new(Dictionaries::default());
    (Flat::new(&metadata, loaded.schema(), &packed, dictionaries), loaded.schema().fields().len())
}

/// The rows by the parquet crate.
fn expected(written: &Written, rows: &RowSet, all: usize) -> RecordBatch {
    let file = std::fs::File::open(&written.path).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let ranges = rows.ranges().iter().map(|range| range.start as usize..range.end as usize);
    let selection = RowSelection::from_consecutive_ranges(ranges, all);
    let schema = builder.schema().clone();
    let reader = builder.with_row_selection(selection).build().unwrap();
    concat_batches(&schema, &reader.collect::<Result<Vec<_>, _>>().unwrap()).unwrap()
}

fn row_sets(cuts: &[Vec<u32>], rows: u32) -> Vec<RowSet> {
    let mut sets = vec![RowSet::range(0..rows)];
    for cuts in cuts {
        let mut cuts: Vec<u32> = cuts.iter().map(|cut| cut % (rows + 1)).collect();
        cuts.sort_unstable();
        let mut set = RowSet::default();
        cuts.chunks_exact(2).for_each(|pair| set.push(pair[0]..pair[1]));
        sets.push(set);
    }
    sets
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn reads_as_the_parquet_crate_does(
        style in any_style(), rows in 1usize..1500, seed in any::<u64>(),
        values in prop_oneof![1u64..4, 4u64..300, Just(1 << 40)], nulls in 0u8..5,
        cuts in proptest::collection::vec(proptest::collection::vec(0u32..1500, 0..12), 1..5),
    ) {
        let record = record(rows, seed, values, nulls);
        let written = write(&record, &style);
        let (flat, columns) = flat(&written.file);
        let roots: Vec<usize> = (0..columns).collect();
        let contexts = Contexts::default();
        for set in row_sets(&cuts, rows as u32) {
            let expected = expected(&written, &set, rows);
            let read = flat.read(&written.file, &roots, &set, contexts.take().unwrap()).unwrap();
            for (root, read) in read.into_iter().enumerate() {
                let (column, field) = (expected.column(root), expected.schema_ref().field(root));
                match read {
                    Read::Array(array) => {
                        array.to_data().validate_full().unwrap();
                        prop_assert_eq!(&array, column, "{}", field.name());
                    }
                    Read::Null => {
                        let nulls = new_null_array(column.data_type(), column.len());
                        prop_assert_eq!(&nulls, column, "{}", field.name());
                    }
                    Read::Unsupported => {
                        prop_assert!(style.is_foreign(), "{}", field.name());
                    }
                }
            }
        }
    }

    /// Bytes that are not what was written, under checksums that say they are.
    #[test]
    fn wrong_bytes_are_an_error_or_other_values(
        style in any_style(), rows in 1usize..600, seed in any::<u64>(), nulls in 0u8..5,
        flips in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..12),
    ) {
        let record = record(rows, seed, 40, nulls);
        let written = write(&record, &style);
        let (flat, columns) = flat(&written.file);
        let mut bytes = std::fs::read(&written.path).unwrap();
        for (at, with) in flips {
            let at = at as usize % bytes.len();
            bytes[at] ^= with;
        }
        std::fs::write(&written.path, &bytes).unwrap();
        let crcs: Vec<u32> =
            bytes.chunks(crate::segment::blocks::BLOCK).map(crc32fast::hash).collect();
        let open = OsFiles.open(&written.path).unwrap();
        let file = BlockFile::new(&written.path, open, bytes.len() as u64, Arc::from(crcs));
        let contexts = Contexts::default();
        for root in 0..columns {
            let all = RowSet::range(0..rows as u32);
            if let Ok(read) = flat.read(&file, &[root], &all, contexts.take().unwrap()) {
                for read in read {
                    if let Read::Array(array) = read {
                        prop_assert_eq!(array.len(), rows);
                        array.to_data().validate_full().unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn noise_as_a_page_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), rows in 0usize..300,
        optional in any::<bool>(), packed in any::<bool>(), encoding in 0u8..10, kind in 0u8..4,
    ) {
        let contexts = Contexts::default();
        let context = contexts.take().unwrap();
        // A head that fits, so that noise gets as far as the values.
        let zigzag = |n: usize| {
            let mut bytes = Vec::new();
            crate::segment::table::put_varint(&mut bytes, (n as u64) << 1);
            bytes
        };
        let mut page = vec![0x15, kind << 1, 0x15];
        page.extend(zigzag(bytes.len()));
        page.push(0x15);
        page.extend(zigzag(bytes.len()));
        page.extend([if kind == 3 { 0x5c } else if kind == 2 { 0x4c } else { 0x2c }, 0x15]);
        page.extend(zigzag(rows));
        let numbers = if kind == 3 { [0, rows as u8, encoding, 9, 0] } else { [encoding, 3, 3, 0, 0] };
        for number in numbers {
            page.push(0x15);
            page.extend(zigzag(number.into()));
        }
        page.extend([0, 0]);
        page.extend(&bytes);
        let shapes =
            [Shape::Words, Shape::Halves, Shape::Fixed(16), Shape::Flags, Shape::Text, Shape::Bytes];
        let types = [
            DataType::Int64, DataType::UInt8, DataType::FixedSizeBinary(16), DataType::Boolean,
            DataType::Utf8View, DataType::BinaryView,
        ];
        for (shape, data_type) in shapes.into_iter().zip(&types) {
            let definition = u32::from(optional);
            let layout = Layout { shape, repetition: 0, definition, place: 0, packed };
            let dictionary = || {
                let page = if shape == Shape::Text { vec![0; 4] } else { vec![0; 16] };
                Dictionary::decode(shape, page, 1).map(Arc::new).ok_or(Fault::Unsupported)
            };
            for page in [&page, &bytes] {
                let mut sink = Sink::new(shape, data_type);
                let mut scratch = Scratch::new(Arc::clone(&context));
                let (half, all) = (rows / 2..rows, 0..rows);
                for wanted in [half, all] {
                    let wanted = [wanted];
                    let read =
                        page::read(layout, page, rows, &wanted, &mut scratch, dictionary, &mut sink);
                    if read.is_err() {
                        break;
                    }
                }
                if let Ok(Some(array)) = sink.finish() {
                    array.to_data().validate_full().unwrap();
                }
                let _ = page::dictionary(layout, page, &context);
                for repetition in 1..3 {
                    let layout = Layout { repetition, definition: 3, place: 2, ..layout };
                    let (mut sink, mut levels) = (Sink::new(shape, data_type), Levels::default());
                    let wanted = [0..rows / 2, rows / 2..rows];
                    let _ = page::read_nested(
                        layout, page, &wanted, &mut scratch, dictionary, &mut levels, Some(&mut sink),
                    );
                    let leaf = (levels, new_null_array(data_type, rows));
                    let item = Arc::new(Field::new("item", data_type.clone(), false));
                    let list = Field::new("item", DataType::List(item), false);
                    let _ = nested::assemble(&DataType::List(Arc::new(list)), true, &[leaf]);
                }
            }
        }
    }
}
