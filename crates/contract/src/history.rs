//! Contracts over history: the same engine, closed at the end of the data.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use lacuna_signal::Batch;
use lacuna_signal::finding::{Finding, Instance, Verdict};
use serde::Serialize;

use crate::monitor::{ContractStatus, Gap, Monitor, Options};
use crate::spec::ContractSet;

/// Rows that are held back until the services' clocks have been learnt from them.
pub const LEARN_CLOCKS: usize = 50_000;

/// What became of every contract.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The contracts, in order.
    pub contracts: Vec<ContractReport>,
    /// Where evidence is missing, so that obligations are unknown.
    pub gaps: Vec<Gap>,
    /// The greatest end of any event: what is due later is open.
    pub data_end: Option<Timestamp>,
}

/// What became of one contract.
#[derive(Debug, Clone, Serialize)]
pub struct ContractReport {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Names of the fields that make up an instance's key.
    pub key: Vec<String>,
    /// Obligations that were opened.
    pub activations: u64,
    /// Obligations by verdict.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// All that are not fulfilled, oldest first.
    pub instances: Vec<Instance>,
    /// Whether there were more instances than are told.
    pub cut: bool,
    /// Why obligations are open, if any are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
    /// Whether its evidence arrived and could be used.
    pub health: crate::monitor::Health,
}

/// Obligations of which nothing can be said yet.
#[derive(Debug, Clone, Serialize)]
pub struct Open {
    /// How many.
    pub count: u64,
    /// Why, in words.
    pub why: String,
}

impl Report {
    /// Whether anything speaks against the system.
    pub fn has_violations(&self) -> bool {
        let violating = |contract: &ContractReport| {
            Verdict::ALL
                .iter()
                .filter(|verdict| verdict.is_violation())
                .any(|verdict| contract.verdicts.get(verdict.name()).is_some_and(|n| *n > 0))
        };
        self.contracts.iter().any(violating)
    }
}

/// Reads history, batch by batch and in any order.
#[derive(Debug)]
pub struct History {
    monitor: Monitor,
    from: Option<Timestamp>,
}

impl History {
    /// Over nothing yet. Nothing is settled before the end, so nothing is bounded either.
    pub fn new(contracts: &ContractSet) -> Self {
        let options = Options {
            lateness: Duration::MAX,
            idle: Duration::MAX,
            max_open: usize::MAX,
            max_keys: usize::MAX,
            max_instances: usize::MAX,
            max_events: usize::MAX,
            learn_clocks: LEARN_CLOCKS,
            // What history was, it stays.
            resolve_after: Duration::MAX,
        };
        Self { monitor: Monitor::new(contracts, options), from: None }
    }

    /// Only obligations that are opened at `from` or later are to be told, by what the whole of the
    /// data says of them. So all of it is to be observed from its beginning: whether a key was
    /// activated or balanced before, which services outcomes come from, and whether they were there
    /// before, may lie anywhere in it.
    pub fn count_from(&mut self, from: Timestamp) {
        self.from = Some(from);
    }

    /// The data ends at `end` at the latest: what ends later is from a clock that is ahead.
    pub fn end_by(&mut self, end: Timestamp) {
        self.monitor.end_by(end);
    }

    /// Takes a batch's rows.
    pub fn observe(&mut self, batch: &Batch) {
        self.monitor.observe(batch);
    }

    /// Ends the data: every deadline up to its end is settled.
    pub fn settle(&mut self) {
        self.monitor.finish();
        if let Some(from) = self.from {
            self.monitor.count_from(from);
        }
    }

    /// The engine, for questions about single keys; it knows verdicts once
    /// [`History::settle`] was called.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Ends the data, and says what became of every contract, with at most `limit` instances each;
    /// and what was found.
    pub fn finish(mut self, limit: usize) -> (Report, Vec<Finding>) {
        self.settle();
        let contracts =
            self.monitor.status().into_iter().map(|status| self.contract(status, limit));
        let contracts = contracts.collect();
        let (gaps, data_end) = (self.monitor.gaps(), self.monitor.watermark());
        let report = Report { contracts, gaps, data_end };
        (report, self.monitor.findings())
    }

    fn contract(&self, status: ContractStatus, limit: usize) -> ContractReport {
        let unfulfilled = |verdict| verdict != Verdict::Fulfilled;
        let found = self.monitor.instances(&status.name, unfulfilled, limit);
        let (instances, cut) = found.unwrap_or_default();
        let open = self.open(&status);
        ContractReport {
            open,
            name: status.name,
            kind: status.kind,
            key: status.key,
            activations: status.activations,
            verdicts: status.verdicts,
            instances,
            cut,
            health: status.health,
        }
    }

    fn open(&self, status: &ContractStatus) -> Option<Open> {
        let count = status.verdicts.get(Verdict::Open.name()).copied().filter(|n| *n > 0)?;
        let wanted = |verdict| verdict == Verdict::Open;
        let (instances, _) = self.monitor.instances(&status.name, wanted, usize::MAX)?;
        let deadlines = || instances.iter().filter_map(|instance| instance.deadline);
        let end = self.monitor.watermark().map_or("nowhere".to_owned(), |end| end.to_string());
        let due = match (deadlines().min(), deadlines().max()) {
            (Some(first), Some(last)) if first != last => format!("from {first} to {last}"),
            (Some(only), _) => format!("at {only}"),
            _ => "later".to_owned(),
        };
        let why = format!("{count} open: due {due}, after the data's end at {end}");
        Some(Open { count, why })
    }
}

/// Runs contracts over batches.
pub fn run<'a>(contracts: &ContractSet, batches: impl IntoIterator<Item = &'a Batch>) -> Report {
    let mut history = History::new(contracts);
    batches.into_iter().for_each(|batch| history.observe(batch));
    history.finish(usize::MAX).0
}
