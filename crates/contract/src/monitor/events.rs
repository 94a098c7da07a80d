//! The events of a key, and what became of the obligations that they opened.

use std::ops::Range;

use lacuna_signal::finding::Verdict;

use super::codec::code;
use super::event::{Event, mismatch};
use super::judge::{self, Context, Judged};
use super::long::Long;
use super::state::{Look, Notes, Tally};
use crate::spec::{Contract, Kind, Per, Role};

/// The events of a key, each list in order of start and id.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) whens: Vec<Kept>,
    pub(super) expects: Vec<Kept>,
    pub(super) refusals: Vec<Event>,
    /// Of the obligation, where a key has one.
    pub(super) verdict: Option<Verdict>,
    pub(super) tally: Tally,
    pub(super) long: Option<Box<Long>>,
}

code!(Events { whens, expects, refusals, verdict, tally, long });

/// An event and, where every event has an obligation, what became of it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) event: Event,
    pub(super) verdict: Option<Verdict>,
}

code!(Kept { event, verdict });

/// So many events are looked through one by one.
const FEW: usize = 32;
/// Of a key with more obligations, only those are judged that something has changed for.
const MANY: usize = 8;

/// What of a key has a verdict of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obligations {
    Key,
    Whens,
    Expects,
}

pub(super) fn obligations(contract: &Contract) -> Obligations {
    match (contract.kind, contract.per) {
        (Kind::Precedence, _) => Obligations::Expects,
        (Kind::Balance, _) | (_, Per::Key) => Obligations::Key,
        (_, Per::Event) => Obligations::Whens,
    }
}

/// The place of the first that begins at `time` or later.
pub(super) fn place(list: &[Kept], time: i64) -> usize {
    list.partition_point(|kept| kept.event.start < time)
}

impl Events {
    /// Judges what `look` asks for, and what has become due since. `told` is told each verdict
    /// before and now.
    pub(super) fn judge(
        &mut self,
        contract: &Contract,
        context: &Context<'_>,
        look: Look,
        mut told: impl FnMut(Option<Verdict>, &Judged),
    ) {
        let side = obligations(contract);
        if side == Obligations::Key {
            let judged = match (contract.kind, self.whens.first()) {
                (Kind::Balance, _) => judge::balance(contract, self, context),
                (_, None) => None,
                (_, Some(when)) => Some(judge::activation(contract, self, &when.event, context)),
            };
            if let Some(judged) = judged {
                told(self.verdict, &judged);
                self.tally.change(self.verdict, judged.verdict);
                self.verdict = Some(judged.verdict);
            }
            return;
        }
        if let Some(long) = self.long.as_mut().filter(|_| side == Obligations::Whens) {
            long.pass_inert(&self.whens);
        }
        let [asked, due] = self.ranges(contract, side, context.watermark, look);
        for i in self.settled_ones(contract, side, look).into_iter().chain(asked).chain(due) {
            self.judge_one(contract, side, context, look, i, &mut told);
        }
        let many = self.list(side).len() > MANY;
        if let Some(long) = &mut self.long {
            long.settled_to = long.settled_to.max(context.watermark);
            if let (Obligations::Whens, Look::Event(Role::Expect, start, _)) = (side, look) {
                long.sort_unmet(&self.whens, start);
            }
        } else if many {
            // All have been judged just now.
            let settled_to = context.watermark;
            self.long = Some(Box::new(Long { settled_to, ..Long::default() }));
        }
    }

    /// The places of a response's settled activations that an event may yet change: any outcome and
    /// refusal those that had none, and what ends in time those that are late.
    fn settled_ones(&self, contract: &Contract, side: Obligations, look: Look) -> Vec<usize> {
        let (Look::Event(role, start, end), Some(long)) = (look, &self.long) else {
            return Vec::new();
        };
        if role == Role::When || side != Obligations::Whens || contract.kind != Kind::Response {
            return Vec::new();
        }
        let from = end.saturating_sub(contract.within.unwrap_or(0));
        let late = (role == Role::Expect && from <= start).then(|| long.late.range(from..=start));
        let starts = long.unmet.range(..=start).chain(late.into_iter().flatten());
        let places = starts
            .flat_map(|time| place(&self.whens, *time)..place(&self.whens, time.saturating_add(1)));
        places.filter(|place| *place < long.inert).collect()
    }

    fn list(&self, side: Obligations) -> &[Kept] {
        match side {
            Obligations::Expects => &self.expects,
            _ => &self.whens,
        }
    }

