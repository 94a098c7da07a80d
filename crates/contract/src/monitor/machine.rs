//! One contract at work: its keys, deadlines and counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashSet;
use lacuna_signal::finding::Verdict;
use lacuna_signal::selector::BatchIndex;

use super::codec::code;
use super::event::{Flaw, Rows, SideReader};
use super::evidence::Evidence;
use super::judge::{Context, Judged};
use super::presence::Presence;
use super::state::{Body, Dropped, Obligations, obligations};
use super::table::Table;
use super::timeline::Timeline;
use crate::spec::{Contract, Role};

/// Deadlines are kept in buckets of 2^27 ns, 134 ms: four bytes an obligation, and a finding at
/// most so much later.
const BUCKET: u32 = 27;

/// Counts of one contract since it was loaded.
#[derive(Debug, Default, Clone)]
pub(super) struct Stats {
    /// Matching events, by [`role`].
    pub(super) matched: [u64; 3],
    /// Of them, those without a usable key.
    pub(super) key_missing: [u64; 3],
    /// Of them, those without a number to add up.
    pub(super) amount_missing: u64,
    /// Events that came after the watermark had passed them.
    pub(super) late: u64,
    /// Open obligations given up to stay within bounds.
    pub(super) evicted_open: u64,
    /// Settled keys forgotten to stay within bounds.
    pub(super) evicted_settled: u64,
    pub(super) last_when: Option<i64>,
    pub(super) last_expect: Option<i64>,
}

code!(Stats {
    matched,
    key_missing,
    amount_missing,
    late,
    evicted_open,
    evicted_settled,
    last_when,
    last_expect,
});

impl Stats {
    /// Takes the counts of events back to what they were.
    pub(super) fn forget_matches(&mut self, before: &Self) {
        self.matched = before.matched;
        self.key_missing = before.key_missing;
        self.amount_missing = before.amount_missing;
        self.late = before.late;
    }
}

pub(super) fn role(role: Role) -> usize {
    match role {
        Role::When => 0,
        Role::Expect => 1,
        Role::RefusedBy => 2,
    }
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) contract: Arc<Contract>,
    pub(super) table: Table<Body>,
    due: BTreeMap<i64, Vec<u32>>,
    /// Settled keys in the order in which they settled, fulfilled ones and others.
    pub(super) settled: VecDeque<u32>,
    pub(super) settled_bad: VecDeque<u32>,
    /// Keys with obligations that are settled and not fulfilled.
    pub(super) bad: HashSet<u32, foldhash::fast::RandomState>,
    /// Keys with obligations whose evidence was missing.
    unknown: HashSet<u32, foldhash::fast::RandomState>,
    pub(super) counts: [u64; Verdict::ALL.len()],
    /// Times that a verdict was reached, by verdict; those taken back since are not subtracted.
    pub(super) reached: [u64; Verdict::ALL.len()],
    pub(super) timeline: Timeline,
    pub(super) stats: Stats,
    pub(super) evidence: Evidence,
    /// By verdict, first and last activation of what was forgotten.
    pub(super) forgotten: BTreeMap<Verdict, (i64, i64)>,
    /// Verdicts that a finding was made of, with what it said last.
    pub(super) raised: BTreeMap<Verdict, super::digest::Raised>,
    pub(super) changed: bool,
    /// Whether it has been shown events, or been told what another process knew.
    pub(super) known: bool,
    /// Activation of the newest obligation that was fulfilled.
    pub(super) fulfilled: i64,
    /// Changes when what is not fulfilled does.
    pub(super) revision: u64,
    /// What findings say, as of a revision.
    pub(super) digest: super::digest::Digest,
    key: Vec<u8>,
}

impl Machine {
    pub(super) fn new(contract: Arc<Contract>) -> Self {
        Self {
            evidence: Evidence::new(&contract),
            contract,
            table: Table::default(),
            due: BTreeMap::new(),
            settled: VecDeque::new(),
            settled_bad: VecDeque::new(),
            bad: HashSet::default(),
            unknown: HashSet::default(),
            counts: [0; Verdict::ALL.len()],
            reached: [0; Verdict::ALL.len()],
            timeline: Timeline::default(),
            stats: Stats::default(),
            forgotten: BTreeMap::new(),
            raised: BTreeMap::new(),
            changed: false,
            known: false,
            fulfilled: i64::MIN,
            revision: 1,
            digest: super::digest::Digest::default(),
            key: Vec::new(),
        }
    }

