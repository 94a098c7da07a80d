//! From relations to contracts: the best key for each, what others explain left out, written as
//! YAML that a person reviews.

use std::collections::BTreeSet;
use std::fmt::Write;

use lacuna_signal::selector::{Field as SelectorField, FieldScope, Literal};
use serde::{Serialize, Serializer};

use super::Miner;
use super::fields::{self, Field};
use super::judge::{Middle, Pair, pairs, wilson};
use super::kinds::{Kind, Kinds};
use super::prune::{
    Best, drop_explained, drop_inner_causes, drop_inside, drop_mirrored, drop_mutual,
    drop_spoken_for, drop_steps, drop_synchronous,
};

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
    /// The key's field on each side; one if both sides have the same.
    #[serde(serialize_with = "key_once")]
    pub key: (String, String),
    /// Deadline, nanoseconds; of a precedence, how long before the outcome its cause may be.
    pub within: i64,
    /// Whether what lies before the data's first signal is unknown: of a precedence and a balance,
    /// which look back.
    #[serde(serialize_with = "before_data", skip_serializing_if = "std::ops::Not::not")]
    pub before_data: bool,
    /// Lower end of the support's 95 % confidence interval, 0 to 1.
    pub support: f64,
    /// Keys that it held for.
    pub held: u64,
    /// Keys that it could have held for.
    pub n: u64,
    /// Delay from cause to outcome that half, 99 % and all of the keys did not exceed, nanoseconds.
    pub delays: [i64; 3],
    /// Up to three values of the key: the first that came.
    pub examples: Vec<String>,
    /// Whether the outcome comes while the cause is still at work.
    #[serde(skip)]
    inner: bool,
}

/// As contract files write it.
fn before_data<S: Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    "unknown".serialize(serializer)
}

