//! One dictionary of the values of many parts.

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray, new_empty_array};
use arrow::compute::interleave;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use hashbrown::HashTable;

use super::parquet::fixed;
use super::postings::text_hash;

/// Bytes of values in a dictionary: a look-up of one row reads all of it.
const MAX_BYTES: usize = 64 << 10;
/// No code yet.
const UNKNOWN: u32 = u32::MAX;

/// Values as bytes.
#[derive(Clone, Copy)]
enum Values<'a> {
    Texts(&'a StringViewArray),
    Fixed(&'a [u8], usize),
}

impl<'a> Values<'a> {
    fn of(array: &'a dyn Array) -> Option<Self> {
        if let Some(texts) = array.as_string_view_opt() {
            return Some(Self::Texts(texts));
        }
        fixed(array).map(|(bytes, width)| Self::Fixed(bytes, width))
    }

    fn bytes(&self, at: usize) -> &'a [u8] {
        match self {
            Self::Texts(texts) => texts.value(at).as_bytes(),
            Self::Fixed(bytes, width) => &bytes[at * width..][..*width],
        }
    }
}

/// The dictionary as it grows.
pub struct Union<'a> {
    data_type: DataType,
    parts: Vec<&'a ArrayRef>,
    /// Hash, part, place there, and code.
    known: HashTable<(u64, Values<'a>, u32, u16)>,
    firsts: Vec<(usize, usize)>,
    bytes: usize,
}

impl<'a> Union<'a> {
    /// Of values of `data_type`; `None` if such have no dictionary.
    pub fn new(data_type: &DataType) -> Option<Self> {
        Values::of(new_empty_array(data_type).as_ref())?;
        let data_type = data_type.clone();
        let (parts, known, firsts) = (Vec::new(), HashTable::new(), Vec::new());
        Some(Self { data_type, parts, known, firsts, bytes: 0 })
    }

    /// The values of a further part.
    pub fn part(&mut self, values: &'a ArrayRef) -> Part<'_, 'a> {
        self.parts.push(values);
        let number = self.parts.len() - 1;
        Part { codes: vec![UNKNOWN; values.len()], number, array: values, union: self }
    }

    /// The values by code, less one.
    pub fn finish(self) -> Result<ArrayRef, ArrowError> {
        if self.firsts.is_empty() {
            return Ok(new_empty_array(&self.data_type));
        }
        let parts: Vec<&dyn Array> = self.parts.iter().map(|part| part.as_ref()).collect();
        interleave(&parts, &self.firsts)
    }
}

/// The values of one part of a union.
pub struct Part<'u, 'a> {
    codes: Vec<u32>,
    number: usize,
    array: &'a ArrayRef,
    union: &'u mut Union<'a>,
}

impl Part<'_, '_> {
    /// The code of the value at `place` of the part, 0 for null. `None`: the dictionary is full.
    #[inline]
    pub fn code(&mut self, place: usize) -> Option<u16> {
        match self.codes[place] {
            UNKNOWN => self.find(place),
            code => Some(code as u16),
        }
    }

    #[cold]
    fn find(&mut self, place: usize) -> Option<u16> {
        let union = &mut *self.union;
        let code = if self.array.is_null(place) {
            0
        } else {
            let values = Values::of(self.array.as_ref())?;
            let bytes = values.bytes(place);
            let hash = text_hash(0, bytes);
            let same = |entry: &(u64, Values<'_>, u32, u16)| {
                entry.0 == hash && entry.1.bytes(entry.2 as usize) == bytes
            };
            match union.known.find(hash, same) {
                Some(entry) => entry.3,
                None => {
                    union.bytes += bytes.len();
                    let code = u16::try_from(union.firsts.len() + 1).ok()?;
                    if union.bytes > MAX_BYTES {
                        return None;
                    }
                    union.firsts.push((self.number, place));
                    let entry = (hash, values, place as u32, code);
                    union.known.insert_unique(hash, entry, |entry| entry.0);
                    code
                }
            }
        };
        self.codes[place] = u32::from(code);
        Some(code)
    }
}
