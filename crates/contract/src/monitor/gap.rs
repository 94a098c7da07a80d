//! Gaps in the evidence: a service that sent none of a kind of signal, whatever the number of
//! contracts and keys that it leaves unknown.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use lacuna_signal::SignalKind;
use lacuna_signal::finding::{Finding, FindingKind, MAX_EXAMPLES, Status, Verdict, fingerprint};
use serde::Serialize;

use super::Monitor;
use super::codec::{Code, Damaged, Get};
use super::digest::{Group, Raised, State};
use super::episode::Standing;
use super::evidence::kind_of;
use super::judge::{Context, Judged, Side};
use super::machine::Machine;
use super::presence::Presence;
use super::report::timestamp;
use crate::spec::{Contract, Kind};

/// A time in which a service sent none of a kind of signal, though it did before, and obligations of
/// which nothing can be said because of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The service's name.
    pub service: String,
    /// What it did not send: `spans` or `logs`.
    pub signal: SignalKind,
    /// The last that it sent before.
    pub from: Timestamp,
    /// The first that it sent after; `None` if nothing came any more.
    pub to: Option<Timestamp>,
    /// Contracts that are concerned, in order of name.
    pub contracts: Vec<String>,
    /// Their obligations that are `unknown`.
    pub obligations: u64,
}

/// What was silent: a kind of signal of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    kind: SignalKind,
    service: Box<str>,
}

/// The kind as its number.
impl Code for Source {
    fn put(&self, out: &mut Vec<u8>) {
        let kind = SignalKind::ALL.iter().position(|kind| *kind == self.kind).unwrap_or(0);
        out.push(kind as u8);
        self.service.put(out);
    }

    fn get(from: &mut Get<'_>) -> Result<Self, Damaged> {
        let kind = u8::get(from)?;
        let kind = *SignalKind::ALL.get(usize::from(kind)).ok_or(Damaged)?;
        Ok(Self { kind, service: Code::get(from)? })
    }
}

impl Source {
    fn fingerprint(&self) -> String {
        fingerprint(&["gap", self.kind.name(), &self.service])
    }
}

/// Findings of gaps, by what was silent.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    episodes: BTreeMap<Source, Standing>,
    /// What each said when it was last open.
    pub(super) raised: BTreeMap<Source, Raised>,
}

impl Gaps {
    /// Activation of the last obligation before a gap's present episode.
    pub(super) fn since(&self, source: &Source) -> i64 {
        self.episodes.get(source).map_or(i64::MIN, |episode| episode.since)
    }
}

/// Whether an obligation that is unknown is so because of a gap, and not because the time before is
/// not known. A precedence never is: the outcome that it is about has come.
pub(super) fn in_gap(contract: &Contract, judged: &Judged, context: &Context<'_>) -> bool {
    match contract.kind {
        Kind::Precedence => false,
        Kind::Balance => (context.silent)(Side::Expect, judged.activated, judged.deadline),
        _ => true,
    }
}

/// Whether all that is unknown of a contract is so because of gaps.
pub(super) fn only_gaps(contract: &Contract) -> bool {
    !matches!(contract.kind, Kind::Precedence | Kind::Balance)
}

impl Machine {
    /// The services whose silence leaves an obligation unknown, and since when each is known.
    pub(super) fn sources(&self, presence: &Presence) -> Vec<(Source, i64)> {
        let kind = kind_of(&self.contract, Side::Expect);
        let known = |service: &str| {
            let first = presence.first(kind, service)?;
            Some((Source { kind, service: service.into() }, first))
        };
        self.evidence.services(Side::Expect).filter_map(known).collect()
    }

    fn is_shown_by(&self, source: &Source) -> bool {
        kind_of(&self.contract, Side::Expect) == source.kind
            && self.evidence.services(Side::Expect).any(|service| *service == *source.service)
    }

