//! Random expressions over random rows: the mask against the word-by-word reading.

use proptest::prelude::*;

use super::super::*;
use super::model::{Attrs, Row, Val, batch};

const KEYS: [&str; 3] = ["a", "b.c", "key with = and \"quotes\" \\"];
const TEXTS: [&str; 8] = [
    "",
    "a",
    "ab",
    "abcdefghijkl",
    "abcdefghijklm",
    "abcdefghijklmn",
    "true",
    "abcd\nefghijklm 12",
];
const PATTERNS: [&str; 9] = [
    "",
    "a.*",
    ".*",
    "ab?",
    "abcdefghijkl",
    "abcdefghijkl.+",
    "(?i)A|AB",
    "[a-c]{2,}.*",
    "abcd.e.*",
];

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(&TEXTS[..]).prop_map(str::to_owned)
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(&KEYS[..]).prop_map(str::to_owned)
}

fn double() -> impl Strategy<Value = f64> {
    prop::sample::select(&[-1.5, 0.0, 1.0, 2.0, 1e21][..])
}

fn value() -> impl Strategy<Value = Val> {
    prop_oneof![
        4 => text().prop_map(Val::Str),
        2 => (-2i64..3).prop_map(Val::Int),
        2 => double().prop_map(Val::Float),
        2 => any::<bool>().prop_map(Val::Bool),
        1 => prop::collection::vec(any::<u8>(), 0..3).prop_map(Val::Bytes),
    ]
}

fn attrs() -> impl Strategy<Value = Attrs> {
    // Keys repeat, so that later values go to the overflow column.
    prop::collection::vec((key(), value()), 0..4)
}

fn row(log: bool) -> impl Strategy<Value = Row> {
    let event = (text(), -5i64..5, attrs());
    let link = (1u8..4, attrs());
    (
        (text(), 0u8..30, -3i64..1_000, 1u8..5),
        (attrs(), attrs(), attrs()),
        prop::collection::vec(event, 0..3),
        prop::collection::vec(link, 0..3),
    )
        .prop_map(
            move |((text, code, duration, id), (own, resource, scope), events, links)| Row {
                text,
                code,
                duration,
                id,
                parent: None,
                own,
                resource,
                scope,
                events: if log { Vec::new() } else { events },
                links: if log { Vec::new() } else { links },
            },
        )
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        4 => text().prop_map(Literal::Str),
        2 => prop::sample::select(&PATTERNS[..]).prop_map(|p| Literal::Str(p.to_owned())),
        2 => (-2i64..3).prop_map(Literal::Int),
        1 => (-2i64..1_000).prop_map(Literal::Duration),
        1 => double().prop_map(Literal::Float),
        1 => any::<bool>().prop_map(Literal::Bool),
        1 => prop::sample::select(StatusCode::ALL).prop_map(Literal::Status),
        1 => prop::sample::select(SpanKind::ALL).prop_map(Literal::Kind),
        1 => prop::sample::select(SeverityLevel::ALL).prop_map(Literal::Severity),
        1 => (1u8..5).prop_map(|id| Literal::Str(format!("{id:02x}").repeat(8))),
        2 => Just(Literal::Nil),
    ]
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        2 => (prop::sample::select(&FieldScope::ALL[..]), key())
            .prop_map(|(scope, key)| Field::Attribute { scope, key }),
        1 => prop::sample::select(&Intrinsic::ALL[..]).prop_map(Field::Intrinsic),
    ]
}

fn comparison(kind: SignalKind) -> impl Strategy<Value = Expr> {
    let operand = prop_oneof![
        8 => literal().prop_map(Operand::Literal),
        1 => field().prop_map(Operand::Field),
    ];
    (field(), prop::sample::select(&Op::ALL[..]), operand)
        .prop_map(|(field, op, value)| Expr::Compare { field, op, value })
        .prop_filter("meaningful", move |expr| Selector::new(kind, expr.clone()).is_ok())
}

fn expr(kind: SignalKind) -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![12 => comparison(kind), 1 => any::<bool>().prop_map(Expr::Const)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expr::And),
            prop::collection::vec(inner.clone(), 0..4).prop_map(Expr::Or),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

