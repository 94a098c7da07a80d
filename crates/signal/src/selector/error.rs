//! What is wrong with a selector, and where.

use std::fmt;

/// Why a text is not a selector: where, what stands there, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectorError {
    offset: usize,
    column: usize,
    text: String,
    problem: String,
    help: String,
}

impl SelectorError {
    /// An error at bytes `offset..offset + len` of `source`.
    pub(super) fn at(source: &str, offset: usize, len: usize, complaint: Complaint) -> Self {
        let offset = floor(source, offset);
        let end = floor(source, offset.saturating_add(len));
        Self {
            offset,
            column: source[..offset].chars().count() + 1,
            text: source[offset..end].to_owned(),
            problem: complaint.problem,
            help: complaint.help,
        }
    }

    /// An error in a term that was not parsed from a text.
    pub(super) fn in_term(text: String, complaint: Complaint) -> Self {
        Self { offset: 0, column: 1, text, problem: complaint.problem, help: complaint.help }
    }

    /// Byte offset of the offending text in the source.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Length in bytes of the offending text; 0 at the end of the source.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether the source ended where more was expected.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Column of the offending text, in characters from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// The offending text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// What would be right.
    pub fn help(&self) -> &str {
        &self.help
    }
}

/// The nearest character boundary at or before `offset`.
fn floor(source: &str, offset: usize) -> usize {
    let mut offset = offset.min(source.len());
    while !source.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.problem)?;
        if !self.help.is_empty() {
            write!(f, " ({})", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for SelectorError {}

/// A problem that has no place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    pub(super) problem: String,
    pub(super) help: String,
}

impl Complaint {
    pub(super) fn new(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self { problem: problem.into(), help: help.into() }
    }
}

/// The one of `known` that `text` is most likely a slip of, for messages.
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = text.chars().count();
    if length > 40 {
        return None;
    }
    let limit = (length / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(&text.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits between two texts: characters added, dropped, changed, or exchanged with the next
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let cost = usize::from(a[i - 1] != b[j - 1]);
                    let mut best =
                        (rows[i - 1][j - 1] + cost).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        best = best.min(rows[i - 2][j - 2] + 1);
                    }
                    best
                }
            };
        }
    }
    rows[a.len()][b.len()]
}
