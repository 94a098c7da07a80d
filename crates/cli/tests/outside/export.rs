//! `lacuna export`: what was taken comes out as it went in, and goes in again.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;

use crate::support::DEADLINE;
use crate::support::export::Exported;
use crate::support::otlp::{
    Encoding, MILLI, SECOND, attribute, headers, log, logs, metrics, now, span, trace_id, traces,
};
use crate::support::server::{Serve, Server, lacuna, run};

fn value(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn keyed(key: &str, content: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: value(content), ..KeyValue::default() }
}

/// A span that uses every field and every type of attribute.
fn full_span(id: u64) -> Span {
    let start = now() - SECOND;
    let list = ArrayValue {
        values: vec![
            AnyValue { value: Some(Value::StringValue("a".to_owned())) },
            AnyValue { value: Some(Value::IntValue(2)) },
        ],
    };
    Span {
        trace_state: "vendor=1".to_owned(),
        parent_span_id: 77u64.to_be_bytes().to_vec(),
        flags: 0x101,
        kind: 5,
        attributes: vec![
            attribute("text", "naïve \"quoted\" \u{1f980} \n\t\\"),
            keyed("yes", Value::BoolValue(true)),
            keyed("large", Value::IntValue(i64::MIN)),
            keyed("ratio", Value::DoubleValue(-0.1)),
            keyed("bytes", Value::BytesValue(vec![0, 1, 254, 255])),
            keyed("list", Value::ArrayValue(list)),
            keyed(
                "map",
                Value::KvlistValue(KeyValueList { values: vec![attribute("in", "side")] }),
            ),
        ],
        dropped_attributes_count: 1,
        events: vec![Event {
            time_unix_nano: start + MILLI,
            name: "exception".to_owned(),
            attributes: vec![attribute("exception.type", "Aborted")],
            dropped_attributes_count: 2,
        }],
        dropped_events_count: 3,
        links: vec![Link {
            trace_id: trace_id(99).to_be_bytes().to_vec(),
            span_id: 99u64.to_be_bytes().to_vec(),
            trace_state: "vendor=2".to_owned(),
            attributes: vec![attribute("link", "yes")],
            dropped_attributes_count: 4,
            flags: 1,
        }],
        dropped_links_count: 5,
        status: Some(Status { code: 2, message: "Transaction discarded".to_owned() }),
        ..span(id, "redis.transaction.failed", start, &[])
    }
}

/// Spans by id, their attributes in order of key, and no status as an unset one, which it means.
fn by_id(exported: &Exported) -> BTreeMap<Vec<u8>, Span> {
    let sorted = |span: &Span| {
        let mut span = span.clone();
        span.attributes.sort_by(|a, b| a.key.cmp(&b.key));
        span.status.get_or_insert_default();
        span
    };
    exported.spans().map(|span| (span.span_id.clone(), sorted(span))).collect()
}

#[track_caller]
fn assert_same(found: &Exported, expected: &Exported) {
    let (found, expected) = (by_id(found), by_id(expected));
    assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
    for (id, span) in &found {
        assert_eq!(span, &expected[id]);
    }
}

async fn send_lines(server: &Server, exported: &Exported) {
    let json = headers(Encoding::Json, "identity");
    for (signal, line) in &exported.lines {
        server.send(signal, &json, line.clone().into_bytes()).await.ok();
    }
}

/// Scenario: spans with everything that a span can have, logs and metrics; exported; the lines sent
/// to a second server as they are; that one exported too.
/// Guarantees: the export is what was sent; the second server answers queries as the first did, and
/// its export is the same.
#[tokio::test]
async fn an_export_goes_in_again_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (first_data, second_data) = (dir.path().join("first"), dir.path().join("second"));
    let first = Serve::on(&first_data).start();
    let mut spans: Vec<Span> = (1..=40).map(|id| span(id, "work", now() - SECOND, &[])).collect();
    spans.push(full_span(41));
    let protobuf = headers(Encoding::Protobuf, "identity");
    let sent = traces("worker", spans.clone());
    first.send("traces", &protobuf, sent.encode_to_vec()).await.ok();
    let records = vec![log("one", &[("k", "v")]), log("two", &[])];
    first.send("logs", &protobuf, logs("worker", records.clone()).encode_to_vec()).await.ok();
    let points = metrics("worker", "queue");
    first.send("metrics", &protobuf, points.encode_to_vec()).await.ok();
    let trace = format!("/api/traces/{:032x}", trace_id(41));
    let full = first.json(&trace).await;
    let dependencies = first.json("/api/traces?service=worker&limit=100").await;
    assert!(first.stop().await.success());

    // Small lines, so that there are several of a signal.
    let data = first_data.as_os_str();
    let rows = ["export".as_ref(), "--rows".as_ref(), "7".as_ref(), "--data".as_ref(), data];
    let small = Exported::read(&String::from_utf8(run(rows).stdout).unwrap());
    assert_eq!(small.traces.len(), 6);
    let exported = Exported::of(&first_data);
    assert_same(&small, &exported);

    let expected = Exported { traces: vec![sent], ..Exported::default() };
    assert_same(&exported, &expected);
    assert_eq!(exported.log_records().cloned().collect::<Vec<_>>(), records);
    let sent = Exported { metrics: vec![points], ..Exported::default() };
    assert_eq!(
        exported.metric_list().cloned().collect::<Vec<_>>(),
        sent.metric_list().cloned().collect::<Vec<_>>()
    );

    let second = Serve::on(&second_data).start();
    send_lines(&second, &small).await;
    assert_eq!(second.json(&trace).await, full);
    let again = second.json("/api/traces?service=worker&limit=100").await;
    assert_eq!(again["data"].as_array().unwrap().len(), 41);
    let ids = crate::support::answers::v1_spans;
    assert_eq!(ids(&again), ids(&dependencies));
    assert!(second.stop().await.success());
    let again = Exported::of(&second_data);
    assert_same(&again, &exported);
    assert_eq!(again.log_bodies().collect::<Vec<_>>(), exported.log_bodies().collect::<Vec<_>>());
    assert_eq!(again.metric_names().count(), 2);
}

