//! The sides of a contract: selectors, keys and sums.

use std::ops::Range;

use lacuna_signal::SignalKind;
use lacuna_signal::selector::{
    Expr, Field, FieldAccess, Literal, Op, Operand, Selector, SelectorError,
};

use super::Side;
use super::read::{Map, Reader};
use super::yaml::{Node, Value};

/// A side whose key is not known yet.
pub(super) struct RawSide {
    selector: Selector,
    sum: Option<FieldAccess>,
}

/// Reads a selector or, for a balance, `count { … }` or `sum(span.x) { … }`.
pub(super) fn side(
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
    if let Some(why) = contradiction(selector.expr()) {
        let help = "say what the signals have in common; join alternatives by ||";
        reader.fail_inside(span, text, (offset, text.len()), &why, help);
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

/// Why no signal can match, if that can be seen at once.
fn contradiction(expr: &Expr) -> Option<String> {
    let parts = match expr {
        Expr::Const(false) => return Some("the selector matches nothing".to_owned()),
        Expr::And(parts) => parts,
        _ => return None,
    };
    let mut required: Vec<(&Field, &Literal)> = Vec::new();
    for part in parts {
        if *part == Expr::Const(false) {
            return Some("the selector matches nothing".to_owned());
        }
        let Expr::Compare { field, op: Op::Eq, value: Operand::Literal(literal) } = part else {
            continue;
        };
        // Of several events or links, one may be this and another that.
        let name = field.to_string();
        if ["event", "link", "any"].iter().any(|scope| name.starts_with(scope)) {
            continue;
        }
        let other = required.iter().find(|(f, other)| *f == field && *other != literal);
        if let Some((_, other)) = other {
            let why = format!("`{name}` cannot be {other} and {literal} at once");
            return Some(format!("the selector matches nothing: {why}"));
        }
        required.push((field, literal));
    }
    None
}

/// Reads `key` and gives every side its fields.
pub(super) fn with_keys(
    reader: &mut Reader<'_>,
    map: &Map<'_>,
    when: RawSide,
    expect: RawSide,
    refused_by: Option<RawSide>,
    optional: bool,
) -> Option<(Side, Side, Option<Side>)> {
    let Some(node) = map.get("key") else {
        if optional {
            let refused_by = refused_by.map(|raw| raw.with(Vec::new()));
            return Some((when.with(Vec::new()), expect.with(Vec::new()), refused_by));
        }
        let help = "add `key: [span.correlation_id]`: what joins the two sides";
        reader.fail(&map.head(), "a contract without `key`", help);
        return None;
    };
    let (when_key, expect_key, refused_key) = match &node.value {
        Value::Map(entries) => {
            let get = |names: [&str; 2]| {
                entries.iter().find(|(key, _)| names.contains(&key.name.as_str())).map(|(_, n)| n)
            };
            for (key, _) in entries {
                if !["when", "expect", "left", "right", "refused_by"].contains(&key.name.as_str()) {
                    let message = format!("unknown side `{}`", key.name);
                    reader.fail(&key.span, message, "sides are when, expect and refused_by");
                }
            }
            let (Some(when), Some(expect)) = (get(["when", "left"]), get(["expect", "right"]))
            else {
                let help = "name the fields of both: `key: {when: […], expect: […]}`";
                reader.fail(&node.span, "a key that one side lacks", help);
                return None;
            };
            (when, expect, get(["refused_by", "refused_by"]).unwrap_or(expect))
        }
        _ => (node, node, node),
    };
    let whens = fields(reader, when_key, when.selector.kind(), "when");
    let expects = fields(reader, expect_key, expect.selector.kind(), "expect");
    let refusals = refused_by
        .as_ref()
        .map(|raw| fields(reader, refused_key, raw.selector.kind(), "refused_by"));
    let (whens, expects) = (whens?, expects?);
    let refusals = match refusals {
        Some(fields) => Some(fields?),
        None => None,
    };
    let lengths = refusals.iter().map(Vec::len).chain([whens.len(), expects.len()]);
    if lengths.clone().min() != lengths.max() {
        let help = "each side names as many fields, in the same order";
        reader.fail(&node.span, "the sides' keys differ in length", help);
        return None;
    }
    if whens.is_empty() && !optional {
        reader.fail(&node.span, "an empty key", "name at least one field that both sides have");
        return None;
    }
    let refused_by = refused_by.zip(refusals).map(|(raw, key)| raw.with(key));
    Some((when.with(whens), expect.with(expects), refused_by))
}

impl RawSide {
    fn with(self, key: Vec<FieldAccess>) -> Side {
        Side { selector: self.selector, key, sum: self.sum, fields: Vec::new() }
    }
}

fn fields(
    reader: &mut Reader<'_>,
    node: &Node,
    kind: SignalKind,
    side: &str,
) -> Option<Vec<FieldAccess>> {
    let single = std::slice::from_ref(node);
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Str(_) => single,
        other => {
            let message = format!("`key` is {} instead of a list of fields", other.what());
            reader.fail(&node.span, message, "write `key: [span.correlation_id]`");
            return None;
        }
    };
    let mut fields = Vec::new();
    let mut whole = true;
    for item in items {
        let Value::Str(text) = &item.value else {
            let message = format!("{} instead of a field", item.value.what());
            reader.fail(&item.span, message, "write a field, such as span.correlation_id");
            whole = false;
            continue;
        };
        match FieldAccess::parse(kind, text) {
            Ok(field) => fields.push(field),
            Err(error) => {
                whole = false;
                let problem = format!("the `{side}` side lacks this key: {}", error.problem());
                let own = kind.own_scope().name();
                let rest = text.split_once('.').map_or(text.as_str(), |(_, rest)| rest);
                let help = match error.help() {
                    "" => String::new(),
                    help if help.contains("log {") || help.contains("without `log`") => format!(
                        "`.{rest}` fits both; or name each side's: \
                         `key: {{when: […], expect: […]}}`, here with `{own}.{rest}`"
                    ),
                    help => help.to_owned(),
                };
                let place = (error.offset(), error.offset() + error.len());
                reader.fail_inside(&item.span, text, place, &problem, &help);
            }
        }
    }
    whole.then_some(fields)
}

/// Reads a duration, such as `30s` or `1h30m`.
pub(super) fn duration(text: &str) -> Option<i64> {
    lacuna_signal::selector::parse_duration(text.trim())
}

/// The one of `known` that `text` is most likely a slip of.
pub(super) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    lacuna_signal::selector::nearest(text, known)
}
