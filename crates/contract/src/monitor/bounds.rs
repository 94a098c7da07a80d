//! What a contract gives up to stay within bounds, and what it remembers of that.

use lacuna_signal::finding::Verdict;

use super::events::{Obligations, obligations};
use super::machine::{BUCKET, Machine};
use super::prune::newest_cause;
use super::state::{Body, Notes};
use crate::spec::Kind;

impl Machine {
    fn lose_open(&mut self, count: u64) {
        let open = &mut self.counts[Verdict::Open as usize];
        *open = open.saturating_sub(count);
    }

    pub(super) fn take_note(&mut self, slot: u32, notes: Notes) {
        let stats = &mut self.stats;
        stats.dropped += notes.dropped;
        stats.evicted_open += notes.open;
        stats.folded += notes.folded;
        stats.too_late += notes.too_late;
        if let Some(mismatch) = notes.mismatch {
            stats.incomparable += 1;
            stats.mismatch = Some(mismatch.into());
        }
        self.lose_open(notes.open);
        self.lose_causes(notes.causes_to);
        if !notes.forgotten.is_empty() {
            self.forget_bad(notes.forgotten);
            let tally = self.table.get(slot).map(Body::tally).unwrap_or_default();
            if tally.bad == 0 {
                self.bad.remove(&slot);
            }
            if tally.unknown == 0 {
                self.unknown.remove(&slot);
            }
        }
    }

    /// The data begins at `first`: for a contract that takes what lies before for unknown, an edge.
    /// Once it is told it stays, so that what is judged by it does.
    pub(super) fn begin(&mut self, first: i64) {
        if self.contract.unknown_before_data && self.edge == i64::MIN && first < i64::MAX {
            self.edge = first;
        }
    }

    /// Causes up to `time` were forgotten.
    fn lose_causes(&mut self, time: i64) {
        if time > i64::MIN && self.contract.kind == Kind::Precedence {
            self.edge = self.edge.max(time.saturating_add(1));
        }
    }

    /// Remembers of obligations that are not fulfilled, and no longer kept, when they were.
    fn forget_bad(&mut self, obligations: Vec<(Verdict, i64)>) {
        self.revision += 1;
        self.changed = true;
        for (verdict, activated) in obligations {
            let span = self.forgotten.entry(verdict).or_insert((activated, activated));
            *span = (span.0.min(activated), span.1.max(activated));
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
            let obligations = self.activations(slot);
            self.forget_bad(obligations);
        }
        if let Some(Body::Events(events)) = self.table.get(slot) {
            self.lose_causes(newest_cause(events));
        }
        self.bad.remove(&slot);
        self.unknown.remove(&slot);
        self.table.remove(slot);
        self.changed = true;
    }

    /// Gives up open obligations of one key, those due first and `most` at most, which is not 0; how
    /// many it gave up, 0 if nothing is open.
    pub(super) fn evict_open(&mut self, most: u64) -> u64 {
        while let Some(mut bucket) = self.due.first_entry() {
            let at = *bucket.key();
            let Some(slot) = bucket.get_mut().pop() else {
                bucket.remove();
                continue;
            };
            // The key may have been forgotten since, and its number be another one's.
            let gone = self.evict_of(slot, at, most);
            if gone > 0 {
                self.lose_open(gone);
                self.stats.evicted_open += gone;
                self.changed = true;
                return gone;
            }
        }
        0
    }

    /// Gives up open obligations of a key that are due in a bucket. What else is known of the key
    /// stays, if there is anything.
    fn evict_of(&mut self, slot: u32, bucket: i64, most: u64) -> u64 {
        let contract = self.contract.clone();
        let due = |deadline: i64| deadline >> BUCKET == bucket;
        let (gone, empty) = match self.table.get_mut(slot) {
            Some(Body::Windows(windows)) => windows.give_up(&contract, due, most),
            Some(Body::Events(events)) if obligations(&contract) != Obligations::Key => {
                events.give_up(&contract, due, most)
            }
            _ => (u64::from(self.is_due_in(slot, bucket)), true),
        };
        if gone == 0 {
            return 0;
        }
        if empty {
            self.forget(slot);
        } else {
            self.queue_if_settled(slot);
        }
        gone
    }

    /// Whether an open obligation of the key has its deadline in the bucket.
    fn is_due_in(&self, slot: u32, bucket: i64) -> bool {
        let obligations = self.obligations_of(slot, &self.context(i64::MIN, &|_, _, _| false));
        let mut open = obligations.iter().filter(|o| o.verdict == Verdict::Open);
        open.any(|obligation| obligation.judged.deadline >> BUCKET == bucket)
    }
}
