//! The engine: batches of spans and logs in, verdicts and findings out.
//!
//! Time is event time. The watermark is the greatest end of any event seen, less the lateness that
//! is allowed for; a deadline is settled when the watermark passes it. An event that comes later
//! still changes the verdict, so out-of-order and late arrivals end in the same verdicts as order
//! does. While nothing newer arrives, the watermark follows the wall clock.

mod amount;
mod ask;
mod bounds;
mod checkpoint;
mod clock_pair;
mod codec;
mod digest;
mod episode;
mod event;
mod events;
mod evidence;
mod gap;
mod judge;
mod key;
mod long;
mod machine;
mod presence;
mod prune;
mod report;
mod rows;
mod skew;
mod small;
mod state;
mod stats;
mod table;
mod timeline;
mod watermark;
mod windows;
mod words;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lacuna_signal::selector::BatchIndex;
use lacuna_signal::{Batch, SignalKind};

pub use checkpoint::CheckpointError;
pub use episode::Episode;
pub use gap::Gap;
pub use report::{ContractStatus, Health};
pub use skew::Clock;

use crate::spec::{Contract, ContractSet};
pub(crate) use event::{NUMBER, TEXT, TRUTH, kind_of};
use machine::{Machine, Time};
use presence::Presence;
pub(crate) use rows::Rows;
use skew::Skew;
pub(crate) use words::side_name;

/// How a monitor runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much later than others an event may come without changing any verdict on the way.
    pub lateness: Duration,
    /// After so much wall time without an event that ends later than all before it, the watermark
    /// follows the wall clock.
    pub idle: Duration,
    /// Open obligations of all contracts; beyond it those due first are given up, and counted.
    pub max_open: usize,
    /// Keys that a contract remembers; beyond it settled ones are forgotten, fulfilled ones first.
    pub max_keys: usize,
    /// Keys that are not fulfilled that a contract remembers.
    pub max_instances: usize,
    /// Events of a side, and windows, that a key remembers; beyond it the oldest are given up. Far
    /// fewer are kept where they decide nothing any more.
    pub max_events: usize,
    /// So many rows at the beginning are held back until the services' clocks have been learnt from
    /// them: for history, which is read once. 0, live, judges at once.
    pub learn_clocks: usize,
    /// A finding is over when no obligation of so long violated and a later one was fulfilled; twice
    /// the contract's deadline if that is longer. See [`Monitor::review`].
    pub resolve_after: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lateness: Duration::from_secs(30),
            idle: Duration::from_secs(30),
            max_open: 1_000_000,
            max_keys: 2_000_000,
            max_instances: 100_000,
            max_events: 65_536,
            learn_clocks: 0,
            resolve_after: Duration::from_secs(600),
        }
    }
}

/// Watches contracts over a stream of batches.
#[derive(Debug)]
pub struct Monitor {
    options: Options,
    machines: Vec<Machine>,
    presence: Presence,
    gaps: gap::Gaps,
    skew: Skew,
    /// Batches that are held back, and how many rows they have.
    held: Vec<Batch>,
    held_rows: usize,
    /// Greatest end of any event, those left out that cannot have happened yet.
    last: Option<i64>,
    /// Least start of any event.
    first: i64,
    watermark: i64,
    /// What ends later is not taken for the data's end.
    end_by: i64,
    /// Wall clock when last told, and, by it, when `last` had last grown.
    wall: Option<i64>,
    last_growth: Option<i64>,
    grew: bool,
    /// Until the wall clock shows this, deadlines wait.
    hold: i64,
}

impl Monitor {
    /// A monitor that has seen nothing.
    pub fn new(contracts: &ContractSet, options: Options) -> Self {
        let mut machines: Vec<_> =
            contracts.contracts().iter().cloned().map(Machine::new).collect();
        machines.iter_mut().for_each(|machine| machine.max_events = options.max_events);
        Self {
            options,
            machines,
            presence: Presence::new(gap(contracts)),
            gaps: gap::Gaps::default(),
            skew: Skew::default(),
            held: Vec::new(),
            held_rows: 0,
            last: None,
            first: i64::MAX,
            watermark: i64::MIN,
            end_by: i64::MAX,
            wall: None,
            last_growth: None,
            grew: false,
            hold: i64::MIN,
        }
    }

    /// Takes a batch's rows, in any order. Metric points are passed over.
    pub fn observe(&mut self, batch: &Batch) {
        if batch.kind() == SignalKind::Points || batch.num_rows() == 0 || self.machines.is_empty() {
            return;
        }
        let index = BatchIndex::new(batch);
        let Some(mut rows) = Rows::new(&index) else { return };
        self.skew.observe(&index, &rows);
        if self.held_rows < self.options.learn_clocks {
            self.held_rows += rows.len();
            self.held.push(batch.clone());
            if self.held_rows >= self.options.learn_clocks {
                self.judge_held();
            }
            return;
        }
        rows.set_right(self.skew.shifts(&rows));
        self.judge(&index, &rows);
    }

    /// Judges what was held back to learn from it; see [`Options::learn_clocks`].
    pub fn judge_held(&mut self) {
        self.held_rows = self.options.learn_clocks;
        for batch in std::mem::take(&mut self.held) {
            let index = BatchIndex::new(&batch);
            if let Some(mut rows) = Rows::new(&index) {
                rows.set_right(self.skew.shifts(&rows));
                self.judge(&index, &rows);
            }
        }
    }

