//! How often operations were called, how long that took, and what failed: by minute.

use std::ops::RangeInclusive;
use std::sync::Arc;

use lacuna_signal::SignalKind;

use crate::bounds::{Found, TimeRange};
use crate::calls::gather::{Of, gather, minutes_of, of_segment};
use crate::calls::{Calls, Latencies, MINUTE, Part as Asked, Wanted, minute_of};
use crate::error::StoreError;
use crate::part::Part;
use crate::report::{Finding, FindingKind};
use crate::segment::{PAGE_ROWS, Segment};
use crate::store::Store;

/// Calls in one minute.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MinuteCalls {
    /// The minute's last nanosecond since the epoch, a multiple of 60 s; its first is the one after
    /// the minute before.
    pub end: i64,
    /// Spans that started in it.
    pub calls: u64,
    /// Those of them with status error.
    pub errors: u64,
    /// Their durations.
    pub latencies: Latencies,
}

/// Calls of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationCalls {
    /// The service; empty if the resource named none.
    pub service: String,
    /// The spans' name. `None`: of one of the names that a segment with more than 2000 operations
    /// does not tell apart.
    pub name: Option<String>,
    /// Span kind as OTLP numbers it.
    pub kind: u8,
    /// By minute; those without calls are left out.
    pub minutes: Vec<MinuteCalls>,
}

/// What is asked of the sums.
pub(super) struct Question<'a> {
    minutes: RangeInclusive<i64>,
    operations: Option<Wanted<'a>>,
}

impl Question<'_> {
    /// The edges of `range`, widened to whole minutes.
    pub fn edges(range: TimeRange) -> Self {
        Self { minutes: minutes(range), operations: None }
    }
}

/// The minutes in which times of `range` lie; none if it is empty.
fn minutes(range: TimeRange) -> RangeInclusive<i64> {
    if range.is_empty() {
        return RangeInclusive::new(1, 0);
    }
    minute_of(range.start)..=minute_of(range.end.saturating_sub(1))
}

impl Store {
    /// Calls of the operations of which `wanted` (service, span kind) says so, by minute, of all
    /// minutes in which times of `range` lie. A minute is open at its start and closed at its end.
    ///
    /// Segments say what their spans add up to; read are only the spans in memory and, at most
    /// `rows` of them and the newest first, those of segments that do not say it: earlier versions
    /// wrote those.
    ///
    /// # Errors
    /// A file cannot be read at all.
    pub fn calls(
        &self,
        range: TimeRange,
        wanted: &dyn Fn(&str, u8) -> bool,
        rows: usize,
    ) -> Result<Found<Vec<OperationCalls>>, StoreError> {
        let question = Question { minutes: minutes(range), operations: Some(wanted) };
        let Found { items, cut, damaged } = self.summed(&question, rows)?;
        let operations = items.operations.into_iter().map(|((service, name, kind), minutes)| {
            let minute = |(minute, counted): (i64, crate::calls::Minute)| MinuteCalls {
                end: minute.saturating_mul(MINUTE),
                calls: counted.latencies.count(),
                errors: counted.errors,
                latencies: counted.latencies,
            };
            OperationCalls {
                service,
                name,
                kind,
                minutes: minutes.into_iter().map(minute).collect(),
            }
        });
        Ok(Found { items: operations.collect(), cut, damaged })
    }

    /// [`Options::summary_rows`](crate::Options::summary_rows) of this store.
    pub fn summary_rows(&self) -> usize {
        self.shared().options.summary_rows
    }

    /// How many rows of `kind` there are in `range`, at most: rows of pages that overlap it.
    pub fn rows_within(&self, kind: SignalKind, range: TimeRange) -> u64 {
        let rows = |part: Arc<dyn Part>| {
            if !part.bounds().overlaps(range) {
                return 0;
            }
            let all = u64::from(part.rows());
            if part.bounds().within(range) || part.pages().is_empty() {
                return all;
            }
            let pages = part.pages().iter().filter(|page| page.overlaps(range)).count() as u64;
            all.min(pages * u64::from(PAGE_ROWS))
        };
        self.shared().parts(kind).into_iter().map(rows).sum()
    }

    /// What all spans that `question` is about add up to.
    pub(super) fn summed(
        &self,
        question: &Question<'_>,
        rows: usize,
    ) -> Result<Found<Calls>, StoreError> {
        let (mut segments, chunks) = {
            let state = self.shared().state.read();
            let table = state.table(SignalKind::Spans);
            let chunks: Vec<Arc<dyn Part>> =
                table.chunks().map(|chunk| Arc::clone(chunk) as Arc<dyn Part>).collect();
            (table.segments.clone(), chunks)
        };
        let mut found = Found::new(Calls::default());
        let of = if question.operations.is_some() { Of::Operations } else { Of::All };
        let part = Asked { minutes: question.minutes.clone(), operations: question.operations };
        if !chunks.is_empty() {
            let older = if of == Of::All { segments.as_slice() } else { &[] };
            found.items.add(&gather(&chunks, older, of)?, &part);
        }
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.meta().bounds.max));
        let mut left = rows;
        for segment in segments {
            let minutes = minutes_of(&segment);
            let apart =
                minutes.end() < part.minutes.start() || part.minutes.end() < minutes.start();
            if apart || part.minutes.is_empty() {
                continue;
            }
            let unsaid = match segment.calls() {
                Ok(Some(calls)) => {
                    found.items.add(&calls, &part);
                    continue;
                }
                Ok(None) => None,
                Err(StoreError::Corrupt { path, detail }) => {
                    Some(Finding::new(&path, FindingKind::Damaged, detail))
                }
                Err(error) => return Err(error),
            };
            found.damaged.extend(unsaid);
            match left.checked_sub(segment.meta().rows as usize) {
                Some(rest) => left = rest,
                None => {
                    found.cut = true;
                    continue;
                }
            }
            self.add_unsaid(&segment, &part, &mut found)?;
        }
        Ok(found)
    }

    /// Adds up the spans of a segment that does not say what they add up to.
    fn add_unsaid(
        &self,
        segment: &Arc<Segment>,
        part: &Asked<'_>,
        found: &mut Found<Calls>,
    ) -> Result<(), StoreError> {
        match of_segment(segment) {
            Ok(calls) => found.items.add(&calls, part),
            Err(StoreError::Corrupt { path, detail }) => {
                found.damaged.push(Finding::new(&path, FindingKind::Damaged, detail));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
