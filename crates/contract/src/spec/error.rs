//! What is wrong with contract files: all of it, each at its place.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

/// One thing that is wrong with a contract file.
#[derive(Debug, Clone)]
pub struct LoadError {
    file: String,
    source: Option<Arc<NamedSource<String>>>,
    line: usize,
    column: usize,
    text: String,
    span: Range<usize>,
    message: String,
    help: String,
}

impl LoadError {
    /// An error at bytes `span` of `source`.
    pub(super) fn at(source: &Source, span: Range<usize>, message: String, help: String) -> Self {
        let text = source.text();
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = span.end.clamp(start, text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            file: source.file().to_owned(),
            source: Some(source.named.clone()),
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[start..end].to_owned(),
            span: start..end,
            message,
            help,
        }
    }

    /// A file that cannot be read.
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Self {
        Self {
            file: file.display().to_string(),
            source: None,
            line: 0,
            column: 0,
            text: String::new(),
            span: 0..0,
            message: format!("cannot be read: {error}"),
            help: "name a readable contract file, or a folder of *.yaml and *.yml files".to_owned(),
        }
    }

    /// A file where a folder is wanted.
    pub(super) fn not_a_folder(file: &Path) -> Self {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = parent.unwrap_or(Path::new(".")).display();
        let help = format!(
            "name the folder that it is in, here `{folder}`: every *.yaml and *.yml of it is read, \
             and read again when it changes"
        );
        let message = "is a file; contracts are read from a folder".to_owned();
        let mut error = Self::unreadable(file, &std::io::Error::other(""));
        (error.message, error.help) = (message, help);
        error
    }

    /// The file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Line from 1; 0 if the file could not be read.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Column in characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// The offending text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would be right.
    pub fn help_text(&self) -> &str {
        &self.help
    }
}

/// One line: `file:line:column: message (help)`. As a [`Diagnostic`] it shows the place below that
/// line, and does not give the help a second time.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        } else {
            write!(f, "{}: {}", self.file, self.message)?;
        }
        if !self.help.is_empty() {
            write!(f, " ({})", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

impl Diagnostic for LoadError {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        let label = LabeledSpan::new(Some("here".to_owned()), self.span.start, self.span.len());
        Some(Box::new(std::iter::once(label)))
    }
}

/// Everything that is wrong with a set of contract files, in the files' order.
#[derive(Debug, Clone, Default)]
pub struct LoadErrors {
    /// The errors; never empty when returned as an error.
    pub errors: Vec<LoadError>,
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

impl Diagnostic for LoadErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.errors.iter().map(|error| error as &dyn Diagnostic)))
    }
}

/// A file's name and text.
#[derive(Debug, Clone)]
pub(super) struct Source {
    named: Arc<NamedSource<String>>,
}

impl Source {
    pub(super) fn new(file: &str, text: &str) -> Self {
        Self { named: Arc::new(NamedSource::new(file, text.to_owned()).with_language("YAML")) }
    }

    pub(super) fn file(&self) -> &str {
        self.named.name()
    }

    pub(super) fn text(&self) -> &str {
        self.named.inner()
    }
}
