//! A recorded day of a large system, imported and explored, as `docs/explore.md` shows it. The data
//! lies beside the repository; without it, this says so and passes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::answers::otlp_spans;
use crate::support::server::{Serve, run};

/// Requests of each file that are imported: some minutes of the day, in a moment.
const FILES: [(&str, usize); 3] = [("traces", 400), ("logs", 150), ("metrics", 3)];

fn day() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = root.join("../shared/data/trainticket-2023-01-29");
    folder.join("traces.jsonl.zst").exists().then_some(folder)
}

/// Copies the first requests of a file; the copy and the requests.
fn beginning(day: &Path, name: &str, lines: usize, to: &Path) -> (PathBuf, Vec<Value>) {
    let file = std::fs::File::open(day.join(format!("{name}.jsonl.zst"))).unwrap();
    let reader = BufReader::new(zstd::Decoder::new(file).unwrap());
    let path = to.join(format!("{name}.jsonl"));
    let mut copy = std::fs::File::create(&path).unwrap();
    let mut requests = Vec::new();
    for line in reader.lines().take(lines).map(Result::unwrap) {
        writeln!(copy, "{line}").unwrap();
        requests.push(serde_json::from_str(&line).unwrap());
    }
    (path, requests)
}

/// Every item below `path`, with the service it belongs to.
fn items<'a>(
    requests: &'a [Value],
    [resources, scopes, items]: [&'static str; 3],
) -> Vec<(&'a str, &'a Value)> {
    let list = |value: &'a Value, name: &str| value[name].as_array().into_iter().flatten();
    let mut found = Vec::new();
    for resource in requests.iter().flat_map(|request| list(request, resources)) {
        let attributes = list(&resource["resource"], "attributes");
        let service = attributes
            .filter(|attribute| attribute["key"] == "service.name")
            .find_map(|attribute| attribute["value"]["stringValue"].as_str());
        for scope in list(resource, scopes) {
            found.extend(list(scope, items).map(|item| (service.unwrap_or_default(), item)));
        }
    }
    found
}

