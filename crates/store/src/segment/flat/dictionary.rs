//! Dictionaries of columns, decoded once and kept while there is room.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryViewArray, StringViewArray, make_view};
use arrow::buffer::{Buffer, ScalarBuffer};
use parking_lot::Mutex;

use super::sink::Shape;

/// Bytes of dictionaries that are kept.
const KEPT: usize = 32 << 20;

/// The values of a dictionary.
#[derive(Debug)]
pub enum Values {
    /// Of 64 bits.
    Words(Vec<i64>),
    /// Of 32 bits.
    Halves(Vec<i32>),
    /// Of so many bytes each.
    Fixed(Vec<u8>, usize),
    /// Texts or bytes.
    Views(ArrayRef),
}

/// A dictionary.
#[derive(Debug)]
pub struct Dictionary {
    /// The values.
    pub values: Values,
    len: usize,
    bytes: usize,
}

impl Dictionary {
    /// Decodes the `count` values in `page`. `None` if it does not hold them.
    pub fn decode(shape: Shape, page: Vec<u8>, count: usize) -> Option<Self> {
        let bytes = page.len();
        let (values, bytes) = match shape {
            Shape::Words => {
                let words = page.as_chunks::<8>().0.get(..count)?;
                (Values::Words(words.iter().map(|w| i64::from_le_bytes(*w)).collect()), bytes)
            }
            Shape::Halves => {
                let halves = page.as_chunks::<4>().0.get(..count)?;
                (Values::Halves(halves.iter().map(|w| i32::from_le_bytes(*w)).collect()), bytes)
            }
            Shape::Fixed(width) => {
                (page.len() >= width.checked_mul(count)?).then_some(())?;
                (Values::Fixed(page, width), bytes)
            }
            Shape::Flags => return None,
            Shape::Text | Shape::Bytes => {
                // Each value has four bytes of length.
                (count <= page.len() / 4).then_some(())?;
                let mut views = Vec::with_capacity(count);
                let mut rest = page.as_slice();
                for _ in 0..count {
                    let value = take_bytes(&mut rest)?;
                    let at = page.len() - rest.len() - value.len();
                    views.push(make_view(value, 0, u32::try_from(at).ok()?));
                }
                let bytes = bytes + count * 16;
                let (views, buffers) = (ScalarBuffer::from(views), vec![Buffer::from_vec(page)]);
                let array: ArrayRef = match shape {
                    Shape::Text => Arc::new(StringViewArray::try_new(views, buffers, None).ok()?),
                    _ => Arc::new(BinaryViewArray::try_new(views, buffers, None).ok()?),
                };
                (Values::Views(array), bytes)
            }
        };
        let len = match &values {
            Values::Views(array) => array.len(),
            _ => count,
        };
        Some(Self { values, len, bytes })
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// A value with its length before it.
pub fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *bytes = rest;
    Some(value)
}

/// Which dictionary: number of the file, row group, column.
pub type Key = (u64, u32, u32);

/// Dictionaries that were used lately.
#[derive(Default)]
pub struct Dictionaries(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    files: u64,
    known: HashMap<Key, Entry>,
    /// In the order in which they are looked at when room is needed.
    order: VecDeque<Key>,
    bytes: usize,
}

struct Entry {
    dictionary: Arc<Dictionary>,
    /// Whether it was asked for since it was looked at.
    used: bool,
}

impl Dictionaries {
    /// A number for a file.
    pub fn number(&self) -> u64 {
        let mut kept = self.0.lock();
        kept.files += 1;
        kept.files
    }

    /// The dictionary `key`, if it is kept.
    pub fn get(&self, key: Key) -> Option<Arc<Dictionary>> {
        let mut kept = self.0.lock();
        let entry = kept.known.get_mut(&key)?;
        entry.used = true;
        Some(Arc::clone(&entry.dictionary))
    }

    /// Keeps `dictionary`, and forgets what was not used for long if there is no room.
    pub fn put(&self, key: Key, dictionary: &Arc<Dictionary>) {
        // One that takes the room of many is not worth it.
        if dictionary.bytes > KEPT / 16 {
            return;
        }
        let mut kept = self.0.lock();
        let entry = Entry { dictionary: Arc::clone(dictionary), used: false };
        match kept.known.insert(key, entry) {
            Some(before) => kept.bytes -= before.dictionary.bytes,
            None => kept.order.push_back(key),
        }
        kept.bytes += dictionary.bytes;
        while kept.bytes > KEPT {
            let Some(oldest) = kept.order.pop_front() else { break };
            match kept.known.get_mut(&oldest) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    kept.order.push_back(oldest);
                }
                Some(_) => {
                    if let Some(entry) = kept.known.remove(&oldest) {
                        kept.bytes -= entry.dictionary.bytes;
                    }
                }
                None => {}
            }
        }
    }

    /// Forgets all of `file`.
    pub fn forget(&self, file: u64) {
        let mut kept = self.0.lock();
        let Kept { known, order, bytes, .. } = &mut *kept;
        known.retain(|key, entry| {
            let keep = key.0 != file;
            if !keep {
                *bytes -= entry.dictionary.bytes;
            }
            keep
        });
        order.retain(|key| key.0 != file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(values: &[&str]) -> Vec<u8> {
        let lengths = values.iter().map(|value| (value.len() as u32).to_le_bytes());
        lengths.zip(values).flat_map(|(len, v)| [&len[..], v.as_bytes()].concat()).collect()
    }

    #[test]
    fn texts_are_checked() {
        let page = texts(&["a", "", "more than twelve bytes"]);
        let read = Dictionary::decode(Shape::Text, page.clone(), 3).unwrap();
        let Values::Views(array) = &read.values else { panic!() };
        let expected: ArrayRef =
            Arc::new(StringViewArray::from(vec!["a", "", "more than twelve bytes"]));
        assert_eq!(array, &expected);
        assert!(Dictionary::decode(Shape::Text, page.clone(), 4).is_none());
        let mut other = page;
        other[4] = 0xff;
        assert!(Dictionary::decode(Shape::Text, other.clone(), 3).is_none());
        assert!(Dictionary::decode(Shape::Bytes, other, 3).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_used_stays() {
        let kept = Dictionaries::default();
        let made = || {
            let words = vec![0; KEPT / 64 / 8 * 8];
            Arc::new(Dictionary::decode(Shape::Words, words, 1).unwrap())
        };
        let (used, other) = ((kept.number(), 0, 0), kept.number());
        kept.put(used, &made());
        for group in 0..200 {
            kept.put((other, group, 0), &made());
            assert!(kept.get(used).is_some());
            assert!(kept.0.lock().bytes <= KEPT);
        }
        assert!(kept.get((other, 0, 0)).is_none());
        assert!(kept.get((other, 199, 0)).is_some());
        kept.forget(other);
        assert!(kept.get((other, 199, 0)).is_none());
        kept.forget(used.0);
        let left = kept.0.lock();
        assert_eq!((left.bytes, left.known.len(), left.order.len()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn noise_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..80), count in any::<usize>(),
        ) {
            for shape in [Shape::Words, Shape::Halves, Shape::Fixed(16), Shape::Text, Shape::Bytes] {
                let _ = Dictionary::decode(shape, bytes.clone(), count);
                let _ = Dictionary::decode(shape, bytes.clone(), count % 20);
            }
        }
    }
}
