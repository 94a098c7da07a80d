//! Query text without values, by the database conventions: literals become `?`, parameters (`$1`)
//! stay, comments go.

/// What a piece of SQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'s> {
    /// A keyword or an unquoted name.
    Word(&'s str),
    /// A name in double quotes, quotes included.
    Quoted(&'s str),
    /// A string, number, or dollar-quoted literal.
    Literal,
    /// `$1`.
    Parameter(&'s str),
    /// Blank space or a comment.
    Space,
    /// Anything else, one character.
    Other(&'s str),
}

pub(super) struct Tokens<'s> {
    pub(super) rest: &'s str,
}

impl<'s> Tokens<'s> {
    fn take(&mut self, bytes: usize) -> &'s str {
        let (token, rest) = self.rest.split_at(bytes.min(self.rest.len()));
        self.rest = rest;
        token
    }

    /// The length of a quoted run that begins at `from` (just after the opening quote), with the
    /// closing quote. A doubled quote does not end it; with `escapes`, nor does one after a backslash.
    /// Unterminated: to the end.
    fn quoted(&self, from: usize, quote: u8, escapes: bool) -> usize {
        let bytes = self.rest.as_bytes();
        let mut i = from;
        while i < bytes.len() {
            if escapes && bytes[i] == b'\\' {
                i += 2;
            } else if bytes[i] == quote {
                if bytes.get(i + 1) != Some(&quote) {
                    return i + 1;
                }
                i += 2;
            } else {
                i += 1;
            }
        }
        bytes.len()
    }

    /// The length of `$tag$ … $tag$`, if one begins here.
    fn dollar_quoted(&self) -> Option<usize> {
        let tag_end = self.rest[1..].find('$')? + 2;
        let tag = &self.rest[..tag_end];
        let inner = &tag[1..tag_end - 1];
        let is_tag = inner.chars().all(|c| c.is_alphanumeric() || c == '_')
            && !inner.starts_with(|c: char| c.is_ascii_digit());
        if !is_tag {
            return None;
        }
        Some(self.rest[tag_end..].find(tag).map_or(self.rest.len(), |i| tag_end + i + tag_end))
    }

    /// The length of a block comment; they nest.
    fn block_comment(&self) -> usize {
        let bytes = self.rest.as_bytes();
        let (mut depth, mut i) = (0_usize, 0);
        while i + 1 < bytes.len() {
            match &bytes[i..i + 2] {
                b"/*" => (depth, i) = (depth + 1, i + 2),
                b"*/" => {
                    (depth, i) = (depth - 1, i + 2);
                    if depth == 0 {
                        return i;
                    }
                }
                _ => i += 1,
            }
        }
        bytes.len()
    }

    fn run(&self, from: usize, belongs: impl Fn(char) -> bool) -> usize {
        self.rest[from..].find(|c| !belongs(c)).map_or(self.rest.len(), |i| from + i)
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

impl<'s> Iterator for Tokens<'s> {
    type Item = Token<'s>;

    fn next(&mut self) -> Option<Token<'s>> {
        let mut chars = self.rest.chars();
        let first = chars.next()?;
        let second = chars.next().unwrap_or('\0');
        Some(match first {
            c if c.is_whitespace() => {
                let n = self.run(0, char::is_whitespace);
                self.take(n);
                Token::Space
            }
            '-' if second == '-' => {
                let n = self.rest.find('\n').unwrap_or(self.rest.len());
                self.take(n);
                Token::Space
            }
            '/' if second == '*' => {
                let n = self.block_comment();
                self.take(n);
                Token::Space
            }
            '\'' => {
                let n = self.quoted(1, b'\'', false);
                self.take(n);
                Token::Literal
            }
            'e' | 'E' | 'b' | 'B' | 'x' | 'X' | 'n' | 'N' if second == '\'' => {
                let n = self.quoted(2, b'\'', matches!(first, 'e' | 'E'));
                self.take(n);
                Token::Literal
            }
            '"' => {
                let n = self.quoted(1, b'"', false);
                Token::Quoted(self.take(n))
            }
            '$' if second.is_ascii_digit() => {
                let n = self.run(1, |c| c.is_ascii_digit());
                Token::Parameter(self.take(n))
            }
            '$' => match self.dollar_quoted() {
                Some(n) => {
                    self.take(n);
                    Token::Literal
                }
                None => Token::Other(self.take(1)),
            },
            c if c.is_ascii_digit() || (c == '.' && second.is_ascii_digit()) => {
                let n = self.run(1, |c| c.is_ascii_alphanumeric() || c == '.' || c == '_');
                self.take(n);
                Token::Literal
            }
            c if is_word(c) => {
                let n = self.run(0, is_word);
                Token::Word(self.take(n))
            }
            c => Token::Other(self.take(c.len_utf8())),
        })
    }
}

/// The query's text with every literal replaced by `?`, comments dropped and blanks joined.
///
/// ```
/// use lacuna_instrument::postgres::sanitise;
/// assert_eq!(sanitise("SELECT * FROM essays WHERE id = 'x''y' AND n > 5 -- why"),
///            "SELECT * FROM essays WHERE id = ? AND n > ?");
/// ```
#[must_use]
pub fn sanitise(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut space = false;
    for token in (Tokens { rest: sql }) {
        if token == Token::Space {
            space = !text.is_empty();
            continue;
        }
        if std::mem::take(&mut space) {
            text.push(' ');
        }
        match token {
            Token::Word(s) | Token::Quoted(s) | Token::Parameter(s) | Token::Other(s) => {
                text.push_str(s)
            }
            Token::Literal => text.push('?'),
            Token::Space => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_literal_goes() {
        for (sql, expected) in [
            ("SELECT 'a', E'b\\'c', 1.5e3, 0xff, B'01'", "SELECT ?, ?, ?, ?, ?"),
            ("SELECT $$secret$$, $t$it's $$ here$t$", "SELECT ?, ?"),
            (
                "SELECT $1, t1.c2 FROM t1 /* a /* nested */ 'x' */ WHERE a='b'",
                "SELECT $1, t1.c2 FROM t1 WHERE a=?",
            ),
            (
                "INSERT INTO \"My Table\" VALUES (-12, 'é')",
                "INSERT INTO \"My Table\" VALUES (-?, ?)",
            ),
            ("SELECT 'never closed", "SELECT ?"),
            ("  SELECT\n  1 -- 'x'\n;", "SELECT ? ;"),
        ] {
            assert_eq!(sanitise(sql), expected);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(sql in "\\PC{0,80}") {
            let _ = sanitise(&sql);
        }

        #[test]
        fn pieces_of_sql_in_any_order_do_not_panic(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "'", "''", "\\", "$", "$1", "$t$", "$$", "\"", "--", "\n", "/*", "*/", "E'", "SELECT ", "FROM ", "x", "é", "1", "."
            ]), 0..30)
        ) {
            let sql = pieces.concat();
            let _ = sanitise(&sql);
        }

        #[test]
        fn a_string_literal_never_survives(secret in "[a-z'\\\\$é]{1,20}") {
            let sql = format!("SELECT a FROM t WHERE b = '{}' AND c = 1", secret.replace('\'', "''"));
            prop_assert_eq!(sanitise(&sql), "SELECT a FROM t WHERE b = ? AND c = ?");
        }
    }
}
