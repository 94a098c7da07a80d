//! Which services a contract's sides come from, and whether they have fallen silent.

use hashbrown::HashMap;
use lacuna_signal::selector::{Equality, Field};

use super::codec::{Code, Damaged, Get};
use super::judge::Side as Sided;
use super::presence::Presence;
use crate::spec::{Contract, Role, Side};

/// Names of services are kept up to so many a side.
const MAX_SERVICES: usize = 1_024;

/// Services that sent a side's events, and the start of the first.
type Services = HashMap<Box<str>, i64, foldhash::fast::RandomState>;

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

    /// Takes note of an event; whether it is the first known of its service.
    pub(super) fn note(&mut self, role: Role, service: &str, start: i64) -> bool {
        let services = match role {
            Role::When => &mut self.whens,
            Role::Expect => &mut self.expects,
            Role::RefusedBy => return false,
        };
        if let Some(first) = services.get_mut(service) {
            let earlier = start < *first;
            *first = start.min(*first);
            return earlier;
        }
        let room = services.len() < MAX_SERVICES;
        if room {
            services.insert(service.into(), start);
        }
        room
    }

    /// Whether a side's services sent none of its kind of signal in `from..=to`, though at least
    /// one of them did before. A side's services are those that its selector names and those from
    /// which its events came before `from`.
    pub(super) fn silent(
        &self,
        contract: &Contract,
        presence: &Presence,
        side: Sided,
        from: i64,
        to: i64,
    ) -> bool {
        let (named, seen, kind) = match side {
            Sided::When => (&self.named_when, &self.whens, contract.when.selector.kind()),
            Sided::Expect => (&self.named_expect, &self.expects, contract.expect.selector.kind()),
        };
        let named =
            named.iter().map(String::as_str).filter(|service| presence.before(kind, service, from));
        let seen = seen.iter().filter(|(_, first)| **first < from).map(|(service, _)| &**service);
        let mut any = false;
        for service in named.chain(seen) {
            if presence.within(kind, service, from, to) {
                return false;
            }
            any = true;
        }
        any
    }
}

impl Evidence {
    /// Appends what was learnt; what the contract says is not part of it.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        self.whens.put(out);
        self.expects.put(out);
    }

    /// Takes what [`Self::put`] wrote.
    pub(super) fn learn(&mut self, from: &mut Get<'_>) -> Result<(), Damaged> {
        self.whens = Code::get(from)?;
        self.expects = Code::get(from)?;
        Ok(())
    }
}
