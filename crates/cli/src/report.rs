//! How failures are worded and laid out.

use lacuna_contract::LoadErrors;
use lacuna_server::StartError;
use lacuna_signal::selector::{Query, Selector, SelectorError};
use miette::{Diagnostic, LabeledSpan, MietteHandlerOpts, miette};

use crate::Failure;

/// Lays reports out with one line a message, however long: lines can be searched and copied.
pub fn set_up() {
    let layout = || MietteHandlerOpts::new().wrap_lines(false).width(usize::MAX).build();
    // An error says that it was done before, which is as good.
    let _ = miette::set_hook(Box::new(move |_| Box::new(layout())));
}

/// Why a server did not start; contract errors show each place in its file.
pub fn start(error: StartError) -> Failure {
    match error {
        StartError::Contracts { errors, .. } => contracts(*errors),
        other => miette!("{other}"),
    }
}

/// A selector; where it is wrong, its column is shown.
pub fn selector(text: &str) -> Result<Selector, Failure> {
    Selector::parse(text).map_err(|error| bad_selector(text, &error))
}

/// A query over whole traces, or a selector.
pub fn query(text: &str) -> Result<Query, Failure> {
    Query::parse(text).map_err(|error| bad_selector(text, &error))
}

fn bad_selector(text: &str, error: &SelectorError) -> Failure {
    let range = error.offset()..error.offset() + error.len();
    let label = LabeledSpan::at(range, error.problem());
    miette!(
        labels = vec![label],
        help = error.help(),
        "column {}: {}",
        error.column(),
        error.problem()
    )
    .with_source_code(text.to_owned())
}

/// What is wrong with contract files, each place shown.
pub fn contracts(mut errors: LoadErrors) -> Failure {
    match errors.errors.pop() {
        Some(only) if errors.errors.is_empty() => Failure::new(only),
        last => {
            errors.errors.extend(last);
            Failure::new(Several(errors))
        }
    }
}

/// Several errors under one heading, which does not repeat them.
#[derive(Debug, thiserror::Error)]
#[error("{} errors in contract files", .0.errors.len())]
struct Several(LoadErrors);

impl Diagnostic for Several {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        self.0.related()
    }
}
