//! Column chunks of codes: a dictionary page, and data pages of codes.
//!
//! The dictionary is known before the first page is written, so no value is looked at twice. What
//! follows is how codes are laid down: packed by as many bits as they need, which is short as it
//! is; or in whole bytes, a width that Parquet allows as well, which zstd can read: what ninety
//! columns have to say about the spans of a trace repeats from trace to trace, but hardly ever at
//! the same bit of a byte. A few pages tell which way is shorter.

use ::parquet::basic::Encoding;
use ::parquet::errors::{ParquetError, Result};
use ::parquet::schema::types::ColumnDescPtr;

use super::super::cells::Coded;
use super::hybrid::{self, Valid};
use super::sink::{Chunk, ChunkSink, Zstd};
use super::values;

/// Rows in a page; a page has a head of some 40 bytes, and codes are decoded a hundred times as
/// fast as texts.
const PAGE_ROWS: usize = 8192;
/// Rows in a page of a column with few runs.
const MAX_PAGE_ROWS: usize = 16 * PAGE_ROWS;
/// Bytes that a run takes, about.
const RUN_BYTES: usize = 4;
/// Pages that are tried.
const SAMPLES: usize = 2;

/// How pages are laid down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Codes have whole bytes.
    bytes: bool,
    /// Pages are compressed.
    zstd: bool,
}

const MODES: [Mode; 3] = [
    Mode { bytes: false, zstd: false },
    Mode { bytes: false, zstd: true },
    Mode { bytes: true, zstd: true },
];

/// Lays codes down.
#[derive(Default)]
pub struct CodedWriter {
    valid: Valid,
    present: Vec<u16>,
    body: Vec<u8>,
}

impl CodedWriter {
    /// The chunk of `cells`. `mode` is how the column was laid down last, `compress` whether its
    /// pages must be compressed or must not.
    ///
    /// # Errors
    /// The column's type has no dictionary, or a row is null in a column that must not be.
    pub fn write(
        &mut self,
        column: &ColumnDescPtr,
        cells: &Coded,
        zstd: &mut Zstd,
        mode: &mut Option<Mode>,
        compress: Option<bool>,
    ) -> Result<Chunk> {
        let nullable = column.max_def_level() > 0;
        let nulls = cells.codes.iter().filter(|code| **code == 0).count();
        if nulls > 0 && !nullable {
            let name = column.name();
            return Err(ParquetError::General(format!("column {name} must not have nulls")));
        }
        let values = cells.values.len();
        // Without any value there is no dictionary, and what refers to none.
        let encoding = if values > 0 { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN };
        let dictionary = values::plain(cells.values.as_ref())?;
        let page_rows = page_rows(&cells.codes);
        let chosen = match *mode {
            Some(mode) if compress.is_none_or(|zstd| zstd == mode.zstd) => mode,
            _ => self.choose(cells, nullable, &dictionary, page_rows, zstd, compress)?,
        };
        // Few rows tell little about those to come.
        if cells.codes.len() - nulls >= PAGE_ROWS {
            *mode = Some(chosen);
        }
        let mut sink = ChunkSink::new(encoding, chosen.zstd.then_some(zstd));
        if values > 0 {
            sink.dictionary(&dictionary, values)?;
        }
        for codes in cells.codes.chunks(page_rows) {
            self.lay(chosen, codes, nullable, values);
            sink.page(&self.body, codes.len())?;
        }
        sink.finish(column, values::bounds(cells.values.as_ref(), nulls))
    }

    /// The shortest way for these cells, by a few pages.
    fn choose(
        &mut self,
        cells: &Coded,
        nullable: bool,
        dictionary: &[u8],
        page_rows: usize,
        zstd: &mut Zstd,
        compress: Option<bool>,
    ) -> Result<Mode> {
        let pages = cells.codes.len().div_ceil(page_rows);
        let step = pages.div_ceil(SAMPLES).max(1);
        let short = zstd.pack(dictionary)?.len();
        let mut best = (MODES[0], usize::MAX);
        let may = |mode: &Mode| compress.is_none_or(|zstd| zstd == mode.zstd);
        for mode in MODES.into_iter().filter(may) {
            let mut size = 0;
            for codes in cells.codes.chunks(page_rows).step_by(step) {
                self.lay(mode, codes, nullable, cells.values.len());
                size += if mode.zstd { zstd.pack(&self.body)?.len() } else { self.body.len() };
            }
            // A dictionary counts as much as the pages it is for.
            let size = size * step + if mode.zstd { short } else { dictionary.len() };
            if size < best.1 {
                best = (mode, size);
            }
        }
        Ok(best.0)
    }

    /// Lays `codes` down in `self.body`.
    fn lay(&mut self, mode: Mode, codes: &[u16], nullable: bool, values: usize) {
        let Self { valid, present, body } = self;
        body.clear();
        present.clear();
        let mut count = codes.len();
        if nullable {
            valid.set(codes);
            count = valid.count();
            valid.put_levels(body);
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
}

/// Rows in a page of `codes`: more where there are long runs, as of a value that hardly any row has.
fn page_rows(codes: &[u16]) -> usize {
    let runs = codes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let mut rows = PAGE_ROWS;
    while rows < MAX_PAGE_ROWS && runs * RUN_BYTES * rows * 2 <= PAGE_ROWS * codes.len() {
        rows *= 2;
    }
    rows
}
