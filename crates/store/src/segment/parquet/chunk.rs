//! Column chunks of codes: a dictionary page, and data pages of codes.
//!
//! The dictionary is known before the first page is written, so no value is looked at twice. What
//! follows is how codes are laid down: packed by as many bits as they need, which is short as it
//! is; or in whole bytes, a width that Parquet allows as well, which zstd can read: what ninety
//! columns have to say about the spans of a trace repeats from trace to trace, but hardly ever at
//! the same bit of a byte. A few pages tell which way is shorter.

use ::parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use ::parquet::column::page::{CompressedPage, Page, PageWriter};
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use ::parquet::file::page_index::offset_index::{OffsetIndexMetaData, PageLocation};
use ::parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use ::parquet::schema::types::ColumnDescPtr;
use bytes::Bytes;
use zstd::bulk::Compressor;

use super::super::cells::Coded;
use super::dictionary;
use super::hybrid::{self, Valid};

/// zstd's level.
pub const LEVEL: i32 = 1;
/// Rows in a page; a page has a head of some 30 bytes, and codes are decoded a hundred times as
/// fast as texts.
const PAGE_ROWS: usize = 4096;
/// Rows in a page of a column with few runs.
const MAX_PAGE_ROWS: usize = 32 * PAGE_ROWS;
/// Bytes that a run takes, about.
const RUN_BYTES: usize = 4;
/// Pages that are tried.
const SAMPLES: usize = 3;

/// How pages are laid down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mode {
    /// Codes have whole bytes.
    bytes: bool,
    /// Which rows have values is told by runs only.
    runs: bool,
    /// Pages are compressed.
    zstd: bool,
}

const BITS: Mode = Mode { bytes: false, runs: false, zstd: false };
const MODES: [Mode; 5] = [
    BITS,
    Mode { zstd: true, ..BITS },
    Mode { runs: true, zstd: true, ..BITS },
    Mode { bytes: true, zstd: true, ..BITS },
    Mode { bytes: true, runs: true, zstd: true },
];

/// Writes column chunks.
pub struct ChunkWriter {
    compressor: Compressor<'static>,
    valid: Valid,
    present: Vec<u16>,
    body: Vec<u8>,
    packed: Vec<u8>,
}

impl ChunkWriter {
    /// With a context of its own.
    pub fn new() -> Result<Self> {
        Ok(Self {
            compressor: Compressor::new(LEVEL)?,
            valid: Valid::default(),
            present: Vec::new(),
            body: Vec::new(),
            packed: Vec::new(),
        })
    }

