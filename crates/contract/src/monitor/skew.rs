//! Clocks that are wrong, measured and allowed for.
//!
//! A child span cannot start before its parent, and the server's span of a call cannot end after
//! the client's that made it. Where the spans of two services break that more often than not, the
//! clocks of the two differ; by how much follows from by how much it is broken. Two services whose
//! spans keep to it have no offset, whatever their network does: without skew nothing is moved.

use std::collections::VecDeque;

use arrow::array::{Array, AsArray, FixedSizeBinaryArray};
use arrow::datatypes::UInt8Type;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use lacuna_signal::selector::BatchIndex;
use lacuna_signal::{SignalKind, schema};
use serde::Serialize;

use super::clock_pair::{ENOUGH, LEAST, Pair, Sample};
use super::codec::{Code, Damaged, Get};
use super::rows::Rows;

/// Offsets are worked out anew after so many new samples.
const EVERY: usize = 8;
/// So many spans are looked at whole; of those after them, every sixteenth trace.
const ALL: u64 = 100_000;
/// Spans that may wait for their children or parents.
const WAITING: usize = 32_768;
/// Services that are told apart.
const MAX_SERVICES: usize = 4_096;

/// OpenTelemetry's `SpanKind`.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;

/// How far a service's clock is off, against most of the services that it speaks with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Clock {
    /// The service.
    pub service: String,
    /// What its clock shows too much, seconds; negative if it is behind. 0 if it is not known to
    /// be off. So much is taken off its events' times before they are judged.
    pub offset_seconds: f64,
    /// Pairs of spans that this rests on.
    pub samples: u64,
}

/// A span that may be another's parent or child.
#[derive(Debug, Clone, Copy)]
struct Seen {
    service: u32,
    start: i64,
    end: i64,
    kind: u8,
}

/// The clocks of all services.
#[derive(Debug, Default)]
pub(super) struct Skew {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u32, RandomState>,
    pairs: HashMap<(u32, u32), Pair, RandomState>,
    /// By service, what is taken off its times.
    offsets: Vec<i64>,
    /// Whether any offset is not zero.
    any: bool,
    /// Spans by a hash of trace and id, and in the order in which they came.
    parents: HashMap<u64, Seen, RandomState>,
    parents_order: VecDeque<u64>,
    /// Children whose parents have not come, by the parent, likewise.
    children: HashMap<u64, Vec<Seen>, RandomState>,
    children_order: VecDeque<u64>,
    looked_at: u64,
    fresh: usize,
}

impl Skew {
    /// Learns from a batch's spans, by their own clocks.
    pub(super) fn observe(&mut self, index: &BatchIndex<'_>, rows: &Rows<'_>) {
        if index.kind() != SignalKind::Spans {
            return;
        }
        let ids = |name| -> Option<&FixedSizeBinaryArray> {
            index.column(name).and_then(|column| column.as_fixed_size_binary_opt())
        };
        let (Some(traces), Some(spans)) = (ids(schema::TRACE_ID), ids(schema::SPAN_ID)) else {
            return;
        };
        let parents = ids(schema::PARENT_SPAN_ID);
        let kinds =
            index.column(schema::KIND).and_then(|column| column.as_primitive_opt::<UInt8Type>());
        let mut service = None;
        for row in 0..rows.len() {
            if row > 0 && !rows.same_service(row - 1, row) {
                service = None;
            }
            if !traces.is_valid(row) || !spans.is_valid(row) {
                continue;
            }
            let trace = traces.value(row);
            self.looked_at += 1;
            if self.looked_at > ALL && trace.last().is_some_and(|byte| byte % 16 != 0) {
                continue;
            }
            let Some(number) = service.or_else(|| self.number(rows.service(row))) else { continue };
            service = Some(number);
            let seen = Seen {
                service: number,
                start: rows.start(row),
                end: rows.end(row),
                kind: kinds.map_or(0, |kinds| kinds.value(row)),
            };
            let name = |id: &[u8]| hash(trace, id);
            if let Some(parent) = parents.filter(|parents| parents.is_valid(row)) {
                self.child(name(parent.value(row)), seen);
            }
            self.parent(name(spans.value(row)), seen);
        }
        if self.fresh >= EVERY {
            self.fresh = 0;
            self.settle();
        }
    }

