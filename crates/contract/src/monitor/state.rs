//! What is kept of one key.

use std::collections::BTreeMap;

use lacuna_signal::finding::Verdict;

use super::codec::code;
use super::event::Event;
use super::judge::{self, Context, Judged};
use super::small::{self, Orphan, Small, Took};
use super::windows::{Window, add_to_window};
use crate::spec::{Contract, Kind, Per, Role};

/// What is known of one key, as its contract's kind needs it.
#[derive(Debug)]
pub(super) enum Body {
    /// Nothing yet.
    Empty,
    Small(Small),
    Orphan(Orphan),
    Events(Box<Events>),
    Windows(Box<Windows>),
}

/// The events of a key, each list in order of start and id.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) whens: Vec<Kept>,
    pub(super) expects: Vec<Kept>,
    pub(super) refusals: Vec<Event>,
    /// Of the obligation, where a key has one.
    pub(super) verdict: Option<Verdict>,
    tally: Tally,
}

code!(Events { whens, expects, refusals, verdict, tally });

/// The windows of a key by their start.
#[derive(Debug, Default)]
pub(super) struct Windows {
    pub(super) windows: BTreeMap<i64, Window>,
    tally: Tally,
}

code!(Windows { windows, tally });

/// How a key's obligations stand.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    open: u32,
    bad: u32,
}

code!(Tally { open, bad });

impl Tally {
    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Open => self.open += 1,
            Verdict::Fulfilled => {}
            _ => self.bad += 1,
        }
    }
}

/// An event and, where every event has an obligation, what became of it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) event: Event,
    pub(super) verdict: Option<Verdict>,
}

code!(Kept { event, verdict });

/// A key keeps at most this many events of a side and this many windows; the oldest go first.
pub(super) const MAX_EVENTS: usize = 65_536;

/// So many events are looked through one by one.
const FEW: usize = 32;

/// What a key had to give up to stay within its bounds.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Dropped {
    pub(super) events: u64,
    pub(super) open: u64,
}

impl Body {
    /// Obligations whose deadline has not been reached.
    pub(super) fn open(&self) -> u32 {
        self.tally().open
    }

    /// Obligations that are settled and not fulfilled.
    pub(super) fn bad(&self) -> u32 {
        self.tally().bad
    }

    fn tally(&self) -> Tally {
        match self {
            Self::Empty | Self::Orphan(_) => Tally::default(),
            Self::Small(small) => {
                let mut tally = Tally::default();
                small.verdict.iter().for_each(|verdict| tally.count(*verdict));
                tally
            }
            Self::Events(events) => events.tally,
            Self::Windows(windows) => windows.tally,
        }
    }

    /// Takes an event; `false` if it changes nothing, because it came before or decides nothing.
    pub(super) fn add(
        &mut self,
        contract: &Contract,
        role: Role,
        event: Event,
        dropped: &mut Dropped,
    ) -> bool {
        let took = match self {
            Self::Events(_) | Self::Windows(_) => {
                return self.add_large(contract, role, event, dropped);
            }
            Self::Empty => match (contract.kind, role) {
                (Kind::Heartbeat { .. }, _) => {
                    *self = Self::Windows(Box::default());
                    return self.add_large(contract, role, event, dropped);
                }
                (_, Role::When) if small::fits(contract) => Took::In(Small::new(&event)),
                (_, Role::Expect) if small::fits(contract) => {
                    *self = Self::Orphan(Orphan::new(&event));
                    return true;
                }
                _ => Took::Outgrown(Box::default()),
            },
            Self::Small(small) => small.take(contract, role, &event),
            Self::Orphan(orphan) => orphan.take(contract, role, &event),
        };
        match took {
            Took::Nothing => false,
            Took::In(small) => {
                *self = Self::Small(small);
                true
            }
            Took::Outgrown(events) => {
                *self = Self::Events(events);
                self.add_large(contract, role, event, dropped);
                true
            }
        }
    }

    fn add_large(
        &mut self,
        contract: &Contract,
        role: Role,
        event: Event,
        dropped: &mut Dropped,
    ) -> bool {
        match self {
            Self::Events(events) => {
                let changed = events.add(contract, role, event);
                events.bound(dropped);
                changed
            }
            Self::Windows(windows) => {
                add_to_window(&mut windows.windows, contract, role, event, dropped)
            }
            Self::Empty | Self::Small(_) | Self::Orphan(_) => false,
        }
    }

    /// Judges all obligations of the key. `changed` is told each one's verdict before and now.
    pub(super) fn judge(
        &mut self,
        contract: &Contract,
        context: &Context<'_>,
        mut changed: impl FnMut(Option<Verdict>, &Judged),
    ) {
        let mut tally = Tally::default();
        let mut settle = |old: &mut Option<Verdict>, judged: Judged| {
            changed(*old, &judged);
            *old = Some(judged.verdict);
            tally.count(judged.verdict);
        };
        match self {
            Self::Empty | Self::Orphan(_) => {}
            Self::Small(small) => {
                let judged = small.judge(contract, context);
                settle(&mut small.verdict, judged);
            }
            Self::Events(events) => {
                events.judge(contract, context, settle);
                events.tally = events.tally_of(contract);
            }
            Self::Windows(windows) => {
                for (from, window) in &mut windows.windows {
                    if let Some(judged) = judge::window(contract, *from, window, context) {
                        settle(&mut window.verdict, judged);
                    }
                }
                windows.tally = tally;
            }
        }
    }

