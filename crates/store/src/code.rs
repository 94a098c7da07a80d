//! Giving each value of a column a number, where few values repeat.

use arrow::array::{
    Array, ArrowPrimitiveType, AsArray, FixedSizeBinaryArray, PrimitiveArray, StringViewArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, UInt8Type, UInt32Type, UInt64Type,
};
use hashbrown::HashTable;

use crate::packed::Codes;

/// Texts of up to this many bytes lie in the view itself (Arrow's `Utf8View` layout), so views are
/// equal exactly if the texts are.
const INLINE: usize = 12;
/// After this many rows it shows whether values repeat.
const SAMPLE: usize = 1024;

/// The codes of a column's rows.
pub struct Coded {
    /// A code a row.
    pub codes: Codes,
    /// The first row of each value.
    pub firsts: Vec<u32>,
}

/// The codes of `array`; `None` if its values hardly repeat or it is of a type that is not coded.
pub fn of(array: &dyn Array) -> Option<Coded> {
    match array.data_type() {
        DataType::Utf8View => texts(array.as_string_view()),
        DataType::FixedSizeBinary(16) => ids(array.as_fixed_size_binary()),
        DataType::Int64 => numbers(array.as_primitive::<Int64Type>(), |n| n as u64),
        DataType::UInt64 => numbers(array.as_primitive::<UInt64Type>(), |n| n),
        DataType::Int32 => numbers(array.as_primitive::<Int32Type>(), |n| n as u64),
        DataType::UInt32 => numbers(array.as_primitive::<UInt32Type>(), u64::from),
        DataType::UInt8 => numbers(array.as_primitive::<UInt8Type>(), u64::from),
        DataType::Float64 => numbers(array.as_primitive::<Float64Type>(), f64::to_bits),
        _ => None,
    }
}

/// Codes as they are given.
struct Coder {
    codes: Vec<u16>,
    firsts: Vec<u32>,
    null: Option<u16>,
    /// Bytes of a value.
    width: usize,
    /// Values that are worth codes.
    most: usize,
}

impl Coder {
    /// For `rows` values of `width` bytes. A code of two bytes a row must save more than it costs;
    /// it also does where most rows have no value.
    fn new(rows: usize, width: usize) -> Self {
        let most = (rows * width.saturating_sub(2) / width + 1).min(1 << 16);
        Self { codes: Vec::with_capacity(rows), firsts: Vec::new(), null: None, width, most }
    }

    /// A code for the value of the next row. `None`: there are too many values.
    fn fresh(&mut self) -> Option<u16> {
        let row = self.codes.len();
        let worth = row * self.width.saturating_sub(2) / self.width;
        let hopeless = row >= SAMPLE && self.firsts.len() > worth;
        if self.firsts.len() >= self.most || hopeless {
            return None;
        }
        let code = self.firsts.len() as u16;
        self.firsts.push(row as u32);
        Some(code)
    }

    fn null(&mut self) -> Option<()> {
        let code = match self.null {
            Some(code) => code,
            None => self.fresh()?,
        };
        self.null = Some(code);
        self.codes.push(code);
        Some(())
    }

    fn finish(self) -> Coded {
        let codes = match self.firsts.len() {
            0 | 1 => Codes::One(self.codes.len()),
            2..=256 => {
                let codes: Vec<u8> = self.codes.iter().map(|code| *code as u8).collect();
                Codes::Byte(ScalarBuffer::from(codes))
            }
            _ => Codes::Word(ScalarBuffer::from(self.codes)),
        };
        Coded { codes, firsts: self.firsts }
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::default().hash_one(value)
}

fn texts(array: &StringViewArray) -> Option<Coded> {
    let rows = array.len();
    let mut coder = Coder::new(rows, 16);
    let mut table: HashTable<(u64, u16)> = HashTable::new();
    let views = array.views();
    let mut last: Option<(u128, u16)> = None;
    for (row, view) in views.iter().enumerate() {
        if array.is_null(row) {
            coder.null()?;
            continue;
        }
        if let Some((seen, code)) = last
            && seen == *view
        {
            coder.codes.push(code);
            continue;
        }
        // The first four bytes of a view are the length.
        let short = *view as u32 as usize <= INLINE;
        let hash = if short { hash(view) } else { hash(array.value(row)) };
        let same = |entry: &(u64, u16)| {
            let first = coder.firsts[usize::from(entry.1)] as usize;
            entry.0 == hash
                && (views[first] == *view || !short && array.value(first) == array.value(row))
        };
        let code = match table.find(hash, same) {
            Some((_, code)) => *code,
            None => {
                let code = coder.fresh()?;
                table.insert_unique(hash, (hash, code), |entry| entry.0);
                code
            }
        };
        coder.codes.push(code);
        last = Some((*view, code));
    }
    Some(coder.finish())
}

fn ids(array: &FixedSizeBinaryArray) -> Option<Coded> {
    let rows = array.len();
    let mut coder = Coder::new(rows, 16);
    let mut table: HashTable<(u64, u16)> = HashTable::new();
    for row in 0..rows {
        if array.is_null(row) {
            coder.null()?;
            continue;
        }
        let id = array.value(row);
        let hash = hash(id);
        let same = |entry: &(u64, u16)| {
            entry.0 == hash && array.value(coder.firsts[usize::from(entry.1)] as usize) == id
        };
        let code = match table.find(hash, same) {
            Some((_, code)) => *code,
            None => {
                let code = coder.fresh()?;
                table.insert_unique(hash, (hash, code), |entry| entry.0);
                code
            }
        };
        coder.codes.push(code);
    }
    Some(coder.finish())
}

fn numbers<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    bits: impl Fn(T::Native) -> u64,
) -> Option<Coded> {
    let mut coder = Coder::new(array.len(), size_of::<T::Native>());
    let mut table: HashTable<(u64, u16)> = HashTable::new();
    let mut last: Option<(u64, u16)> = None;
    for (row, value) in array.values().iter().enumerate() {
        if array.is_null(row) {
            coder.null()?;
            continue;
        }
        let value = bits(*value);
        if let Some((seen, code)) = last
            && seen == value
        {
            coder.codes.push(code);
            continue;
        }
        let hash = hash(value);
        let code = match table.find(hash, |entry| entry.0 == value) {
            Some((_, code)) => *code,
            None => {
                let code = coder.fresh()?;
                table.insert_unique(hash, (value, code), |entry| self::hash(entry.0));
                code
            }
        };
        coder.codes.push(code);
        last = Some((value, code));
    }
    Some(coder.finish())
}
