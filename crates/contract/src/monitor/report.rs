//! What a contract has to say: instances, findings, and how it is doing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lacuna_signal::finding;
use lacuna_signal::finding::{Instance, Verdict};
use serde::Serialize;

use super::events::{Obligations, obligations};
use super::judge::{self, Context, Judged};
use super::key;
use super::machine::Machine;
use super::presence::Presence;
use super::skew::Skew;
use super::state::Body;
use super::stats::role;
use super::words::{Subject, evidence, side_name};
use crate::spec::{Kind, Role};

/// How a contract is doing, for people and dashboards.
#[derive(Debug, Clone, Serialize)]
pub struct ContractStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// How much a violation matters.
    pub severity: finding::Severity,
    /// What it means to people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where to read what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook_url: Option<String>,
    /// The key's fields.
    pub key: Vec<String>,
    /// Selectors, by side.
    pub selectors: BTreeMap<&'static str, String>,
    /// Obligations that there were, of whatever verdict.
    pub activations: u64,
    /// Obligations by verdict, `open` included.
    pub verdicts: BTreeMap<&'static str, u64>,
    /// How often each verdict was reached since the contract was first loaded, `open` left out.
    /// It never falls: what a late arrival took back is told in `retracted`.
    pub reached: BTreeMap<&'static str, u64>,
    /// How often each verdict was taken back.
    pub retracted: BTreeMap<&'static str, u64>,
    /// Whether its evidence arrives and can be used.
    pub health: Health,
}

/// Whether a contract's evidence arrives and can be used.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Matching events, by side.
    pub matched: BTreeMap<&'static str, u64>,
    /// Of them, those that count for nothing because a field of the key is missing, empty, or of a
    /// type that cannot be a key; by side.
    pub key_missing: BTreeMap<&'static str, u64>,
    /// Events without a number where one is to be added up.
    pub amount_missing: u64,
    /// Events that came after the watermark had passed their end.
    pub late_events: u64,
    /// Open obligations given up to stay within `max_open`.
    pub evicted_open: u64,
    /// Settled keys and old events forgotten to stay within bounds.
    pub evicted_settled: u64,
    /// Matching events that lack a field that `where` reads, and make no pair; by side.
    pub field_missing: BTreeMap<&'static str, u64>,
    /// Events whose value and their partner's are of different kinds, which `where` cannot compare.
    pub incomparable: u64,
    /// Events that came after what they could have decided was forgotten.
    pub too_late: u64,
    /// Services from which each side's events came.
    pub services: BTreeMap<&'static str, Vec<String>>,
    /// Start of the newest event that opened or could have opened an obligation.
    pub last_when: Option<Timestamp>,
    /// Start of the newest outcome.
    pub last_expect: Option<Timestamp>,
    /// Whether the outcome's own signal has stopped arriving.
    pub silent: bool,
    /// Services of either side whose clocks are off, and by how many seconds they are ahead; so
    /// much is taken off their events' times.
    pub clock_offsets: BTreeMap<String, f64>,
    /// Bytes of memory that the contract's state takes.
    pub memory: u64,
    /// What is wrong with it, in words; empty if nothing is.
    pub problems: Vec<String>,
}

pub(super) fn timestamp(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// One obligation, its verdict as last settled.
#[derive(Clone)]
pub(super) struct Obligation<'a> {
    pub(super) verdict: Verdict,
    pub(super) judged: Judged,
    subject: Subject<'a>,
}

