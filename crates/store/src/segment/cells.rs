//! A column of a row group, as it is gathered and written.

use arrow::array::ArrayRef;

/// The cells of a column.
#[derive(Debug, Clone)]
pub enum Cells {
    /// A value a row.
    Plain(ArrayRef),
    /// A code a row.
    Coded(Coded),
}

/// Rows by the number of their value.
#[derive(Debug, Clone)]
pub struct Coded {
    /// 0: null. `n`: value `n - 1`.
    pub codes: Vec<u16>,
    /// The values, each once, none null; all of them occur.
    pub values: ArrayRef,
}
