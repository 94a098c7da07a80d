//! Alertmanager, by its API v2.
//!
//! As Prometheus does, it is told at once of what changed, and again at regular times of all that
//! still holds, each time with an end some resends ahead: if Lacuna is gone, alerts end by
//! themselves. One that somebody has taken on goes on being sent, with an annotation that says so:
//! left out, it would end, and be told as resolved while the failure goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use lacuna_signal::finding::{Finding, FindingKind, Status};
use serde::Serialize;
use tokio::time::Instant;
use url::Url;

use super::{Attempt, Channel};
use crate::book::{Entry, Notice};

/// An alert that is not sent again ends after so many resends (Prometheus: four).
const RESENDS: u32 = 4;

/// So many instances are named in an alert.
const EXAMPLES: usize = 3;

/// An alert as `POST /api/v2/alerts` takes it (Alertmanager's OpenAPI: `postableAlert`).
#[derive(Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Alert {
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: Timestamp,
    ends_at: Timestamp,
    #[serde(rename = "generatorURL")]
    generator_url: String,
}

impl Alert {
    fn new(entry: &Entry, base: &str, now: Timestamp, resend: Duration) -> Self {
        let finding = &entry.finding;
        let name = match finding.kind {
            FindingKind::SilentFailure => "LacunaSilentFailure",
            FindingKind::BlindSpot => "LacunaBlindSpot",
            FindingKind::BrokenTrace => "LacunaBrokenTrace",
            FindingKind::DeadAlert => "LacunaDeadAlert",
            FindingKind::EvidenceGap => "LacunaEvidenceGap",
        };
        let mut labels = BTreeMap::from([
            ("alertname", name.to_owned()),
            ("severity", finding.severity.name().to_owned()),
            ("fingerprint", finding.fingerprint.clone()),
            ("source", finding.source.clone()),
        ]);
        if let Some(contract) = finding.source.strip_prefix("contract/") {
            labels.insert("contract", contract.to_owned());
        }
        if finding.kind == FindingKind::EvidenceGap
            && let Some(service) = finding.services.first()
        {
            labels.insert("service", service.clone());
        }
        if let Some(verdict) = finding.verdict {
            labels.insert("verdict", verdict.name().to_owned());
        }
        let mut annotations = BTreeMap::from([
            ("summary", finding.title.clone()),
            ("description", finding.description.clone()),
            ("services", finding.services.join(", ")),
            ("contracts", finding.contracts.join(", ")),
            ("count", finding.count.to_string()),
        ]);
        if let Some(url) = &finding.runbook_url {
            annotations.insert("runbook_url", url.clone());
        }
        if !finding.examples.is_empty() {
            annotations.insert("examples", examples(&entry.finding, base));
        }
        if let Some(acknowledged) = &finding.acknowledged {
            annotations.insert("acknowledged_by", acknowledged.by.clone());
            annotations.insert("acknowledged_at", acknowledged.at.to_string());
        }
        let ahead = now.checked_add(resend.saturating_mul(RESENDS)).unwrap_or(now);
        let ends_at = match finding.status {
            Status::Open => ahead,
            Status::Resolved => entry.resolved_at.unwrap_or(now),
        };
        Self {
            labels,
            annotations,
            starts_at: entry.opened_at.min(ends_at),
            ends_at,
            generator_url: format!("{base}/api/v1/findings/{}", finding.fingerprint),
        }
    }

    fn fingerprint(&self) -> &str {
        self.labels.get("fingerprint").map_or("", String::as_str)
    }
}

/// The newest instances, one a line: their key, and where to open the first of their traces.
fn examples(finding: &Finding, base: &str) -> String {
    let mut lines = Vec::new();
    for mut example in finding.examples.iter().take(EXAMPLES).cloned() {
        example.link(base);
        let key = example.key.join(", ");
        let link = example.links.first().map(|link| format!(" {link}")).unwrap_or_default();
        lines.push(format!("{key}{link}"));
    }
    lines.join("\n")
}

/// What is to be sent: the newest state of what changed, and what is open.
fn alerts<'a>(
    notices: &'a [Notice],
    open: impl Iterator<Item = &'a Entry>,
) -> BTreeMap<&'a str, &'a Entry> {
    let mut alerts: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in open {
        if entry.finding.status == Status::Open {
            alerts.insert(&entry.finding.fingerprint, entry);
        }
    }
    // In the order in which they happened, so that the last state stays.
    for notice in notices {
        alerts.insert(&notice.entry.finding.fingerprint, &notice.entry);
    }
    alerts
}

/// Tells an Alertmanager what the book has for it, and what is open every `resend`.
pub(super) async fn run(mut channel: Channel, resend: Duration) {
    let mut waker = channel.live.desk().waker();
    let base = channel.url.as_str().trim_end_matches('/');
    let Ok(url) = Url::parse(&format!("{base}/api/v2/alerts")) else { return };
    // What was open when the last process ended is told as soon as it is known to be still so.
    channel.live.ready().await;
    let mut next = Instant::now();
    loop {
        waker.mark_unchanged();
        let due = Instant::now() >= next;
        let (notices, open) = {
            let book = channel.live.desk().book();
            let notices: Vec<Notice> = book.waiting(&channel.name).cloned().collect();
            let open: Vec<Entry> =
                if due { book.entries().values().cloned().collect() } else { Vec::new() };
            (notices, open)
        };
        let now = Timestamp::now();
        let body: Vec<Alert> = alerts(&notices, open.iter())
            .values()
            .map(|entry| Alert::new(entry, &channel.base, now, resend))
            .collect();
        if due {
            next = Instant::now() + resend;
        }
        if body.is_empty() {
            tokio::select! {
                changed = waker.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(next) => {}
            }
            continue;
        }
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let about = if let [alert] = &*body { Some(alert.fingerprint()) } else { None };
        let changes = notices.len() as u64;
        let attempt = match channel.post(url.clone(), None, json, changes, about).await {
            // One that it will not take must not take the others with it.
            Attempt::Rejected if about.is_none() => {
                one_by_one(&mut channel, &url, &body, &notices).await
            }
            attempt => attempt,
        };
        match attempt {
            Attempt::Delivered | Attempt::Rejected if !notices.is_empty() => {
                channel.told(notices.iter().map(|notice| notice.id).collect()).await;
            }
            Attempt::Delivered | Attempt::Rejected => {}
            Attempt::Failed => {
                // What is open is part of the next attempt too.
                if due {
                    next = Instant::now();
                }
                tokio::time::sleep(channel.pause()).await;
            }
        }
    }
}

/// Sends every alert for itself, after they were refused together: those that are refused again are
/// given up, counted and named in the log. `Failed` if one could not be sent, so that all have to be
/// sent again.
async fn one_by_one(
    channel: &mut Channel,
    url: &Url,
    alerts: &[Alert],
    notices: &[Notice],
) -> Attempt {
    for alert in alerts {
        let json = serde_json::to_vec(std::slice::from_ref(alert)).unwrap_or_default();
        let about = alert.fingerprint();
        let of_it = |notice: &&Notice| notice.entry.finding.fingerprint == about;
        let changes = notices.iter().filter(of_it).count() as u64;
        if channel.post(url.clone(), None, json, changes, Some(about)).await == Attempt::Failed {
            return Attempt::Failed;
        }
    }
    Attempt::Delivered
}
