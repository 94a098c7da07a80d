//! `lacuna import --url`: refused, interrupted, killed, without a server, and resumed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use prost::Message;

use crate::support::export::Exported;
use crate::support::otlp::{SECOND, now, span, traces};
use crate::support::receiver::{Mood, Receiver};
use crate::support::server::{Serve, lacuna};
use crate::support::{DEADLINE, eventually};

fn command(url: &str, dir: &Path, more: &[&str]) -> Command {
    let mut command = lacuna(["import", "--url", url, "--journal"]);
    command.arg(dir.join("journal")).arg(dir.join("file.pb")).args(more);
    command.stderr(Stdio::piped()).stdout(Stdio::piped());
    command
}

async fn import(url: &str, dir: &Path, more: &[&str]) -> (Output, String) {
    let mut command = command(url, dir, more);
    // The test's own receivers answer meanwhile.
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    (output, said)
}

/// Writes a file of a request for each name: a span of that name.
fn write<S: AsRef<str>>(dir: &Path, names: impl IntoIterator<Item = S>) {
    let mut file = Vec::new();
    for (id, name) in names.into_iter().enumerate() {
        let span = span(id as u64 + 1, name.as_ref(), now() - SECOND, &[]);
        let body = traces("worker", vec![span]).encode_to_vec();
        file.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        file.extend(body);
    }
    std::fs::write(dir.join("file.pb"), file).unwrap();
}

async fn interrupt(mut child: Child) -> (Option<i32>, String) {
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    });
    tokio::time::timeout(DEADLINE, ended).await.expect("it goes on for ever").unwrap()
}

/// Guarantees: what the server refuses for good is told with its place and the server's reason, is
/// not called imported, and the rest is imported; if nothing is taken, the status is 2.
#[tokio::test]
async fn what_the_server_refuses_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Serve::on(&data).args(&["--max-body", "64KiB"]).start();
    let large = "x".repeat(100 << 10);
    write(dir.path(), ["one", large.as_str(), "three"]);
    let (output, said) = import(&server.otlp, dir.path(), &["--format", "json"]).await;
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("file.pb: message 2, at byte "), "{said}");
    assert!(
        said.contains("413 Payload Too Large: the request has more than 65536 bytes"),
        "{said}"
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figure = |name: &str| report[0][name].as_u64().unwrap();
    assert_eq!((figure("requests"), figure("before"), figure("refused")), (2, 0, 1));

    write(dir.path(), [large.as_str()]);
    let (output, said) = import(&server.otlp, dir.path(), &[]).await;
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("nothing of it was taken"), "{said}");
    assert!(!said.contains("imported before"), "{said}");
}

/// Scenario: a server that has no room for hours; one that reads a request and never answers.
/// Guarantees: Ctrl-C ends an import, and it says how to go on.
#[tokio::test]
async fn ctrl_c_ends_an_import_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ["one", "two"]);
    let busy = Receiver::start(Mood::Fails).await;
    let child = command(&busy.url, dir.path(), &[]).spawn().unwrap();
    eventually("an attempt", || async { (busy.refused() > 0).then_some(()) }).await;
    let (status, said) = interrupt(child).await;
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("it goes on from there"), "{said}");

    let silent = Receiver::start(Mood::Hangs).await;
    let child = command(&silent.url, dir.path(), &[]).spawn().unwrap();
    eventually("an attempt", || async { (silent.read() > 0).then_some(()) }).await;
    let (status, said) = interrupt(child).await;
    assert_eq!(status, Some(2), "{said}");
}

/// Scenario: imports to a server, killed again and again; the last one ends; then once more.
/// Guarantees: nothing is lost; at most the request that was on its way is there twice; what was
/// sent is not sent again.
#[tokio::test]
async fn a_killed_import_to_a_server_goes_on_where_it_was() {
    const COUNT: usize = 3000;
    const KILLS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    write(dir.path(), (0..COUNT).map(|i| format!("work {i}")));
    let server = Serve::on(&data).start();
    let items = "lacuna_ingest_items_total{signal=\"spans\"}";
    for kill in 1..=KILLS {
        let mut child = command(&server.otlp, dir.path(), &[]).spawn().unwrap();
        let wanted = (kill * 300) as f64;
        eventually("some progress", || async {
            (server.metric(items).await >= wanted).then_some(())
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let before = server.metric(items).await;
    assert!(before < COUNT as f64, "killed too late to tell: {before}");
    let (output, said) = import(&server.otlp, dir.path(), &[]).await;
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(" that were imported before"), "{said}");
    let (_, said) = import(&server.otlp, dir.path(), &[]).await;
    assert!(said.contains("nothing new, it was imported before"), "{said}");
    assert!(server.stop().await.success());
    let ids: Vec<_> = Exported::of(&data).spans().map(|span| span.span_id.clone()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), COUNT);
    assert!(ids.len() <= COUNT + KILLS, "{} spans", ids.len());
}

/// Scenario: no server at first, then one; and none at all.
/// Guarantees: connection errors are tried again, for as long as was asked.
#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ["one", "two"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let (output, said) = import(&url, dir.path(), &["--retry-for", "0s"]).await;
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("no answer"), "{said}");

    let mut child = command(&url, dir.path(), &["--retry-for", "2m"]).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("trying again for 120 s"), "{line}");
    let data = dir.path().join("data");
    let server = Serve::on(&data).port("--otlp-http", &port.to_string()).start();
    let done = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        (child.wait().unwrap().code(), rest)
    });
    let (status, rest) = done.await.unwrap();
    assert_eq!(status, Some(0), "{rest}");
    assert!(rest.contains("2 spans in 2 requests"), "{rest}");
    assert!(server.stop().await.success());

    let (output, said) = import("localhost:4318", dir.path(), &[]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("expected one such as http://localhost:4318"), "{said}");
}
