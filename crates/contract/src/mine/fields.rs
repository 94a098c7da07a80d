//! What may be a key: attributes, and words of log texts, with the events under each value.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use lacuna_signal::TraceId;

/// Of each field, so many values are remembered; more are counted.
const MAX_VALUES: usize = 4_000_000;
/// A key carries at most so many kinds of event; beyond it, it joins what does not belong
/// together, as a tenant or a region does.
pub(super) const MAX_SHARED: usize = 64;
/// A field that came so often and is no key all the same is worth a word.
const OFTEN: u64 = 2_000;
/// Longer values are texts, not keys.
const MAX_LENGTH: usize = 128;

/// One kind of event under one key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) kind: u16,
    pub(super) count: u32,
    /// Start and end of the first, and of the last.
    pub(super) first: (i64, i64),
    pub(super) last: (i64, i64),
    pub(super) trace: Option<TraceId>,
}

/// A value, and what was seen under it.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) value: Box<str>,
    pub(super) seen: Vec<Seen>,
}

/// When and where an event was.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) time: (i64, i64),
    pub(super) trace: Option<TraceId>,
}

/// One field that may be a key. Keys stand in the order in which they came, which is the same
/// whenever the same data is read.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    /// How often it came.
    values: u64,
    pub(super) keys: Vec<Key>,
    index: HashTable<u32>,
    /// Where the value stands that came last: many events in a row carry the same.
    last: u32,
    /// How kinds carry it that do not have it as an attribute of this name.
    pub(super) spelt: BTreeMap<u16, String>,
    /// Values beyond the bound.
    pub(super) passed_over: u64,
}

fn hash(value: &str) -> u64 {
    FixedState::default().hash_one(value)
}

impl Field {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            values: 0,
            keys: Vec::new(),
            index: HashTable::new(),
            last: 0,
            spelt: BTreeMap::new(),
            passed_over: 0,
        }
    }

    /// Notes that an event of `kind` carried `value`.
    pub(super) fn note(&mut self, value: &str, kind: u16, at: At) {
        self.values += 1;
        if value.is_empty() || value.len() > MAX_LENGTH {
            return;
        }
        let Some(seen) = self.entry(value) else { return };
        if let Some(seen) = seen.iter_mut().find(|seen| seen.kind == kind) {
            seen.count += 1;
            if at.time < seen.first {
                (seen.first, seen.trace) = (at.time, at.trace);
            }
            seen.last = seen.last.max(at.time);
        } else if seen.len() <= MAX_SHARED {
            let (first, last) = (at.time, at.time);
            seen.push(Seen { kind, count: 1, first, last, trace: at.trace });
        }
    }

    fn entry(&mut self, value: &str) -> Option<&mut Vec<Seen>> {
        let keys = &mut self.keys;
        if keys.get(self.last as usize).is_some_and(|key| &*key.value == value) {
            return keys.get_mut(self.last as usize).map(|key| &mut key.seen);
        }
        let code = hash(value);
        let found = self.index.find(code, |at| &*keys[*at as usize].value == value).copied();
        let at = match found {
            Some(at) => at,
            None if keys.len() >= MAX_VALUES => {
                self.passed_over += 1;
                return None;
            }
            None => {
                let at = u32::try_from(keys.len()).ok()?;
                keys.push(Key { value: value.into(), seen: Vec::new() });
                self.index.insert_unique(code, at, |at| hash(&keys[*at as usize].value));
                at
            }
        };
        self.last = at;
        keys.get_mut(at as usize).map(|key| &mut key.seen)
    }

    /// Whether it came often and is no key for all that, with fewer than `min_keys` different values:
    /// a method, a status or a host. What has few values at first may have many in the end, as a batch
    /// of hundreds of items has, so that is seen when all has been read; few values take little room.
    pub(super) fn has_few(&self, min_keys: u64) -> bool {
        self.values >= OFTEN && (self.keys.len() as u64) < min_keys
    }

    /// Values that join too much to be keys.
    pub(super) fn crowded(&self) -> u64 {
        self.keys.iter().filter(|key| key.seen.len() > MAX_SHARED).count() as u64
    }

    pub(super) fn find(&self, value: &str) -> Option<&Key> {
        let at = self.index.find(hash(value), |at| &*self.keys[*at as usize].value == value)?;
        self.keys.get(*at as usize)
    }

    /// Whether nearly all of `sample` are values of this field, and it is no accident.
    fn knows(&self, sample: &[&Key]) -> bool {
        let mut strangers = (sample.len() as f64 * (1.0 - OVERLAP)) as usize;
        for key in sample {
            if telling(&key.value) && self.find(&key.value).is_some() {
                continue;
            }
            if strangers == 0 {
                return false;
            }
            strangers -= 1;
        }
        true
    }

    /// Kinds that carry it, and how many keys each has.
    pub(super) fn kinds(&self) -> BTreeMap<u16, u64> {
        let mut kinds = BTreeMap::new();
        for seen in self.keys.iter().flat_map(|key| &key.seen) {
            *kinds.entry(seen.kind).or_default() += 1;
        }
        kinds
    }

    /// Takes over the events of `kind` from `other`, whose values under that kind are values of this
    /// field too: `spelt` is how the kind carries them.
    pub(super) fn adopt(&mut self, other: &Self, kind: u16, spelt: &str) {
        for key in &other.keys {
            let Some(seen) = key.seen.iter().find(|seen| seen.kind == kind) else { continue };
            if let Some(list) = self.entry(&key.value)
                && list.len() <= MAX_SHARED
            {
                list.push(*seen);
            }
        }
        self.spelt.insert(kind, spelt.to_owned());
    }
}

/// Share of a kind's values that must be another field's too for it to be the same key.
const OVERLAP: f64 = 0.9;
/// So many of a kind's values are compared.
const SAMPLE: usize = 1_000;

/// Joins kinds that carry one key under different names: `order.id` here, `order_id` there, a word
/// of a log text elsewhere. They are found by their values.
pub(super) fn join(fields: &mut [Field], min_keys: u64, spelling: impl Fn(&Field, u16) -> String) {
    let mut adopted: Vec<(usize, usize, u16)> = Vec::new();
    let kinds: Vec<BTreeMap<u16, u64>> = fields.iter().map(Field::kinds).collect();
    for (from, other) in fields.iter().enumerate() {
        for (kind, _) in kinds[from].iter().filter(|(_, keys)| **keys >= min_keys) {
            let of_kind = |key: &&Key| key.seen.iter().any(|seen| seen.kind == *kind);
            let sample: Vec<&Key> = other.keys.iter().filter(of_kind).take(SAMPLE).collect();
            for (into, field) in fields.iter().enumerate() {
                if into != from && !kinds[into].contains_key(kind) && field.knows(&sample) {
                    adopted.push((into, from, *kind));
                }
            }
        }
    }
    let before: Vec<Field> = if adopted.is_empty() { Vec::new() } else { fields.to_vec() };
    for (into, from, kind) in adopted {
        // Of several fields of one kind that would do, the first is taken.
        if !fields[into].spelt.contains_key(&kind) {
            let spelt = spelling(&before[from], kind);
            fields[into].adopt(&before[from], kind, &spelt);
        }
    }
}

/// Whether a value is so much its own that it is no accident to meet it elsewhere. Small numbers are
/// everywhere.
fn telling(value: &str) -> bool {
    value.len() >= 8 || value.bytes().any(|byte| !byte.is_ascii_digit())
}
