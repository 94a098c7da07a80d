//! Queries over whole traces: selectors joined by TraceQL's structural operators.
//!
//! `{ A } > { B }` selects the spans that B selects and whose parent A selects. A negated operator
//! selects those for which that is not so, also where A selects nothing: `{ child } !< { parent }`
//! is "a parent without such a child".

use std::fmt;

use arrow::array::{Array, BooleanArray, FixedSizeBinaryArray};
use arrow::buffer::BooleanBuffer;
use hashbrown::HashMap;

use super::{BatchIndex, Columns, Selector, SelectorError, parse_query};
use crate::batch::Batch;
use crate::schema::{self as c, SignalKind};

/// A query over one trace's spans, or one selector over log records.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// What a selector selects.
    Select(Selector),
    /// What either side selects, if both select something in the trace.
    And(Box<Query>, Box<Query>),
    /// What either side selects.
    Or(Box<Query>, Box<Query>),
    /// What the right side selects and has, or has not, the relation to what the left side does.
    Structural {
        /// The relation.
        relation: Relation,
        /// Whether the relation must not hold.
        negated: bool,
        /// The left side.
        left: Box<Query>,
        /// The right side, from which the result comes.
        right: Box<Query>,
    },
}

/// How a span of the right side relates to one of the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `>`: is its child.
    Child,
    /// `>>`: is its descendant.
    Descendant,
    /// `<`: is its parent.
    Parent,
    /// `<<`: is its ancestor.
    Ancestor,
    /// `~`: has the same parent.
    Sibling,
}

impl Relation {
    /// All relations.
    pub const ALL: [Self; 5] =
        [Self::Child, Self::Descendant, Self::Parent, Self::Ancestor, Self::Sibling];

    /// The operator, and its negation.
    pub fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::Child => (">", "!>"),
            Self::Descendant => (">>", "!>>"),
            Self::Parent => ("<", "!<"),
            Self::Ancestor => ("<<", "!<<"),
            Self::Sibling => ("~", "!~"),
        }
    }
}

impl Query {
    /// Reads `text`, such as `{ name = "a" } >> { status = error }`.
    ///
    /// Structural operators bind tighter than `&&`, and that tighter than `||`; all group to the
    /// left.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse_query::parse_query(text)
    }

    /// The kind of signal that it selects.
    pub fn kind(&self) -> SignalKind {
        match self {
            Self::Select(selector) => selector.kind(),
            Self::And(..) | Self::Or(..) | Self::Structural { .. } => SignalKind::Spans,
        }
    }

    /// The selector, if the query is no more than one: it then needs no whole traces.
    pub fn as_selector(&self) -> Option<&Selector> {
        match self {
            Self::Select(selector) => Some(selector),
            _ => None,
        }
    }

    /// Selectors of which at least one selects a span in every trace in which the query selects
    /// anything: for finding candidate traces.
    pub fn candidates(&self) -> Vec<&Selector> {
        match self {
            Self::Select(selector) => vec![selector],
            Self::And(left, _) => left.candidates(),
            Self::Or(left, right) => [left.candidates(), right.candidates()].concat(),
            Self::Structural { right, .. } => right.candidates(),
        }
    }

    /// What it reads of a row.
    pub fn columns(&self) -> Columns {
        match self {
            Self::Select(selector) => selector.columns(),
            Self::And(left, right) | Self::Or(left, right) => {
                let mut columns = left.columns();
                columns.extend(right.columns());
                columns
            }
            Self::Structural { left, right, .. } => {
                let mut columns = left.columns();
                columns.extend(right.columns());
                columns.fixed.extend([c::SPAN_ID, c::PARENT_SPAN_ID]);
                columns
            }
        }
    }

    /// Which spans of `trace`, all spans of one trace, it selects.
    pub fn mask(&self, trace: &Batch) -> BooleanArray {
        if let Self::Select(selector) = self {
            return selector.mask(trace);
        }
        BooleanArray::new(self.eval(&BatchIndex::new(trace), &Tree::new(trace)), None)
    }

    fn eval(&self, index: &BatchIndex<'_>, tree: &Tree) -> BooleanBuffer {
        match self {
            Self::Select(selector) => selector.mask_in(index).values().clone(),
            Self::Or(left, right) => &left.eval(index, tree) | &right.eval(index, tree),
            Self::And(left, right) => {
                let (left, right) = (left.eval(index, tree), right.eval(index, tree));
                if left.count_set_bits() > 0 && right.count_set_bits() > 0 {
                    &left | &right
                } else {
                    BooleanBuffer::new_unset(left.len())
                }
            }
            Self::Structural { relation, negated, left, right } => {
                let related = tree.related(*relation, &left.eval(index, tree));
                let right = right.eval(index, tree);
                BooleanBuffer::collect_bool(right.len(), |row| {
                    right.value(row) && related[row] != *negated
                })
            }
        }
    }
}

