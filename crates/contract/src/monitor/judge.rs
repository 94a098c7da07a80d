//! The meaning of contracts: what became of an obligation, given the events of its key.
//!
//! Everything here is a function of events and of the watermark, never of the order in which the
//! events came: that makes live monitoring and history one and the same.

use lacuna_signal::finding::Verdict;

use super::event::{Event, pair};
use super::state::Events;
use super::windows::Window;
use crate::spec::{Contract, Kind};

/// Up to where the data is known, and whether evidence was arriving.
pub(super) struct Context<'a> {
    /// Event time up to which everything is taken to have arrived.
    pub(super) watermark: i64,
    /// Whether a side's services were silent over a span, though they were not before.
    pub(super) silent: &'a dyn Fn(Side, i64, i64) -> bool,
}

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
    let from = events.expects.partition_point(|expect| expect.event.start < start);
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
            let first = pairs.map(|expect| expect.end).min();
            match first {
                Some(end) if end <= deadline => judged(Verdict::Fulfilled, end),
                _ if !due => judged(Verdict::Open, deadline),
                Some(end) => judged(Verdict::Late, end),
                None if events.refusals.iter().any(|refusal| refusal.start >= start) => {
                    judged(Verdict::Refused, deadline)
                }
                None => unless_silent(Verdict::Missed),
            }
        }
    }
}

/// The outcome `expect`, which needs an earlier cause.
pub(super) fn outcome(
    contract: &Contract,
    events: &Events,
    expect: &Event,
    context: &Context<'_>,
) -> Judged {
    let start = expect.start;
    let earliest = contract.within.map_or(i64::MIN, |within| start.saturating_sub(within));
    let caused = events
        .whens
        .iter()
        .map(|when| &when.event)
        .take_while(|when| when.start <= start)
        .any(|when| when.start >= earliest && pair(&contract.conditions, when, expect));
    let verdict = match caused {
        true => Verdict::Fulfilled,
        false if context.watermark < start => Verdict::Open,
        false => Verdict::Phantom,
    };
    Judged::new(verdict, start, start, start)
}

/// Both sides' figures over the time that a balance looks at.
pub(super) fn figures(contract: &Contract, events: &Events) -> Option<(i64, f64, f64)> {
    let first = [&events.whens, &events.expects]
        .into_iter()
        .filter_map(|list| Some(list.first()?.event.start))
        .min()?;
    let deadline = first.saturating_add(contract.within.unwrap_or(0));
    let sum = |list: &[super::state::Kept]| {
        list.iter()
            .take_while(|kept| kept.event.start <= deadline)
            .map(|kept| kept.event.amount)
            .sum::<f64>()
    };
    Some((first, sum(&events.whens), sum(&events.expects)))
}

/// A key's balance; `None` if it has no event.
pub(super) fn balance(
    contract: &Contract,
    events: &Events,
    context: &Context<'_>,
) -> Option<Judged> {
    let (first, left, right) = figures(contract, events)?;
    let deadline = first.saturating_add(contract.within.unwrap_or(0));
    let judged = |verdict| Judged::new(verdict, first, deadline, deadline);
    // Sums of decimal amounts in binary differ in their last bits.
    let equal = (left - right).abs() <= 1e-9 * left.abs().max(right.abs());
    Some(if context.watermark < deadline {
        judged(Verdict::Open)
    } else if equal {
        judged(Verdict::Fulfilled)
    } else {
        let none = |list: &[super::state::Kept]| {
            list.first().is_none_or(|kept| kept.event.start > deadline)
        };
        let silent = |side, list: &[super::state::Kept]| {
            none(list) && (context.silent)(side, first, deadline)
        };
        let unknown = silent(Side::When, &events.whens) || silent(Side::Expect, &events.expects);
        judged(if unknown { Verdict::Unknown } else { Verdict::Unbalanced })
    })
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
