//! From relations to contracts: the best key for each, what others explain left out, written as
//! YAML that a person reviews.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use lacuna_signal::SignalKind;
use lacuna_signal::selector::{Expr, FieldScope, Intrinsic, Literal, Selector};
use serde::Serialize;

use super::judge::{Pair, pairs, wilson};
use super::{Kind, Miner};

const SECOND: i64 = 1_000_000_000;

/// A contract that the traffic suggests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposal {
    /// A name for it.
    pub name: String,
    /// `response`, `precedence`, `exactly` or `balance`.
    pub kind: &'static str,
    /// Selector of the cause, or of a balance's left side.
    pub when: String,
    /// Selector of the outcome, or of a balance's right side.
    pub expect: String,
    /// The key's field on each side.
    pub key: (String, String),
    /// Deadline, nanoseconds; none for a precedence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<i64>,
    /// Lower end of the support's 95 % confidence interval, 0 to 1.
    pub support: f64,
    /// Keys that it held for.
    pub held: u64,
    /// Keys that it could have held for.
    pub n: u64,
    /// Delay from cause to outcome that half, 99 % and all of the keys did not exceed, nanoseconds.
    pub delays: [i64; 3],
    /// Up to three values of the key.
    pub examples: Vec<String>,
}

/// Relations of one sort, by kinds of event, each under its best key.
type Best = BTreeMap<(u16, u16), (usize, Pair)>;

pub(super) fn propose(miner: &Miner) -> Vec<Proposal> {
    if miner.first >= miner.last {
        return Vec::new();
    }
    // An outcome that would lie beyond the data's end cannot be missed.
    let margin = ((miner.last - miner.first) / 10).min(60 * SECOND);
    let mut best: [Best; 4] = Default::default();
    for (at, field) in miner.fields.iter().enumerate().filter(|(_, field)| !field.rejected) {
        for (kinds, pair) in pairs(field, (miner.first, miner.last), margin) {
            for (relation, best) in Relation::ALL.into_iter().zip(&mut best) {
                let (held, n) = relation.support(&pair);
                let enough = held >= miner.options.min_keys
                    && wilson(held, n) >= miner.options.min_support
                    && pair.inside * 10 < pair.followed.max(1) * 9;
                // Of two keys the one with more values is the closer one.
                let better = |(_, known): &(usize, Pair)| relation.support(known).0 >= held;
                if enough && !best.get(&kinds).is_some_and(better) {
                    best.insert(kinds, (at, pair.clone()));
                }
            }
        }
    }
    best.iter_mut().for_each(drop_explained);
    drop_mirrored(&mut best[3]);
    let mut kinds: Vec<(&Kind, u16)> = miner.kinds.iter().map(|(kind, id)| (kind, *id)).collect();
    kinds.sort_by_key(|(_, id)| *id);
    let mut proposals = Vec::new();
    for (relation, best) in Relation::ALL.into_iter().zip(&best) {
        for ((a, b), (field, pair)) in best {
            let (a, b) = (kinds[usize::from(*a)].0, kinds[usize::from(*b)].0);
            proposals.push(relation.proposal(a, b, &miner.fields[*field].name, pair));
        }
    }
    // Worth: what concerns most keys first, then what is surest.
    proposals.sort_by(|a, b| {
        b.held.cmp(&a.held).then(b.support.total_cmp(&a.support)).then_with(|| a.name.cmp(&b.name))
    });
    proposals.truncate(miner.options.max_proposals);
    let mut names = BTreeSet::new();
    for proposal in &mut proposals {
        let base = proposal.name.clone();
        let mut i = 2;
        while !names.insert(proposal.name.clone()) {
            proposal.name = format!("{base}-{i}");
            i += 1;
        }
    }
    proposals
}

/// Drops A–C where A–B and B–C are there under the same key: B explains it.
fn drop_explained(best: &mut Best) {
    let explained: Vec<(u16, u16)> = best
        .iter()
        .filter(|((a, c), (field, _))| {
            let same = |pair: (u16, u16)| best.get(&pair).is_some_and(|(other, _)| other == field);
            best.range((*a, 0)..=(*a, u16::MAX)).any(|((_, b), _)| {
                // Two that go both ways would explain each other away.
                b != c && same((*a, *b)) && same((*b, *c)) && !same((*c, *b)) && !same((*b, *a))
            })
        })
        .map(|(kinds, _)| *kinds)
        .collect();
    explained.iter().for_each(|kinds| drop(best.remove(kinds)));
}

/// A balance holds both ways round; the one whose left side comes first is the one to read.
fn drop_mirrored(best: &mut Best) {
    let mirrored: Vec<(u16, u16)> = best
        .iter()
        .filter(|((a, b), (_, pair))| {
            let other = best.get(&(*b, *a)).map(|(_, other)| (other.followed, *a));
            other.is_some_and(|other| other > (pair.followed, *b))
        })
        .map(|(kinds, _)| *kinds)
        .collect();
    mirrored.iter().for_each(|kinds| drop(best.remove(kinds)));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Response,
    Precedence,
    Exactly,
    Balance,
}

