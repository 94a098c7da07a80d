//! Contracts held against real signals: sides that match nothing, keys that are never there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::BooleanArray;
use lacuna_signal::schema::Scope;
use lacuna_signal::selector::{BatchIndex, Literal, nearest};
use lacuna_signal::{Batch, SignalKind};

use super::error::LoadError;
use super::{Condition, Contract, ContractSet, Kind, Role, Side, Term};
use crate::monitor::{NUMBER, TEXT, TRUTH, is_key, kind_of, side_name};

/// Of a side's events, so many different attributes are remembered.
const MAX_NAMES: usize = 100;

/// What was seen of one side.
#[derive(Debug, Default)]
struct Seen {
    matched: u64,
    /// Of each field of the key: events that have a usable value, and that have another.
    usable: Vec<u64>,
    unusable: Vec<u64>,
    /// Of each field that `where` reads: how many events have it, and what kinds of value.
    fields: Vec<(u64, BTreeSet<&'static str>)>,
    /// Attributes of the events, by how many have them.
    names: BTreeMap<String, u64>,
}

/// Watches batches for what contracts rest on.
#[derive(Debug)]
pub struct DataCheck<'a> {
    set: &'a ContractSet,
    seen: Vec<[Seen; 3]>,
    kinds: BTreeSet<&'static str>,
}

impl<'a> DataCheck<'a> {
    /// One that has seen nothing.
    pub fn new(set: &'a ContractSet) -> Self {
        let seen = set.contracts().iter().map(|_| Default::default()).collect();
        Self { set, seen, kinds: BTreeSet::new() }
    }

    /// Takes a batch's rows.
    pub fn observe(&mut self, batch: &Batch) {
        if batch.num_rows() == 0 {
            return;
        }
        self.kinds.insert(batch.kind().name());
        let index = BatchIndex::new(batch);
        for (contract, seen) in self.set.contracts().iter().zip(&mut self.seen) {
            for (role, side) in contract.sides() {
                seen[role as usize].observe(side, batch, &index);
            }
        }
    }

    /// What is wrong: keys that one side never has. And what is odd: sides that nothing matched,
    /// keys that some events lack.
    pub fn finish(&self) -> (Vec<LoadError>, Vec<LoadError>) {
        let (mut wrong, mut odd) = (Vec::new(), Vec::new());
        for (at, contract) in self.set.contracts().iter().enumerate() {
            for (role, side) in contract.sides() {
                let seen = &self.seen[at][role as usize];
                let name = side_name(contract, role);
                let what =
                    if side.selector.kind() == SignalKind::Logs { "log records" } else { "spans" };
                if seen.matched == 0 {
                    // That nothing was refused or forbidden is as it should be.
                    let silent = role == Role::RefusedBy
                        || (role == Role::Expect && contract.kind == Kind::Absence);
                    if !silent && self.kinds.contains(side.selector.kind().name()) {
                        let message = format!("`{name}` matches none of the {what} of this data");
                        let help = "look at names and attributes, or at data in which it happens";
                        odd.extend(self.set.complain(at, name, message, help.to_owned()));
                    }
                    continue;
                }
                for (field, access) in side.key.iter().enumerate() {
                    let field_name = access.to_string();
                    let (usable, unusable) = (seen.usable[field], seen.unusable[field]);
                    if usable == seen.matched {
                        continue;
                    }
                    let of = seen.matched;
                    let mut message = match (usable, unusable) {
                        (0, 0) => format!(
                            "a key that one side lacks: none of the {of} {what} that `{name}` matches has `{field_name}`"
                        ),
                        (0, _) => format!(
                            "a key that one side lacks: `{field_name}` is an array, a map, bytes or empty in the {what} that `{name}` matches"
                        ),
                        (n, _) => format!(
                            "`{field_name}` is missing in {} of the {of} {what} that `{name}` matches",
                            of - n
                        ),
                    };
                    if usable > 0 {
                        message.push_str(": those count for nothing");
                        odd.extend(self.set.complain(at, "key", message, String::new()));
                        continue;
                    }
                    let help = self.remedy(at, contract, role, side, &field_name);
                    wrong.extend(self.set.complain(at, "key", message, help));
                }
            }
        }
        for (at, contract) in self.set.contracts().iter().enumerate() {
            let (lacking, unlike) = self.conditions(at, contract);
            wrong.extend(lacking);
            odd.extend(unlike);
        }
        (wrong, odd)
    }

    /// Fields of `where` that a side never has; and comparisons of which the sides' values are never
    /// of one kind.
    fn conditions(&self, at: usize, contract: &Contract) -> (Vec<LoadError>, Vec<LoadError>) {
        let (mut lacking, mut unlike) = (Vec::new(), Vec::new());
        for (role, side) in contract.sides() {
            let seen = &self.seen[at][role as usize];
            for (field, (having, _)) in side.fields.iter().zip(&seen.fields) {
                let (name, of, role_name) =
                    (field.to_string(), seen.matched, side_name(contract, role));
                if *having == 0 && of > 0 {
                    let message = format!(
                        "no pair can be made: none of the {of} events that `{role_name}` matches has `{name}`"
                    );
                    let help = self.remedy(at, contract, role, side, &name);
                    lacking.extend(self.set.complain(at, "where", message, help));
                } else if *having < of {
                    let message = format!(
                        "`{name}` is missing in {} of the {of} events that `{role_name}` matches: those \
                         make no pair",
                        of - having
                    );
                    unlike.extend(self.set.complain(at, "where", message, String::new()));
                }
            }
        }
        let kinds = |term: &Term| match term {
            Term::Field(role, field) => {
                self.seen[at][*role as usize].fields.get(*field).map(|seen| seen.1.clone())
            }
            Term::Text(_) => Some(BTreeSet::from([TEXT])),
            Term::Int(_) | Term::Number(_) => Some(BTreeSet::from([NUMBER])),
            Term::Bool(_) => Some(BTreeSet::from([TRUTH])),
        };
        for Condition { left, right, .. } in &contract.conditions {
            let (Some(a), Some(b)) = (kinds(left), kinds(right)) else { continue };
            if a.is_empty() || b.is_empty() || !a.is_disjoint(&b) {
                continue;
            }
            let list = |set: BTreeSet<&str>| set.into_iter().collect::<Vec<_>>().join(" or ");
            let (left, right) = (contract.term_name(left), contract.term_name(right));
            let (a, b) = (list(a), list(b));
            let message =
                format!("no pair can be made: `{left}` is {a}, `{right}` is {b} in this data");
            let help = "write both sides alike: texts are not taken for numbers".to_owned();
            lacking.extend(self.set.complain(at, "where", message, help));
        }
        (lacking, unlike)
    }

