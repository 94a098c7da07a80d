//! The meaning of contracts: what became of an obligation, given the events of its key.
//!
//! Everything here is a function of events and of the watermark, never of the order in which the
//! events came: that makes live monitoring and history one and the same.

use lacuna_signal::finding::Verdict;

use super::amount::Sum;
use super::event::{Event, pair};
use super::events::{Events, place};
use super::windows::Window;
use crate::spec::{Contract, Kind};

/// Up to where the data is known, and whether evidence was arriving.
pub(super) struct Context<'a> {
    /// Event time up to which everything is taken to have arrived.
    pub(super) watermark: i64,
    /// What began before may be unknown; `i64::MIN` if nothing is known to be.
    pub(super) edge: i64,
    /// Whether a side's services were silent over a span, though they were not before.
    pub(super) silent: &'a dyn Fn(Side, i64, i64) -> bool,
}

/// How long before an outcome its cause is looked for beyond the edge of what is known, where the
/// contract does not say.
const REACH: i64 = 24 * 3_600_000_000_000;

/// Whose silence is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    When,
    Expect,
}

/// What became of one obligation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) activated: i64,
    /// When it is, or was, to be decided at the latest.
    pub(super) deadline: i64,
    pub(super) resolved: Option<i64>,
}

impl Judged {
    pub(super) fn new(verdict: Verdict, activated: i64, deadline: i64, resolved: i64) -> Self {
        let resolved = (verdict != Verdict::Open).then_some(resolved);
        Self { verdict, activated, deadline, resolved }
    }
}

/// The obligation that `when` opened.
pub(super) fn activation(
    contract: &Contract,
    events: &Events,
    when: &Event,
    context: &Context<'_>,
) -> Judged {
    let start = when.start;
    let deadline = start.saturating_add(contract.within.unwrap_or(0));
    let judged = |verdict, resolved| Judged::new(verdict, start, deadline, resolved);
    let from = place(&events.expects, start);
    let mut pairs = events.expects[from..]
        .iter()
        .map(|expect| &expect.event)
        .filter(|expect| pair(&contract.conditions, when, expect));
    let due = context.watermark >= deadline;
    let unless_silent = |verdict| {
        let silent = (context.silent)(Side::Expect, start, deadline);
        judged(if silent { Verdict::Unknown } else { verdict }, deadline)
    };
    match contract.kind {
        Kind::Absence => match pairs.next().filter(|expect| expect.start <= deadline) {
            Some(expect) => judged(Verdict::Forbidden, expect.start),
            None if !due => judged(Verdict::Open, deadline),
            None => unless_silent(Verdict::Fulfilled),
        },
        Kind::Exactly { count } => {
            let count = count as usize;
            let mut seen = 0;
            for expect in pairs.take_while(|expect| expect.start <= deadline) {
                seen += 1;
                if seen > count {
                    return judged(Verdict::Duplicate, expect.start);
                }
            }
            match seen {
                _ if !due => judged(Verdict::Open, deadline),
                seen if seen == count => judged(Verdict::Fulfilled, deadline),
                0 => unless_silent(Verdict::Missed),
                _ => judged(Verdict::Missed, deadline),
            }
        }
        _ => {
            let first = first_end(pairs);
            match first {
                Some(end) if end <= deadline => judged(Verdict::Fulfilled, end),
                _ if !due => judged(Verdict::Open, deadline),
                Some(end) => judged(Verdict::Late, end),
                None if events.refusals.last().is_some_and(|refusal| refusal.start >= start) => {
                    judged(Verdict::Refused, deadline)
                }
                None => unless_silent(Verdict::Missed),
            }
        }
    }
}

/// The least end of events in order of their start.
fn first_end<'e>(events: impl Iterator<Item = &'e Event>) -> Option<i64> {
    let mut first = None;
    for event in events {
        if first.is_some_and(|first| first <= event.start) {
            // Nothing ends before it starts.
            break;
        }
        first = Some(first.map_or(event.end, |first: i64| first.min(event.end)));
    }
    first
}

