//! `lacuna import`: every format, interrupted at any moment, resumed, and what is wrong in a file.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::support::answers::v1_spans;
use crate::support::export::Exported;
use crate::support::otlp::{
    Encoding, MILLI, SECOND, TraceRequest, compress, headers, log, logs, metrics, now, span, traces,
};
use crate::support::server::{Serve, lacuna, run};

fn import(data: &Path, files: &[&Path], more: &[&str]) -> Output {
    let args = ["import".as_ref(), "--data".as_ref(), data.as_os_str()].into_iter();
    let args = args.chain(files.iter().map(|file| file.as_os_str()));
    run(args.chain(more.iter().map(AsRef::as_ref)))
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Requests of each kind as OTLP/JSON and as protobuf.
fn requests() -> Vec<(String, Vec<u8>)> {
    let start = now() - SECOND;
    let spans: Vec<Span> = (1..=30).map(|id| span(id, "work", start, &[("k", "v")])).collect();
    let both = |json: Vec<u8>, protobuf| (String::from_utf8(json).unwrap(), protobuf);
    let mut requests: Vec<_> = spans
        .chunks(10)
        .map(|spans| {
            let request = traces("worker", spans.to_vec());
            both(Encoding::Json.encode(&request), request.encode_to_vec())
        })
        .collect();
    let records = logs("worker", vec![log("one", &[]), log("two", &[])]);
    requests.push(both(Encoding::Json.encode(&records), records.encode_to_vec()));
    let points = metrics("worker", "queue");
    requests.push(both(Encoding::Json.encode(&points), points.encode_to_vec()));
    requests
}

fn sized(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress("zstd", bytes)
}

/// Guarantees: JSON lines and the file exporter's messages, in protobuf or JSON, each message or
/// the whole file compressed, are told apart by content, whatever the file is called; each gives
/// what was in it.
#[test]
fn every_format_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let requests = requests();
    let lines: String = requests.iter().map(|(json, _)| format!("{json}\n")).collect();
    let messages: Vec<u8> = requests.iter().flat_map(|(_, protobuf)| sized(protobuf)).collect();
    let formats: [(&str, Vec<u8>); 8] = [
        ("lines", lines.clone().into_bytes()),
        ("lines_gzip", compress("gzip", lines.as_bytes())),
        ("lines_zstd", zstd(lines.as_bytes())),
        ("messages", messages.clone()),
        ("messages_gzip", compress("gzip", &messages)),
        ("messages_zstd", zstd(&messages)),
        ("packed_messages", requests.iter().flat_map(|(_, body)| sized(&zstd(body))).collect()),
        ("packed_json", requests.iter().flat_map(|(j, _)| sized(&zstd(j.as_bytes()))).collect()),
    ];
    type Content = (BTreeSet<Vec<u8>>, BTreeSet<String>, BTreeSet<String>);
    let mut first: Option<Content> = None;
    for (name, content) in formats {
        let (file, data) = (dir.path().join(name), dir.path().join(format!("{name}-data")));
        std::fs::write(&file, content).unwrap();
        let output = import(&data, &[&file], &[]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
        let told = "30 spans, 2 log records, 2 metric points in 5 requests";
        assert_eq!(said(&output), format!("{}: {told}\n", file.display()), "{name}");
        let exported = Exported::of(&data);
        let content: Content = (
            exported.spans().map(|span| span.span_id.clone()).collect(),
            exported.log_bodies().collect(),
            exported.metric_names().collect(),
        );
        assert_eq!(content.0.len(), 30, "{name}");
        assert_eq!(first.get_or_insert_with(|| content.clone()), &content, "{name}");
    }
}

/// Scenario: the same file twice, under another name, then grown.
/// Guarantees: what was imported is not imported again, unless it is asked for.
#[test]
fn a_file_is_imported_once_and_goes_on_where_it_grew() {
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (dir.path().join("a.jsonl"), dir.path().join("data"));
    let line = |id| {
        let request = traces("worker", vec![span(id, "work", now() - SECOND, &[])]);
        String::from_utf8(Encoding::Json.encode(&request)).unwrap()
    };
    let lines: Vec<String> = (1..=6).map(line).collect();
    std::fs::write(&file, lines[..3].join("\n")).unwrap();
    assert_eq!(import(&data, &[&file], &[]).status.code(), Some(0));
    let renamed = dir.path().join("b.jsonl");
    std::fs::rename(&file, &renamed).unwrap();
    let output = import(&data, &[&renamed], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("nothing new, it was imported before"), "{}", said(&output));

    // An exporter is just writing its last line: that one is left for the next time.
    let grown = lines[..5].join("\n") + "\n" + &lines[5][..40];
    std::fs::write(&renamed, grown).unwrap();
    let output = import(&data, &[&renamed], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("b.jsonl:6:41: "), "{}", said(&output));
    assert!(said(&output).contains("2 spans in 2 requests, after 3"), "{}", said(&output));
    std::fs::write(&renamed, lines.join("\n")).unwrap();
    let output = import(&data, &[&renamed], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("1 span in 1 request, after 5"), "{}", said(&output));
    assert_eq!(Exported::of(&data).spans().count(), 6);

    let output = import(&data, &[&renamed], &["--again"]);
    assert!(said(&output).contains("6 spans in 6 requests"), "{}", said(&output));
    assert_eq!(Exported::of(&data).spans().count(), 12);
}

/// `count` requests of one span each, in a file.
fn many(dir: &Path, count: u64) -> PathBuf {
    let file = dir.join("many.pb");
    let request = |id| traces("worker", vec![span(id, "work", now() - SECOND, &[])]);
    let messages: Vec<u8> =
        (1..=count).flat_map(|id| sized(&request(id).encode_to_vec())).collect();
    std::fs::write(&file, messages).unwrap();
    file
}

fn span_ids(data: &Path) -> Vec<Vec<u8>> {
    Exported::of(data).spans().map(|span| span.span_id.clone()).collect()
}

/// Scenario: an import is killed again and again; in between a server runs on the folder and takes
/// spans of its own.
/// Guarantees: in the end every span is there once.
#[tokio::test]
async fn killed_imports_lose_and_double_nothing() {
    const COUNT: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (many(dir.path(), COUNT), dir.path().join("data"));
    for (round, millis) in [40u64, 90, 150, 250, 400].into_iter().enumerate() {
        let args = ["import".as_ref(), "--data".as_ref(), data.as_os_str(), file.as_os_str()];
        let mut child = lacuna(args).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        if round % 2 == 0 {
            let server = Serve::on(&data).start();
            let id = COUNT + 1 + round as u64;
            let body = traces("other", vec![span(id, "own", now() - 10 * MILLI, &[])]);
            let protobuf = headers(Encoding::Protobuf, "identity");
            server.send("traces", &protobuf, body.encode_to_vec()).await.ok();
            server.kill();
        }
    }
    let output = import(&data, &[&file], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let ids = span_ids(&data);
    let distinct: BTreeSet<_> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (COUNT as usize + 3, COUNT as usize + 3));
}

/// Guarantees: Ctrl-C ends an import cleanly, says how to go on, and it does go on.
#[test]
fn an_interrupted_import_goes_on() {
    const COUNT: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let (file, data) = (many(dir.path(), COUNT), dir.path().join("data"));
    let args = ["import".as_ref(), "--data".as_ref(), data.as_os_str(), file.as_os_str()];
    let child = lacuna(args).stderr(Stdio::piped()).spawn().unwrap();
    // It has begun when its journal is there.
    let start = std::time::Instant::now();
    while !data.join("imports.json").exists() {
        assert!(start.elapsed() < crate::support::DEADLINE, "it never began");
        std::thread::sleep(Duration::from_millis(1));
    }
    let pid = rustix::process::Pid::from_child(&child);
    // It may have ended before.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    let output = child.wait_with_output().unwrap();
    if output.status.code() != Some(0) {
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("it goes on from there"), "{}", said(&output));
    }
    assert_eq!(import(&data, &[&file], &[]).status.code(), Some(0));
    assert_eq!(span_ids(&data).len(), COUNT as usize);
}