    /// Adds this contract's part to the gaps of history.
    fn add_gaps(
        &self,
        presence: &Presence,
        watermark: i64,
        gaps: &mut BTreeMap<(i64, Source), Gap>,
    ) {
        let sources = self.sources(presence);
        let silent =
            |side, from, to| self.evidence.silent(&self.contract, presence, side, from, to);
        let context = self.context(watermark, &silent);
        for slot in &self.unknown {
            for obligation in self.obligations_of(*slot, &context) {
                let at = obligation.judged.activated;
                if obligation.verdict != Verdict::Unknown
                    || !in_gap(&self.contract, &obligation.judged, &context)
                {
                    continue;
                }
                for (source, _) in sources.iter().filter(|(_, first)| *first < at) {
                    let hole = presence.hole(source.kind, &source.service, at);
                    let Some((from, to)) = hole else { continue };
                    let gap = gaps.entry((from, source.clone())).or_insert_with(|| Gap {
                        service: source.service.to_string(),
                        signal: source.kind,
                        from: timestamp(from),
                        to: to.map(timestamp),
                        contracts: Vec::new(),
                        obligations: 0,
                    });
                    gap.obligations += 1;
                    if !gap.contracts.contains(&self.contract.name) {
                        gap.contracts.push(self.contract.name.clone());
                    }
                }
            }
        }
    }
}

impl Monitor {
    /// The gaps that leave obligations unknown, oldest first.
    pub fn gaps(&self) -> Vec<Gap> {
        let mut gaps = BTreeMap::new();
        for machine in &self.machines {
            machine.add_gaps(&self.presence, self.watermark, &mut gaps);
        }
        let sorted = |mut gap: Gap| {
            gap.contracts.sort();
            gap
        };
        gaps.into_values().map(sorted).collect()
    }

    /// The gap whose finding has this fingerprint, of those that are or were, or may come.
    pub(super) fn gap_of(&self, fingerprint: &str) -> Option<Source> {
        let known =
            self.machines.iter().filter(|machine| machine.contract.kind != Kind::Precedence);
        let known =
            known.flat_map(|machine| machine.sources(&self.presence)).map(|(source, _)| source);
        let raised = self.gaps.raised.keys().cloned();
        known.chain(raised).find(|source| source.fingerprint() == fingerprint)
    }

    /// Takes over where another process had come with a gap's finding.
    pub(super) fn resume_gap(&mut self, source: Source, standing: Standing) {
        self.gaps.episodes.entry(source).or_insert(standing);
        self.machines.iter_mut().for_each(|machine| machine.digest.revision = 0);
    }

