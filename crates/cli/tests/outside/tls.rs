//! HTTPS: channels and the command line as clients, and whom they trust.

use std::process::Output;

use serde_json::Value;

use crate::channels::{Place, await_open, lose};
use crate::support::eventually;
use crate::support::otlp::{SECOND, now};
use crate::support::receiver::{Mood, Receiver};
use crate::support::server::run;
use crate::support::tls::Tls;

/// Scenario: a webhook and an Alertmanager behind certificates that an authority of our own signed.
/// Guarantees: both are told; with a name and a password if the URL has them.
#[tokio::test]
async fn channels_are_told_over_https() {
    let place = Place::new();
    let receiver = Receiver::start(Mood::Takes).await;
    let tls = Tls::before(&receiver.url).await;
    let hook = format!("{}/hook", tls.url.replace("https://", "https://ann:secret@"));
    let ca = tls.ca.to_str().unwrap();
    let args = ["--webhook", &hook, "--alertmanager", &tls.url, "--tls-ca-file", ca];
    let server = place.start(&args);
    lose(&server, 1, "a", now() - 100 * SECOND).await;
    let taken = receiver.await_taken(2).await;
    let paths: Vec<&str> = taken.iter().map(|taken| taken.path.as_str()).collect();
    assert!(paths.contains(&"/hook") && paths.contains(&"/api/v2/alerts"), "{paths:?}");
    let hooked = taken.iter().find(|taken| taken.path == "/hook").unwrap();
    // `ann:secret` in base64.
    assert_eq!(hooked.authorization, "Basic YW5uOnNlY3JldA==");
    assert!(!server.log().contains("secret"), "{}", server.log());
    assert!(server.stop().await.success());
}

/// Scenario: the webhook's certificate is signed by somebody whom nobody trusts.
/// Guarantees: nothing is told to it; the log says why, and the notice waits.
#[tokio::test]
async fn who_is_not_trusted_is_told_nothing() {
    let place = Place::new();
    let receiver = Receiver::start(Mood::Takes).await;
    let (tls, other) = (Tls::before(&receiver.url).await, Tls::before(&receiver.url).await);
    let server = place.start(&["--webhook", &tls.url, "--tls-ca-file", other.ca.to_str().unwrap()]);
    lose(&server, 1, "a", now() - 100 * SECOND).await;
    let target = tls.url.trim_start_matches("https://").to_owned();
    let pending =
        format!("lacuna_notifications_pending{{channel=\"webhook\",target=\"{target}\"}}");
    eventually("the reason", || async {
        server.log().contains("invalid peer certificate").then_some(())
    })
    .await;
    assert_eq!(server.metric(&pending).await, 1.0);
    assert_eq!(receiver.taken().len(), 0);
}

/// Scenario: a server behind TLS is asked from the command line.
/// Guarantees: with the authority's certificate it answers as without TLS; without it the command
/// says why not; a file of certificates that is none is told.
#[tokio::test]
async fn the_command_line_asks_over_https() {
    let place = Place::new();
    let server = place.start(&[]);
    lose(&server, 1, "a", now() - 100 * SECOND).await;
    await_open(&server, 1).await;
    let tls = Tls::before(&server.query).await;
    let ask = |command: &[&str], ca: Option<&str>| {
        let mut args: Vec<String> = command.iter().map(|arg| (*arg).to_owned()).collect();
        args.extend(["--url".to_owned(), tls.url.clone()]);
        args.extend(ca.into_iter().flat_map(|ca| ["--tls-ca-file".to_owned(), ca.to_owned()]));
        async move { tokio::task::spawn_blocking(move || run(args)).await.unwrap() }
    };
    let ca = tls.ca.to_str().unwrap();
    let list = ["findings", "--format", "json"];
    let found = ask(&list, Some(ca)).await;
    assert_eq!(found.status.code(), Some(1), "{}", error(&found));
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let plain = server.json("/api/v1/findings").await;
    assert_eq!(found["findings"][0]["fingerprint"], plain["findings"][0]["fingerprint"]);
    let story = ask(&["explain", "--key", "correlation_id=a"], Some(ca)).await;
    assert_eq!(story.status.code(), Some(1), "{}", error(&story));

    let no_file = place.path().join("a.yaml");
    for (ca, says) in [
        (None, "certificate"),
        (Some(no_file.to_str().unwrap()), "there is no `-----BEGIN CERTIFICATE-----` in it"),
        (Some("/no/such/file"), "no certificates can be read"),
    ] {
        let told = ask(&list, ca).await;
        assert_eq!(told.status.code(), Some(2), "{}", error(&told));
        assert!(error(&told).contains(says), "{}", error(&told));
    }
}

fn error(output: &Output) -> String {
    // Reports are wrapped at the terminal's width.
    let text = String::from_utf8_lossy(&output.stderr);
    text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}
