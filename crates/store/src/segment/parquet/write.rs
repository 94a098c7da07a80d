//! Writing.

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, Encoding, ZstdLevel};
use ::parquet::file::properties::{EnabledStatistics, WriterProperties};
use ::parquet::schema::types::ColumnPath;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use lacuna_signal::{SignalKind, schema};

use super::super::PAGE_ROWS;
use super::super::blocks::BlockWriter;
use super::super::codec::RowWriter;
use super::encode;
use crate::error::StoreError;
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

/// A file being written.
pub struct ParquetWriter {
    writer: ArrowWriter<BlockWriter>,
}

impl ParquetWriter {
    /// Begins a file; see [`super::super::codec::Codec::write`].
    pub fn new(
        kind: SignalKind,
        schema: SchemaRef,
        summary: &Summary,
        lasting: bool,
        out: BlockWriter,
    ) -> Result<Self, StoreError> {
        let properties = properties(kind, &schema, summary, lasting)?;
        let writer = ArrowWriter::try_new(out, schema, Some(properties)).map_err(encode)?;
        Ok(Self { writer })
    }
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
