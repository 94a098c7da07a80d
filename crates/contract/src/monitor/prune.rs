//! What a key with many events may forget.
//!
//! What is settled, and older than twice the deadline and an allowance for late arrivals, can only be
//! changed by what comes later than that: it is counted, and not kept. Beyond the bound, what is
//! older goes too; that is told.

use lacuna_signal::finding::Verdict;

use super::event::pair;
use super::events::{Events, Kept, Obligations, obligations, place};
use super::state::{Limits, Notes};
use crate::spec::{Contract, Kind};

/// With fewer events of a side nothing is let go; of what is not fulfilled, so many are kept.
const PRUNE: usize = 1_024;
/// Refusals that are kept: the newest decide.
const REFUSALS: usize = 64;

pub(super) fn prune(events: &mut Events, contract: &Contract, limits: &Limits, notes: &mut Notes) {
    let most =
        |events: &Events| events.whens.len().max(events.expects.len()).max(events.refusals.len());
    let before = most(events);
    let bound = PRUNE.min(limits.max_events);
    if before <= bound || events.long.as_ref().is_some_and(|long| before <= long.prune_at) {
        return;
    }
    let side = obligations(contract);
    if limits.known_to > i64::MIN {
        let within = contract.within.unwrap_or(0);
        let horizon = limits.known_to.saturating_sub(within.saturating_mul(2));
        match side {
            Obligations::Key if contract.kind == Kind::Balance => {}
            Obligations::Key => decided(events, contract, horizon),
            _ => settled(events, contract, side, horizon, notes),
        }
        let refusals = events.refusals.len().saturating_sub(REFUSALS);
        events.refusals.drain(..refusals);
    }
    if most(events) > limits.max_events {
        force(events, contract, side, limits.max_events / 2, notes);
    }
    let prune_at = bound.max(most(events).saturating_mul(2)).min(limits.max_events);
    let long = events.long.get_or_insert_with(Box::default);
    long.prune_at = prune_at;
}

/// Of the outcomes of a key's one obligation, keeps those that may decide it. Its activation can
/// only become an earlier one.
fn decided(events: &mut Events, contract: &Contract, horizon: i64) {
    let Some(when) = events.whens.first().map(|kept| kept.event.clone()) else {
        events.expects.drain(..place(&events.expects, horizon));
        return;
    };
    let deadline = when.start.saturating_add(contract.within.unwrap_or(0));
    let bounded = matches!(contract.kind, Kind::Exactly { .. } | Kind::Absence);
    let enough = match contract.kind {
        Kind::Exactly { count } => PRUNE / 2 + count as usize,
        _ => PRUNE / 2,
    };
    let pairs = |kept: &Kept| {
        kept.event.start >= when.start && pair(&contract.conditions, &when, &kept.event)
    };
    let first = events.expects.iter().filter(|kept| pairs(kept)).map(|kept| kept.event.end).min();
    let (mut seen, mut found) = (0, false);
    events.expects.retain(|kept| {
        let event = &kept.event;
        if bounded && event.start > deadline {
            return false;
        }
        if !pairs(kept) {
            return event.start >= horizon;
        }
        seen += 1;
        let best = !bounded && !found && Some(event.end) == first;
        found |= best;
        best || seen <= enough || (!contract.conditions.is_empty() && event.start >= horizon)
    });
}

/// Forgets obligations that were settled long ago, but not those that are not fulfilled, unless
/// there are many; and the events that decided them.
fn settled(
    events: &mut Events,
    contract: &Contract,
    side: Obligations,
    horizon: i64,
    notes: &mut Notes,
) {
    let (list, others, tally) = match side {
        Obligations::Expects => (&mut events.expects, &mut events.whens, &mut events.tally),
        _ => (&mut events.whens, &mut events.expects, &mut events.tally),
    };
    let old = place(list, horizon);
    let bad =
        |kept: &Kept| !matches!(kept.verdict, None | Some(Verdict::Fulfilled | Verdict::Open));
    let mut spare = list[..old].iter().filter(|kept| bad(kept)).count().saturating_sub(PRUNE / 2);
    let mut at = 0;
    list.retain(|kept| {
        at += 1;
        match kept.verdict {
            _ if at > old => true,
            None | Some(Verdict::Open) => true,
            Some(Verdict::Fulfilled) => false,
            Some(verdict) if spare > 0 => {
                spare -= 1;
                notes.forgotten.push((verdict, kept.event.start));
                tally.forget(verdict);
                false
            }
            Some(_) => true,
        }
    });
    match (side, contract.within) {
        (Obligations::Expects, None) => {}
        (Obligations::Expects, Some(within)) => {
            others.drain(..place(others, horizon.saturating_sub(within)));
        }
        _ => {
            others.drain(..place(others, horizon));
        }
    }
    raise_floor(events, horizon);
}

