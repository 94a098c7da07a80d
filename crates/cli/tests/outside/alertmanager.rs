//! An Alertmanager, as its API v2 is told of findings.

use serde_json::Value;

use crate::channels::{CONTRACT, Place, event, lose, send};
use crate::support::eventually;
use crate::support::otlp::{SECOND, now, trace_id};
use crate::support::receiver::{Mood, Receiver, Taken};
use crate::support::server::run;

/// Scenario: an Alertmanager is told of a finding, told again, and told that it is resolved.
/// Guarantees: the requests are such as its API v2 takes, with examples to open; an alert ends ahead
/// of now while it is open, also when somebody has taken it on, which it says.
#[tokio::test]
async fn an_alertmanager_is_told_again_until_it_is_over() {
    let place = Place::new();
    let receiver = Receiver::start(Mood::Takes).await;
    let base = format!("{}/am/", receiver.url);
    let args =
        ["--alertmanager", &base, "--resend", "300ms", "--external-url", "http://lacuna.example/"];
    let server = place.start(&args);
    let start = now() - 100 * SECOND;
    lose(&server, 1, "a", start).await;
    let taken = receiver.await_taken(3).await;
    let alert = &taken[0].body[0];
    assert_eq!(taken[0].path, "/am/api/v2/alerts");
    assert_eq!(alert["labels"]["alertname"], "LacunaSilentFailure");
    assert_eq!(alert["labels"]["contract"], "taken-then-done");
    assert_eq!(alert["labels"]["severity"], "critical");
    assert_eq!(alert["labels"]["verdict"], "missed");
    assert_eq!(alert["annotations"]["runbook_url"], "https://wiki.example/runbook");
    let fingerprint = alert["labels"]["fingerprint"].as_str().unwrap().to_owned();
    let link = format!("http://lacuna.example/api/v1/findings/{fingerprint}");
    assert_eq!(alert["generatorURL"], link);
    let example = format!("a http://lacuna.example/api/traces/{:032x}", trace_id(1));
    assert_eq!(alert["annotations"]["examples"], example);
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    for taken in &taken {
        let alert = &taken.body[0];
        assert_eq!(alert["labels"], taken.body[0]["labels"]);
        assert!(time(&alert["startsAt"]) < time(&alert["endsAt"]), "{alert}");
    }
    assert!(time(&taken[2].body[0]["endsAt"]) > time(&taken[1].body[0]["endsAt"]));

    let url = format!("{}/api/v1/findings/{fingerprint}/acknowledge", server.query);
    let json = [("content-type", "application/json")];
    let body = r#"{"by": "ann", "comment": "looking"}"#;
    server.http.post(&url, &json, body).await.ok();
    let now_taken_on = |taken: &Taken| {
        let annotations = &taken.body[0]["annotations"];
        annotations["acknowledged_by"] == "ann" && !annotations["acknowledged_at"].is_null()
    };
    let goes_on = eventually("the alert that is taken on", || async {
        receiver.taken().into_iter().find(now_taken_on)
    })
    .await;
    assert!(time(&goes_on.body[0]["endsAt"]) > jiff::Timestamp::now(), "{goes_on:?}");
    assert_eq!(goes_on.body[0]["labels"], taken[0].body[0]["labels"]);
    send(&server, vec![event(5, "done", "a", start + 30 * SECOND)]).await;
    let resolved = |alert: &Value| {
        alert["labels"]["verdict"] == "missed" && time(&alert["endsAt"]) <= jiff::Timestamp::now()
    };
    eventually("the end", || async {
        let taken = receiver.taken();
        let mut alerts = taken.iter().flat_map(|taken| taken.body.as_array().unwrap());
        alerts.any(resolved).then_some(())
    })
    .await;
    let late = |taken: &Taken| {
        let alerts = taken.body.as_array().unwrap();
        alerts.iter().any(|alert| alert["labels"]["verdict"] == "late")
    };
    eventually("the late one", || async { receiver.taken().iter().any(late).then_some(()) }).await;
}

/// Scenario: an Alertmanager refuses for good whatever one finding is part of; another opens beside
/// it.
/// Guarantees: the other one arrives; what was refused is counted, named in the log, and holds
/// nothing up.
#[tokio::test]
async fn one_alert_that_is_refused_takes_no_other_with_it() {
    let place = Place::new();
    let other = CONTRACT.replace("taken-then-done", "other").replace("\"take\"", "\"other\"");
    std::fs::write(place.path().join("b.yaml"), other).unwrap();
    let receiver = Receiver::start(Mood::Fails).await;
    receiver.will_not_take("\"taken-then-done\"");
    let server = place.start(&["--alertmanager", &receiver.url, "--resend", "1h"]);
    let start = now() - 100 * SECOND;
    let lost = vec![
        event(1, "take", "a", start),
        event(2, "other", "b", start),
        event(3, "tick", "x", start + 10 * SECOND),
    ];
    send(&server, lost).await;
    let target = receiver.url.trim_start_matches("http://").to_owned();
    let series = |name: &str| {
        format!("lacuna_notifications_{name}{{channel=\"alertmanager\",target=\"{target}\"}}")
    };
    receiver.set(Mood::Takes);
    let taken = receiver.await_taken(1).await;
    let alerts = taken[0].body.as_array().unwrap();
    let contracts: Vec<&Value> = alerts.iter().map(|alert| &alert["labels"]["contract"]).collect();
    assert_eq!(contracts, ["other"]);
    eventually("nothing pending", || async {
        let left = server.metric(&series("pending")).await;
        (left == 0.0 && server.metric(&series("rejected_total")).await >= 1.0).then_some(())
    })
    .await;
    let log = server.log();
    assert!(log.contains("will not take a finding") && log.contains("422"), "{log}");
}

#[test]
fn an_external_url_that_cannot_be_linked_to_is_refused() {
    for bad in ["lacuna.example", "ftp://lacuna.example", "http://"] {
        let told = run(["serve", "--external-url", bad]);
        let error = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(2), "{error}");
        assert!(error.contains("such as https://lacuna.example"), "{error}");
    }
}
