//! Time ranges, and what verbs say about their own completeness.

use crate::report::Finding;

/// Times `start <= t < end` in nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// First nanosecond in the range.
    pub start: i64,
    /// First nanosecond after it.
    pub end: i64,
}

impl TimeRange {
    /// Every time that a signal can have. (The last representable nanosecond, in the year 2262, is
    /// the range's end and so outside.)
    pub const ALL: Self = Self { start: i64::MIN, end: i64::MAX };

    /// `start <= t < end`; empty if `end <= start`.
    pub fn new(start: i64, end: i64) -> Self {
        Self { start, end }
    }

    /// Whether `time` is in the range.
    pub fn contains(&self, time: i64) -> bool {
        self.start <= time && time < self.end
    }

    /// Whether no time is in the range.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// Least and greatest time of some rows, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TimeBounds {
    /// The oldest row's time.
    pub min: i64,
    /// The newest row's time.
    pub max: i64,
}

impl TimeBounds {
    /// Whether any row may be in `range`.
    pub fn overlaps(&self, range: TimeRange) -> bool {
        !range.is_empty() && self.max >= range.start && self.min < range.end
    }

    /// Whether all rows are in `range`.
    pub fn within(&self, range: TimeRange) -> bool {
        range.contains(self.min) && range.contains(self.max)
    }

    /// The bounds of all `times`; `None` of none.
    pub fn of(times: impl Iterator<Item = i64>) -> Option<Self> {
        times.fold(None, |bounds: Option<Self>, time| {
            let bounds = bounds.unwrap_or(Self { min: time, max: time });
            Some(Self { min: bounds.min.min(time), max: bounds.max.max(time) })
        })
    }

    /// The bounds of both.
    pub fn join(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// A verb's answer, and whether it is the whole answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found<T> {
    /// What was found.
    pub items: T,
    /// There is more than `items`: the row bound was reached.
    pub cut: bool,
    /// Damaged places that the verb met. What they held is missing from `items`.
    pub damaged: Vec<Finding>,
}

impl<T> Found<T> {
    pub(crate) fn new(items: T) -> Self {
        Self { items, cut: false, damaged: Vec::new() }
    }

    /// Nothing is missing: neither cut off nor damaged.
    pub fn is_complete(&self) -> bool {
        !self.cut && self.damaged.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_bounds_closed() {
        let range = TimeRange::new(10, 20);
        assert!(range.contains(10) && range.contains(19) && !range.contains(20));
        let at = |min, max| TimeBounds { min, max };
        assert!(at(0, 10).overlaps(range) && !at(0, 9).overlaps(range));
        assert!(at(19, 30).overlaps(range) && !at(20, 30).overlaps(range));
        assert!(at(10, 19).within(range) && !at(10, 20).within(range));
        assert!(!at(5, 30).overlaps(TimeRange::new(20, 10)));
        assert_eq!(TimeBounds::of([3, -1, 2].into_iter()), Some(at(-1, 3)));
    }
}
