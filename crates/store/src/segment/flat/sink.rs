//! Values of a column on their way into an Arrow array.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, BinaryViewBuilder, BooleanBufferBuilder, StringViewBuilder,
    UInt32Array, make_array,
};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::DataType;

use super::Fault;
use super::dictionary::{Dictionary, Values};
use super::runs::Validity;

/// What the values of a column look like in a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Numbers of 64 bits.
    Words,
    /// Numbers of 32 bits.
    Halves,
    /// So many bytes.
    Fixed(usize),
    /// True or false.
    Flags,
    /// UTF-8.
    Text,
    /// Any bytes.
    Bytes,
}

impl Shape {
    /// How values of Arrow's `data_type` lie in our files; `None` for those that are not flat.
    pub fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Timestamp(..) => {
                Self::Words
            }
            DataType::Int32 | DataType::UInt32 | DataType::UInt8 => Self::Halves,
            DataType::FixedSizeBinary(width) => Self::Fixed(usize::try_from(*width).ok()?),
            DataType::Boolean => Self::Flags,
            DataType::Utf8View => Self::Text,
            DataType::BinaryView => Self::Bytes,
            _ => return None,
        })
    }
}

/// The values of the wanted rows of a page, without nulls.
pub enum Found<'a> {
    /// Of [`Shape::Words`].
    Words(&'a [i64]),
    /// Of [`Shape::Halves`].
    Halves(&'a [i32]),
    /// Of [`Shape::Fixed`].
    Fixed(&'a [u8]),
    /// Of [`Shape::Flags`]: 0 or 1.
    Flags(&'a [u32]),
    /// Where texts or bytes lie in a page.
    Plain(&'a [u8], &'a [Range<usize>]),
    /// Codes of a dictionary.
    Codes(&'a [u32], &'a Arc<Dictionary>),
}

/// Gathers the rows of one column.
pub struct Sink<'a> {
    shape: Shape,
    data_type: &'a DataType,
    words: Vec<i64>,
    halves: Vec<i32>,
    bytes: Vec<u8>,
    flags: BooleanBufferBuilder,
    texts: Texts,
    nulls: BooleanBufferBuilder,
    /// Nulls before the first value of all: if none comes, no array is made.
    leading: usize,
    begun: bool,
}

/// Texts, or bytes.
#[derive(Default)]
struct Texts {
    done: Vec<ArrayRef>,
    dictionary: Option<Arc<Dictionary>>,
    codes: Vec<u32>,
    plain: Option<Plain>,
}

enum Plain {
    Text(StringViewBuilder),
    Bytes(BinaryViewBuilder),
}

impl Plain {
    fn null(&mut self) {
        match self {
            Self::Text(texts) => texts.append_null(),
            Self::Bytes(bytes) => bytes.append_null(),
        }
    }

    fn append(&mut self, value: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Text(texts) => {
                let text = std::str::from_utf8(value);
                texts.append_value(text.map_err(|_| Fault::Page("a text is not UTF-8"))?);
            }
            Self::Bytes(bytes) => bytes.append_value(value),
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut texts) => Arc::new(texts.finish()),
            Self::Bytes(mut bytes) => Arc::new(bytes.finish()),
        }
    }
}

const MISCOUNTED: Fault = Fault::Page("it has fewer values than rows with one");

/// Calls `each` for every wanted row: whether it has a value.
fn rows(
    wanted: &[Range<usize>],
    validity: &Validity,
    mut each: impl FnMut(bool) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (alike, bits) = (validity.alike(), validity.bits());
    for row in wanted.iter().cloned().flatten() {
        each(alike.unwrap_or_else(|| bits[row / 8] >> (row % 8) & 1 == 1))?;
    }
    Ok(())
}

/// Appends `values` to `out`, with `T::default()` for nulls.
fn spread<T: Copy + Default>(
    out: &mut Vec<T>,
    values: &[T],
    wanted: &[Range<usize>],
    validity: &Validity,
) -> Result<(), Fault> {
    if validity.alike() == Some(true) {
        out.extend_from_slice(values);
        return Ok(());
    }
    let mut values = values.iter();
    rows(wanted, validity, |valid| {
        out.push(if valid { *values.next().ok_or(MISCOUNTED)? } else { T::default() });
        Ok(())
    })
}

impl<'a> Sink<'a> {
    /// Takes values of `shape` for an array of `data_type`.
    pub fn new(shape: Shape, data_type: &'a DataType) -> Self {
        Self {
            shape,
            data_type,
            words: Vec::new(),
            halves: Vec::new(),
            bytes: Vec::new(),
            flags: BooleanBufferBuilder::new(0),
            texts: Texts::default(),
            nulls: BooleanBufferBuilder::new(0),
            leading: 0,
            begun: false,
        }
    }

    /// Appends `count` nulls.
    pub fn nulls(&mut self, count: usize) {
        if !self.begun {
            self.leading += count;
            return;
        }
        match self.shape {
            Shape::Words => self.words.resize(self.words.len() + count, 0),
            Shape::Halves => self.halves.resize(self.halves.len() + count, 0),
            Shape::Fixed(width) => self.bytes.resize(self.bytes.len() + count * width, 0),
            Shape::Flags => self.flags.append_n(count, false),
            Shape::Text | Shape::Bytes => {
                if let Some(plain) = &mut self.texts.plain {
                    (0..count).for_each(|_| plain.null());
                    return;
                }
                self.texts.codes.resize(self.texts.codes.len() + count, 0);
            }
        }
        self.nulls.append_n(count, false);
    }

