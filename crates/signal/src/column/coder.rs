//! Columns that give codes to values as they come, until it shows that values hardly repeat.

use std::sync::Arc;

use arrow::array::{NullBufferBuilder, PrimitiveArray, StringViewArray};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::ArrowPrimitiveType;
use arrow::error::ArrowError;
use hashbrown::HashTable;

use super::{Buffers, NumberColumn, Text, ViewColumn};
use crate::coded::{Codes, Column, MAX_VALUES, SAMPLE, most_values, worth};

/// Bytes of a view.
const VIEW: usize = 16;

/// The codes of rows. Their values are kept beside it, in the order of their codes.
#[derive(Debug, Default)]
struct Coder {
    codes: Vec<u16>,
    /// Half of the hash and the code of each value.
    table: HashTable<(u32, u16)>,
    /// How many values have codes, null among them.
    values: usize,
    null: Option<u16>,
    /// The code of the last value that was no null.
    last: Option<u16>,
}

/// Half of a hash: what a table keeps. Its place and its tag come from both ends of the whole.
fn whole(half: u32) -> u64 {
    u64::from(half) << 32 | u64::from(half)
}

impl Coder {
    /// Whether one more value of `width` bytes is worth a code.
    fn open(&self, width: usize) -> bool {
        let rows = self.codes.len();
        self.values < MAX_VALUES && (rows < SAMPLE || self.values <= worth(rows, width))
    }

    fn fresh(&mut self) -> u16 {
        self.values += 1;
        (self.values - 1) as u16
    }

    fn repeat(&mut self, code: u16, n: usize) {
        if n == 1 {
            self.codes.push(code);
        } else {
            self.codes.resize(self.codes.len() + n, code);
        }
    }

    /// Appends `n` rows of the value of which `is` knows the code. The outer option is empty if a
    /// new one is not worth a code; the answer is whether it is new.
    #[inline]
    fn push_n(
        &mut self,
        n: usize,
        width: usize,
        hash: impl FnOnce() -> u64,
        is: impl Fn(u16) -> bool,
    ) -> Option<bool> {
        if let Some(code) = self.last
            && is(code)
        {
            self.repeat(code, n);
            return Some(false);
        }
        let half = (hash() >> 16) as u32;
        let found = self.table.find(whole(half), |(other, code)| *other == half && is(*code));
        let (code, fresh) = match found {
            Some((_, code)) => (*code, false),
            None if self.open(width) => {
                let code = self.fresh();
                self.table.insert_unique(whole(half), (half, code), |(half, _)| whole(*half));
                (code, true)
            }
            None => return None,
        };
        self.last = Some(code);
        self.repeat(code, n);
        Some(fresh)
    }

    /// Appends `n` nulls; as [`Self::push_n`].
    fn null_n(&mut self, n: usize, width: usize) -> Option<bool> {
        let (code, fresh) = match self.null {
            Some(code) => (code, false),
            None if self.open(width) => (self.fresh(), true),
            None => return None,
        };
        self.null = Some(code);
        self.repeat(code, n);
        Some(fresh)
    }

    /// Whether the codes of values of `width` bytes save more than they cost.
    fn pays(&self, width: usize) -> bool {
        self.values <= most_values(self.codes.len(), width)
    }

    /// Which values are no nulls.
    fn validity(&self) -> Option<NullBuffer> {
        let null = usize::from(self.null?);
        let mut nulls = NullBufferBuilder::new(self.values);
        nulls.append_n_non_nulls(null);
        nulls.append_null();
        nulls.append_n_non_nulls(self.values - null - 1);
        nulls.finish()
    }
}

/// A column of texts.
#[derive(Debug)]
pub struct TextColumn(Texts);

#[derive(Debug)]
enum Texts {
    Coded(Coder, Vec<u128>),
    Plain(ViewColumn),
}

impl Default for TextColumn {
    fn default() -> Self {
        Self(Texts::Coded(Coder::default(), Vec::new()))
    }
}

impl TextColumn {
    /// Number of rows so far.
    pub fn len(&self) -> usize {
        match &self.0 {
            Texts::Coded(coder, _) => coder.codes.len(),
            Texts::Plain(column) => column.len(),
        }
    }

    /// Whether there are no rows yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills with null up to row `row`.
    pub fn pad(&mut self, row: usize) {
        let Some(missing) = row.checked_sub(self.len()).filter(|n| *n > 0) else { return };
        if let Texts::Coded(coder, views) = &mut self.0 {
            match coder.null_n(missing, VIEW) {
                Some(true) => return views.push(0),
                Some(false) => return,
                None => {}
            }
        }
        self.plain(|column| column.pad(row));
    }

    /// Appends `text` to `n` rows.
    #[inline]
    pub fn push_n(&mut self, buffers: &Buffers, text: Text<'_>, n: usize) {
        if n == 0 {
            return;
        }
        if let Texts::Coded(coder, views) = &mut self.0 {
            let bytes = buffers.bytes(text);
            let is = |code: u16| buffers.is(views[usize::from(code)], bytes);
            match coder.push_n(n, VIEW, || buffers.hash(bytes), is) {
                Some(true) => return views.push(buffers.view(text)),
                Some(false) => return,
                None => {}
            }
        }
        self.plain(|column| column.push_n(buffers, text, n));
    }

    /// Appends `text`.
    #[inline]
    pub fn push(&mut self, buffers: &Buffers, text: Text<'_>) {
        self.push_n(buffers, text, 1);
    }

