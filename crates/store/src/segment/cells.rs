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

impl Coded {
    /// How many rows have each code.
    pub fn counts(&self) -> Vec<u64> {
        // Two rows with one code after the other would wait for each other's sum.
        let len = self.values.len() + 1;
        let mut sums = vec![[0u32; 4]; len];
        let (fours, rest) = self.codes.as_chunks::<4>();
        for four in fours {
            for (place, code) in four.iter().enumerate() {
                sums[usize::from(*code)][place] += 1;
            }
        }
        rest.iter().for_each(|code| sums[usize::from(*code)][0] += 1);
        sums.into_iter().map(|four| four.iter().map(|sum| u64::from(*sum)).sum()).collect()
    }
}
