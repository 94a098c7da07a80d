//! `query.filter` of v3: a predicate over spans as a tree in JSON, turned into a selector's.
//!
//! A node is a `call` (`op` and `args`), a reference (`attr`, `field`, `nested`) or a constant
//! (`scalar`, `list`); the whole is a call: `{"op": "eq", "args": [{"attr": {"key": "tenant", "level":
//! "span"}}, {"scalar": {"value": "a"}}]}`. `ref`, by which versions before 2.22 wrote references, is
//! read too.
//!
//! Source: Jaeger RFC 0005, "Structured Query Filters for Trace Search", sections 5 and 6;
//! `jaeger-idl`, `proto/expression/v1/expression.proto`.

mod operand;

use lacuna_signal::selector::{Expr, FieldScope, Intrinsic, Literal, Op, Operand};
use regex::Regex;
use serde::Deserialize;

use self::operand::{Constant, List, Reference, Scalar, Subject, words};
use super::error::ApiError;
use super::query::malformed;

/// The parameter's name.
pub const PARAMETER: &str = "query.filter";
/// Levels of which attributes can be asked, and operators, as `/api/v3/capabilities` lists them.
/// `some` is answered for one condition, and so not among them.
pub const LEVELS: [&str; 5] = ["span", "resource", "scope", "event", "link"];
/// See [`LEVELS`].
pub const OPERATORS: [&str; 13] =
    ["and", "or", "not", "eq", "ne", "gt", "lt", "gte", "lte", "regex", "exists", "in", "not_in"];
/// A filter has at most this many calls.
const MAX_CALLS: usize = 1_000;

/// An operator over arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    op: String,
    #[serde(default)]
    args: Vec<Argument>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Argument {
    Attr(operand::Attribute),
    Field(operand::FieldName),
    Nested(Nested),
    Ref(operand::OldReference),
    Scalar(Scalar),
    List(List),
    Call(Call),
}

/// The events or the links of a span.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    level: String,
}

/// Why a filter is not answered.
pub(super) enum Refusal {
    /// It makes no sense.
    Wrong(String),
    /// It does, and cannot be answered here.
    Unsupported(String),
}

type Read<T> = Result<T, Refusal>;

fn wrong<T>(why: impl Into<String>) -> Read<T> {
    Err(Refusal::Wrong(why.into()))
}

fn unsupported<T>(why: impl Into<String>) -> Read<T> {
    Err(Refusal::Unsupported(why.into()))
}

/// The expression that `json` is.
///
/// # Errors
/// What is wrong with it, or that it asks for what cannot be answered (501).
pub fn parse(json: &str) -> Result<Expr, ApiError> {
    let call: Call =
        serde_json::from_str(json).map_err(|error| malformed(PARAMETER, &error.to_string()))?;
    let mut reader = Reader { calls: 0 };
    reader.call(&call, None).map_err(|refusal| match refusal {
        Refusal::Wrong(why) => malformed(PARAMETER, &why),
        Refusal::Unsupported(why) => ApiError::NotImplemented(format!("{PARAMETER}: {why}")),
    })
}

struct Reader {
    calls: usize,
}

