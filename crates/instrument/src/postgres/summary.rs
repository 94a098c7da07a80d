//! What a statement does, in a few words: its operations and their targets.

use super::sanitise::{Token, Tokens};

/// A statement in words that are low in cardinality.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The operations and their targets in order, at most 255 characters.
    pub(crate) text: String,
    /// The statement's own operation: the first that is no part of another.
    pub(crate) operation: Option<String>,
    /// What it is about, where that is one collection: the convention names none for several.
    pub(crate) collection: Option<String>,
}

/// The query's summary: `INSERT essays`, `SELECT essays batches`. What a `WITH` defines is no table,
/// and neither is a function.
///
/// ```
/// use lacuna_instrument::postgres::summarise;
/// assert_eq!(summarise("select e.id from essays e join batches b on b.id = e.batch where b.id = 1"),
///            "SELECT essays batches");
/// ```
#[must_use]
pub fn summarise(sql: &str) -> String {
    Summary::of(sql).text
}

/// Operations that are found anywhere in a statement.
const ANYWHERE: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE"];

/// Operations only where a statement begins: elsewhere, these words may be anybody's columns.
const AT_THE_START: [&str; 15] = [
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

/// Words after which `UPDATE`, `DELETE` and `INSERT` are part of another operation: `FOR UPDATE`, `FOR
/// NO KEY UPDATE`, `DO UPDATE SET`, `ON DELETE CASCADE`, `WHEN MATCHED THEN UPDATE`.
const PART_OF: [&str; 5] = ["FOR", "KEY", "DO", "ON", "THEN"];

/// Functions that take `FROM` between their arguments: `extract(epoch FROM created)`.
const TAKE_FROM: [&str; 4] = ["EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"];

/// Words between a keyword and the name that it announces.
const BEFORE_A_NAME: [&str; 11] = [
    "IF",
    "NOT",
    "EXISTS",
    "ONLY",
    "LATERAL",
    "TABLE",
    "FULL",
    "FREEZE",
    "VERBOSE",
    "ANALYZE",
    "CONCURRENTLY",
];

/// Words that end a list of tables.
const END_A_LIST: [&str; 14] = [
    "WHERE",
    "GROUP",
    "ORDER",
    "HAVING",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "UNION",
    "EXCEPT",
    "INTERSECT",
    "WINDOW",
    "RETURNING",
    "SET",
    "FOR",
];

/// One level of parentheses.
#[derive(Clone, Copy, Default)]
struct Level {
    /// It is such a function's.
    takes_from: bool,
    /// After a comma, another table follows.
    list: bool,
}

/// What kind of name follows a keyword.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    /// A table that is read: it may be a function, or what a `WITH` defines.
    Source,
    /// A table that is written, made or dropped.
    Target,
    /// A procedure.
    Procedure,
}

fn is_any(word: &str, of: &[&str]) -> bool {
    of.iter().any(|w| word.eq_ignore_ascii_case(w))
}

impl Summary {
    pub(crate) fn of(sql: &str) -> Self {
        let tokens: Vec<Token<'_>> = Tokens { rest: sql }.filter(|t| *t != Token::Space).collect();
        let mut reading = Reading {
            with: defined(&tokens),
            tokens: &tokens,
            at: 0,
            summary: Self::default(),
            outermost: false,
            collections: vec![],
        };
        reading.read();
        let Reading { mut summary, mut collections, .. } = reading;
        collections.dedup();
        summary.collection = match collections.as_mut_slice() {
            [only] => Some(std::mem::take(only)),
            _ => None,
        };
        summary
    }
}

struct Reading<'t, 's> {
    tokens: &'t [Token<'s>],
    at: usize,
    /// What the statement's `WITH` defines.
    with: Vec<String>,
    summary: Summary,
    /// The operation was found outside of all parentheses.
    outermost: bool,
    /// Every table, in order.
    collections: Vec<String>,
}

