//! Which relations are worth a contract: those that nothing else explains.

use std::collections::{BTreeMap, BTreeSet};

use super::judge::Pair;
use super::kinds::{Kinds, Rank};

/// Relations of one sort, by kinds of event, each under its best field.
pub(super) type Best = BTreeMap<(u16, u16), (usize, Pair)>;

/// Drops relations for which others of the same work speak: as a cause, whatever says more of the
/// work (its beginning, a message); as an outcome, a mere step where anything says more.
pub(super) fn drop_spoken_for(best: &mut Best, all: &Best, kinds: &Kinds) {
    let rank = |kind: u16| kinds.get(kind).rank();
    let mut speakers: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for (a, b) in all.iter().filter(|(_, (_, pair))| pair.is_together()).map(|(sides, _)| sides) {
        for (step, speaker) in [(*a, *b), (*b, *a)] {
            if rank(step) < rank(speaker) {
                speakers.entry(step).or_default().push(speaker);
            }
        }
    }
    let of = |kind: u16| speakers.get(&kind).into_iter().flatten().copied();
    let spoken_for = |(a, c): (u16, u16), best: &Best| {
        let outcomes = || of(c).filter(|_| rank(c) == Rank::Step);
        of(a).any(|other| other != c && best.contains_key(&(other, c)))
            || outcomes().any(|other| other != a && best.contains_key(&(a, other)))
            || of(a).any(|cause| {
                outcomes().any(|outcome| cause != outcome && best.contains_key(&(cause, outcome)))
            })
    };
    let dropped: Vec<(u16, u16)> =
        best.keys().copied().filter(|sides| spoken_for(*sides, best)).collect();
    dropped.iter().for_each(|sides| drop(best.remove(sides)));
}

/// Drops A–B where B is done before A returns: what happens inside a synchronous call, or among the
/// steps of one piece of work, is seen by whoever calls. What happens while a message is handled is
/// not, and stays.
pub(super) fn drop_synchronous(best: &mut Best, kinds: &Kinds) {
    best.retain(|(a, _), (_, pair)| {
        kinds.get(*a).consumes() && pair.is_inside() || !(pair.is_inside() || pair.is_together())
    });
}

/// Drops A–B where B lies inside A, whoever A is: B cannot come without A.
pub(super) fn drop_inside(best: &mut Best) {
    best.retain(|_, (_, pair)| !pair.is_inside() && !pair.is_together());
}

/// Drops A–C where C lies inside some B that follows A too: B is the outcome, C a step of it.
/// `all` has the pairs of all kinds, for what lies inside what. The handling of a message is no such
/// B where `but_handling` is set: all that comes of the message lies inside it.
pub(super) fn drop_steps(best: &mut Best, all: &Best, kinds: &Kinds, but_handling: bool) {
    let steps: Vec<(u16, u16)> = best
        .iter()
        .filter(|((a, c), (field, _))| {
            best.range((*a, 0)..=(*a, u16::MAX)).any(|((_, b), (other, _))| {
                let holds =
                    |b: &u16, c: &u16| all.get(&(*b, *c)).is_some_and(|(_, pair)| pair.is_inside());
                // Two that lie in each other are one moment: the first of them stays.
                b != c
                    && other == field
                    && !(but_handling && kinds.get(*b).consumes())
                    && holds(b, c)
                    && (!holds(c, b) || b < c)
            })
        })
        .map(|(sides, _)| *sides)
        .collect();
    steps.iter().for_each(|sides| drop(best.remove(sides)));
}

/// Drops B–C where B lies inside some A that leads to C too: A is the cause, B a step of it.
pub(super) fn drop_inner_causes(best: &mut Best, all: &Best, kinds: &Kinds) {
    let speaks = |a: u16, b: u16| kinds.get(a).rank() >= kinds.get(b).rank();
    let inner: Vec<(u16, u16)> = best
        .iter()
        .filter(|((b, c), (field, _))| {
            best.iter().any(|((a, other), (same, _))| {
                let holds =
                    |a: &u16, b: &u16| all.get(&(*a, *b)).is_some_and(|(_, pair)| pair.is_inside());
                other == c
                    && a != b
                    && same == field
                    && speaks(*a, *b)
                    && holds(a, b)
                    && (!holds(b, a) || a < b)
            })
        })
        .map(|(sides, _)| *sides)
        .collect();
    inner.iter().for_each(|sides| drop(best.remove(sides)));
}

/// Drops A–C where A–B and B–C are there under the same field: B explains it. `once` says whether B
/// comes once for each A: one of many is no link of a chain.
///
/// A message's way is one hop: of A, its sending B and its handling C, A–C and B–C stay and A–B goes.
pub(super) fn drop_explained(best: &mut Best, kinds: &Kinds, once: impl Fn((u16, u16)) -> bool) {
    let hop = |b: u16, c: u16| kinds.get(b).produces() && kinds.get(c).consumes();
    let explained: Vec<(u16, u16)> = best
        .iter()
        .filter(|((a, c), (field, _))| {
            let same = |pair: (u16, u16)| best.get(&pair).is_some_and(|(other, _)| other == field);
            let link = |b: u16| {
                b != *c
                    && same((*a, b))
                    && same((b, *c))
                    // Two that go both ways would explain each other away.
                    && !same((*c, b))
                    && !same((b, *a))
            };
            let between = best.range((*a, 0)..=(*a, u16::MAX)).any(|((_, b), (_, pair))| {
                let step = pair.is_inside() || pair.is_together();
                link(*b) && once((*a, *b)) && !hop(*b, *c) && !step
            });
            // Sent, and then handled: the handling is what was wanted.
            let sent = best
                .range((*c, 0)..=(*c, u16::MAX))
                .any(|((_, d), _)| hop(*c, *d) && same((*a, *d)) && same((*c, *d)) && d != a);
            between || sent
        })
        .map(|(kinds, _)| *kinds)
        .collect();
    explained.iter().for_each(|kinds| drop(best.remove(kinds)));
}

/// Drops A–B where B–A holds too: what comes again and again follows everything, and is caused by
/// nothing.
pub(super) fn drop_mutual(best: &mut Best) {
    let sides: BTreeSet<(u16, u16)> = best.keys().copied().collect();
    best.retain(|(a, b), _| !sides.contains(&(*b, *a)));
}

/// A balance holds both ways round; the one whose left side comes first is the one to read.
pub(super) fn drop_mirrored(best: &mut Best) {
    let mirrored: Vec<(u16, u16)> = best
        .iter()
        .filter(|((a, b), (_, pair))| {
            let other = best.get(&(*b, *a)).map(|(_, other)| (other.followed, *a));
            other.is_some_and(|other| other > (pair.followed, *b))
        })
        .map(|(kinds, _)| *kinds)
        .collect();
    mirrored.iter().for_each(|kinds| drop(best.remove(kinds)));
}
