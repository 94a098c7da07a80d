//! Bytes of a summary. `docs/format.md` has the order of fields.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Calls, End, Minute};
use crate::query::EdgeKind;
use crate::segment::index::{unzigzag, zigzag};
use crate::segment::table::{put_varint, take_varint};

/// The bytes of `calls`, compressed.
pub fn encode(calls: &Calls) -> std::io::Result<Vec<u8>> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    names.extend(calls.operations.keys().map(|(service, _, _)| service.as_str()));
    names.extend(calls.edges.keys().flat_map(|(from, to, _)| [from.as_str(), to.as_str()]));
    names.extend(calls.ends.iter().map(|end| end.service.as_ref()));
    let numbers: BTreeMap<&str, u64> = names.iter().copied().zip(0..).collect();
    let number = |name: &str| numbers.get(name).copied().unwrap_or(0);
    let mut out = Vec::new();
    put_varint(&mut out, names.len() as u64);
    names.iter().for_each(|name| put_text(&mut out, name));
    put_varint(&mut out, calls.operations.len() as u64);
    for ((service, name, kind), minutes) in &calls.operations {
        put_varint(&mut out, number(service));
        out.push(*kind);
        out.push(u8::from(name.is_some()));
        if let Some(name) = name {
            put_text(&mut out, name);
        }
        put_varint(&mut out, minutes.len() as u64);
        let mut last = 0;
        for (minute, counted) in minutes {
            put_signed(&mut out, minute.wrapping_sub(last));
            last = *minute;
            put_varint(&mut out, counted.errors);
            put_varint(&mut out, counted.latencies.buckets.len() as u64);
            let mut before = 0;
            for (bucket, count) in &counted.latencies.buckets {
                put_varint(&mut out, u64::from(bucket - before));
                put_varint(&mut out, *count);
                before = *bucket;
            }
        }
    }
    put_varint(&mut out, calls.edges.len() as u64);
    for ((from, to, kind), minutes) in &calls.edges {
        put_varint(&mut out, number(from));
        put_varint(&mut out, number(to));
        out.push(kind_code(*kind));
        put_varint(&mut out, minutes.len() as u64);
        let mut last = 0;
        for (minute, (count, errors)) in minutes {
            put_signed(&mut out, minute.wrapping_sub(last));
            last = *minute;
            put_varint(&mut out, *count);
            put_varint(&mut out, *errors);
        }
    }
    put_varint(&mut out, calls.open.len() as u64);
    let mut last = 0;
    for ((kind, minute), count) in &calls.open {
        out.push(kind_code(*kind));
        put_signed(&mut out, minute.wrapping_sub(last));
        last = *minute;
        put_signed(&mut out, *count);
    }
    put_varint(&mut out, calls.ends.len() as u64);
    let mut last = 0;
    for end in &calls.ends {
        out.extend_from_slice(&end.by.to_le_bytes());
        out.push(kind_code(end.kind) | u8::from(end.error) << 1);
        put_varint(&mut out, number(&end.service));
        put_signed(&mut out, end.minute.wrapping_sub(last));
        last = end.minute;
    }
    put_varint(&mut out, calls.settled.len() as u64);
    calls.settled.iter().for_each(|key| out.extend_from_slice(&key.to_le_bytes()));
    zstd::bulk::compress(&out, 3)
}