    /// Number of open obligations.
    pub(super) fn open(&self) -> u64 {
        self.counts[Verdict::Open as usize]
    }

    fn lose_open(&mut self, count: u64) {
        let open = &mut self.counts[Verdict::Open as usize];
        *open = open.saturating_sub(count);
    }

    /// Takes a batch's events.
    pub(super) fn observe(
        &mut self,
        index: &BatchIndex<'_>,
        rows: &Rows<'_>,
        presence: &Presence,
        watermark: i64,
    ) {
        let contract = self.contract.clone();
        for (role, side) in contract.sides() {
            if side.selector.kind() != index.kind() {
                continue;
            }
            let mask = side.selector.mask_in(index);
            if !mask.has_true() {
                continue;
            }
            let reader = SideReader::new(side, index);
            for row in mask.values().set_indices() {
                self.take(&contract, role, rows, &reader, row, presence, watermark);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the loop's body, split off to be read")]
    fn take(
        &mut self,
        contract: &Contract,
        role: Role,
        rows: &Rows<'_>,
        reader: &SideReader<'_>,
        row: usize,
        presence: &Presence,
        watermark: i64,
    ) {
        let start = rows.start(row);
        self.stats.matched[self::role(role)] += 1;
        self.evidence.note(role, rows.service(row), start);
        let last = match role {
            Role::When => &mut self.stats.last_when,
            _ => &mut self.stats.last_expect,
        };
        *last = (*last).max(Some(start));
        let mut key = std::mem::take(&mut self.key);
        match reader.read(rows, row, &mut key) {
            Ok(event) => {
                self.stats.late += u64::from(event.end <= watermark);
                self.add(contract, role, &key, event, presence, watermark);
            }
            Err(Flaw::Key) => self.stats.key_missing[self::role(role)] += 1,
            Err(Flaw::Amount) => self.stats.amount_missing += 1,
        }
        self.key = key;
    }

    fn add(
        &mut self,
        contract: &Contract,
        role: Role,
        key: &[u8],
        event: super::event::Event,
        presence: &Presence,
        watermark: i64,
    ) {
        let Some(slot) = self.table.entry(key, || Body::Empty) else {
            self.stats.evicted_settled += 1;
            return;
        };
        let mut dropped = Dropped::default();
        let changed = self
            .table
            .get_mut(slot)
            .is_some_and(|body| body.add(contract, role, event, &mut dropped));
        self.stats.evicted_open += dropped.open;
        self.stats.evicted_settled += dropped.events - dropped.open;
        self.lose_open(dropped.open);
        if changed {
            let moved = role != Role::Expect && obligations(contract) == Obligations::Key;
            self.refresh(slot, moved, presence, watermark);
        }
    }

    /// Judges a key's obligations anew. `moved` says that a deadline may have moved.
    pub(super) fn refresh(&mut self, slot: u32, moved: bool, presence: &Presence, watermark: i64) {
        let Self { contract, table, due, counts, reached, timeline, evidence, fulfilled, .. } =
            self;
        let Some(key) = table.get_mut(slot) else { return };
        let silent = |side, from, to| evidence.silent(contract, presence, side, from, to);
        let context = Context { watermark, silent: &silent };
        let (mut changed, mut unknown) = (false, false);
        key.judge(contract, &context, |old, new: &Judged| {
            if old != Some(new.verdict) {
                changed = true;
                if let Some(old) = old {
                    counts[old as usize] = counts[old as usize].saturating_sub(1);
                } else {
                    timeline.note(new.activated);
                }
                counts[new.verdict as usize] += 1;
                reached[new.verdict as usize] += 1;
            }
            if new.verdict == Verdict::Open && (moved || old != Some(Verdict::Open)) {
                due.entry(new.deadline >> BUCKET).or_default().push(slot);
            }
            unknown |= new.verdict == Verdict::Unknown;
            if new.verdict == Verdict::Fulfilled {
                *fulfilled = (*fulfilled).max(new.activated);
            }
        });
        let (open, bad) = (key.open() > 0, key.bad() > 0);
        if bad || self.bad.contains(&slot) {
            // Also when the verdict stays: traces and figures may have changed.
            self.revision += 1;
        }
        if !open && !table.mark(slot) {
            // The mark says that the key stands in a queue.
            table.set_mark(slot, true);
            let queue = if bad { &mut self.settled_bad } else { &mut self.settled };
            queue.push_back(slot);
        }
        if bad {
            self.bad.insert(slot);
        } else if !self.bad.is_empty() {
            self.bad.remove(&slot);
        }
        if unknown {
            self.unknown.insert(slot);
        } else if !self.unknown.is_empty() {
            self.unknown.remove(&slot);
        }
        self.changed |= changed;
    }

    /// Settles what is due by `watermark`.
    pub(super) fn advance(&mut self, presence: &Presence, watermark: i64) {
        while let Some(bucket) = self.due.first_entry() {
            // The whole bucket must be due: the last nanosecond of it.
            if (bucket.key() + 1) << BUCKET > watermark {
                return;
            }
            for slot in bucket.remove() {
                if self.table.get(slot).is_some_and(|body| body.open() > 0) {
                    self.refresh(slot, false, presence, watermark);
                }
            }
        }
    }

    /// Judges again what rested on silence, after signals came that it did not know of.
    pub(super) fn doubt(&mut self, presence: &Presence, watermark: i64) {
        let slots: Vec<u32> = self.unknown.iter().copied().collect();
        for slot in slots {
            self.refresh(slot, false, presence, watermark);
        }
    }

    /// Judges everything, at the end of the data.
    pub(super) fn finish(&mut self, presence: &Presence, watermark: i64) {
        self.due.clear();
        for slot in 0..self.table.end() {
            self.refresh(slot, true, presence, watermark);
        }
    }

    /// Forgets settled keys beyond `max_held` keys, fulfilled ones first, and those that are not
    /// fulfilled beyond `max_bad`.
    pub(super) fn bound(&mut self, max_held: usize, max_bad: usize) {
        while self.table.len() > max_held || self.bad.len() > max_bad {
            let bad_first = self.bad.len() > max_bad;
            let (queue, from_bad) = match (bad_first, self.settled.front()) {
                (false, Some(_)) => (&mut self.settled, false),
                _ => (&mut self.settled_bad, true),
            };
            let Some(slot) = queue.pop_front() else { return };
            let Some(body) = self.table.get(slot) else { continue };
            let (open, bad) = (body.open() > 0, body.bad() > 0);
            if open || !self.table.mark(slot) {
                // It will be queued again when it settles.
                self.table.set_mark(slot, false);
            } else if bad != from_bad {
                let queue = if from_bad { &mut self.settled } else { &mut self.settled_bad };
                queue.push_back(slot);
                if bad_first && !from_bad {
                    continue;
                }
            } else {
                self.forget(slot);
                self.stats.evicted_settled += 1;
            }
        }
    }

    fn forget(&mut self, slot: u32) {
        if self.bad.contains(&slot) {
            self.revision += 1;
            for (verdict, activated) in self.activations(slot) {
                let span = self.forgotten.entry(verdict).or_insert((activated, activated));
                *span = (span.0.min(activated), span.1.max(activated));
            }
        }
        self.bad.remove(&slot);
        self.unknown.remove(&slot);
        self.table.remove(slot);
        self.changed = true;
    }

    /// Gives up the key whose deadline comes first; `false` if nothing is open.
    pub(super) fn evict_open(&mut self) -> bool {
        while let Some(mut bucket) = self.due.first_entry() {
            let Some(slot) = bucket.get_mut().pop() else {
                bucket.remove();
                continue;
            };
            let open = self.table.get(slot).map_or(0, |body| u64::from(body.open()));
            if open > 0 {
                self.forget(slot);
                self.lose_open(open);
                self.stats.evicted_open += open;
                return true;
            }
        }
        false
    }

    /// Bytes of memory that the contract's state takes.
    pub(super) fn memory(&self) -> usize {
        let bodies = self.table.slots().filter_map(|slot| self.table.get(slot));
        let due: usize = self.due.values().map(|bucket| bucket.capacity() * 4 + 48).sum();
        self.table.memory()
            + bodies.map(Body::memory).sum::<usize>()
            + due
            + (self.settled.capacity() + self.settled_bad.capacity()) * 4
            + (self.bad.capacity() + self.unknown.capacity()) * 5
    }
}
