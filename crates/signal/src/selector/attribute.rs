//! The columns in which one attribute lies.

use arrow::array::{ArrayRef, AsArray, ListArray};

use super::index::BatchIndex;
use super::whole;
use crate::schema::{AttrType, OVERFLOW, Scope, attribute_column};
use crate::value::{AttributeList, Typed, Value};

/// The column names of one attribute, written out once.
#[derive(Debug, Clone)]
pub(super) struct AttributeColumns {
    /// In the order of [`AttrType::ALL`].
    names: [String; 6],
    overflow_key: String,
    overflow: &'static str,
}

impl AttributeColumns {
    /// Of the row itself.
    pub(super) fn new(scope: Scope, key: &str) -> Self {
        let names = AttrType::ALL.map(|ty| attribute_column(scope, ty, key));
        // `{scope}.{key}`, which is what the column of strings is called too.
        let overflow_key = attribute_column(scope, AttrType::Str, key);
        Self { names, overflow_key, overflow: OVERFLOW }
    }

    /// Of the parent of the row's span, where [`whole::columns`] has put them.
    pub(super) fn of_parent(scope: Scope, key: &str) -> Self {
        let own = Self::new(scope, key);
        let names = own.names.map(|name| whole::of_parent(&name));
        Self { names, overflow: whole::PARENT_OVERFLOW, ..own }
    }

    /// The attribute's key in the overflow column.
    pub(super) fn overflow_key(&self) -> &str {
        &self.overflow_key
    }

    /// The overflow column, if the batch has one.
    pub(super) fn overflow<'a>(&self, batch: &BatchIndex<'a>) -> Option<&'a ListArray> {
        batch.column(self.overflow)?.as_list_opt()
    }

    /// Those columns that the batch has.
    pub(super) fn find<'a>(&self, batch: &BatchIndex<'a>) -> Vec<(AttrType, &'a ArrayRef)> {
        AttrType::ALL
            .into_iter()
            .zip(&self.names)
            .filter_map(|(ty, name)| Some((ty, batch.column(name)?)))
            .collect()
    }

    pub(super) fn bind<'a>(&self, batch: &BatchIndex<'a>) -> BoundAttribute<'a> {
        let found = self.find(batch);
        let overflow = self.overflow(batch);
        BoundAttribute {
            columns: found.into_iter().map(|(ty, c)| Typed::of(c.as_ref(), ty)).collect(),
            overflow: overflow.map(|list| (list, self.overflow_key().to_owned())),
        }
    }
}

/// An attribute of one batch.
#[derive(Debug)]
pub(super) struct BoundAttribute<'a> {
    columns: Vec<Typed<'a>>,
    overflow: Option<(&'a ListArray, String)>,
}

impl<'a> BoundAttribute<'a> {
    /// One column alone.
    pub(super) fn of(column: Typed<'a>) -> Self {
        Self { columns: vec![column], overflow: None }
    }

    pub(super) fn get(&self, row: usize) -> Option<Value<'a>> {
        self.columns.iter().find_map(|column| column.get(row)).or_else(|| {
            let (list, key) = self.overflow.as_ref()?;
            AttributeList::in_row(list, row)?.iter().find(|(k, _)| k == key).map(|(_, v)| v)
        })
    }

    pub(super) fn is_absent(&self) -> bool {
        self.columns.is_empty() && self.overflow.is_none()
    }
}