fn agrees(kind: SignalKind, expr: Expr, rows: &[Row]) -> Result<(), TestCaseError> {
    let batch = batch(rows, kind == SignalKind::Logs);
    let selector = Selector::new(kind, expr).unwrap();
    let mask: Vec<bool> = selector.mask(&batch).iter().map(|bit| bit.unwrap()).collect();
    let naive: Vec<bool> = rows.iter().map(|row| row.passes(selector.expr())).collect();
    prop_assert_eq!(&mask, &naive, "{}", selector);
    // The columns that it says it reads are enough.
    let wanted = selector.columns();
    let schema = batch.record().schema();
    let names: Vec<&str> =
        schema.fields().iter().map(|f| f.name().as_str()).filter(|n| wanted.wants(n)).collect();
    let projected = batch.project(&names).unwrap();
    let fewer: Vec<bool> = selector.mask(&projected).iter().map(|bit| bit.unwrap()).collect();
    prop_assert_eq!(&fewer, &naive, "{} over {:?}", &selector, names);
    // And the index terms hold wherever the selector does.
    for term in selector.required_equalities() {
        let term = if term.number {
            let number = Literal::Float(term.text.parse().unwrap());
            Expr::compare(term.field.clone(), Op::Eq, number)
        } else {
            Expr::text(term.field.clone(), term.text)
        };
        let holds = rows.iter().zip(&naive).all(|(row, passes)| !passes || row.passes(&term));
        prop_assert!(holds, "{} requires {}", selector, term);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn span_masks_agree(
        expr in expr(SignalKind::Spans),
        rows in prop::collection::vec(row(false), 0..90),
    ) {
        agrees(SignalKind::Spans, expr, &rows)?;
    }

    #[test]
    fn log_masks_agree(
        expr in expr(SignalKind::Logs),
        rows in prop::collection::vec(row(true), 0..90),
    ) {
        agrees(SignalKind::Logs, expr, &rows)?;
    }

    #[test]
    fn written_selectors_read_back(expr in expr(SignalKind::Spans), logs in expr(SignalKind::Logs)) {
        for (kind, expr) in [(SignalKind::Spans, expr), (SignalKind::Logs, logs)] {
            let selector = Selector::new(kind, expr).unwrap();
            let text = selector.to_string();
            let again = Selector::parse(&text);
            prop_assert!(again.is_ok(), "{}: {:?}", text, again);
            prop_assert_eq!(again.unwrap(), selector, "{}", text);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,40}", middle in "[a-z.:=!~<>&|() \"0-9`-]{0,40}") {
        let _ = Selector::parse(&text);
        let _ = Selector::parse(&format!("{{ {middle} }}"));
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(text.get(error.offset()..error.offset() + error.len()).is_some());
        }
    }
}

#[test]
fn a_batch_of_another_kind_has_no_match() {
    let rows = batch(&[], false);
    assert_eq!(Selector::parse("log { }").unwrap().mask(&rows).true_count(), 0);
}

#[test]
fn sliced_batches_read_their_own_rows() {
    let rows: Vec<Row> = (0..200u8)
        .map(|i| Row {
            text: format!("operation number {}", i % 7),
            code: i,
            duration: i64::from(i),
            id: i % 4 + 1,
            parent: None,
            own: vec![("a".into(), Val::Int(i64::from(i)))],
            resource: Vec::new(),
            scope: Vec::new(),
            events: Vec::new(),
            links: Vec::new(),
        })
        .collect();
    let whole = batch(&rows, false);
    let texts = [
        "{ name = \"operation number 3\" && status = error && span.a > 50 && duration < 150ns }",
        "{ name =~ \"operation .* 3\" || kind = server }",
        "{ !(span.a < 100) }",
    ];
    for text in texts {
        let selector = Selector::parse(text).unwrap();
        let mask: Vec<bool> = selector.mask(&whole.slice(33, 130)).iter().flatten().collect();
        let naive: Vec<bool> =
            rows[33..163].iter().map(|row| row.passes(selector.expr())).collect();
        assert_eq!(mask, naive, "{text}");
        assert!(naive.contains(&true), "{text}");
    }
}
