//! What the spans of a segment add up to: calls by minute and operation, and by minute who called
//! whom. Questions about more spans than can be read are answered from these.
//!
//! An edge needs both its spans, and they may be flushed apart, in either order. It is counted once,
//! by the flush of the later one: a flush looks for callers in older segments, and older segments
//! keep the *ends* whose callers had not come. So sums of segments never count an edge twice, and a
//! merge adds up what its segments say without reading a span.

pub mod codec;
pub mod gather;
mod latencies;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::query::EdgeKind;

pub use latencies::{Latencies, bucket_of};

/// Nanoseconds in a minute.
pub const MINUTE: i64 = 60_000_000_000;
/// Operations that one segment tells apart; calls of others are counted for their service.
const MAX_OPERATIONS: usize = 2000;
/// Ends that a flush keeps.
const MAX_ENDS: usize = 64 << 10;
/// Ends that a merge keeps.
const MAX_MERGED_ENDS: usize = 16 << 10;
/// A summary may have half a byte for each span, or this many bytes.
const LEAST_BYTES: usize = 64 << 10;

/// The number of the minute in which `time` lies. A minute is open at its start and closed at its
/// end, `number * MINUTE`, as the windows of Jaeger's and Prometheus' rates are.
pub fn minute_of(time: i64) -> i64 {
    time.saturating_sub(1).div_euclid(MINUTE) + 1
}

/// Calls of one operation in one minute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Minute {
    /// Those with status error.
    pub errors: u64,
    /// All, by duration.
    pub latencies: Latencies,
}

/// Service, name (`None`: one of many, see [`Calls::bound`]) and span kind.
pub type Operation = (String, Option<String>, u8);
/// Caller, callee, and how their spans are joined.
pub type Between = (String, String, EdgeKind);

/// A span whose cause was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The key of the span that caused it.
    pub by: u64,
    /// How.
    pub kind: EdgeKind,
    /// Its service.
    pub service: Arc<str>,
    /// Whether it failed.
    pub error: bool,
    /// The minute in which it started.
    pub minute: i64,
}

/// What some spans add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// By operation and minute.
    pub operations: BTreeMap<Operation, BTreeMap<i64, Minute>>,
    /// By edge and minute of the callee's span: calls, and those that failed.
    pub edges: BTreeMap<Between, BTreeMap<i64, (u64, u64)>>,
    /// By kind and minute: spans whose cause was not found, less those of older segments whose
    /// cause is here.
    pub open: BTreeMap<(EdgeKind, i64), i64>,
    /// Spans here whose cause may yet come, oldest first.
    pub ends: Vec<End>,
    /// Keys of spans here for which ends of older segments had waited, and wait no more.
    pub settled: Vec<u64>,
}

/// Says of which services, and spans of which kind.
pub type Wanted<'a> = &'a dyn Fn(&str, u8) -> bool;

/// What of [`Calls`] to add up.
pub struct Part<'a> {
    /// First and last minute.
    pub minutes: std::ops::RangeInclusive<i64>,
    /// Which operations, by service and span kind; `None`: no operations, but edges.
    pub operations: Option<Wanted<'a>>,
}

impl Calls {
    /// Adds `part` of what `other` counted.
    pub fn add(&mut self, other: &Self, part: &Part<'_>) {
        let minutes = part.minutes.clone();
        if minutes.is_empty() {
            return;
        }
        let Some(wanted) = part.operations else {
            for (edge, counted) in &other.edges {
                for (minute, (calls, errors)) in counted.range(minutes.clone()) {
                    let edge = self.edges.entry(edge.clone()).or_default();
                    let sum = edge.entry(*minute).or_default();
                    *sum = (sum.0 + calls, sum.1 + errors);
                }
            }
            let open = other.open.iter().filter(|((_, minute), _)| minutes.contains(minute));
            open.for_each(|(key, count)| *self.open.entry(*key).or_default() += count);
            return;
        };
        for (operation, counted) in &other.operations {
            if !wanted(&operation.0, operation.2) {
                continue;
            }
            for (minute, more) in counted.range(minutes.clone()) {
                let mine = self.operations.entry(operation.clone()).or_default();
                let sum = mine.entry(*minute).or_default();
                sum.errors += more.errors;
                sum.latencies.merge(&more.latencies);
            }
        }
    }