    /// Appends the rows `wanted` of a page, `found` being the values of those that have one.
    pub fn page(
        &mut self,
        wanted: &[Range<usize>],
        validity: &Validity,
        found: &Found<'_>,
    ) -> Result<(), Fault> {
        self.turn_to(found)?;
        if !self.begun {
            self.begun = true;
            let leading = std::mem::take(&mut self.leading);
            self.nulls(leading);
        }
        match *found {
            Found::Words(values) => spread(&mut self.words, values, wanted, validity)?,
            Found::Halves(values) => spread(&mut self.halves, values, wanted, validity)?,
            Found::Fixed(values) => {
                let Shape::Fixed(width) = self.shape else { return Err(MISCOUNTED) };
                if validity.alike() == Some(true) {
                    self.bytes.extend_from_slice(values);
                } else {
                    let mut values = values.chunks_exact(width.max(1));
                    rows(wanted, validity, |valid| {
                        if valid {
                            self.bytes.extend_from_slice(values.next().ok_or(MISCOUNTED)?);
                        } else {
                            self.bytes.resize(self.bytes.len() + width, 0);
                        }
                        Ok(())
                    })?;
                }
            }
            Found::Flags(values) => {
                let mut values = values.iter();
                rows(wanted, validity, |valid| {
                    self.flags.append(valid && *values.next().ok_or(MISCOUNTED)? == 1);
                    Ok(())
                })?;
            }
            Found::Plain(page, values) => {
                let mut values = values.iter();
                let Some(plain) = &mut self.texts.plain else { return Err(MISCOUNTED) };
                return rows(wanted, validity, |valid| {
                    if !valid {
                        plain.null();
                        return Ok(());
                    }
                    let value = values.next().and_then(|at| page.get(at.clone()));
                    plain.append(value.ok_or(MISCOUNTED)?)
                });
            }
            Found::Codes(codes, _) => spread(&mut self.texts.codes, codes, wanted, validity)?,
        }
        for range in wanted {
            match validity.alike() {
                Some(valid) => self.nulls.append_n(range.len(), valid),
                None => self.nulls.append_packed_range(range.clone(), validity.bits()),
            }
        }
        Ok(())
    }

    /// Makes ready for texts of another page: codes of one dictionary stay together, and texts that
    /// stand by themselves do.
    fn turn_to(&mut self, found: &Found<'_>) -> Result<(), Fault> {
        match found {
            Found::Codes(_, dictionary) => {
                let same = self.texts.dictionary.as_ref();
                if !same.is_some_and(|same| Arc::ptr_eq(same, dictionary)) {
                    self.close()?;
                    self.texts.dictionary = Some(Arc::clone(dictionary));
                }
            }
            Found::Plain(..) if self.texts.plain.is_none() => {
                self.close()?;
                self.texts.plain = Some(match self.shape {
                    Shape::Text => Plain::Text(StringViewBuilder::new()),
                    _ => Plain::Bytes(BinaryViewBuilder::new()),
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes an array of the texts since the last one.
    fn close(&mut self) -> Result<(), Fault> {
        if let Some(plain) = self.texts.plain.take() {
            self.texts.done.push(plain.finish());
        }
        if let Some(dictionary) = self.texts.dictionary.take() {
            let Values::Views(values) = &dictionary.values else { return Err(MISCOUNTED) };
            let nulls = NullBuffer::new(self.nulls.finish());
            let nulls = (nulls.null_count() > 0).then_some(nulls);
            let codes = std::mem::take(&mut self.texts.codes);
            let codes = UInt32Array::try_new(codes.into(), nulls)?;
            self.texts.done.push(take(values, &codes, None)?);
        }
        Ok(())
    }

    /// The array; `None` if all rows are null.
    pub fn finish(mut self) -> Result<Option<ArrayRef>, Fault> {
        if !self.begun {
            return Ok(None);
        }
        if matches!(self.shape, Shape::Text | Shape::Bytes) {
            self.close()?;
            return Ok(Some(match self.texts.done.as_slice() {
                [one] => Arc::clone(one),
                many => {
                    let many: Vec<&dyn Array> = many.iter().map(AsRef::as_ref).collect();
                    concat(&many)?
                }
            }));
        }
        let nulls = NullBuffer::new(self.nulls.finish());
        let rows = nulls.len();
        let buffer = match self.shape {
            Shape::Words => Buffer::from_vec(self.words),
            Shape::Halves if *self.data_type == DataType::UInt8 => {
                Buffer::from_vec(self.halves.into_iter().map(|half| half as u8).collect())
            }
            Shape::Halves => Buffer::from_vec(self.halves),
            Shape::Flags => self.flags.finish().into_inner(),
            _ => Buffer::from_vec(self.bytes),
        };
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let data = ArrayData::builder(self.data_type.clone()).len(rows).nulls(nulls);
        Ok(Some(make_array(data.add_buffer(buffer).build()?)))
    }
}
