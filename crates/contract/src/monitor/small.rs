//! The common case in 40 bytes: a key's obligation, of a response, an absence or an exactly one, with
//! one activation and at most one outcome that matters. What does not fit becomes [`Events`].

use lacuna_signal::TraceId;
use lacuna_signal::finding::Verdict;

use super::codec::code;
use super::event::{Event, Trace};
use super::events::{Events, Kept};
use super::judge::{Context, Judged, Side};
use crate::spec::{Contract, Kind, Per, Role};

/// An obligation of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Small {
    /// Start of the first activation.
    pub(super) when: i64,
    /// Of a response: earliest end of an outcome that began at `when` or later. Of an exactly: start
    /// of the outcome in time. `i64::MAX` if there is none, which an absence never has here.
    end: i64,
    trace: Trace,
    pub(super) verdict: Option<Verdict>,
    /// Of an exactly, what tells the outcome from others.
    id: [u8; 7],
}

code!(Small { when, end, trace, verdict, id });

/// An outcome whose activation has not been seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orphan {
    start: i64,
    /// Of a response, its end; else what tells it from others: no other kind asks for ends.
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
    let kind = matches!(contract.kind, Kind::Response | Kind::Absence | Kind::Exactly { count: 1 });
    kind && contract.per == Per::Key && contract.conditions.is_empty()
}

fn short(id: u64) -> [u8; 7] {
    let [bytes @ .., _] = id.to_le_bytes();
    bytes
}

fn long([a, b, c, d, e, f, g]: [u8; 7]) -> u64 {
    u64::from_le_bytes([a, b, c, d, e, f, g, 0])
}

impl Small {
    /// An obligation that `when` opens.
    pub(super) fn new(when: &Event) -> Self {
        let trace = when.small_trace();
        Self { when: when.start, end: i64::MAX, trace, verdict: None, id: [0; 7] }
    }

    /// The activation's trace.
    pub(super) fn trace(&self) -> Option<TraceId> {
        self.trace.id()
    }

    /// Outcomes in time, of an exactly.
    pub(super) fn count(&self) -> u32 {
        u32::from(self.end < i64::MAX)
    }

    fn deadline(&self, contract: &Contract) -> i64 {
        self.when.saturating_add(contract.within.unwrap_or(0))
    }

    /// Takes an event.
    pub(super) fn take(mut self, contract: &Contract, role: Role, event: &Event) -> Took<Self> {
        let response = contract.kind == Kind::Response;
        match role {
            Role::When if event.start < self.when => {
                (self.when, self.trace) = (event.start, event.small_trace());
                if !response && self.end > self.deadline(contract) {
                    (self.end, self.id) = (i64::MAX, [0; 7]);
                }
                Took::In(self)
            }
            Role::When => Took::Nothing,
            // The deadline can only become an earlier one.
            Role::Expect if !response && event.start > self.deadline(contract) => Took::Nothing,
            Role::Expect if !response && self.end < i64::MAX && short(event.id) == self.id => {
                Took::Nothing
            }
            Role::Expect
                if matches!(contract.kind, Kind::Exactly { .. })
                    && self.end == i64::MAX
                    && event.start >= self.when =>
            {
                (self.end, self.id) = (event.start, short(event.id));
                Took::In(self)
            }
            // Whatever activation may still come first, the outcome that is known ends earlier.
            Role::Expect if response && event.end >= self.end => Took::Nothing,
            Role::Expect
                if response && event.start >= self.when && event.end <= self.deadline(contract) =>
            {
                self.end = event.end;
                Took::In(self)
            }
            // Late outcomes and refusals are evidence, of which the traces are kept.
            Role::Expect | Role::RefusedBy => Took::Outgrown(self.grow(contract)),
        }
    }

    fn grow(self, contract: &Contract) -> Box<Events> {
        let mut events = Events { verdict: self.verdict, ..Events::default() };
        self.verdict.iter().for_each(|verdict| events.tally.change(None, *verdict));
        let keep = |start, end, id, trace| Kept {
            event: Event::plain(start, end, id, trace),
            verdict: None,
        };
        events.whens = vec![keep(self.when, self.when, 0, self.trace)];
        if self.end < i64::MAX {
            let expect = match contract.kind {
                // Of its start it is known, and matters, only that it is no earlier than this.
                Kind::Response => keep(self.when, self.end, 0, None.into()),
                _ => keep(self.end, self.end, long(self.id), None.into()),
            };
            events.expects = vec![expect];
        }
        Box::new(events)
    }

    /// The obligation: [`super::judge::activation`] for what is kept here.
    pub(super) fn judge(&self, contract: &Contract, context: &Context<'_>) -> Judged {
        let deadline = self.deadline(contract);
        let due = context.watermark >= deadline;
        let silent = || (context.silent)(Side::Expect, self.when, deadline);
        let (verdict, resolved) = match contract.kind {
            Kind::Response if self.end <= deadline => (Verdict::Fulfilled, self.end),
            _ if !due => (Verdict::Open, deadline),
            Kind::Response if self.end < i64::MAX => (Verdict::Late, self.end),
            Kind::Exactly { .. } if self.end < i64::MAX => (Verdict::Fulfilled, deadline),
            _ if silent() => (Verdict::Unknown, deadline),
            Kind::Absence => (Verdict::Fulfilled, deadline),
            _ => (Verdict::Missed, deadline),
        };
        Judged::new(verdict, self.when, deadline, resolved)
    }
}

impl Orphan {
    /// An outcome whose activation has not been seen.
    pub(super) fn new(contract: &Contract, expect: &Event) -> Self {
        let end = match contract.kind {
            Kind::Response => expect.end,
            _ => expect.id as i64,
        };
        Self { start: expect.start, end, trace: expect.small_trace() }
    }

    /// Takes an event; an activation that the outcome fits makes it an obligation.
    pub(super) fn take(self, contract: &Contract, role: Role, event: &Event) -> Took<Small> {
        let deadline = event.start.saturating_add(contract.within.unwrap_or(0));
        let before = event.start <= self.start;
        match (contract.kind, role) {
            (Kind::Response, Role::When) if before && self.end <= deadline => {
                Took::In(Small { end: self.end, ..Small::new(event) })
            }
            (Kind::Response, Role::Expect)
                if (event.start, event.end) == (self.start, self.end) =>
            {
                Took::Nothing
            }
            (Kind::Response, _) => Took::Outgrown(self.grow(contract)),
            (_, Role::When) if self.start > deadline => Took::In(Small::new(event)),
            (Kind::Exactly { .. }, Role::When) if before => {
                let id = short(self.end as u64);
                Took::In(Small { end: self.start, id, ..Small::new(event) })
            }
            (_, Role::Expect) if event.id == self.end as u64 => Took::Nothing,
            _ => Took::Outgrown(self.grow(contract)),
        }
    }

    fn grow(self, contract: &Contract) -> Box<Events> {
        let (end, id) = match contract.kind {
            Kind::Response => (self.end, 0),
            _ => (self.start, self.end as u64),
        };
        let event = Event::plain(self.start, end, id, self.trace);
        let expects = vec![Kept { event, verdict: None }];
        Box::new(Events { expects, ..Events::default() })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_small() {
        assert!(size_of::<super::super::state::Body>() <= 40);
    }
}