/// As contract files write it: a list, or a list for each side.
fn key_once<S: Serializer>(key: &(String, String), serializer: S) -> Result<S::Ok, S::Error> {
    let (when, expect) = key;
    if when == expect {
        return [when].serialize(serializer);
    }
    #[derive(Serialize)]
    struct Sides<'a> {
        when: [&'a str; 1],
        expect: [&'a str; 1],
    }
    Sides { when: [when], expect: [expect] }.serialize(serializer)
}

pub(super) fn propose(miner: Miner) -> Vec<Proposal> {
    if miner.first >= miner.last {
        return Vec::new();
    }
    let options = &miner.options;
    let kinds = &miner.kinds;
    let enough = |field: &Field| field.keys.len() as u64 >= options.min_keys;
    let mut fields: Vec<Field> = miner.fields.into_iter().filter(enough).collect();
    fields::join(&mut fields, options.min_keys, |field, kind| spelling(kinds, field, kind));
    // An outcome that would lie beyond the data's end cannot be missed.
    let margin = ((miner.last - miner.first) / 10).min(60 * SECOND);
    let middle = Middle {
        early: miner.first.saturating_add(margin),
        late: miner.last.saturating_sub(margin),
    };
    // Of what needs longer than that nothing could be said in data as long as this.
    let half = (miner.last - miner.first) / 2;
    let mut best: [Best; 4] = Default::default();
    let mut all = Best::new();
    for (at, field) in fields.iter().enumerate() {
        for (sides, pair) in pairs(field, kinds, middle, options.min_keys) {
            for (relation, best) in Relation::ALL.into_iter().zip(&mut best) {
                let (held, n) = relation.support(&pair);
                let enough = held >= options.min_keys
                    && wilson(held, n) >= options.min_support
                    && (!relation.looks_back() || relation.time(&pair) <= half);
                // Of two keys the one with more values is the closer one.
                let better = |(_, known): &(usize, Pair)| relation.support(known).0 >= held;
                if enough && !best.get(&sides).is_some_and(better) {
                    best.insert(sides, (at, pair.clone()));
                }
            }
            if all.get(&sides).is_none_or(|(_, known)| known.followed < pair.followed) {
                all.insert(sides, (at, pair));
            }
        }
    }
    let once: BTreeSet<(u16, u16)> = best[2].keys().copied().collect();
    let [response, precedence, exactly, balance] = &mut best;
    drop_mutual(response);
    for best in [&mut *response, &mut *precedence, &mut *exactly, &mut *balance] {
        drop_spoken_for(best, &all, kinds);
    }
    for best in [&mut *response, &mut *exactly, &mut *balance] {
        drop_synchronous(best, kinds);
        drop_steps(best, &all, kinds, false);
        drop_inner_causes(best, &all, kinds);
    }
    drop_inside(precedence);
    drop_steps(precedence, &all, kinds, true);
    drop_inner_causes(precedence, &all, kinds);
    drop_mirrored(balance);
    // Response and exactly are one chain: a link of either explains what spans it.
    let before = response.clone();
    drop_explained(response, kinds, |pair| once.contains(&pair));
    exactly.retain(|sides, _| response.contains_key(sides) || !before.contains_key(sides));
    drop_explained(precedence, kinds, |_| true);
    drop_explained(balance, kinds, |_| true);
    // Exactly once says what a response says, and more.
    response.retain(|sides, _| !exactly.contains_key(sides));

    let mut proposals = Vec::new();
    for (relation, best) in Relation::ALL.into_iter().zip(&best) {
        for ((a, b), (field, pair)) in best {
            proposals.push(relation.proposal(kinds, (*a, *b), &fields[*field], pair));
        }
    }
    // Worth: what crosses from one piece of work to another first, then what concerns most keys,
    // then what is surest.
    proposals.sort_by(|a, b| {
        a.inner
            .cmp(&b.inner)
            .then(b.held.cmp(&a.held))
            .then(b.support.total_cmp(&a.support))
            .then_with(|| a.name.cmp(&b.name))
    });
    proposals.truncate(options.max_proposals);
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

/// How a kind's events carry a field.
fn spelling(kinds: &Kinds, field: &Field, kind: u16) -> String {
    if let Some(spelt) = field.spelt.get(&kind) {
        return spelt.clone();
    }
    let scope = match kinds.get(kind).signal() {
        lacuna_signal::SignalKind::Logs => FieldScope::Log,
        _ => FieldScope::Span,
    };
    SelectorField::attribute(scope, field.name.as_str()).to_string()
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

    /// Whether an event may be part of it that lies before the one that it is asked of.
    fn looks_back(self) -> bool {
        matches!(self, Self::Precedence | Self::Balance)
    }

    /// How long it took where it held, nanoseconds: what the deadline must hold.
    fn time(self, pair: &Pair) -> i64 {
        match self {
            Self::Response | Self::Exactly => pair.quantile(0.999),
            Self::Precedence => pair.longest,
            Self::Balance => pair.widest,
        }
    }

    fn proposal(self, kinds: &Kinds, (a, b): (u16, u16), field: &Field, pair: &Pair) -> Proposal {
        let (held, n) = self.support(pair);
        let (kind, joint) = match self {
            Self::Response => ("response", "leads-to"),
            Self::Precedence => ("precedence", "comes-before"),
            Self::Exactly => ("exactly", "leads-once-to"),
            Self::Balance => ("balance", "balances"),
        };
        let (when, expect): (&Kind, &Kind) = (kinds.get(a), kinds.get(b));
        let example = |key: &u32| field.keys.get(*key as usize).map(|key| key.value.to_string());
        Proposal {
            name: format!("{}-{joint}-{}", slug(when.name()), slug(expect.name())),
            kind,
            when: kinds.selector(a),
            expect: kinds.selector(b),
            key: (spelling(kinds, field, a), spelling(kinds, field, b)),
            within: deadline(self.time(pair)),
            before_data: self.looks_back(),
            support: wilson(held, n),
            held,
            n,
            delays: [pair.quantile(0.5), pair.quantile(0.99), pair.quantile(1.0)],
            examples: pair.examples.iter().filter_map(example).collect(),
            inner: pair.is_inside() || pair.is_together(),
        }
    }
}

/// Three times the tail and at least ten seconds more, rounded up to what a person would write: a
/// deadline is to tell what never comes from what is slow today.
fn deadline(tail: i64) -> i64 {
    let tail = tail.max(0);
    let wanted = tail.saturating_mul(3).max(tail.saturating_add(10 * SECOND));
    let mut unit = SECOND;
    loop {
        for step in [1, 2, 5, 10, 15, 30] {
            if unit.saturating_mul(step) >= wanted {
                return unit.saturating_mul(step);
            }
        }
        unit = unit.saturating_mul(60);
    }
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
    writeln!(text, "    within: {}", Literal::Duration(proposal.within))?;
    if proposal.before_data {
        writeln!(text, "    before_data: unknown")?;
    }
    Ok(())
}

/// YAML's single quotes, in which only the quote itself is special.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
