//! What became of a key's obligations, as events of its story.

use std::collections::BTreeSet;

use lacuna_contract::{Contract, Kind, Monitor};
use lacuna_signal::finding::{Instance, Verdict};
use lacuna_signal::selector::{Field, FieldAccess, Literal};

use super::{Event, KeyPart, Story, What};

/// The names of a key's fields, without scope; of what is no attribute, as contracts write it.
pub(super) fn names(key: &[FieldAccess]) -> Vec<String> {
    key.iter()
        .map(|access| match access.field() {
            Field::Attribute { key, .. } if access.to_string().ends_with(key.as_str()) => {
                key.clone()
            }
            _ => access.to_string(),
        })
        .collect()
}

/// Of a contract whose joint key is given in part, so many instances are told.
const MAX_IN_PART: usize = 1_000;

/// Adds to `story` what became of every obligation that `monitor` knows of its key.
///
/// A contract is concerned if one of its sides names attributes of its key as the story's key does:
/// of a joint key one will do, and all instances that have it are told, each with its whole key. A
/// heartbeat without a key is not about any.
pub fn verdicts(story: &mut Story, monitor: &Monitor) {
    let concerned: Vec<(&Contract, Vec<Option<String>>)> = monitor
        .contracts()
        .filter_map(|contract| Some((&**contract, values(contract, &story.key)?)))
        .collect();
    story.contracts = concerned.len();
    let mut events = std::mem::take(&mut story.events);
    let mut lookups: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (contract, values) in &concerned {
        let texts: Vec<Option<&str>> = values.iter().map(Option::as_deref).collect();
        if let Some(whole) = texts.iter().copied().collect() {
            lookups.insert(whole);
            continue;
        }
        let (instances, cut) = monitor.instances_with(&contract.name, &texts, MAX_IN_PART);
        story.cut |= cut;
        events.extend(instances.into_iter().map(|instance| {
            let fields = contract.when.key.iter().map(ToString::to_string);
            let key = fields.zip(instance.key.iter().cloned()).collect();
            Event { attributes: key, ..event(contract, instance) }
        }));
    }
    for texts in lookups {
        for (contract, instances) in monitor.instances_of_key(&texts) {
            let same = |(other, of): &(&Contract, Vec<Option<String>>)| {
                std::ptr::eq(*other, &raw const **contract)
                    && of.iter().map(Option::as_deref).eq(texts.iter().map(|text| Some(*text)))
            };
            if concerned.iter().any(same) {
                events.extend(instances.into_iter().map(|instance| event(contract, instance)));
            }
        }
    }
    let (others, contracts, cut) = (story.others, story.contracts, story.cut);
    *story = Story::new(std::mem::take(&mut story.key), events);
    (story.others, story.contracts, story.cut) = (others, contracts, cut);
}

/// The values of `contract`'s key that `key` gives, in the contract's order, of the side that most
/// are given of; `None` if the contract is kept by something else.
fn values(contract: &Contract, key: &[KeyPart]) -> Option<Vec<Option<String>>> {
    let of_side = |names: Vec<String>| -> Vec<Option<String>> {
        let value = |name: &String| {
            let part = key.iter().find(|part| part.names().any(|known| known == name));
            part.map(|part| part.value.clone())
        };
        names.iter().map(value).collect()
    };
    let sides = contract.sides().map(|(_, side)| of_side(names(&side.key)));
    let mut best: Option<Vec<Option<String>>> = None;
    for side in sides {
        let given = |side: &[Option<String>]| side.iter().flatten().count();
        if given(&side) > best.as_deref().map_or(0, given) {
            best = Some(side);
        }
    }
    best
}

fn event(contract: &Contract, instance: Instance) -> Event {
    let due = instance.deadline.unwrap_or(instance.activated_at);
    let at = match instance.verdict {
        Verdict::Missed
        | Verdict::Refused
        | Verdict::Unbalanced
        | Verdict::Unknown
        | Verdict::Open => due,
        _ => instance.resolved_at.unwrap_or(instance.activated_at),
    };
    Event {
        at,
        after: 0,
        carries_key: true,
        trace_id: instance.trace_ids.first().copied(),
        span_id: None,
        service: None,
        what: What::Verdict {
            contract: contract.name.clone(),
            kind: contract.kind.name().to_owned(),
            verdict: instance.verdict,
            severity: contract.severity,
            promise: promise(contract),
            activated_at: instance.activated_at,
            deadline: instance.deadline,
            trace_ids: instance.trace_ids,
            figures: instance.figures,
            runbook_url: contract.runbook_url.clone(),
        },
        attributes: std::collections::BTreeMap::new(),
    }
}

/// What the contract promises, in one sentence.
fn promise(contract: &Contract) -> String {
    let (when, expect) = (&contract.when.selector, &contract.expect.selector);
    let within = contract.within.map(|nanos| Literal::Duration(nanos).to_string());
    let within = within.unwrap_or_default();
    match contract.kind {
        Kind::Response => format!("{expect} within {within} of {when}"),
        Kind::Exactly { count } => format!("{expect} {count} x within {within} of {when}"),
        Kind::Absence => format!("no {expect} within {within} of {when}"),
        Kind::Precedence => format!("{expect} only after {when}"),
        Kind::Balance => format!("as much {when} as {expect} within {within}"),
        Kind::Heartbeat { at_least } => {
            format!("{at_least} x {expect} in every {within} with {when}")
        }
    }
}