/// The outcome `expect`, which needs an earlier cause; `old` is its verdict so far.
pub(super) fn outcome(
    contract: &Contract,
    events: &Events,
    expect: &Event,
    old: Option<Verdict>,
    context: &Context<'_>,
) -> Judged {
    let start = expect.start;
    let earliest = contract.within.map_or(i64::MIN, |within| start.saturating_sub(within));
    let caused = events.whens[place(&events.whens, earliest)..]
        .iter()
        .map(|when| &when.event)
        .take_while(|when| when.start <= start)
        .any(|when| pair(&contract.conditions, when, expect));
    // The outcome itself came, so its own signal was there: that its cause's was not is no reason
    // to doubt. What was forgotten since the outcome came was not a cause of it.
    let reach = start.saturating_sub(contract.within.unwrap_or(REACH));
    let lost = reach < context.edge && old != Some(Verdict::Phantom);
    let verdict = match caused {
        true => Verdict::Fulfilled,
        false if context.watermark < start => Verdict::Open,
        false if lost => Verdict::Unknown,
        false => Verdict::Phantom,
    };
    Judged::new(verdict, start, start, start)
}

/// When a balance begins and is due, if it has an event.
fn balance_times(contract: &Contract, events: &Events) -> Option<(i64, i64)> {
    let first = events.first()?;
    Some((first, first.saturating_add(contract.within.unwrap_or(0))))
}

/// Both sides' figures over the time that a balance looks at.
pub(super) fn figures(contract: &Contract, events: &Events) -> Option<(Sum, Sum)> {
    let (_, deadline) = balance_times(contract, events)?;
    let [mut left, mut right] =
        events.long.as_ref().map_or([Sum::default(); 2], |long| long.folded);
    for (list, sum) in [(&events.whens, &mut left), (&events.expects, &mut right)] {
        let within = list.iter().take_while(|kept| kept.event.start <= deadline);
        within.for_each(|kept| sum.add(kept.event.amount()));
    }
    Some((left, right))
}

/// A key's balance; `None` if it has no event.
pub(super) fn balance(
    contract: &Contract,
    events: &Events,
    context: &Context<'_>,
) -> Option<Judged> {
    let (first, deadline) = balance_times(contract, events)?;
    // What began before the edge may be missing on either side.
    let cut = first.saturating_sub(contract.within.unwrap_or(0)) < context.edge;
    let judged = |verdict| {
        let unknown = cut && verdict == Verdict::Unbalanced;
        let verdict = if unknown { Verdict::Unknown } else { verdict };
        Judged::new(verdict, first, deadline, deadline)
    };
    if context.watermark < deadline {
        return Some(judged(Verdict::Open));
    }
    let (left, right) = figures(contract, events)?;
    if left.agrees(&right) {
        return Some(judged(Verdict::Fulfilled));
    }
    let none = events.expects.first().is_none_or(|kept| kept.event.start > deadline);
    let unknown = none && (context.silent)(Side::Expect, first, deadline);
    Some(judged(if unknown { Verdict::Unknown } else { Verdict::Unbalanced }))
}

/// Whether the services that the cause comes from were silent over the time in which it was looked
/// for, though they were not before. That changes no verdict, but is worth being told.
pub(super) fn cause_was_silent(
    contract: &Contract,
    judged: &Judged,
    context: &Context<'_>,
) -> bool {
    let (from, to) = match (judged.verdict, contract.within) {
        (Verdict::Phantom, Some(within)) => {
            (judged.activated.saturating_sub(within), judged.activated)
        }
        (Verdict::Unbalanced, Some(_)) => (judged.activated, judged.deadline),
        _ => return false,
    };
    (context.silent)(Side::When, from, to)
}

/// A heartbeat's window from `from` on; `None` if it has no cause, which says nothing.
pub(super) fn window(
    contract: &Contract,
    from: i64,
    window: &Window,
    context: &Context<'_>,
) -> Option<Judged> {
    let Kind::Heartbeat { at_least } = contract.kind else { return None };
    let first = window.first?;
    let end = from.saturating_add(contract.within.unwrap_or(0));
    let judged = |verdict, resolved| Judged::new(verdict, first, end, resolved);
    Some(if window.seen.len() >= at_least as usize {
        judged(Verdict::Fulfilled, end)
    } else if context.watermark < end {
        judged(Verdict::Open, end)
    } else if window.seen.is_empty() && (context.silent)(Side::Expect, from, end) {
        judged(Verdict::Unknown, end)
    } else {
        judged(Verdict::Missed, end)
    })
}
