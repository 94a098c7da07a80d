//! Families of `/metrics` that are read when asked for, not counted as they happen.

use std::fmt::Write as _;

use lacuna_contract::ContractStatus;
use lacuna_store::Store;
use serde_json::Value;

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
    let name = "lacuna_contract_verdicts";
    let _ = writeln!(out, "# HELP {name} Obligations of a contract by what became of them.");
    let _ = writeln!(out, "# TYPE {name} counter");
    for status in statuses {
        // What is open is told below: it is not a verdict yet, and it falls again.
        for (verdict, count) in status.verdicts.iter().filter(|(name, _)| **name != "open") {
            let contract = escape(&status.name);
            let _ = writeln!(
                out,
                "{name}_total{{contract=\"{contract}\",verdict=\"{verdict}\"}} {count}"
            );
        }
    }
    let name = "lacuna_contract_open_obligations";
    let _ = writeln!(out, "# HELP {name} Obligations whose deadline has not been reached.");
    let _ = writeln!(out, "# TYPE {name} gauge");
    for status in statuses {
        let contract = escape(&status.name);
        let open = status.verdicts.get("open").copied().unwrap_or(0);
        let _ = writeln!(out, "{name}{{contract=\"{contract}\"}} {open}");
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
