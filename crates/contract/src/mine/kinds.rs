//! Kinds of event: what a contract's side can tell apart.
//!
//! A span's kind is its service, name, span kind, whether it failed, and how it went where an
//! attribute says so (`transaction.result = "success"`): an attempt that was given up is another
//! event than one that succeeded, though both have one name. A log record's kind is its event name
//! or, without one, the template of its text.

use std::collections::BTreeSet;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use lacuna_signal::SignalKind;
use lacuna_signal::selector::{
    Expr, Field, FieldScope, Intrinsic, Literal, Op, Selector, SpanKind, StatusCode,
};

/// Kinds of event are told apart up to so many; what comes later is passed over, and counted.
const MAX_KINDS: usize = 4_096;
/// An attribute with more values than these does not say how something went.
const MAX_OUTCOMES: usize = 12;
/// What an outcome's event is about (`lacuna-instrument`).
pub(super) const ABOUT: &str = "outcome.name";
/// Last parts of the names of attributes that say how something went.
const OUTCOME_WORDS: [&str; 4] = ["result", "outcome", "success", "decision"];

/// A kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) service: String,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum What {
    Span {
        name: String,
        kind: u8,
        failed: bool,
        /// An attribute that says how it went, and what it says.
        outcome: Option<(String, Said)>,
    },
    /// A log record with an event name, and what it is about where it says so.
    Event { name: String, about: Option<String> },
    /// A log record whose text fits a template: its words, and the expression for it.
    Text { words: String, pattern: String },
}

/// What an attribute says of how something went: types are strict in selectors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Said {
    Text(String),
    Flag(bool),
}

/// How much a kind of event says of the work that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It is a step of it and no more.
    Step,
    /// It says how something went.
    Outcome,
    /// The work begins with it, or it is a message: others see it.
    Border,
}

impl Kind {
    pub(super) fn signal(&self) -> SignalKind {
        match self.what {
            What::Span { .. } => SignalKind::Spans,
            _ => SignalKind::Logs,
        }
    }

    /// A name for it, for people.
    pub(super) fn name(&self) -> &str {
        match &self.what {
            What::Event { about: Some(about), .. } => about,
            What::Span { name, .. } | What::Event { name, .. } => name,
            What::Text { words, .. } => words,
        }
    }

    fn span_kind(&self) -> Option<SpanKind> {
        match self.what {
            What::Span { kind, .. } => SpanKind::from_code(kind),
            _ => None,
        }
    }

    /// Whether it is the handling of a message: what happens inside it is what comes of the message.
    pub(super) fn consumes(&self) -> bool {
        self.span_kind() == Some(SpanKind::Consumer)
    }

    /// Whether it is the sending of a message.
    pub(super) fn produces(&self) -> bool {
        self.span_kind() == Some(SpanKind::Producer)
    }

    /// How much it says of the work that it is part of.
    pub(super) fn rank(&self) -> Rank {
        match &self.what {
            What::Span { outcome, .. } => match (self.span_kind(), outcome) {
                (Some(SpanKind::Server | SpanKind::Consumer | SpanKind::Producer), _) => {
                    Rank::Border
                }
                (_, Some(_)) => Rank::Outcome,
                (_, None) => Rank::Step,
            },
            What::Event { .. } => Rank::Outcome,
            What::Text { .. } => Rank::Step,
        }
    }

    /// The selector of its events, and of none of its `siblings`'.
    fn selector(&self, siblings: &Siblings) -> String {
        let mut parts = Vec::new();
        if !self.service.is_empty() {
            parts.push(Expr::service(self.service.as_str()));
        }
        match &self.what {
            What::Span { name, failed, outcome, .. } => {
                parts.push(Expr::text(Intrinsic::Name, name.as_str()));
                if let (true, Some(kind)) = (siblings.kinds, self.span_kind()) {
                    parts.push(Expr::compare(Intrinsic::Kind, Op::Eq, Literal::Kind(kind)));
                }
                let op = if *failed { Op::Eq } else { Op::Ne };
                parts.push(Expr::compare(
                    Intrinsic::Status,
                    op,
                    Literal::Status(StatusCode::Error),
                ));
                if let Some((key, said)) = outcome {
                    let field = Field::attribute(FieldScope::Span, key.as_str());
                    let literal = match said {
                        Said::Flag(flag) => Literal::Bool(*flag),
                        Said::Text(text) => Literal::Str(text.clone()),
                    };
                    parts.push(Expr::compare(field, Op::Eq, literal));
                }
                for key in &siblings.outcomes {
                    let field = Field::attribute(FieldScope::Span, key.as_str());
                    parts.push(Expr::compare(field, Op::Eq, Literal::Nil));
                }
            }
            What::Event { name, about } => {
                parts.push(Expr::text(Intrinsic::EventName, name.as_str()));
                let field = Field::attribute(FieldScope::Log, ABOUT);
                if let Some(about) = about {
                    parts.push(Expr::text(field, about.as_str()));
                } else if siblings.about {
                    parts.push(Expr::compare(field, Op::Eq, Literal::Nil));
                }
            }
            What::Text { pattern, .. } => {
                let pattern = Literal::Str(pattern.clone());
                parts.push(Expr::compare(Intrinsic::Body, Op::Match, pattern));
            }
        }
        let selector = Selector::new(self.signal(), Expr::all(parts));
        selector.map(|selector| selector.to_string()).unwrap_or_default()
    }

