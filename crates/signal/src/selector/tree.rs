//! Who is whose parent in a trace, and what follows from that.

use arrow::array::{Array, FixedSizeBinaryArray};
use arrow::buffer::BooleanBuffer;
use hashbrown::HashMap;

use super::query::Relation;
use crate::batch::Batch;
use crate::schema as c;

/// Parents of a trace's spans.
pub(super) struct Tree {
    /// The parent's row, if it is among the rows.
    pub(super) parent: Vec<Option<usize>>,
    /// A number for each parent id, also of parents that are missing.
    family: Vec<Option<usize>>,
    families: usize,
}

impl Tree {
    pub(super) fn new(trace: &Batch) -> Self {
        let rows = trace.num_rows();
        let read = |column: Option<&FixedSizeBinaryArray>, row: usize| {
            column.filter(|column| column.is_valid(row)).map(|column| column.value(row).to_vec())
        };
        let (spans, parents) = (trace.id_column(c::SPAN_ID), trace.id_column(c::PARENT_SPAN_ID));
        let mut by_id: HashMap<Vec<u8>, usize> = HashMap::with_capacity(rows);
        for row in 0..rows {
            if let Some(id) = read(spans, row) {
                by_id.entry(id).or_insert(row);
            }
        }
        let mut numbers: HashMap<Vec<u8>, usize> = HashMap::new();
        let (mut parent, mut family) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        for row in 0..rows {
            let id = read(parents, row);
            // A span that names itself as its parent is a root.
            parent.push(id.as_ref().and_then(|id| by_id.get(id).copied()).filter(|p| *p != row));
            let next = numbers.len();
            family.push(id.map(|id| *numbers.entry(id).or_insert(next)));
        }
        Self { parent, family, families: numbers.len() }
    }

    /// Rows that have `relation` to one of `left`.
    pub(super) fn related(&self, relation: Relation, left: &BooleanBuffer) -> Vec<bool> {
        let rows = self.parent.len();
        let mut related = vec![false; rows];
        match relation {
            Relation::Child => {
                for (row, parent) in self.parent.iter().enumerate() {
                    related[row] = parent.is_some_and(|parent| left.value(parent));
                }
            }
            Relation::Parent => {
                for row in left.set_indices() {
                    if let Some(parent) = self.parent[row] {
                        related[parent] = true;
                    }
                }
            }
            Relation::Ancestor => {
                for row in left.set_indices() {
                    let mut next = self.parent[row];
                    // What is marked already has had its own ancestors marked; that also ends a
                    // cycle, which broken ids can make.
                    while let Some(ancestor) = next.filter(|ancestor| !related[*ancestor]) {
                        related[ancestor] = true;
                        next = self.parent[ancestor];
                    }
                }
            }
            Relation::Descendant => {
                let mut known = vec![false; rows];
                let mut path = Vec::new();
                for start in 0..rows {
                    let (mut row, mut below) = (start, false);
                    path.clear();
                    loop {
                        if known[row] {
                            below = related[row];
                            break;
                        }
                        known[row] = true;
                        path.push(row);
                        match self.parent[row] {
                            Some(parent) => row = parent,
                            None => {
                                path.pop();
                                below |= left.value(row);
                                break;
                            }
                        }
                    }
                    // From the top down: a row is below what its parent is, or is below, of.
                    if let Some(top) = path.last().and_then(|last| self.parent[*last]) {
                        below |= left.value(top);
                    }
                    for row in path.iter().rev() {
                        related[*row] = below;
                        below |= left.value(*row);
                    }
                }
            }
            Relation::Sibling => {
                let mut selected = vec![0usize; self.families];
                for row in left.set_indices() {
                    if let Some(family) = self.family[row] {
                        selected[family] += 1;
                    }
                }
                for (row, family) in self.family.iter().enumerate() {
                    let own = usize::from(left.value(row));
                    related[row] = family.is_some_and(|family| selected[family] > own);
                }
            }
        }
        related
    }
}
