//! What is said of contract files with mistakes in them: each mistake once, where it is, and what
//! would be right.
#![allow(missing_docs, clippy::unwrap_used, clippy::vec_init_then_push, reason = "a test")]

use lacuna_contract::ContractSet;

/// All errors, one a line.
fn errors(text: &str) -> String {
    match ContractSet::parse("f.yaml", text) {
        Ok(_) => "good".to_owned(),
        Err(errors) => errors.to_string(),
    }
}

/// A whole contract with some of its lines replaced or, by an empty text, removed.
fn with(changes: &[(&str, &str)]) -> String {
    let fields = [
        ("kind", "kind: response"),
        ("when", "when: '{ name = \"a\" }'"),
        ("expect", "expect: '{ name = \"b\" }'"),
        ("key", "key: [span.id]"),
        ("within", "within: 30s"),
    ];
    let mut text = "contracts:\n  - name: c\n".to_owned();
    for (name, line) in fields {
        let changed = changes.iter().find(|(changed, _)| *changed == name);
        let line = changed.map_or(line, |(_, line)| line);
        if !line.is_empty() {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

/// A contract sees spans one at a time: what asks about their trace is refused with that reason, at its
/// place.
#[test]
fn what_needs_the_whole_trace_is_refused_with_the_reason() {
    for (expect, place, says) in [
        ("{ name = \"a\" } >> { name = \"b\" }", "`>>`", "seen one at a time"),
        ("{ name = \"a\" } &> { name = \"b\" }", "`&>`", "what belongs together is said by a key"),
        ("{ name = \"a\" } && { name = \"b\" }", "`&&`", "into one pair of braces"),
        ("{ traceDuration > 1s }", "`traceDuration`", "needs the whole trace"),
        ("{ parent.span.x = 1 }", "`parent.span.x`", "sees the whole trace"),
    ] {
        let said = errors(&with(&[("expect", &format!("expect: '{expect}'"))]));
        assert!(said.contains(place) && said.contains(says), "{expect}: {said}");
    }
    let said = errors(&with(&[("key", "key: [parent.span.id]")]));
    assert!(said.contains("needs the whole trace"), "{said}");
}

#[test]
fn a_wrong_kind_is_all_that_is_wrong() {
    let mut all = Vec::new();
    all.push(errors(&with(&[("kind", "kind: respons"), ("within", "")])));
    all.push(errors(&with(&[("kind", "kind: heartbeet"), ("within", "every: 1m"), ("key", "")])));
    insta::assert_snapshot!(all.join("\n--\n"));
}

#[test]
fn a_misspelt_field_is_not_missing_too() {
    let mut all = Vec::new();
    all.push(errors(&with(&[("expect", "expcet: '{ name = \"b\" }'")])));
    all.push(errors(&with(&[("key", "kye: [span.id]"), ("within", "witin: 30s")])));
    all.push(errors("contracts:\n  - nmae: c\n    when: '{ }'\n"));
    insta::assert_snapshot!(all.join("\n--\n"));
}

#[test]
fn a_balance_without_its_kind_is_told_once() {
    let mut all = Vec::new();
    all.push(errors(&with(&[
        ("kind", ""),
        ("when", "left: 'count { name = \"a\" }'"),
        ("expect", "right: 'count { name = \"b\" }'"),
    ])));
    insta::assert_snapshot!(all.join("\n--\n"));
}

#[test]
fn key_errors_come_with_selector_errors() {
    let mut all = Vec::new();
    all.push(errors(&with(&[
        ("when", "when: '{ name = \"a\" && status != eror }'"),
        ("expect", "expect: 'log { bdy = \"b\" }'"),
        ("key", "key: [span.id, spam.n]"),
        ("within", "within: 30"),
    ])));
    insta::assert_snapshot!(all.join("\n--\n"));
}

#[test]
fn unknown_fields_scopes_and_values_are_named() {
    let mut all = Vec::new();
    for selector in [
        "{ nmae = \"a\" }",
        "{ spam.id = 1 }",
        "{ kind = sever }",
        "{ status != eror }",
        "{ name = a }",
        "log { name = \"a\" }",
        "log { severity >= warning }",
    ] {
        let when = format!("when: '{selector}'");
        let key = ("key", "key: [.id]");
        all.push(errors(&with(&[("when", &when), key])));
    }
    insta::assert_snapshot!(all.join("\n--\n"));
}

#[test]
fn selectors_that_match_nothing_say_why() {
    let mut all = Vec::new();
    for selector in [
        "{ span.a = 1 && span.a = 2 }",
        "{ duration < 0ns }",
        "{ name = \"a\" && span.n > 5 && span.n < 3 }",
        "{ name = \"a\" && status = error && status != error }",
        "{ name = nil }",
    ] {
        all.push(errors(&with(&[("when", &format!("when: '{selector}'"))])));
    }
    insta::assert_snapshot!(all.join("\n--\n"));
}

#[test]
fn keys_that_one_side_lacks_are_told_by_scope() {
    let mut all = Vec::new();
    all.push(errors(&with(&[("expect", "expect: 'log { }'")])));
    all.push(errors(&with(&[("key", "key: {when: [span.id]}")])));
    all.push(errors(&with(&[("key", "key: {when: [span.id, span.n], expect: [span.id]}")])));
    all.push(errors(&with(&[("key", "key: [id]")])));
    insta::assert_snapshot!(all.join("\n--\n"));
}

#[test]
fn yaml_errors_stand_where_they_are() {
    let mut all = Vec::new();
    all.push(errors("contracts:\n  - name: c\n\twhen: '{ }'\n"));
    all.push(errors("contracts:\n\t- name: c\n"));
    all.push(errors("contracts:\n  - name: c\n    when: '{ }\n"));
    all.push(errors("contracts:\n  - name: c\n   when: x\n"));
    insta::assert_snapshot!(all.join("\n--\n"));
}

#[test]
fn deadlines_beyond_retention_are_told() {
    let set = ContractSet::parse("f.yaml", &with(&[("within", "within: 8d")])).unwrap();
    let week = std::time::Duration::from_secs(7 * 86_400);
    let errors: Vec<String> = set.beyond_retention(week).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(errors.join("\n"));
    assert!(set.beyond_retention(week * 2).is_empty());
}