    fn judge_one(
        &mut self,
        contract: &Contract,
        side: Obligations,
        context: &Context<'_>,
        look: Look,
        i: usize,
        told: &mut impl FnMut(Option<Verdict>, &Judged),
    ) {
        let floor = self.long.as_ref().map_or(i64::MIN, |long| long.floor);
        let Some(Kept { event, verdict }) = self.list(side).get(i) else { return };
        let old = *verdict;
        if is_final(contract, old)
            || (event.start < floor && old.is_some_and(|v| v != Verdict::Open))
            || (matches!(look, Look::Unknown) && old.is_some_and(|v| v != Verdict::Unknown))
        {
            return;
        }
        let judged = match side {
            Obligations::Expects => judge::outcome(contract, self, event, old, context),
            _ => judge::activation(contract, self, event, context),
        };
        told(old, &judged);
        self.tally.change(old, judged.verdict);
        let list = match side {
            Obligations::Expects => &mut self.expects,
            _ => &mut self.whens,
        };
        if let Some(kept) = list.get_mut(i) {
            kept.verdict = Some(judged.verdict);
        }
    }

    /// The places of the obligations to judge: those that `look` asks for, and those that have
    /// become due.
    fn ranges(
        &self,
        contract: &Contract,
        side: Obligations,
        watermark: i64,
        look: Look,
    ) -> [Range<usize>; 2] {
        let list = self.list(side);
        let all = 0..list.len();
        let Some(long) = &self.long else { return [all, 0..0] };
        let Look::Event(role, start, end) = look else {
            return match look {
                Look::Due => [0..0, self.due(contract, side, long, watermark)],
                _ => [all, 0..0],
            };
        };
        let within = contract.within.unwrap_or(0);
        let from = |time| place(list, time);
        let to = |time: i64| place(list, time.saturating_add(1));
        let asked = match (side, role) {
            (Obligations::Expects, Role::When) => match contract.within {
                Some(within) => from(start)..to(start.saturating_add(within)),
                None => from(start)..list.len(),
            },
            (Obligations::Expects, _) | (_, Role::When) => from(start)..to(start),
            // What is open is met by what ends before its deadline.
            (_, Role::Expect) if contract.kind == Kind::Response => {
                let first = long.inert.max(from(end.saturating_sub(within)));
                first.min(to(start))..to(start)
            }
            (_, Role::Expect) => from(start.saturating_sub(within))..to(start),
            (_, Role::RefusedBy) => 0..0,
        };
        [asked, self.due(contract, side, long, watermark)]
    }

    /// The places of the obligations that have become due since the last time.
    fn due(
        &self,
        contract: &Contract,
        side: Obligations,
        long: &Long,
        watermark: i64,
    ) -> Range<usize> {
        let list = self.list(side);
        let within = match side {
            Obligations::Expects => 0,
            _ => contract.within.unwrap_or(0),
        };
        let after = |time: i64| place(list, time.saturating_sub(within).saturating_add(1));
        after(long.settled_to)..after(watermark)
    }

    /// Takes an event; `false` if it changes nothing.
    pub(super) fn add(
        &mut self,
        contract: &Contract,
        role: Role,
        event: Event,
        notes: &mut Notes,
    ) -> bool {
        if self.is_forgotten(contract, role, event.start) {
            notes.too_late += 1;
            return false;
        }
        if !contract.conditions.is_empty() {
            notes.mismatch = self.mismatch(contract, role, &event);
        }
        let kept = match role {
            Role::RefusedBy => {
                return insert(&mut self.refusals, event, |kept| kept, |event| event).is_some();
            }
            _ if contract.kind == Kind::Balance => {
                return self.add_to_balance(contract, role, event);
            }
            Role::Expect => insert_kept(&mut self.expects, event).is_some(),
            Role::When if self.first_will_do(contract) => return self.keep_first(event),
            Role::When => {
                let at = insert_kept(&mut self.whens, event);
                if let (Some(at), Some(long)) = (at, &mut self.long) {
                    long.look_again_from(at);
                }
                at.is_some()
            }
        };
        if !kept {
            notes.mismatch = None;
        }
        kept
    }

    /// Whether what such an event could have decided has been forgotten.
    fn is_forgotten(&self, contract: &Contract, role: Role, start: i64) -> bool {
        let Some(long) = &self.long else { return false };
        let needed = match (obligations(contract), role) {
            (Obligations::Key, _) => return false,
            (Obligations::Expects, Role::When) => match contract.within {
                Some(within) => long.floor.saturating_sub(within),
                None => return false,
            },
            _ => long.floor,
        };
        start < needed
    }

