//! Where the parts of a contract stand in its file, for complaints that come after reading.

use std::ops::Range;

use super::error::{LoadError, Source};
use super::map::Map;

/// The places of a contract's fields.
#[derive(Debug, Clone)]
pub(super) struct Places {
    source: Source,
    head: Range<usize>,
    fields: Vec<(String, Range<usize>)>,
}

impl Places {
    pub(super) fn new(source: &Source, map: &Map<'_>) -> Self {
        let fields = map.fields().map(|(key, node)| (key.name.clone(), node.span.clone()));
        Self { source: source.clone(), head: map.head(), fields: fields.collect() }
    }

    /// A complaint about a field's value; about the contract if it lacks the field.
    pub(super) fn complain(&self, field: &str, message: String, help: String) -> LoadError {
        let place = self.fields.iter().find(|(name, _)| name == field).map(|(_, span)| span);
        LoadError::at(&self.source, place.unwrap_or(&self.head).clone(), message, help)
    }
}
