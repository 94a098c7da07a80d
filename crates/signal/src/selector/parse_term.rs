//! Tokens to comparisons: fields, operators and values.

use super::ast::{Expr, Literal, Op, Operand, SeverityLevel, SpanKind, StatusCode};
use super::check;
use super::error::{SelectorError, nearest};
use super::fields::{Field, FieldScope, Intrinsic};
use super::lexer::TokenKind;
use super::parser::{MAX_TERMS, Parser};
use crate::schema::SignalKind;

/// One side of a comparison, and where it stands.
struct Side {
    operand: SideKind,
    start: usize,
    end: usize,
}

enum SideKind {
    Field(Field),
    Literal(Literal),
    /// A bare word: an enumerated value whose meaning depends on the other side.
    Word(String),
}

impl Parser<'_> {
    pub(super) fn comparison(&mut self) -> Result<Expr, SelectorError> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(self.fail("too many comparisons", format!("at most {MAX_TERMS}")));
        }
        if let Some(root) = self.root()? {
            return Ok(root);
        }
        let left = self.side()?;
        let operator = self.token().clone();
        let op = match operator.kind {
            TokenKind::Symbol(symbol) => Op::ALL.into_iter().find(|op| op.text() == symbol),
            _ => None,
        };
        let Some(op) = op else { return self.bare(left) };
        self.at += 1;
        self.misspelt_value(&left)?;
        let right = self.side()?;
        let (start, end) = (left.start, right.end);
        let (field, op, value, value_start) = match (left.operand, right.operand) {
            (SideKind::Field(field), SideKind::Field(other)) => {
                (field, op, Operand::Field(other), right.start)
            }
            (SideKind::Field(field), other) => {
                let literal = self.literal(&field, other, right.start, right.end)?;
                (field, op, Operand::Literal(literal), right.start)
            }
            (other, SideKind::Field(field)) => {
                let literal = self.literal(&field, other, left.start, left.end)?;
                let Some(op) = op.flipped() else {
                    let help = "the field stands left of a regular expression";
                    return Err(self.fail_at(start, end, "the sides are exchanged", help));
                };
                (field, op, Operand::Literal(literal), left.start)
            }
            _ => {
                let help = "one side must be a field, such as `name` or `span.http.route`";
                return Err(self.fail_at(start, end, "a comparison of two values", help));
            }
        };
        if let Err((place, complaint)) = check::check_comparison(&field, op, &value) {
            let (from, to) = match place {
                check::Place::Term => (start, end),
                check::Place::Operator => (operator.start, operator.end),
                check::Place::Value if value_start == right.start => (right.start, right.end),
                check::Place::Value => (left.start, left.end),
            };
            return Err(SelectorError::at(self.source, from, to - from, complaint));
        }
        Ok(Expr::Compare { field, op, value })
    }

    /// `nestedSetParent < 0`, by which Grafana asks for the root of a trace, and the same said otherwise:
    /// Tempo numbers the spans of a trace from 1 on, and the parent of none is -1.
    fn root(&mut self) -> Result<Option<Expr>, SelectorError> {
        if !matches!(&self.token().kind, TokenKind::Word(word) if word == "nestedSetParent") {
            return Ok(None);
        }
        let word = self.advance();
        let operator = self.advance().kind;
        let negative = self.eat("-");
        let number = self.advance();
        let value = match number.kind {
            TokenKind::Int(value) => {
                i64::try_from(value).map(|v| if negative { -v } else { v }).ok()
            }
            _ => None,
        };
        let op = match (operator, value) {
            (TokenKind::Symbol("<"), Some(0 | 1)) => Op::Eq,
            (TokenKind::Symbol("<="), Some(-1 | 0)) => Op::Eq,
            (TokenKind::Symbol("="), Some(-1)) => Op::Eq,
            (TokenKind::Symbol(">="), Some(0 | 1)) => Op::Ne,
            (TokenKind::Symbol(">"), Some(-1 | 0)) => Op::Ne,
            (TokenKind::Symbol("!="), Some(-1)) => Op::Ne,
            _ => {
                let help = "only `nestedSetParent < 0`, a root, and `>= 0`, no root, can be asked; for \
                            others ask with > >> < << ~";
                let problem = "`nestedSetParent` numbers the spans of Tempo's own blocks";
                return Err(self.fail_at(word.start, word.end, problem, help));
            }
        };
        check::check_field(self.kind, &Intrinsic::ParentId.into(), self.whole).map_err(
            |complaint| {
                SelectorError::at(self.source, word.start, word.end - word.start, complaint)
            },
        )?;
        Ok(Some(Expr::compare(Intrinsic::ParentId, op, Literal::Nil)))
    }

    /// Complains about a word beside a field that is neither one of its values nor a field, before it
    /// is taken for a field: `status != eror`, `name = checkout`.
    fn misspelt_value(&self, left: &Side) -> Result<(), SelectorError> {
        let (SideKind::Field(field), TokenKind::Word(word)) = (&left.operand, &self.token().kind)
        else {
            return Ok(());
        };
        let known = ["true", "false", "nil", "service"].contains(&word.as_str())
            || Intrinsic::from_name(word).is_some()
            || (check::value_names(field).is_none() && word.contains(':'));
        if known {
            return Ok(());
        }
        let (start, end) = (self.token().start, self.token().end);
        self.literal(field, SideKind::Word(word.clone()), start, end).map(drop)
    }

    /// A side without an operator: `true`, `false` or a boolean attribute.
    fn bare(&mut self, side: Side) -> Result<Expr, SelectorError> {
        match side.operand {
            SideKind::Literal(Literal::Bool(value)) => Ok(Expr::Const(value)),
            SideKind::Field(field @ Field::Attribute { .. }) if !field.is_many() => {
                Ok(Expr::compare(field, Op::Eq, Literal::Bool(true)))
            }
            _ => {
                let what = &self.source[side.start..side.end];
                let problem =
                    format!("expected an operator after `{what}`, found {}", self.found());
                Err(self.fail(problem, "operators are = != =~ !~ < <= > >="))
            }
        }
    }

    fn side(&mut self) -> Result<Side, SelectorError> {
        let start = self.token().start;
        let negative = self.eat("-");
        let token = self.token().clone();
        let literal = match token.kind {
            TokenKind::Int(value) => {
                let value = if negative { 0i128 - i128::from(value) } else { i128::from(value) };
                Some(i64::try_from(value).map(Literal::Int).map_err(|_| {
                    self.fail("the integer is too large", "integers have 64 bits and a sign")
                })?)
            }
            TokenKind::Float(value) => Some(Literal::Float(if negative { -value } else { value })),
            TokenKind::Duration(value) => {
                Some(Literal::Duration(if negative { -value } else { value }))
            }
            _ if negative => {
                return Err(self.fail("expected a number after `-`", "there is no arithmetic"));
            }
            TokenKind::Str(ref text) => Some(Literal::Str(text.clone())),
            TokenKind::Word(ref word) => match word.as_str() {
                "true" => Some(Literal::Bool(true)),
                "false" => Some(Literal::Bool(false)),
                "nil" => Some(Literal::Nil),
                _ => None,
            },
            _ => None,
        };
        if let Some(literal) = literal {
            self.at += 1;
            return Ok(Side { operand: SideKind::Literal(literal), start, end: token.end });
        }
        if let TokenKind::Word(word) = &token.kind {
            let is_value = StatusCode::from_name(word).is_some()
                || SpanKind::from_name(word).is_some()
                || SeverityLevel::from_name(word).is_some();
            if is_value {
                self.at += 1;
                let operand = SideKind::Word(word.clone());
                return Ok(Side { operand, start, end: token.end });
            }
        }
        let field = self.field()?;
        Ok(Side { operand: SideKind::Field(field), start, end: token.end })
    }

    /// Gives a bare word the meaning that it has beside `field`.
    fn literal(
        &self,
        field: &Field,
        side: SideKind,
        start: usize,
        end: usize,
    ) -> Result<Literal, SelectorError> {
        let word = match side {
            SideKind::Literal(literal) => return Ok(literal),
            SideKind::Word(word) => word,
            SideKind::Field(other) => other.to_string(),
        };
        let literal = match field {
            Field::Intrinsic(Intrinsic::Status) => {
                StatusCode::from_name(&word).map(Literal::Status)
            }
            Field::Intrinsic(Intrinsic::Kind) => SpanKind::from_name(&word).map(Literal::Kind),
            Field::Intrinsic(Intrinsic::Severity) => {
                SeverityLevel::from_name(&word).map(Literal::Severity)
            }
            _ => None,
        };
        literal.ok_or_else(|| {
            let near = check::value_names(field).and_then(|names| nearest(&word, names));
            let help = match (near, check::right_values(field)) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(values)) => values,
                (None, None) => format!("if it is text, put it in quotes: \"{word}\""),
            };
            self.fail_at(start, end, format!("`{word}` is not a value of `{field}`"), help)
        })
    }

    pub(super) fn field(&mut self) -> Result<Field, SelectorError> {
        let token = self.advance();
        let fail = |problem: String, help: String| {
            Err(self.fail_at(token.start, token.end, problem, help))
        };
        let field = match &token.kind {
            TokenKind::Attribute { scope, key } => match attribute(scope, key) {
                Ok(field) => field,
                Err(help) => return fail(format!("`{scope}.` is not a scope"), help),
            },
            TokenKind::Word(word) if word == "service" => Field::service(),
            TokenKind::Word(word) => match Intrinsic::from_name(word) {
                Some(intrinsic) => Field::Intrinsic(intrinsic),
                None => {
                    return fail(
                        format!("`{word}` is not a field"),
                        unknown_word(word, self.kind, self.whole),
                    );
                }
            },
            TokenKind::End => {
                return fail(
                    "expected a comparison, found the end".to_owned(),
                    "write a comparison, such as `name = \"checkout\"`".to_owned(),
                );
            }
            _ => {
                let found = &self.source[token.start..token.end];
                return fail(
                    format!("expected a field or a value, found `{found}`"),
                    "fields are intrinsics such as `name` and attributes such as `span.http.route`"
                        .to_owned(),
                );
            }
        };
        check::check_field(self.kind, &field, self.whole).map_err(|complaint| {
            SelectorError::at(self.source, token.start, token.end - token.start, complaint)
        })?;
        Ok(field)
    }
}

