//! Sets of rows of one part: sorted, disjoint ranges.

use std::ops::Range;

use arrow::array::{Array, BooleanArray};

/// A set of row numbers within one part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowSet {
    ranges: Vec<Range<u32>>,
}

impl RowSet {
    /// Rows `range`.
    pub fn range(range: Range<u32>) -> Self {
        let mut set = Self::default();
        set.push(range);
        set
    }

    /// Adds `range`, which begins at or after the last range's beginning. Touching ranges join.
    pub fn push(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        match self.ranges.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => self.ranges.push(range),
        }
    }

    /// The set of all `ranges`, in any order.
    pub fn from_unsorted(mut ranges: Vec<Range<u32>>) -> Self {
        ranges.sort_unstable_by_key(|range| range.start);
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.push(range));
        set
    }

    /// The ranges, ascending, disjoint, none empty.
    pub fn ranges(&self) -> &[Range<u32>] {
        &self.ranges
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Rows in both.
    pub fn and(&self, other: &Self) -> Self {
        let mut both = Self::default();
        let (mut i, mut j) = (0, 0);
        while let (Some(a), Some(b)) = (self.ranges.get(i), other.ranges.get(j)) {
            both.push(a.start.max(b.start)..a.end.min(b.end));
            if a.end <= b.end {
                i += 1;
            } else {
                j += 1;
            }
        }
        both
    }

    /// The rows at those positions of the set at which `mask` is true.
    pub fn filter(&self, mask: &BooleanArray) -> Self {
        let mut kept = Self::default();
        let mut rows = self.ranges.iter().cloned().flatten();
        let mut at = 0;
        for position in mask.values().set_indices().filter(|at| mask.is_valid(*at)) {
            if let Some(row) = rows.nth(position - at) {
                kept.push(row..row + 1);
            }
            at = position + 1;
        }
        kept
    }

    /// The first `count` rows, and the others.
    pub fn split(&self, count: usize) -> (Self, Self) {
        let (mut first, mut rest) = (Self::default(), Self::default());
        let mut left = count;
        for range in &self.ranges {
            let middle = range.start + range.len().min(left) as u32;
            left -= (middle - range.start) as usize;
            first.push(range.start..middle);
            rest.push(middle..range.end);
        }
        (first, rest)
    }

    /// Rows in either.
    pub fn or(&self, other: &Self) -> Self {
        Self::from_unsorted(self.ranges.iter().chain(&other.ranges).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn rows(set: &RowSet) -> BTreeSet<u32> {
        set.ranges().iter().cloned().flatten().collect()
    }

    fn any_set() -> impl Strategy<Value = RowSet> {
        proptest::collection::vec((0u32..60, 0u32..9), 0..8)
            .prop_map(|v| RowSet::from_unsorted(v.into_iter().map(|(s, l)| s..s + l).collect()))
    }

    proptest! {
        #[test]
        fn a_mask_keeps_positions(a in any_set(), mask in proptest::collection::vec(any::<Option<bool>>(), 100)) {
            let kept = a.filter(&BooleanArray::from(mask[..a.len()].to_vec()));
            let expected: BTreeSet<u32> = rows(&a).into_iter().zip(&mask)
                .filter_map(|(row, keep)| (*keep == Some(true)).then_some(row)).collect();
            prop_assert_eq!(rows(&kept), expected);
        }

        #[test]
        fn behaves_as_a_set(a in any_set(), b in any_set()) {
            let (x, y) = (rows(&a), rows(&b));
            prop_assert_eq!(rows(&a.and(&b)), &x & &y);
            prop_assert_eq!(rows(&a.or(&b)), &x | &y);
            let (first, rest) = a.split(b.len());
            prop_assert_eq!(first.len(), a.len().min(b.len()));
            prop_assert_eq!(first.or(&rest), a.clone());
            prop_assert_eq!(a.len(), x.len());
            prop_assert_eq!(a.is_empty(), x.is_empty());
            prop_assert!(a.ranges().windows(2).all(|w| w[0].end < w[1].start));
        }
    }
}
