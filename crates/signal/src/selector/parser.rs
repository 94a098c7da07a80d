//! Tokens to selectors, with every error at its place. Comparisons are read in `parse_term`.

use super::Selector;
use super::ast::Expr;
use super::error::{Complaint, SelectorError};
use super::fields::Field;
use super::lexer::{Token, TokenKind, tokens};
use super::query::{Keep, Relation};
use crate::schema::SignalKind;

/// Brackets and negations nest at most this deep, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 64;
/// A selector has at most this many comparisons.
pub(super) const MAX_TERMS: usize = 1_000;

/// Reads one selector, and nothing after it.
pub(super) fn parse_selector(source: &str) -> Result<Selector, SelectorError> {
    let mut parser = Parser::new(source)?;
    let selector = parser.selector()?;
    parser.refuse_joins()?;
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
    pub(super) source: &'a str,
    tokens: Vec<Token>,
    pub(super) at: usize,
    pub(super) kind: SignalKind,
    /// Whole traces will be asked.
    pub(super) whole: bool,
    depth: usize,
    pub(super) terms: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(source: &'a str) -> Result<Self, SelectorError> {
        let tokens = tokens(source)?;
        Ok(Self {
            source,
            tokens,
            at: 0,
            kind: SignalKind::Spans,
            whole: false,
            depth: 0,
            terms: 0,
        })
    }

    pub(super) fn token(&self) -> &Token {
        // The last token is `End` and never passed.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    /// The token after the next.
    pub(super) fn after(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)]
    }

    pub(super) fn advance(&mut self) -> Token {
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

    pub(super) fn found(&self) -> String {
        let token = self.token();
        match token.kind {
            TokenKind::End => "the end".to_owned(),
            _ => format!("`{}`", &self.source[token.start..token.end]),
        }
    }

    /// Says why selectors are not joined here, if an operator that joins them comes next.
    fn refuse_joins(&self) -> Result<(), SelectorError> {
        let TokenKind::Symbol(symbol) = self.token().kind else { return Ok(()) };
        let problem = format!("`{symbol}` joins selectors of one trace, and here is one selector");
        let structural = Relation::ALL
            .into_iter()
            .any(|relation| Keep::ALL.iter().any(|keep| relation.text(*keep) == symbol));
        let help = match symbol {
            _ if structural => {
                "here spans are seen one at a time, as they arrive, and a parent may come later or \
                 never; what belongs together is said by a key, and a query over stored traces \
                 (`lacuna query traces`, /api/search) joins selectors"
            }
            "&&" | "||" => "put both comparisons into one pair of braces: `{ a && b }`",
            _ => return Ok(()),
        };
        Err(self.fail(problem, help))
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
            self.kind = match word.as_str() {
                "log" => SignalKind::Logs,
                "metric" => SignalKind::Points,
                _ => {
                    let help = "a selector is `{ … }` for spans or `log { … }` for log records";
                    return Err(self.fail(format!("expected `{{`, found `{word}`"), help));
                }
            };
            self.at += 1;
        }
        self.expect("{", "a selector is `{ … }` for spans or `log { … }` for log records")?;
        let expr = match self.token().kind {
            TokenKind::Symbol("}") => Expr::Const(true),
            _ => self.or()?,
        };
        self.expect("}", "join comparisons by `&&` or `||`, and close the selector with `}`")?;
        let made = if self.whole {
            Selector::over_traces(self.kind, expr)
        } else {
            Selector::new(self.kind, expr)
        };
        made.map_err(|error| {
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
}
