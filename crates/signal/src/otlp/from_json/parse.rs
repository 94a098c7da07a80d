//! Reading JSON (RFC 8259) from front to back, without a tree.
//!
//! A value that is well-formed but of no use can be skipped, so that what is wrong with one span
//! does not stop the reading of the next; that is why this is not serde, where an error in a value
//! ends the reading of everything around it.

use super::error::{Stop, Syntax};

/// Arrays and objects nested deeper than this are refused.
const MAX_NESTING: usize = 256;

/// What begins at the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    Text,
    Array,
    Object,
}

impl Kind {
    /// With its article, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// A cursor in a JSON text.
pub struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The last string that had escapes.
    unescaped: Vec<u8>,
}

impl<'a> Json<'a> {
    /// A cursor at the start of `bytes`; a byte-order mark is passed over.
    pub fn new(bytes: &'a [u8]) -> Self {
        let at = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Self { bytes, at, unescaped: Vec::new() }
    }

    /// Where the cursor is.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes back to a position of before.
    pub fn go_back(&mut self, position: usize) {
        self.at = position;
    }

    fn error(&self, what: &'static str) -> Syntax {
        let what = if self.at >= self.bytes.len() { "the text ends too early" } else { what };
        Syntax { at: self.at, what }
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// What begins at the cursor.
    #[inline]
    pub fn peek(&mut self) -> Result<Kind, Syntax> {
        Ok(match self.byte() {
            Some(b'"') => Kind::Text,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => return Err(self.error("expected a JSON value")),
        })
    }

    /// Steps into the array or object at the cursor.
    pub fn open(&mut self) {
        self.at += 1;
    }

    /// Steps to the next item of an array; false at its end.
    #[inline]
    pub fn item(&mut self, first: &mut bool) -> Result<bool, Syntax> {
        self.separator(first, b']', "expected `,` or `]`")
    }

    #[inline]
    fn separator(&mut self, first: &mut bool, end: u8, what: &'static str) -> Result<bool, Syntax> {
        match self.byte() {
            Some(byte) if byte == end => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !*first => self.at += 1,
            Some(_) if *first => {}
            _ => return Err(self.error(what)),
        }
        *first = false;
        Ok(true)
    }

    /// Steps to the value of the next member of an object and gives its key; `None` at its end.
    #[inline]
    pub fn member(&mut self, first: &mut bool) -> Result<Option<&[u8]>, Syntax> {
        if !self.separator(first, b'}', "expected `,` or `}`")? {
            return Ok(None);
        }
        if self.byte() != Some(b'"') {
            return Err(self.error("expected a key in quotes"));
        }
        let range = self.raw_string()?;
        if self.byte() != Some(b':') {
            return Err(self.error("expected `:`"));
        }
        self.at += 1;
        Ok(Some(self.resolve(range)))
    }

    /// The number at the cursor as it is written.
    pub fn number(&mut self) -> Result<&'a str, Syntax> {
        self.byte();
        let start = self.at;
        self.at += usize::from(self.bytes.get(start) == Some(&b'-'));
        let whole = self.at;
        self.digits()?;
        if self.bytes[whole] == b'0' && self.at > whole + 1 {
            self.at = whole + 1;
            return Err(self.error("a number with a leading zero"));
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        // Only ASCII was passed.
        std::str::from_utf8(&self.bytes[start..self.at]).map_err(|_| self.error("not a number"))
    }

    fn digits(&mut self) -> Result<(), Syntax> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err(self.error("expected a digit")) } else { Ok(()) }
    }

    /// Steps over `true`, `false` or `null`.
    pub fn word(&mut self) -> Result<&'static str, Syntax> {
        self.byte();
        let rest = &self.bytes[self.at..];
        for word in ["true", "false", "null"] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(word);
            }
        }
        Err(self.error("expected a JSON value"))
    }

    /// The string at the cursor. A lone surrogate in an escape becomes U+FFFD: emitters that cut
    /// texts by UTF-16 units write such.
    #[inline]
    pub fn text(&mut self) -> Result<&str, Stop> {
        self.byte();
        let range = self.raw_string()?;
        std::str::from_utf8(self.resolve(range)).map_err(|_| Stop::bad("a text that is not UTF-8"))
    }

    /// Passes the string at the cursor. Gives its range, or `None` if it was unescaped.
    #[inline]
    fn raw_string(&mut self) -> Result<Option<(usize, usize)>, Syntax> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match self.bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Some((start, at)));
                }
                Some(b'\\') => return self.unescape(start, at).map(|()| None),
                Some(0x20..) => at += 1,
                _ => {
                    self.at = at;
                    return Err(self.error("a control character in a string"));
                }
            }
        }
    }

    #[inline]
    fn resolve(&self, range: Option<(usize, usize)>) -> &[u8] {
        match range {
            Some((start, end)) => &self.bytes[start..end],
            None => &self.unescaped,
        }
    }

    /// Passes a string that begins at `start` and has its first escape at `at`.
    fn unescape(&mut self, start: usize, at: usize) -> Result<(), Syntax> {
        self.unescaped.clear();
        let mut plain = start;
        self.at = at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.unescaped.extend_from_slice(&self.bytes[plain..self.at]);
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.unescaped.extend_from_slice(&self.bytes[plain..self.at]);
                    self.at += 1;
                    self.escape()?;
                    plain = self.at;
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(self.error("a control character in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Syntax> {
        let plain = match self.bytes.get(self.at) {
            Some(byte @ (b'"' | b'\\' | b'/')) => *byte,
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let unit = self.hex4()?;
                let mut text = [0; 4];
                let text = self.character(unit)?.encode_utf8(&mut text);
                self.unescaped.extend_from_slice(text.as_bytes());
                return Ok(());
            }
            _ => return Err(self.error("an unknown escape in a string")),
        };
        self.at += 1;
        self.unescaped.push(plain);
        Ok(())
    }

    /// The character that begins with UTF-16 unit `unit`, whose second unit may follow.
    fn character(&mut self, unit: u32) -> Result<char, Syntax> {
        if (0xd800..0xdc00).contains(&unit) && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, Syntax> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.bytes.get(self.at).and_then(|byte| char::from(*byte).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.error("expected four hexadecimal digits"));
            };
            unit = unit << 4 | digit;
            self.at += 1;
        }
        Ok(unit)
    }

    /// Passes the value at the cursor, whatever it is.
    pub fn skip(&mut self) -> Result<(), Syntax> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: usize) -> Result<(), Syntax> {
        if depth > MAX_NESTING {
            return Err(self.error("values nested too deep"));
        }
        let mut first = true;
        match self.peek()? {
            Kind::Null | Kind::Bool => _ = self.word()?,
            Kind::Number => _ = self.number()?,
            Kind::Text => _ = self.raw_string()?,
            Kind::Array => {
                self.open();
                while self.item(&mut first)? {
                    self.skip_nested(depth + 1)?;
                }
            }
            Kind::Object => {
                self.open();
                while self.member(&mut first)?.is_some() {
                    self.skip_nested(depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Checks that nothing but white space follows.
    pub fn end(&mut self) -> Result<(), Syntax> {
        match self.byte() {
            None => Ok(()),
            Some(_) => Err(self.error("expected nothing more")),
        }
    }
}
