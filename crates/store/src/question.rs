//! Memory for answers: what verbs gather for questions is counted against one budget.
//!
//! A verb that gathers rows and finds no room for more of them stops there and says that its answer is
//! cut. A question that finds hardly any room at all is refused at once, to be asked again when others
//! have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::UInt64Array;
use lacuna_signal::Batch;

use crate::counters::{Meters, add};
use crate::error::{BusyReason, StoreError};
use crate::store::Store;

/// A refused question has a chance after this long: most are answered sooner.
const RETRY: Duration = Duration::from_secs(1);
/// A question is refused while less than this part of the budget is free.
const LEAST_FREE: usize = 16;

/// What one question holds of the memory for answers, until it is dropped.
#[derive(Debug)]
pub(crate) struct Question {
    used: Arc<AtomicUsize>,
    limit: usize,
    held: AtomicUsize,
    meters: Arc<Meters>,
}

impl Question {
    /// A question, of which all together may hold `limit` bytes, and hold `used`.
    pub fn ask(
        used: &Arc<AtomicUsize>,
        limit: usize,
        meters: &Arc<Meters>,
    ) -> Result<Self, StoreError> {
        if used.load(Ordering::Relaxed) > limit - limit / LEAST_FREE {
            add(&meters.answers_short, 1);
            return Err(busy());
        }
        let (used, meters) = (Arc::clone(used), Arc::clone(meters));
        Ok(Self { used, limit, held: AtomicUsize::new(0), meters })
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if taken {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.used.fetch_sub(*self.held.get_mut(), Ordering::Relaxed);
    }
}

impl Store {
    /// A handle for answering one question: what its verbs gather is counted against
    /// [`Options::query_bytes`](crate::Options::query_bytes) until the last clone of it is dropped, and
    /// an answer for which there is no more room is cut. Verbs of other handles are not counted.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if hardly any room is left.
    pub fn question(&self) -> Result<Self, StoreError> {
        let shared = self.shared();
        let limit = shared.options.query_bytes;
        let question = Question::ask(&shared.answering, limit, &shared.meters)?;
        Ok(self.asking(question))
    }

    /// Counts `bytes` that an answer takes besides what verbs gather, until the question ends; whether
    /// there is room for them. Without a question there is.
    #[must_use]
    pub fn hold(&self, bytes: usize) -> bool {
        let mut charge = self.charge();
        let room = charge.set(bytes);
        if room {
            charge.keep();
        }
        room
    }

    /// Bytes that answers hold now, all together.
    pub fn answering_bytes(&self) -> usize {
        self.shared().answering.load(Ordering::Relaxed)
    }
}

fn busy() -> StoreError {
    StoreError::busy(BusyReason::Answers, RETRY)
}

/// What one verb gathers for a question; given back when it is dropped, unless it is kept.
#[derive(Debug)]
pub(crate) struct Charge<'a> {
    /// Without one, nothing is counted.
    question: Option<&'a Question>,
    bytes: usize,
    /// Whether there was no room for something.
    short: bool,
}

impl<'a> Charge<'a> {
    /// Nothing yet.
    pub fn new(question: Option<&'a Question>) -> Self {
        Self { question, bytes: 0, short: false }
    }

    /// Makes it `bytes`; whether there is room. If not it stays what it is.
    pub fn set(&mut self, bytes: usize) -> bool {
        let Some(question) = self.question else { return true };
        if bytes > self.bytes {
            if !question.take(bytes - self.bytes) {
                self.fall_short(question);
                return false;
            }
        } else {
            question.give(self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }

    /// What it can be made.
    fn room(&self) -> usize {
        self.question.map_or(usize::MAX, |question| {
            self.bytes + question.limit.saturating_sub(question.used.load(Ordering::Relaxed))
        })
    }

    fn fall_short(&mut self, question: &Question) {
        if !std::mem::replace(&mut self.short, true) {
            add(&question.meters.answers_short, 1);
        }
    }

    /// The first rows of `rows` for which there is room, in memory of their own.
    ///
    /// # Errors
    /// There is room for none.
    pub fn fit(&mut self, rows: Batch) -> Result<Batch, StoreError> {
        let mut kept = rows.compact()?;
        while kept.num_rows() > 0 {
            let bytes = kept.memory_size();
            if self.set(bytes) {
                return Ok(kept);
            }
            let share = self.room() as f64 / bytes.max(1) as f64;
            // Rows are of different sizes; a little less than the share comes to an end.
            let rows = (kept.num_rows() as f64 * share.min(1.0) * 0.9) as usize;
            let first = 0..rows.min(kept.num_rows() - 1) as u64;
            kept = kept.take(&UInt64Array::from_iter_values(first))?.compact()?;
        }
        if rows.num_rows() > 0 {
            return Err(busy());
        }
        Ok(kept)
    }

    /// Counts it until the question ends.
    pub fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some(question) = self.question {
            question.give(self.bytes);
        }
    }
}