fn raise_floor(events: &mut Events, floor: i64) {
    events.long.get_or_insert_with(Box::default).raise_floor(floor);
}

/// Keeps the newest `keep` events of a side, whatever becomes of the others.
fn force(
    events: &mut Events,
    contract: &Contract,
    side: Obligations,
    keep: usize,
    notes: &mut Notes,
) {
    if contract.kind == Kind::Balance {
        return fold(events, keep, notes);
    }
    let refusals = events.refusals.len().saturating_sub(keep);
    events.refusals.drain(..refusals);
    if side == Obligations::Key {
        let gone = events.expects.len().saturating_sub(keep);
        events.expects.drain(..gone);
        notes.dropped += gone as u64;
        return;
    }
    let surplus = |list: &[Kept]| list.len().saturating_sub(keep);
    let from = if side == Obligations::Expects {
        let gone = surplus(&events.whens);
        if let Some(last) = events.whens.drain(..gone).next_back() {
            notes.causes_to = notes.causes_to.max(last.event.start);
            notes.dropped += gone as u64;
        }
        surplus(&events.expects)
    } else {
        // An activation is judged by what begins after it: one goes with the other.
        let gone = surplus(&events.expects);
        events.expects.drain(..gone);
        notes.dropped += gone as u64;
        let first = events.expects.first().filter(|_| gone > 0).map(|kept| kept.event.start);
        surplus(&events.whens).max(first.map_or(0, |first| place(&events.whens, first)))
    };
    let list = if side == Obligations::Expects { &mut events.expects } else { &mut events.whens };
    for kept in list.drain(..from) {
        match kept.verdict {
            Some(Verdict::Open) => notes.open += 1,
            Some(verdict) => {
                notes.dropped += 1;
                if verdict != Verdict::Fulfilled {
                    notes.forgotten.push((verdict, kept.event.start));
                }
            }
            None => notes.dropped += 1,
        }
        if let Some(verdict) = kept.verdict {
            events.tally.forget(verdict);
        }
    }
    if let Some(first) = list.first().map(|kept| kept.event.start) {
        raise_floor(events, first);
    }
}

/// Adds the oldest events of a balance up, all but the first, which says when it is due. What they
/// were is forgotten, so one of them that came again would count twice.
fn fold(events: &mut Events, keep: usize, notes: &mut Notes) {
    let long = events.long.get_or_insert_with(Box::default);
    for (list, sum) in [&mut events.whens, &mut events.expects].into_iter().zip(&mut long.folded) {
        let gone = list.len().saturating_sub(keep.max(1));
        if gone > 0 {
            list.drain(1..=gone).for_each(|kept| sum.add(kept.event.amount()));
            notes.folded += gone as u64;
        }
    }
}

impl Events {
    /// Gives up open obligations whose deadline is `due`, the oldest first and `most` at most: how many
    /// it were, and whether no obligation is left that could have been told of by its activation.
    pub(super) fn give_up(
        &mut self,
        contract: &Contract,
        due: impl Fn(i64) -> bool,
        most: u64,
    ) -> (u64, bool) {
        let (list, within) = match obligations(contract) {
            Obligations::Expects => (&mut self.expects, 0),
            _ => (&mut self.whens, contract.within.unwrap_or(0)),
        };
        let mut gone = 0;
        list.retain(|kept| {
            let open = kept.verdict == Some(Verdict::Open);
            let goes = gone < most && open && due(kept.event.start.saturating_add(within));
            gone += u64::from(goes);
            !goes
        });
        (0..gone).for_each(|_| self.tally.forget(Verdict::Open));
        (gone, self.whens.is_empty() && obligations(contract) == Obligations::Whens)
    }
}

/// The start of the newest cause that a key of a precedence has.
pub(super) fn newest_cause(events: &Events) -> i64 {
    events.whens.last().map_or(i64::MIN, |kept| kept.event.start)
}
