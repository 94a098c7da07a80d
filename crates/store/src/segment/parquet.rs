//! The Parquet codec: plain files that DuckDB, Polars or ClickHouse open, with encodings chosen for
//! looking up single traces.
//!
//! Small pages (512 rows) keep a look-up from decoding what it does not need; dictionaries only
//! where few values repeat, since a look-up must read the dictionary whole; delta encoding for
//! times. `docs/format.md` lists it.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowSelection,
};
use ::parquet::arrow::{ArrowWriter, FieldLevels, ProjectionMask, parquet_to_arrow_field_levels};
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::schema::types::ColumnPath;
use arrow::array::{RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use lacuna_signal::selector::{Expr, Selector};
use lacuna_signal::{Batch, SignalKind, schema};

use super::blocks::{BlockFile, BlockWriter};
use super::codec::{Codec, RowReader, RowWriter};
use super::pages::{self, Contexts, Groups};
use super::{PAGE_ROWS, WINDOW_PAGES};
use crate::bounds::TimeRange;
use crate::error::StoreError;
use crate::part::{Filter, Want};
use crate::rows::RowSet;
use crate::summary::Summary;

/// Rows in a row group.
const GROUP_ROWS: usize = 128 * 1024;
/// A column with more distinct values has no dictionary.
const DICTIONARY_VALUES: u64 = 2048;
/// Rows in a page of a column with a dictionary: a page has a head of some 30 bytes, and codes are
/// decoded a hundred times as fast as texts.
const DICTIONARY_PAGE_ROWS: usize = 4096;
/// Rows in a page of a column that hardly any row has.
const SPARSE_PAGE_ROWS: usize = 8192;
/// A column that fewer than one in this many rows have is sparse.
const SPARSE: u64 = 64;

/// Reads and writes Parquet.
#[derive(Default)]
pub struct ParquetCodec {
    contexts: Arc<Contexts>,
}

impl Codec for ParquetCodec {
    fn extension(&self) -> &'static str {
        "parquet"
    }

    fn write(
        &self,
        kind: SignalKind,
        schema: SchemaRef,
        summary: &Summary,
        lasting: bool,
        out: BlockWriter,
    ) -> Result<Box<dyn RowWriter>, StoreError> {
        let properties = properties(kind, &schema, summary, lasting)?;
        let writer = ArrowWriter::try_new(out, schema, Some(properties)).map_err(encode)?;
        Ok(Box::new(ParquetWriter { writer }))
    }

    fn open(&self, kind: SignalKind, file: BlockFile) -> Result<Arc<dyn RowReader>, StoreError> {
        let reader = ParquetReader::open(kind, &file, Arc::clone(&self.contexts));
        Ok(Arc::new(reader.map_err(|error| damaged(&file, &error))?))
    }
}

fn encode(error: ParquetError) -> StoreError {
    StoreError::Encode(Arc::new(error))
}

/// A file that cannot be read: with the cause found by the checksums, if that is what it is.
fn damaged(file: &BlockFile, error: &ParquetError) -> StoreError {
    if let ParquetError::External(cause) = error
        && let Some(known) = cause.downcast_ref::<StoreError>()
    {
        return known.clone();
    }
    StoreError::corrupt(file.path(), error.to_string())
}