impl Machine {
    /// A key's obligations.
    pub(super) fn obligations_of(&self, slot: u32, context: &Context<'_>) -> Vec<Obligation<'_>> {
        let contract = &*self.contract;
        let mut list = Vec::new();
        let mut push = |verdict: Option<Verdict>, judged: Option<Judged>, subject| {
            if let (Some(verdict), Some(judged)) = (verdict, judged)
                && judged.activated >= self.counted_from
            {
                list.push(Obligation { verdict, judged, subject });
            }
        };
        match self.table.get(slot) {
            Some(Body::Events(events)) => match obligations(contract) {
                Obligations::Key if contract.kind == Kind::Balance => {
                    let judged = judge::balance(contract, events, context);
                    push(events.verdict, judged, Subject::Balance(events));
                }
                Obligations::Key => {
                    if let Some(when) = events.whens.first() {
                        let when = &when.event;
                        let judged = judge::activation(contract, events, when, context);
                        push(events.verdict, Some(judged), Subject::Activation(events, when));
                    }
                }
                Obligations::Whens => {
                    for kept in &events.whens {
                        let judged = judge::activation(contract, events, &kept.event, context);
                        let subject = Subject::Activation(events, &kept.event);
                        push(kept.verdict, Some(judged), subject);
                    }
                }
                Obligations::Expects => {
                    for kept in &events.expects {
                        let judged =
                            judge::outcome(contract, events, &kept.event, kept.verdict, context);
                        push(kept.verdict, Some(judged), Subject::Outcome(&kept.event));
                    }
                }
            },
            Some(Body::Windows(windows)) => {
                for (from, window) in &windows.windows {
                    let judged = judge::window(contract, *from, window, context);
                    push(window.verdict, judged, Subject::Window(window));
                }
            }
            Some(Body::Small(small)) => {
                let judged = small.judge(contract, context);
                push(small.verdict, Some(judged), Subject::Small(small.trace(), small.count()));
            }
            Some(Body::Empty | Body::Orphan(_)) | None => {}
        }
        list
    }

    /// Verdict and activation of a key's settled obligations that are not fulfilled.
    pub(super) fn activations(&self, slot: u32) -> Vec<(Verdict, i64)> {
        let context = self.context(i64::MAX, &|_, _, _| false);
        self.obligations_of(slot, &context)
            .iter()
            .filter(|o| !matches!(o.verdict, Verdict::Fulfilled | Verdict::Open))
            .map(|o| (o.verdict, o.judged.activated))
            .collect()
    }

    pub(super) fn instance(&self, slot: u32, obligation: &Obligation<'_>) -> Instance {
        let contract = &*self.contract;
        let judged = &obligation.judged;
        let key = key::parts(self.table.key(slot)).into_iter().collect();
        let (trace_ids, figures) = evidence(contract, &obligation.subject, judged);
        let open = obligation.verdict == Verdict::Open;
        // Of what was settled long ago, what settled it may be forgotten.
        let resolved = match judged.verdict == obligation.verdict {
            true => judged.resolved,
            false => Some(judged.deadline),
        };
        Instance {
            key,
            verdict: obligation.verdict,
            activated_at: timestamp(judged.activated),
            deadline: (contract.kind != Kind::Precedence).then(|| timestamp(judged.deadline)),
            resolved_at: resolved.filter(|_| !open).map(timestamp),
            trace_ids,
            figures,
            links: Vec::new(),
        }
    }

    /// Instances whose verdict `wanted` wants, oldest first, up to `limit`; and whether there were
    /// more.
    pub(super) fn instances(
        &self,
        context: &Context<'_>,
        wanted: impl Fn(Verdict) -> bool,
        limit: usize,
    ) -> (Vec<Instance>, bool) {
        let all = wanted(Verdict::Fulfilled) || wanted(Verdict::Open);
        let slots: Vec<u32> =
            if all { self.table.slots().collect() } else { self.bad.iter().copied().collect() };
        let mut found: Vec<(i64, u32, Obligation<'_>)> = Vec::new();
        for slot in slots {
            for obligation in self.obligations_of(slot, context) {
                if wanted(obligation.verdict) {
                    found.push((obligation.judged.activated, slot, obligation));
                }
            }
        }
        found.sort_by_key(|(activated, slot, _)| (*activated, *slot));
        let cut = found.len() > limit;
        found.truncate(limit);
        (found.iter().map(|(_, slot, obligation)| self.instance(*slot, obligation)).collect(), cut)
    }

    /// Keys that have these parts, in the contract's order; `None` is any.
    pub(super) fn slots_with(&self, parts: &[Option<&str>]) -> impl Iterator<Item = u32> {
        let coded: Vec<Vec<u8>> = parts
            .iter()
            .flatten()
            .map(|part| {
                let mut bytes = Vec::new();
                key::push_text(part, &mut bytes);
                bytes
            })
            .collect();
        self.table.slots().filter(move |slot| {
            let key = self.table.key(*slot);
            // Most keys are passed over by their bytes alone.
            let holds = |part: &Vec<u8>| key.windows(part.len()).any(|bytes| bytes == part);
            coded.iter().all(holds) && {
                let own = key::parts(key);
                own.len() == parts.len()
                    && own.iter().zip(parts).all(|(own, part)| part.is_none_or(|part| own == part))
            }
        })
    }

    /// All instances of one key, oldest first.
    pub(super) fn instances_of(&self, key: &[u8], context: &Context<'_>) -> Vec<Instance> {
        let Some(slot) = self.table.find(key) else { return Vec::new() };
        let mut list = self.obligations_of(slot, context);
        list.sort_by_key(|obligation| obligation.judged.activated);
        list.iter().map(|obligation| self.instance(slot, obligation)).collect()
    }

    /// How the contract is doing.
    pub(super) fn status(
        &self,
        presence: &Presence,
        skew: &Skew,
        watermark: i64,
    ) -> ContractStatus {
        let contract = &*self.contract;
        let by_side = |counts: &[u64; 3]| {
            contract
                .sides()
                .map(|(side, _)| (side_name(contract, side), counts[role(side)]))
                .collect::<BTreeMap<_, _>>()
        };
        let names = |side: Role, services: Vec<String>| (side_name(contract, side), services);
        let sorted = |mut list: Vec<String>| {
            list.sort();
            list
        };
        let whens = sorted(self.evidence.whens.iter().map(|s| (**s).to_owned()).collect());
        let expects = sorted(self.evidence.expects.iter().map(|s| (**s).to_owned()).collect());
        let silent = self.silent_now(presence, watermark);
        let stats = &self.stats;
        let mut problems = Vec::new();
        for (side, _) in contract.sides() {
            let (missing, all) = (stats.key_missing[role(side)], stats.matched[role(side)]);
            if missing > 0 {
                let side = side_name(contract, side);
                problems.push(format!("{missing} of {all} events of `{side}` have no usable key"));
            }
        }
        if stats.amount_missing > 0 {
            problems.push(format!("{} events have no number to add up", stats.amount_missing));
        }
        if stats.evicted_open > 0 {
            problems.push(format!("{} open obligations were given up", stats.evicted_open));
        }
        problems.extend(self.troubles_of_pairs());
        let bounds = [
            (stats.dropped, "events of keys with very many were given up"),
            (stats.folded, "events of balances are known only as a sum: again, they count twice"),
            (stats.too_late, "events came after what they could decide was forgotten"),
        ];
        let bounds = bounds.iter().filter(|(count, _)| *count > 0);
        problems.extend(bounds.map(|(count, what)| format!("{count} {what}")));
        if silent {
            problems.push("the outcome's own signal has stopped arriving".to_owned());
        }
        let services = whens.iter().chain(&expects);
        let clock_offsets: BTreeMap<String, f64> = services
            .map(|service| (service.clone(), skew.offset(service) as f64 / 1e9))
            .filter(|(_, offset)| *offset != 0.0)
            .collect();
        for (service, offset) in &clock_offsets {
            let way = if *offset < 0.0 { "behind" } else { "ahead" };
            let by = offset.abs();
            problems.push(format!("the clock of `{service}` is {by:.2} s {way}; allowed for"));
        }
        ContractStatus {
            name: contract.name.clone(),
            kind: contract.kind.name(),
            severity: contract.severity,
            description: contract.description.clone(),
            runbook_url: contract.runbook_url.clone(),
            key: contract.key_names(),
            selectors: contract
                .sides()
                .map(|(side, spec)| (side_name(contract, side), spec.selector.to_string()))
                .collect(),
            activations: self.counts.iter().sum::<u64>() + stats.evicted_open,
            verdicts: self.verdicts(),
            reached: self.reached(|reached, _| reached),
            retracted: self.reached(|reached, now| reached.saturating_sub(now)),
            health: Health {
                matched: by_side(&stats.matched),
                key_missing: by_side(&stats.key_missing),
                amount_missing: stats.amount_missing,
                late_events: stats.late,
                evicted_open: stats.evicted_open,
                evicted_settled: stats.evicted_settled + stats.dropped,
                field_missing: by_side(&stats.field_missing),
                incomparable: stats.incomparable,
                too_late: stats.too_late,
                services: [names(Role::When, whens), names(Role::Expect, expects)].into(),
                last_when: stats.last_when.map(timestamp),
                last_expect: stats.last_expect.map(timestamp),
                silent,
                clock_offsets,
                memory: self.memory() as u64,
                problems,
            },
        }
    }

    /// Why events make no pairs that might be meant to, in words.
    fn troubles_of_pairs(&self) -> Vec<String> {
        let (contract, stats) = (&*self.contract, &self.stats);
        let mut troubles = Vec::new();
        for (side, _) in contract.sides() {
            let (missing, all) = (stats.field_missing[role(side)], stats.matched[role(side)]);
            if missing > 0 {
                let side = side_name(contract, side);
                troubles.push(format!(
                    "{missing} of {all} events of `{side}` lack a field of `where`: they make no pair"
                ));
            }
        }
        if let Some(why) = &stats.mismatch {
            troubles.push(format!(
                "{} pairs could not be compared by `where`: {why}; write both sides alike, texts \
                 are not taken for numbers",
                stats.incomparable
            ));
        }
        troubles
    }

    /// Obligations by verdict.
    pub(super) fn verdicts(&self) -> BTreeMap<&'static str, u64> {
        Verdict::ALL.iter().map(|v| (v.name(), self.counts[*v as usize])).collect()
    }

    /// `of` how often a verdict was reached and how often it stands, by verdict.
    fn reached(&self, of: impl Fn(u64, u64) -> u64) -> BTreeMap<&'static str, u64> {
        let settled = Verdict::ALL.iter().filter(|verdict| **verdict != Verdict::Open);
        let of = |v: &Verdict| (v.name(), of(self.reached[*v as usize], self.counts[*v as usize]));
        settled.map(of).collect()
    }
}
