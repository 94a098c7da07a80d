//! One contract at work: its keys, deadlines and counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashSet;
use lacuna_signal::finding::Verdict;
use lacuna_signal::selector::BatchIndex;

use super::event::{Flaw, SideReader};
use super::events::{Obligations, obligations};
use super::evidence::Evidence;
use super::judge::{Context, Judged, Side};
use super::presence::{Doubt, Presence};
use super::rows::Rows;
use super::state::{Body, Limits, Look, Notes};
use super::stats::{Stats, role};
use super::table::Table;
use super::timeline::Timeline;
use crate::spec::{Contract, Kind, Role};

/// Deadlines are kept in buckets of 2^27 ns, 134 ms: four bytes an obligation, and a finding at
/// most so much later.
pub(super) const BUCKET: u32 = 27;

/// Events that come later than what they decide was settled are allowed for by so much, on top of
/// the deadline twice, in keys that have very many.
const ALLOWANCE: i64 = 600_000_000_000;

/// How far time has come, nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time {
    /// Up to where everything is taken to have arrived.
    pub(super) watermark: i64,
    /// By how much it lags behind the newest event.
    pub(super) lateness: i64,
}

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) contract: Arc<Contract>,
    pub(super) table: Table<Body>,
    pub(super) due: BTreeMap<i64, Vec<u32>>,
    /// Settled keys in the order in which they settled, fulfilled ones and others.
    pub(super) settled: VecDeque<u32>,
    pub(super) settled_bad: VecDeque<u32>,
    /// Keys with obligations that are settled and not fulfilled.
    pub(super) bad: HashSet<u32, foldhash::fast::RandomState>,
    /// Keys with obligations whose evidence was missing.
    pub(super) unknown: HashSet<u32, foldhash::fast::RandomState>,
    pub(super) counts: [u64; Verdict::ALL.len()],
    /// Times that a verdict was reached, by verdict; those taken back since are not subtracted.
    pub(super) reached: [u64; Verdict::ALL.len()],
    pub(super) timeline: Timeline,
    pub(super) stats: Stats,
    pub(super) evidence: Evidence,
    /// By verdict, first and last activation of what was forgotten.
    pub(super) forgotten: BTreeMap<Verdict, (i64, i64)>,
    /// What began before may be unknown to it: of a precedence, causes. `i64::MIN` if nothing is.
    pub(super) edge: i64,
    /// Obligations that were opened before are not counted and not told.
    pub(super) counted_from: i64,
    /// Events of a side that a key keeps.
    pub(super) max_events: usize,
    /// Whether something has come by which a silence may have been one that was taken for none.
    pub(super) reconsider: bool,
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
            edge: i64::MIN,
            counted_from: i64::MIN,
            max_events: usize::MAX,
            reconsider: false,
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

    /// Takes a batch's events.
    pub(super) fn observe(
        &mut self,
        index: &BatchIndex<'_>,
        rows: &Rows<'_>,
        presence: &Presence,
        time: Time,
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
                self.take(&contract, role, rows, &reader, row, presence, time);
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
        time: Time,
    ) {
        let watermark = time.watermark;
        let start = rows.start(row);
        self.stats.matched[self::role(role)] += 1;
        // Also what was settled long ago may be seen otherwise by it; over history nothing is yet.
        self.reconsider |= self.evidence.note(role, rows.service(row)) && watermark > i64::MIN;
        let last = match role {
            Role::When => &mut self.stats.last_when,
            _ => &mut self.stats.last_expect,
        };
        *last = (*last).max(Some(start));
        let mut key = std::mem::take(&mut self.key);
        match reader.read(rows, row, &mut key) {
            Ok(event) => {
                self.stats.late += u64::from(event.end <= watermark);
                self.stats.field_missing[self::role(role)] += u64::from(event.lacks_field());
                self.add(contract, role, &key, event, presence, time);
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
        time: Time,
    ) {
        let Time { watermark, lateness } = time;
        let Some(slot) = self.table.entry(key, || Body::Empty) else {
            self.stats.evicted_settled += 1;
            return;
        };
        let mut notes = Notes::new();
        let (start, end) = (event.start, event.end);
        let body = self.table.get_mut(slot);
        if body.is_some_and(|body| body.add(contract, role, event, &mut notes)) {
            let moves = role != Role::Expect || contract.kind == Kind::Balance;
            let moved = moves && obligations(contract) == Obligations::Key;
            self.refresh(slot, moved, Look::Event(role, start, end), presence, watermark);
            let allowance = lateness.max(ALLOWANCE);
            let limits = Limits {
                max_events: self.max_events,
                known_to: watermark.saturating_sub(allowance),
            };
            if let Some(body) = self.table.get_mut(slot) {
                body.prune(contract, &limits, &mut notes);
            }
        }
        self.take_note(slot, notes);
    }

    /// Judges a key's obligations anew, those that `look` asks for. `moved` says that a deadline may
    /// have moved.
    pub(super) fn refresh(
        &mut self,
        slot: u32,
        moved: bool,
        look: Look,
        presence: &Presence,
        watermark: i64,
    ) {
        let Self {
            contract, table, due, counts, reached, timeline, evidence, edge, fulfilled, ..
        } = self;
        let Some(key) = table.get_mut(slot) else { return };
        let silent = |side, from, to| evidence.silent(contract, presence, side, from, to);
        let context = Context { watermark, edge: *edge, silent: &silent };
        let mut changed = false;
        key.judge(contract, &context, look, |old, new: &Judged| {
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
            if new.verdict == Verdict::Fulfilled {
                *fulfilled = (*fulfilled).max(new.activated);
            }
        });
        let tally = key.tally();
        let (open, bad, unknown) = (tally.open > 0, tally.bad > 0, tally.unknown > 0);
        if bad || self.bad.contains(&slot) {
            // Also when the verdict stays: traces and figures may have changed.
            self.revision += 1;
        }
        if !open {
            self.queue_if_settled(slot);
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

    /// Puts a key without open obligations in the queue of those that may be forgotten. The mark says
    /// that it stands there.
    pub(super) fn queue_if_settled(&mut self, slot: u32) {
        if self.table.mark(slot) {
            return;
        }
        let Some(tally) = self.table.get(slot).map(Body::tally) else { return };
        if tally.open == 0 {
            self.table.set_mark(slot, true);
            let queue = if tally.bad > 0 { &mut self.settled_bad } else { &mut self.settled };
            queue.push_back(slot);
        }
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
                    self.refresh(slot, false, Look::Due, presence, watermark);
                }
            }
        }
    }

    /// Judges again what rested on silence, or on there being none, after signals came that it did
    /// not know of.
    pub(super) fn doubt(&mut self, doubt: Doubt, presence: &Presence, watermark: i64) {
        let (slots, look): (Vec<u32>, _) = if std::mem::take(&mut self.reconsider) || doubt.earlier
        {
            // That nothing forbidden came is fulfilled.
            match self.contract.kind {
                Kind::Absence => (self.table.slots().collect(), Look::All),
                _ => (self.bad.iter().copied().collect(), Look::All),
            }
        } else if doubt.late {
            (self.unknown.iter().copied().collect(), Look::Unknown)
        } else {
            return;
        };
        for slot in slots {
            self.refresh(slot, false, look, presence, watermark);
        }
    }

    /// Judges everything, at the end of the data.
    pub(super) fn finish(&mut self, presence: &Presence, watermark: i64) {
        self.due.clear();
        for slot in 0..self.table.end() {
            self.refresh(slot, true, Look::All, presence, watermark);
        }
    }

    /// What to judge by.
    pub(super) fn context<'a>(
        &self,
        watermark: i64,
        silent: &'a dyn Fn(Side, i64, i64) -> bool,
    ) -> Context<'a> {
        Context { watermark, edge: self.edge, silent }
    }

    /// From now on only obligations count, and are told, that were opened at `from` or later.
    pub(super) fn count_from(&mut self, from: i64) {
        self.counted_from = from;
        self.revision += 1;
        let context = Context { watermark: i64::MAX, edge: self.edge, silent: &|_, _, _| false };
        let (mut counts, mut timeline) = ([0; Verdict::ALL.len()], Timeline::default());
        for slot in self.table.slots() {
            for obligation in self.obligations_of(slot, &context) {
                counts[obligation.verdict as usize] += 1;
                timeline.note(obligation.judged.activated);
            }
        }
        (self.counts, self.timeline) = (counts, timeline);
        self.reached = self.counts;
        self.reached[Verdict::Open as usize] = 0;
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
