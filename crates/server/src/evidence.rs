//! Where an obligation was lost: the spans that speak for it.
//!
//! In this order, the first that gives anything:
//! 1. errors below the activation: spans that descend from the span that opened the obligation, by
//!    parent or by link, and ended in error, deepest first;
//! 2. errors of the same key anywhere between activation and deadline;
//! 3. near misses: spans below the activation with the name of an outcome that is expected, of
//!    which something else did not hold.

use std::collections::{HashMap, HashSet, VecDeque};

use jiff::Timestamp;
use lacuna_contract::Contract;
use lacuna_signal::finding::Instance;
use lacuna_signal::rows::SpanRows;
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::{Expr, Field, Intrinsic, Literal, Op, Operand, Selector, StatusCode};
use lacuna_signal::{Batch, SignalKind, SpanId, TraceId};
use lacuna_store::{Store, StoreError, TimeRange};
use serde::Serialize;

use crate::lacking::{damage, lacking, note};

/// At most this many steps are given for one instance.
const MAX_STEPS: usize = 10;

/// One span that speaks for an instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The span's trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// Its service.
    pub service: String,
    /// Its name.
    pub name: String,
    /// When it started.
    pub start: Timestamp,
    /// `unset`, `ok` or `error`.
    pub status: &'static str,
    /// Its status description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its attributes as text.
    pub attributes: Vec<(String, String)>,
}

/// The steps that speak for `instance` of `contract`. What was missing while they were looked for, so
/// that there may be others, is added to `warnings`.
pub fn steps(
    store: &Store,
    contract: &Contract,
    instance: &Instance,
    warnings: &mut Vec<String>,
) -> Result<Vec<Step>, StoreError> {
    let Some(trace_id) = instance.trace_ids.first() else { return Ok(Vec::new()) };
    let found = store.trace(*trace_id, None)?;
    note(warnings, lacking(&found, &format!("spans of trace {trace_id}")));
    let trace = found.items;
    let below = below_activation(&trace, contract, instance);
    let rows = SpanRows::new(&trace);
    let mut failed: Vec<_> =
        below.iter().filter(|found| rows.status_code(found.row) == ERROR).collect();
    failed.sort_by_key(|found| (std::cmp::Reverse(found.depth), rows.start(found.row)));
    let mut steps = to_steps(&trace, failed.into_iter().map(|found| found.row));
    if steps.is_empty() {
        steps = errors_of_key(store, contract, instance, warnings)?;
    }
    if steps.is_empty() {
        steps = near_misses(&trace, contract, &below);
    }
    Ok(steps)
}

const ERROR: u8 = 2;

/// A span below the activation.
struct Below {
    row: usize,
    depth: usize,
}

fn below_activation(trace: &Batch, contract: &Contract, instance: &Instance) -> Vec<Below> {
    let rows = SpanRows::new(trace);
    let mut by_id = HashMap::new();
    let mut children: HashMap<SpanId, Vec<usize>> = HashMap::new();
    for row in 0..trace.num_rows() {
        if let Some(id) = rows.span_id(row) {
            by_id.insert(id, row);
        }
        let linked = rows.links(row).map(|link| link.span_id);
        for parent in rows.parent_span_id(row).into_iter().chain(linked) {
            children.entry(parent).or_default().push(row);
        }
    }
    // A contract that a log activates has nothing below it: the mask of spans is then empty.
    let activated = contract.when.selector.mask(trace);
    let start = nanos(instance.activated_at);
    let mut roots: Vec<usize> = (0..trace.num_rows()).filter(|row| activated.value(*row)).collect();
    // A clock that is off is allowed for in the instance's time, and not in the span's.
    if roots.iter().any(|row| rows.start(*row) == start) {
        roots.retain(|row| rows.start(*row) == start);
    }
    let mut queue: VecDeque<_> = roots.into_iter().map(|row| Below { row, depth: 0 }).collect();
    let mut seen: HashSet<usize> = queue.iter().map(|found| found.row).collect();
    let mut below = Vec::new();
    while let Some(found) = queue.pop_front() {
        for child in rows.span_id(found.row).and_then(|id| children.get(&id)).into_iter().flatten()
        {
            if seen.insert(*child) {
                queue.push_back(Below { row: *child, depth: found.depth + 1 });
            }
        }
        below.push(found);
    }
    below
}

/// Spans in error that carry the instance's key, between its activation and its deadline.
fn errors_of_key(
    store: &Store,
    contract: &Contract,
    instance: &Instance,
    warnings: &mut Vec<String>,
) -> Result<Vec<Step>, StoreError> {
    let mut terms =
        vec![Expr::compare(Intrinsic::Status, Op::Eq, Literal::Status(StatusCode::Error))];
    for (name, value) in contract.key_names().iter().zip(&instance.key) {
        // The field was read from a contract that has been checked.
        let Ok(Expr::Compare { field, .. }) =
            Selector::parse(&format!("{{ {name} != nil }}")).map(|s| s.expr().clone())
        else {
            return Ok(Vec::new());
        };
        let Field::Attribute { key, .. } = field else { return Ok(Vec::new()) };
        terms.push(Expr::tag(key, value.clone()));
    }
    let Ok(selector) = Selector::new(SignalKind::Spans, Expr::all(terms)) else {
        return Ok(Vec::new());
    };
    let start = nanos(instance.activated_at);
    let end = instance.deadline.map_or(i64::MAX, nanos);
    let range = TimeRange::new(start, end.saturating_add(1));
    let mut steps = Vec::new();
    let mut scan = store.scan(SignalKind::Spans, Some(&selector), range, None, MAX_STEPS)?;
    for batch in scan.by_ref() {
        let batch = batch?;
        steps.extend(to_steps(&batch, 0..batch.num_rows()));
    }
    note(warnings, damage(scan.damaged()));
    steps.truncate(MAX_STEPS);
    Ok(steps)
}

/// Spans below the activation that have a name that the contract expects.
fn near_misses(trace: &Batch, contract: &Contract, below: &[Below]) -> Vec<Step> {
    let names = names_in(contract.expect.selector.expr());
    let rows = SpanRows::new(trace);
    let near = below.iter().map(|found| found.row);
    to_steps(trace, near.filter(|row| names.iter().any(|name| name == rows.name(*row))))
}

fn names_in(expr: &Expr) -> Vec<String> {
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().flat_map(names_in).collect(),
        Expr::Compare {
            field: Field::Intrinsic(Intrinsic::Name),
            op: Op::Eq,
            value: Operand::Literal(Literal::Str(name)),
        } => vec![name.clone()],
        _ => Vec::new(),
    }
}

fn to_steps(batch: &Batch, rows: impl Iterator<Item = usize>) -> Vec<Step> {
    let columns = SpanRows::new(batch);
    let attributes = batch.attributes(Scope::Span);
    rows.take(MAX_STEPS)
        .filter_map(|row| {
            Some(Step {
                trace_id: columns.trace_id(row)?,
                span_id: columns.span_id(row)?,
                service: columns.service(row).unwrap_or("unknown_service").to_owned(),
                name: columns.name(row).to_owned(),
                start: Timestamp::from_nanosecond(i128::from(columns.start(row))).ok()?,
                status: match columns.status_code(row) {
                    0 => "unset",
                    1 => "ok",
                    _ => "error",
                },
                message: columns.status_message(row).map(str::to_owned),
                attributes: attributes
                    .of_row(row)
                    .map(|(key, value)| (key.to_owned(), value.to_text()))
                    .collect(),
            })
        })
        .collect()
}

fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}
