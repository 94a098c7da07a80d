//! A monitor's state as bytes, so that a process can go on where another one ended.
//!
//! `docs/format.md` has the table. Contracts are told apart by what they mean, so that one that has
//! changed is not given the state of what it was.

use std::sync::Arc;

use lacuna_signal::finding::fingerprint;

use super::codec::{Code, Damaged, Get, put_bytes};
use super::machine::Machine;
use super::presence::Presence;
use super::state::{Body, Look};
use super::{Monitor, Options, gap};
use crate::spec::{Contract, ContractSet};

/// The version of the bytes: another one is not read.
const VERSION: u64 = 5;

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
        if self.unknown_before_data {
            parts.push("before_data unknown".to_owned());
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
        self.gaps.raised.put(&mut out);
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
        monitor.gaps.raised = Code::get(&mut from)?;
        for _ in 0..from.length()? {
            let meaning = String::get(&mut from)?;
            let mut state = Get(from.bytes()?);
            let known = monitor.machines.iter_mut().find(|m| m.contract.meaning() == meaning);
            if let Some(machine) = known {
                let contract = machine.contract.clone();
                let (presence, watermark) = (&monitor.presence, monitor.watermark);
                *machine = Machine::get(contract, &mut state, presence, watermark)?;
                machine.known = true;
                machine.max_events = monitor.options.max_events;
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

impl Machine {
    /// Appends all that the contract knows. Keys that have settled come first, in the order in
    /// which they did.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.counts.put(out);
        self.reached.put(out);
        self.stats.put(out);
        self.timeline.put(out);
        self.forgotten.put(out);
        self.raised.put(out);
        self.edge.put(out);
        self.evidence.put(out);
        (self.table.len() as u64).put(out);
        let mut done = vec![false; self.table.end() as usize];
        let queued = self.settled.iter().chain(&self.settled_bad).copied();
        for slot in queued.chain(self.table.slots()) {
            let (Some(body), Some(done)) = (self.table.get(slot), done.get_mut(slot as usize))
            else {
                continue;
            };
            if !std::mem::replace(done, true) {
                put_bytes(self.table.key(slot), out);
                body.put(out);
            }
        }
    }

    /// Takes what [`Self::put`] wrote, of a contract that means the same.
    pub(super) fn get(
        contract: Arc<Contract>,
        from: &mut Get<'_>,
        presence: &Presence,
        watermark: i64,
    ) -> Result<Self, Damaged> {
        let mut machine = Self::new(contract);
        machine.counts = Code::get(from)?;
        machine.reached = Code::get(from)?;
        machine.stats = Code::get(from)?;
        machine.timeline = Code::get(from)?;
        machine.forgotten = Code::get(from)?;
        machine.raised = Code::get(from)?;
        machine.edge = Code::get(from)?;
        machine.evidence.learn(from)?;
        for _ in 0..from.length()? {
            let key = from.bytes()?;
            let mut body = Some(Body::get(from)?);
            let slot = machine.table.entry(key, || body.take().unwrap_or(Body::Empty));
            if let (Some(slot), None) = (slot, body) {
                // Deadlines, queues and sets follow from what is known of the key.
                machine.refresh(slot, true, Look::All, presence, watermark);
            }
        }
        Ok(machine)
    }
}

/// One byte, 0 to 4, then the state.
impl Code for Body {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => out.push(0),
            Self::Small(small) => {
                out.push(1);
                small.put(out);
            }
            Self::Orphan(orphan) => {
                out.push(2);
                orphan.put(out);
            }
            Self::Events(events) => {
                out.push(3);
                events.put(out);
            }
            Self::Windows(windows) => {
                out.push(4);
                windows.put(out);
            }
        }
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        Ok(match from.take(1)? {
            [0] => Self::Empty,
            [1] => Self::Small(Code::get(from)?),
            [2] => Self::Orphan(Code::get(from)?),
            [3] => Self::Events(Code::get(from)?),
            [4] => Self::Windows(Code::get(from)?),
            _ => return Err(Damaged),
        })
    }
}
