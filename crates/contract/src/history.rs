//! Contracts over history: the same engine, closed at the end of the data.

use std::collections::BTreeMap;
use std::time::Duration;

use lacuna_signal::Batch;
use lacuna_signal::finding::{Finding, Instance, Verdict};
use serde::Serialize;

use crate::monitor::{ContractStatus, Monitor, Options};
use crate::spec::ContractSet;

/// What became of every contract.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The contracts, in order.
    pub contracts: Vec<ContractReport>,
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
    /// Whether its evidence arrived and could be used.
    pub health: crate::monitor::Health,
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
        };
        Self { monitor: Monitor::new(contracts, options) }
    }

    /// Takes a batch's rows.
    pub fn observe(&mut self, batch: &Batch) {
        self.monitor.observe(batch);
    }

    /// Ends the data, and says what became of every contract, with at most `limit` instances each;
    /// and what was found.
    pub fn finish(mut self, limit: usize) -> (Report, Vec<Finding>) {
        self.monitor.finish();
        let contracts =
            self.monitor.status().into_iter().map(|status| self.contract(status, limit));
        let report = Report { contracts: contracts.collect() };
        (report, self.monitor.findings())
    }

    fn contract(&self, status: ContractStatus, limit: usize) -> ContractReport {
        let unfulfilled = |verdict| verdict != Verdict::Fulfilled;
        let found = self.monitor.instances(&status.name, unfulfilled, limit);
        let (instances, cut) = found.unwrap_or_default();
        ContractReport {
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
}

/// Runs contracts over batches.
pub fn run<'a>(contracts: &ContractSet, batches: impl IntoIterator<Item = &'a Batch>) -> Report {
    let mut history = History::new(contracts);
    batches.into_iter().for_each(|batch| history.observe(batch));
    history.finish(usize::MAX).0
}
