//! What a monitor can be asked.

use std::sync::Arc;

use lacuna_signal::finding::{Finding, Instance, Verdict};

use super::machine::Machine;
use super::report::ContractStatus;
use super::skew::Clock;
use super::{Monitor, key};
use crate::spec::Contract;

impl Monitor {
    /// Number of open obligations of all contracts.
    pub fn open(&self) -> u64 {
        self.machines.iter().map(Machine::open).sum()
    }

    /// All findings: one a contract and verdict, and one a gap in the evidence; those that no longer
    /// hold as resolved.
    pub fn findings(&mut self) -> Vec<Finding> {
        let (presence, watermark, gaps) = (&self.presence, self.watermark, &self.gaps);
        let machines = self.machines.iter_mut();
        let found =
            machines.flat_map(|machine| machine.findings(presence, watermark, gaps, |_| true));
        let mut findings: Vec<Finding> = found.collect();
        findings.extend(self.gap_findings(|_| true));
        findings
    }

    /// The finding with this fingerprint.
    pub fn finding(&mut self, fingerprint: &str) -> Option<Finding> {
        let (presence, watermark, gaps) = (&self.presence, self.watermark, &self.gaps);
        let found = self.machines.iter_mut().find_map(|machine| {
            let verdict = machine.verdict_of(fingerprint)?;
            machine.findings(presence, watermark, gaps, |wanted| wanted == verdict).pop()
        });
        found.or_else(|| {
            let source = self.gap_of(fingerprint)?;
            let (presence, watermark, gaps) = (&self.presence, self.watermark, &self.gaps);
            let machines = self.machines.iter_mut();
            machines.for_each(|machine| machine.refresh_digest(presence, watermark, gaps));
            self.gap_findings(|wanted| *wanted == source).pop()
        })
    }

    /// How every contract is doing, in order.
    pub fn status(&self) -> Vec<ContractStatus> {
        let status = |machine: &Machine| machine.status(&self.presence, &self.skew, self.watermark);
        self.machines.iter().map(status).collect()
    }

    /// The clocks of the services of which enough is known, by name.
    pub fn clocks(&self) -> Vec<Clock> {
        self.skew.clocks()
    }

    /// Number of obligations of each contract by verdict, in order.
    pub fn verdict_counts(&self) -> impl Iterator<Item = (&str, Verdict, u64)> {
        self.machines.iter().flat_map(|machine| {
            let count =
                |v: &Verdict| (machine.contract.name.as_str(), *v, machine.counts[*v as usize]);
            Verdict::ALL.iter().map(count).collect::<Vec<_>>()
        })
    }

    /// Instances of a contract whose verdict `wanted` wants, oldest first, at most `limit`, and
    /// whether there were more. `None` if there is no such contract.
    pub fn instances(
        &self,
        contract: &str,
        wanted: impl Fn(Verdict) -> bool,
        limit: usize,
    ) -> Option<(Vec<Instance>, bool)> {
        let machine = self.machines.iter().find(|machine| machine.contract.name == contract)?;
        let silent = |side, from, to| {
            machine.evidence.silent(&machine.contract, &self.presence, side, from, to)
        };
        let context = machine.context(self.watermark, &silent);
        Some(machine.instances(&context, wanted, limit))
    }

    /// What became of one key: of every contract that knows it, the instances, fulfilled and open
    /// ones too. `values` are the key's parts as text, in the contract's order.
    pub fn instances_of_key(&self, values: &[&str]) -> Vec<(&Arc<Contract>, Vec<Instance>)> {
        let mut key = Vec::new();
        values.iter().for_each(|value| key::push_text(value, &mut key));
        let mut found = Vec::new();
        for machine in self.machines.iter().filter(|m| m.contract.when.key.len() == values.len()) {
            let silent = |side, from, to| {
                machine.evidence.silent(&machine.contract, &self.presence, side, from, to)
            };
            let context = machine.context(self.watermark, &silent);
            let instances = machine.instances_of(&key, &context);
            if !instances.is_empty() {
                found.push((&machine.contract, instances));
            }
        }
        found
    }

    /// What became of the keys of a contract that have these parts, in the contract's order; `None`
    /// is any. At most `limit` instances, fulfilled and open ones too, and whether there were more.
    pub fn instances_with(
        &self,
        contract: &str,
        parts: &[Option<&str>],
        limit: usize,
    ) -> (Vec<Instance>, bool) {
        let mut found = Vec::new();
        let Some(machine) = self.machines.iter().find(|m| m.contract.name == contract) else {
            return (found, false);
        };
        let silent = |side, from, to| {
            machine.evidence.silent(&machine.contract, &self.presence, side, from, to)
        };
        let context = machine.context(self.watermark, &silent);
        for slot in machine.slots_with(parts) {
            for obligation in machine.obligations_of(slot, &context) {
                if found.len() == limit {
                    return (found, true);
                }
                found.push(machine.instance(slot, &obligation));
            }
        }
        (found, false)
    }
}