    fn judge(&mut self, index: &BatchIndex<'_>, rows: &Rows<'_>) {
        self.machines.iter_mut().for_each(|machine| machine.known = true);
        let doubt = self.presence.observe(index.kind(), rows, self.watermark);
        let time = Time { watermark: self.watermark, lateness: self.lateness() };
        self.first = (0..rows.len()).map(|row| rows.start(row)).fold(self.first, i64::min);
        for machine in &mut self.machines {
            machine.observe(index, rows, &self.presence, time);
            machine.doubt(doubt, &self.presence, self.watermark);
        }
        // What lies further ahead of the wall clock than anything may be late is of a clock that is
        // wrong: it says nothing of the time, and least of all that others are late by it.
        let wall = self.wall.unwrap_or(i64::MAX);
        let believed = rows.last(wall.saturating_add(self.lateness()).min(self.end_by));
        if believed > self.last {
            self.last = believed;
            self.grew = true;
        }
        self.follow();
        self.bound();
    }

    /// As [`Self::observe`], for a batch some of whose rows may have been observed before: they
    /// change no verdict, and are not counted as matching events a second time. New ones among them
    /// are not counted either.
    pub fn observe_again(&mut self, batch: &Batch) {
        let before: Vec<_> = self.machines.iter().map(|machine| machine.stats.clone()).collect();
        self.observe(batch);
        for (machine, before) in self.machines.iter_mut().zip(before) {
            machine.stats.forget_matches(&before);
        }
    }

    /// Says that signals from before `time` may be missing, though there were some: what then cannot
    /// be said of outcomes whose cause may lie before is unknown. It is about the contracts that
    /// there are now. What is older than all data needs not be said: nothing is missing there.
    pub fn known_from(&mut self, time: Timestamp) {
        let time = nanos(time);
        for machine in &mut self.machines {
            machine.edge = machine.edge.max(time);
        }
    }

    /// From now on only obligations count, and are told, that were opened at `time` or later. To be
    /// called when all has been observed and settled.
    pub fn count_from(&mut self, time: Timestamp) {
        let time = nanos(time);
        self.machines.iter_mut().for_each(|machine| machine.count_from(time));
    }

    fn bound(&mut self) {
        for machine in &mut self.machines {
            machine.bound(self.options.max_keys, self.options.max_instances);
        }
        let max = self.options.max_open as u64;
        let mut open: u64 = self.machines.iter().map(Machine::open).sum();
        while open > max {
            let Some(most) = self.machines.iter_mut().max_by_key(|machine| machine.open()) else {
                return;
            };
            let gone = most.evict_open(open - max);
            if gone == 0 {
                return;
            }
            open = open.saturating_sub(gone);
        }
    }

    /// Takes another set of contracts. Those whose meaning did not change keep their obligations
    /// and counts; new and changed ones begin anew.
    pub fn reload(&mut self, contracts: &ContractSet) {
        let mut old: Vec<Machine> = std::mem::take(&mut self.machines);
        self.machines = contracts
            .contracts()
            .iter()
            .map(|contract| {
                match old.iter().position(|machine| machine.contract.means_as(contract)) {
                    Some(at) => {
                        let mut machine = old.swap_remove(at);
                        // What it is called and how much it matters may have changed.
                        machine.contract = contract.clone();
                        machine
                    }
                    None => {
                        let mut machine = Machine::new(contract.clone());
                        machine.max_events = self.options.max_events;
                        machine
                    }
                }
            })
            .collect();
        self.presence.ask_for(gap(contracts));
    }

    /// The contracts, in order.
    pub fn contracts(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.machines.iter().map(|machine| &machine.contract)
    }

    /// Event time up to which deadlines are settled; `None` before the first event.
    pub fn watermark(&self) -> Option<Timestamp> {
        let nanos = (self.watermark > i64::MIN).then_some(self.watermark)?;
        Timestamp::from_nanosecond(i128::from(nanos)).ok()
    }

    /// How far back a new monitor must be fed so that every obligation that may still be open is
    /// known again: the longest deadline, twice, and the lateness.
    pub fn horizon(&self) -> Duration {
        let longest = self.machines.iter().filter_map(|machine| machine.contract.within).max();
        let longest = Duration::from_nanos(longest.unwrap_or(0).unsigned_abs());
        longest.saturating_mul(2).saturating_add(self.options.lateness)
    }

    /// Whether any verdict changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        let changed = self.machines.iter().any(|machine| machine.changed);
        self.machines.iter_mut().for_each(|machine| machine.changed = false);
        changed
    }
}

/// Whether a field's value can be part of a key.
pub(crate) fn is_key(value: lacuna_signal::selector::FieldValue<'_>) -> bool {
    key::push(value, &mut Vec::new())
}

/// The shortest span over which anybody asks whether a service was silent.
fn gap(contracts: &ContractSet) -> i64 {
    contracts
        .contracts()
        .iter()
        .filter_map(|contract| contract.within)
        .min()
        .unwrap_or(1_000_000_000)
}

fn nanos(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}
