//! Column chunks with a value a row.
//!
//! How values are laid down and how many rows a page has follows from the values: a look-up of one
//! trace decodes a page of each column, so pages have about as many bytes in all columns.

use ::parquet::basic::Encoding;
use ::parquet::errors::{ParquetError, Result};
use ::parquet::schema::types::ColumnDescPtr;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType};

use super::super::PAGE_ROWS;
use super::delta;
use super::hybrid::Valid;
use super::sink::{Chunk, ChunkSink, Zstd};
use super::values;

/// Bytes of a page, about, before it is compressed.
const PAGE_BYTES: usize = 32 << 10;
/// The same of texts: they repeat what stood in rows further away, of their trace's kin, and are
/// stepped over by their lengths, not looked at.
const TEXT_PAGE_BYTES: usize = 64 << 10;
/// The same of texts that have [`LONG_TEXT`] bytes on average: there are few of them, and what they
/// are made of repeats.
const LONG_TEXT_PAGE_BYTES: usize = 128 << 10;
/// Bytes of a long text: URLs, baggage and the like.
const LONG_TEXT: usize = 64;
/// Rows in a page, at most.
const MAX_PAGE_ROWS: usize = 16 * PAGE_ROWS as usize;
/// Pages that are tried.
const SAMPLES: usize = 2;
/// To be compressed, pages must become shorter by one part in this many: reading them takes longer.
const WORTH: usize = 32;

/// How pages are laid down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    encoding: Encoding,
    zstd: bool,
}

const PLAIN: [Mode; 2] = [
    Mode { encoding: Encoding::PLAIN, zstd: false },
    Mode { encoding: Encoding::PLAIN, zstd: true },
];
const NUMBERS: [Mode; 3] =
    [Mode { encoding: Encoding::DELTA_BINARY_PACKED, zstd: false }, PLAIN[0], PLAIN[1]];

/// Whether columns of this type are written here.
pub fn writes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8View
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
            | DataType::Int64
            | DataType::UInt64
            | DataType::Float64
            | DataType::Int32
            | DataType::UInt32
            | DataType::Timestamp(..)
            | DataType::Boolean
    )
}

/// Lays values down.
#[derive(Default)]
pub struct PlainWriter {
    valid: Valid,
    numbers: Vec<i64>,
    body: Vec<u8>,
}

impl PlainWriter {
    /// The chunk of `array`. `mode` is how the column was laid down last, `compress` whether its
    /// pages must be compressed or must not.
    ///
    /// # Errors
    /// The type is none of those of [`writes`], or a row is null in a column that must not be.
    pub fn write(
        &mut self,
        column: &ColumnDescPtr,
        array: &dyn Array,
        zstd: &mut Zstd,
        mode: &mut Option<Mode>,
        compress: Option<bool>,
    ) -> Result<Chunk> {
        let nullable = column.max_def_level() > 0;
        let nulls = array.null_count();
        if nulls > 0 && !nullable {
            let name = column.name();
            return Err(ParquetError::General(format!("column {name} must not have nulls")));
        }
        let rows = page_rows(array)?;
        let chosen = match *mode {
            Some(mode) if compress.is_none_or(|zstd| zstd == mode.zstd) => mode,
            _ => self.choose(array, nullable, rows, zstd, compress)?,
        };
        // Few rows tell little about those to come.
        if array.len() - nulls >= MAX_PAGE_ROWS {
            *mode = Some(chosen);
        }
        let mut sink = ChunkSink::new(chosen.encoding, chosen.zstd.then_some(zstd));
        for start in (0..array.len()).step_by(rows) {
            let rows = rows.min(array.len() - start);
            self.lay(chosen.encoding, array, nullable, start, rows)?;
            sink.page(&self.body, rows)?;
        }
        sink.finish(column, values::bounds(array, nulls))
    }