    fn number(&mut self, service: &str) -> Option<u32> {
        if let Some(number) = self.numbers.get(service) {
            return Some(*number);
        }
        if self.names.len() >= MAX_SERVICES || service.is_empty() {
            return None;
        }
        let number = u32::try_from(self.names.len()).ok()?;
        self.names.push(service.into());
        self.offsets.push(0);
        self.numbers.insert(service.into(), number);
        Some(number)
    }

    fn parent(&mut self, name: u64, seen: Seen) {
        for child in self.children.remove(&name).unwrap_or_default() {
            self.compare(seen, child);
        }
        if self.parents.insert(name, seen).is_none() {
            self.parents_order.push_back(name);
        }
        if self.parents_order.len() > WAITING
            && let Some(oldest) = self.parents_order.pop_front()
        {
            self.parents.remove(&oldest);
        }
    }

    fn child(&mut self, parent: u64, seen: Seen) {
        if let Some(parent) = self.parents.get(&parent) {
            return self.compare(*parent, seen);
        }
        self.children.entry(parent).or_default().push(seen);
        self.children_order.push_back(parent);
        if self.children_order.len() > WAITING
            && let Some(oldest) = self.children_order.pop_front()
        {
            self.children.remove(&oldest);
        }
    }

    fn compare(&mut self, parent: Seen, child: Seen) {
        if parent.service == child.service {
            return;
        }
        let most = child.start.saturating_sub(parent.start);
        let call = parent.kind == CLIENT && child.kind == SERVER;
        // A child that outlasts its parent says nothing about ends.
        let least =
            Some(child.end.saturating_sub(parent.end)).filter(|least| call && *least <= most);
        self.pairs.entry((parent.service, child.service)).or_default().add(Sample { least, most });
        self.fresh += 1;
    }