fn properties(
    kind: SignalKind,
    columns: &Schema,
    summary: &Summary,
    lasting: bool,
) -> Result<WriterProperties, StoreError> {
    let zstd = ZstdLevel::try_new(1).map(Compression::ZSTD).map_err(encode)?;
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("lacuna ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(zstd)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS as usize)
        .set_write_batch_size(PAGE_ROWS as usize)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(true);
    let rows = summary.rows;
    for field in columns.fields() {
        let (name, data_type) = (field.name(), field.data_type());
        // One part: an attribute's key may hold dots, which are not levels of nesting.
        let path = ColumnPath::new(vec![name.clone()]);
        let fixed = kind.fixed_fields().find(name).is_some();
        let known = summary.columns.get(name);
        let many = known.is_some_and(|column| column.distinct > DICTIONARY_VALUES);
        let plain = match data_type {
            DataType::Timestamp(..) => true,
            DataType::FixedSizeBinary(_) => true,
            // Durations, values and counts hardly repeat.
            DataType::Int64 | DataType::Float64 | DataType::UInt64 if fixed => true,
            _ => many,
        };
        let delta = plain && matches!(data_type, DataType::Timestamp(..) | DataType::Int64);
        if plain {
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
        } else if !data_type.is_nested() {
            let rows = DICTIONARY_PAGE_ROWS;
            properties = properties.set_column_data_page_row_count_limit(path.clone(), rows);
        }
        if delta {
            let encoding = Encoding::DELTA_BINARY_PACKED;
            properties = properties.set_column_encoding(path.clone(), encoding);
        }
        // What other readers can leave row groups out by.
        if data_type.is_primitive() {
            let chunk = EnabledStatistics::Chunk;
            properties = properties.set_column_statistics_enabled(path.clone(), chunk);
        }
        // Random or packed by bits already: to compress it costs more than it saves.
        let dense = delta || name == schema::SPAN_ID || !plain && !lasting;
        if dense && !data_type.is_nested() {
            let none = Compression::UNCOMPRESSED;
            properties = properties.set_column_compression(path.clone(), none);
        }
        if known.is_some_and(|column| column.rows * SPARSE < rows) {
            properties = properties.set_column_data_page_row_count_limit(path, SPARSE_PAGE_ROWS);
        }
    }
    Ok(properties.build())
}

struct ParquetWriter {
    writer: ArrowWriter<BlockWriter>,
}

impl RowWriter for ParquetWriter {
    fn append(&mut self, rows: &RecordBatch) -> Result<(), StoreError> {
        self.writer.write(rows).map_err(encode)
    }

    fn finish(self: Box<Self>) -> Result<(u64, Vec<u32>), StoreError> {
        // Writes the last row group and the foot.
        let out = self.writer.into_inner().map_err(encode)?;
        out.finish().map_err(|error| encode(error.into()))
    }
}

struct ParquetReader {
    kind: SignalKind,
    file: Arc<BlockFile>,
    metadata: ArrowReaderMetadata,
    /// Which columns are compressed.
    packed: Arc<[bool]>,
    /// The tree of all columns.
    all: FieldLevels,
    contexts: Arc<Contexts>,
}

impl ParquetReader {
    fn open(
        kind: SignalKind,
        file: &BlockFile,
        contexts: Arc<Contexts>,
    ) -> Result<Self, ParquetError> {
        // Look-ups need to know where pages are; what is in them, the side index tells better.
        let options = ArrowReaderOptions::new()
            .with_offset_index_policy(PageIndexPolicy::Required)
            .with_column_index_policy(PageIndexPolicy::Skip);
        let loaded = ArrowReaderMetadata::load(file, options.clone())?;
        let (plain, packed) = pages::as_plain(ParquetMetaData::clone(loaded.metadata()))?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(plain), options)?;
        let fields = Some(metadata.schema().fields());
        let all = parquet_to_arrow_field_levels(
            metadata.parquet_schema(),
            ProjectionMask::all(),
            fields,
        )?;
        let (file, packed) = (Arc::new(file.clone()), Arc::from(packed));
        Ok(Self { kind, file, metadata, packed, all, contexts })
    }

    /// The row groups that have any of `rows`, and where in them the rows are. Others are left out
    /// altogether, because to skip one costs a step for each of its pages and columns.
    fn select(&self, rows: &RowSet) -> (Vec<usize>, RowSelection) {
        let (mut groups, mut ranges) = (Vec::new(), Vec::new());
        let (mut start, mut kept) = (0u32, 0usize);
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let end = start.saturating_add(u32::try_from(group.num_rows()).unwrap_or(u32::MAX));
            let inside = rows.and(&RowSet::range(start..end));
            if !inside.is_empty() {
                let place = |row: u32| kept + (row - start) as usize;
                ranges.extend(inside.ranges().iter().map(|r| place(r.start)..place(r.end)));
                groups.push(number);
                kept += (end - start) as usize;
            }
            start = end;
        }
        (groups, RowSelection::from_consecutive_ranges(ranges.into_iter(), kept))
    }

    /// The columns `wanted` of `rows`.
    fn columns(
        &self,
        rows: &RowSet,
        want: Option<&dyn Fn(&str) -> bool>,
    ) -> Result<Batch, StoreError> {
        if rows.is_empty() {
            return Ok(Batch::empty(self.kind));
        }
        let (numbers, selection) = self.select(rows);
        let damaged = |error: &ParquetError| damaged(&self.file, error);
        let context = self.contexts.take().map_err(|error| damaged(&error))?;
        let groups = Groups {
            file: Arc::clone(&self.file),
            metadata: Arc::clone(self.metadata.metadata()),
            packed: Arc::clone(&self.packed),
            numbers,
            context,
        };
        let some;
        let levels = match want {
            None => &self.all,
            Some(wanted) => {
                let fields = self.metadata.schema().fields();
                let roots = (0..fields.len()).filter(|i| wanted(fields[*i].name()));
                let schema = self.metadata.parquet_schema();
                let mask = ProjectionMask::roots(schema, roots);
                some = parquet_to_arrow_field_levels(schema, mask, Some(fields))
                    .map_err(|error| damaged(&error))?;
                &some
            }
        };
        let size = rows.len().clamp(1, WINDOW_PAGES * PAGE_ROWS as usize);
        let reader = ParquetRecordBatchReader::try_new_with_row_groups(
            levels,
            &groups,
            size,
            Some(selection),
        )
        .map_err(|error| damaged(&error))?;
        let schema = RecordBatchReader::schema(&reader);
        let records = reader.collect::<Result<Vec<_>, _>>().map_err(|error| match error {
            ArrowError::ExternalError(cause) => match cause.downcast::<ParquetError>() {
                Ok(error) => damaged(&error),
                Err(cause) => StoreError::corrupt(self.file.path(), cause.to_string()),
            },
            other => StoreError::corrupt(self.file.path(), other.to_string()),
        });
        self.contexts.put(groups.context);
        let records = records?;
        let record = match records.as_slice() {
            [one] => one.clone(),
            many if schema.fields().is_empty() => {
                let rows = many.iter().map(RecordBatch::num_rows).sum();
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                RecordBatch::try_new_with_options(schema, Vec::new(), &options)?
            }
            many => concat_batches(&schema, many)?,
        };
        Ok(Batch::try_new(self.kind, record)?)
    }
}

impl RowReader for ParquetReader {
    fn schema(&self) -> SchemaRef {
        self.metadata.schema().clone()
    }

    fn read(&self, rows: &RowSet, want: Want<'_>, filter: Filter<'_>) -> Result<Batch, StoreError> {
        let wanted = |name: &str| want.wants(name);
        let read = |rows: &RowSet| match want {
            Want::All => self.columns(rows, None),
            _ => self.columns(rows, Some(&wanted)),
        };
        let selector = filter.selector.filter(|selector| *selector.expr() != Expr::Const(true));
        if filter.range == TimeRange::ALL && selector.is_none() {
            return read(rows);
        }
        // What passes is found out by few columns; the others are read for what passes only.
        let (time, tested) = (self.kind.time_column(), selector.map(Selector::columns));
        let tested = tested.unwrap_or_default();
        let tests = |name: &str| name == time || tested.wants(name);
        let batch = self.columns(rows, Some(&tests))?;
        let filter = Filter { selector, ..filter };
        match filter.mask(&batch)? {
            None => read(rows),
            Some(mask) => read(&rows.filter(&mask)),
        }
    }
}
