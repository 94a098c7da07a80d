//! The JSON reader, held against serde_json.

use proptest::prelude::*;

use super::parse::{Json, Kind};

fn ours(text: &[u8]) -> Result<(), super::error::Syntax> {
    let mut json = Json::new(text);
    json.skip()?;
    json.end()
}

fn theirs(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Texts that are JSON, nearly JSON, or made of its pieces.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "\\ud83d", "\\udE00", "\\n", "a", "true",
        "false", "null", "nul", "0", "-", "1.5", "e", "E+7", "-0", "00", ".", " ", "\n", "\t",
        "\u{1}", "é", "\"k\":", "[]", "{}", "\"\"",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn takes_and_refuses_what_serde_json_does(text in texts()) {
        prop_assert_eq!(ours(text.as_bytes()).is_ok(), theirs(text.as_bytes()), "{}", text);
    }

    #[test]
    fn takes_all_json_and_refuses_every_cut(value in value(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&value).unwrap()
        } else {
            value.to_string()
        };
        prop_assert!(ours(text.as_bytes()).is_ok(), "{}", text);
        for cut in 0..text.len() {
            let cut = &text.as_bytes()[..cut];
            prop_assert_eq!(ours(cut).is_ok(), theirs(cut));
        }
    }

    #[test]
    fn strings_read_as_serde_json_reads_them(text in any::<String>(), escaped in any::<bool>()) {
        let mut json = serde_json::to_string(&text).unwrap();
        if escaped {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}"));
            json = format!("\"{}\"", units.collect::<String>());
        }
        let mut json = Json::new(json.as_bytes());
        prop_assert_eq!(json.text().unwrap(), text);
    }
}

#[test]
fn a_lone_surrogate_becomes_a_replacement_character() {
    for (json, text) in [
        (r#""a\ud83d""#, "a\u{fffd}"),
        (r#""\ud83dz""#, "\u{fffd}z"),
        (r#""\ude00\ud83d\ude00""#, "\u{fffd}😀"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
    ] {
        assert_eq!(Json::new(json.as_bytes()).text().unwrap(), text, "{json}");
    }
}

#[test]
fn an_error_has_its_line_and_column() {
    for (text, place) in [
        ("{\n  \"é\": tru }", (2, 8)),
        ("[1,,2]", (1, 4)),
        ("{\"a\":1", (1, 7)),
        ("\n\n[1 2]", (3, 4)),
        ("[01]", (1, 3)),
        ("", (1, 1)),
    ] {
        let error = ours(text.as_bytes()).unwrap_err();
        assert_eq!(error.line_and_column(text.as_bytes()), place, "{text:?}: {error:?}");
    }
}

#[test]
fn nesting_has_an_end() {
    let deep = "[".repeat(1_000_000);
    assert_eq!(ours(deep.as_bytes()).unwrap_err().what, "values nested too deep");
    assert_eq!(Json::new(b" \n[").peek(), Ok(Kind::Array));
}
