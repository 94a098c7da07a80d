//! The book of findings: what was found, who has taken it on, and who has yet to be told.
//!
//! The monitor says at any time what holds. The book remembers what held before, so that changes
//! are told once, also across restarts: it is written to the data folder before anybody is told of
//! a change, and again when they have been.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use lacuna_contract::Episode;
use lacuna_signal::finding::{Acknowledgement, Finding, Status};
use serde::{Deserialize, Serialize};

/// Findings that are remembered when they no longer hold.
const MAX_RESOLVED: usize = 1_000;
/// Notices that wait for one channel; beyond it the oldest are given up, and counted.
pub const MAX_NOTICES: usize = 256;
/// Changes that a reader of the stream can catch up with.
const MAX_RECENT: usize = 1_024;
/// Numbers of changes are reserved in blocks, so that a killed process does not use one twice.
const RESERVED: u64 = 1_000_000;

/// What happened to a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It holds, and did not before.
    Opened,
    /// It holds as before, of more or fewer instances.
    Changed,
    /// It no longer holds.
    Resolved,
    /// Somebody has taken it on.
    Acknowledged,
    /// Nobody has any more.
    Unacknowledged,
}

impl ChangeKind {
    /// The name, as it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Changed => "changed",
            Self::Resolved => "resolved",
            Self::Acknowledged => "acknowledged",
            Self::Unacknowledged => "unacknowledged",
        }
    }
}

/// One change, numbered in the order of all.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its number; greater than that of every change before, also of earlier processes.
    pub id: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The finding, as it is now.
    pub finding: Finding,
}

/// A finding and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The finding as last seen, with its acknowledgement.
    pub finding: Finding,
    /// How often it opened.
    pub episode: u64,
    /// Wall-clock time at which it last opened.
    pub opened_at: Timestamp,
    /// Wall-clock time at which it was last resolved; `None` while it is open.
    pub resolved_at: Option<Timestamp>,
    /// When the last instance of the episode before began (event time).
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Wall-clock time at which it last grew.
    #[serde(default)]
    pub grew_at: Option<Timestamp>,
}

impl Entry {
    /// Where its episode stands, for a monitor that goes on from here.
    pub fn episode(&self) -> Episode {
        let over = match (self.finding.status, self.finding.count) {
            (Status::Open, _) => None,
            // Nothing is left of it, so whatever comes is new.
            (Status::Resolved, 0) => Some(self.since.unwrap_or(Timestamp::UNIX_EPOCH)),
            (Status::Resolved, _) => Some(self.finding.last_seen),
        };
        Episode { since: self.since, over, grew: self.grew_at.or(Some(self.opened_at)) }
    }
}

/// Something that a channel has to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The change's number.
    pub id: u64,
    /// What it was about, as of then.
    pub entry: Entry,
}

impl Notice {
    /// The same for every delivery of this notice, and different from every other notice's.
    pub fn key(&self) -> String {
        let status = match self.entry.finding.status {
            Status::Open => "open",
            Status::Resolved => "resolved",
        };
        format!("{}-{}-{status}", self.entry.finding.fingerprint, self.entry.episode)
    }
}

/// What of the book is kept in a file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// No change has this number or a greater one.
    next: u64,
    /// Event time up to which deadlines were settled when this was written.
    watermark: Option<Timestamp>,
    entries: Vec<Entry>,
    /// What each channel has yet to be told, by the channel's URL.
    waiting: BTreeMap<String, VecDeque<Notice>>,
}

/// The book.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<String, Entry>,
    waiting: BTreeMap<String, VecDeque<Notice>>,
    next: u64,
    watermark: Option<Timestamp>,
    recent: VecDeque<Arc<Change>>,
    dropped: BTreeMap<String, u64>,
}

impl Book {
    /// The book that [`Self::to_bytes`] wrote; of its channels, those of `channels`.
    ///
    /// # Errors
    /// The bytes are not such as it writes; in words.
    pub fn from_bytes(bytes: &[u8], channels: &[String]) -> Result<Self, String> {
        let kept: Kept = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut book = Self { next: kept.next, watermark: kept.watermark, ..Self::new(channels) };
        for entry in kept.entries {
            book.entries.insert(entry.finding.fingerprint.clone(), entry);
        }
        for (channel, notices) in kept.waiting {
            if let Some(waiting) = book.waiting.get_mut(&channel) {
                *waiting = notices;
            }
        }
        Ok(book)
    }