/// Guarantees: all of what the files hold is there after an import: every service, and of the trace
/// with the most log records all its spans and all of these.
#[tokio::test]
async fn a_day_of_a_large_system() {
    let Some(day) = day() else {
        println!("SKIPPED: ../shared/data/trainticket-2023-01-29 is not there");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let copies = FILES.map(|(name, lines)| beginning(&day, name, lines, dir.path()));
    let data = dir.path().join("data");
    let args = ["import".as_ref(), "--format".as_ref(), "json".as_ref(), "--data".as_ref()];
    let files = copies.iter().map(|(path, _)| path.as_os_str());
    let output = run(args.into_iter().chain([data.as_os_str()]).chain(files));
    let told = String::from_utf8_lossy(&output.stderr);
    // The recording has a few times that cannot be; they are told, and status 1 says so.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{told}");
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [(_, traces), (_, logs), _] = &copies;
    let spans = items(traces, ["resourceSpans", "scopeSpans", "spans"]);
    let records = items(logs, ["resourceLogs", "scopeLogs", "logRecords"]);
    assert_eq!(reports[0]["spans"], spans.len());
    let refused = reports[1]["problems"]["rejected_items"].as_u64().unwrap();
    assert_eq!(reports[1]["log_records"].as_u64().unwrap() + refused, records.len() as u64);
    assert!(reports[2]["metric_points"].as_u64().unwrap() > 1000, "{reports}");

    let server = Serve::on(&data).start();
    let services: BTreeSet<&str> = spans.iter().map(|(service, _)| *service).collect();
    let listed = server.json("/api/services").await;
    let listed: BTreeSet<&str> =
        listed["data"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(listed, services);

    let mut traces: BTreeMap<&str, (BTreeSet<String>, usize)> = BTreeMap::new();
    for (_, span) in &spans {
        let (ids, _) = traces.entry(span["traceId"].as_str().unwrap()).or_default();
        ids.insert(span["spanId"].as_str().unwrap().to_owned());
    }
    for (_, record) in &records {
        if let Some((_, count)) = record["traceId"].as_str().and_then(|id| traces.get_mut(id)) {
            *count += 1;
        }
    }
    let (id, (ids, count)) = traces.iter().max_by_key(|(id, (_, count))| (*count, *id)).unwrap();
    assert!(*count > 3, "the beginnings of the files do not belong together");
    assert_eq!(otlp_spans(&server.json(&format!("/api/v3/traces/{id}")).await), *ids);
    let query = format!("log%20%7B%20trace:id%20%3D%20%22{id}%22%20%7D");
    let found = server.json(&format!("/api/v1/logs?limit=10000&q={query}")).await;
    assert_eq!(found["logs"].as_array().unwrap().len(), *count);
    // The same trace by a search over all of them.
    let query = format!("%7B%20trace:id%20%3D%20%22{id}%22%20%7D");
    let found = server.json(&format!("/api/search?q={query}")).await;
    assert_eq!(found["traces"].as_array().unwrap().len(), 1);
    assert_eq!(found["traces"][0]["spanSet"]["matched"], ids.len());
}

/// Runs a query command on `data`; standard output.
fn query(data: &Path, args: &[&str]) -> String {
    let args = ["query"].iter().chain(args).map(AsRef::as_ref);
    let output = run(args.chain(["--data".as_ref(), data.as_os_str()]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Guarantees: what `docs/explore.md` says of the whole day.
#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn the_whole_day_is_as_the_walk_through_says() {
    let Some(day) = day() else {
        println!("SKIPPED: ../shared/data/trainticket-2023-01-29 is not there");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let files = FILES.map(|(name, _)| day.join(format!("{name}.jsonl.zst")));
    let import = || {
        let args = ["import".as_ref(), "--data".as_ref(), data.as_os_str()].into_iter();
        let output = run(args.chain(files.iter().map(|file| file.as_os_str())));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, told) = import();
    assert_eq!(status, Some(1), "{told}");
    for line in [
        "traces.jsonl.zst: 325859 spans in 2328 requests\n",
        "logs.jsonl.zst: 171050 log records in 2175 requests; 45 items refused\n",
        "metrics.jsonl.zst: 762964 metric points in 46 requests\n",
        "logs.jsonl.zst:663: resourceLogs[0].scopeLogs[0].logRecords[24].timeUnixNano: \
         \"-6795364578871345152\" is out of range, expected 0 to 9223372036854775807",
    ] {
        assert!(told.contains(line), "`{line}` is missing:\n{told}");
    }
    let (status, told) = import();
    assert_eq!(status, Some(0), "{told}");
    assert_eq!(told.matches("nothing new, it was imported before").count(), 3, "{told}");

    let stats = ["store", "stats", "--format", "json", "--data"].map(AsRef::as_ref).into_iter();
    let stats = run(stats.chain([data.as_os_str()]));
    let stats: Value = serde_json::from_slice(&stats.stdout).unwrap();
    let rows = |kind: usize| {
        let rows = |place: &str| stats["kinds"][kind][place].as_u64().unwrap();
        rows("memory_rows") + rows("segment_rows")
    };
    assert_eq!([rows(0), rows(1), rows(2)], [325_859, 171_050, 762_964]);
    println!("{stats:#}");

    let lost =
        r#"{ name =~ ".*ontroller.createNewOrder" } !<< { name = "PreserveController.preserve" }"#;
    let made =
        r#"{ name =~ ".*ontroller.createNewOrder" } << { name = "PreserveController.preserve" }"#;
    let count = |selector| {
        let found = query(&data, &["traces", selector, "--limit", "1000", "--format", "json"]);
        let found: Value = serde_json::from_str(&found).unwrap();
        let traces = found["traces"].as_array().unwrap();
        let spans = traces.iter().map(|trace| trace["spanSet"]["matched"].as_u64().unwrap());
        (traces.len() as u64, spans.sum::<u64>())
    };
    assert_eq!(count(lost).1, 50);
    assert_eq!(count(lost).1 + count(made).1, 336);
    let trace = "8701bd0e9dfc73c3068edc8245662144";
    let tree = query(&data, &["trace", trace]);
    assert!(tree.starts_with(&format!("trace {trace}  109 spans\n")), "{tree}");
    assert!(tree.contains("PreserveController.preserve  ts-preserve-service"), "{tree}");
    let logs = format!("log {{ trace:id = \"{trace}\" }}");
    let logs = query(&data, &["logs", &logs, "--limit", "50"]);
    assert!(logs.contains("[preserve][Step 3][Check tickets num][Tickets Enough]"), "{logs}");
    assert!(logs.contains("ERROR  ts-preserve-service"), "{logs}");

    let contract = dir.path().join("contracts.yaml");
    std::fs::write(
        &contract,
        r#"
contracts:
  - name: reservation-creates-order
    when:   '{ name = "PreserveController.preserve" }'
    key:    [trace:id]
    expect: '{ name =~ ".*ontroller.createNewOrder" }'
    within: 30s
"#,
    )
    .unwrap();
    let args = ["contracts".as_ref(), "run".as_ref(), contract.as_os_str(), "--data".as_ref()];
    let output = run(args.into_iter().chain([data.as_os_str()]));
    assert_eq!(output.status.code(), Some(1));
    let judged = String::from_utf8(output.stdout).unwrap();
    let line =
        "reservation-creates-order (response): 336 activations: 286 fulfilled, 49 missed, 1 open";
    assert!(judged.contains(line), "{judged}");

    let server = Serve::on(&data).start();
    let services = server.json("/api/services").await;
    let services = services["data"].as_array().unwrap();
    assert_eq!(services.len(), 28);
    assert!(services.contains(&"ts-assurance-service".into()));
    let edges = server.json("/api/dependencies?endTs=1675008000000&lookback=86400000").await;
    for (parent, child, calls) in [
        ("ts-auth-service", "ts-verification-code-service", 361),
        ("ts-basic-service", "ts-price-service", 3123),
    ] {
        let edge = serde_json::json!({"parent": parent, "child": child, "callCount": calls});
        assert!(edges["data"].as_array().unwrap().contains(&edge), "{edge}: {edges}");
    }
}