/// Guarantees: `--out` writes the same to a file, packed if its name says so; a file that cannot be
/// written is named on one line.
#[tokio::test]
async fn export_writes_files_plain_and_packed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Serve::on(&data).start();
    let body = traces("worker", vec![span(1, "work", now() - SECOND, &[])]).encode_to_vec();
    server.send("traces", &headers(Encoding::Protobuf, "identity"), body).await.ok();
    assert!(server.stop().await.success());
    let export = |out: &std::path::Path| {
        let args = ["export".as_ref(), "--data".as_ref(), data.as_os_str()];
        run(args.into_iter().chain(["--out".as_ref(), out.as_os_str()]))
    };
    let (plain, packed) = (dir.path().join("a.jsonl"), dir.path().join("a.jsonl.zst"));
    for out in [&plain, &packed] {
        let output = export(out);
        assert!(output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, format!("1 row written to {}\n", out.display()));
    }
    let plain = std::fs::read(plain).unwrap();
    assert_eq!(Exported::read(std::str::from_utf8(&plain).unwrap()).spans().count(), 1);
    assert_eq!(zstd::decode_all(&*std::fs::read(packed).unwrap()).unwrap(), plain);

    // Every format and packing is taken by an import, and its export is the same again.
    for (name, format) in [
        ("a.jsonl.gz", "jsonl"),
        ("a.pb", "protobuf"),
        ("a.pb.gz", "protobuf"),
        ("a.pb.zst", "protobuf"),
    ] {
        let (out, again) = (dir.path().join(name), dir.path().join(format!("{name}-data")));
        let args = ["export", "--format", format, "--data"].map(AsRef::as_ref).into_iter();
        let output = run(args.chain([data.as_os_str(), "--out".as_ref(), out.as_os_str()]));
        assert!(output.status.success(), "{name}: {output:?}");
        let import = ["import".as_ref(), "--data".as_ref(), again.as_os_str(), out.as_os_str()];
        assert!(run(import).status.success(), "{name}");
        assert_same(&Exported::of(&again), &Exported::of(&data));
    }

    // A part of it.
    let part = |more: &[&str]| {
        let args = ["export".as_ref(), "--data".as_ref(), data.as_os_str()].into_iter();
        let output = run(args.chain(more.iter().map(AsRef::as_ref)));
        assert!(output.status.success(), "{output:?}");
        Exported::read(&String::from_utf8(output.stdout).unwrap()).spans().count()
    };
    assert_eq!(part(&["--select", "{ name = \"work\" }", "--from", "1h"]), 1);
    assert_eq!(part(&["--select", "{ name = \"other\" }"]), 0);
    assert_eq!(part(&["--to", "2020-01-01T00:00:00Z"]), 0);
    let bad = run(["export", "--data", "none", "--select", "{ nmae = \"work\" }"]);
    let said = String::from_utf8(bad.stderr).unwrap();
    assert_eq!(bad.status.code(), Some(2));
    assert!(said.contains("column 3: `nmae` is not a field"), "{said}");

    let output = export(&dir.path().join("none/a.jsonl"));
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("none/a.jsonl: cannot be written"), "{said}");
}

