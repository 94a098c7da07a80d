//! What a contract counts beside its obligations.

use super::codec::code;
use crate::spec::Role;

/// Counts of one contract since it was loaded.
#[derive(Debug, Default, Clone)]
pub(super) struct Stats {
    /// Matching events, by [`role`].
    pub(super) matched: [u64; 3],
    /// Of them, those without a usable key.
    pub(super) key_missing: [u64; 3],
    /// Of them, those without a number to add up.
    pub(super) amount_missing: u64,
    /// Events that came after the watermark had passed them.
    pub(super) late: u64,
    /// Open obligations given up to stay within bounds.
    pub(super) evicted_open: u64,
    /// Settled keys forgotten to stay within bounds.
    pub(super) evicted_settled: u64,
    /// Events of keys with very many that were forgotten one by one to stay within bounds.
    pub(super) dropped: u64,
    /// Events of balances that are only known as a sum any more.
    pub(super) folded: u64,
    /// Events that came when what they could have decided was forgotten.
    pub(super) too_late: u64,
    /// Matching events that lack a field that `where` reads, by [`role`].
    pub(super) field_missing: [u64; 3],
    /// Events that could not be compared with their likeliest partner.
    pub(super) incomparable: u64,
    /// Why the last of those could not.
    pub(super) mismatch: Option<Box<str>>,
    pub(super) last_when: Option<i64>,
    pub(super) last_expect: Option<i64>,
}

code!(Stats {
    matched,
    key_missing,
    amount_missing,
    late,
    evicted_open,
    evicted_settled,
    dropped,
    folded,
    too_late,
    field_missing,
    incomparable,
    mismatch,
    last_when,
    last_expect,
});

impl Stats {
    /// Takes the counts of events back to what they were.
    pub(super) fn forget_matches(&mut self, before: &Self) {
        self.matched = before.matched;
        self.key_missing = before.key_missing;
        self.amount_missing = before.amount_missing;
        self.late = before.late;
        self.too_late = before.too_late;
        self.field_missing = before.field_missing;
        self.incomparable = before.incomparable;
    }
}

pub(super) fn role(role: Role) -> usize {
    match role {
        Role::When => 0,
        Role::Expect => 1,
        Role::RefusedBy => 2,
    }
}
