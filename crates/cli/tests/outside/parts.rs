//! Contracts over history: a joint key of which a part is asked for, and clocks that are ahead.

use prost::Message;
use serde_json::{Value, json};

use crate::history::{CONTRACT, export, send, stdout, verdicts};
use crate::support::otlp::{SECOND, now, span, traces};
use crate::support::server::{Serve, run};

/// Scenario: an activation of now, and a signal an hour ahead of its time, as a clock that is wrong
/// sends it.
/// Guarantees: of a data folder and of a server the data ends now at the latest, so the outcome is not
/// given up; of files nobody knows by whose clock they are, and they end where they end.
#[tokio::test]
async fn a_signal_from_the_future_settles_nothing_but_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("all.jsonl"));
    let contracts = dir.path().join("c.yaml");
    std::fs::write(&contracts, CONTRACT.replace("10s", "30m")).unwrap();
    let server = Serve::on(&data).start();
    let key = [("correlation_id", "a")];
    let spans = vec![span(1, "take", now(), &key), span(2, "tick", now() + 3_600 * SECOND, &[])];
    send(&server, "traces", traces("worker", spans).encode_to_vec()).await;
    export(&server, &file).await;
    let verdicts_of = |source: [&str; 2], status: i32| {
        let args = ["contracts", "run", contracts.to_str().unwrap(), "--format", "json"];
        let report = stdout(run(args.iter().chain(&source)), status);
        verdicts(&serde_json::from_str(&report).unwrap())
    };
    assert_eq!(verdicts_of(["--url", &server.query], 0), json!({"open": 1}));
    assert_eq!(verdicts_of(["--input", file.to_str().unwrap()], 1), json!({"missed": 1}));
    assert!(server.stop().await.success());
    assert_eq!(verdicts_of(["--data", data.to_str().unwrap()], 0), json!({"open": 1}));
}

/// Scenario: a contract is kept by order and item together; one order has two items, of which one is
/// lost; another order has one.
/// Guarantees: the story of the order tells what became of each of its items, with the whole key, and
/// nothing of the other order; over files as from a server.
#[tokio::test]
async fn the_story_of_a_part_of_a_joint_key_has_its_verdicts() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("all.jsonl"));
    let contracts = dir.path().join("contracts");
    std::fs::create_dir(&contracts).unwrap();
    let joint = CONTRACT.replace(
        "{when: [span.correlation_id], expect: [span.correlation]}",
        "[span.order, span.item]",
    );
    std::fs::write(contracts.join("c.yaml"), joint).unwrap();
    let server =
        Serve::on(&data).contracts(&contracts).args(&["--lateness", "1s", "--idle", "1h"]).start();
    let start = now() - 60 * SECOND;
    let key = |order, item| [("order", order), ("item", item)];
    let spans = vec![
        span(1, "take", start, &key("17", "a")),
        span(2, "take", start, &key("17", "b")),
        span(3, "take", start, &key("a", "17")),
        span(4, "done", start + SECOND, &key("17", "a")),
        span(5, "tick", start + 50 * SECOND, &[]),
    ];
    send(&server, "traces", traces("worker", spans).encode_to_vec()).await;
    export(&server, &file).await;
    crate::support::eventually("the verdict", || async {
        let findings = server.json("/api/v1/findings?status=open").await;
        (!findings["findings"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    let files = ["--input", file.to_str().unwrap(), "--contracts", contracts.to_str().unwrap()];
    for source in [&["--url", server.query.as_str()][..], &files] {
        let args = ["explain", "--key", "order=17", "--format", "json"];
        let told: Value = serde_json::from_str(&stdout(run(args.iter().chain(source)), 1)).unwrap();
        let mut verdicts: Vec<_> = told["events"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|event| event["type"] == "verdict")
            .map(|event| (event["verdict"].clone(), event["attributes"].clone()))
            .collect();
        verdicts.sort_by_key(|(verdict, _)| verdict.to_string());
        let of = |item| json!({"span.order": "17", "span.item": item});
        assert_eq!(verdicts, [(json!("fulfilled"), of("a")), (json!("missed"), of("b"))], "{told}");
    }
}

/// Guarantees: notes of `contracts check` are errors with `--strict`; a server says itself how long it
/// keeps data, and a precedence without `within` is noted where it looks back further.
#[tokio::test]
async fn notes_are_errors_where_strictness_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    let data = dir.path().join("data");
    let server = Serve::on(&data).args(&["--retention-age", "2h"]).start();
    let spans = vec![span(1, "take", now() - SECOND, &[("correlation_id", "a")])];
    send(&server, "traces", traces("worker", spans).encode_to_vec()).await;
    let check = |text: String, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        let args = ["contracts", "check", file.to_str().unwrap()];
        let output = run(args.iter().chain(more));
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let url = ["--url", server.query.as_str()];
    let strict = ["--url", server.query.as_str(), "--strict"];
    let unmatched = "`expect` matches none of the spans of this data";
    let (status, said) = check(CONTRACT.to_owned(), &url);
    assert!(status == 0 && said.contains("note: ") && said.contains(unmatched), "{said}");
    let (status, said) = check(CONTRACT.to_owned(), &strict);
    assert!(status == 2 && said.contains(unmatched) && !said.contains("note: "), "{said}");

    let (status, said) = check(CONTRACT.replace("10s", "3h"), &url);
    assert!(status == 2 && said.contains("`within` is 3h, but data is kept for 2h"), "{said}");
    let precedence = CONTRACT.replace("    within: 10s\n", "    kind:   precedence\n");
    let unbounded = "without `within` a cause may be of any age, but data is kept for 2h";
    let (status, said) = check(precedence.clone(), &url);
    assert!(status == 0 && said.contains(unbounded), "{said}");
    let (status, said) = check(precedence.clone(), &strict);
    assert!(status == 2 && said.contains(unbounded) && said.contains("c.yaml:7:13"), "{said}");
    assert_eq!(check(precedence, &[]).0, 0);
}
