//! Coded columns: a value that repeats is kept once, with a code of one or two bytes a row.
//!
//! In most columns of telemetry few values stand in many rows, and most of the rest are null. The
//! decoder gives codes as it reads, so that a value's text is checked, hashed and copied once and
//! not in each row; a column becomes a value a row only when somebody reads it so
//! ([`Batch::column`](crate::Batch::column)).

use arrow::array::{Array, ArrayRef, UInt8Array, UInt16Array, UInt64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// A column has at most this many values with codes.
pub const MAX_VALUES: usize = 1 << 16;
/// After this many rows it shows whether values repeat.
pub const SAMPLE: usize = 1024;

/// How many values of `width` bytes are worth codes in `rows` rows: a code of two bytes a row must
/// save more than it costs. It also does where most rows have no value.
pub fn worth(rows: usize, width: usize) -> usize {
    rows * width.saturating_sub(2) / width.max(1)
}

/// How many values of `width` bytes a column of `rows` rows may have and still be coded.
pub fn most_values(rows: usize, width: usize) -> usize {
    (worth(rows, width) + 1).min(MAX_VALUES)
}

/// The code of each row of a column.
#[derive(Debug, Clone)]
pub enum Codes {
    /// All of so many rows have the first value.
    One(usize),
    /// Of up to 256 values.
    Byte(ScalarBuffer<u8>),
    /// Of more.
    Word(ScalarBuffer<u16>),
}

impl Codes {
    /// `codes` of `values` values.
    pub fn new(codes: Vec<u16>, values: usize) -> Self {
        match values {
            0 | 1 => Self::One(codes.len()),
            2..=256 => {
                let codes: Vec<u8> = codes.iter().map(|code| *code as u8).collect();
                Self::Byte(ScalarBuffer::from(codes))
            }
            _ => Self::Word(ScalarBuffer::from(codes)),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::One(rows) => *rows,
            Self::Byte(codes) => codes.len(),
            Self::Word(codes) => codes.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The code of `row`.
    #[inline]
    pub fn get(&self, row: usize) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Byte(codes) => usize::from(codes[row]),
            Self::Word(codes) => usize::from(codes[row]),
        }
    }

    /// How many rows have each of `values` codes.
    pub fn count(&self, values: usize) -> Vec<u64> {
        let mut counts = vec![0; values];
        match self {
            Self::One(rows) => counts.iter_mut().take(1).for_each(|count| *count = *rows as u64),
            Self::Byte(codes) => codes.iter().for_each(|code| counts[usize::from(*code)] += 1),
            Self::Word(codes) => codes.iter().for_each(|code| counts[usize::from(*code)] += 1),
        }
        counts
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Byte(codes) => codes.len(),
            Self::Word(codes) => codes.len() * 2,
        }
    }

    /// Whether each code is of one of `values` values.
    fn are_below(&self, values: usize) -> bool {
        match self {
            Self::One(rows) => *rows == 0 || values > 0,
            Self::Byte(codes) => codes.iter().max().is_none_or(|max| usize::from(*max) < values),
            Self::Word(codes) => codes.iter().max().is_none_or(|max| usize::from(*max) < values),
        }
    }
}

/// A column as it is kept.
#[derive(Debug, Clone)]
pub enum Column {
    /// A value a row.
    Plain(ArrayRef),
    /// Row `r` has the value with number `codes.get(r)`. Null is a value; no value comes twice.
    Coded {
        /// The codes.
        codes: Codes,
        /// The values.
        values: ArrayRef,
    },
}

impl Column {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(array) => array.len(),
            Self::Coded { codes, .. } => codes.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of its values.
    pub fn data_type(&self) -> &DataType {
        match self {
            Self::Plain(values) | Self::Coded { values, .. } => values.data_type(),
        }
    }

    /// Bytes of memory that it keeps alive, buffers shared with other columns included.
    pub fn memory_size(&self) -> usize {
        match self {
            Self::Plain(values) => values.get_array_memory_size(),
            Self::Coded { codes, values } => codes.bytes() + values.get_array_memory_size(),
        }
    }

    /// Whether no row has a value.
    pub fn is_null(&self) -> bool {
        match self {
            Self::Plain(values) | Self::Coded { values, .. } => values.null_count() == values.len(),
        }
    }

    /// Whether some row may have no value.
    pub(crate) fn has_nulls(&self) -> bool {
        match self {
            Self::Plain(values) | Self::Coded { values, .. } => values.null_count() > 0,
        }
    }

    /// Whether each code has its value.
    pub(crate) fn is_sound(&self) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Coded { codes, values } => codes.are_below(values.len()),
        }
    }

    /// A value a row, of all rows.
    ///
    /// # Errors
    /// If a code has no value.
    pub fn all(&self) -> Result<ArrayRef, ArrowError> {
        self.slice(0, self.len())
    }

    /// A value a row, of rows `start..start + len`.
    ///
    /// # Errors
    /// If a code has no value.
    pub fn slice(&self, start: usize, len: usize) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Plain(array) => Ok(array.slice(start, len)),
            Self::Coded { codes, values } => match codes {
                Codes::One(_) => take(values, &UInt8Array::from(vec![0; len]), None),
                Codes::Byte(codes) => {
                    take(values, &UInt8Array::new(codes.slice(start, len), None), None)
                }
                Codes::Word(codes) => {
                    take(values, &UInt16Array::new(codes.slice(start, len), None), None)
                }
            },
        }
    }

    /// A value a row, of `rows`.
    ///
    /// # Errors
    /// If a code has no value, or there is no such row.
    pub fn pick(&self, rows: &UInt64Array) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Plain(array) => take(array, rows, None),
            Self::Coded { codes, values } => {
                let codes = rows.values().iter().map(|row| codes.get(*row as usize) as u16);
                take(values, &UInt16Array::from_iter_values(codes), None)
            }
        }
    }
}
