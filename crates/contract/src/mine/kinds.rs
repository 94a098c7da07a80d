//! Kinds of event: what a contract's side can tell apart.
//!
//! A span's kind is its service, name, span kind, whether it failed, and how it went where an
//! attribute says so (`transaction.result = "success"`): an attempt that was given up is another
//! event than one that succeeded, though both have one name. A log record's kind is its event name
//! or, without one, the template of its text.

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
        outcome: Option<(String, String)>,
    },
    /// A log record with an event name, and what it is about where it says so.
    Event { name: String, about: Option<String> },
    /// A log record whose text fits a template: its words, and the expression for it.
    Text { words: String, pattern: String },
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

    /// The selector of its events.
    pub(super) fn selector(&self) -> String {
        let mut parts = Vec::new();
        if !self.service.is_empty() {
            parts.push(Expr::service(self.service.as_str()));
        }
        match &self.what {
            What::Span { name, failed, outcome, .. } => {
                parts.push(Expr::text(Intrinsic::Name, name.as_str()));
                let op = if *failed { Op::Eq } else { Op::Ne };
                parts.push(Expr::compare(
                    Intrinsic::Status,
                    op,
                    Literal::Status(StatusCode::Error),
                ));
                if let Some((key, value)) = outcome {
                    let field = Field::attribute(FieldScope::Span, key.as_str());
                    let literal = match value.as_str() {
                        "true" | "false" if key.ends_with("success") => {
                            Literal::Bool(value == "true")
                        }
                        _ => Literal::Str(value.clone()),
                    };
                    parts.push(Expr::compare(field, Op::Eq, literal));
                }
            }
            What::Event { name, about } => {
                parts.push(Expr::text(Intrinsic::EventName, name.as_str()));
                if let Some(about) = about {
                    let field = Field::attribute(FieldScope::Log, ABOUT);
                    parts.push(Expr::text(field, about.as_str()));
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
