//! Queries over whole traces: selectors joined by TraceQL's structural operators.
//!
//! `{ A } > { B }` selects the spans that B selects and whose parent A selects. A negated operator
//! selects those for which that is not so, also where A selects nothing: `{ child } !< { parent }`
//! is "a parent without such a child".

use std::collections::BTreeSet;
use std::fmt;

use arrow::array::BooleanArray;
use arrow::buffer::BooleanBuffer;

use super::tree::Tree;
use super::{BatchIndex, Columns, Expr, Field, Selector, SelectorError, parse_query, whole};
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
    /// What has, or has not, a relation to what the other side selects.
    Structural {
        /// The relation.
        relation: Relation,
        /// What is selected by it.
        keep: Keep,
        /// The left side.
        left: Box<Query>,
        /// The right side.
        right: Box<Query>,
    },
}

/// What a structural operator selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Keep {
    /// `>`: of the right side, what has the relation to one of the left.
    Right,
    /// `!>`: of the right side, what has it to none of the left.
    Unrelated,
    /// `&>`: of both sides, what has it to one of the other.
    Both,
}

impl Keep {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Right, Self::Unrelated, Self::Both];
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

    /// The operator that selects `keep`.
    pub fn text(self, keep: Keep) -> &'static str {
        let (right, unrelated, both) = match self {
            Self::Child => (">", "!>", "&>"),
            Self::Descendant => (">>", "!>>", "&>>"),
            Self::Parent => ("<", "!<", "&<"),
            Self::Ancestor => ("<<", "!<<", "&<<"),
            Self::Sibling => ("~", "!~", "&~"),
        };
        match keep {
            Keep::Right => right,
            Keep::Unrelated => unrelated,
            Keep::Both => both,
        }
    }

    /// The relation with both sides exchanged.
    pub fn inverse(self) -> Self {
        match self {
            Self::Child => Self::Parent,
            Self::Parent => Self::Child,
            Self::Descendant => Self::Ancestor,
            Self::Ancestor => Self::Descendant,
            Self::Sibling => Self::Sibling,
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

    /// A query for the spans that satisfy `expr`, which may ask about their whole trace.
    ///
    /// # Errors
    /// As of [`Selector::new`].
    pub fn of_spans(expr: Expr) -> Result<Self, SelectorError> {
        Selector::over_traces(SignalKind::Spans, expr).map(Self::Select)
    }

    /// The selector, if the query is no more than one and asks about single rows: it then needs no
    /// whole traces.
    pub fn as_selector(&self) -> Option<&Selector> {
        match self {
            Self::Select(selector) if !selector.is_whole() => Some(selector),
            _ => None,
        }
    }

    /// Selectors of single rows by which the query can be answered without whole traces: in a trace in
    /// which each of them selects something, it selects all that any of them selects, and nothing in
    /// others. `None` if the query asks for more than that.
    pub fn conjunction(&self) -> Option<Vec<Selector>> {
        match self {
            Self::Select(selector) => (!selector.is_whole()).then(|| vec![selector.clone()]),
            Self::And(left, right) => Some([left.conjunction()?, right.conjunction()?].concat()),
            Self::Or(left, right) => match [left.conjunction()?, right.conjunction()?].concat() {
                sides if sides.len() == 2 => Some(vec![Selector::any(&sides)?]),
                _ => None,
            },
            Self::Structural { .. } => None,
        }
    }

    /// Selectors of which at least one selects a span in every trace in which the query selects
    /// anything: for finding candidate traces. Where either of two sides would do, that is taken for
    /// which there are fewer `rows` to be read.
    pub fn candidates(&self, rows: &mut dyn FnMut(&Selector) -> u64) -> Vec<Selector> {
        match self {
            Self::Select(selector) => vec![selector.relaxed()],
            Self::And(left, right) => {
                let (left, right) = (left.candidates(rows), right.candidates(rows));
                let mut all = |side: &[Selector]| {
                    side.iter().map(&mut *rows).fold(0u64, |sum, rows| sum.saturating_add(rows))
                };
                if all(&right) < all(&left) { right } else { left }
            }
            Self::Or(left, right) => [left.candidates(rows), right.candidates(rows)].concat(),
            Self::Structural { right, .. } => right.candidates(rows),
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
        if let Some(selector) = self.as_selector() {
            return selector.mask(trace);
        }
        let tree = Tree::new(trace);
        let mut fields = BTreeSet::new();
        self.whole_fields(&mut fields);
        let columns = whole::columns(trace, &tree, &fields);
        BooleanArray::new(self.eval(&BatchIndex::with(trace, &columns), &tree), None)
    }

    /// The fields that it takes the whole trace to know.
    fn whole_fields<'q>(&'q self, fields: &mut BTreeSet<&'q Field>) {
        match self {
            Self::Select(selector) => whole::fields(selector.expr(), fields),
            Self::And(left, right)
            | Self::Or(left, right)
            | Self::Structural { left, right, .. } => {
                left.whole_fields(fields);
                right.whole_fields(fields);
            }
        }
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
            Self::Structural { relation, keep, left, right } => {
                let (left, right) = (left.eval(index, tree), right.eval(index, tree));
                let to_left = tree.related(*relation, &left);
                let to_right = match keep {
                    Keep::Both => tree.related(relation.inverse(), &right),
                    Keep::Right | Keep::Unrelated => Vec::new(),
                };
                BooleanBuffer::collect_bool(right.len(), |row| match keep {
                    Keep::Right => right.value(row) && to_left[row],
                    Keep::Unrelated => right.value(row) && !to_left[row],
                    Keep::Both => {
                        right.value(row) && to_left[row] || left.value(row) && to_right[row]
                    }
                })
            }
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, operator, right, level) = match self {
            Self::Select(selector) => return selector.fmt(f),
            Self::Or(left, right) => (left, "||", right, 0),
            Self::And(left, right) => (left, "&&", right, 1),
            Self::Structural { relation, keep, left, right } => {
                (left, relation.text(*keep), right, 2)
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
