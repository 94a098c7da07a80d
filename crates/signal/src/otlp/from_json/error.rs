//! What may stop the reading of a JSON request, or of one item in it.

/// The text is not JSON from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syntax {
    /// Offset in bytes.
    pub at: usize,
    /// What is wrong, or what was expected.
    pub what: &'static str,
}

impl Syntax {
    /// Line and column, both from 1; the column counts characters.
    pub fn line_and_column(&self, text: &[u8]) -> (usize, usize) {
        let before = &text[..self.at.min(text.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
    }
}

/// A value that is JSON, but not what its field takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// Its place below what is being read, such as `.attributes[3].value`.
    pub place: String,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

/// Why reading stopped.
#[derive(Debug)]
pub enum Stop {
    Syntax(Syntax),
    Bad(Box<Bad>),
}

impl Stop {
    /// A bad value at the cursor.
    pub fn bad(what: impl Into<String>) -> Self {
        Self::Bad(Box::new(Bad { place: String::new(), what: what.into() }))
    }

    /// The same, seen from one step above.
    pub fn below(mut self, step: impl FnOnce() -> String) -> Self {
        if let Self::Bad(bad) = &mut self {
            bad.place.insert_str(0, &step());
        }
        self
    }
}

impl From<Syntax> for Stop {
    fn from(error: Syntax) -> Self {
        Self::Syntax(error)
    }
}