    /// The bytes of a column chunk, and what the file's foot says about it; places count from the
    /// chunk's beginning.
    ///
    /// # Errors
    /// The column's type has no dictionary, or a row is null in a column that must not be.
    pub fn write(
        &mut self,
        column: &ColumnDescPtr,
        cells: &Coded,
    ) -> Result<(Bytes, ColumnCloseResult)> {
        let rows = cells.codes.len();
        let nullable = column.max_def_level() > 0;
        let nulls = cells.codes.iter().filter(|code| **code == 0).count();
        if nulls > 0 && !nullable {
            let name = column.name();
            return Err(ParquetError::General(format!("column {name} must not have nulls")));
        }
        let dictionary = dictionary::plain(cells.values.as_ref())?;
        let page_rows = page_rows(&cells.codes);
        let mode = self.choose(cells, nullable, &dictionary, page_rows)?;

        let mut sink = TrackedWrite::new(Vec::with_capacity(rows / 4));
        let mut pages = SerializedPageWriter::new(&mut sink);
        let (mut total, mut unpacked) = (0, 0);
        let mut locations = Vec::with_capacity(rows.div_ceil(page_rows));
        let mut dictionary_len = None;
        if !cells.values.is_empty() {
            let page = Page::DictionaryPage {
                buf: self.packed(mode, &dictionary)?,
                num_values: cells.values.len() as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let spec = pages.write_page(CompressedPage::new(page, dictionary.len()))?;
            total += spec.bytes_written;
            unpacked += spec.uncompressed_size;
            dictionary_len = Some(spec.bytes_written);
        }
        // Without any value there is no dictionary, and what refers to none.
        let encoding = match dictionary_len {
            Some(_) => Encoding::RLE_DICTIONARY,
            None => Encoding::PLAIN,
        };
        for (number, codes) in cells.codes.chunks(page_rows).enumerate() {
            self.lay(mode, codes, nullable, cells.values.len());
            let body = std::mem::take(&mut self.body);
            let page = Page::DataPage {
                buf: self.packed(mode, &body)?,
                num_values: codes.len() as u32,
                encoding,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            let spec = pages.write_page(CompressedPage::new(page, body.len()))?;
            self.body = body;
            locations.push(PageLocation {
                offset: total as i64,
                compressed_page_size: spec.bytes_written as i32,
                first_row_index: (number * page_rows) as i64,
            });
            total += spec.bytes_written;
            unpacked += spec.uncompressed_size;
        }

        let compression = if mode.zstd {
            Compression::ZSTD(ZstdLevel::try_new(LEVEL)?)
        } else {
            Compression::UNCOMPRESSED
        };
        let stats = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
        let mut counts = vec![stats(PageType::DATA_PAGE, encoding, locations.len() as i32)];
        let mut encodings = vec![Encoding::PLAIN, Encoding::RLE];
        if dictionary_len.is_some() {
            counts.insert(0, stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1));
            encodings.push(Encoding::RLE_DICTIONARY);
        }
        let mut metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(compression)
            .set_encodings(encodings)
            .set_page_encoding_stats(counts)
            .set_num_values(rows as i64)
            .set_total_compressed_size(total as i64)
            .set_total_uncompressed_size(unpacked as i64)
            .set_dictionary_page_offset(dictionary_len.map(|_| 0))
            .set_data_page_offset(dictionary_len.unwrap_or(0) as i64);
        if let Some(statistics) = dictionary::bounds(cells.values.as_ref(), nulls as u64) {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: total,
            rows_written: rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: Some(OffsetIndexMetaData {
                page_locations: locations,
                unencoded_byte_array_data_bytes: None,
            }),
        };
        Ok((Bytes::from(sink.into_inner()?), close))
    }

    /// The shortest way for these cells, by a few pages.
    fn choose(
        &mut self,
        cells: &Coded,
        nullable: bool,
        dictionary: &[u8],
        page_rows: usize,
    ) -> Result<Mode> {
        let pages = cells.codes.len().div_ceil(page_rows);
        let step = pages.div_ceil(SAMPLES).max(1);
        let short = self.packed(MODES[1], dictionary)?.len();
        let mut best = (BITS, usize::MAX);
        for mode in MODES {
            let mut size = 0;
            for codes in cells.codes.chunks(page_rows).step_by(step) {
                self.lay(mode, codes, nullable, cells.values.len());
                let body = std::mem::take(&mut self.body);
                size += if mode.zstd { self.packed_len(&body)? } else { body.len() };
                self.body = body;
            }
            // A dictionary counts as much as the pages it is for.
            let dictionary = if mode.zstd { short } else { dictionary.len() };
            let size = size * step + dictionary;
            if size < best.1 {
                best = (mode, size);
            }
        }
        Ok(best.0)
    }

    /// Lays `codes` down in `self.body`.
    fn lay(&mut self, mode: Mode, codes: &[u16], nullable: bool, values: usize) {
        let Self { valid, present, body, .. } = self;
        body.clear();
        present.clear();
        let mut count = codes.len();
        if nullable {
            valid.set(codes);
            count = valid.count();
            body.extend_from_slice(&[0; 4]);
            if count == 0 || count == codes.len() {
                hybrid::put_run(body, codes.len(), u16::from(count > 0), 1);
            } else if mode.runs {
                valid.put_runs(body);
            } else {
                valid.put_mixed(body);
            }
            let len = (body.len() - 4) as u32;
            body[..4].copy_from_slice(&len.to_le_bytes());
        }
        if count == codes.len() {
            present.extend(codes.iter().map(|code| code - 1));
        } else {
            // Without a branch: what a null leaves behind is written over.
            present.resize(codes.len(), 0);
            let mut at = 0;
            for code in codes {
                present[at] = code.wrapping_sub(1);
                at += usize::from(*code != 0);
            }
            present.truncate(count);
        }
        if values == 0 {
            return;
        }
        let bits = (values - 1).checked_ilog2().map_or(1, |bits| bits + 1);
        let width = if mode.bytes { bits.next_multiple_of(8) } else { bits };
        body.push(width as u8);
        let Some(first) = present.first() else { return };
        if present.iter().all(|code| code == first) {
            hybrid::put_run(body, present.len(), *first, width);
        } else if mode.bytes {
            hybrid::put_packed(body, present, width);
        } else {
            hybrid::put_mixed(body, present, width);
        }
    }

    fn packed_len(&mut self, bytes: &[u8]) -> Result<usize> {
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
        Ok(self.compressor.compress_to_buffer(bytes, &mut self.packed)?)
    }

    fn packed(&mut self, mode: Mode, bytes: &[u8]) -> Result<Bytes> {
        if !mode.zstd {
            return Ok(Bytes::copy_from_slice(bytes));
        }
        self.packed_len(bytes)?;
        Ok(Bytes::copy_from_slice(&self.packed))
    }
}

/// Rows in a page of `codes`: more where there are long runs, as of a value that hardly any row has.
fn page_rows(codes: &[u16]) -> usize {
    let runs = codes.iter().zip(codes.iter().skip(1)).filter(|(a, b)| a != b).count();
    let mut rows = PAGE_ROWS;
    while rows < MAX_PAGE_ROWS && runs * RUN_BYTES * rows * 2 <= PAGE_ROWS * codes.len() {
        rows *= 2;
    }
    rows
}
