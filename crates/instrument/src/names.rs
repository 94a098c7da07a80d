//! Span names that repeat, kept for the life of the process, so that a span need not write its own.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Most names that are kept, and the longest: names come from messages too, which anybody may write.
const MOST: usize = 1_000;
const LONGEST: usize = 200;

type Known = HashMap<Box<str>, &'static str>;

/// Names that begin with the same text.
#[derive(Debug)]
pub(crate) struct Names {
    prefix: &'static str,
    known: RwLock<Option<Known>>,
}

impl Names {
    pub(crate) const fn new(prefix: &'static str) -> Self {
        Self { prefix, known: RwLock::new(None) }
    }

    /// The prefix and `rest` as one name.
    pub(crate) fn name(&self, rest: &str) -> Cow<'static, str> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.as_ref().and_then(|known| known.get(rest).copied());
        let full = known.as_ref().is_some_and(|known| known.len() >= MOST);
        drop(known);
        if let Some(name) = found {
            return Cow::Borrowed(name);
        }
        let mut name = String::with_capacity(self.prefix.len() + rest.len());
        name.push_str(self.prefix);
        name.push_str(rest);
        if full || rest.len() > LONGEST {
            return Cow::Owned(name);
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have kept it meanwhile: what is kept is never freed, so only once.
        let known = known.get_or_insert_default();
        match known.get(rest) {
            Some(name) => Cow::Borrowed(name),
            None => {
                let name: &'static str = name.leak();
                known.insert(rest.into(), name);
                Cow::Borrowed(name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_once_and_only_so_many_are_kept() {
        let names = Names::new("kafka.consume.");
        let (first, again) = (names.name("a.v1"), names.name("a.v1"));
        assert_eq!(first, "kafka.consume.a.v1");
        assert!(
            matches!((&first, &again), (Cow::Borrowed(a), Cow::Borrowed(b)) if a.as_ptr() == b.as_ptr())
        );
        (0..2 * MOST).for_each(|n| drop(names.name(&n.to_string())));
        assert_eq!(names.known.read().unwrap().as_ref().unwrap().len(), MOST);
        assert_eq!(names.name("another"), "kafka.consume.another");
        assert!(matches!(names.name(&"x".repeat(LONGEST + 1)), Cow::Owned(_)));
    }
}
