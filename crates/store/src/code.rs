//! Giving each value of a column a number, where few values repeat: one column out of the shares
//! that several batches have of it, coded or not.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeBinaryArray, PrimitiveArray,
    StringViewArray, new_null_array,
};
use arrow::compute::{concat, interleave};
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, UInt8Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use hashbrown::HashTable;
use lacuna_signal::batch::own_text;
use lacuna_signal::coded::{Codes, Column, MAX_VALUES, SAMPLE, most_values, worth};

/// Texts of up to this many bytes lie in the view itself (Arrow's `Utf8View` layout), so views are
/// equal exactly if the texts are.
const INLINE: usize = 12;

/// What one batch has of a column.
pub struct Share<'a> {
    /// The column; `None`: all of its rows are null.
    pub column: Option<&'a Column>,
    /// Number of rows.
    pub rows: usize,
    /// Whether the decoder gave codes to texts that are worth them.
    pub tried: bool,
}

impl Share<'_> {
    fn all(&self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        match self.column {
            Some(column) => column.all(),
            None => Ok(new_null_array(data_type, self.rows)),
        }
    }
}

/// The column of all `shares`, in order, in memory of its own: coded, unless its values hardly
/// repeat or are of a type that is not coded.
pub fn join(data_type: &DataType, shares: &[Share<'_>]) -> Result<Column, ArrowError> {
    if let [Share { column: Some(Column::Coded { codes, values }), .. }] = shares {
        return Ok(Column::Coded { codes: codes.clone(), values: own_text(values)? });
    }
    let coded = match data_type {
        // The decoder has found that they hardly repeat.
        DataType::Utf8View if matches!(shares, [Share { tried: true, .. }]) => None,
        DataType::Utf8View => Join::of(shares, |a| Texts(a.as_string_view())).coded(16),
        DataType::FixedSizeBinary(16) => {
            Join::of(shares, |a| Ids(a.as_fixed_size_binary())).coded(16)
        }
        DataType::Int64 => numbers::<Int64Type>(shares, |n| n as u64),
        DataType::UInt64 => numbers::<UInt64Type>(shares, |n| n),
        DataType::Int32 => numbers::<Int32Type>(shares, |n| n as u64),
        DataType::UInt32 => numbers::<UInt32Type>(shares, u64::from),
        DataType::UInt8 => numbers::<UInt8Type>(shares, u64::from),
        DataType::Float64 => numbers::<Float64Type>(shares, f64::to_bits),
        _ => None,
    };
    if let Some((codes, firsts)) = coded {
        let values = firsts_of(data_type, shares, &firsts)?;
        return Ok(Column::Coded { codes, values });
    }
    let all = match shares {
        [only] => only.all(data_type)?,
        many => {
            let all =
                many.iter().map(|share| share.all(data_type)).collect::<Result<Vec<_>, _>>()?;
            concat(&all.iter().map(AsRef::as_ref).collect::<Vec<_>>())?
        }
    };
    own_text(&all).map(Column::Plain)
}

fn numbers<T: ArrowPrimitiveType>(
    shares: &[Share<'_>],
    bits: impl Fn(T::Native) -> u64 + Copy,
) -> Option<(Codes, Vec<First>)> {
    let width = size_of::<T::Native>();
    Join::of(shares, |a| Numbers(a.as_primitive::<T>(), bits)).coded(width)
}

/// Where a value was first seen: the number of its share, and its place among the share's values.
type First = (usize, usize);

/// The values that were first seen at `firsts`.
fn firsts_of(
    data_type: &DataType,
    shares: &[Share<'_>],
    firsts: &[First],
) -> Result<ArrayRef, ArrowError> {
    let null: ArrayRef = new_null_array(data_type, 1);
    let values: Vec<&dyn Array> = shares
        .iter()
        .map(|share| match share.column {
            Some(Column::Plain(values) | Column::Coded { values, .. }) => values.as_ref(),
            None => null.as_ref(),
        })
        .collect();
    if firsts.is_empty() {
        return Ok(new_null_array(data_type, 0));
    }
    own_text(&Arc::clone(&interleave(&values, firsts)?))
}

/// Values that can be told apart.
trait Keys {
    fn array(&self) -> &dyn Array;
    /// Equal ones of one array stand for equal values.
    fn raw(&self, at: usize) -> u128;
    fn hash(&self, at: usize) -> u64;
    fn same(&self, at: usize, other: &Self, there: usize) -> bool;
}

struct Texts<'a>(&'a StringViewArray);

impl Keys for Texts<'_> {
    fn array(&self) -> &dyn Array {
        self.0
    }

    #[inline]
    fn raw(&self, at: usize) -> u128 {
        self.0.views()[at]
    }

    #[inline]
    fn hash(&self, at: usize) -> u64 {
        let view = self.raw(at);
        // The first four bytes of a view are the length.
        if view as u32 as usize <= INLINE { hash(view) } else { hash(self.0.value(at)) }
    }

    #[inline]
    fn same(&self, at: usize, other: &Self, there: usize) -> bool {
        let (view, seen) = (self.raw(at), other.raw(there));
        // The first eight bytes are the length and the beginning.
        view as u64 == seen as u64
            && (if view as u32 as usize <= INLINE {
                view == seen
            } else {
                self.0.value(at) == other.0.value(there)
            })
    }
}

struct Ids<'a>(&'a FixedSizeBinaryArray);

