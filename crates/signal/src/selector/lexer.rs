//! Tokens of the selector language.

use super::error::{Complaint, SelectorError};

/// A token and the bytes of the source that it is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    /// A word: an intrinsic, a keyword or a value such as `error`; `trace:id` is one too.
    Word(String),
    /// `scope.key` or, with an empty scope, `.key`.
    Attribute { scope: String, key: String },
    /// Text in quotes, unescaped.
    Str(String),
    /// An integer without sign.
    Int(u64),
    /// A double without sign.
    Float(f64),
    /// A duration in nanoseconds.
    Duration(i64),
    /// An operator or bracket.
    Symbol(&'static str),
    /// The end of the source.
    End,
}

/// Longest first, so that `>=` is not read as `>` and `=`.
const SYMBOLS: [&str; 27] = [
    "!>>", "!<<", "&>>", "&<<", "&&", "||", "=~", "!~", "!=", "<=", ">=", ">>", "<<", "!>", "!<",
    "&>", "&<", "&~", "{", "}", "(", ")", "=", "<", ">", "!", "~",
];

/// Symbols that no selector has, named so that an error can say what they are.
const STRANGE: [&str; 9] = ["|", "+", "-", "*", "/", "%", "^", ",", "&"];

/// Whether `c` can stand in an attribute's key without quotes, as TraceQL has it.
pub(super) fn is_attribute_char(c: char) -> bool {
    !c.is_whitespace()
        && !c.is_control()
        && !matches!(c, '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ',')
}

/// Splits `source` into tokens, the last of which is [`TokenKind::End`].
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, SelectorError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let start = lexer.at;
        let kind = lexer.next_kind()?;
        let done = kind == TokenKind::End;
        tokens.push(Token { kind, start, end: lexer.at });
        if done {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.bump();
        }
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| keep(*c)) {
            text.push(c);
            self.bump();
        }
        text
    }

    fn fail(&self, from: usize, problem: impl Into<String>, help: &str) -> SelectorError {
        SelectorError::at(self.source, from, self.at - from, Complaint::new(problem, help))
    }

    fn next_kind(&mut self) -> Result<TokenKind, SelectorError> {
        let start = self.at;
        let Some(c) = self.peek() else { return Ok(TokenKind::End) };
        match c {
            '"' => self.quoted().map(TokenKind::Str),
            '`' => self.raw().map(TokenKind::Str),
            '.' => {
                self.bump();
                self.key(start, String::new())
            }
            '0'..='9' => self.number(),
            c if c.is_alphabetic() || c == '_' => {
                let word = self.take_while(|c| c.is_alphanumeric() || c == '_');
                match self.peek() {
                    Some('.') => {
                        self.bump();
                        self.key(start, word)
                    }
                    Some(':') => {
                        self.bump();
                        let name = self.take_while(|c| c.is_alphanumeric() || c == '_');
                        Ok(TokenKind::Word(format!("{word}:{name}")))
                    }
                    _ => Ok(TokenKind::Word(word)),
                }
            }
            _ => self.symbol(),
        }
    }

    fn symbol(&mut self) -> Result<TokenKind, SelectorError> {
        let start = self.at;
        if let Some(symbol) =
            SYMBOLS.into_iter().chain(STRANGE).find(|s| self.rest().starts_with(s))
        {
            self.at += symbol.len();
            return Ok(TokenKind::Symbol(symbol));
        }
        let c = self.bump().unwrap_or(' ');
        let help = if c == '\'' { "text stands in double quotes or backquotes" } else { "" };
        Err(self.fail(start, format!("`{c}` means nothing here"), help))
    }

    fn key(&mut self, start: usize, scope: String) -> Result<TokenKind, SelectorError> {
        let mut key = String::new();
        let mut quoted = false;
        while let Some(c) = self.peek() {
            if c == '"' {
                key.push_str(&self.quoted_key()?);
                quoted = true;
            } else if is_attribute_char(c) {
                key.push(c);
                self.bump();
            } else {
                break;
            }
        }
        if key.is_empty() && !quoted {
            let help =
                format!("write `{scope}.` and the attribute's key, such as `{scope}.http.route`");
            return Err(self.fail(start, "an attribute without a key", &help));
        }
        Ok(TokenKind::Attribute { scope, key })
    }

    /// A quoted part of a key: only `\"` and `\\` are escapes, as in TraceQL.
    fn quoted_key(&mut self) -> Result<String, SelectorError> {
        let start = self.at;
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('"') => return Ok(text),
                Some('\\') => match self.bump() {
                    Some(c @ ('"' | '\\')) => text.push(c),
                    _ => {
                        let help = "in a quoted key, `\\\"` and `\\\\` are the only escapes";
                        return Err(self.fail(start, "an unknown escape in a key", help));
                    }
                },
                Some(c) => text.push(c),
                None => return Err(self.fail(start, "a quote that is not closed", "add `\"`")),
            }
        }
    }

    fn raw(&mut self) -> Result<String, SelectorError> {
        let start = self.at;
        self.bump();
        let text = self.take_while(|c| c != '`');
        match self.bump() {
            Some(_) => Ok(text),
            None => Err(self.fail(start, "a backquote that is not closed", "add a backquote")),
        }
    }

    /// Text in double quotes with the escapes of Go's strings, which are TraceQL's.
    fn quoted(&mut self) -> Result<String, SelectorError> {
        let start = self.at;
        self.bump();
        let mut text = String::new();
        loop {
            let escape = self.at;
            match self.bump() {
                Some('"') => return Ok(text),
                Some('\\') => {
                    let c = self.escape().ok_or_else(|| {
                        let help = "write `\\\\` for a backslash, or put the text in backquotes";
                        self.fail(escape, "an unknown escape", help)
                    })?;
                    text.push(c);
                }
                Some('\n') | None => {
                    return Err(self.fail(start, "a quote that is not closed", "add `\"`"));
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let digits = match self.bump()? {
            'n' => return Some('\n'),
            't' => return Some('\t'),
            'r' => return Some('\r'),
            'a' => return Some('\u{7}'),
            'b' => return Some('\u{8}'),
            'f' => return Some('\u{c}'),
            'v' => return Some('\u{b}'),
            c @ ('\\' | '"') => return Some(c),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => return None,
        };
        let hex = self.rest().get(..digits)?;
        let code = u32::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+'))?;
        self.at += digits;
        // Go's `\xFF` is a byte, which need not be UTF-8; here it can only be ASCII.
        char::from_u32(code).filter(|c| digits != 2 || c.is_ascii())
    }

    fn number(&mut self) -> Result<TokenKind, SelectorError> {
        let start = self.at;
        let mut text = self.take_while(|c| c.is_ascii_digit());
        let mut float = false;
        let mut chars = self.rest().chars();
        if chars.next() == Some('.') && chars.next().is_some_and(|c| c.is_ascii_digit()) {
            self.bump();
            text.push('.');
            text.push_str(&self.take_while(|c| c.is_ascii_digit()));
            float = true;
        }
        if let Some(length) = exponent(self.rest()) {
            text.push_str(&self.rest()[..length]);
            self.at += length;
            float = true;
        }
        if self.peek().is_some_and(char::is_alphabetic) {
            self.take_while(|c| c.is_alphanumeric() || c == '.');
            let text = &self.source[start..self.at];
            return parse_duration(text).map(TokenKind::Duration).ok_or_else(|| {
                let help = "units are ns, us, ms, s, m, h, d, w and y, as in `1.5ms` or `1h30m`";
                self.fail(start, format!("`{text}` is neither a number nor a duration"), help)
            });
        }
        let out_of_range = |_: &dyn std::error::Error| {
            self.fail(start, format!("`{text}` is too large"), "numbers have at most 64 bits")
        };
        if float {
            let value: f64 =
                text.parse().map_err(|e: std::num::ParseFloatError| out_of_range(&e))?;
            return Ok(TokenKind::Float(value));
        }
        text.parse().map(TokenKind::Int).map_err(|e: std::num::ParseIntError| out_of_range(&e))
    }
}

/// Length of the decimal exponent that `text` starts with, such as `e-9`.
fn exponent(text: &str) -> Option<usize> {
    let rest = text.strip_prefix(['e', 'E'])?;
    let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let count = digits.bytes().take_while(u8::is_ascii_digit).count();
    (count > 0).then(|| text.len() - digits.len() + count)
}

/// Reads a duration such as `1.5ms`, `2s` or `1h30m`; `None` if it is none or has more than 64
/// bits of nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, tail) = rest.split_at(number);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let size: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            "y" => 31_536_000_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || digits.len() > 18 || fraction.contains('.') || digits.ends_with('.')
        {
            return None;
        }
        total += whole.parse::<i128>().ok()? * size;
        if !fraction.is_empty() {
            let scale = 10i128.pow(u32::try_from(fraction.len()).ok()?);
            total += fraction.parse::<i128>().ok()? * size / scale;
        }
        rest = tail;
    }
    (!text.is_empty()).then(|| i64::try_from(total).ok()).flatten()
}
