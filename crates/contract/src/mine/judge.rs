//! How two kinds of event relate over the keys that they share.

use std::collections::BTreeMap;

use super::fields::{Field, MAX_SHARED, Seen};
use super::kinds::Kinds;

/// Of each pair, so many delays are kept: every one at first, then ever fewer, evenly.
const MAX_DELAYS: usize = 1_024;

/// What was seen of one pair of kinds, A and B, under one field.
#[derive(Debug, Default, Clone)]
pub(super) struct Pair {
    /// Keys with an A whose B would have been seen.
    pub(super) with_a: u64,
    /// Of them, those where a B began at the first A's start or later.
    pub(super) followed: u64,
    /// Of those, where there was exactly one B.
    pub(super) once: u64,
    /// Of those, where B lay within A in one trace, as in a synchronous call.
    pub(super) inside: u64,
    /// Of those, where A and B are of one trace and one service: steps of one piece of work.
    pub(super) together: u64,
    /// Keys with a B whose A would have been seen, and those where an A began before.
    pub(super) with_b: u64,
    pub(super) preceded: u64,
    /// Keys with either, those where both came equally often, and of those, more than once.
    pub(super) with_any: u64,
    pub(super) equal: u64,
    pub(super) equal_many: u64,
    /// From the first A's start to B's end, nanoseconds.
    delays: Vec<i64>,
    skip: u64,
    stride: u64,
    /// Longest from a key's first A to its last B, where an A came before the first B.
    pub(super) longest: i64,
    /// Longest from a key's first event to its last, where both sides came equally often.
    pub(super) widest: i64,
    /// Up to three keys as examples: the first that came.
    pub(super) examples: Vec<u32>,
    /// Keys with both that lie within the data, and those of which one does and the other may go on
    /// beyond.
    both: u64,
    split: u64,
}

impl Pair {
    fn delay(&mut self, nanos: i64) {
        if self.skip > 0 {
            self.skip -= 1;
            return;
        }
        if self.delays.len() == MAX_DELAYS {
            let mut keep = false;
            self.delays.retain(|_| {
                keep = !keep;
                keep
            });
            self.stride = self.stride.max(1) * 2;
        }
        self.delays.push(nanos);
        self.skip = self.stride.max(1) - 1;
    }

    /// The delay that `share` of all do not exceed.
    pub(super) fn quantile(&self, share: f64) -> i64 {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        let at = (share * delays.len() as f64).ceil() as usize;
        delays.get(at.clamp(1, delays.len().max(1)) - 1).copied().unwrap_or(0)
    }

    /// Whether B nearly always lies within A.
    pub(super) fn is_inside(&self) -> bool {
        self.inside * 10 >= self.followed.max(1) * 9
    }

    /// Whether A and B are nearly always steps of one piece of work.
    pub(super) fn is_together(&self) -> bool {
        self.together * 10 >= self.followed.max(1) * 9
    }
}

/// Lower end of Wilson's 95 % confidence interval for a share of `hits` in `of` (E. B. Wilson,
/// 1927).
pub(super) fn wilson(hits: u64, of: u64) -> f64 {
    const Z: f64 = 1.96;
    if of == 0 {
        return 0.0;
    }
    let (hits, n) = (hits as f64, of as f64);
    let share = hits / n;
    let centre = share + Z * Z / (2.0 * n);
    let spread = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - spread) / (1.0 + Z * Z / n)).max(0.0)
}

/// The part of the data in which a partner that there is can be seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Middle {
    pub(super) early: i64,
    pub(super) late: i64,
}

impl Middle {
    fn whole(&self, seen: &Seen) -> bool {
        seen.first.0 >= self.early && seen.last.0 <= self.late
    }
}

