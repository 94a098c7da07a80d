//! What is remembered of a key with many events.

use std::collections::BTreeSet;

use lacuna_signal::finding::Verdict;

use super::amount::Sum;
use super::codec::{Code, Damaged, Get};
use super::events::{Kept, place};

/// What is remembered beside of a key with many events, so that not all are judged at each.
#[derive(Debug)]
pub(super) struct Long {
    /// What was due by then has been judged.
    pub(super) settled_to: i64,
    /// So many activations, the first ones, are settled.
    pub(super) inert: usize,
    /// When those of them began that are late.
    pub(super) late: BTreeSet<i64>,
    /// When those of them began that are neither fulfilled nor late.
    pub(super) unmet: BTreeSet<i64>,
    /// What began before is final, or forgotten: it is not judged again.
    pub(super) floor: i64,
    /// With more events of a side, what decides nothing any more is looked for.
    pub(super) prune_at: usize,
    /// What was added up of events that are not kept, left and right.
    pub(super) folded: [Sum; 2],
}

impl Default for Long {
    fn default() -> Self {
        Self {
            settled_to: i64::MIN,
            inert: 0,
            late: BTreeSet::new(),
            unmet: BTreeSet::new(),
            floor: i64::MIN,
            prune_at: 0,
            folded: [Sum::default(); 2],
        }
    }
}

impl Long {
    /// Passes over activations that are settled.
    pub(super) fn pass_inert(&mut self, whens: &[Kept]) {
        while let Some(kept) = whens.get(self.inert) {
            let sorted = match kept.verdict {
                None | Some(Verdict::Open) => return,
                Some(Verdict::Fulfilled) => None,
                Some(Verdict::Late) => Some(&mut self.late),
                Some(_) => Some(&mut self.unmet),
            };
            sorted.into_iter().for_each(|set| {
                set.insert(kept.event.start);
            });
            self.inert += 1;
        }
    }

    /// Sorts anew those that began by `time` and were not met before they were looked at again.
    pub(super) fn sort_unmet(&mut self, whens: &[Kept], time: i64) {
        let looked_at: Vec<i64> = self.unmet.range(..=time).copied().collect();
        for start in looked_at {
            let met =
                |kept: &Kept| matches!(kept.verdict, Some(Verdict::Fulfilled | Verdict::Late));
            if whens[place(whens, start)..place(whens, start.saturating_add(1))].iter().all(met) {
                self.unmet.remove(&start);
                self.late.insert(start);
            }
        }
    }

    /// What lies at or behind a place is to be looked at again. What is sorted stays: that one of
    /// them is fulfilled by now does no harm.
    pub(super) fn look_again_from(&mut self, at: usize) {
        self.inert = self.inert.min(at);
    }

    /// Forgets what began before `floor`.
    pub(super) fn raise_floor(&mut self, floor: i64) {
        self.floor = self.floor.max(floor);
        self.inert = 0;
        self.late.clear();
        self.unmet.clear();
    }
}

/// The floor and what was folded: the rest follows.
impl Code for Long {
    fn put(&self, out: &mut Vec<u8>) {
        self.floor.put(out);
        self.folded.put(out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        let floor = Code::get(from)?;
        Ok(Self { floor, folded: Code::get(from)?, ..Self::default() })
    }
}
