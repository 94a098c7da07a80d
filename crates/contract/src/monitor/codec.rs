//! The bytes of a checkpoint: how values are written one after the other.
//!
//! Little-endian. `u8`, `bool`: one byte. Unsigned numbers: LEB128. Signed numbers and floats: eight
//! bytes, sums of whole numbers sixteen. Texts and bytes: their length, then they. Options: one byte, 0 or 1, then the value.
//! Lists and maps: their length, then the items. Structures: their fields in the order given.

use std::collections::BTreeMap;
use std::hash::Hash;

use lacuna_signal::TraceId;
use lacuna_signal::finding::Verdict;

/// The bytes are not such as were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// What can be part of a checkpoint.
pub(super) trait Code: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(from: &mut Get<'_>) -> Result<Self, Damaged>;
}

/// Bytes being read.
#[derive(Debug)]
pub(super) struct Get<'a>(pub(super) &'a [u8]);

impl<'a> Get<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.take(N)?.try_into().map_err(|_| Damaged)
    }

    /// A length; of things of at least one byte each, so no more than there are bytes.
    pub(super) fn length(&mut self) -> Result<usize, Damaged> {
        let length = usize::try_from(u64::get(self)?).map_err(|_| Damaged)?;
        if length <= self.0.len() { Ok(length) } else { Err(Damaged) }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = self.length()?;
        self.take(length)
    }
}

/// Writes bytes with their length.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as u64).put(out);
    out.extend_from_slice(bytes);
}

impl Code for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        let mut number = *self;
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = from.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }
}

impl Code for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        from.array().map(|[byte]| byte)
    }
}

impl Code for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        u64::from(*self).put(out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        u64::get(from)?.try_into().map_err(|_| Damaged)
    }
}

impl Code for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        from.array().map(Self::from_le_bytes)
    }
}

impl Code for i128 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        from.array().map(Self::from_le_bytes)
    }
}

impl Code for f64 {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        from.array().map(Self::from_le_bytes)
    }
}

impl Code for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        match from.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Damaged),
        }
    }
}

impl Code for TraceId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        from.array().map(Self)
    }
}

/// The position in [`Verdict::ALL`].
impl Code for Verdict {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        let [code] = from.array()?;
        Self::ALL.get(usize::from(code)).copied().ok_or(Damaged)
    }
}

impl Code for Box<str> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        std::str::from_utf8(from.bytes()?).map(Self::from).map_err(|_| Damaged)
    }
}

impl Code for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self.as_bytes(), out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok(Box::<str>::get(from)?.into())
    }
}

impl<T: Code> Code for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok(if bool::get(from)? { Some(T::get(from)?) } else { None })
    }
}

impl<T: Code> Code for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        let length = from.length()?;
        (0..length).map(|_| T::get(from)).collect()
    }
}

impl<T: Code> Code for Box<[T]> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u64).put(out);
        self.iter().for_each(|value| value.put(out));
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok(Vec::get(from)?.into())
    }
}

impl<T: Code> Code for Box<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (**self).put(out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        T::get(from).map(Self::new)
    }
}

impl<T: Code + Copy + Default, const N: usize> Code for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.put(out));
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        let mut all = [T::default(); N];
        for value in &mut all {
            *value = T::get(from)?;
        }
        Ok(all)
    }
}

impl<A: Code, B: Code> Code for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok((A::get(from)?, B::get(from)?))
    }
}

/// Writes a map's entries with their number.
fn put_entries<'m, K: Code + 'm, V: Code + 'm>(
    entries: impl ExactSizeIterator<Item = (&'m K, &'m V)>,
    out: &mut Vec<u8>,
) {
    (entries.len() as u64).put(out);
    for (key, value) in entries {
        key.put(out);
        value.put(out);
    }
}

/// Reads what [`put_entries`] wrote.
fn get_entries<K: Code, V: Code, M: FromIterator<(K, V)>>(
    from: &mut Get<'_>,
) -> Result<M, Damaged> {
    let length = from.length()?;
    (0..length).map(|_| <(K, V)>::get(from)).collect()
}

impl<K: Code + Ord, V: Code> Code for BTreeMap<K, V> {
    fn put(&self, out: &mut Vec<u8>) {
        put_entries(self.iter(), out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        get_entries(from)
    }
}

impl<K, V, S> Code for hashbrown::HashMap<K, V, S>
where
    K: Code + Eq + Hash,
    V: Code,
    S: std::hash::BuildHasher + Default,
{
    fn put(&self, out: &mut Vec<u8>) {
        put_entries(self.iter(), out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        get_entries(from)
    }
}

/// Implements [`Code`] for a structure: its fields, in the order given.
macro_rules! code {
    ($type:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::monitor::codec::Code for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::monitor::codec::Code::put(&self.$field, out);)+
            }

            fn get(
                from: &mut $crate::monitor::codec::Get<'_>,
            ) -> Result<Self, $crate::monitor::codec::Damaged> {
                Ok(Self { $($field: $crate::monitor::codec::Code::get(from)?),+ })
            }
        }
    };
}
pub(super) use code;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type All = (Vec<(u64, i64)>, (Option<Box<str>>, BTreeMap<u32, (bool, [u64; 3])>));

    fn all() -> impl Strategy<Value = All> {
        let map =
            prop::collection::btree_map(any::<u32>(), (any::<bool>(), any::<[u64; 3]>()), 0..4);
        let text = prop::option::of("\\PC{0,9}".prop_map(Into::into));
        (prop::collection::vec((any::<u64>(), any::<i64>()), 0..9), (text, map))
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(value in all()) {
            let mut bytes = Vec::new();
            value.put(&mut bytes);
            let mut from = Get(&bytes);
            prop_assert_eq!(All::get(&mut from), Ok(value));
            prop_assert!(from.0.is_empty());
        }

        #[test]
        fn never_panics_on_other_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = All::get(&mut Get(&bytes));
        }
    }
}