    /// Bytes of memory beside the key's entry.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Empty | Self::Small(_) | Self::Orphan(_) => 0,
            Self::Events(events) => {
                size_of::<Events>()
                    + (events.whens.capacity() + events.expects.capacity()) * size_of::<Kept>()
                    + events.refusals.capacity() * size_of::<Event>()
            }
            Self::Windows(windows) => {
                size_of::<Windows>() + windows.windows.len() * (size_of::<Window>() + 24)
            }
        }
    }
}

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

impl Events {
    /// Judges the obligations; those that no event can change any more are passed over.
    fn judge(
        &mut self,
        contract: &Contract,
        context: &Context<'_>,
        mut settle: impl FnMut(&mut Option<Verdict>, Judged),
    ) {
        match obligations(contract) {
            Obligations::Key => {
                let judged = match (contract.kind, self.whens.first()) {
                    (Kind::Balance, _) => judge::balance(contract, self, context),
                    (_, None) => None,
                    (_, Some(when)) => {
                        Some(judge::activation(contract, self, &when.event, context))
                    }
                };
                if let Some(judged) = judged {
                    settle(&mut self.verdict, judged);
                }
            }
            Obligations::Whens => {
                for i in 0..self.whens.len() {
                    if !is_final(contract, self.whens[i].verdict) {
                        let when = &self.whens[i].event;
                        let judged = judge::activation(contract, self, when, context);
                        settle(&mut self.whens[i].verdict, judged);
                    }
                }
            }
            Obligations::Expects => {
                for i in 0..self.expects.len() {
                    if !is_final(contract, self.expects[i].verdict) {
                        let expect = &self.expects[i].event;
                        let judged = judge::outcome(contract, self, expect, context);
                        settle(&mut self.expects[i].verdict, judged);
                    }
                }
            }
        }
    }

    fn tally_of(&self, contract: &Contract) -> Tally {
        let mut tally = Tally::default();
        let verdicts: &[Kept] = match obligations(contract) {
            Obligations::Key => {
                self.verdict.iter().for_each(|verdict| tally.count(*verdict));
                &[]
            }
            Obligations::Whens => &self.whens,
            Obligations::Expects => &self.expects,
        };
        verdicts.iter().filter_map(|kept| kept.verdict).for_each(|verdict| tally.count(verdict));
        tally
    }

    fn add(&mut self, contract: &Contract, role: Role, event: Event) -> bool {
        match role {
            Role::RefusedBy => insert(&mut self.refusals, event, |kept| kept, |event| event),
            Role::Expect => self.insert_expect(event),
            Role::When if contract.kind == Kind::Precedence && self.first_will_do(contract) => {
                self.keep_first(event)
            }
            Role::When if obligations(contract) == Obligations::Key => {
                if contract.kind == Kind::Balance {
                    self.insert_when(event)
                } else {
                    self.keep_first(event)
                }
            }
            Role::When => self.insert_when(event),
        }
    }

    /// Whether the earliest cause alone decides, as it does if any earlier one is enough.
    fn first_will_do(&self, contract: &Contract) -> bool {
        contract.within.is_none() && contract.conditions.is_empty()
    }

    fn insert_when(&mut self, event: Event) -> bool {
        let keep = |event| Kept { event, verdict: None };
        insert(&mut self.whens, event, |kept: &Kept| &kept.event, keep)
    }

    fn insert_expect(&mut self, event: Event) -> bool {
        let keep = |event| Kept { event, verdict: None };
        insert(&mut self.expects, event, |kept: &Kept| &kept.event, keep)
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
                self.whens.push(Kept { event, verdict: None });
                true
            }
        }
    }

    fn bound(&mut self, dropped: &mut Dropped) {
        for list in [&mut self.whens, &mut self.expects] {
            if list.len() > MAX_EVENTS {
                for kept in list.drain(..MAX_EVENTS / 2) {
                    dropped.events += 1;
                    dropped.open += u64::from(kept.verdict == Some(Verdict::Open));
                }
            }
        }
        if self.refusals.len() > MAX_EVENTS {
            self.refusals.drain(..MAX_EVENTS / 2);
            dropped.events += (MAX_EVENTS / 2) as u64;
        }
    }
}

/// Whether an obligation that an event of its own opened keeps its verdict, whatever comes: more
/// outcomes cannot take a fulfilled response back, nor a duplicate or a forbidden outcome.
fn is_final(contract: &Contract, verdict: Option<Verdict>) -> bool {
    match verdict {
        Some(Verdict::Fulfilled) => matches!(contract.kind, Kind::Response | Kind::Precedence),
        _ => false,
    }
}

/// Puts an event in its place; `false` if it is there already.
fn insert<T>(
    list: &mut Vec<T>,
    event: Event,
    of: impl Fn(&T) -> &Event,
    make: impl FnOnce(Event) -> T,
) -> bool {
    let order = (event.start, event.id);
    // By the id alone, where that is cheap: a clock may have been set right in between.
    if list.len() <= FEW && list.iter().any(|kept| of(kept).id == event.id) {
        return false;
    }
    let at = list.partition_point(|kept| (of(kept).start, of(kept).id) < order);
    if list.get(at).is_some_and(|kept| (of(kept).start, of(kept).id) == order) {
        return false;
    }
    list.insert(at, make(event));
    true
}
