//! `lacuna store check|stats|compact`.

use std::path::Path;
use std::process::Output;

use prost::Message;
use serde_json::Value;

use crate::support::export::Exported;
use crate::support::otlp::{Encoding, SECOND, headers, now, span, traces};
use crate::support::server::{Serve, run};

fn store(verb: &str, data: &Path, more: &[&str]) -> Output {
    let args = ["store".as_ref(), verb.as_ref(), "--data".as_ref(), data.as_os_str()].into_iter();
    run(args.chain(more.iter().map(AsRef::as_ref)))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A folder with `rounds` requests of 100 spans in its log, as a kill leaves it.
async fn filled(data: &Path, rounds: u64) {
    let server = Serve::on(data).start();
    let protobuf = headers(Encoding::Protobuf, "identity");
    for round in 0..rounds {
        let spans = (1..=100).map(|id| span(round * 100 + id, "work", now() - SECOND, &[]));
        let body = traces("worker", spans.collect()).encode_to_vec();
        server.send("traces", &protobuf, body).await.ok();
    }
    server.kill();
}

/// Guarantees: a whole store is said to be whole, its sizes are told, compaction moves the log into
/// segments and loses nothing, and retention given to it is kept.
#[tokio::test]
async fn a_store_is_checked_measured_and_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    filled(&data, 3).await;
    let check = store("check", &data, &["--format", "json"]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    let checked = json(&check);
    assert!(checked["log_files"].as_u64().unwrap() >= 1, "{checked}");
    assert_eq!(checked["damaged"], Value::Array(Vec::new()));

    let before = json(&store("stats", &data, &["--format", "json"]));
    assert_eq!(before["kinds"][0]["memory_rows"], 300);
    let compacted = json(&store("compact", &data, &["--format", "json"]));
    assert_eq!(compacted["before"], before);
    assert_eq!(compacted["after"]["kinds"][0]["segments"], 1);
    let text = String::from_utf8(store("stats", &data, &[]).stdout).unwrap();
    let spans: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().take(4).collect();
    assert_eq!(spans, ["spans", "300", "0", "1"], "{text}");
    let text = String::from_utf8(store("check", &data, &[]).stdout).unwrap();
    assert!(text.contains("1 segment and") && text.contains("Nothing is damaged."), "{text}");
    assert_eq!(Exported::of(&data).spans().count(), 300);

    let expired = store("compact", &data, &["--retention-bytes", "1KiB"]);
    assert_eq!(expired.status.code(), Some(0), "{expired:?}");
    assert_eq!(Exported::of(&data).spans().count(), 0);
}

/// Guarantees: a flipped bit is found, its file named, and the exit status says so.
#[tokio::test]
async fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    filled(&data, 2).await;
    assert_eq!(store("compact", &data, &[]).status.code(), Some(0));
    let mut segments = std::fs::read_dir(data.join("segments")).unwrap();
    let segment = segments
        .find_map(|entry| Some(entry.unwrap().path()).filter(|p| p.extension().unwrap() != "index"))
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(&segment, bytes).unwrap();
    let check = store("check", &data, &[]);
    let text = String::from_utf8(check.stdout.clone()).unwrap();
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(text.contains(segment.to_str().unwrap()), "{text}");
    let check = json(&store("check", &data, &["--format", "json"]));
    assert_eq!(check["damaged"][0]["kind"], "damaged");
}

/// Guarantees: a store is checked, measured, searched and exported beside the server that writes it,
/// with all that was acknowledged, and nothing in the folder changes. What would change it says who
/// has the folder. A folder that is not there is not made.
#[tokio::test]
async fn a_store_is_read_beside_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    filled(&data, 2).await;
    let server = Serve::on(&data).start();
    let protobuf = headers(Encoding::Protobuf, "identity");
    let spans = (1..=100).map(|id| span(1000 + id, "more", now() - SECOND, &[]));
    let body = traces("worker", spans.collect()).encode_to_vec();
    server.send("traces", &protobuf, body).await.ok();
    let files = || {
        let names = |folder: &str| {
            let entries = std::fs::read_dir(data.join(folder)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        [names(""), names("wal"), names("segments")].concat()
    };
    let before = files();
    let checked = store("check", &data, &["--format", "json"]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert_eq!(json(&checked)["log_files"], 2);
    assert_eq!(json(&checked)["notes"], Value::Array(Vec::new()));
    let stats = json(&store("stats", &data, &["--format", "json"]));
    assert_eq!(stats["kinds"][0]["memory_rows"], 300);
    assert_eq!(Exported::of(&data).spans().count(), 300);
    let args = ["query", "traces", "{ name = \"more\" }", "--data", data.to_str().unwrap()];
    let found = run(args);
    assert_eq!(found.status.code(), Some(0), "{found:?}");
    assert!(String::from_utf8_lossy(&found.stdout).contains("worker"), "{found:?}");
    assert_eq!(files(), before);

    let refused = store("compact", &data, &[]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("(pid {})", server.pid())), "{said}");
    let body = traces("worker", vec![span(5000, "last", now(), &[])]).encode_to_vec();
    server.send("traces", &protobuf, body).await.ok();
    for verb in ["check", "stats", "compact"] {
        let none = dir.path().join("none");
        let output = store(verb, &none, &[]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("no such data folder"));
        assert!(!none.exists());
    }
}

/// Guarantees: what only reads puts nothing in order: segments that are due to be merged stay.
#[tokio::test]
async fn reading_commands_change_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut options = lacuna_store::Options::default();
    options.background = false;
    let filled = lacuna_store::Store::open(&data, options).unwrap();
    for id in 1..=8u64 {
        let body = traces("worker", vec![span(id, "work", now(), &[])]).encode_to_vec();
        let kind = lacuna_signal::SignalKind::Spans;
        let decoded = lacuna_signal::otlp::decode(kind, body.clone().into()).unwrap();
        filled.append_wait(kind, body.into(), decoded.batch).unwrap();
        filled.flush().unwrap();
    }
    drop(filled);
    let manifest = || std::fs::read(data.join("MANIFEST")).unwrap();
    let before = manifest();
    for verb in ["check", "stats"] {
        let output = store(verb, &data, &["--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    assert_eq!(Exported::of(&data).spans().count(), 8);
    let stats = json(&store("stats", &data, &["--format", "json"]));
    assert_eq!(stats["kinds"][0]["segments"], 8);
    assert_eq!(manifest(), before);
}