/// Parents of a trace's spans.
struct Tree {
    /// The parent's row, if it is among the rows.
    parent: Vec<Option<usize>>,
    /// A number for each parent id, also of parents that are missing.
    family: Vec<Option<usize>>,
    families: usize,
}

impl Tree {
    fn new(trace: &Batch) -> Self {
        let rows = trace.num_rows();
        let read = |column: Option<&FixedSizeBinaryArray>, row: usize| {
            column.filter(|column| column.is_valid(row)).map(|column| column.value(row).to_vec())
        };
        let (spans, parents) = (trace.id_column(c::SPAN_ID), trace.id_column(c::PARENT_SPAN_ID));
        let mut by_id: HashMap<Vec<u8>, usize> = HashMap::with_capacity(rows);
        for row in 0..rows {
            if let Some(id) = read(spans, row) {
                by_id.entry(id).or_insert(row);
            }
        }
        let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
        let (mut parent, mut family) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for row in 0..rows {
            let id = read(parents, row);
            // A span that names itself as its parent is a root.
            parent.push(id.as_ref().and_then(|id| by_id.get(id).copied()).filter(|p| *p != row));
            let next = numbers.len();
            family.push(id.map(|id| *numbers.entry(id).or_insert(next)));
        }
        Self { parent, family, families: numbers.len() }
    }

    /// Rows that have `relation` to one of `left`.
    fn related(&self, relation: Relation, left: &BooleanBuffer) -> Vec<bool> {
        let rows = self.parent.len();
        let mut related = vec![false; rows];
        match relation {
            Relation::Child => {
                for (row, parent) in self.parent.iter().enumerate() {
                    related[row] = parent.is_some_and(|parent| left.value(parent));
                }
            }
            Relation::Parent => {
                for row in left.set_indices() {
                    if let Some(parent) = self.parent[row] {
                        related[parent] = true;
                    }
                }
            }
            Relation::Ancestor => {
                for row in left.set_indices() {
                    let mut next = self.parent[row];
                    // What is marked already has had its own ancestors marked; that also ends a
                    // cycle, which broken ids can make.
                    while let Some(ancestor) = next.filter(|ancestor| !related[*ancestor]) {
                        related[ancestor] = true;
                        next = self.parent[ancestor];
                    }
                }
            }
            Relation::Descendant => {
                let mut known = vec![false; rows];
                let mut path = Vec::new();
                for start in 0..rows {
                    let (mut row, mut below) = (start, false);
                    path.clear();
                    loop {
                        if known[row] {
                            below = related[row];
                            break;
                        }
                        known[row] = true;
                        path.push(row);
                        match self.parent[row] {
                            Some(parent) => row = parent,
                            None => {
                                path.pop();
                                below |= left.value(row);
                                break;
                            }
                        }
                    }
                    // From the top down: a row is below what its parent is, or is below, of.
                    if let Some(top) = path.last().and_then(|last| self.parent[*last]) {
                        below |= left.value(top);
                    }
                    for row in path.iter().rev() {
                        related[*row] = below;
                        below |= left.value(*row);
                    }
                }
            }
            Relation::Sibling => {
                let mut selected = vec![0usize; self.families];
                for row in left.set_indices() {
                    if let Some(family) = self.family[row] {
                        selected[family] += 1;
                    }
                }
                for (row, family) in self.family.iter().enumerate() {
                    let own = usize::from(left.value(row));
                    related[row] = family.is_some_and(|family| selected[family] > own);
                }
            }
        }
        related
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, operator, right, level) = match self {
            Self::Select(selector) => return selector.fmt(f),
            Self::Or(left, right) => (left, "||", right, 0),
            Self::And(left, right) => (left, "&&", right, 1),
            Self::Structural { relation, negated, left, right } => {
                let (plain, not) = relation.text();
                (left, if *negated { not } else { plain }, right, 2)
            }
        };
        // Operators group to the left, so a right side of the same level needs brackets.
        for (side, bound) in [(left, level), (right, level + 1)] {
            if bound != level {
                write!(f, " {operator} ")?;
            }
            if side.level() < bound { write!(f, "({side})")? } else { side.fmt(f)? }
        }
        Ok(())
    }
}

impl Query {
    fn level(&self) -> u8 {
        match self {
            Self::Or(..) => 0,
            Self::And(..) => 1,
            Self::Structural { .. } => 2,
            Self::Select(_) => 3,
        }
    }
}
