//! The windows of a heartbeat.

use std::collections::BTreeMap;

use lacuna_signal::TraceId;
use lacuna_signal::finding::Verdict;

use super::codec::code;
use super::event::Event;
use super::state::{Dropped, MAX_EVENTS};
use crate::spec::{Contract, Kind, Role};

/// One window of a heartbeat.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Start of the first cause.
    pub(super) first: Option<i64>,
    pub(super) trace: Option<TraceId>,
    /// Outcomes, up to as many as are needed.
    pub(super) seen: Vec<u64>,
    pub(super) verdict: Option<Verdict>,
}

code!(Window { first, trace, seen, verdict });

/// Takes an event; `false` if it changes nothing.
pub(super) fn add_to_window(
    windows: &mut BTreeMap<i64, Window>,
    contract: &Contract,
    role: Role,
    event: Event,
    dropped: &mut Dropped,
) -> bool {
    let Kind::Heartbeat { at_least } = contract.kind else { return false };
    let every = contract.within.unwrap_or(1).max(1);
    let from = event.start.div_euclid(every).saturating_mul(every);
    if windows.len() >= MAX_EVENTS {
        // What is older than all that is kept was given up before.
        if windows.first_key_value().is_some_and(|(oldest, _)| from < *oldest) {
            return false;
        }
        if !windows.contains_key(&from) {
            let gone = windows.pop_first().and_then(|(_, window)| window.verdict);
            dropped.events += 1;
            dropped.open += u64::from(gone == Some(Verdict::Open));
        }
    }
    let window = windows.entry(from).or_default();
    match role {
        Role::When => {
            let earlier = window.first.is_none_or(|first| event.start < first);
            if earlier {
                window.first = Some(event.start);
                window.trace = event.trace;
            }
            earlier
        }
        Role::Expect => {
            let new = window.seen.len() < at_least as usize && !window.seen.contains(&event.id);
            if new {
                window.seen.push(event.id);
            }
            new
        }
        Role::RefusedBy => false,
    }
}