impl Keys for Ids<'_> {
    fn array(&self) -> &dyn Array {
        self.0
    }

    #[inline]
    fn raw(&self, at: usize) -> u128 {
        self.0.value(at).first_chunk().map_or(0, |id| u128::from_le_bytes(*id))
    }

    #[inline]
    fn hash(&self, at: usize) -> u64 {
        hash(self.raw(at))
    }

    #[inline]
    fn same(&self, at: usize, other: &Self, there: usize) -> bool {
        self.raw(at) == other.raw(there)
    }
}

struct Numbers<'a, T: ArrowPrimitiveType, B>(&'a PrimitiveArray<T>, B);

impl<T: ArrowPrimitiveType, B: Fn(T::Native) -> u64> Keys for Numbers<'_, T, B> {
    fn array(&self) -> &dyn Array {
        self.0
    }

    #[inline]
    fn raw(&self, at: usize) -> u128 {
        u128::from(self.1(self.0.values()[at]))
    }

    #[inline]
    fn hash(&self, at: usize) -> u64 {
        hash(self.raw(at) as u64)
    }

    #[inline]
    fn same(&self, at: usize, other: &Self, there: usize) -> bool {
        self.raw(at) == other.raw(there)
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    use std::hash::BuildHasher;
    foldhash::fast::FixedState::default().hash_one(value)
}

/// A share of a column: its values, the codes of its rows if they have codes, and how many there are.
struct Part<'a, K> {
    keys: Option<K>,
    codes: Option<&'a Codes>,
    rows: usize,
}

/// Codes of a column that is made of several shares, as they are given.
struct Join<'a, K> {
    parts: Vec<Part<'a, K>>,
    codes: Vec<u16>,
    firsts: Vec<First>,
    table: HashTable<(u64, u16)>,
    null: Option<u16>,
}

impl<'a, K: Keys> Join<'a, K> {
    fn of(shares: &[Share<'a>], keys: impl Fn(&'a dyn Array) -> K) -> Self {
        let rows = shares.iter().map(|share| share.rows).sum();
        let parts = shares.iter().map(|share| {
            let (keys, codes) = match share.column {
                Some(Column::Plain(values)) => (Some(keys(values.as_ref())), None),
                Some(Column::Coded { codes, values }) => (Some(keys(values.as_ref())), Some(codes)),
                None => (None, None),
            };
            Part { keys, codes, rows: share.rows }
        });
        Self {
            parts: parts.collect(),
            codes: Vec::with_capacity(rows),
            firsts: Vec::new(),
            table: HashTable::new(),
            null: None,
        }
    }

