//! Proposals held against the traffic that they were learnt from.
//!
//! Counting goes by kinds of event, a contract by selectors; and where they differ a contract finds
//! fault with what taught it. Such a proposal is of no use, whatever it was that was not foreseen.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lacuna_signal::Batch;
use lacuna_signal::finding::Verdict;

use super::judge::wilson;
use super::propose::{Proposal, to_yaml};
use crate::history::{ContractReport, History};
use crate::spec::{ContractSet, LoadErrors};

/// Runs proposals over the traffic that they were learnt from.
#[derive(Debug)]
pub struct Proof {
    proposals: Vec<Proposal>,
    history: History,
    min_support: f64,
}

impl Proof {
    /// Of these proposals, made with that least support.
    ///
    /// # Errors
    /// A proposal is no contract, which would be a mistake of the miner.
    pub fn new(proposals: Vec<Proposal>, min_support: f64) -> Result<Self, LoadErrors> {
        let set = ContractSet::parse("proposals", &to_yaml(&proposals))?;
        Ok(Self { proposals, history: History::new(&set), min_support })
    }

    /// The data ends at `end` at the latest, as of [`History::end_by`].
    pub fn end_by(&mut self, end: Timestamp) {
        self.history.end_by(end);
    }

    /// Takes a batch that was mined.
    pub fn observe(&mut self, batch: &Batch) {
        self.history.observe(batch);
    }

    /// The proposals that hold; and, of the others, in words, how often they did not.
    ///
    /// Exceptions that support allows for are no reason to drop one.
    pub fn finish(self) -> (Vec<Proposal>, Vec<String>) {
        let (report, _) = self.history.finish(0);
        let by_name: BTreeMap<&str, &ContractReport> =
            report.contracts.iter().map(|contract| (contract.name.as_str(), contract)).collect();
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for proposal in self.proposals {
            let verdicts = by_name.get(proposal.name.as_str()).map(|contract| &contract.verdicts);
            let count = |verdict: &Verdict| {
                verdicts.and_then(|all| all.get(verdict.name())).copied().unwrap_or(0)
            };
            let broken = Verdict::ALL.iter().filter(|v| v.is_violation()).map(count).sum::<u64>();
            let held = count(&Verdict::Fulfilled);
            if broken == 0 || wilson(held, held + broken) >= self.min_support {
                kept.push(proposal);
            } else {
                dropped.push(format!(
                    "{} was dropped: as a contract it was broken {broken} times by the traffic that \
                     suggested it, and kept {held} times",
                    proposal.name
                ));
            }
        }
        (kept, dropped)
    }
}
