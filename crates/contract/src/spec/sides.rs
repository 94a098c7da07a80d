//! The sides of a contract: selectors and sums.

use std::ops::Range;

use lacuna_signal::SignalKind;
use lacuna_signal::selector::{FieldAccess, Selector, SelectorError};

use super::read::Reader;
use super::{Side, satisfiable};

/// A side whose key is not known yet.
pub(super) struct RawSide {
    selector: Selector,
    sum: Option<FieldAccess>,
}

/// A side as far as it could be read.
pub(super) enum Parsed {
    /// It is not there, or is not text.
    Absent,
    /// Something is wrong with it, but it is plain what it was to select: its key can be checked.
    Broken(SignalKind),
    /// It is right.
    Good(RawSide),
}

impl Parsed {
    /// What it selects.
    pub(super) fn kind(&self) -> Option<SignalKind> {
        match self {
            Self::Absent => None,
            Self::Broken(kind) => Some(*kind),
            Self::Good(side) => Some(side.selector.kind()),
        }
    }

    pub(super) fn good(self) -> Option<RawSide> {
        match self {
            Self::Good(side) => Some(side),
            _ => None,
        }
    }
}

/// Reads a selector or, for a balance, `count { … }` or `sum(span.x) { … }`.
pub(super) fn side(
    reader: &mut Reader<'_>,
    text: &str,
    span: &Range<usize>,
    balance: bool,
) -> Parsed {
    match good_side(reader, text, span, balance) {
        Some(side) => Parsed::Good(side),
        None => {
            let head = text.split('{').next().unwrap_or_default();
            let logs = head.split([' ', ')']).any(|word| word == "log");
            Parsed::Broken(if logs { SignalKind::Logs } else { SignalKind::Spans })
        }
    }
}

fn good_side(
    reader: &mut Reader<'_>,
    text: &str,
    span: &Range<usize>,
    balance: bool,
) -> Option<RawSide> {
    let (sum, offset) = if balance { figure(reader, text, span)? } else { (None, 0) };
    let selector = match Selector::parse(&text[offset..]) {
        Ok(selector) => selector,
        Err(error) => {
            selector_error(reader, text, span, offset, &error);
            return None;
        }
    };
    if selector.kind() == SignalKind::Points {
        let problem = "metric points are not events that a contract could follow";
        let help = "select spans with `{ … }` or log records with `log { … }`";
        reader.fail_inside(span, text, (offset, text.len()), problem, help);
        return None;
    }
    let sum = match sum {
        Some((name, at)) => match FieldAccess::parse(selector.kind(), name) {
            Ok(field) => Some(field),
            Err(error) => {
                selector_error(reader, text, span, at, &error);
                return None;
            }
        },
        None => None,
    };
    if let Some(never) = satisfiable::never(selector.expr()) {
        let problem = format!("the selector matches nothing: {}", never.why);
        // The term alone, where it stands as it is written back.
        let place = match text[offset..].find(&never.term) {
            Some(at) if !never.term.is_empty() => (offset + at, offset + at + never.term.len()),
            _ => (offset, text.len()),
        };
        reader.fail_inside(span, text, place, &problem, &never.help);
        return None;
    }
    Some(RawSide { selector, sum })
}

fn selector_error(
    reader: &mut Reader<'_>,
    text: &str,
    span: &Range<usize>,
    offset: usize,
    error: &SelectorError,
) {
    let start = offset + error.offset();
    // At the end of a text there is nothing to underline but its last character.
    let place = (start.min(text.len()), start + error.len());
    reader.fail_inside(span, text, place, error.problem(), error.help());
}

/// What a balance's side begins with: the field to add up and its offset, and where the selector
/// begins.
fn figure<'t>(
    reader: &mut Reader<'_>,
    text: &'t str,
    span: &Range<usize>,
) -> Option<(Option<(&'t str, usize)>, usize)> {
    let start = text.len() - text.trim_start().len();
    let body = &text[start..];
    if let Some(rest) = body.strip_prefix("count") {
        return Some((None, text.len() - rest.len()));
    }
    if let Some(rest) = body.strip_prefix("sum") {
        let rest = rest.trim_start();
        if let Some((field, tail)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            let trimmed = field.trim_start();
            let at = text.len() - tail.len() - 1 - trimmed.len();
            return Some((Some((trimmed.trim_end(), at)), text.len() - tail.len()));
        }
    }
    let help = "write `count { … }` or `sum(span.amount) { … }`";
    reader.fail_inside(span, text, (start, text.len()), "not a figure", help);
    None
}

impl RawSide {
    /// The side with its key.
    pub(super) fn with(self, key: Vec<FieldAccess>) -> Side {
        Side { selector: self.selector, key, sum: self.sum, fields: Vec::new() }
    }
}

/// Reads a duration, such as `30s` or `1h30m`.
pub(super) fn duration(text: &str) -> Option<i64> {
    lacuna_signal::selector::parse_duration(text.trim())
}

/// The one of `known` that `text` is most likely a slip of.
pub(super) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    lacuna_signal::selector::nearest(text, known)
}
