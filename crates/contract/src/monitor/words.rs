//! Instances and findings in words, and the evidence that goes with them.

use std::collections::BTreeMap;

use lacuna_signal::TraceId;
use lacuna_signal::finding::Verdict;

use super::event::{Event, pair};
use super::events::Events;
use super::judge::{self, Judged};
use super::windows::Window;
use crate::spec::{Contract, Kind, Role};

/// An instance names at most this many traces.
const MAX_TRACES: usize = 8;

/// What an obligation is about.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    Small(Option<TraceId>, u32),
    Activation(&'a Events, &'a Event),
    Outcome(&'a Event),
    Balance(&'a Events),
    Window(&'a Window),
}

/// A side's name, as the contract's file has it.
pub(crate) fn side_name(contract: &Contract, side: Role) -> &'static str {
    match (contract.kind, side) {
        (Kind::Balance, Role::When) => "left",
        (Kind::Balance, _) => "right",
        (_, Role::When) => "when",
        (_, Role::Expect) => "expect",
        (_, Role::RefusedBy) => "refused_by",
    }
}

/// The traces to open for an obligation, and the figures that its verdict rests on.
pub(super) fn evidence(
    contract: &Contract,
    subject: &Subject<'_>,
    judged: &Judged,
) -> (Vec<TraceId>, BTreeMap<String, f64>) {
    let mut traces: Vec<TraceId> = Vec::new();
    let mut figures = BTreeMap::new();
    let mut add = |trace: Option<TraceId>| {
        traces.extend(trace.filter(|trace| traces.len() < MAX_TRACES && !traces.contains(trace)));
    };
    match subject {
        Subject::Activation(events, when) => {
            add(when.trace());
            let mut count = 0;
            for expect in events.expects.iter().map(|kept| &kept.event) {
                if expect.start >= when.start && pair(&contract.conditions, when, expect) {
                    count += u32::from(expect.start <= judged.deadline);
                    add(expect.trace());
                }
            }
            let refusals = events.refusals.iter().filter(|event| event.start >= when.start);
            refusals.for_each(|refusal| add(refusal.trace()));
            if let Kind::Exactly { count: expected } = contract.kind {
                figures.insert("count".to_owned(), f64::from(count));
                figures.insert("expected".to_owned(), f64::from(expected));
            }
        }
        Subject::Small(trace, count) => {
            add(*trace);
            if let Kind::Exactly { count: expected } = contract.kind {
                figures.insert("count".to_owned(), f64::from(*count));
                figures.insert("expected".to_owned(), f64::from(expected));
            }
        }
        Subject::Outcome(expect) => add(expect.trace()),
        Subject::Balance(events) => {
            for kept in events.whens.iter().chain(&events.expects) {
                add(kept.event.trace());
            }
            if let Some((left, right)) = judge::figures(contract, events) {
                figures.insert("left".to_owned(), left.total());
                figures.insert("right".to_owned(), right.total());
            }
        }
        Subject::Window(window) => {
            add(window.trace);
            figures.insert("count".to_owned(), window.seen.len() as f64);
            if let Kind::Heartbeat { at_least } = contract.kind {
                figures.insert("expected".to_owned(), f64::from(at_least));
            }
        }
    }
    (traces, figures)
}

/// A finding's title and what it means.
pub(super) fn words(
    contract: &Contract,
    verdict: Verdict,
    count: u64,
    concerned: u64,
) -> (String, String) {
    let name = &contract.name;
    let of = format!("{count} of {concerned}");
    let within = contract.within.map_or(String::new(), |nanos| {
        format!(" within {}", lacuna_signal::selector::Literal::Duration(nanos))
    });
    let (when, expect) = (&contract.when.selector, &contract.expect.selector);
    match verdict {
        Verdict::Late => (
            format!("{name}: {of} outcomes came late"),
            format!("After {when}, {expect} must follow{within}; it came, but later."),
        ),
        Verdict::Refused => (
            format!("{name}: {of} outcomes were refused"),
            format!("After {when}, {expect} must follow{within}; an explicit no came instead."),
        ),
        Verdict::Duplicate => (
            format!("{name}: {of} outcomes came too often"),
            format!("After {when}, {expect} came more often than it may{within}."),
        ),
        Verdict::Phantom => (
            format!("{name}: {of} outcomes came out of nowhere"),
            format!("{expect} came without the {when} that must precede it{within}."),
        ),
        Verdict::Forbidden => (
            format!("{name}: {of} times what must not follow came"),
            format!("After {when}, {expect} must not follow{within}, and did."),
        ),
        Verdict::Unbalanced => (
            format!("{name}: {of} keys do not balance"),
            format!("{when} and {expect} must agree for each key{within}, and do not."),
        ),
        Verdict::Unknown if contract.kind == Kind::Balance => (
            format!("{name}: nothing can be said about {of} keys"),
            format!(
                "{when} and {expect} do not agree for these keys{within}, but not all that came \
                 before is known: the time before is cut off."
            ),
        ),
        // Of others it is told with the gap.
        Verdict::Unknown => (
            format!("{name}: nothing can be said about {of} outcomes"),
            format!(
                "No {when} is known that precedes these {expect}{within}, but not all that came \
                 before is known: the time before is cut off, or keys were forgotten."
            ),
        ),
        _ => match contract.kind {
            Kind::Heartbeat { at_least } => (
                format!("{name}: {of} windows without their outcome"),
                format!("While {when} flows, at least {at_least} {expect} must come{within}."),
            ),
            _ => (
                format!("{name}: {of} outcomes never came"),
                format!("After {when}, {expect} must follow{within}; it did not."),
            ),
        },
    }
}

/// A note of violations over whose time the services of the cause sent nothing.
pub(super) fn quiet_cause(contract: &Contract, verdict: Verdict, quiet: u64) -> String {
    let when = &contract.when.selector;
    let time = match verdict {
        Verdict::Phantom => "the time in which it was looked for",
        _ => "their time",
    };
    format!(
        "\nNote: over {time} the services that {when} comes from sent no such signal at all, though \
         they did before, for {quiet} of them: it may have come and its telemetry be lost."
    )
}
