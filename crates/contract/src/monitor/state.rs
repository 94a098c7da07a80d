//! What is kept of one key.

use lacuna_signal::finding::Verdict;

use super::codec::code;
use super::event::Event;
use super::events::Events;
use super::judge::{Context, Judged};
use super::prune::prune;
use super::small::{self, Orphan, Small, Took};
use super::windows::Windows;
use crate::spec::{Contract, Kind, Role};

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

/// How a key's obligations stand.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) open: u32,
    /// Settled and not fulfilled.
    pub(super) bad: u32,
    /// Of them, those whose evidence was missing.
    pub(super) unknown: u32,
}

code!(Tally { open, bad, unknown });

impl Tally {
    fn count(&mut self, verdict: Verdict, by: impl Fn(u32) -> u32) {
        match verdict {
            Verdict::Open => self.open = by(self.open),
            Verdict::Fulfilled => {}
            _ => self.bad = by(self.bad),
        }
        if verdict == Verdict::Unknown {
            self.unknown = by(self.unknown);
        }
    }

    /// An obligation's verdict has become another one.
    pub(super) fn change(&mut self, old: Option<Verdict>, new: Verdict) {
        old.into_iter().for_each(|old| self.forget(old));
        self.count(new, |n| n.saturating_add(1));
    }

    /// An obligation is not kept any more.
    pub(super) fn forget(&mut self, verdict: Verdict) {
        self.count(verdict, |n| n.saturating_sub(1));
    }
}

/// Which obligations of a key are to be judged; those that have become due are always.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    /// All.
    All,
    /// Those alone that have become due.
    Due,
    /// Those whose evidence was missing.
    Unknown,
    /// Those that an event may have changed, by its start and end.
    Event(Role, i64, i64),
}

/// How much a key may keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Events of a side, and windows.
    pub(super) max_events: usize,
    /// Up to this event time all has come that is waited for; `i64::MIN` keeps everything.
    pub(super) known_to: i64,
}

/// What is to be told of how an event was taken.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Events and settled obligations given up to stay within bounds.
    pub(super) dropped: u64,
    /// Open obligations given up to stay within bounds.
    pub(super) open: u64,
    /// Events of balances that were added up and are known one by one no more.
    pub(super) folded: u64,
    /// Events that came after what they could have decided was forgotten.
    pub(super) too_late: u64,
    /// Verdict and activation of obligations that are not fulfilled and not kept.
    pub(super) forgotten: Vec<(Verdict, i64)>,
    /// Start of the newest cause that was forgotten.
    pub(super) causes_to: i64,
    /// Why the event cannot be compared with its partner.
    pub(super) mismatch: Option<String>,
}

impl Notes {
    pub(super) fn new() -> Self {
        Self { causes_to: i64::MIN, ..Self::default() }
    }
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

    pub(super) fn tally(&self) -> Tally {
        match self {
            Self::Empty | Self::Orphan(_) => Tally::default(),
            Self::Small(small) => {
                let mut tally = Tally::default();
                small.verdict.iter().for_each(|verdict| tally.change(None, *verdict));
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
        notes: &mut Notes,
    ) -> bool {
        let took = match self {
            Self::Events(_) | Self::Windows(_) => {
                return self.add_large(contract, role, event, notes);
            }
            Self::Empty => match (contract.kind, role) {
                (Kind::Heartbeat { .. }, _) => {
                    *self = Self::Windows(Box::default());
                    return self.add_large(contract, role, event, notes);
                }
                (_, Role::When) if small::fits(contract) => Took::In(Small::new(&event)),
                (_, Role::Expect) if small::fits(contract) => {
                    *self = Self::Orphan(Orphan::new(contract, &event));
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
                self.add_large(contract, role, event, notes);
                true
            }
        }
    }

    fn add_large(
        &mut self,
        contract: &Contract,
        role: Role,
        event: Event,
        notes: &mut Notes,
    ) -> bool {
        match self {
            Self::Events(events) => events.add(contract, role, event, notes),
            Self::Windows(windows) => windows.add(contract, role, event, notes),
            Self::Empty | Self::Small(_) | Self::Orphan(_) => false,
        }
    }

    /// Lets go of what decides nothing any more, where there is much.
    pub(super) fn prune(&mut self, contract: &Contract, limits: &Limits, notes: &mut Notes) {
        match self {
            Self::Events(events) => prune(events, contract, limits, notes),
            Self::Windows(windows) => windows.prune(contract, limits, notes),
            Self::Empty | Self::Small(_) | Self::Orphan(_) => {}
        }
    }

    /// Judges the key's obligations. `told` is told each one's verdict before and now.
    pub(super) fn judge(
        &mut self,
        contract: &Contract,
        context: &Context<'_>,
        look: Look,
        mut told: impl FnMut(Option<Verdict>, &Judged),
    ) {
        match self {
            Self::Empty | Self::Orphan(_) => {}
            Self::Small(small) => {
                let judged = small.judge(contract, context);
                told(small.verdict, &judged);
                small.verdict = Some(judged.verdict);
            }
            Self::Events(events) => events.judge(contract, context, look, told),
            Self::Windows(windows) => windows.judge(contract, context, look, told),
        }
    }

    /// Bytes of memory beside the key's entry.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Empty | Self::Small(_) | Self::Orphan(_) => 0,
            Self::Events(events) => events.memory(),
            Self::Windows(windows) => windows.memory(),
        }
    }
}