/// Scenario: a file with everything wrong that can be, among good lines; a damaged message file; a
/// compressed file that is cut off; files that are not there or no telemetry at all.
/// Guarantees: each problem with line, column and reason; the good ones kept; at most as many
/// problems told as asked for, the rest counted; status 1, or 2 where nothing can be read.
#[test]
fn what_is_wrong_is_told_and_the_rest_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let data = path("data");
    let request = traces("worker", vec![span(1, "work", now() - SECOND, &[])]);
    let good = String::from_utf8(Encoding::Json.encode(&request)).unwrap();
    let bad_span = good.replace("\"traceId\":\"", "\"traceId\":\"x");
    let half = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[
        {"traceId":"xyz","spanId":"0000000000000009","name":"a"},
        {"traceId":"0000000000000000000000000000000a","spanId":"000000000000000a","name":"b"}]}]}]}"#
        .replace('\n', " ");
    let lines =
        [&good, "{\"resourceSpans\":[}", &half, "nonsense", "", "{\"spans\":[]}", "{}", &bad_span];
    std::fs::write(path("bad.jsonl"), lines.join("\n")).unwrap();
    let output = import(&data, &[&path("bad.jsonl")], &[]);
    assert_eq!(output.status.code(), Some(1));
    let told = said(&output).replace(dir.path().to_str().unwrap(), "[DIR]");
    insta::assert_snapshot!("import_bad_lines", told);
    let output = import(&path("few"), &[&path("bad.jsonl")], &["--max-errors", "2"]);
    let told = said(&output);
    assert_eq!(told.matches("bad.jsonl:").count(), 4, "{told}");
    assert!(told.contains("more lines with problems"), "{told}");

    // Messages: the second is damaged, the third good, the last cut off.
    let body = request.encode_to_vec();
    let message = [sized(&body), sized(&[0xff; 20]), sized(&body)].concat();
    std::fs::write(path("m.pb"), [&message[..], &sized(&body)[..30]].concat()).unwrap();
    let output = import(&path("m"), &[&path("m.pb")], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let told = said(&output);
    let at = 4 + body.len();
    assert!(told.contains(&format!("m.pb: message 2, at byte {at}: ")), "{told}");
    assert!(told.contains("the file ends within it"), "{told}");
    assert!(told.contains("2 spans in 2 requests"), "{told}");

    // A packed file whose end is missing: what can be unpacked is imported.
    let many: String = (0..2000).map(|_| format!("{good}\n")).collect();
    let packed = compress("gzip", many.as_bytes());
    std::fs::write(path("cut.gz"), &packed[..packed.len() / 2]).unwrap();
    let output = import(&path("cut"), &[&path("cut.gz")], &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("cannot be read beyond its first"), "{}", said(&output));
    assert!(Exported::of(&path("cut")).spans().count() > 0);

    std::fs::write(path("text"), "hello\nworld\n").unwrap();
    for (name, what) in [("none.jsonl", "cannot be read"), ("text", "nothing in it can be read")] {
        let output = import(&data, &[&path(name)], &[]);
        assert_eq!(output.status.code(), Some(2), "{name}: {}", said(&output));
        assert!(said(&output).contains(what), "{}", said(&output));
    }
}

