//! Attributes that found no column.

use crate::column::{AttributeListColumn, Buffers};
use crate::schema::Scope;

use super::BuildError;
use super::any::KeyValue;

/// A batch keeps at most this many attributes that found no column, counted in each row. More come
/// only from a client that invents keys; what is beyond is counted, not kept.
pub const MAX_OVERFLOW: usize = 1 << 20;

/// Attributes that found no column, and the rows that have them.
#[derive(Debug, Default)]
pub struct Overflow<'a> {
    /// First row, number of rows, scope and attribute.
    entries: Vec<(usize, usize, Scope, KeyValue<'a>)>,
    /// Rows of all entries together.
    total: usize,
}

impl<'a> Overflow<'a> {
    /// Adds `attribute` to `n` rows from `row`. Says how many of them do not keep it.
    pub fn add(&mut self, scope: Scope, attribute: KeyValue<'a>, row: usize, n: usize) -> u64 {
        let room = n.min(MAX_OVERFLOW - self.total);
        self.total += room;
        if room > 0 {
            self.entries.push((row, room, scope, attribute));
        }
        (n - room) as u64
    }

    /// The column; `None` if it is empty.
    pub fn finish(
        self,
        buffers: &mut Buffers,
        rows: usize,
    ) -> Result<Option<AttributeListColumn>, BuildError> {
        if self.entries.is_empty() {
            return Ok(None);
        }
        // Each text is written once, however many rows have it.
        let mut texts = Vec::with_capacity(self.entries.len());
        let mut cells = Vec::with_capacity(self.total);
        for (entry, (row, n, scope, attribute)) in self.entries.iter().enumerate() {
            let key = std::str::from_utf8(attribute.key).map_err(|_| BuildError::Utf8)?;
            let key = buffers.write(&format!("{}.{key}", scope.name()));
            let value = attribute.value.nested_text(buffers);
            texts.push((key, attribute.value.ty().code(), value));
            cells.extend((*row..row + n).map(|row| (row, entry)));
        }
        cells.sort_unstable();
        let mut cells = cells.into_iter().peekable();
        let mut column = AttributeListColumn::default();
        for row in 0..rows {
            while let Some((_, entry)) = cells.next_if(|(r, _)| *r == row) {
                let (key, ty, value) = texts[entry];
                column.push(buffers, key, ty, value);
            }
            column.end_or_null();
        }
        Ok(Some(column))
    }
}
