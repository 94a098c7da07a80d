//! Durations counted in buckets.

/// Buckets for each doubling of the duration.
const PER_DOUBLING: u64 = 16;
/// `PER_DOUBLING` is two to this.
const BITS: u32 = PER_DOUBLING.ilog2();

/// The bucket of a duration in nanoseconds: one for each of 0 to 15, then 16 for each doubling.
pub fn bucket_of(nanos: i64) -> u16 {
    let nanos = nanos.max(0) as u64;
    if nanos < PER_DOUBLING {
        return nanos as u16;
    }
    let shift = nanos.ilog2() - BITS;
    (u64::from(shift) * PER_DOUBLING + (nanos >> shift)) as u16
}

/// The middle of the durations that fall into `bucket`, in nanoseconds.
fn middle(bucket: u16) -> i64 {
    let bucket = u64::from(bucket);
    if bucket < 2 * PER_DOUBLING {
        return bucket as i64;
    }
    let shift = (bucket / PER_DOUBLING - 1).min(62 - u64::from(BITS));
    let width = 1u64 << shift;
    let low = (PER_DOUBLING + bucket % PER_DOUBLING) << shift;
    (low + (width - 1) / 2) as i64
}

/// How many calls lasted how long, in buckets: 16 for each doubling, so that the middle of a bucket
/// is at most 1/32 (3.2 %) away from any duration in it. Durations below 32 ns are exact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies {
    /// Bucket and its calls, by bucket; none is empty.
    pub(super) buckets: Vec<(u16, u64)>,
}

impl Latencies {
    /// How many calls were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// Counts a call that lasted `nanos`; a negative duration counts as 0.
    pub fn add(&mut self, nanos: i64) {
        self.add_bucket(bucket_of(nanos), 1);
    }

    pub(super) fn add_bucket(&mut self, bucket: u16, calls: u64) {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.buckets[at].1 += calls,
            Err(at) => self.buckets.insert(at, (bucket, calls)),
        }
    }

    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        other.buckets.iter().for_each(|(bucket, calls)| self.add_bucket(*bucket, *calls));
    }

    /// Takes away what `other` counted, which was added before.
    pub fn remove(&mut self, other: &Self) {
        for (bucket, calls) in &other.buckets {
            if let Ok(at) = self.buckets.binary_search_by_key(bucket, |(bucket, _)| *bucket) {
                self.buckets[at].1 = self.buckets[at].1.saturating_sub(*calls);
            }
        }
        self.buckets.retain(|(_, calls)| *calls > 0);
    }

    /// The duration in nanoseconds that `quantile` (0 to 1) of the calls do not exceed, by nearest
    /// rank; `None` without calls. It is at most 1/32 away from that call's own.
    pub fn quantile(&self, quantile: f64) -> Option<i64> {
        let count = self.count();
        let rank = ((quantile * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut before = 0;
        let found = self.buckets.iter().find(|(_, calls)| {
            before += calls;
            before >= rank
        });
        found.map(|(bucket, _)| middle(*bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_near_that_of_the_durations(
            durations in proptest::collection::vec(
                prop_oneof![0i64..100, any::<i64>(), 1_000_000i64..10_000_000_000], 1..200),
            quantile in 0.0..=1.0f64,
        ) {
            let mut sorted: Vec<i64> = durations.iter().map(|nanos| (*nanos).max(0)).collect();
            sorted.sort_unstable();
            let rank = ((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let exact = sorted[rank - 1];
            let (left, right) = durations.split_at(durations.len() / 2);
            let mut all = Latencies::default();
            left.iter().for_each(|nanos| all.add(*nanos));
            let mut more = Latencies::default();
            right.iter().for_each(|nanos| more.add(*nanos));
            all.merge(&more);
            prop_assert_eq!(all.count(), durations.len() as u64);
            let found = all.quantile(quantile).unwrap();
            prop_assert!(exact.abs_diff(found) <= exact.unsigned_abs() / 32, "{found} for {exact}");
        }

        #[test]
        fn buckets_rise_with_durations(a: i64, b: i64) {
            let (a, b) = (a.min(b), a.max(b));
            prop_assert!(bucket_of(a) <= bucket_of(b));
            prop_assert!(bucket_of(b) < 1024);
        }
    }
}