    /// The shortest way for these values, by a few pages.
    fn choose(
        &mut self,
        array: &dyn Array,
        nullable: bool,
        rows: usize,
        zstd: &mut Zstd,
        compress: Option<bool>,
    ) -> Result<Mode> {
        let modes: &[Mode] = match array.data_type() {
            DataType::Int64 | DataType::Timestamp(..) => &NUMBERS,
            _ => &PLAIN,
        };
        let step = array.len().div_ceil(rows).div_ceil(SAMPLES).max(1) * rows;
        let mut best = (PLAIN[0], usize::MAX);
        let may = |mode: &&Mode| compress.is_none_or(|zstd| zstd == mode.zstd);
        for mode in modes.iter().filter(may) {
            let mut size = 0;
            for start in (0..array.len()).step_by(step) {
                let rows = rows.min(array.len() - start);
                self.lay(mode.encoding, array, nullable, start, rows)?;
                size += if mode.zstd {
                    let packed = zstd.pack(&self.body)?.len();
                    packed + packed / WORTH
                } else {
                    self.body.len()
                };
            }
            if size < best.1 {
                best = (*mode, size);
            }
        }
        Ok(best.0)
    }

    /// Lays `rows` rows from `start` on down in `self.body`.
    fn lay(
        &mut self,
        encoding: Encoding,
        array: &dyn Array,
        nullable: bool,
        start: usize,
        rows: usize,
    ) -> Result<()> {
        let Self { valid, numbers, body } = self;
        body.clear();
        valid.set_nulls(array.nulls(), start, rows);
        if nullable {
            valid.put_levels(body);
        }
        let places = || valid.rows().map(|row| start + row);
        match (array.data_type(), encoding) {
            (DataType::Utf8View, _) => {
                let texts = array.as_string_view();
                values::put_texts(body, places().map(|row| texts.value(row).as_bytes()));
            }
            (DataType::BinaryView, _) => {
                let texts = array.as_binary_view();
                values::put_texts(body, places().map(|row| texts.value(row)));
            }
            (DataType::Boolean, _) => {
                let flags = array.as_boolean();
                let (mut byte, mut bits) = (0u8, 0);
                for row in places() {
                    byte |= u8::from(flags.value(row)) << bits;
                    bits += 1;
                    if bits == 8 {
                        body.push(std::mem::take(&mut byte));
                        bits = 0;
                    }
                }
                if bits > 0 {
                    body.push(byte);
                }
            }
            (other, Encoding::DELTA_BINARY_PACKED) => {
                let times = array.as_primitive_opt::<TimestampNanosecondType>();
                let values = match times {
                    Some(times) => times.values(),
                    None => match array.as_primitive_opt::<Int64Type>() {
                        Some(values) => values.values(),
                        None => return Err(not_ours(other)),
                    },
                };
                numbers.clear();
                numbers.extend(places().map(|row| values[row]));
                delta::put_numbers(body, numbers);
            }
            (other, _) => {
                let (bytes, width) = values::fixed(array).ok_or_else(|| not_ours(other))?;
                if array.null_count() == 0 {
                    body.extend_from_slice(&bytes[start * width..][..rows * width]);
                } else {
                    places().for_each(|row| body.extend_from_slice(&bytes[row * width..][..width]));
                }
            }
        }
        Ok(())
    }
}

fn not_ours(data_type: &DataType) -> ParquetError {
    ParquetError::General(format!("columns of {data_type} are not written like this"))
}

/// Rows in a page of `array`.
fn page_rows(array: &dyn Array) -> Result<usize> {
    let bytes = match array.data_type() {
        // The low half of a view is the length.
        DataType::Utf8View => texts_len(array.as_string_view().views(), array),
        DataType::BinaryView => texts_len(array.as_binary_view().views(), array),
        DataType::Boolean => array.len() / 8,
        other => {
            let (_, width) = values::fixed(array).ok_or_else(|| not_ours(other))?;
            (array.len() - array.null_count()) * width
        }
    };
    let values = array.len() - array.null_count();
    let page = match array.data_type() {
        DataType::Utf8View | DataType::BinaryView if bytes >= values * LONG_TEXT => {
            LONG_TEXT_PAGE_BYTES
        }
        DataType::Utf8View | DataType::BinaryView => TEXT_PAGE_BYTES,
        _ => PAGE_BYTES,
    };
    let mut rows = PAGE_ROWS as usize;
    while rows < MAX_PAGE_ROWS && bytes * rows * 2 <= page * array.len() {
        rows *= 2;
    }
    Ok(rows)
}

fn texts_len(views: &[u128], array: &dyn Array) -> usize {
    let len = |view: &u128| *view as u32 as usize + 4;
    match array.nulls() {
        None => views.iter().map(len).sum(),
        Some(nulls) => nulls.valid_indices().filter_map(|row| views.get(row)).map(len).sum(),
    }
}