/// Scenario: a running server, asked for all and for a part.
/// Guarantees: the export of a server is that of its folder; the level of zstd is chosen; a file that
/// was there is kept until the new one is whole.
#[tokio::test]
async fn a_server_is_exported_as_its_folder_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Serve::on(&data).start();
    let spans = vec![full_span(1), span(2, "work", now() - SECOND, &[])];
    let protobuf = headers(Encoding::Protobuf, "identity");
    server.send("traces", &protobuf, traces("worker", spans).encode_to_vec()).await.ok();
    let body = logs("worker", vec![log("one", &[])]).encode_to_vec();
    server.send("logs", &protobuf, body).await.ok();
    let url = server.query.clone();
    let export = async |more: &[&str]| {
        let args = ["export", "--url", &url].into_iter().chain(more.iter().copied());
        let args: Vec<String> = args.map(str::to_owned).collect();
        tokio::task::spawn_blocking(move || run(args)).await.unwrap()
    };
    let all = export(&[]).await;
    assert_eq!(all.status.code(), Some(0), "{all:?}");
    let all = Exported::read(&String::from_utf8(all.stdout).unwrap());
    let part = export(&["--select", "{ name = \"work\" }", "--from", "1h"]).await;
    let part = Exported::read(&String::from_utf8(part.stdout).unwrap());
    assert_eq!((part.spans().count(), part.log_records().count()), (1, 0));

    let packed = dir.path().join("a.jsonl.zst");
    std::fs::write(&packed, "what was here before").unwrap();
    let out = packed.to_str().unwrap();
    // Nobody answers there: the file stays.
    let args = ["export", "--url", "http://127.0.0.1:1", "--out", out];
    assert_eq!(run(args).status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(&packed).unwrap(), "what was here before");
    let done = export(&["--out", out, "--zstd-level", "1"]).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let text = zstd::decode_all(&*std::fs::read(&packed).unwrap()).unwrap();
    assert_same(&Exported::read(std::str::from_utf8(&text).unwrap()), &all);
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    let refused = export(&["--out", "a.jsonl.gz", "--zstd-level", "1"]).await;
    assert_eq!(refused.status.code(), Some(2));

    assert!(server.stop().await.success());
    assert_same(&all, &Exported::of(&data));
    assert_eq!(all.log_bodies().count(), 1);
}

/// Scenario: a page of a segment is damaged.
/// Guarantees: the rest is exported, from the folder and from a server, and judged by contracts; each
/// says so, and ends with status 1.
#[tokio::test]
async fn damage_is_told_and_is_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Serve::on(&data).start();
    let protobuf = headers(Encoding::Protobuf, "identity");
    let noise =
        |id: u64| format!("{:x}", (u128::from(id) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c));
    for round in 0..3 {
        let spans = (1..=2_000).map(|i| {
            let id = round * 2_000 + i;
            span(id, "work", now() - SECOND, &[("noise", &noise(id))])
        });
        let body = traces("worker", spans.collect()).encode_to_vec();
        server.send("traces", &protobuf, body).await.ok();
    }
    assert!(server.stop().await.success());
    let folder = data.to_str().unwrap();
    assert!(run(["store", "compact", "--data", folder]).status.success());
    let segments = std::fs::read_dir(data.join("segments")).unwrap();
    let mut segments: Vec<_> = segments.map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|ending| ending == "parquet"));
    let mut bytes = std::fs::read(&segments[0]).unwrap();
    bytes[100] ^= 0x55;
    std::fs::write(&segments[0], bytes).unwrap();

    let contracts = dir.path().join("contracts.yaml");
    let contract = "contracts:\n  - name: none\n    when: '{ name = \"none\" }'\n    \
        key: [span.noise]\n    expect: '{ name = \"none2\" }'\n    within: 1s\n";
    std::fs::write(&contracts, contract).unwrap();
    let contracts = contracts.to_str().unwrap();
    for args in [
        &["export", "--data", folder][..],
        &["contracts", "run", contracts, "--data", folder],
        &["contracts", "check", contracts, "--data", folder],
    ] {
        let output = run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("what it held is missing here"), "{args:?}: {said}");
    }
    let server = Serve::on(&data).start();
    let url = server.query.clone();
    let args = ["export".to_owned(), "--url".to_owned(), url];
    let output = tokio::task::spawn_blocking(move || run(args)).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("a part may be missing"), "{said}");
    assert!(server.stop().await.success());
}

/// Scenario: an export to a file is interrupted while a server sends, and while one has not answered.
/// Guarantees: it ends with status 2 and says so, and leaves neither the file nor a part of it.
#[tokio::test]
async fn ctrl_c_leaves_no_half_export() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("day.jsonl");
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut command = lacuna(["export", "--url", url.as_str(), "--out"]);
    command.arg(&out).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    // It asks once the file is begun.
    let asking = silent.accept().await.unwrap();
    assert!(dir.path().join("day.jsonl.tmp").exists());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = tokio::time::timeout(DEADLINE, output).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("interrupted") && said.contains("day.jsonl"), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    drop(asking);
}
