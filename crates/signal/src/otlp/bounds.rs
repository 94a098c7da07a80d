//! How large a batch may become, whatever a request holds.
//!
//! In a request an absent value costs nothing; in a batch it costs what a value costs, 16 bytes in
//! a column of text. Two million items of 30 bytes with hundreds of attribute keys between them
//! would make gigabytes of columns out of 60 MB. So a batch has as many rows and cells as its
//! request's bytes can pay for. What real emitters send stays far below.

use super::scopes::Items;
use super::wire::Message;
use crate::schema::MAX_ATTRIBUTE_COLUMNS;

/// A request may have this many rows…
const ROWS: usize = 1 << 16;
/// …and one more for so many of its bytes. A span has 46 bytes without its name; fixed columns take
/// up to 200 bytes a row.
const BYTES_A_ROW: usize = 32;
/// Attribute columns may have this many cells, null ones included…
const CELLS: usize = 1 << 20;
/// …and one more for so many of the request's bytes.
const BYTES_A_CELL: usize = 4;

/// What a batch may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Rows. Items beyond are refused and counted.
    pub rows: usize,
    /// Attribute columns. Attributes beyond go to the column of overflow.
    pub columns: usize,
}

impl Bounds {
    /// Those of the batch of `body`.
    pub fn of<'a, I: Items<'a>>(body: &'a [u8]) -> Self {
        let rows = ROWS + body.len() / BYTES_A_ROW;
        let cells = CELLS + body.len() / BYTES_A_CELL;
        // Most requests are too small to matter: an item has at least two bytes.
        let items = body.len() / 2;
        let items =
            if items > cells / MAX_ATTRIBUTE_COLUMNS { count::<I>(body).min(rows) } else { items };
        Self { rows, columns: (cells / items.max(1)).min(MAX_ATTRIBUTE_COLUMNS) }
    }
}

/// Rows that `body` makes at most. What cannot be read is not counted.
fn count<'a, I: Items<'a>>(body: &'a [u8]) -> usize {
    let mut rows = 0;
    each(body, 1, |resource| {
        each(resource, 2, |scope| each(scope, 2, |item| rows += I::rows(item)));
    });
    rows
}

/// Gives the message in each field `wanted` of `bytes` to `take`.
pub fn each<'a>(bytes: &'a [u8], wanted: u32, mut take: impl FnMut(&'a [u8])) {
    let mut message = Message::new(bytes);
    while let Ok(Some((number, field))) = message.next_field() {
        if number == wanted
            && let Ok(bytes) = field.bytes(number)
        {
            take(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::logs::Logs;
    use super::super::points::Points;
    use super::super::traces::Spans;
    use super::*;

    fn field(number: u8, inner: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut len = inner.len();
        while len >= 0x80 {
            out.push(len as u8 | 0x80);
            len >>= 7;
        }
        out.push(len as u8);
        out.extend_from_slice(inner);
        out
    }

    fn request(items: &[u8]) -> Vec<u8> {
        field(1, &field(2, items))
    }

    #[test]
    fn few_large_items_have_all_columns() {
        let large = request(&field(2, &[0; 4000]).repeat(1000));
        assert_eq!(Bounds::of::<Spans<'_>>(&large).columns, MAX_ATTRIBUTE_COLUMNS);
        assert_eq!(Bounds::of::<Spans<'_>>(&[]).columns, MAX_ATTRIBUTE_COLUMNS);
    }

    #[test]
    fn columns_times_rows_is_what_the_bytes_pay_for() {
        for (bytes, items) in [(2, 1_000_000), (30, 1_000_000), (60, 200_000), (1000, 20_000)] {
            let body = request(&field(2, &vec![0; bytes - 2]).repeat(items));
            let bounds = Bounds::of::<Logs<'_>>(&body);
            let cells = bounds.columns * items.min(bounds.rows);
            assert!(cells <= CELLS + body.len() / BYTES_A_CELL, "{bounds:?}");
            assert!(cells * 2 > CELLS.min(items * MAX_ATTRIBUTE_COLUMNS), "{bounds:?}");
        }
    }

    #[test]
    fn a_metric_counts_by_its_points() {
        // A gauge (field 5) of 50,000 points (field 1) is one item.
        let gauge = field(2, &field(5, &field(1, &[]).repeat(500_000)));
        let bounds = Bounds::of::<Points<'_>>(&request(&gauge));
        assert!(bounds.columns < 20, "{bounds:?}");
    }
}