    /// An empty book for `channels`.
    pub fn new(channels: &[String]) -> Self {
        let waiting = channels.iter().map(|channel| (channel.clone(), VecDeque::new())).collect();
        Self { waiting, ..Self::default() }
    }

    /// Everything that must survive, as JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let kept = Kept {
            // Changes that nobody is notified of are not written one by one.
            next: self.next + RESERVED,
            watermark: self.watermark,
            entries: self.entries.values().cloned().collect(),
            waiting: self.waiting.clone(),
        };
        // There is nothing in it that JSON cannot hold.
        serde_json::to_vec(&kept).unwrap_or_default()
    }

    /// Event time up to which deadlines were settled when the book was written.
    pub fn watermark(&self) -> Option<Timestamp> {
        self.watermark
    }

    /// Takes what the monitor says of all that it knows, settled up to `watermark`; gives what
    /// changed. What the book has and the monitor does not is resolved.
    pub fn update(
        &mut self,
        findings: Vec<Finding>,
        watermark: Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<Arc<Change>> {
        self.watermark = watermark.max(self.watermark);
        let mut changes = Vec::new();
        let mut gone: Vec<String> = self
            .entries
            .values()
            .filter(|entry| entry.finding.status == Status::Open)
            .map(|entry| entry.finding.fingerprint.clone())
            .collect();
        for finding in findings {
            gone.retain(|fingerprint| *fingerprint != finding.fingerprint);
            changes.extend(self.note(finding, now));
        }
        for fingerprint in gone {
            let Some(entry) = self.entries.get(&fingerprint) else { continue };
            let finding = Finding { status: Status::Resolved, ..entry.finding.clone() };
            changes.extend(self.note(finding, now));
        }
        self.forget_oldest();
        changes
    }

    fn note(&mut self, mut finding: Finding, now: Timestamp) -> Option<Arc<Change>> {
        let fingerprint = finding.fingerprint.clone();
        let old = self.entries.get(&fingerprint);
        let was = old.map_or(Status::Resolved, |entry| entry.finding.status);
        let acknowledged = old.and_then(|entry| entry.finding.acknowledged.clone());
        let (episode, opened_at) = old.map_or((0, now), |entry| (entry.episode, entry.opened_at));
        let resolved_at = old.and_then(|entry| entry.resolved_at);
        let (since, grew_at) = old.map_or((None, None), |entry| (entry.since, entry.grew_at));
        let (kind, entry) = match (was, finding.status) {
            (Status::Resolved, Status::Open) => {
                // What somebody took on was another episode.
                finding.acknowledged = None;
                let entry = Entry {
                    finding,
                    episode: episode + 1,
                    opened_at: now,
                    resolved_at: None,
                    since: old.and_then(|entry| entry.episode().over),
                    grew_at: Some(now),
                };
                (Some(ChangeKind::Opened), entry)
            }
            (was, status) => {
                finding.acknowledged = acknowledged;
                let grew = old.is_some_and(|old| {
                    let (old, new) = (&old.finding, &finding);
                    new.count > old.count || new.last_seen > old.last_seen
                });
                let kind = match (was == status, old) {
                    (false, _) => Some(ChangeKind::Resolved),
                    (true, Some(old)) if told_of(&old.finding) != told_of(&finding) => {
                        Some(ChangeKind::Changed)
                    }
                    (true, _) => None,
                };
                let resolved_at = match status {
                    Status::Open => None,
                    Status::Resolved if was == Status::Open => Some(now),
                    Status::Resolved => resolved_at.or(Some(now)),
                };
                let grew_at = if grew { Some(now) } else { grew_at };
                (kind, Entry { finding, episode, opened_at, resolved_at, since, grew_at })
            }
        };
        self.entries.insert(fingerprint, entry.clone());
        let change = self.change(kind?, entry.finding.clone());
        if matches!(change.kind, ChangeKind::Opened | ChangeKind::Resolved) {
            self.notify(change.id, &entry);
        }
        Some(change)
    }

    fn notify(&mut self, id: u64, entry: &Entry) {
        for (channel, waiting) in &mut self.waiting {
            waiting.push_back(Notice { id, entry: entry.clone() });
            if waiting.len() <= MAX_NOTICES {
                continue;
            }
            // Of each finding its newest state is what matters; and then that it is open.
            let before = waiting.len();
            let newest: BTreeMap<String, u64> = waiting
                .iter()
                .map(|notice| (notice.entry.finding.fingerprint.clone(), notice.id))
                .collect();
            waiting
                .retain(|notice| newest.get(&notice.entry.finding.fingerprint) == Some(&notice.id));
            while waiting.len() > MAX_NOTICES {
                let over = |notice: &Notice| notice.entry.finding.status == Status::Resolved;
                let least = waiting.iter().position(over).unwrap_or(0);
                waiting.remove(least);
            }
            *self.dropped.entry(channel.clone()).or_default() += (before - waiting.len()) as u64;
        }
    }

    fn change(&mut self, kind: ChangeKind, finding: Finding) -> Arc<Change> {
        self.next += 1;
        let change = Arc::new(Change { id: self.next, kind, finding });
        self.recent.push_back(Arc::clone(&change));
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
        change
    }

    fn forget_oldest(&mut self) {
        while self.entries.len() > MAX_RESOLVED {
            let resolved = self.entries.values().filter(|entry| entry.resolved_at.is_some());
            let oldest = resolved.min_by_key(|entry| entry.resolved_at);
            let Some(fingerprint) = oldest.map(|entry| entry.finding.fingerprint.clone()) else {
                return;
            };
            self.entries.remove(&fingerprint);
        }
    }

    /// Sets or takes back who has taken a finding on; `None` if it is not known or not open.
    pub fn acknowledge(
        &mut self,
        fingerprint: &str,
        by: Option<Acknowledgement>,
    ) -> Option<Arc<Change>> {
        let entry = self.entries.get_mut(fingerprint)?;
        if entry.finding.status != Status::Open {
            return None;
        }
        let kind = match by {
            Some(_) => ChangeKind::Acknowledged,
            None => ChangeKind::Unacknowledged,
        };
        entry.finding.acknowledged = by;
        let finding = entry.finding.clone();
        Some(self.change(kind, finding))
    }

    /// All that is known, by fingerprint.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// `findings` of this moment with what the book knows of them, and those that only it knows:
    /// `current` says that `findings` is all that holds, so that the others are resolved.
    pub fn complete(&self, mut findings: Vec<Finding>, current: bool) -> Vec<Finding> {
        for finding in &mut findings {
            if let Some(entry) = self.entries.get(&finding.fingerprint)
                && entry.finding.status == finding.status
            {
                finding.acknowledged = entry.finding.acknowledged.clone();
            }
        }
        for entry in self.entries.values() {
            let fingerprint = &entry.finding.fingerprint;
            if !findings.iter().any(|finding| finding.fingerprint == *fingerprint) {
                let mut finding = entry.finding.clone();
                if current {
                    finding.status = Status::Resolved;
                }
                findings.push(finding);
            }
        }
        findings
    }

    /// What `channel` has yet to be told, oldest first.
    pub fn waiting(&self, channel: &str) -> impl Iterator<Item = &Notice> {
        self.waiting.get(channel).into_iter().flatten()
    }

    /// How many notices each channel has yet to be told, and how many were given up for lack of
    /// room since the start.
    pub fn channels(&self) -> impl Iterator<Item = (&str, usize, u64)> {
        self.waiting.iter().map(|(channel, waiting)| {
            let dropped = self.dropped.get(channel).copied().unwrap_or(0);
            (channel.as_str(), waiting.len(), dropped)
        })
    }

    /// Takes notices off what `channel` has yet to be told.
    pub fn told(&mut self, channel: &str, ids: &[u64]) {
        if let Some(waiting) = self.waiting.get_mut(channel) {
            waiting.retain(|notice| !ids.contains(&notice.id));
        }
    }

    /// The number of the last change.
    pub fn last_change(&self) -> u64 {
        self.next
    }

    /// Changes after number `id`, in order; `None` if some of them are no longer known.
    pub fn changes_after(&self, id: u64) -> Option<Vec<Arc<Change>>> {
        let first = self.recent.front().map_or(self.next + 1, |change| change.id);
        let known = id <= self.next && id + 1 >= first;
        known.then(|| self.recent.iter().filter(|change| change.id > id).cloned().collect())
    }
}

/// What of a finding is worth telling when it changes.
fn told_of(finding: &Finding) -> (u64, Timestamp, lacuna_signal::finding::Severity) {
    (finding.count, finding.last_seen, finding.severity)
}