    /// The codes, and where each value was first seen. `None`: there are too many values of `width`
    /// bytes.
    fn coded(mut self, width: usize) -> Option<(Codes, Vec<First>)> {
        for number in 0..self.parts.len() {
            let (rows, codes) = (self.parts[number].rows, self.parts[number].codes);
            let seen = self.codes.len() + rows;
            match (&self.parts[number].keys, codes) {
                (None, _) => {
                    if rows > 0 {
                        let code = self.null(number, 0, width, seen)?;
                        self.codes.resize(seen, code);
                    }
                }
                (Some(keys), Some(codes)) => {
                    let values = keys.array().len();
                    let map: Vec<u16> = (0..values)
                        .map(|at| self.code(number, at, width, seen))
                        .collect::<Option<_>>()?;
                    match codes {
                        Codes::One(_) => self.codes.resize(seen, *map.first().unwrap_or(&0)),
                        Codes::Byte(codes) => {
                            self.codes.extend(codes.iter().map(|code| map[usize::from(*code)]));
                        }
                        Codes::Word(codes) => {
                            self.codes.extend(codes.iter().map(|code| map[usize::from(*code)]));
                        }
                    }
                }
                (Some(_), None) => self.rows(number, width)?,
            }
        }
        if self.firsts.len() > most_values(self.codes.len(), width) {
            return None;
        }
        Some((Codes::new(self.codes, self.firsts.len()), self.firsts))
    }

    /// Gives codes to all rows of a share that has none.
    fn rows(&mut self, number: usize, width: usize) -> Option<()> {
        let mut last: Option<(u128, u16)> = None;
        for row in 0..self.parts[number].rows {
            let raw = match &self.parts[number].keys {
                Some(keys) if keys.array().is_valid(row) => Some(keys.raw(row)),
                _ => None,
            };
            let code = match (raw, last) {
                (Some(raw), Some((seen, code))) if raw == seen => code,
                _ => self.code(number, row, width, self.codes.len())?,
            };
            last = raw.map(|raw| (raw, code)).or(last);
            self.codes.push(code);
        }
        Some(())
    }

    /// The code of value `at` of a share, when `seen` rows are known.
    fn code(&mut self, number: usize, at: usize, width: usize, seen: usize) -> Option<u16> {
        let keys = self.parts[number].keys.as_ref()?;
        if keys.array().is_null(at) {
            return self.null(number, at, width, seen);
        }
        let hash = keys.hash(at);
        let same = |(other, code): &(u64, u16)| {
            let (part, first) = self.firsts[usize::from(*code)];
            let first_keys = self.parts[part].keys.as_ref();
            *other == hash && first_keys.is_some_and(|first_keys| keys.same(at, first_keys, first))
        };
        if let Some((_, code)) = self.table.find(hash, same) {
            return Some(*code);
        }
        let code = self.fresh(number, at, width, seen)?;
        self.table.insert_unique(hash, (hash, code), |entry| entry.0);
        Some(code)
    }

    fn null(&mut self, number: usize, at: usize, width: usize, seen: usize) -> Option<u16> {
        let code = match self.null {
            Some(code) => code,
            None => self.fresh(number, at, width, seen)?,
        };
        self.null = Some(code);
        Some(code)
    }

    /// A code for a new value. `None`: there are too many.
    fn fresh(&mut self, number: usize, at: usize, width: usize, seen: usize) -> Option<u16> {
        let hopeless = seen >= SAMPLE && self.firsts.len() > worth(seen, width);
        if hopeless || self.firsts.len() >= MAX_VALUES {
            return None;
        }
        self.firsts.push((number, at));
        Some((self.firsts.len() - 1) as u16)
    }
}
