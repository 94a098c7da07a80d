//! Alertmanager, by its API v2.
//!
//! As Prometheus does, it is told at once of what changed, and again at regular times of all that
//! still holds, each time with an end some resends ahead: if Lacuna is gone, alerts end by
//! themselves. A finding that somebody has taken on is not sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use lacuna_signal::finding::{FindingKind, Status};
use serde::Serialize;
use tokio::time::Instant;

use super::{Attempt, Channel};
use crate::book::{Entry, Notice};

/// An alert that is not sent again ends after so many resends (Prometheus: four).
const RESENDS: u32 = 4;

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
        if let Some(verdict) = finding.verdict {
            labels.insert("verdict", verdict.name().to_owned());
        }
        let mut annotations = BTreeMap::from([
            ("summary", finding.title.clone()),
            ("description", finding.description.clone()),
            ("services", finding.services.join(", ")),
            ("count", finding.count.to_string()),
        ]);
        if let Some(url) = &finding.runbook_url {
            annotations.insert("runbook_url", url.clone());
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
}

/// What is to be sent: the newest state of what changed, and with `all`, what is open and not
/// taken on.
fn alerts<'a>(
    notices: &'a [Notice],
    open: impl Iterator<Item = &'a Entry>,
) -> BTreeMap<&'a str, &'a Entry> {
    let mut alerts: BTreeMap<&str, &Entry> = BTreeMap::new();
    for entry in open {
        if entry.finding.status == Status::Open && entry.finding.acknowledged.is_none() {
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
    let Ok(url) = reqwest::Url::parse(&format!("{base}/api/v2/alerts")) else { return };
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
        match channel.post(url.clone(), None, json, notices.len() as u64).await {
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
