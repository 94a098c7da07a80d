//! Texts that point into a request, and columns of them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, NullBufferBuilder, StringViewArray, UInt32Array,
};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::compute::take;
use arrow::error::ArrowError;

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
}

impl Buffers {
    /// Buffers for a request. Offsets are 32 bits: the caller has checked that the body has less
    /// than 4 GiB.
    pub fn new(body: bytes::Bytes) -> Self {
        Self { body, written: Vec::new() }
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

    fn view(&self, text: Text<'_>) -> u128 {
        let (bytes, buffer, offset) = match text {
            Text::Body(bytes) => {
                let offset = (bytes.as_ptr() as usize).wrapping_sub(self.body.as_ptr() as usize);
                (bytes, 0u32, offset)
            }
            Text::Written(start, end) => (&self.written[start..end], 1u32, start),
        };
        let mut view = [0u8; 16];
        view[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        if bytes.len() <= 12 {
            view[4..4 + bytes.len()].copy_from_slice(bytes);
        } else {
            view[4..8].copy_from_slice(&bytes[..4]);
            view[8..12].copy_from_slice(&buffer.to_le_bytes());
            view[12..].copy_from_slice(&(offset as u32).to_le_bytes());
        }
        u128::from_le_bytes(view)
    }
}

/// A column of text or bytes.
///
/// It is kept as runs of one view: a resource's attributes are the same in all of its rows, and most
/// attributes are null in most rows. Arrow then checks the text of each run once, and not in each row.
#[derive(Debug)]
pub struct ViewColumn {
    views: Vec<u128>,
    nulls: NullBufferBuilder,
    /// Where each run ends.
    ends: Vec<u32>,
    last_null: bool,
}

impl Default for ViewColumn {
    fn default() -> Self {
        Self {
            views: Vec::new(),
            nulls: NullBufferBuilder::new(0),
            ends: Vec::new(),
            last_null: false,
        }
    }
}

impl ViewColumn {
    /// Number of rows so far.
    pub fn len(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// Whether there are no rows yet.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn run(&mut self, view: u128, n: usize) {
        let end = self.len() + n;
        self.views.push(view);
        self.ends.push(end as u32);
    }

    /// Fills with null up to row `row`.
    pub fn pad(&mut self, row: usize) {
        let Some(missing) = row.checked_sub(self.len()).filter(|n| *n > 0) else { return };
        match self.ends.last_mut() {
            Some(end) if self.last_null => *end = row as u32,
            _ => {
                self.run(0, missing);
                self.nulls.append_null();
                self.last_null = true;
            }
        }
    }

    /// Appends `text` to `n` rows.
    pub fn push_n(&mut self, buffers: &Buffers, text: Text<'_>, n: usize) {
        if n > 0 {
            self.run(buffers.view(text), n);
            self.nulls.append_non_null();
            self.last_null = false;
        }
    }

    /// Appends `text`.
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

    /// The column as text. Fails if the bytes are not UTF-8.
    pub fn finish_text(mut self, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, ArrowError> {
        let views = ScalarBuffer::from(std::mem::take(&mut self.views));
        let array = StringViewArray::try_new(views, Arc::clone(buffers), self.nulls.finish())?;
        self.spread(Arc::new(array))
    }

    /// The column as bytes.
    pub fn finish_bytes(mut self, buffers: &Arc<[Buffer]>) -> Result<ArrayRef, ArrowError> {
        let views = ScalarBuffer::from(std::mem::take(&mut self.views));
        let array = BinaryViewArray::try_new(views, Arc::clone(buffers), self.nulls.finish())?;
        self.spread(Arc::new(array))
    }

    /// The rows of `runs`.
    fn spread(&self, runs: ArrayRef) -> Result<ArrayRef, ArrowError> {
        if runs.len() == self.len() {
            return Ok(runs);
        }
        let mut indices = Vec::with_capacity(self.len());
        for (run, end) in self.ends.iter().enumerate() {
            indices.resize(*end as usize, run as u32);
        }
        take(&runs, &UInt32Array::from(indices), None)
    }
}
