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

/// Guarantees: where a server runs, each says so and what to do; a folder that is not there is not
/// made.
#[tokio::test]
async fn a_folder_in_use_or_missing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Serve::on(&data).start();
    for verb in ["check", "stats", "compact"] {
        let output = store(verb, &data, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{verb}: {said}");
        assert!(said.contains(&format!("(pid {})", server.pid())), "{said}");
        assert!(said.contains("/metrics"), "{said}");
        let none = dir.path().join("none");
        let output = store(verb, &none, &[]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains("no such data folder"));
        assert!(!none.exists());
    }
}
