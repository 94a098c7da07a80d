//! A selector as alternatives, each of comparisons that must hold together.

use lacuna_signal::selector::{Expr, Field, Intrinsic, Literal, Op, Operand};

use super::{Demand, SpanKind, StatusCode};

/// Alternatives are multiplied out up to so many.
const MAX: usize = 256;

/// Comparisons with literals that must hold together, and others that must not hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms<'a> {
    pub(super) wants: Vec<Demand<'a>>,
    pub(super) refuses: Vec<Demand<'a>>,
}

impl<'a> Terms<'a> {
    /// A field of which no value is left, of those that have few.
    pub(super) fn impossible(&self) -> Option<&'a Field> {
        let left = |field: &Field, value: &Literal| {
            let mut of_it = self.wants.iter().filter(|demand| demand.field == field);
            of_it.all(|demand| match demand.op {
                Op::Eq => demand.literal == value,
                Op::Ne => demand.literal != value,
                _ => true,
            })
        };
        self.wants.iter().map(|demand| demand.field).find(|field| {
            let any = match field {
                Field::Intrinsic(Intrinsic::Status) => {
                    StatusCode::ALL.iter().any(|s| left(field, &Literal::Status(*s)))
                }
                Field::Intrinsic(Intrinsic::Kind) => {
                    SpanKind::ALL.iter().any(|kind| left(field, &Literal::Kind(*kind)))
                }
                _ => true,
            };
            !any
        })
    }

    fn and(&self, other: &Self) -> Self {
        let join = |a: &[Demand<'a>], b: &[Demand<'a>]| [a, b].concat();
        Self {
            wants: join(&self.wants, &other.wants),
            refuses: join(&self.refuses, &other.refuses),
        }
    }
}

/// `expr`, or its opposite, as alternatives; none of them if it is false. Of what would be too many
/// alternatives is taken that they may be true.
pub(super) fn terms(expr: &Expr, negated: bool) -> Vec<Terms<'_>> {
    match expr {
        Expr::Const(truth) if *truth == negated => Vec::new(),
        Expr::Const(_) => vec![Terms::default()],
        Expr::Not(inner) => terms(inner, !negated),
        Expr::And(parts) if !negated => all_of(parts, negated),
        Expr::Or(parts) if negated => all_of(parts, negated),
        Expr::And(parts) | Expr::Or(parts) => {
            let list: Vec<_> = parts.iter().flat_map(|part| terms(part, negated)).collect();
            if list.len() <= MAX { list } else { vec![Terms::default()] }
        }
        Expr::Compare { field, op, value: Operand::Literal(literal) } => {
            let demand = Demand { source: expr, field, op: *op, literal };
            let mut terms = Terms::default();
            match negated.then(|| opposite(field, *op, literal)) {
                None => terms.wants.push(demand),
                Some(Some(op)) => terms.wants.push(Demand { op, ..demand }),
                Some(None) => terms.refuses.push(demand),
            }
            vec![terms]
        }
        // Of two fields nothing can be said.
        Expr::Compare { .. } => vec![Terms::default()],
    }
}

fn all_of(parts: &[Expr], negated: bool) -> Vec<Terms<'_>> {
    let mut parts: Vec<_> = parts.iter().map(|part| terms(part, negated)).collect();
    // What has few alternatives first; the order of the others stays.
    parts.sort_by_key(Vec::len);
    let mut product = vec![Terms::default()];
    for alternatives in parts {
        if product.len() * alternatives.len() > MAX {
            break;
        }
        let pairs = product.iter().flat_map(|a| alternatives.iter().map(move |b| a.and(b)));
        product = pairs.collect();
    }
    product
}

/// The operator that holds just where `op` does not, of a field that every signal has; what a signal
/// may lack is also not equal by not being there.
fn opposite(field: &Field, op: Op, literal: &Literal) -> Option<Op> {
    let always = matches!(
        field,
        Field::Intrinsic(
            Intrinsic::Name | Intrinsic::Status | Intrinsic::Kind | Intrinsic::Duration
        )
    );
    if !always || *literal == Literal::Nil {
        return None;
    }
    Some(match op {
        Op::Eq => Op::Ne,
        Op::Ne => Op::Eq,
        Op::Match => Op::NotMatch,
        Op::NotMatch => Op::Match,
        Op::Lt => Op::Ge,
        Op::Le => Op::Gt,
        Op::Gt => Op::Le,
        Op::Ge => Op::Lt,
    })
}