    /// Appends `bytes` of the body, or null if there are none.
    pub fn push_nonempty(&mut self, buffers: &Buffers, bytes: &[u8]) {
        if bytes.is_empty() {
            self.pad(self.len() + 1);
        } else {
            self.push(buffers, Text::Body(bytes));
        }
    }

    /// Goes on with a view a row, as `more` appends.
    fn plain(&mut self, more: impl FnOnce(&mut ViewColumn)) {
        match &mut self.0 {
            Texts::Plain(column) => more(column),
            Texts::Coded(coder, views) => {
                let mut column = spread_texts(coder, views);
                more(&mut column);
                self.0 = Texts::Plain(column);
            }
        }
    }

    /// The column. Fails if a text is not UTF-8.
    pub fn finish(self, buffers: &Arc<[Buffer]>) -> Result<Column, ArrowError> {
        let column = match self.0 {
            Texts::Plain(column) => column,
            Texts::Coded(coder, views) if coder.pays(VIEW) => {
                let (nulls, views) = (coder.validity(), ScalarBuffer::from(views));
                let values = Arc::new(StringViewArray::try_new(views, Arc::clone(buffers), nulls)?);
                let codes = Codes::new(coder.codes, coder.values);
                return Ok(Column::Coded { codes, values });
            }
            Texts::Coded(coder, views) => spread_texts(&coder, &views),
        };
        column.finish_text(buffers).map(Column::Plain)
    }
}

/// A view a row.
#[cold]
fn spread_texts(coder: &Coder, views: &[u128]) -> ViewColumn {
    let mut column = ViewColumn::default();
    for code in &coder.codes {
        if coder.null == Some(*code) {
            column.pad(column.len() + 1);
        } else {
            column.push_view(views[usize::from(*code)], 1);
        }
    }
    column
}

/// A column of numbers of 8 bytes, many of which are alike.
#[derive(Debug)]
pub struct CodedNumbers<T: ArrowPrimitiveType>(Numbers<T>);

#[derive(Debug)]
enum Numbers<T: ArrowPrimitiveType> {
    Coded(Coder, Vec<T::Native>),
    Plain(NumberColumn<T>),
}

/// A number's bits: what tells two of them apart.
pub trait Bits: Copy {
    /// The bits.
    fn bits(self) -> u64;
}

impl Bits for i64 {
    fn bits(self) -> u64 {
        self as u64
    }
}

impl Bits for f64 {
    fn bits(self) -> u64 {
        self.to_bits()
    }
}

impl<T: ArrowPrimitiveType> Default for CodedNumbers<T> {
    fn default() -> Self {
        Self(Numbers::Coded(Coder::default(), Vec::new()))
    }
}

impl<T: ArrowPrimitiveType<Native: Bits>> CodedNumbers<T> {
    const WIDTH: usize = size_of::<T::Native>();

    /// Number of rows so far.
    pub fn len(&self) -> usize {
        match &self.0 {
            Numbers::Coded(coder, _) => coder.codes.len(),
            Numbers::Plain(column) => column.len(),
        }
    }

    /// Whether there are no rows yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills with null up to row `row`.
    pub fn pad(&mut self, row: usize) {
        let Some(missing) = row.checked_sub(self.len()).filter(|n| *n > 0) else { return };
        if let Numbers::Coded(coder, values) = &mut self.0 {
            match coder.null_n(missing, Self::WIDTH) {
                Some(true) => return values.push(T::default_value()),
                Some(false) => return,
                None => {}
            }
        }
        self.plain(|column| column.pad(row));
    }

    /// Appends `value` to `n` rows.
    #[inline]
    pub fn push_n(&mut self, buffers: &Buffers, value: T::Native, n: usize) {
        if n == 0 {
            return;
        }
        if let Numbers::Coded(coder, values) = &mut self.0 {
            let bits = value.bits();
            let is = |code: u16| values[usize::from(code)].bits() == bits;
            match coder.push_n(n, Self::WIDTH, || buffers.hash(bits), is) {
                Some(true) => return values.push(value),
                Some(false) => return,
                None => {}
            }
        }
        self.plain(|column| column.push_n(value, n));
    }

    /// Goes on with a value a row, as `more` appends.
    fn plain(&mut self, more: impl FnOnce(&mut NumberColumn<T>)) {
        match &mut self.0 {
            Numbers::Plain(column) => more(column),
            Numbers::Coded(coder, values) => {
                let mut column = spread_numbers(coder, values);
                more(&mut column);
                self.0 = Numbers::Plain(column);
            }
        }
    }

    /// The column.
    pub fn finish(self) -> Column {
        let column = match self.0 {
            Numbers::Plain(column) => column,
            Numbers::Coded(coder, values) if coder.pays(Self::WIDTH) => {
                let (nulls, values) = (coder.validity(), ScalarBuffer::from(values));
                let values = Arc::new(PrimitiveArray::<T>::new(values, nulls));
                return Column::Coded { codes: Codes::new(coder.codes, coder.values), values };
            }
            Numbers::Coded(coder, values) => spread_numbers(&coder, &values),
        };
        Column::Plain(column.finish(T::DATA_TYPE))
    }
}

/// A value a row.
#[cold]
fn spread_numbers<T: ArrowPrimitiveType>(coder: &Coder, values: &[T::Native]) -> NumberColumn<T> {
    let mut column = NumberColumn::default();
    for code in &coder.codes {
        let value = values[usize::from(*code)];
        column.push_option((coder.null != Some(*code)).then_some(value));
    }
    column
}

#[cfg(test)]
mod tests;