    /// What of a gap is remembered, by contract.
    fn groups<'m>(&'m self, source: &'m Source) -> impl Iterator<Item = (&'m Machine, &'m Group)> {
        let group = |machine: &'m Machine| Some((machine, machine.digest.gaps.get(source)?));
        self.machines.iter().filter_map(group)
    }

    /// Unknown obligations of the contracts concerned that are known by their number only.
    fn forgotten(&self, source: &Source) -> u64 {
        let concerned = self.machines.iter().filter(|machine| machine.is_shown_by(source));
        concerned.map(|machine| machine.digest.unseen).sum()
    }

    /// How many of those are no part of a gap's first episode: none if there was no other gap.
    fn before_first(&self, source: &Source) -> u64 {
        let alone = self.gaps.episodes.keys().all(|other| other == source);
        if alone { 0 } else { self.forgotten(source) }
    }

    /// What a gap's finding says; `None` if there is none and was none. Digests must be fresh.
    fn gap_state(&self, source: &Source) -> Option<State> {
        let episode = self.gaps.episodes.get(source);
        let forgotten = self.forgotten(source);
        let before = match episode {
            Some(episode) => episode.before.unwrap_or(forgotten),
            None => self.before_first(source),
        };
        let forgotten = forgotten.saturating_sub(before);
        let count = self.groups(source).map(|(_, group)| group.count).sum::<u64>() + forgotten;
        let raised = self.gaps.raised.get(source).map(|raised| (raised.first, raised.last));
        let spans = self.groups(source).map(|(_, group)| (group.first, group.last));
        // Of those that were forgotten it is known when they were as long as others are there.
        let spans = spans.chain(raised.filter(|_| forgotten > 0));
        let (first, last) = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).or(raised)?;
        let back = self.presence.within(source.kind, &source.service, last, i64::MAX);
        Some(State { count, first, last, back })
    }

    /// Everything that a gap's finding is or was about.
    fn gap_sources(&self) -> BTreeSet<Source> {
        let digests = self.machines.iter().flat_map(|machine| machine.digest.gaps.keys());
        digests.chain(self.gaps.raised.keys()).cloned().collect()
    }

    /// Lets the episodes of gaps begin and end; `quiet` as for contracts.
    pub(super) fn turn_gaps(&mut self, quiet: i64) {
        for source in self.gap_sources() {
            let Some(state) = self.gap_state(&source) else { continue };
            let known = self.gaps.episodes.get(&source).copied();
            let (next, anew) = Standing::turn(known, &state, quiet, self.wall, || false);
            let Some(mut next) = next else { continue };
            if known.is_none() {
                next.before = Some(self.before_first(&source));
            }
            next.before.get_or_insert_with(|| self.forgotten(&source));
            self.gaps.episodes.insert(source, next);
            if anew {
                // It counts from here on.
                self.machines.iter_mut().for_each(|machine| machine.digest.revision = 0);
            }
        }
    }

    /// One finding for each gap that `wanted` wants. Digests must be fresh.
    pub(super) fn gap_findings(&mut self, wanted: impl Fn(&Source) -> bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        for source in self.gap_sources().into_iter().filter(wanted) {
            let Some(state) = self.gap_state(&source) else { continue };
            findings.push(self.gap_finding(&source, &state));
            self.gaps.raised.insert(source, Raised { first: state.first, last: state.last });
        }
        findings
    }

    fn gap_finding(&self, source: &Source, state: &State) -> Finding {
        let State { count, first, last, back } = *state;
        let Source { kind, service } = source;
        let over = self.gaps.episodes.get(source).is_some_and(|episode| episode.over.is_some());
        let mut concerned: Vec<(&Machine, &Group)> = self.groups(source).collect();
        concerned.sort_by_key(|(machine, group)| {
            (std::cmp::Reverse(group.count), machine.contract.name.clone())
        });
        let all: u64 =
            concerned.iter().map(|(machine, _)| machine.timeline.around(first, last)).sum();
        let all = all.max(count);
        // Keys of other names than those of the contract that is concerned most would be misread.
        let key = concerned.first().map(|(machine, _)| machine.contract.key_names());
        let key = key.unwrap_or_default();
        let alike = concerned.iter().filter(|(machine, _)| machine.contract.key_names() == key);
        let mut examples: Vec<_> =
            alike.flat_map(|(_, group)| group.examples.iter().cloned()).collect();
        examples.sort_by_key(|example| std::cmp::Reverse(example.activated_at));
        examples.truncate(MAX_EXAMPLES);
        let contracts: Vec<String> =
            concerned.iter().map(|(machine, _)| machine.contract.name.clone()).collect();
        let of = match contracts.as_slice() {
            [] => String::new(),
            [one] => format!(" of {one}"),
            more => format!(" of {} contracts", more.len()),
        };
        let name = if service.is_empty() { "a service without a name" } else { &**service };
        let list = contracts.join(", ");
        Finding {
            fingerprint: source.fingerprint(),
            kind: FindingKind::EvidenceGap,
            source: format!("gap/{}/{service}", kind.name()),
            title: format!(
                "{name} sent no {}: nothing can be said about {count} of {all} outcomes{of}",
                kind.name()
            ),
            description: format!(
                "{name}, which outcomes come from, sent none of its {} at all over these obligations' \
                 time, though it did before: look at the service, its exporter and its sampling \
                 before at the outcomes.\nContracts: {list}",
                kind.name()
            ),
            severity: concerned
                .iter()
                .map(|(machine, _)| machine.contract.severity)
                .max()
                .unwrap_or_default(),
            status: match over || count == 0 || back {
                true => Status::Resolved,
                false => Status::Open,
            },
            key,
            verdict: Some(Verdict::Unknown),
            services: vec![service.to_string()],
            contracts,
            count,
            concerned: all,
            rate: Finding::rate_of(count, all),
            first_seen: timestamp(first),
            last_seen: timestamp(last),
            examples,
            runbook_url: match concerned.as_slice() {
                [(machine, _)] => machine.contract.runbook_url.clone(),
                _ => None,
            },
            acknowledged: None,
        }
    }
}
