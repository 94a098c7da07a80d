//! Selectors: predicates over one kind of signal, in TraceQL's spanset-filter syntax.
//!
//! `{ name = "checkout" && status != error && span.batch_id != nil }` selects spans,
//! `log { body =~ "Assigned .*" && severity >= warn }` selects log records. The language is
//! described in `docs/selectors.md`; its source is Grafana Tempo's TraceQL reference.
//!
//! A [`Selector`] is checked and compiled once and then asked for a mask over batch after batch.
//! Logic is two-valued: a comparison with a missing attribute or one of another type is false,
//! and `!( … )` negates that. A [`Query`] joins selectors by TraceQL's structural operators, over
//! whole traces.

mod ast;
mod attribute;
mod bind;
mod check;
mod columns;
mod compile;
mod display;
mod error;
mod field;
mod fields;
mod index;
mod lexer;
mod parse_query;
mod parse_term;
mod parser;
mod query;
mod term;
mod tree;
mod whole;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::BooleanArray;

use crate::batch::Batch;
use crate::schema::SignalKind;

pub use ast::{Expr, Literal, Op, Operand, SeverityLevel, SpanKind, StatusCode};
pub use columns::{Columns, Equality};
pub use error::{SelectorError, nearest};
pub use field::{FieldAccess, FieldReader, FieldValue};
pub use fields::{Field, FieldScope, Intrinsic};
pub use index::BatchIndex;
pub use lexer::parse_duration;
pub use query::{Keep, Query, Relation};
pub use term::whole_match;

/// A predicate over spans or over log records, checked and ready to run.
///
/// Cloning is cheap. Two selectors are equal if their kinds and expressions are.
#[derive(Clone)]
pub struct Selector {
    kind: SignalKind,
    expr: Arc<Expr>,
    program: Arc<compile::Node>,
}

impl Selector {
    /// Reads `text`, such as `{ name = "a" }` or `log { severity >= warn }`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parser::parse_selector(text)
    }

    /// A selector of `expr` over `kind`, as [`Selector::parse`] would make it.
    ///
    /// # Errors
    /// If `expr` compares what cannot be compared, names a field that `kind` lacks or holds a bad
    /// regular expression. The error's position is 0; its text is the term in question.
    pub fn new(kind: SignalKind, expr: Expr) -> Result<Self, SelectorError> {
        Self::checked(kind, expr, false)
    }

    /// The same for a query over whole traces, in which `expr` may ask about them.
    fn over_traces(kind: SignalKind, expr: Expr) -> Result<Self, SelectorError> {
        Self::checked(kind, expr, true)
    }

    fn checked(kind: SignalKind, expr: Expr, whole: bool) -> Result<Self, SelectorError> {
        let expr = expr.normalise();
        check::check_expr(kind, &expr, whole)?;
        let program = compile::compile(kind, &expr)?;
        Ok(Self { kind, expr: Arc::new(expr), program: Arc::new(program) })
    }

    /// What at least one of `selectors` selects; `None` if they are of several kinds, or none.
    pub fn any(selectors: &[Self]) -> Option<Self> {
        Self::join(selectors, Expr::any)
    }

    /// What all of `selectors` select; `None` if they are of several kinds, or none.
    pub fn all(selectors: &[Self]) -> Option<Self> {
        Self::join(selectors, Expr::all)
    }

    fn join(selectors: &[Self], join: fn(Vec<Expr>) -> Expr) -> Option<Self> {
        let (first, rest) = selectors.split_first()?;
        if rest.is_empty() {
            return Some(first.clone());
        }
        let exprs = selectors.iter().map(|selector| selector.expr().clone()).collect();
        let alike = rest.iter().all(|selector| selector.kind == first.kind);
        // Each was checked when it was made.
        alike.then(|| Self::new(first.kind, join(exprs)).ok()).flatten()
    }

    /// Whether it selects every row.
    pub fn is_everything(&self) -> bool {
        *self.expr == Expr::Const(true)
    }

    /// Whether it asks about whole traces: only a [`Query`] has such.
    fn is_whole(&self) -> bool {
        whole::asks(&self.expr)
    }

    /// A selector of single rows that selects all that this one can select, whatever their traces.
    fn relaxed(&self) -> Self {
        if !self.is_whole() {
            return self.clone();
        }
        let relaxed = whole::relax(&self.expr, true);
        // Less is asked than before, of fields that were checked before.
        Self::new(self.kind, relaxed).unwrap_or_else(|_| self.clone())
    }

    /// The kind of signal that it selects: spans or logs.
    pub fn kind(&self) -> SignalKind {
        self.kind
    }

    /// The expression between the braces.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// Which rows of `batch` it selects: one value a row, none of them null.
    ///
    /// A batch of another kind has no row that it selects.
    pub fn mask(&self, batch: &Batch) -> BooleanArray {
        self.mask_in(&BatchIndex::new(batch))
    }

    /// As [`Selector::mask`], over a batch whose columns have been looked up once for many
    /// selectors.
    pub fn mask_in(&self, batch: &BatchIndex<'_>) -> BooleanArray {
        let rows = batch.num_rows();
        let mask = if batch.kind() == self.kind {
            bind::bind(&self.program, batch).mask(rows)
        } else {
            arrow::buffer::BooleanBuffer::new_unset(rows)
        };
        BooleanArray::new(mask, None)
    }

    /// What it reads of a row: for reading no more than that from a file.
    pub fn columns(&self) -> Columns {
        columns::columns(self.kind, &self.expr)
    }

    /// Terms `field = "text"` that every selected row satisfies, for looking up in an index.
    pub fn required_equalities(&self) -> Vec<Equality<'_>> {
        columns::required_equalities(&self.expr)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.expr == other.expr
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({self})")
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display::selector(self.kind, &self.expr, f)
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}