impl Reader {
    /// `call` as an expression; in `some`, of one element of a collection.
    fn call(&mut self, call: &Call, some: Option<FieldScope>) -> Read<Expr> {
        self.calls += 1;
        if self.calls > MAX_CALLS {
            return wrong(format!("more than {MAX_CALLS} calls"));
        }
        let op = call.op.as_str();
        match op {
            "and" | "or" => {
                let parts: Vec<Expr> = call
                    .args
                    .iter()
                    .map(|part| self.predicate(op, part, some))
                    .collect::<Read<_>>()?;
                match (parts.len(), op) {
                    (0 | 1, _) => wrong(format!("`{op}` takes two predicates or more")),
                    (_, "or") => Ok(Expr::any(parts)),
                    (..) if some.is_some() => unsupported(
                        "several conditions of one event or link; here `some` takes one condition, \
                         or several joined by `or`",
                    ),
                    _ => Ok(Expr::all(parts)),
                }
            }
            "not" => {
                let [part] = self.arguments::<1>(call)?;
                if some.is_some() {
                    return unsupported(
                        "`not` within `some`; `ne` and `not_in` can be asked there",
                    );
                }
                Ok(Expr::Not(Box::new(self.predicate(op, part, some)?)))
            }
            "some" => {
                let [collection, part] = self.arguments::<2>(call)?;
                let scope = match collection {
                    Argument::Nested(Nested { level }) if level == "event" => FieldScope::Event,
                    Argument::Nested(Nested { level }) if level == "link" => FieldScope::Link,
                    Argument::Ref(old) if old.name.is_empty() => old.collection()?,
                    _ => {
                        return wrong(
                            "`some` takes {\"nested\": {\"level\": \"event\"}} or \"link\"",
                        );
                    }
                };
                if some.is_some() {
                    return unsupported("`some` within `some`");
                }
                self.predicate(op, part, Some(scope))
            }
            "exists" => {
                let [reference] = self.arguments::<1>(call)?;
                let reference = self.reference(op, reference)?.within(some)?;
                Ok(reference.exists())
            }
            "in" | "not_in" => {
                let [reference, list] = self.arguments::<2>(call)?;
                let reference = self.reference(op, reference)?.within(some)?;
                let Argument::List(list) = list else {
                    return wrong(format!("`{op}` takes a reference and a list"));
                };
                if list.values.is_empty() {
                    return wrong("a list without values");
                }
                let scalars = list.scalars();
                if op == "in" {
                    let equal = scalars.map(|scalar| compare(&reference, Op::Eq, &scalar));
                    return Ok(Expr::any(equal.collect::<Read<Vec<_>>>()?));
                }
                self.none_of(&reference, scalars, some.is_some())
            }
            "regex" => {
                let [reference, pattern] = self.arguments::<2>(call)?;
                let reference = self.reference(op, reference)?.within(some)?;
                match pattern {
                    Argument::Scalar(pattern) => matches(&reference, &pattern.value),
                    _ => wrong("`regex` takes a reference and a scalar, the expression"),
                }
            }
            _ => {
                let comparison = match op {
                    "eq" => Op::Eq,
                    "ne" => Op::Ne,
                    "gt" => Op::Gt,
                    "lt" => Op::Lt,
                    "gte" => Op::Ge,
                    "lte" => Op::Le,
                    "phrase" | "fulltext" => return unsupported(format!("operator `{op}`")),
                    _ => {
                        return wrong(format!(
                            "unknown filter operator {op:?}: operators are {}, some",
                            OPERATORS.join(", ")
                        ));
                    }
                };
                self.comparison(call, comparison, some)
            }
        }
    }

    fn comparison(&mut self, call: &Call, op: Op, some: Option<FieldScope>) -> Read<Expr> {
        let [left, right] = self.arguments::<2>(call)?;
        let (reference, op, other) = match (left, right) {
            (Argument::Scalar(_), Argument::Scalar(_)) => {
                return unsupported("a comparison of two constants");
            }
            (Argument::Scalar(_), _) => (right, op.flipped().unwrap_or(op), left),
            _ => (left, op, right),
        };
        let reference = self.reference(&call.op, reference)?.within(some)?;
        match other {
            Argument::Scalar(scalar) if op == Op::Ne => {
                self.none_of(&reference, std::iter::once(scalar.clone()), some.is_some())
            }
            Argument::Scalar(scalar) => compare(&reference, op, scalar),
            other => {
                let other = self.reference(&call.op, other)?.within(some)?;
                if some.is_some() {
                    return unsupported("two fields of one event or link");
                }
                let value = Operand::Field(other.field);
                Ok(Expr::Compare { field: reference.field, op, value })
            }
        }
    }