    /// What is needed to tell it from `other` beside what its selector says anyway.
    fn told_from(&self, other: &Self, siblings: &mut Siblings) {
        if self.service != other.service {
            return;
        }
        match (&self.what, &other.what) {
            (
                What::Span { name, kind, failed, outcome },
                What::Span { name: same, kind: other_kind, failed: as_well, outcome: said },
            ) if name == same && failed == as_well => {
                // A span without a kind can be told by none: the other one's selector leaves it out.
                siblings.kinds |= kind != other_kind;
                // A kind goes by the first attribute of those that say how something went.
                if let Some((key, _)) = said
                    && outcome.as_ref().is_none_or(|(own, _)| key < own)
                {
                    siblings.outcomes.insert(key.clone());
                }
            }
            (What::Event { name, about: None }, What::Event { name: same, about: Some(_) }) => {
                siblings.about |= name == same;
            }
            _ => {}
        }
    }
}

/// What tells a kind from others of the same name.
#[derive(Debug, Default)]
struct Siblings {
    /// Spans of the name are of several span kinds.
    kinds: bool,
    /// Attributes that only others have.
    outcomes: BTreeSet<String>,
    /// Others say what they are about.
    about: bool,
}

/// All kinds that were seen, numbered in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Kinds {
    list: Vec<Kind>,
    by_kind: HashMap<Kind, u16, RandomState>,
    outcomes: HashMap<String, HashSet<String, RandomState>, RandomState>,
    /// Events of kinds beyond the bound.
    pub(super) passed_over: u64,
}

impl Kinds {
    pub(super) fn get(&self, kind: u16) -> &Kind {
        &self.list[usize::from(kind)]
    }

    /// The selector of a kind's events: wide enough for all that were counted as it, and no wider.
    pub(super) fn selector(&self, kind: u16) -> String {
        let kind = self.get(kind);
        let mut siblings = Siblings::default();
        self.list.iter().for_each(|other| kind.told_from(other, &mut siblings));
        kind.selector(&siblings)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The number of a kind.
    pub(super) fn number(&mut self, kind: Kind) -> Option<u16> {
        if let Some(known) = self.by_kind.get(&kind) {
            return Some(*known);
        }
        let next = u16::try_from(self.list.len()).ok().filter(|_| self.list.len() < MAX_KINDS);
        let Some(next) = next else {
            self.passed_over += 1;
            return None;
        };
        self.list.push(kind.clone());
        self.by_kind.insert(kind, next);
        Some(next)
    }

    /// Whether attribute `key` may say how something went.
    pub(super) fn says_outcome(&self, key: &str) -> bool {
        let last = key.rsplit('.').next().unwrap_or(key);
        let last = last.rsplit('_').next().unwrap_or(last);
        OUTCOME_WORDS.contains(&last)
            && self.outcomes.get(key).is_none_or(|values| values.len() <= MAX_OUTCOMES)
    }

    /// Whether `value` of attribute `key` still tells kinds apart: one of few.
    pub(super) fn is_outcome(&mut self, key: &str, value: &str) -> bool {
        if value.is_empty() || value.len() > 40 {
            return false;
        }
        if let Some(values) = self.outcomes.get_mut(key) {
            if !values.contains(value) {
                values.insert(value.to_owned());
            }
            return values.len() <= MAX_OUTCOMES;
        }
        let values = self.outcomes.entry(key.to_owned()).or_default();
        values.insert(value.to_owned());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(kind: u8, outcome: Option<(&str, Said)>) -> Kind {
        let outcome = outcome.map(|(key, said)| (key.to_owned(), said));
        let what = What::Span { name: "assign".to_owned(), kind, failed: false, outcome };
        Kind { service: "els".to_owned(), what }
    }

    /// Selectors of kinds that share a name, in order.
    fn selectors(list: Vec<Kind>) -> Vec<String> {
        let mut kinds = Kinds::default();
        let numbers: Vec<u16> = list.into_iter().filter_map(|kind| kinds.number(kind)).collect();
        numbers.into_iter().map(|number| kinds.selector(number)).collect()
    }

    #[test]
    fn a_kind_leaves_out_what_only_others_have() {
        let said = |text: &str| Said::Text(text.to_owned());
        let found = selectors(vec![
            span(1, None),
            span(1, Some(("a.result", said("won")))),
            span(1, Some(("b.success", Said::Flag(true)))),
        ]);
        let alone = selectors(vec![span(1, None)]);
        assert!(!alone[0].contains("nil") && !alone[0].contains("kind"), "{alone:?}");
        let nil = |selector: &str, key: &str| selector.contains(&format!("span.{key} = nil"));
        assert!(nil(&found[0], "a.result") && nil(&found[0], "b.success"), "{found:?}");
        // A span that has both goes by the first.
        assert!(!found[1].contains("nil") && nil(&found[2], "a.result"), "{found:?}");
        assert!(found[2].contains("span.b.success = true"), "{found:?}");
        assert!(!found.iter().any(|selector| selector.contains("kind")), "{found:?}");
        let kinds = selectors(vec![span(1, None), span(4, None)]);
        assert!(kinds[0].contains("kind = internal") && kinds[1].contains("kind = producer"));
    }

    #[test]
    fn an_event_that_does_not_say_what_it_is_about_is_not_one_that_does() {
        let event = |about: Option<&str>| Kind {
            service: "els".to_owned(),
            what: What::Event { name: "x.outcome".to_owned(), about: about.map(str::to_owned) },
        };
        let found = selectors(vec![event(None), event(Some("slot"))]);
        assert!(found[0].contains("log.outcome.name = nil"), "{found:?}");
        assert!(!found[1].contains("nil"), "{found:?}");
    }
}