/// The attribute `key` of the scope that is written as `scope`, or what would be right.
fn attribute(scope: &str, key: &str) -> Result<Field, String> {
    if scope == FieldScope::Parent.name() {
        for (inner, scope) in
            [("span.", FieldScope::ParentSpan), ("resource.", FieldScope::ParentResource)]
        {
            if let Some(key) = key.strip_prefix(inner) {
                return Ok(Field::attribute(scope, key));
            }
        }
    }
    if let Some(scope) = FieldScope::ALL.into_iter().find(|known| known.name() == scope) {
        return Ok(Field::attribute(scope, key));
    }
    let known = FieldScope::ALL.map(FieldScope::name);
    let known = known.into_iter().filter(|name| !name.is_empty());
    Err(match nearest(scope, known.clone()) {
        Some(near) => format!("did you mean `{near}.{key}`?"),
        None => format!(
            "scopes are {}; `.{key}` looks in the signal and then its resource",
            known.map(|name| format!("`{name}.`")).collect::<Vec<_>>().join(", ")
        ),
    })
}

fn unknown_word(word: &str, kind: SignalKind, whole: bool) -> String {
    if word.starts_with("nestedSet") {
        return "that numbers the spans of Tempo's own blocks; ask with > >> < << ~, or for a root by \
                `nestedSetParent < 0`"
            .to_owned();
    }
    let known = Intrinsic::ALL
        .into_iter()
        .filter(|intrinsic| intrinsic.is_of(kind) && (whole || !intrinsic.is_whole()));
    let known: Vec<&str> = known.map(Intrinsic::name).chain(["service"]).collect();
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "fields are {}; an attribute has its scope before it, such as `{}.{word}`",
            known.join(", "),
            kind.own_scope().name()
        ),
    }
}
