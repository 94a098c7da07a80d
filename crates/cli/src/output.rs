//! Writing to the terminal: the only place of the workspace that prints.

use std::io::{self, IsTerminal, Write};

/// Writes `text` and a newline to standard output. A reader that has gone away (`| head`) is not an
/// error.
pub fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes `text` and a newline to standard error.
pub fn error(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

/// Whether standard output is a terminal, so that a person watches.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// How text is emphasised: by ANSI codes on a terminal that wants them, not at all elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// Emphasis if standard output is a terminal and `NO_COLOR` is not set.
    pub fn of_stdout() -> Self {
        Self { colour: is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What is well.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What is not.
    pub fn bad(self, text: &str) -> String {
        self.paint("31;1", text)
    }
}
