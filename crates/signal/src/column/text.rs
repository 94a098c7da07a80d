//! Texts that point into a request, and columns of them.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryViewArray, NullBufferBuilder, StringViewArray};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::error::ArrowError;

/// Texts of up to this many bytes lie in the view itself (Arrow's `Utf8View` layout).
const INLINE: usize = 12;

/// Whether `a` and `b` are the same bytes. Keys and values are short: two loads are less than a call.
#[inline]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        8..=16 => ends::<8>(a) == ends::<8>(b),
        17..=32 => ends::<16>(a) == ends::<16>(b),
        4..8 => ends::<4>(a) == ends::<4>(b),
        _ => a == b,
    }
}

/// The first and the last `N` bytes.
#[inline]
fn ends<const N: usize>(bytes: &[u8]) -> (Option<&[u8; N]>, Option<&[u8; N]>) {
    (bytes.first_chunk(), bytes.last_chunk())
}

/// Where a text lies.
#[derive(Debug, Clone, Copy)]
pub enum Text<'a> {
    /// In the request's body.
    Body(&'a [u8]),
    /// In the auxiliary buffer, from the first offset to before the second.
    Written(usize, usize),
}

/// The two buffers that the batch's texts lie in, while the batch is being built.
#[derive(Debug)]
pub struct Buffers {
    body: bytes::Bytes,
    /// Text that the decoder had to write.
    pub written: Vec<u8>,
    hasher: foldhash::fast::RandomState,
}

impl Buffers {
    /// Buffers for a request. Offsets are 32 bits: the caller has checked that the body has less
    /// than 4 GiB.
    pub fn new(body: bytes::Bytes) -> Self {
        Self { body, written: Vec::new(), hasher: foldhash::fast::RandomState::default() }
    }

    /// The buffers in the order in which views number them.
    pub fn finish(self) -> Arc<[Buffer]> {
        Arc::from([Buffer::from(self.body), Buffer::from_vec(self.written)])
    }

    /// Writes `text` and says where.
    pub fn write(&mut self, text: &str) -> Text<'static> {
        let start = self.written.len();
        self.written.extend_from_slice(text.as_bytes());
        Text::Written(start, self.written.len())
    }

    /// The bytes of `text`.
    #[inline]
    pub(super) fn bytes<'s>(&'s self, text: Text<'s>) -> &'s [u8] {
        match text {
            Text::Body(bytes) => bytes,
            Text::Written(start, end) => &self.written[start..end],
        }
    }

    /// A hash that nobody outside can foresee.
    #[inline]
    pub(super) fn hash(&self, value: impl std::hash::Hash) -> u64 {
        use std::hash::BuildHasher;
        self.hasher.hash_one(value)
    }

    /// Whether the text of `view` is `bytes`.
    #[inline]
    pub(super) fn is(&self, view: u128, bytes: &[u8]) -> bool {
        let len = bytes.len();
        if view as u32 as usize != len {
            return false;
        }
        let view = view.to_le_bytes();
        if len <= INLINE {
            return same(&view[4..4 + len], bytes);
        }
        let [_, _, _, _, _, _, _, _, buffer, _, _, _, a, b, c, d] = view;
        let at = u32::from_le_bytes([a, b, c, d]) as usize;
        let all: &[u8] = if buffer == 0 { &self.body } else { &self.written };
        same(&all[at..at + len], bytes)
    }

    pub(super) fn view(&self, text: Text<'_>) -> u128 {
        let (bytes, buffer, offset) = match text {
            Text::Body(bytes) => {
                let offset = (bytes.as_ptr() as usize).wrapping_sub(self.body.as_ptr() as usize);
                (bytes, 0u32, offset)
            }
            Text::Written(start, end) => (&self.written[start..end], 1u32, start),
        };
        let mut view = [0u8; 16];
        view[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        if bytes.len() <= INLINE {
            view[4..4 + bytes.len()].copy_from_slice(bytes);
        } else {
            view[4..8].copy_from_slice(&bytes[..4]);
            view[8..12].copy_from_slice(&buffer.to_le_bytes());
            view[12..].copy_from_slice(&(offset as u32).to_le_bytes());
        }
        u128::from_le_bytes(view)
    }
}

/// A column of text or bytes with a view a row: of items of lists, and of texts that hardly repeat.
#[derive(Debug)]
pub struct ViewColumn {
    views: Vec<u128>,
    nulls: NullBufferBuilder,
}

impl Default for ViewColumn {
    fn default() -> Self {
        Self { views: Vec::new(), nulls: NullBufferBuilder::new(0) }
    }
}

impl ViewColumn {
    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.views.len()
    }

    /// Whether there are no rows yet.
    pub fn is_empty(&self) -> bool {
        self.views.is_empty()
    }

    /// Fills with null up to row `row`.
    pub fn pad(&mut self, row: usize) {
        if let Some(missing) = row.checked_sub(self.len()).filter(|n| *n > 0) {
            self.views.resize(row, 0);
            self.nulls.append_n_nulls(missing);
        }
    }

    /// Appends `text` to `n` rows.
    pub fn push_n(&mut self, buffers: &Buffers, text: Text<'_>, n: usize) {
        self.push_view(buffers.view(text), n);
    }

    /// Appends `text`.
    pub fn push(&mut self, buffers: &Buffers, text: Text<'_>) {
        self.push_view(buffers.view(text), 1);
    }

    /// Appends `view` to `n` rows.
    pub(super) fn push_view(&mut self, view: u128, n: usize) {
        self.views.extend(std::iter::repeat_n(view, n));
        self.nulls.append_n_non_nulls(n);
    }

    /// The column as text. Fails if the bytes are not UTF-8.
    pub fn finish_text(mut self, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, ArrowError> {
        let views = ScalarBuffer::from(self.views);
        let array = StringViewArray::try_new(views, Arc::clone(buffers), self.nulls.finish())?;
        Ok(Arc::new(array))
    }

    /// The column as bytes.
    pub fn finish_bytes(mut self, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, ArrowError> {
        let views = ScalarBuffer::from(self.views);
        let array = BinaryViewArray::try_new(views, Arc::clone(buffers), self.nulls.finish())?;
        Ok(Arc::new(array))
    }
}
