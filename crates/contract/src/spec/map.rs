//! A contract's fields, as its file has them.

use std::ops::Range;

use super::yaml::{Key, Node};

/// A YAML map being read.
pub(super) struct Map<'a> {
    pub(super) entries: &'a [(Key, Node)],
    pub(super) place: Range<usize>,
    /// The contract's kind; `None` if it is not one.
    pub(super) kind: Option<&'static str>,
    /// Fields that are there under a misspelt name.
    pub(super) meant: Vec<&'static str>,
}

impl<'a> Map<'a> {
    pub(super) fn get(&self, field: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(key, _)| key.name == field).map(|(_, node)| node)
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &'a (Key, Node)> + use<'a> {
        self.entries.iter()
    }

    /// Where a missing field is complained about: at the contract's name, else at its start.
    pub(super) fn head(&self) -> Range<usize> {
        let name = self.get("name").map(|node| node.span.clone());
        let first = self.entries.first().map(|(key, _)| key.span.clone());
        name.or(first).unwrap_or_else(|| self.place.clone())
    }
}
