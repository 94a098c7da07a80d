//! Findings: one a contract and verdict, whatever the number of keys.
//!
//! A finding has episodes ([`super::episode`]): what it says is of the last one.

use std::collections::BTreeMap;

use lacuna_signal::finding::{
    Finding, FindingKind, Instance, MAX_EXAMPLES, Status, Verdict, fingerprint,
};

use super::codec::code;
use super::episode::Standing;
use super::gap::{Gaps, Source, in_gap, only_gaps};
use super::judge::{self, Side};
use super::machine::Machine;
use super::presence::Presence;
use super::report::{Obligation, timestamp};
use super::words::{quiet_cause, words};
use crate::spec::{Contract, Kind};

/// What a finding said when it was last open.
#[derive(Debug, Clone)]
pub(super) struct Raised {
    pub(super) first: i64,
    pub(super) last: i64,
}

code!(Raised { first, last });

/// What was found of each verdict, as of a revision of the contract's state: with many keys it
/// takes long to put together, and is asked for more often than it changes.
#[derive(Debug, Default)]
pub(super) struct Digest {
    pub(super) revision: u64,
    groups: BTreeMap<Verdict, Group>,
    pub(super) episodes: BTreeMap<Verdict, Standing>,
    /// What is unknown because of gaps, by what was silent.
    pub(super) gaps: BTreeMap<Source, Group>,
    /// Of that, how many obligations are known by their number only.
    pub(super) unseen: u64,
}

impl Digest {
    fn since(&self, verdict: Verdict) -> i64 {
        self.episodes.get(&verdict).map_or(i64::MIN, |episode| episode.since)
    }
}

/// The obligations of one verdict, of the last episode.
#[derive(Debug)]
pub(super) struct Group {
    /// How many are remembered.
    pub(super) count: u64,
    /// First and last activation.
    pub(super) first: i64,
    pub(super) last: i64,
    /// Of how many the services of the cause were silent.
    quiet: u64,
    /// The newest, newest first.
    pub(super) examples: Vec<Instance>,
}

/// What a finding says at the moment.
pub(super) struct State {
    pub(super) count: u64,
    pub(super) first: i64,
    pub(super) last: i64,
    /// Whether what was silent has been heard since.
    pub(super) back: bool,
}

/// The newest obligations of one verdict while they are being collected.
struct Newest<'a> {
    count: u64,
    first: i64,
    last: i64,
    quiet: u64,
    /// In order, newest first, no more than are told.
    list: Vec<(i64, u32, Obligation<'a>)>,
}

impl<'a> Newest<'a> {
    fn none() -> Self {
        Self { count: 0, first: i64::MAX, last: i64::MIN, quiet: 0, list: Vec::new() }
    }

    fn take(&mut self, slot: u32, obligation: Obligation<'a>) {
        let activated = obligation.judged.activated;
        self.count += 1;
        self.first = self.first.min(activated);
        self.last = self.last.max(activated);
        let at = self.list.partition_point(|(time, other, _)| (*time, *other) >= (activated, slot));
        if at < MAX_EXAMPLES {
            self.list.truncate(MAX_EXAMPLES - 1);
            self.list.insert(at, (activated, slot, obligation));
        }
    }
}

/// Whether there are findings of a verdict.
pub(super) fn is_found(verdict: Verdict) -> bool {
    !matches!(verdict, Verdict::Fulfilled | Verdict::Open)
}

/// Whether obligations of one verdict are told in part by the contract's finding and in part by those
/// of gaps: then nothing is known of those that were forgotten.
fn mixed(contract: &Contract, verdict: Verdict) -> bool {
    verdict == Verdict::Unknown && contract.kind == Kind::Balance
}

/// The fingerprint of what is found of a contract and verdict.
fn name(contract: &Contract, verdict: Verdict) -> String {
    fingerprint(&["contract", &contract.name, verdict.name()])
}

impl Machine {
    /// The verdict whose finding has this fingerprint.
    pub(super) fn verdict_of(&self, fingerprint: &str) -> Option<Verdict> {
        let mut told = Verdict::ALL.into_iter().filter(|verdict| self.is_told(*verdict));
        told.find(|verdict| name(&self.contract, *verdict) == fingerprint)
    }

    /// Whether there are findings of a verdict of this contract: what is unknown because of a gap is
    /// told with the gap.
    pub(super) fn is_told(&self, verdict: Verdict) -> bool {
        is_found(verdict) && !(verdict == Verdict::Unknown && only_gaps(&self.contract))
    }