/// Judges all pairs of kinds under `field` that share at least `min_keys` keys.
pub(super) fn pairs(
    field: &Field,
    kinds: &Kinds,
    middle: Middle,
    min_keys: u64,
) -> BTreeMap<(u16, u16), Pair> {
    // Kinds with fewer keys can be part of no relation.
    let local: Vec<u16> =
        field.kinds().into_iter().filter(|(_, keys)| *keys >= min_keys).map(|(k, _)| k).collect();
    let n = local.len();
    let mut numbers = vec![u16::MAX; kinds.len()];
    for (number, kind) in local.iter().enumerate() {
        numbers[usize::from(*kind)] = number as u16;
    }
    let mut table: Vec<Option<Box<Pair>>> = (0..n * n).map(|_| None).collect();
    // What one side alone has, whatever the other.
    let (mut starts, mut ends, mut wholes) = (vec![0u64; n], vec![0u64; n], vec![0u64; n]);
    let mut present: Vec<(usize, &Seen)> = Vec::new();
    for (at, key) in field.keys.iter().enumerate() {
        if key.seen.len() > MAX_SHARED {
            continue;
        }
        present.clear();
        present.extend(key.seen.iter().filter_map(|seen| {
            let number = numbers[usize::from(seen.kind)];
            (number != u16::MAX).then(|| (usize::from(number), seen))
        }));
        for (number, seen) in &present {
            starts[*number] += u64::from(seen.first.0 <= middle.late);
            ends[*number] += u64::from(seen.first.0 >= middle.early);
            wholes[*number] += u64::from(middle.whole(seen));
        }
        for (a, seen_a) in &present {
            for (b, seen_b) in present.iter().filter(|(b, _)| b != a) {
                let pair = table[a * n + b].get_or_insert_default();
                let same_service = kinds.get(seen_a.kind).service == kinds.get(seen_b.kind).service;
                both(pair, at as u32, (seen_a, seen_b), same_service, middle);
            }
        }
    }
    let mut pairs = BTreeMap::new();
    for (i, pair) in table.into_iter().enumerate() {
        let Some(mut pair) = pair else { continue };
        let (a, b) = (i / n, i % n);
        pair.with_a = starts[a];
        pair.with_b = ends[b];
        pair.with_any = wholes[a] + wholes[b] - pair.both - pair.split;
        pairs.insert((local[a], local[b]), *pair);
    }
    pairs
}

fn both(pair: &mut Pair, key: u32, (a, b): (&Seen, &Seen), same_service: bool, middle: Middle) {
    if b.first.0 >= middle.early && a.first.0 <= b.first.0 {
        pair.preceded += 1;
        pair.longest = pair.longest.max(b.last.0.saturating_sub(a.first.0));
    }
    if middle.whole(a) && middle.whole(b) {
        pair.both += 1;
        pair.equal += u64::from(a.count == b.count);
        pair.equal_many += u64::from(a.count == b.count && a.count > 1);
        if a.count == b.count {
            let (first, last) = (a.first.0.min(b.first.0), a.last.0.max(b.last.0));
            pair.widest = pair.widest.max(last.saturating_sub(first));
        }
    } else if middle.whole(a) || middle.whole(b) {
        pair.split += 1;
    }
    if a.first.0 > middle.late {
        return;
    }
    let outcome = [b.first, b.last].into_iter().find(|(start, _)| *start >= a.first.0);
    let Some((start, end)) = outcome else { return };
    pair.followed += 1;
    pair.once += u64::from(b.count == 1);
    let same_trace = a.trace.is_some() && a.trace == b.trace;
    pair.inside += u64::from(same_trace && end <= a.first.1 && start >= a.first.0);
    pair.together += u64::from(same_trace && same_service);
    pair.delay(end.saturating_sub(a.first.0));
    if pair.examples.len() < 3 {
        pair.examples.push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_published_values() {
        // 8 of 10: 0.490 to 0.943; 765 of 765 is the least that supports 0.995.
        assert!((wilson(8, 10) - 0.490).abs() < 1e-3);
        assert!(wilson(765, 765) >= 0.995 && wilson(764, 764) < 0.995);
        assert_eq!(wilson(0, 0), 0.0);
    }

    #[test]
    fn delays_are_thinned_evenly() {
        let mut pair = Pair::default();
        (0..100_000).for_each(|i| pair.delay(i));
        assert!(pair.delays.len() <= MAX_DELAYS);
        let median = pair.quantile(0.5);
        assert!((40_000..60_000).contains(&median), "{median}");
    }
}
