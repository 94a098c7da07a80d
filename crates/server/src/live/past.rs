//! How a monitor comes to know the past: from the checkpoint of the last process and what was
//! stored after it, or from stored history.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use lacuna_contract::history::LEARN_CLOCKS;
use lacuna_contract::{ContractSet, Monitor, Options};
use lacuna_signal::{Batch, SignalKind};
use lacuna_store::{Store, StoreError, TimeRange};
use parking_lot::Mutex;

use super::queue::Queue;
use crate::statefile::{Loaded, StateFile};

/// Name of the checkpoint in the data folder.
const FILE_NAME: &str = "MONITOR";
const MAGIC: &str = "lacuna-monitor";
const VERSION: u32 = 1;

/// History is read in windows of this length, so that spans and logs reach the monitor nearly in
/// the order of their times.
const WINDOW: i64 = 10_000_000_000;
/// What came after a checkpoint may lie among much older rows: it is read in so many windows at
/// most, however long the time is.
const WINDOWS: i64 = 500;

/// What a monitor of this server is made from.
#[derive(Clone)]
pub struct Past {
    pub options: Options,
    pub store: Store,
    /// How much history a contract is shown of which nothing is known.
    pub length: Duration,
    pub file: StateFile,
}

/// The checkpoint's file in a data folder.
pub fn checkpoint_file(data: &Path) -> StateFile {
    StateFile::new(data, FILE_NAME, MAGIC, VERSION)
}

impl Past {
    /// The monitor of the last process, and up to where in the store it had seen everything.
    fn restored(&self, contracts: &ContractSet) -> Option<(Monitor, u64)> {
        let body = match self.file.load() {
            Loaded::Absent => return None,
            Loaded::Body(body) => body,
            Loaded::Unusable(why) => return self.useless(&why),
        };
        let Some((position, state)) = body.split_first_chunk() else {
            return self.useless("it is too short");
        };
        let position = u64::from_le_bytes(*position);
        if position > self.store.position() {
            return self.useless("it knows of more than the store has");
        }
        match Monitor::restore(contracts, self.options.clone(), state) {
            Ok(monitor) => Some((monitor, position)),
            Err(error) => self.useless(&error.to_string()),
        }
    }

    fn useless<T>(&self, why: &str) -> Option<T> {
        let path = self.file.path().display();
        tracing::warn!(
            "{path}: the monitor's checkpoint is not used, stored history is read instead: {why}"
        );
        None
    }

    /// A monitor that knows what the last process knew, and all that was stored since. From then on
    /// `queue` takes what becomes durable.
    pub fn on_start(&self, contracts: &ContractSet, queue: &Queue) -> Monitor {
        if contracts.is_empty() {
            queue.open();
            return Monitor::new(contracts, self.options.clone());
        }
        let from = self.store.position();
        let mut monitor = match self.restored(contracts) {
            Some((mut monitor, position)) => {
                self.show_since(position, queue, &mut |batch, again| {
                    show(&mut monitor, batch, again)
                });
                monitor
            }
            None => Monitor::new(contracts, self.options.clone()),
        };
        // Also before it is shown anything: what is from the future settles nothing.
        monitor.tell_wall_clock(Timestamp::now());
        let lacking = monitor.lacking(contracts);
        // Without contracts there is nothing to find in history, and a day of it takes long to read.
        if !lacking.is_empty() {
            monitor.adopt(self.fresh(&lacking, queue));
        }
        self.join_in(from, queue, &mut |batch, again| show(&mut monitor, batch, again));
        if monitor.watermark().is_some() {
            // Something is known of before: senders could not reach anybody since, and come again.
            monitor.resume_at(Timestamp::now());
        }
        monitor
    }

    /// A monitor of `lacking`, contracts that are new or changed, which has been shown history; and
    /// up to where in the store it has been shown everything. It takes as long as history is.
    pub fn before_reload(&self, lacking: &ContractSet, queue: &Queue) -> (Monitor, u64) {
        let from = self.store.position();
        let mut fresh = self.fresh(lacking, queue);
        // What came meanwhile, so that little is left to be shown in the end.
        let next = self.store.position();
        self.show_since(from, queue, &mut |batch, again| show(&mut fresh, batch, again));
        (fresh, next)
    }