    pub(super) fn refresh_digest(&mut self, presence: &Presence, watermark: i64, gaps: &Gaps) {
        if self.digest.revision == self.revision {
            return;
        }
        let sources = self.sources(presence);
        let silent =
            |side, from, to| self.evidence.silent(&self.contract, presence, side, from, to);
        let context = self.context(watermark, &silent);
        let mut newest: BTreeMap<Verdict, Newest<'_>> = BTreeMap::new();
        let mut unknown: BTreeMap<&Source, Newest<'_>> = BTreeMap::new();
        let mut seen = 0;
        for slot in self.bad.iter().copied() {
            for obligation in self.obligations_of(slot, &context) {
                let (verdict, activated) = (obligation.verdict, obligation.judged.activated);
                if verdict == Verdict::Unknown
                    && in_gap(&self.contract, &obligation.judged, &context)
                {
                    seen += 1;
                    for (source, _) in sources.iter().filter(|(_, first)| *first < activated) {
                        if activated > gaps.since(source) {
                            let newest = unknown.entry(source).or_insert_with(Newest::none);
                            newest.take(slot, obligation.clone());
                        }
                    }
                } else if is_found(verdict) && activated > self.digest.since(verdict) {
                    let newest = newest.entry(verdict).or_insert_with(Newest::none);
                    let quiet =
                        judge::cause_was_silent(&self.contract, &obligation.judged, &context);
                    newest.quiet += u64::from(quiet);
                    newest.take(slot, obligation);
                }
            }
        }
        let group = |newest: Newest<'_>| {
            let examples = newest.list.iter().map(|(_, slot, o)| self.instance(*slot, o)).collect();
            let Newest { count, first, last, quiet, .. } = newest;
            Group { count, first, last, quiet, examples }
        };
        let groups: BTreeMap<Verdict, Group> =
            newest.into_iter().map(|(verdict, newest)| (verdict, group(newest))).collect();
        let unknown =
            unknown.into_iter().map(|(source, newest)| (source.clone(), group(newest))).collect();
        for (verdict, episode) in &mut self.digest.episodes {
            let count = groups.get(verdict).map_or(0, |group| group.count);
            let all = match mixed(&self.contract, *verdict) {
                true => count,
                false => self.counts[*verdict as usize],
            };
            episode.before.get_or_insert(all.saturating_sub(count));
        }
        let only = only_gaps(&self.contract);
        let all = if only { self.counts[Verdict::Unknown as usize] } else { 0 };
        self.digest.unseen = all.saturating_sub(seen);
        self.digest.gaps = unknown;
        (self.digest.revision, self.digest.groups) = (self.revision, groups);
    }

    /// What the finding of `verdict` says; `None` if there is none and was none. The digest must be
    /// fresh.
    pub(super) fn state(&self, verdict: Verdict) -> Option<State> {
        let episode = self.digest.episodes.get(&verdict);
        let group = self.digest.groups.get(&verdict);
        // Those that were forgotten are known by their number only.
        let before = episode.and_then(|episode| episode.before).unwrap_or(0);
        let remembered = group.map_or(0, |group| group.count);
        let count = match mixed(&self.contract, verdict) {
            true => remembered,
            false => self.counts[verdict as usize].saturating_sub(before).max(remembered),
        };
        let since = self.digest.since(verdict);
        let forgotten = self.forgotten.get(&verdict).filter(|(_, last)| count > 0 && *last > since);
        let forgotten =
            forgotten.map(|(first, last)| ((*first).max(since.saturating_add(1)), *last));
        let span = [group.map(|group| (group.first, group.last)), forgotten]
            .into_iter()
            .flatten()
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let raised = self.raised.get(&verdict).map(|raised| (raised.first, raised.last));
        let (first, last) = span.or(raised)?;
        Some(State { count, first, last, back: false })
    }

    /// One finding for each verdict that speaks against the system, and one for missing evidence;
    /// `wanted` chooses among them.
    pub(super) fn findings(
        &mut self,
        presence: &Presence,
        watermark: i64,
        gaps: &Gaps,
        wanted: impl Fn(Verdict) -> bool,
    ) -> Vec<Finding> {
        self.refresh_digest(presence, watermark, gaps);
        let mut findings = Vec::new();
        for verdict in Verdict::ALL.into_iter().filter(|v| wanted(*v)) {
            if !self.is_told(verdict) {
                continue;
            }
            let Some(state) = self.state(verdict) else { continue };
            let group = self.digest.groups.get(&verdict);
            let examples = group.map(|group| group.examples.clone()).unwrap_or_default();
            let over = self.digest.episodes.get(&verdict).is_some_and(|e| e.over.is_some());
            let resolved = over || state.count == 0;
            findings.push(self.finding(verdict, &state, examples, resolved));
            self.raised.insert(verdict, Raised { first: state.first, last: state.last });
        }
        findings
    }

    /// Whether the outcome's services are silent at the data's end.
    pub(super) fn silent_now(&self, presence: &Presence, watermark: i64) -> bool {
        let span = self.contract.within.unwrap_or(0).max(presence.gap());
        let from = watermark.saturating_sub(span);
        self.evidence.silent(&self.contract, presence, Side::Expect, from, watermark)
    }

    fn finding(
        &self,
        verdict: Verdict,
        state: &State,
        examples: Vec<Instance>,
        resolved: bool,
    ) -> Finding {
        let contract = &*self.contract;
        let State { count, first, last, .. } = *state;
        let concerned = self.timeline.around(first, last).max(count);
        let mut services: Vec<String> = self
            .evidence
            .whens
            .iter()
            .chain(&self.evidence.expects)
            .map(|s| (**s).to_owned())
            .collect();
        services.retain(|service| !service.is_empty());
        services.sort();
        services.dedup();
        let (title, mut meaning) = words(contract, verdict, count, concerned);
        let quiet = self.digest.groups.get(&verdict).map_or(0, |group| group.quiet);
        if quiet > 0 {
            meaning.push_str(&quiet_cause(contract, verdict, quiet));
        }
        let description = match &contract.description {
            Some(text) => format!("{meaning}\n{text}"),
            None => meaning,
        };
        Finding {
            fingerprint: name(contract, verdict),
            kind: match verdict {
                Verdict::Unknown => FindingKind::EvidenceGap,
                _ => FindingKind::SilentFailure,
            },
            source: format!("contract/{}", contract.name),
            title,
            description,
            severity: contract.severity,
            status: if resolved { Status::Resolved } else { Status::Open },
            key: contract.key_names(),
            verdict: Some(verdict),
            services,
            contracts: vec![contract.name.clone()],
            count,
            concerned,
            rate: Finding::rate_of(count, concerned),
            first_seen: timestamp(first),
            last_seen: timestamp(last),
            examples,
            runbook_url: contract.runbook_url.clone(),
            acknowledged: None,
        }
    }
}
