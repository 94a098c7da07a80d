//! Which services a contract's sides come from, and whether they have fallen silent.

use hashbrown::HashSet;
use lacuna_signal::SignalKind;
use lacuna_signal::selector::{Equality, Field};

use super::codec::{Code, Damaged, Get};
use super::judge::Side as Sided;
use super::presence::Presence;
use crate::spec::{Contract, Role, Side};

/// Names of services are kept up to so many a side.
const MAX_SERVICES: usize = 1_024;

/// Services that sent a side's events.
type Services = HashSet<Box<str>, foldhash::fast::RandomState>;

/// Which services a contract's sides come from.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) whens: Services,
    pub(super) expects: Services,
    named_when: Vec<String>,
    named_expect: Vec<String>,
}

impl Evidence {
    pub(super) fn new(contract: &Contract) -> Self {
        let named = |side: &Side| {
            let service = Field::service();
            let required = side.selector.required_equalities();
            let named = required.iter().filter(|Equality { field, .. }| **field == service);
            named.map(|term| term.text.clone().into_owned()).collect()
        };
        Self {
            named_when: named(&contract.when),
            named_expect: named(&contract.expect),
            ..Self::default()
        }
    }

    /// Takes note of an event; whether it makes a service known by whose silence verdicts may change.
    pub(super) fn note(&mut self, role: Role, service: &str) -> bool {
        let services = match role {
            Role::When => &mut self.whens,
            Role::Expect => &mut self.expects,
            Role::RefusedBy => return false,
        };
        if services.contains(service) || services.len() >= MAX_SERVICES {
            return false;
        }
        services.insert(service.into());
        role == Role::Expect
    }

    /// A side's services: those that its selector names, and those from which its events came,
    /// whenever that was.
    pub(super) fn services(&self, side: Sided) -> impl Iterator<Item = &str> {
        let (named, seen) = match side {
            Sided::When => (&self.named_when, &self.whens),
            Sided::Expect => (&self.named_expect, &self.expects),
        };
        let other = |service: &&str| !named.iter().any(|named| named == service);
        named.iter().map(String::as_str).chain(seen.iter().map(|name| &**name).filter(other))
    }

    /// Whether a side's services sent none of its kind of signal in `from..=to`, though at least
    /// one of them did before.
    pub(super) fn silent(
        &self,
        contract: &Contract,
        presence: &Presence,
        side: Sided,
        from: i64,
        to: i64,
    ) -> bool {
        let kind = kind_of(contract, side);
        let mut any = false;
        for service in self.services(side) {
            if presence.within(kind, service, from, to) {
                return false;
            }
            any |= presence.before(kind, service, from);
        }
        any
    }
}

/// The kind of signal that a side is seen by.
pub(super) fn kind_of(contract: &Contract, side: Sided) -> SignalKind {
    match side {
        Sided::When => contract.when.selector.kind(),
        Sided::Expect => contract.expect.selector.kind(),
    }
}

impl Evidence {
    /// Appends what was learnt; what the contract says is not part of it.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        for services in [&self.whens, &self.expects] {
            let mut names: Vec<Box<str>> = services.iter().cloned().collect();
            names.sort_unstable();
            names.put(out);
        }
    }

    /// Takes what [`Self::put`] wrote.
    pub(super) fn learn(&mut self, from: &mut Get<'_>) -> Result<(), Damaged> {
        self.whens = Vec::<Box<str>>::get(from)?.into_iter().collect();
        self.expects = Vec::<Box<str>>::get(from)?.into_iter().collect();
        Ok(())
    }
}