    /// Attributes that the side's events have instead.
    fn remedy(
        &self,
        at: usize,
        contract: &Contract,
        role: Role,
        side: &Side,
        field: &str,
    ) -> String {
        let own = side.selector.kind().own_scope().name();
        let seen = &self.seen[at][role as usize];
        let always = seen.names.iter().filter(|(_, n)| **n == seen.matched);
        let scoped: Vec<String> = always.map(|(name, _)| format!("{own}.{name}")).collect();
        if let Some(near) = nearest(field, scoped.iter().map(String::as_str)) {
            return format!("did you mean `{near}`?");
        }
        // What the other side has under the same name is the likeliest key.
        let others = contract.sides().filter(|(other, _)| *other != role);
        let other: BTreeSet<&String> =
            others.flat_map(|(other, _)| self.seen[at][other as usize].names.keys()).collect();
        let both: Vec<&String> = scoped
            .iter()
            .filter(|name| other.iter().any(|o| name.ends_with(&format!(".{o}"))))
            .collect();
        let list = if both.is_empty() { scoped.iter().collect() } else { both };
        if list.is_empty() {
            return "its events have no attributes at all".to_owned();
        }
        let list: Vec<String> = list.into_iter().take(6).map(|name| format!("`{name}`")).collect();
        format!("its events have {}", list.join(", "))
    }
}

impl Seen {
    fn observe(&mut self, side: &Side, batch: &Batch, index: &BatchIndex<'_>) {
        if self.usable.len() < side.key.len() {
            self.usable.resize(side.key.len(), 0);
            self.unusable.resize(side.key.len(), 0);
        }
        if self.fields.len() < side.fields.len() {
            self.fields.resize(side.fields.len(), Default::default());
        }
        let mask: BooleanArray = side.selector.mask_in(index);
        if mask.true_count() == 0 {
            return;
        }
        let conditions: Vec<_> = side.fields.iter().map(|field| field.bind(index)).collect();
        let readers: Vec<_> = side.key.iter().map(|field| field.bind(index)).collect();
        let scope: Scope = batch.kind().own_scope();
        let attributes = batch.attributes(scope);
        for row in (0..batch.num_rows()).filter(|row| mask.value(*row)) {
            self.matched += 1;
            for (field, reader) in readers.iter().enumerate() {
                match reader.get(row) {
                    Some(value) if is_key(value) => self.usable[field] += 1,
                    Some(_) => self.unusable[field] += 1,
                    None => {}
                }
            }
            for (seen, reader) in self.fields.iter_mut().zip(&conditions) {
                if let Some(value) = reader.get(row) {
                    seen.0 += 1;
                    seen.1.insert(kind_of(value));
                }
            }
            for (name, _) in attributes.of_row(row) {
                if let Some(count) = self.names.get_mut(name) {
                    *count += 1;
                } else if self.names.len() < MAX_NAMES {
                    self.names.insert(name.to_owned(), 1);
                }
            }
        }
    }
}

impl ContractSet {
    /// Contracts whose obligations outlive the data that they rest on: a `within` longer than data
    /// is kept.
    pub fn beyond_retention(&self, age: Duration) -> Vec<LoadError> {
        let kept = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        let mut errors = Vec::new();
        for (at, contract) in self.contracts().iter().enumerate() {
            let Some(within) = contract.within.filter(|within| *within > kept) else { continue };
            let field =
                if matches!(contract.kind, Kind::Heartbeat { .. }) { "every" } else { "within" };
            let (within, kept) = (Literal::Duration(within), Literal::Duration(kept));
            let message = format!("`{field}` is {within}, but data is kept for {kept}");
            let help = format!(
                "after a restart the beginning would be gone: keep data longer, or write at most {kept}"
            );
            errors.extend(self.complain(at, field, message, help));
        }
        errors
    }

    /// Contracts that look back over all of the past, of which data that is kept for `age` has only
    /// the last part: a precedence without `within`.
    pub fn without_bound(&self, age: Duration) -> Vec<LoadError> {
        let kept = Literal::Duration(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
        let unbounded =
            |contract: &Contract| contract.kind == Kind::Precedence && contract.within.is_none();
        let all = self.contracts().iter().enumerate();
        all.filter(|(_, contract)| unbounded(contract))
            .filter_map(|(at, _)| {
                let message = format!(
                    "without `within` a cause may be of any age, but data is kept for {kept}"
                );
                let help = "say how long before the outcome its cause may be: add `within: 1h`";
                self.complain(at, "kind", message, help.to_owned())
            })
            .collect()
    }
}