/// Guarantees: standard input is taken too; every command's `--input` reads the same formats; a
/// report for programs; a folder in use is refused with what to do instead; a running server takes
/// an import over the network.
#[tokio::test]
async fn from_standard_input_and_to_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let requests = requests();
    let messages: Vec<u8> = requests.iter().flat_map(|(_, protobuf)| sized(protobuf)).collect();
    let args = ["import", "-", "--format", "json", "--data"].map(AsRef::as_ref).into_iter();
    let mut child = lacuna(args.chain([data.as_os_str()]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&zstd(&messages)).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report[0]["file"], "standard input");
    assert_eq!((&report[0]["spans"], &report[0]["requests"]), (&30.into(), &5.into()));

    let file = dir.path().join("file");
    std::fs::write(&file, zstd(&messages)).unwrap();
    let mine = ["contracts", "mine", "--input"].map(AsRef::as_ref).into_iter();
    assert!(run(mine.chain([file.as_os_str()])).status.success());

    let server = Serve::on(&data).start();
    let refused = import(&data, &[&file], &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("in use by another process"), "{}", said(&refused));
    assert!(said(&refused).contains("lacuna import --url"), "{}", said(&refused));
    let more = dir.path().join("more");
    let request: TraceRequest = traces("late", vec![span(77, "work", now() - SECOND, &[])]);
    std::fs::write(&more, Encoding::Json.encode(&request)).unwrap();
    let (url, journal) = (server.otlp.clone(), dir.path().join("journal"));
    let sent = tokio::task::spawn_blocking(move || {
        let args = ["import".as_ref(), "--url".as_ref(), url.as_ref(), more.as_os_str()];
        run(args.into_iter().chain(["--journal".as_ref(), journal.as_os_str()]))
    });
    let sent = sent.await.unwrap();
    assert_eq!(sent.status.code(), Some(0), "{}", said(&sent));
    let found = server.json("/api/traces?service=late").await;
    assert_eq!(v1_spans(&found).len(), 1);
}
