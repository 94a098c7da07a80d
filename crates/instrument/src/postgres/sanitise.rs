//! Query text without values, and its summary.
//!
//! Follows the database conventions: literals become `?`, parameters (`$1`) stay, comments go; a
//! summary is the operations and their targets in order, at most 255 characters.

/// What a piece of SQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'s> {
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

struct Tokens<'s> {
    rest: &'s str,
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

const OPERATIONS: [&str; 20] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "CREATE",
    "ALTER",
    "DROP",
    "TRUNCATE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT",
    "RELEASE",
    "SET",
    "SHOW",
    "COPY",
    "LOCK",
    "CALL",
    "VACUUM",
];

/// Functions that take `FROM` between their arguments: `extract(epoch FROM created)`.
const TAKE_FROM: [&str; 4] = ["EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"];

/// The query's summary: `INSERT essays`, `SELECT essays batches`.
///
/// ```
/// use lacuna_instrument::postgres::summarise;
/// assert_eq!(summarise("select e.id from essays e join batches b on b.id = e.batch where b.id = 1"),
///            "SELECT essays batches");
/// ```
#[must_use]
pub fn summarise(sql: &str) -> String {
    let mut summary = String::new();
    let mut add = |word: &str, upper: bool| {
        let separator = usize::from(!summary.is_empty());
        // Whole words only: half a name names something else.
        if summary.len() + separator + word.len() <= 255 {
            if separator == 1 {
                summary.push(' ');
            }
            if upper {
                summary.push_str(&word.to_ascii_uppercase())
            } else {
                summary.push_str(word)
            }
        }
    };
    let mut tokens = Tokens { rest: sql }.filter(|t| *t != Token::Space).peekable();
    let mut before = "";
    let mut first = true;
    // For each open parenthesis, whether it is such a function's.
    let mut inside: Vec<bool> = vec![];
    while let Some(token) = tokens.next() {
        let Token::Word(word) = token else {
            match token {
                Token::Other("(") => {
                    inside.push(TAKE_FROM.iter().any(|f| before.eq_ignore_ascii_case(f)));
                }
                Token::Other(")") => drop(inside.pop()),
                _ => {}
            }
            before = "";
            continue;
        };
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        // `FOR UPDATE`, `DO UPDATE SET` and `ON … SET` are no operations of their own.
        let operation = OPERATIONS.iter().any(|o| is(o)) && (first || !is("SET"));
        let part_of_another =
            before.eq_ignore_ascii_case("for") || before.eq_ignore_ascii_case("do");
        if operation && !part_of_another {
            add(word, true);
        }
        // `extract(… FROM …)` and `IS DISTINCT FROM` name no table.
        let from_in_expression =
            is("FROM") && (inside.last() == Some(&true) || before.eq_ignore_ascii_case("distinct"));
        let names_follow = !from_in_expression
            && ["FROM", "INTO", "JOIN", "UPDATE", "TABLE", "CALL"].iter().any(|k| is(k));
        if names_follow && !part_of_another {
            while let Some(Token::Word(w)) = tokens.peek() {
                let skip = ["IF", "NOT", "EXISTS", "ONLY", "LATERAL"]
                    .iter()
                    .any(|k| w.eq_ignore_ascii_case(k));
                if !skip {
                    break;
                }
                tokens.next();
            }
            let mut name = String::new();
            while let Some(Token::Word(part) | Token::Quoted(part)) = tokens.peek().copied() {
                name.push_str(part);
                tokens.next();
                if tokens.peek() != Some(&Token::Other(".")) {
                    break;
                }
                name.push('.');
                tokens.next();
            }
            if !name.is_empty() {
                add(&name, false);
            }
            before = "";
        } else {
            before = word;
        }
        first = false;
    }
    summary
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

    #[test]
    fn summaries_name_operations_and_targets_in_order() {
        for (sql, expected) in [
            ("INSERT INTO essays (id) SELECT id FROM drafts", "INSERT essays SELECT drafts"),
            ("update only public.essays set state = 'x' where id = 1", "UPDATE public.essays"),
            ("SELECT * FROM essays WHERE id = $1 FOR UPDATE", "SELECT essays"),
            (
                "INSERT INTO essays VALUES ($1) ON CONFLICT (id) DO UPDATE SET state = $2",
                "INSERT essays",
            ),
            ("WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x", "DELETE a SELECT x"),
            ("CREATE TABLE IF NOT EXISTS batches (id text)", "CREATE batches"),
            ("SELECT count(*) FROM (SELECT 1 FROM t) s", "SELECT SELECT t"),
            ("UPDATE a SET x = 1 RETURNING extract(epoch FROM b - c)", "UPDATE a"),
            ("SELECT trim(both ' ' from (SELECT n FROM t)) FROM u", "SELECT SELECT t u"),
            ("SELECT 1 FROM a WHERE b IS DISTINCT FROM c", "SELECT a"),
            ("BEGIN", "BEGIN"),
            ("", ""),
        ] {
            assert_eq!(summarise(sql), expected, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(sql in "\\PC{0,80}") {
            let _ = (sanitise(&sql), summarise(&sql));
            prop_assert!(summarise(&sql).len() <= 255);
        }

        #[test]
        fn pieces_of_sql_in_any_order_do_not_panic(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "'", "''", "\\", "$", "$1", "$t$", "$$", "\"", "--", "\n", "/*", "*/", "E'", "SELECT ", "FROM ", "x", "é", "1", "."
            ]), 0..30)
        ) {
            let sql = pieces.concat();
            let _ = (sanitise(&sql), summarise(&sql));
        }

        #[test]
        fn a_string_literal_never_survives(secret in "[a-z'\\\\$é]{1,20}") {
            let sql = format!("SELECT a FROM t WHERE b = '{}' AND c = 1", secret.replace('\'', "''"));
            prop_assert_eq!(sanitise(&sql), "SELECT a FROM t WHERE b = ? AND c = ?");
        }
    }
}