/// Reads a summary back; `None` unless the bytes are as written.
pub fn decode(bytes: &[u8]) -> Option<Calls> {
    let bytes = zstd::stream::decode_all(bytes).ok()?;
    let mut bytes = bytes.as_slice();
    let bytes = &mut bytes;
    let mut names: Vec<Arc<str>> = Vec::new();
    for _ in 0..take_varint(bytes)? {
        names.push(Arc::from(take_text(bytes)?));
    }
    let name = |number: u64| names.get(usize::try_from(number).ok()?);
    let mut calls = Calls::default();
    for _ in 0..take_varint(bytes)? {
        let service = name(take_varint(bytes)?)?.to_string();
        let (kind, named) = (take_byte(bytes)?, take_byte(bytes)?);
        let operation = if named == 0 { None } else { Some(take_text(bytes)?.to_owned()) };
        let (mut minutes, mut last) = (BTreeMap::new(), 0i64);
        for _ in 0..take_varint(bytes)? {
            last = last.wrapping_add(take_signed(bytes)?);
            let mut minute = Minute { errors: take_varint(bytes)?, ..Minute::default() };
            let mut bucket = 0u16;
            for _ in 0..take_varint(bytes)? {
                bucket = bucket.checked_add(u16::try_from(take_varint(bytes)?).ok()?)?;
                minute.latencies.buckets.push((bucket, take_varint(bytes)?));
            }
            minutes.insert(last, minute);
        }
        calls.operations.insert((service, operation, kind), minutes);
    }
    for _ in 0..take_varint(bytes)? {
        let from = name(take_varint(bytes)?)?.to_string();
        let to = name(take_varint(bytes)?)?.to_string();
        let kind = kind_of(take_byte(bytes)?)?;
        let (mut minutes, mut last) = (BTreeMap::new(), 0i64);
        for _ in 0..take_varint(bytes)? {
            last = last.wrapping_add(take_signed(bytes)?);
            minutes.insert(last, (take_varint(bytes)?, take_varint(bytes)?));
        }
        calls.edges.insert((from, to, kind), minutes);
    }
    let mut last = 0i64;
    for _ in 0..take_varint(bytes)? {
        let kind = kind_of(take_byte(bytes)?)?;
        last = last.wrapping_add(take_signed(bytes)?);
        calls.open.insert((kind, last), take_signed(bytes)?);
    }
    let mut last = 0i64;
    for _ in 0..take_varint(bytes)? {
        let by = take_key(bytes)?;
        let flags = take_byte(bytes)?;
        let service = Arc::clone(name(take_varint(bytes)?)?);
        last = last.wrapping_add(take_signed(bytes)?);
        let (kind, error) = (kind_of(flags & 1)?, flags & 2 != 0);
        calls.ends.push(End { by, kind, service, error, minute: last });
    }
    for _ in 0..take_varint(bytes)? {
        calls.settled.push(take_key(bytes)?);
    }
    bytes.is_empty().then_some(calls)
}

fn kind_code(kind: EdgeKind) -> u8 {
    match kind {
        EdgeKind::Parent => 0,
        EdgeKind::Link => 1,
    }
}

fn kind_of(code: u8) -> Option<EdgeKind> {
    [EdgeKind::Parent, EdgeKind::Link].get(usize::from(code)).copied()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, zigzag(value));
}

fn take_signed(bytes: &mut &[u8]) -> Option<i64> {
    take_varint(bytes).map(unzigzag)
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*byte)
}

fn take_key(bytes: &mut &[u8]) -> Option<u64> {
    let (key, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*key))
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(take_varint(bytes)?).ok()?;
    let (text, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_calls() -> impl Strategy<Value = Calls> {
        let kind = || prop_oneof![Just(EdgeKind::Parent), Just(EdgeKind::Link)];
        let name = || "[a-z]{0,3}";
        let minutes = || any::<i64>();
        let minute = (any::<u64>(), proptest::collection::vec((0u16..1000, 1u64..9), 0..4));
        let minute = minute.prop_map(|(errors, buckets)| {
            let mut minute = Minute { errors, ..Minute::default() };
            buckets.iter().for_each(|(b, n)| minute.latencies.add_bucket(*b, *n));
            minute
        });
        let operations = proptest::collection::btree_map(
            (name(), proptest::option::of(name()), 0u8..6),
            proptest::collection::btree_map(minutes(), minute, 0..4),
            0..4,
        );
        let edges = proptest::collection::btree_map(
            (name(), name(), kind()),
            proptest::collection::btree_map(minutes(), any::<(u64, u64)>(), 0..4),
            0..4,
        );
        let open = proptest::collection::btree_map((kind(), minutes()), any::<i64>(), 0..4);
        let end = (any::<u64>(), kind(), name(), any::<bool>(), minutes());
        let end = end.prop_map(|(by, kind, service, error, minute)| End {
            by,
            kind,
            service: Arc::from(service),
            error,
            minute,
        });
        let ends = proptest::collection::vec(end, 0..4);
        let settled = proptest::collection::vec(any::<u64>(), 0..4);
        (operations, edges, open, ends, settled).prop_map(
            |(operations, edges, open, ends, settled)| Calls {
                operations,
                edges,
                open,
                ends,
                settled,
            },
        )
    }

    proptest! {
        #[test]
        fn reads_back(calls in any_calls()) {
            prop_assert_eq!(decode(&encode(&calls).unwrap()), Some(calls));
        }

        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&zstd::bulk::compress(&bytes, 1).unwrap());
        }
    }
}
