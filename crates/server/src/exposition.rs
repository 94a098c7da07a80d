//! Families of `/metrics` that are read when asked for, not counted as they happen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use lacuna_contract::ContractStatus;
use lacuna_signal::finding::Status;
use lacuna_store::Store;
use serde_json::Value;

use crate::book::Book;
use crate::live::Live;

/// The store's counters and sizes.
pub fn store(store: &Store, out: &mut String) {
    let counters = serde_json::to_value(store.counters()).unwrap_or_default();
    for (name, value) in counters.as_object().into_iter().flatten() {
        family(out, &format!("lacuna_store_{name}"), "counter", value);
    }
    let stats = serde_json::to_value(store.stats()).unwrap_or_default();
    for (name, value) in stats.as_object().into_iter().flatten() {
        if value.is_number() {
            family(out, &format!("lacuna_store_{name}"), "gauge", value);
        }
    }
    let bytes = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or(0);
    let disk = bytes("wal_bytes") + bytes("segment_bytes");
    family(out, "lacuna_store_disk_bytes", "gauge", &disk.into());
}

fn family(out: &mut String, name: &str, kind: &str, value: &Value) {
    let suffix = if kind == "counter" { "_total" } else { "" };
    // Writing to a string cannot fail.
    let _ = write!(out, "# TYPE {name} {kind}\n{name}{suffix} {value}\n");
}

/// The contracts' verdicts and open obligations.
pub fn contracts(statuses: &[ContractStatus], out: &mut String) {
    let verdicts = |out: &mut String, series: &str, of: Verdicts| {
        for status in statuses {
            let contract = escape(&status.name);
            // What is open is told below: it is not a verdict yet.
            for (verdict, count) in of(status).iter().filter(|(name, _)| **name != "open") {
                let labels = format!("{{contract=\"{contract}\",verdict=\"{verdict}\"}}");
                let _ = writeln!(out, "{series}{labels} {count}");
            }
        }
    };
    let name = "lacuna_contract_verdicts";
    head(out, name, "counter", "Times that a verdict was reached.");
    verdicts(out, &format!("{name}_total"), |status| &status.reached);
    let name = "lacuna_contract_retractions";
    head(out, name, "counter", "Times that a verdict was taken back by a late arrival.");
    verdicts(out, &format!("{name}_total"), |status| &status.retracted);
    let name = "lacuna_contract_obligations";
    head(out, name, "gauge", "Obligations by the verdict that they have now.");
    verdicts(out, name, |status| &status.verdicts);
    let name = "lacuna_contract_evicted";
    head(out, name, "counter", "Obligations given up because too many were open at once.");
    for status in statuses {
        let contract = escape(&status.name);
        let _ =
            writeln!(out, "{name}_total{{contract=\"{contract}\"}} {}", status.health.evicted_open);
    }
    let name = "lacuna_contract_open_obligations";
    head(out, name, "gauge", "Obligations whose deadline has not been reached.");
    for status in statuses {
        let contract = escape(&status.name);
        let open = status.verdicts.get("open").copied().unwrap_or(0);
        let _ = writeln!(out, "{name}{{contract=\"{contract}\"}} {open}");
    }
}

type Verdicts = fn(&ContractStatus) -> &BTreeMap<&'static str, u64>;

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn one(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    head(out, name, kind, help);
    let suffix = if kind == "counter" { "_total" } else { "" };
    let _ = writeln!(out, "{name}{suffix} {value}");
}

/// Findings, who has yet to be told of them, reloads and checkpoints.
pub fn live(live: &Live, out: &mut String) {
    let name = "lacuna_findings";
    head(
        out,
        name,
        "gauge",
        "Findings by whether they hold and whether anybody has taken them on.",
    );
    let mut counts = BTreeMap::from([("open", 0), ("acknowledged", 0), ("resolved", 0)]);
    for finding in live.findings() {
        let status = match (finding.status, finding.acknowledged) {
            (Status::Resolved, _) => "resolved",
            (Status::Open, Some(_)) => "acknowledged",
            (Status::Open, None) => "open",
        };
        *counts.entry(status).or_default() += 1;
    }
    for (status, count) in counts {
        let _ = writeln!(out, "{name}{{status=\"{status}\"}} {count}");
    }
    let name = "lacuna_clock_offset_seconds";
    head(out, name, "gauge", "How far a service's clock is ahead; taken off before judging.");
    let clocks = live.monitor().clocks();
    for clock in clocks {
        let service = escape(&clock.service);
        let _ = writeln!(out, "{name}{{service=\"{service}\"}} {}", clock.offset_seconds);
    }
    let desk = live.desk();
    channels(&desk.book(), out);
    let reloads = live.reloads();
    let failed = "Times that changed contract files could not be used.";
    one(out, "lacuna_contract_reload_failures", "counter", failed, reloads.failed as f64);
    let done = "Times that changed contract files were taken into use.";
    one(out, "lacuna_contract_reloads", "counter", done, reloads.done as f64);
    let in_use = "1 while the contract files as they are now are not in use.";
    let broken = f64::from(u8::from(reloads.error.is_some()));
    one(out, "lacuna_contract_reload_failed", "gauge", in_use, broken);
    let dead = "1 if the contract monitor has broken down: no contract is watched.";
    let failed = f64::from(u8::from(live.failure().is_some()));
    one(out, "lacuna_monitor_failed", "gauge", dead, failed);
    let waiting = "Size of the OTLP that waits for the contract monitor.";
    one(out, "lacuna_monitor_queue_bytes", "gauge", waiting, live.queue_bytes() as f64);
    let counts = live.checkpoints();
    let read = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
    let written = "Times that the monitor wrote down what it knows.";
    one(out, "lacuna_checkpoints_written", "counter", written, read(&counts.written));
    let failed = "Times that a file of the monitor's or of findings could not be written.";
    let failures = read(&counts.failed) + desk.write_failures() as f64;
    one(out, "lacuna_checkpoint_failures", "counter", failed, failures);
    one(
        out,
        "lacuna_checkpoint_bytes",
        "gauge",
        "Size of the last checkpoint.",
        read(&counts.bytes),
    );
    let took = "How long the last checkpoint took.";
    one(out, "lacuna_checkpoint_seconds", "gauge", took, read(&counts.micros) / 1e6);
}

fn channels(book: &Book, out: &mut String) {
    let label = |name: &str| {
        let (kind, url) = name.split_once(' ').unwrap_or_default();
        format!("channel=\"{kind}\",target=\"{}\"", escape(&crate::notify::target(url)))
    };
    let name = "lacuna_notifications_pending";
    head(out, name, "gauge", "Changes of findings that a channel has yet to be told.");
    for (channel, pending, _) in book.channels() {
        let _ = writeln!(out, "{name}{{{}}} {pending}", label(channel));
    }
    let name = "lacuna_notifications_dropped";
    head(out, name, "counter", "Changes given up because too many waited for a channel.");
    for (channel, _, dropped) in book.channels() {
        let _ = writeln!(out, "{name}_total{{{}}} {dropped}", label(channel));
    }
}

/// A label value as OpenMetrics writes it.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escape("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
