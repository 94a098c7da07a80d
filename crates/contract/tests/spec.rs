//! Contract files: what is read, and what is said of what is wrong.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use lacuna_contract::{ContractSet, Kind, Per};
use lacuna_signal::finding::Severity;

fn errors(text: &str) -> Vec<(usize, usize, String, String)> {
    let errors = ContractSet::parse("f.yaml", text).unwrap_err().errors;
    errors.into_iter().map(|e| (e.line(), e.column(), e.text().to_owned(), e.to_string())).collect()
}

#[test]
fn reads_every_field() {
    let set = ContractSet::parse(
        "f.yaml",
        r#"
contracts:
  - name: full
    description: What it is.
    runbook_url: https://example.com/r
    severity: critical
    kind: exactly
    count: 2
    per: event
    when: '{ name = "a" }'
    expect: 'log { body =~ "done .*" }'
    key: {when: [span.id, resource.tenant], expect: [log.id, resource.tenant]}
    where: 'expect.log.n = when.span.n && expect.log.n >= 1.5'
    within: 1m30s
  - name: beat
    kind: heartbeat
    when: '{ }'
    expect: '{ name = "tick" }'
    every: 1m
    at_least: 3
  - name: books
    kind: balance
    left: 'sum(span.amount) { name = "in" }'
    right: 'count { name = "out" }'
    key: [.order]
    within: 30s
"#,
    )
    .unwrap();
    let full = set.get("full").unwrap();
    assert_eq!(full.kind, Kind::Exactly { count: 2 });
    assert_eq!((full.per, full.severity), (Per::Event, Severity::Critical));
    assert_eq!(full.within, Some(90_000_000_000));
    assert_eq!(full.conditions.len(), 2);
    assert_eq!((full.when.fields.len(), full.expect.fields.len()), (1, 1));
    assert_eq!(full.key_names(), ["span.id", "resource.tenant"]);
    let beat = set.get("beat").unwrap();
    assert_eq!((beat.kind, beat.within), (Kind::Heartbeat { at_least: 3 }, Some(60_000_000_000)));
    assert!(set.get("books").unwrap().when.sum.is_some());
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let text = std::fs::read_to_string("../../docs/contracts.md").unwrap();
    let mut found = 0;
    for block in text.split("```yaml\n").skip(1) {
        let yaml = block.split("```").next().unwrap();
        let yaml = if yaml.starts_with("contracts:") {
            yaml.to_owned()
        } else {
            format!("contracts:\n{yaml}")
        };
        let set = ContractSet::parse("docs/contracts.md", &yaml);
        found += set.unwrap_or_else(|errors| panic!("{yaml}\n{errors}")).len();
    }
    assert!(found >= 9, "{found}");
}

#[test]
fn all_errors_of_a_file_are_told_at_their_places() {
    let errors = errors(
        r#"contracts:
  - name: one
    when: '{ nmae = "a" }'
    expect: '{ name = "b" '
    key: [span.id]
    within: 30
  - name: two
    kind: respons
    when: '{ name = "a" && name = "b" }'
    expect: '{ name = "b" }'
    key: [log.id]
    witin: 30s
  - name: one
    kind: balance
    left: 'sum(span.n) { name = "a" }'
    right: 'total { name = "b" }'
    key: [span.id]
    within: 30s
"#,
    );
    let expected = [
        (3, 14, "nmae", "did you mean `name`"),
        (4, 27, "", "expected `}`"),
        (6, 13, "30", "with its unit"),
        (8, 11, "respons", "response, precedence"),
        (9, 12, "{ name = \"a\" && name = \"b\" }", "at once"),
        (12, 5, "witin", "did you mean `within`"),
        (13, 11, "one", "is taken"),
        (16, 13, "total { name = \"b\" }", "count { … }"),
    ];
    for (line, column, text, says) in expected {
        let found = errors.iter().find(|e| (e.0, e.1) == (line, column));
        let found = found.unwrap_or_else(|| panic!("{line}:{column} {says}: {errors:#?}"));
        assert_eq!(found.2, text, "{found:?}");
        assert!(found.3.contains(says), "{found:?}");
    }
}

#[test]
fn a_key_that_one_side_lacks_is_told() {
    let errors = errors(
        "contracts:\n  - name: k\n    when: '{ name = \"a\" }'\n    expect: 'log { }'\n    \
         key: [span.id]\n    within: 30s\n",
    );
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!((errors[0].0, &*errors[0].2), (5, "span.id"));
    assert!(errors[0].3.contains("expect") && errors[0].3.contains("`.id`"), "{errors:?}");
}

#[test]
fn odd_files_are_told() {
    for (text, says) in [
        ("contracts: [", "f.yaml:1:"),
        ("- a\n", "instead of a map"),
        ("contracts: 3\n", "instead of a list"),
        ("contract: []\n", "unknown field `contract`"),
        ("contracts:\n  - 3\n", "instead of a contract"),
        ("contracts:\n  - kind: absence\n", "without `name`"),
        ("contracts:\n  - name: a\n    name: b\n", "f.yaml:3:"),
        ("contracts:\n  - name: a\n    count: 2\n", "does not go with kind `response`"),
        ("contracts:\n  - name: a\n", "without `when`"),
        (
            "contracts:\n  - name: a\n    when: '{ }'\n    expect: '{ }'\n    key: [span.a]\n    \
             within: 1s\n    where: 'expect.span.x'\n",
            "no comparison",
        ),
        (
            "contracts:\n  - name: a\n    when: '{ }'\n    expect: '{ }'\n    \
             key: {when: [span.a]}\n    within: 1s\n",
            "a key that one side lacks",
        ),
        (
            "contracts:\n  - name: a\n    kind: exactly\n    count: 0\n    when: '{ }'\n    \
             expect: '{ }'\n    key: [span.a]\n    within: 1s\n",
            "absence",
        ),
    ] {
        let all = errors(text);
        assert!(all.iter().any(|error| error.3.contains(says)), "{text}\n{all:#?}");
    }
    assert!(ContractSet::parse("f.yaml", "").unwrap().is_empty());
    assert!(ContractSet::parse("f.yaml", "contracts:\n").unwrap().is_empty());
}

#[test]
fn a_folder_is_one_set() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let contract = |name: &str| {
        format!(
            "contracts:\n  - name: {name}\n    when: '{{ }}'\n    expect: '{{ name = \"b\" }}'\n    \
             key: [span.a]\n    within: 1s\n"
        )
    };
    write("b.yaml", &contract("b"));
    write("a.yml", &contract("a"));
    write("notes.txt", "not a contract");
    let set = ContractSet::load_dir(folder.path()).unwrap();
    let names: Vec<&str> = set.contracts().iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    write("c.yaml", &contract("a"));
    write("d.yaml", "contracts: 3\n");
    let errors = ContractSet::load_dir(folder.path()).unwrap_err();
    assert_eq!(errors.errors.len(), 2, "{errors}");
    assert!(ContractSet::load_dir(&folder.path().join("none")).is_err());
}

/// The graphical report names the place and the remedy.
#[test]
fn diagnostics_render() {
    let errors = ContractSet::parse("f.yaml", "contracts:\n  - nam: a\n").unwrap_err();
    let report = format!("{:?}", miette::Report::new(errors));
    assert!(report.contains("did you mean `name`"), "{report}");
}
