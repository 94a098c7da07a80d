//! Tokens to expression, with every error at its place.

use super::Selector;
use super::ast::{Expr, Literal, Op, Operand, SeverityLevel, SpanKind, StatusCode};
use super::check;
use super::error::{Complaint, SelectorError, nearest};
use super::fields::{Field, FieldScope, Intrinsic};
use super::lexer::{Token, TokenKind, tokens};
use crate::schema::SignalKind;

/// Brackets and negations nest at most this deep, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;
/// A selector has at most this many comparisons.
pub(super) const MAX_TERMS: usize = 1_000;

/// Reads one selector, and nothing after it.
pub(super) fn parse_selector(source: &str) -> Result<Selector, SelectorError> {
    let mut parser = Parser::new(source)?;
    let selector = parser.selector()?;
    parser.expect_end("a selector is one `{ … }` or `log { … }`")?;
    Ok(selector)
}

/// Reads one field, such as `span.correlation_id` or `name`.
pub(super) fn parse_field(kind: SignalKind, source: &str) -> Result<Field, SelectorError> {
    let mut parser = Parser::new(source)?;
    parser.kind = kind;
    let field = parser.field()?;
    parser.expect_end("a field is one attribute or intrinsic, such as `span.correlation_id`")?;
    Ok(field)
}

/// Reads one text in quotes, and nothing after it.
pub(super) fn parse_text(source: &str) -> Option<String> {
    match tokens(source).ok()?.as_slice() {
        [Token { kind: TokenKind::Str(text), .. }, Token { kind: TokenKind::End, .. }] => {
            Some(text.clone())
        }
        _ => None,
    }
}

pub(super) struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    pub(super) at: usize,
    kind: SignalKind,
    depth: usize,
    pub(super) terms: usize,
}

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

impl<'a> Parser<'a> {
    pub(super) fn new(source: &'a str) -> Result<Self, SelectorError> {
        let tokens = tokens(source)?;
        Ok(Self { source, tokens, at: 0, kind: SignalKind::Spans, depth: 0, terms: 0 })
    }

    pub(super) fn token(&self) -> &Token {
        // The last token is `End` and never passed.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn advance(&mut self) -> Token {
        let token = self.token().clone();
        self.at += 1;
        token
    }

    pub(super) fn eat(&mut self, symbol: &str) -> bool {
        let found = matches!(self.token().kind, TokenKind::Symbol(s) if s == symbol);
        self.at += usize::from(found);
        found
    }

    pub(super) fn fail(
        &self,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> SelectorError {
        let token = self.token();
        self.fail_at(token.start, token.end, problem, help)
    }

    pub(super) fn fail_at(
        &self,
        start: usize,
        end: usize,
        problem: impl Into<String>,
        help: impl Into<String>,
    ) -> SelectorError {
        SelectorError::at(self.source, start, end - start, Complaint::new(problem, help))
    }

    fn found(&self) -> String {
        let token = self.token();
        match token.kind {
            TokenKind::End => "the end".to_owned(),
            _ => format!("`{}`", &self.source[token.start..token.end]),
        }
    }

    pub(super) fn expect_end(&self, help: &str) -> Result<(), SelectorError> {
        if self.token().kind == TokenKind::End {
            return Ok(());
        }
        Err(self.fail(format!("{} comes after the end", self.found()), help))
    }

    pub(super) fn expect(&mut self, symbol: &str, help: &str) -> Result<(), SelectorError> {
        if self.eat(symbol) {
            return Ok(());
        }
        Err(self.fail(format!("expected `{symbol}`, found {}", self.found()), help))
    }

    pub(super) fn selector(&mut self) -> Result<Selector, SelectorError> {
        self.kind = SignalKind::Spans;
        let start = self.token().start;
        if let TokenKind::Word(word) = &self.token().kind {
            if word != "log" {
                let help = "a selector is `{ … }` for spans or `log { … }` for log records";
                return Err(self.fail(format!("expected `{{`, found `{word}`"), help));
            }
            self.kind = SignalKind::Logs;
            self.at += 1;
        }
        self.expect("{", "a selector is `{ … }` for spans or `log { … }` for log records")?;
        let expr = match self.token().kind {
            TokenKind::Symbol("}") => Expr::Const(true),
            _ => self.or()?,
        };
        self.expect("}", "join comparisons by `&&` or `||`, and close the selector with `}`")?;
        Selector::new(self.kind, expr).map_err(|error| {
            let complaint = Complaint::new(error.problem(), error.help());
            let end = self.tokens[self.at - 1].end;
            SelectorError::at(self.source, start, end - start, complaint)
        })
    }

    fn or(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.and()?];
        while self.eat("||") {
            parts.push(self.and()?);
        }
        Ok(Expr::any(parts))
    }

    fn and(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.unary()?];
        while self.eat("&&") {
            parts.push(self.unary()?);
        }
        Ok(Expr::all(parts))
    }

    pub(super) fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, SelectorError>,
    ) -> Result<T, SelectorError> {
        if self.depth == MAX_DEPTH {
            return Err(self.fail("nested too deeply", format!("at most {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn unary(&mut self) -> Result<Expr, SelectorError> {
        if self.eat("!") {
            let inner = self.nested(Self::unary)?;
            return Ok(Expr::Not(Box::new(inner)));
        }
        if self.eat("(") {
            let inner = self.nested(Self::or)?;
            self.expect(")", "close the bracket, or join comparisons by `&&` or `||`")?;
            return Ok(inner);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, SelectorError> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(self.fail("too many comparisons", format!("at most {MAX_TERMS}")));
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

    fn field(&mut self) -> Result<Field, SelectorError> {
        let token = self.advance();
        let fail = |problem: String, help: String| {
            Err(self.fail_at(token.start, token.end, problem, help))
        };
        let field = match &token.kind {
            TokenKind::Attribute { scope, key } => {
                let found = FieldScope::ALL.into_iter().find(|known| known.name() == scope);
                let Some(scope) = found else {
                    let known = FieldScope::ALL.map(FieldScope::name);
                    let known = known.into_iter().filter(|name| !name.is_empty());
                    let help = match (scope.as_str(), nearest(scope, known.clone())) {
                        ("parent", _) => "a selector sees one span at a time".to_owned(),
                        (_, Some(near)) => format!("did you mean `{near}.{key}`?"),
                        (_, None) => format!(
                            "scopes are {}; `.{key}` looks in the signal and then its resource",
                            known.map(|name| format!("`{name}.`")).collect::<Vec<_>>().join(", ")
                        ),
                    };
                    return fail(format!("`{scope}.` is not a scope"), help);
                };
                Field::attribute(scope, key.clone())
            }
            TokenKind::Word(word) if word == "service" => Field::service(),
            TokenKind::Word(word) => match Intrinsic::from_name(word) {
                Some(intrinsic) => Field::Intrinsic(intrinsic),
                None => {
                    return fail(format!("`{word}` is not a field"), unknown_word(word, self.kind));
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
        check::check_field(self.kind, &field).map_err(|complaint| {
            SelectorError::at(self.source, token.start, token.end - token.start, complaint)
        })?;
        Ok(field)
    }
}

fn unknown_word(word: &str, kind: SignalKind) -> String {
    if ["traceDuration", "rootName", "rootServiceName", "childCount", "nestedSetLeft"]
        .contains(&word)
        || word.starts_with("trace:")
    {
        return "a selector sees one row at a time, so it cannot ask about the whole trace"
            .to_owned();
    }
    let known = Intrinsic::ALL.into_iter().filter(|intrinsic| intrinsic.is_of(kind));
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