    /// Works all offsets out anew: along the pairs, against what most services agree on.
    fn settle(&mut self) {
        self.pairs.values_mut().for_each(Pair::settle);
        let mut known: Vec<((u32, u32), i64, usize)> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.samples.len() >= ENOUGH)
            .map(|(services, pair)| (*services, pair.offset, pair.samples.len()))
            .collect();
        // The best known first, and always in the same order.
        known.sort_unstable_by_key(|(services, _, samples)| {
            (std::cmp::Reverse(*samples), *services)
        });
        let mut offsets: Vec<Option<i64>> = vec![None; self.names.len()];
        for ((root, _), _, _) in &known {
            if offsets.get(*root as usize).is_some_and(Option::is_some) {
                continue;
            }
            let mut group = vec![(*root, 0)];
            let mut at = 0;
            while let Some((service, offset)) = group.get(at).copied() {
                at += 1;
                for ((parent, child), ahead, _) in &known {
                    let next = match service {
                        service if service == *parent => (*child, offset + ahead),
                        service if service == *child => (*parent, offset - ahead),
                        _ => continue,
                    };
                    if !group.iter().any(|(known, _)| *known == next.0) {
                        group.push(next);
                    }
                }
            }
            let most = most_common(&group);
            for (service, offset) in group {
                if let Some(place) = offsets.get_mut(service as usize) {
                    let offset = offset - most;
                    *place = Some(if offset.abs() >= LEAST { offset } else { 0 });
                }
            }
        }
        self.offsets = offsets.into_iter().map(Option::unwrap_or_default).collect();
        self.any = self.offsets.iter().any(|offset| *offset != 0);
    }

    /// What is to be taken off the times of a batch's rows; `None` if nothing is.
    pub(super) fn shifts(&self, rows: &Rows<'_>) -> Option<Vec<i64>> {
        if !self.any {
            return None;
        }
        let mut shifts: Vec<i64> = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let shift = match shifts.last() {
                Some(last) if rows.same_service(row - 1, row) => *last,
                _ => self.offset(rows.service(row)),
            };
            shifts.push(shift);
        }
        shifts.iter().any(|shift| *shift != 0).then_some(shifts)
    }

    /// What is taken off a service's times, nanoseconds.
    pub(super) fn offset(&self, service: &str) -> i64 {
        let number = self.numbers.get(service).map(|number| *number as usize);
        number.and_then(|number| self.offsets.get(number).copied()).unwrap_or(0)
    }

    /// The clocks of the services of which enough is known, by name.
    pub(super) fn clocks(&self) -> Vec<Clock> {
        let mut samples = vec![0; self.names.len()];
        for ((parent, child), pair) in &self.pairs {
            for service in [parent, child] {
                if let Some(count) = samples.get_mut(*service as usize) {
                    *count += pair.samples.len() as u64;
                }
            }
        }
        let mut clocks: Vec<Clock> = self
            .names
            .iter()
            .zip(samples)
            .filter(|(_, samples)| *samples >= ENOUGH as u64)
            .map(|(service, samples)| Clock {
                service: String::from(&**service),
                offset_seconds: self.offset(service) as f64 / 1e9,
                samples,
            })
            .collect();
        clocks.sort_by(|a, b| a.service.cmp(&b.service));
        clocks
    }

    /// Takes over what another one knows, if this one knows nothing.
    pub(super) fn adopt(&mut self, other: Self) {
        if self.pairs.is_empty() {
            *self = other;
        }
    }
}

/// The offset that most of a group share, within what is left alone; of equals, the first.
fn most_common(group: &[(u32, i64)]) -> i64 {
    let near =
        |offset: i64| group.iter().filter(|(_, other)| (other - offset).abs() < LEAST).count();
    let mut best = (0, 0);
    for (_, offset) in group {
        let count = near(*offset);
        if count > best.1 {
            best = (*offset, count);
        }
    }
    best.0
}

fn hash(trace: &[u8], span: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(trace);
    hasher.write(span);
    hasher.finish()
}

/// The services by number, then the pairs; spans that wait are not kept.
impl Code for Skew {
    fn put(&self, out: &mut Vec<u8>) {
        self.names.put(out);
        self.pairs.put(out);
        self.looked_at.put(out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        let names: Vec<Box<str>> = Code::get(from)?;
        let mut skew = Self::default();
        for name in &names {
            skew.number(name).ok_or(Damaged)?;
        }
        skew.pairs = Code::get(from)?;
        skew.looked_at = Code::get(from)?;
        skew.settle();
        Ok(skew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn offsets_follow_the_pairs_against_the_majority() {
        let mut skew = Skew::default();
        let numbers: Vec<u32> =
            ["a", "b", "c", "d"].iter().map(|name| skew.number(name).unwrap()).collect();
        let mut add = |parent: usize, child: usize, ahead: i64| {
            for _ in 0..20 {
                let sample = Sample { least: Some(ahead - MS), most: ahead + MS };
                skew.pairs.entry((numbers[parent], numbers[child])).or_default().add(sample);
            }
        };
        // b is 5 s behind; c and d agree with a.
        add(0, 1, -5_000 * MS);
        add(1, 2, 5_000 * MS);
        add(0, 3, 0);
        skew.settle();
        let offsets = ["a", "b", "c", "d"].map(|name| skew.offset(name) / MS);
        assert_eq!(offsets, [0, -5_000, 0, 0]);
        let mut bytes = Vec::new();
        skew.put(&mut bytes);
        assert_eq!(Skew::get(&mut Get(&bytes)).unwrap().clocks(), skew.clocks());
    }
}
