//! How two kinds of event relate over the keys that they share.

use std::collections::BTreeMap;

use super::{Field, MAX_SHARED, Seen};

/// Of each pair, so many delays are kept: every one at first, then ever fewer, evenly.
const MAX_DELAYS: usize = 4_096;

/// What was seen of one pair of kinds, A and B, under one attribute.
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
    /// Keys with a B whose A would have been seen, and those where an A began before.
    pub(super) with_b: u64,
    pub(super) preceded: u64,
    /// Keys with either, those where both came equally often, and of those, more than once.
    pub(super) with_any: u64,
    pub(super) equal: u64,
    pub(super) equal_many: u64,
    /// From the first A's start to B's end, nanoseconds.
    pub(super) delays: Vec<i64>,
    skip: u64,
    stride: u64,
    /// Up to three keys as examples.
    pub(super) examples: Vec<String>,
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

/// Judges all pairs of kinds under `field`. An event within `margin` of the data's ends is left
/// out where its partner may lie beyond them.
pub(super) fn pairs(
    field: &Field,
    (first, last): (i64, i64),
    margin: i64,
) -> BTreeMap<(u16, u16), Pair> {
    // Which kinds ever share a key: only those pairs are worth counting.
    let mut pairs: BTreeMap<(u16, u16), Pair> = BTreeMap::new();
    let mut partners: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    let shared = || field.keys.iter().filter(|(_, seen)| seen.len() <= MAX_SHARED);
    for (_, seen) in shared() {
        for a in seen {
            for b in seen.iter().filter(|b| b.kind != a.kind) {
                if pairs.insert((a.kind, b.kind), Pair::default()).is_none() {
                    partners.entry(a.kind).or_default().push(b.kind);
                }
            }
        }
    }
    let early = first.saturating_add(margin);
    let late = last.saturating_sub(margin);
    for (key, seen) in shared() {
        for a in seen {
            for other in partners.get(&a.kind).into_iter().flatten() {
                let b = seen.iter().find(|b| b.kind == *other);
                if let Some(pair) = pairs.get_mut(&(a.kind, *other)) {
                    follow(pair, key, a, b, late);
                    balance(pair, a, b, early, late);
                }
                // The same pair the other way round: is this one preceded by the other?
                if let Some(pair) = pairs.get_mut(&(*other, a.kind)) {
                    if a.first.0 >= early {
                        pair.with_b += 1;
                        pair.preceded += u64::from(b.is_some_and(|b| b.first.0 <= a.first.0));
                    }
                    if b.is_none() {
                        balance(pair, a, None, early, late);
                    }
                }
            }
        }
    }
    pairs
}

fn follow(pair: &mut Pair, key: &str, a: &Seen, b: Option<&Seen>, late: i64) {
    if a.first.0 > late {
        return;
    }
    pair.with_a += 1;
    let outcome = b.and_then(|b| {
        [b.first, b.last].into_iter().find(|(start, _)| *start >= a.first.0).map(|time| (b, time))
    });
    let Some((b, (start, end))) = outcome else { return };
    pair.followed += 1;
    pair.once += u64::from(b.count == 1);
    let same_trace = a.trace.is_some() && a.trace == b.trace;
    pair.inside += u64::from(same_trace && end <= a.first.1 && start >= a.first.0);
    pair.delay(end.saturating_sub(a.first.0));
    if pair.examples.len() < 3 {
        pair.examples.push(key.to_owned());
    }
}

fn balance(pair: &mut Pair, a: &Seen, b: Option<&Seen>, early: i64, late: i64) {
    if a.first.0 < early || a.last.0 > late || b.is_some_and(|b| b.first.0 < early) {
        return;
    }
    pair.with_any += 1;
    let equal = b.is_some_and(|b| b.count == a.count);
    pair.equal += u64::from(equal);
    pair.equal_many += u64::from(equal && a.count > 1);
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