impl<'s> Reading<'_, 's> {
    fn read(&mut self) {
        let mut levels = vec![Level::default()];
        let mut before = "";
        let mut operation = "";
        let mut start = true;
        while let Some(token) = self.tokens.get(self.at).copied() {
            self.at += 1;
            let here = levels.len() - 1;
            let Token::Word(word) = token else {
                match token {
                    Token::Other("(") => {
                        let takes_from = is_any(before, &TAKE_FROM);
                        levels.push(Level { takes_from, list: false });
                    }
                    Token::Other(")") if here > 0 => drop(levels.pop()),
                    Token::Other(",") if levels[here].list => self.name(Name::Source),
                    Token::Other(";") => {
                        (levels, operation, start) = (vec![Level::default()], "", true);
                    }
                    _ => {}
                }
                before = "";
                continue;
            };
            let begins = std::mem::replace(&mut start, false);
            let is = |name: &str| word.eq_ignore_ascii_case(name);
            let previous = std::mem::replace(&mut before, word);
            let part = is_any(previous, &PART_OF);
            if is_any(word, &END_A_LIST) {
                levels[here].list = false;
            }
            if !part && (is_any(word, &ANYWHERE) || (begins && is_any(word, &AT_THE_START))) {
                operation = word;
                levels[here].list = false;
                self.operation(word, here == 0);
            }
            let of = |any: &[&str]| is_any(operation, any);
            // `extract(… FROM …)` and `IS DISTINCT FROM` name no table, nor does `COPY … FROM`.
            let elsewhere = levels[here].takes_from
                || is_any(previous, &["DISTINCT"])
                || (of(&["COPY"]) && here == 0);
            let is_from = is("FROM") && !elsewhere;
            let named = if is_from || (is("USING") && of(&["DELETE", "MERGE"])) {
                levels[here].list = true;
                Some(Name::Source)
            } else if is("JOIN") {
                Some(Name::Source)
            } else if is("INTO") || (is("UPDATE") && !part) {
                Some(Name::Target)
            } else if is("CALL") && begins {
                Some(Name::Procedure)
            } else if is("TABLE") || (begins && of(&["COPY", "TRUNCATE", "LOCK", "VACUUM"])) {
                levels[here].list = of(&["DROP", "TRUNCATE", "LOCK"]);
                Some(Name::Target)
            } else {
                None
            };
            if let Some(named) = named {
                self.name(named);
            }
        }
    }

    fn operation(&mut self, word: &str, outermost: bool) {
        let word = word.to_ascii_uppercase();
        self.add(&word);
        // Of a `WITH`, it is what comes after what that defines.
        if self.summary.operation.is_none() || (outermost && !self.outermost) {
            self.summary.operation = Some(word);
            self.outermost = outermost;
        }
    }

    /// Reads the name that follows, if one does.
    fn name(&mut self, kind: Name) {
        while let Some(Token::Word(w)) = self.tokens.get(self.at)
            && is_any(w, &BEFORE_A_NAME)
        {
            self.at += 1;
        }
        let mut name = String::new();
        let mut parts = 0;
        while let Some(Token::Word(part) | Token::Quoted(part)) = self.tokens.get(self.at) {
            name.push_str(part);
            (self.at, parts) = (self.at + 1, parts + 1);
            if self.tokens.get(self.at) != Some(&Token::Other(".")) {
                break;
            }
            name.push('.');
            self.at += 1;
        }
        let call = self.tokens.get(self.at) == Some(&Token::Other("("));
        let source = kind == Name::Source;
        let defined = parts == 1 && self.with.contains(&folded(&name));
        if name.is_empty() || (source && (call || defined)) {
            return;
        }
        self.add(&name);
        if kind != Name::Procedure {
            self.collections.push(name);
        }
    }

    /// Adds a word to the text. Whole words only: half a name names something else.
    fn add(&mut self, word: &str) {
        let text = &mut self.summary.text;
        let separator = usize::from(!text.is_empty());
        if text.len() + separator + word.len() <= 255 {
            if separator == 1 {
                text.push(' ');
            }
            text.push_str(word);
        }
    }
}

/// A name as PostgreSQL compares it: without regard to case, unless it is quoted.
fn folded(name: &str) -> String {
    match name.strip_prefix('"') {
        Some(quoted) => quoted.trim_end_matches('"').to_owned(),
        None => name.to_lowercase(),
    }
}

/// The names that the `WITH` clauses of a statement define: `WITH a AS (…), b (x) AS (…)`.
fn defined(tokens: &[Token<'_>]) -> Vec<String> {
    let is = |at: usize, word: &str| matches!(tokens.get(at), Some(Token::Word(w)) if w.eq_ignore_ascii_case(word));
    let mut names = vec![];
    for with in (0..tokens.len()).filter(|at| is(*at, "WITH")) {
        let mut at = with + 1 + usize::from(is(with + 1, "RECURSIVE"));
        while let Some(Token::Word(name) | Token::Quoted(name)) = tokens.get(at) {
            at = after_parentheses(tokens, at + 1);
            if !is(at, "AS") {
                break;
            }
            at += 1 + usize::from(is(at + 1, "NOT"));
            at += usize::from(is(at, "MATERIALIZED"));
            let body = at;
            at = after_parentheses(tokens, body);
            if at == body {
                break;
            }
            names.push(folded(name));
            if tokens.get(at) != Some(&Token::Other(",")) {
                break;
            }
            at += 1;
        }
    }
    names
}

/// Where it goes on behind the parentheses that open at `at`; `at` itself, if none do.
fn after_parentheses(tokens: &[Token<'_>], at: usize) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Other("(") => depth += 1,
            Token::Other(")") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return if i == at { at } else { i + 1 };
        }
    }
    tokens.len().max(at)
}

#[cfg(test)]
mod tests;