    /// What the spans of `all` together add up to: of segments that become one.
    pub fn merged(all: &[Self]) -> Self {
        let mut merged = Self::default();
        let everything = i64::MIN..=i64::MAX;
        for calls in all {
            merged.add(calls, &Part { minutes: everything.clone(), operations: None });
            merged
                .add(calls, &Part { minutes: everything.clone(), operations: Some(&|_, _| true) });
        }
        // What one waits for and another has is done with.
        let settled: HashSet<u64> = all.iter().flat_map(|calls| &calls.settled).copied().collect();
        let ends = all.iter().flat_map(|calls| &calls.ends);
        let (mut done, mut waiting) = (HashSet::new(), Vec::new());
        for end in ends {
            if settled.contains(&end.by) {
                done.insert(end.by);
            } else {
                waiting.push(end.clone());
            }
        }
        merged.ends = newest(waiting, MAX_MERGED_ENDS);
        let mut settled: Vec<u64> = settled.difference(&done).copied().collect();
        settled.sort_unstable();
        settled.truncate(MAX_MERGED_ENDS);
        merged.settled = settled;
        merged.bound();
        merged
    }

    /// Counts the rarest operations for their service, if there are too many: a client that puts ids
    /// into names must not make the summary as large as the spans.
    pub fn bound(&mut self) {
        if self.operations.len() <= MAX_OPERATIONS {
            return;
        }
        let weight = |minutes: &BTreeMap<i64, Minute>| -> u64 {
            minutes.values().map(|minute| minute.latencies.count()).sum()
        };
        let mut weights: Vec<u64> = self.operations.values().map(weight).collect();
        weights.sort_unstable_by(|a, b| b.cmp(a));
        let least = weights.get(MAX_OPERATIONS).copied().unwrap_or(0);
        let all = std::mem::take(&mut self.operations);
        for ((service, name, kind), minutes) in all {
            let kept = name.filter(|_| weight(&minutes) > least);
            let mine = self.operations.entry((service, kept, kind)).or_default();
            for (minute, more) in minutes {
                let sum = mine.entry(minute).or_default();
                sum.errors += more.errors;
                sum.latencies.merge(&more.latencies);
            }
        }
    }

    /// First and last minute that it says anything of; `None`: it is empty.
    pub fn minutes(&self) -> Option<(i64, i64)> {
        let operations = self.operations.values().flat_map(BTreeMap::keys);
        let edges = self.edges.values().flat_map(BTreeMap::keys);
        let all = operations.chain(edges).chain(self.open.keys().map(|(_, minute)| minute));
        all.fold(None, |found: Option<(i64, i64)>, minute| {
            let (first, last) = found.unwrap_or((*minute, *minute));
            Some((first.min(*minute), last.max(*minute)))
        })
    }
}

/// Whether a summary of `bytes` is worth its place beside `rows` spans.
pub fn worthwhile(bytes: usize, rows: u32) -> bool {
    bytes <= LEAST_BYTES.max(rows as usize / 2)
}

/// The newest `most` of `ends`, oldest first.
fn newest(mut ends: Vec<End>, most: usize) -> Vec<End> {
    ends.sort_by_key(|end| (end.minute, end.by));
    ends.split_off(ends.len().saturating_sub(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_closed_at_their_end() {
        assert_eq!(minute_of(MINUTE), 1);
        assert_eq!(minute_of(MINUTE + 1), 2);
        assert_eq!(minute_of(1), 1);
        assert_eq!(minute_of(0), 0);
        assert_eq!(minute_of(-MINUTE), -1);
        let _ = (minute_of(i64::MIN), minute_of(i64::MAX));
    }

    #[test]
    fn rare_operations_are_counted_for_their_service() {
        let mut calls = Calls::default();
        let mut note = |name: String, times: u64| {
            let key = ("s".to_owned(), Some(name), 2);
            let minute = calls.operations.entry(key).or_default().entry(7).or_default();
            minute.latencies.add_bucket(3, times);
        };
        (0..3 * MAX_OPERATIONS as u64).for_each(|n| note(format!("GET /user/{n}"), 1));
        note("GET /".to_owned(), 5);
        calls.bound();
        assert_eq!(calls.operations.len(), 2);
        let others = &calls.operations[&("s".to_owned(), None, 2)][&7];
        assert_eq!(others.latencies.count(), 3 * MAX_OPERATIONS as u64);
        let kept = &calls.operations[&("s".to_owned(), Some("GET /".to_owned()), 2)][&7];
        assert_eq!(kept.latencies.count(), 5);
    }

    #[test]
    fn a_merge_forgets_ends_that_are_settled() {
        let end = |by| End {
            by,
            kind: EdgeKind::Parent,
            service: Arc::from("s"),
            error: false,
            minute: 1,
        };
        let a = Calls { ends: vec![end(1), end(2)], ..Calls::default() };
        let b = Calls { settled: vec![2, 3], ..Calls::default() };
        let merged = Calls::merged(&[a, b]);
        assert_eq!((merged.ends, merged.settled), (vec![end(1)], vec![3]));
    }
}
