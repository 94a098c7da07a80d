//! The one schema of everything that Lacuna reports.
//!
//! A finding says *what is missing*, once a cause, however many keys it concerns. It is the same
//! object on every channel: HTTP API, UI, command line, Alertmanager, webhook and metrics.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::TraceId;

/// What became of one obligation of a contract, or of one event that a contract forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The outcome came in time.
    Fulfilled,
    /// The outcome came after its deadline.
    Late,
    /// The deadline passed without the outcome.
    Missed,
    /// An explicit no came instead.
    Refused,
    /// The outcome came more often than it may.
    Duplicate,
    /// The outcome came without what must precede it.
    Phantom,
    /// What must not follow came.
    Forbidden,
    /// Two sides that must agree do not.
    Unbalanced,
    /// The deadline has not been reached.
    Open,
    /// The outcome's own signal is not arriving, so nothing can be said.
    Unknown,
}

impl Verdict {
    /// All verdicts.
    pub const ALL: [Self; 10] = [
        Self::Fulfilled,
        Self::Late,
        Self::Missed,
        Self::Refused,
        Self::Duplicate,
        Self::Phantom,
        Self::Forbidden,
        Self::Unbalanced,
        Self::Open,
        Self::Unknown,
    ];

    /// The verdict's name, as it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fulfilled => "fulfilled",
            Self::Late => "late",
            Self::Missed => "missed",
            Self::Refused => "refused",
            Self::Duplicate => "duplicate",
            Self::Phantom => "phantom",
            Self::Forbidden => "forbidden",
            Self::Unbalanced => "unbalanced",
            Self::Open => "open",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the verdict speaks against the system.
    pub fn is_violation(self) -> bool {
        !matches!(self, Self::Fulfilled | Self::Open | Self::Unknown)
    }
}

/// What kind of thing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A business outcome did not happen, although every step reported success.
    SilentFailure,
    /// Something happens that no signal shows.
    BlindSpot,
    /// Signals that belong together are not connected.
    BrokenTrace,
    /// A rule that cannot fire, or cannot but fire.
    DeadAlert,
    /// The signal that would show an outcome has stopped, so nothing can be said about it.
    EvidenceGap,
}

/// How much a finding matters.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    #[default]
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    /// The severity's name, as it is written everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Whether what was found still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It holds.
    Open,
    /// It no longer holds; kept for the record.
    Resolved,
}

/// One obligation of a contract and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Values of the key's fields as text, in the contract's order.
    pub key: Vec<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// Start of the event that opened it (for a phantom, of the outcome that came).
    pub activated_at: Timestamp,
    /// When the outcome was due.
    pub deadline: Option<Timestamp>,
    /// Event time at which the verdict was settled.
    pub resolved_at: Option<Timestamp>,
    /// Traces to open: of the activation, then of the outcomes and refusals seen.
    pub trace_ids: Vec<TraceId>,
    /// Counts and sums that the verdict rests on, by name.
    #[serde(default)]
    pub figures: std::collections::BTreeMap<String, f64>,
    /// Where to open its traces, in their order; see [`Instance::link`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
}

impl Instance {
    /// Says where its traces can be opened: at the query port that people reach at `base`, such as
    /// `https://lacuna.example`.
    pub fn link(&mut self, base: &str) {
        let base = base.trim_end_matches('/');
        self.links = self.trace_ids.iter().map(|id| format!("{base}/api/traces/{id}")).collect();
    }
}

/// One thing that Lacuna found, for one cause.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable identity: the same cause has the same fingerprint in every run. 16 hex digits.
    pub fingerprint: String,
    /// What kind of thing was found.
    pub kind: FindingKind,
    /// What found it, such as `contract/essay-gets-a-slot`.
    pub source: String,
    /// One line that a person understands without context.
    pub title: String,
    /// What it means and what to do, in plain text.
    pub description: String,
    /// How much it matters.
    pub severity: Severity,
    /// Whether it still holds.
    pub status: Status,
    /// Names of the fields that make up an instance's key, such as `span.correlation_id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// The verdict, if a contract found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Services that it concerns.
    pub services: Vec<String>,
    /// Contracts that it concerns, the one that it concerns most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contracts: Vec<String>,
    /// How many instances violate, of this episode: since it last opened.
    pub count: u64,
    /// How many instances there were in the same time, violating or not.
    pub concerned: u64,
    /// Share of the concerned instances that violate, 0 to 1.
    #[serde(default)]
    pub rate: f64,
    /// When the first violating instance began.
    pub first_seen: Timestamp,
    /// When the last violating instance began.
    pub last_seen: Timestamp,
    /// Up to [`MAX_EXAMPLES`] instances, newest first.
    pub examples: Vec<Instance>,
    /// Where to read what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook_url: Option<String>,
    /// Who acknowledged it, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Acknowledgement>,
}

impl Finding {
    /// The share that `count` is of `concerned`, 0 to 1.
    pub fn rate_of(count: u64, concerned: u64) -> f64 {
        if concerned == 0 { 0.0 } else { count as f64 / concerned as f64 }
    }

    /// Whether it is about a contract, by its name.
    pub fn concerns(&self, contract: &str) -> bool {
        // Findings that were written down by earlier versions have no list.
        self.contracts.iter().any(|name| name == contract)
            || self.source.strip_prefix("contract/") == Some(contract)
    }

    /// With links to the traces of its examples; `base` as for [`Instance::link`].
    #[must_use]
    pub fn linked(mut self, base: &str) -> Self {
        self.examples.iter_mut().for_each(|example| example.link(base));
        self
    }
}

/// That somebody has taken a finding on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What they had to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A finding carries at most this many example instances.
pub const MAX_EXAMPLES: usize = 20;

/// The fingerprint of a cause: a hash of what identifies it, the same in every run and build.
///
/// FNV-1a (64 bit) over the parts, each followed by a zero byte so that `["ab", "c"]` and
/// `["a", "bc"]` differ.
pub fn fingerprint(parts: &[&str]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_parts_apart_and_never_change() {
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
        assert_eq!(fingerprint(&["contract", "x", "missed"]), "9dd2af32720002b4");
    }

    #[test]
    fn verdict_names_match_their_serialised_form() {
        for verdict in Verdict::ALL {
            assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{}\"", verdict.name()));
        }
    }
}
