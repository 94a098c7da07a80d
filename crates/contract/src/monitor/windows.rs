//! The windows of a heartbeat.

use std::collections::BTreeMap;

use lacuna_signal::TraceId;
use lacuna_signal::finding::Verdict;

use super::codec::code;
use super::event::Event;
use super::judge::{self, Context, Judged};
use super::state::{Limits, Look, Notes, Tally};
use crate::spec::{Contract, Kind, Role};

/// With fewer windows nothing is let go; of those that are not fulfilled, half as many are kept.
const PRUNE: usize = 1_024;

/// The windows of a key by their start.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) windows: BTreeMap<i64, Window>,
    pub(super) tally: Tally,
    /// Windows that begin before are final, or forgotten.
    floor: i64,
    /// What was due by then has been judged.
    settled_to: i64,
    prune_at: u32,
}

code!(Windows { windows, tally, floor, settled_to, prune_at });

impl Default for Windows {
    fn default() -> Self {
        Self {
            windows: BTreeMap::new(),
            tally: Tally::default(),
            floor: i64::MIN,
            settled_to: i64::MIN,
            prune_at: 0,
        }
    }
}

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

fn every(contract: &Contract) -> i64 {
    contract.within.unwrap_or(1).max(1)
}

/// The start of the window of `time`.
fn window_of(contract: &Contract, time: i64) -> i64 {
    let every = every(contract);
    time.div_euclid(every).saturating_mul(every)
}

impl Windows {
    /// Takes an event; `false` if it changes nothing.
    pub(super) fn add(
        &mut self,
        contract: &Contract,
        role: Role,
        event: Event,
        notes: &mut Notes,
    ) -> bool {
        let Kind::Heartbeat { at_least } = contract.kind else { return false };
        let from = window_of(contract, event.start);
        if from < self.floor {
            notes.too_late += 1;
            return false;
        }
        let window = self.windows.entry(from).or_default();
        match role {
            Role::When => {
                let earlier = window.first.is_none_or(|first| event.start < first);
                if earlier {
                    window.first = Some(event.start);
                    window.trace = event.trace();
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

    /// Judges what `look` asks for, and what has become due since.
    pub(super) fn judge(
        &mut self,
        contract: &Contract,
        context: &Context<'_>,
        look: Look,
        mut told: impl FnMut(Option<Verdict>, &Judged),
    ) {
        let Self { windows, tally, .. } = self;
        let mut judge = |from: i64, window: &mut Window| {
            if let Some(judged) = judge::window(contract, from, window, context) {
                told(window.verdict, &judged);
                tally.change(window.verdict, judged.verdict);
                window.verdict = Some(judged.verdict);
            }
        };
        let floor = self.floor;
        match look {
            Look::All => {
                windows.range_mut(floor..).for_each(|(from, window)| judge(*from, window));
            }
            Look::Unknown => {
                let unknown = |window: &Window| window.verdict == Some(Verdict::Unknown);
                let unknown = windows.range_mut(floor..).filter(|(_, window)| unknown(window));
                unknown.for_each(|(from, window)| judge(*from, window));
            }
            Look::Event(_, start, _) => {
                let from = window_of(contract, start);
                windows.get_mut(&from).into_iter().for_each(|window| judge(from, window));
            }
            Look::Due => {}
        }
        if context.watermark > self.settled_to {
            let after = |time: i64| time.saturating_sub(every(contract)).saturating_add(1);
            let due = after(self.settled_to).max(floor)..after(context.watermark).max(floor);
            windows.range_mut(due).for_each(|(from, window)| judge(*from, window));
            self.settled_to = context.watermark;
        }
    }

    /// Lets go of windows that were settled long ago, and of older ones if there are more than may
    /// be.
    pub(super) fn prune(&mut self, contract: &Contract, limits: &Limits, notes: &mut Notes) {
        let len = self.windows.len();
        let bound = PRUNE.min(limits.max_events);
        if len <= bound || len <= self.prune_at as usize {
            return;
        }
        if limits.known_to > i64::MIN {
            let horizon = limits.known_to.saturating_sub(every(contract).saturating_mul(2));
            let bad = |verdict| !matches!(verdict, None | Some(Verdict::Fulfilled | Verdict::Open));
            let old = || self.windows.range(..horizon);
            let all = old().filter(|(_, window)| bad(window.verdict)).count();
            let mut spare = all.saturating_sub(PRUNE / 2);
            let tally = &mut self.tally;
            self.windows.retain(|from, window| match window.verdict {
                _ if *from >= horizon => true,
                Some(Verdict::Open) => true,
                None | Some(Verdict::Fulfilled) => false,
                Some(verdict) => {
                    let keep = spare == 0;
                    if !keep {
                        spare -= 1;
                        tally.forget(verdict);
                        notes.forgotten.push((verdict, window.first.unwrap_or(*from)));
                    }
                    keep
                }
            });
            self.floor = self.floor.max(horizon);
        }
        if self.windows.len() > limits.max_events {
            while self.windows.len() > limits.max_events / 2 {
                let Some((from, window)) = self.windows.pop_first() else { break };
                self.floor = self.floor.max(from.saturating_add(1));
                let Some(verdict) = window.verdict else { continue };
                self.tally.forget(verdict);
                match verdict {
                    Verdict::Open => notes.open += 1,
                    Verdict::Fulfilled => notes.dropped += 1,
                    _ => {
                        notes.dropped += 1;
                        notes.forgotten.push((verdict, window.first.unwrap_or(from)));
                    }
                }
            }
        }
        let next = bound.max(self.windows.len().saturating_mul(2)).min(limits.max_events);
        self.prune_at = u32::try_from(next).unwrap_or(u32::MAX);
    }

    /// Gives up open windows whose end is `due`, the oldest first and `most` at most: how many it were,
    /// and whether none is left. What comes for them later is too late.
    pub(super) fn give_up(
        &mut self,
        contract: &Contract,
        due: impl Fn(i64) -> bool,
        most: u64,
    ) -> (u64, bool) {
        let is_open = |window: &Window| window.verdict == Some(Verdict::Open);
        let open = self.windows.iter().filter(|(from, window)| {
            is_open(window) && due(from.saturating_add(contract.within.unwrap_or(0)))
        });
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let gone: Vec<i64> = open.map(|(from, _)| *from).take(most).collect();
        for from in &gone {
            self.windows.remove(from);
            self.tally.forget(Verdict::Open);
            self.floor = self.floor.max(from.saturating_add(1));
        }
        // An empty one stays: it knows what is too late.
        (gone.len() as u64, false)
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.windows.len() * (size_of::<Window>() + 24)
    }
}
