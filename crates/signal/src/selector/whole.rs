//! What of a span takes its whole trace to know: the trace's length and root, the span's children, its
//! parent's attributes.
//!
//! A query over traces computes what it asks for as columns beside those of the trace, one value a
//! span; from there on they are read like any other. TraceQL's intrinsics `trace:*` and
//! `span:childCount`, and its scope `parent.`.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray, UInt64Array};
use arrow::compute::take;

use super::ast::{Expr, Operand};
use super::fields::{Field, FieldScope, Intrinsic};
use super::tree::Tree;
use crate::batch::Batch;
use crate::rows::SpanRows;
use crate::schema::{AttrType, OVERFLOW, Scope, attribute_column};

// No column of a batch has such a name: those of attributes begin with a scope and a dot.
pub(super) const TRACE_DURATION: &str = "trace:duration";
pub(super) const ROOT_NAME: &str = "trace:rootName";
pub(super) const ROOT_SERVICE: &str = "trace:rootService";
pub(super) const CHILD_COUNT: &str = "span:childCount";
pub(super) const PARENT_OVERFLOW: &str = "parent:overflow";

/// The name of the column that holds what the parents have in column `name`.
pub(super) fn of_parent(name: &str) -> String {
    format!("parent:{name}")
}

/// The column of an intrinsic of the whole trace.
pub(super) fn column_of(intrinsic: Intrinsic) -> Option<&'static str> {
    Some(match intrinsic {
        Intrinsic::TraceDuration => TRACE_DURATION,
        Intrinsic::RootName => ROOT_NAME,
        Intrinsic::RootService => ROOT_SERVICE,
        Intrinsic::ChildCount => CHILD_COUNT,
        _ => return None,
    })
}

/// Adds to `found` the fields of `expr` that take the whole trace.
pub(super) fn fields<'e>(expr: &'e Expr, found: &mut BTreeSet<&'e Field>) {
    match expr {
        Expr::Const(_) => {}
        Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| fields(part, found)),
        Expr::Not(inner) => fields(inner, found),
        Expr::Compare { field, value, .. } => {
            let other = match value {
                Operand::Field(other) => Some(other),
                Operand::Literal(_) => None,
            };
            found.extend([Some(field), other].into_iter().flatten().filter(|f| f.is_whole()));
        }
    }
}

/// Whether `expr` has any such field.
pub(super) fn asks(expr: &Expr) -> bool {
    let mut found = BTreeSet::new();
    fields(expr, &mut found);
    !found.is_empty()
}

/// `expr` with every comparison of such a field taken to hold or, below a negation (`!holds`), not to:
/// what it selects of single rows is at least what `expr` selects of any trace.
pub(super) fn relax(expr: &Expr, holds: bool) -> Expr {
    let all = |parts: &[Expr]| parts.iter().map(|part| relax(part, holds)).collect();
    match expr {
        Expr::And(parts) => Expr::And(all(parts)),
        Expr::Or(parts) => Expr::Or(all(parts)),
        Expr::Not(inner) => Expr::Not(Box::new(relax(inner, !holds))),
        Expr::Compare { .. } if asks(expr) => Expr::Const(holds),
        other => other.clone(),
    }
}

/// The columns of `fields` for the spans of `trace`.
pub(super) fn columns(
    trace: &Batch,
    tree: &Tree,
    fields: &BTreeSet<&Field>,
) -> Vec<(String, ArrayRef)> {
    let mut columns = Vec::new();
    let mut parent_keys = BTreeSet::new();
    for field in fields {
        match field {
            Field::Intrinsic(intrinsic) => {
                if let Some(name) = column_of(*intrinsic) {
                    columns.push((name.to_owned(), of_trace(trace, tree, *intrinsic)));
                }
            }
            Field::Attribute { scope, key } => {
                let scopes: &[Scope] = match scope {
                    FieldScope::ParentSpan => &[Scope::Span],
                    FieldScope::ParentResource => &[Scope::Resource],
                    _ => &[Scope::Span, Scope::Resource],
                };
                let names = scopes
                    .iter()
                    .flat_map(|scope| AttrType::ALL.map(|ty| attribute_column(*scope, ty, key)));
                parent_keys.extend(names);
            }
        }
    }
    if !parent_keys.is_empty() {
        parent_keys.insert(OVERFLOW.to_owned());
        let parents: UInt64Array =
            tree.parent.iter().map(|parent| parent.map(|row| row as u64)).collect();
        for name in parent_keys {
            // Every index is one of the trace's rows, so that taking does not fail.
            let taken = trace.column(&name).and_then(|column| take(column, &parents, None).ok());
            columns.extend(taken.map(|column| (of_parent(&name), column)));
        }
    }
    columns
}

fn of_trace(trace: &Batch, tree: &Tree, intrinsic: Intrinsic) -> ArrayRef {
    let (spans, count) = (SpanRows::new(trace), trace.num_rows());
    if intrinsic == Intrinsic::ChildCount {
        let mut children = vec![0i64; count];
        for parent in tree.parent.iter().flatten() {
            children[*parent] += 1;
        }
        return Arc::new(Int64Array::from(children));
    }
    if intrinsic == Intrinsic::TraceDuration {
        let start = (0..count).map(|row| spans.start(row)).min().unwrap_or_default();
        let end = (0..count).map(|row| spans.end(row)).max().unwrap_or_default();
        return Arc::new(Int64Array::from(vec![end.saturating_sub(start).max(0); count]));
    }
    let roots = (0..count).filter(|row| spans.parent_span_id(*row).is_none());
    let root = roots.min_by_key(|row| spans.start(*row));
    let text = root.and_then(|root| match intrinsic {
        Intrinsic::RootName => Some(spans.name(root)),
        _ => spans.service(root),
    });
    Arc::new(StringViewArray::from_iter(std::iter::repeat_n(text, count)))
}