    /// Why the event cannot be compared with its likeliest partner, if it has one and cannot.
    fn mismatch(&self, contract: &Contract, role: Role, event: &Event) -> Option<String> {
        match role {
            Role::When => {
                let expects = self.expects.get(place(&self.expects, event.start)..)?;
                mismatch(contract, event, &expects.first()?.event)
            }
            Role::Expect => {
                let to = place(&self.whens, event.start.saturating_add(1));
                mismatch(contract, &self.whens.get(..to)?.last()?.event, event)
            }
            Role::RefusedBy => None,
        }
    }

    /// Whether the earliest activation or cause alone decides: of a key's one obligation, and where
    /// any earlier cause is enough.
    fn first_will_do(&self, contract: &Contract) -> bool {
        match obligations(contract) {
            Obligations::Key => true,
            Obligations::Whens => false,
            Obligations::Expects => contract.within.is_none() && contract.conditions.is_empty(),
        }
    }

    /// Keeps only the first activation.
    fn keep_first(&mut self, event: Event) -> bool {
        match self.whens.first_mut() {
            Some(first) if (first.event.start, first.event.id) <= (event.start, event.id) => false,
            Some(first) => {
                first.event = event;
                true
            }
            None => {
                self.whens.reserve_exact(1);
                self.whens.push(Kept { event, verdict: None });
                true
            }
        }
    }

    /// Both sides are looked at from the key's first event on for as long as the contract says.
    /// That event can only become an earlier one, so what lies behind never counts.
    fn add_to_balance(&mut self, contract: &Contract, role: Role, event: Event) -> bool {
        let (start, within) = (event.start, contract.within.unwrap_or(0));
        let first = self.first();
        if first.is_some_and(|first| start > first.saturating_add(within)) {
            return false;
        }
        let list = if role == Role::When { &mut self.whens } else { &mut self.expects };
        if insert_kept(list, event).is_none() {
            return false;
        }
        if first.is_some_and(|first| start < first) {
            let deadline = start.saturating_add(within).saturating_add(1);
            for list in [&mut self.whens, &mut self.expects] {
                list.truncate(place(list, deadline));
            }
        }
        true
    }

    /// Start of the first event of either side.
    pub(super) fn first(&self) -> Option<i64> {
        let first = |list: &[Kept]| Some(list.first()?.event.start);
        first(&self.whens).into_iter().chain(first(&self.expects)).min()
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>()
            + (self.whens.capacity() + self.expects.capacity()) * size_of::<Kept>()
            + self.refusals.capacity() * size_of::<Event>()
            + self.long.as_ref().map_or(0, |long| size_of::<Long>() + long.late.len() * 12)
    }
}

/// Whether an obligation that an event of its own opened keeps its verdict, whatever comes: more
/// outcomes cannot take a fulfilled response back, nor a duplicate or a forbidden outcome.
fn is_final(contract: &Contract, verdict: Option<Verdict>) -> bool {
    match contract.kind {
        Kind::Response | Kind::Precedence => verdict == Some(Verdict::Fulfilled),
        Kind::Exactly { .. } => verdict == Some(Verdict::Duplicate),
        Kind::Absence => verdict == Some(Verdict::Forbidden),
        _ => false,
    }
}

fn insert_kept(list: &mut Vec<Kept>, event: Event) -> Option<usize> {
    insert(list, event, |kept| &kept.event, |event| Kept { event, verdict: None })
}

/// Puts an event in its place, and says which; `None` if it is there already.
fn insert<T>(
    list: &mut Vec<T>,
    event: Event,
    of: impl Fn(&T) -> &Event,
    make: impl FnOnce(Event) -> T,
) -> Option<usize> {
    let order = (event.start, event.id);
    // By the id alone, where that is cheap: a clock may have been set right in between.
    if list.len() <= FEW && list.iter().any(|kept| of(kept).id == event.id) {
        return None;
    }
    let at = list.partition_point(|kept| (of(kept).start, of(kept).id) < order);
    if list.get(at).is_some_and(|kept| (of(kept).start, of(kept).id) == order) {
        return None;
    }
    if list.capacity() == 0 {
        // Most keys have one.
        list.reserve_exact(1);
    }
    list.insert(at, make(event));
    Some(at)
}
