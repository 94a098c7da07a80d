//! A monitor's state as bytes, so that a process can go on where another one ended.
//!
//! `docs/format.md` has the table. Contracts are told apart by what they mean, so that one that has
//! changed is not given the state of what it was.

use lacuna_signal::finding::fingerprint;

use super::codec::{Code, Damaged, Get, put_bytes};
use super::machine::Machine;
use super::presence::Presence;
use super::{Monitor, Options, gap};
use crate::spec::{Contract, ContractSet};

/// The version of the bytes: another one is not read.
const VERSION: u64 = 1;

/// Why a checkpoint is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Another version of Lacuna wrote it.
    #[error("its version is {0}, and this build reads {VERSION}")]
    Version(u64),
    /// The bytes are not such as a monitor writes.
    #[error("its bytes are not such as a monitor writes")]
    Damaged,
}

impl From<Damaged> for CheckpointError {
    fn from(Damaged: Damaged) -> Self {
        Self::Damaged
    }
}

impl Contract {
    /// What the contract demands, in a form that is the same in every run and build: everything
    /// but its severity and its texts for people.
    pub fn meaning(&self) -> String {
        let mut parts = vec![
            self.name.clone(),
            format!("{:?} {:?} {:?}", self.kind, self.per, self.within),
            format!("{:?}", self.conditions),
        ];
        for (role, side) in self.sides() {
            parts.push(format!("{role:?} {}", side.selector));
            parts.extend(side.key.iter().map(|field| field.field().to_string()));
            parts.extend(side.sum.iter().map(|field| format!("sum {}", field.field())));
            parts.extend(side.fields.iter().map(|field| format!("where {}", field.field())));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        fingerprint(&parts)
    }

    /// Whether the two demand the same.
    pub fn means_as(&self, other: &Self) -> bool {
        self.meaning() == other.meaning()
    }
}

impl Monitor {
    /// Everything the monitor knows.
    pub fn checkpoint(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 << 16);
        VERSION.put(&mut out);
        self.last.put(&mut out);
        self.watermark.put(&mut out);
        self.presence.put(&mut out);
        self.skew.put(&mut out);
        (self.machines.len() as u64).put(&mut out);
        for machine in &self.machines {
            machine.contract.meaning().put(&mut out);
            let mut state = Vec::new();
            machine.put(&mut state);
            put_bytes(&state, &mut out);
        }
        out
    }

    /// A monitor of `contracts` that knows what the one knew that wrote `bytes`. Contracts that it
    /// did not have, or that meant something else, begin anew: [`Monitor::lacking`] tells them
    /// before.
    ///
    /// # Errors
    /// The bytes are of another version, or damaged.
    pub fn restore(
        contracts: &ContractSet,
        options: Options,
        bytes: &[u8],
    ) -> Result<Self, CheckpointError> {
        let mut monitor = Self::new(contracts, options);
        let mut from = Get(bytes);
        let version = u64::get(&mut from)?;
        if version != VERSION {
            return Err(CheckpointError::Version(version));
        }
        monitor.last = Code::get(&mut from)?;
        monitor.watermark = Code::get(&mut from)?;
        monitor.presence = Presence::get(&mut from)?;
        monitor.presence.ask_for(gap(contracts));
        monitor.skew = Code::get(&mut from)?;
        for _ in 0..from.length()? {
            let meaning = String::get(&mut from)?;
            let mut state = Get(from.bytes()?);
            let known = monitor.machines.iter_mut().find(|m| m.contract.meaning() == meaning);
            if let Some(machine) = known {
                let contract = machine.contract.clone();
                let (presence, watermark) = (&monitor.presence, monitor.watermark);
                *machine = Machine::get(contract, &mut state, presence, watermark)?;
                machine.known = true;
            }
        }
        if from.0.is_empty() { Ok(monitor) } else { Err(CheckpointError::Damaged) }
    }

    /// Those of `contracts` of which this monitor knows nothing, because they are new or mean
    /// something else than before.
    pub fn lacking(&self, contracts: &ContractSet) -> ContractSet {
        let known = |contract: &Contract| {
            self.machines.iter().any(|m| m.known && m.contract.means_as(contract))
        };
        let lacking = contracts.contracts().iter().filter(|contract| !known(contract));
        ContractSet::from_contracts(lacking.map(|contract| (**contract).clone()))
    }

    /// Takes over what another monitor knows of contracts that both have.
    pub fn adopt(&mut self, mut other: Self) {
        other.judge_held();
        self.skew.adopt(other.skew);
        self.presence.merge(other.presence);
        self.last = self.last.max(other.last);
        let watermark = self.watermark.max(other.watermark);
        for machine in other.machines {
            let own = self.machines.iter_mut().find(|own| own.contract.means_as(&machine.contract));
            if let Some(own) = own {
                let contract = own.contract.clone();
                *own = machine;
                (own.contract, own.known) = (contract, true);
                own.revision += 1;
            }
        }
        self.settle(watermark);
    }
}