    /// Makes `monitor` one of `contracts`; of those that it lacks, `fresh` knows what came before
    /// `position`. `false` if the stop came in between: nothing has changed then.
    ///
    /// What `monitor` has been shown is in the store, and what waits in the queue is yet to be shown
    /// to it: nothing escapes the new ones, and what comes twice counts once.
    pub fn on_reload(
        &self,
        monitor: &Mutex<Monitor>,
        contracts: &ContractSet,
        (mut fresh, position): (Monitor, u64),
        queue: &Queue,
    ) -> bool {
        self.show_since(position, queue, &mut |batch, again| show(&mut fresh, batch, again));
        if queue.is_closed() {
            return false;
        }
        let mut monitor = monitor.lock();
        monitor.reload(contracts);
        monitor.adopt(fresh);
        true
    }

    /// A monitor of contracts of which nothing is known, which has been shown history.
    fn fresh(&self, lacking: &ContractSet, queue: &Queue) -> Monitor {
        let options = Options { learn_clocks: LEARN_CLOCKS, ..self.options.clone() };
        let mut fresh = Monitor::new(lacking, options);
        fresh.tell_wall_clock(Timestamp::now());
        if let Err(error) = self.replay(&mut fresh, queue) {
            tracing::error!(%error, "stored history could not be read again in full");
        }
        fresh
    }

    /// Shows what was stored from `from` on, and lets the queue take over.
    fn join_in(&self, from: u64, queue: &Queue, show: &mut dyn FnMut(&Batch, bool)) {
        // What came while history was read; then, once more, what came while that was read.
        let next = self.store.position();
        self.show_since(from, queue, show);
        queue.open();
        self.show_since(next, queue, show);
    }

    /// Shows `monitor` the last of history, spans and logs side by side.
    fn replay(&self, monitor: &mut Monitor, queue: &Queue) -> Result<(), StoreError> {
        let length = i64::try_from(self.length.as_nanos()).unwrap_or(i64::MAX);
        let end = now().saturating_add(1);
        let oldest =
            self.store.stats().kinds.iter().filter_map(|kind| Some(kind.bounds?.min)).min();
        let Some(oldest) = oldest else { return Ok(()) };
        let bound = end.saturating_sub(length);
        if bound > oldest
            && let Ok(bound) = Timestamp::from_nanosecond(i128::from(bound))
        {
            // There is more, which is not read.
            monitor.known_from(bound);
        }
        let mut start = bound.max(oldest);
        while start < end && !queue.is_closed() {
            let range = TimeRange::new(start, start.saturating_add(WINDOW).min(end));
            for kind in [SignalKind::Spans, SignalKind::Logs] {
                for batch in self.store.scan(kind, None, range, None, usize::MAX)? {
                    monitor.observe(&batch?);
                }
            }
            start = range.end;
        }
        Ok(())
    }

    /// Shows what came at or after `position`; with it comes some that may have been seen before,
    /// and `show` is told of which batches that holds.
    fn show_since(&self, position: u64, queue: &Queue, show: &mut dyn FnMut(&Batch, bool)) {
        if let Err(error) = self.try_show_since(position, queue, show) {
            tracing::error!(%error, "what was stored since could not be read again in full");
        }
    }

    fn try_show_since(
        &self,
        position: u64,
        queue: &Queue,
        show: &mut dyn FnMut(&Batch, bool),
    ) -> Result<(), StoreError> {
        let Some(bounds) = self.store.bounds_since(position) else { return Ok(()) };
        let end = bounds.max.saturating_add(1);
        let window = WINDOW.max(end.saturating_sub(bounds.min) / WINDOWS);
        let mut start = bounds.min;
        while start < end && !queue.is_closed() {
            let range = TimeRange::new(start, start.saturating_add(window).min(end));
            for kind in [SignalKind::Spans, SignalKind::Logs] {
                for whole in [true, false] {
                    for batch in self.store.scan_since(kind, position, whole, range)? {
                        show(&batch?, !whole);
                    }
                }
            }
            start = range.end;
        }
        Ok(())
    }
}

/// Shows a batch to a monitor; `again` says that it may have seen some of it.
fn show(monitor: &mut Monitor, batch: &Batch, again: bool) {
    monitor.tell_wall_clock(Timestamp::now());
    if again {
        monitor.observe_again(batch);
    } else {
        monitor.observe(batch);
    }
}

fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
