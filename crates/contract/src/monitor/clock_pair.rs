//! What the spans of two services say of their clocks.

use super::codec::code;

/// Samples of a pair of services that are kept: the newest.
const WINDOW: usize = 64;
/// With fewer nothing is said.
pub(super) const ENOUGH: usize = 16;
/// Smaller offsets are left alone, nanoseconds: networks are asymmetric by as much.
pub(super) const LEAST: i64 = 10_000_000;
/// An offset stays as it is until it is wrong by more than one part in so many.
const STEADY: i64 = 10;

/// What a parent and its child in another service say of the child's clock against the parent's:
/// it is no further ahead than `most` and, of a call, no less than `least`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) least: Option<i64>,
    pub(super) most: i64,
}

code!(Sample { least, most });

/// The samples of a pair of services.
#[derive(Debug, Default)]
pub(super) struct Pair {
    pub(super) samples: Vec<Sample>,
    next: u32,
    /// By how much the child's clock is ahead of the parent's; 0 if nothing is known.
    pub(super) offset: i64,
}

code!(Pair { samples, next, offset });

impl Pair {
    pub(super) fn add(&mut self, sample: Sample) {
        match self.samples.get_mut(self.next as usize) {
            Some(oldest) => *oldest = sample,
            None => self.samples.push(sample),
        }
        self.next = (self.next + 1) % WINDOW as u32;
    }

    /// Works the offset out anew.
    pub(super) fn settle(&mut self) {
        let found = self.estimate().filter(|offset| offset.abs() >= LEAST).unwrap_or(0);
        let steady = self.offset != 0
            && found != 0
            && (found - self.offset).abs() <= LEAST.max(self.offset.abs() / STEADY);
        if !steady {
            self.offset = found;
        }
    }

    fn estimate(&self) -> Option<i64> {
        let count = self.samples.len();
        if count < ENOUGH {
            return None;
        }
        let behind = self.samples.iter().filter(|sample| sample.most < 0).count();
        let ahead = self
            .samples
            .iter()
            .filter(|sample| sample.least.is_some_and(|least| least > 0))
            .count();
        if behind.max(ahead) * 2 <= count {
            return None;
        }
        // Of a call both ends are known: the middle, as if the way there took as long as back.
        let mut middles: Vec<i64> = self
            .samples
            .iter()
            .filter_map(|sample| Some(sample.least? / 2 + sample.most / 2))
            .collect();
        if middles.len() * 2 > count {
            middles.sort_unstable();
            return middles.get(middles.len() / 2).copied();
        }
        // Otherwise it is known only that no child was early: the quickest ones say most. The
        // quickest tenth may be mistakes.
        let mut most: Vec<i64> = self.samples.iter().map(|sample| sample.most).collect();
        most.sort_unstable();
        most.get(count / 10).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn pair(samples: impl Iterator<Item = (Option<i64>, i64)>) -> i64 {
        let mut pair = Pair::default();
        for (least, most) in samples {
            pair.add(Sample { least: least.map(|ms| ms * MS), most: most * MS });
        }
        pair.settle();
        pair.offset / MS
    }

    #[test]
    fn clocks_that_agree_have_no_offset_whatever_the_network_does() {
        assert_eq!(pair((0..64).map(|i| (Some(-i % 50), i % 50))), 0);
        assert_eq!(pair((0..64).map(|i| (None, i * 100))), 0);
        // A few spans with broken times are not a clock.
        assert_eq!(pair((0..64).map(|i| (None, if i % 3 == 0 { -5_000 } else { 7 }))), 0);
    }

    #[test]
    fn an_offset_is_found_and_little_evidence_finds_nothing() {
        // Calls of 10 to 20 ms, half of it in the server, whose clock is 5 s behind.
        let call = |i: i64| (Some(-5_000 - (i % 6)), -5_000 + (i % 6));
        assert_eq!(pair((0..64).map(call)), -5_000);
        assert_eq!(pair((0..15).map(call)), 0);
        assert_eq!(pair((0..64).map(|i| (Some(3_000 - i % 6), 3_000 + i % 6))), 3_000);
        // Messages that wait 0 to 63 ms: the quickest count.
        let found = pair((0..64).map(|i| (None, -5_000 + i)));
        assert!((-5_000..-4_990).contains(&found), "{found}");
    }
}