    /// The value is there and none of `scalars`. Of several values of a span none may be; of one
    /// element, which `some` asks, it is that element's.
    fn none_of(
        &self,
        reference: &Reference,
        mut scalars: impl Iterator<Item = Scalar>,
        some: bool,
    ) -> Read<Expr> {
        if some {
            let differs = |scalar: Scalar| match reference.constants(&scalar)?.as_slice() {
                [one] => Ok(reference.compare(Op::Ne, one.clone())),
                // Of two types; an element that is of one of them has no value of the other.
                several => {
                    Ok(Expr::any(several.iter().map(|one| reference.compare(Op::Ne, one.clone()))))
                }
            };
            let first = scalars.next().map(differs).transpose()?;
            return match (first, scalars.next()) {
                (Some(one), None) => Ok(one),
                _ => unsupported("`not_in` of several values within `some`"),
            };
        }
        let equal = scalars.map(|scalar| compare(reference, Op::Eq, &scalar));
        let equal = Expr::any(equal.collect::<Read<Vec<_>>>()?);
        Ok(Expr::all([reference.exists(), Expr::Not(Box::new(equal))]))
    }

    fn predicate(&mut self, op: &str, part: &Argument, some: Option<FieldScope>) -> Read<Expr> {
        match part {
            Argument::Call(call) => self.call(call, some),
            _ => wrong(format!("`{op}` takes predicates, that is, calls")),
        }
    }

    fn reference(&self, op: &str, argument: &Argument) -> Read<Reference> {
        match argument {
            Argument::Attr(attribute) => attribute.read(),
            Argument::Field(field) => field.read(),
            Argument::Ref(old) => old.read(),
            _ => wrong(format!("`{op}` takes a reference (`attr` or `field`) first")),
        }
    }

    fn arguments<'c, const N: usize>(&self, call: &'c Call) -> Read<&'c [Argument; N]> {
        call.args.as_slice().try_into().or_else(|_| {
            wrong(format!("`{}` takes {N} arguments, not {}", call.op, call.args.len()))
        })
    }
}

/// The reference stands in the relation `op` to `scalar`, whichever type its value has of those that
/// the scalar may be of.
fn compare(reference: &Reference, op: Op, scalar: &Scalar) -> Read<Expr> {
    if op.is_order() && matches!(reference.subject, Subject::Kind | Subject::Status) {
        return wrong(format!("`{}` has no order", reference.field));
    }
    let constants = reference.constants(scalar)?.into_iter();
    let ordered = constants.filter(|one| !(op.is_order() && matches!(one, Constant::Bool(_))));
    let parts: Vec<Expr> = ordered.map(|one| reference.compare(op, one)).collect();
    if parts.is_empty() {
        return wrong("booleans have no order");
    }
    Ok(Expr::any(parts))
}

/// The value has a part that `pattern` matches.
fn matches(reference: &Reference, pattern: &str) -> Read<Expr> {
    // Alone first: within others, an unmatched bracket could close theirs.
    let regex = match Regex::new(pattern) {
        Ok(regex) => regex,
        Err(error) => {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default();
            return wrong(format!("bad regular expression {pattern:?}: {why}"));
        }
    };
    match reference.subject {
        Subject::Kind | Subject::Status => {
            let all = words(reference.subject).into_iter().filter(|(word, _)| regex.is_match(word));
            let equal =
                all.map(|(_, literal)| Expr::compare(reference.field.clone(), Op::Eq, literal));
            Ok(Expr::any(equal))
        }
        Subject::Text | Subject::Attribute => {
            let anywhere = Literal::Str(format!(".*(?-s:{pattern}).*"));
            Ok(Expr::compare(reference.field.clone(), Op::Match, anywhere))
        }
        Subject::Duration | Subject::Id(_) => {
            wrong(format!("a regular expression of `{}`, which is no text", reference.field))
        }
    }
}

/// An id as the selector reads it.
fn id(intrinsic: Intrinsic, text: &str) -> Read<Constant> {
    let digits = match intrinsic {
        Intrinsic::TraceId | Intrinsic::LinkTraceId => 32,
        _ => 16,
    };
    if text.is_empty() || text.len() > digits || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return wrong(format!("{text:?} is not an id of {digits} hexadecimal digits"));
    }
    Ok(Constant::Str(format!("{text:0>digits$}")))
}
