//! The common case in 40 bytes: a response obligation of a key with one activation and at most one
//! outcome that matters. What does not fit becomes [`Events`].

use lacuna_signal::TraceId;
use lacuna_signal::finding::Verdict;

use super::codec::{Code, Damaged, Get, code};
use super::event::Event;
use super::judge::{Context, Judged, Side};
use super::state::{Events, Kept};
use crate::spec::{Contract, Kind, Per, Role};

/// A trace's id, or zeros, which no trace has: a byte less than an option, and with it eight bytes
/// less a key.
#[derive(Debug, Clone, Copy)]
struct Trace([u8; TraceId::LEN]);

impl From<Option<TraceId>> for Trace {
    fn from(trace: Option<TraceId>) -> Self {
        Self(trace.map_or([0; TraceId::LEN], |trace| trace.0))
    }
}

impl Trace {
    fn id(self) -> Option<TraceId> {
        TraceId::from_bytes(&self.0)
    }
}

/// As an option.
impl Code for Trace {
    fn put(&self, out: &mut Vec<u8>) {
        self.id().put(out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok(Option::<TraceId>::get(from)?.into())
    }
}

/// A response obligation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Small {
    /// Start of the first activation.
    pub(super) when: i64,
    /// Earliest end of an outcome that began at `when` or later; `i64::MAX` if there is none.
    end: i64,
    trace: Trace,
    pub(super) verdict: Option<Verdict>,
}

code!(Small { when, end, trace, verdict });

/// An outcome whose activation has not been seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orphan {
    start: i64,
    end: i64,
    trace: Trace,
}

code!(Orphan { start, end, trace });

/// What became of a small state when it took an event.
pub(super) enum Took<T> {
    /// Nothing: the event decides nothing.
    Nothing,
    /// It holds the event.
    In(T),
    /// It does not fit; here is what it held, without the event.
    Outgrown(Box<Events>),
}

/// Whether a contract's keys can begin small.
pub(super) fn fits(contract: &Contract) -> bool {
    contract.kind == Kind::Response && contract.per == Per::Key && contract.conditions.is_empty()
}

fn event(start: i64, end: i64, trace: Option<TraceId>) -> Event {
    Event { start, end, id: 0, trace, amount: 1.0, fields: None }
}

impl Small {
    /// An obligation that `when` opens.
    pub(super) fn new(when: &Event) -> Self {
        Self { when: when.start, end: i64::MAX, trace: when.trace.into(), verdict: None }
    }

    /// The activation's trace.
    pub(super) fn trace(&self) -> Option<TraceId> {
        self.trace.id()
    }

    fn deadline(&self, contract: &Contract) -> i64 {
        self.when.saturating_add(contract.within.unwrap_or(0))
    }

    /// Takes an event.
    pub(super) fn take(mut self, contract: &Contract, role: Role, event: &Event) -> Took<Self> {
        match role {
            Role::When if event.start < self.when => {
                (self.when, self.trace) = (event.start, event.trace.into());
                Took::In(self)
            }
            // Whatever activation may still come first, the outcome that is known ends earlier.
            Role::Expect if event.end >= self.end => Took::Nothing,
            Role::Expect if event.start >= self.when && event.end <= self.deadline(contract) => {
                self.end = event.end;
                Took::In(self)
            }
            Role::When => Took::Nothing,
            // Late outcomes and refusals are evidence, of which the traces are kept.
            Role::Expect | Role::RefusedBy => Took::Outgrown(self.grow()),
        }
    }

    fn grow(self) -> Box<Events> {
        let mut events = Events::default();
        events.verdict = self.verdict;
        let when = event(self.when, self.when, self.trace());
        events.whens.push(Kept { event: when, verdict: None });
        if self.end < i64::MAX {
            // Of its start it is known, and matters, only that it is no earlier than this.
            events.expects.push(Kept { event: event(self.when, self.end, None), verdict: None });
        }
        Box::new(events)
    }

    /// The obligation: [`super::judge::activation`] for what is kept here.
    pub(super) fn judge(&self, contract: &Contract, context: &Context<'_>) -> Judged {
        let deadline = self.deadline(contract);
        let (verdict, resolved) = if self.end <= deadline {
            (Verdict::Fulfilled, self.end)
        } else if context.watermark < deadline {
            (Verdict::Open, deadline)
        } else if self.end < i64::MAX {
            (Verdict::Late, self.end)
        } else if (context.silent)(Side::Expect, self.when, deadline) {
            (Verdict::Unknown, deadline)
        } else {
            (Verdict::Missed, deadline)
        };
        Judged::new(verdict, self.when, deadline, resolved)
    }
}

impl Orphan {
    /// An outcome whose activation has not been seen.
    pub(super) fn new(expect: &Event) -> Self {
        Self { start: expect.start, end: expect.end, trace: expect.trace.into() }
    }

    /// Takes an event; an activation that the outcome fits makes it an obligation.
    pub(super) fn take(self, contract: &Contract, role: Role, event: &Event) -> Took<Small> {
        let deadline = event.start.saturating_add(contract.within.unwrap_or(0));
        match role {
            Role::When if event.start <= self.start && self.end <= deadline => {
                Took::In(Small { end: self.end, ..Small::new(event) })
            }
            Role::Expect if (event.start, event.end) == (self.start, self.end) => Took::Nothing,
            _ => Took::Outgrown(self.grow()),
        }
    }

    fn grow(self) -> Box<Events> {
        let expect = event(self.start, self.end, self.trace.id());
        let mut events = Events::default();
        events.expects.push(Kept { event: expect, verdict: None });
        Box::new(events)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_small() {
        assert!(size_of::<super::super::state::Body>() <= 40);
    }
}