impl Relation {
    const ALL: [Self; 4] = [Self::Response, Self::Precedence, Self::Exactly, Self::Balance];

    /// Keys for which it held, and for which it could have.
    fn support(self, pair: &Pair) -> (u64, u64) {
        match self {
            Self::Response => (pair.followed, pair.with_a),
            Self::Precedence => (pair.preceded, pair.with_b),
            Self::Exactly => (pair.once, pair.with_a),
            // Counts that are always one are a response's business.
            Self::Balance if pair.equal_many * 10 < pair.equal => (0, pair.with_any),
            Self::Balance => (pair.equal, pair.with_any),
        }
    }

    fn proposal(self, a: &Kind, b: &Kind, field: &str, pair: &Pair) -> Proposal {
        let (held, n) = self.support(pair);
        let longest = pair.quantile(1.0);
        let (kind, joint) = match self {
            Self::Response => ("response", "leads-to"),
            Self::Precedence => ("precedence", "comes-before"),
            Self::Exactly => ("exactly", "leads-once-to"),
            Self::Balance => ("balance", "balances"),
        };
        Proposal {
            name: format!("{}-{joint}-{}", slug(&a.name), slug(&b.name)),
            kind,
            when: selector(a),
            expect: selector(b),
            key: (key(a, field), key(b, field)),
            within: (self != Self::Precedence).then(|| deadline(pair.quantile(0.999))),
            support: wilson(held, n),
            held,
            n,
            delays: [pair.quantile(0.5), pair.quantile(0.99), longest],
            examples: pair.examples.clone(),
        }
    }
}

/// Three times the tail, at least a second, rounded up to what a person would write.
fn deadline(tail: i64) -> i64 {
    let wanted = tail.max(0).saturating_mul(3).max(SECOND);
    let mut unit = SECOND;
    loop {
        for step in [1, 2, 5, 10, 30] {
            if unit.saturating_mul(step) >= wanted {
                return unit.saturating_mul(step);
            }
        }
        unit = unit.saturating_mul(60);
    }
}

fn selector(kind: &Kind) -> String {
    let name = match kind.signal {
        SignalKind::Logs => Intrinsic::EventName,
        _ => Intrinsic::Name,
    };
    let name = Expr::text(name, kind.name.as_str());
    let parts = if kind.service.is_empty() {
        vec![name]
    } else {
        vec![Expr::service(kind.service.as_str()), name]
    };
    Selector::new(kind.signal, Expr::all(parts)).map(|s| s.to_string()).unwrap_or_default()
}

fn key(kind: &Kind, field: &str) -> String {
    let scope = match kind.signal {
        SignalKind::Logs => FieldScope::Log,
        _ => FieldScope::Span,
    };
    lacuna_signal::selector::Field::attribute(scope, field).to_string()
}

fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_alphanumeric() {
            slug.extend(c.to_lowercase());
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    let cut: String = slug.chars().take(60).collect();
    cut.trim_end_matches('-').to_owned()
}

/// A contract file of proposals, each with what it rests on as a comment.
pub fn to_yaml(proposals: &[Proposal]) -> String {
    let mut text = String::from("contracts:\n");
    if proposals.is_empty() {
        text.push_str("  []\n");
    }
    for proposal in proposals {
        // Writing to a string cannot fail.
        let _ = write_one(&mut text, proposal);
    }
    text
}

fn write_one(text: &mut String, proposal: &Proposal) -> std::fmt::Result {
    let time = |nanos: i64| Literal::Duration(nanos / 1_000_000 * 1_000_000);
    let [half, most, all] = proposal.delays.map(time);
    let (held, n) = (proposal.held, proposal.n);
    writeln!(text, "  # held for {held} of {n} keys, support {:.4};", proposal.support)?;
    writeln!(text, "  # delay {half} (half), {most} (99 %), {all} (longest)")?;
    for example in &proposal.examples {
        writeln!(text, "  # such as {:?}", example)?;
    }
    writeln!(text, "  - name: {}", quote(&proposal.name))?;
    writeln!(text, "    kind: {}", proposal.kind)?;
    let (left, right, count) = match proposal.kind {
        "balance" => ("left", "right", "count "),
        _ => ("when", "expect", ""),
    };
    writeln!(text, "    {left}: {}", quote(&format!("{count}{}", proposal.when)))?;
    writeln!(text, "    {right}: {}", quote(&format!("{count}{}", proposal.expect)))?;
    let (a, b) = &proposal.key;
    if a == b {
        writeln!(text, "    key: [{}]", quote(a))?;
    } else {
        writeln!(text, "    key: {{{left}: [{}], {right}: [{}]}}", quote(a), quote(b))?;
    }
    if let Some(within) = proposal.within {
        writeln!(text, "    within: {}", Literal::Duration(within))?;
    }
    Ok(())
}

/// YAML's single quotes, in which only the quote itself is special.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
