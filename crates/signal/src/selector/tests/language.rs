//! Parsing, writing and errors.

use super::super::*;
use crate::schema::{OVERFLOW, Scope};

fn rewritten(text: &str) -> String {
    let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let written = selector.to_string();
    let again = Selector::parse(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(again, selector, "{written}");
    written
}

#[test]
fn writes_what_it_read() {
    for (text, written) in [
        ("{}", "{ }"),
        ("{ true }", "{ }"),
        ("log{}", "log { }"),
        ("{name=\"a\"&&status!=error}", "{ name = \"a\" && status != error }"),
        (
            "{ (name = `a\\d` || kind = server) && !(.x >= 1.5) }",
            "{ (name = \"a\\\\d\" || kind = server) && !(.x >= 1.5) }",
        ),
        ("{ span.batch_id != nil }", "{ span.batch_id != nil }"),
        ("{ 500ms < duration }", "{ duration > 500ms }"),
        ("{ duration > 1h30m }", "{ duration > 90m }"),
        ("{ duration > 1.5ms }", "{ duration > 1500us }"),
        ("{ span.n = -3 && span.f = -2e3 }", "{ span.n = -3 && span.f = -2000.0 }"),
        ("{ span.ok }", "{ span.ok = true }"),
        ("{ !span.ok }", "{ !(span.ok = true) }"),
        ("{ service = \"pay\" }", "{ resource.service.name = \"pay\" }"),
        ("{ span.\"a b\" = 1 && span.a\"=\"c = 2 }", "{ span.\"a b\" = 1 && span.\"a=c\" = 2 }"),
        ("{ span.http-x/y@z[0] = 1 }", "{ span.http-x/y@z[0] = 1 }"),
        (
            "{ trace:id = \"0af7651916cd43dd8448eb211c80319c\" && parentID = nil }",
            "{ trace:id = \"0af7651916cd43dd8448eb211c80319c\" && span:parentID = nil }",
        ),
        (
            "log { body =~ \"Assigned .*\" && severity >= warn }",
            "log { body =~ \"Assigned .*\" && severity >= warn }",
        ),
        (
            "log { log.event_id = resource.id || severity = 13 }",
            "log { log.event_id = resource.id || severity = 13 }",
        ),
        (
            "{ any.error = \"true\" && event:name = \"exception\" && link.x = 1 }",
            "{ any.error = \"true\" && event:name = \"exception\" && link.x = 1 }",
        ),
        ("{ a.b = 1 }", ""),
    ] {
        if written.is_empty() {
            assert!(Selector::parse(text).is_err(), "{text}");
        } else {
            assert_eq!(rewritten(text), written);
        }
    }
}

/// Errors say where, what stands there and what would be right.
#[test]
fn errors_point_and_help() {
    for (text, column, at, says) in [
        ("", 1, "", "expected `{`"),
        ("name = \"a\"", 1, "name", "expected `{`"),
        ("{ name = \"a\"", 13, "", "expected `}`"),
        ("{ name = \"a\" } x", 16, "x", "after the end"),
        ("{ nmae = \"a\" }", 3, "nmae", "did you mean `name`"),
        ("{ spam.x = 1 }", 3, "spam.x", "did you mean `span.x`"),
        ("{ correlation_id = \"a\" }", 3, "correlation_id", "`span.correlation_id`"),
        ("{ body = \"a\" }", 3, "body", "log { … }"),
        ("log { span.a = 1 }", 7, "span.a", "without `log`"),
        ("{ status = warn }", 12, "warn", "unset, ok, error"),
        ("{ status = \"error\" }", 12, "\"error\"", "unset, ok, error"),
        ("{ status > error }", 10, ">", "use = and !="),
        ("{ duration > 5 }", 14, "5", "5ms"),
        ("{ duration > 5 parsecs }", 14, "5", "5ms"),
        ("{ duration > 5parsecs }", 14, "5parsecs", "units are"),
        ("{ name = 5 }", 10, "5", "\"5\""),
        ("{ name =~ \"a(\" }", 11, "\"a(\"", "unclosed group"),
        ("{ name =~ \"a)(b\" }", 11, "\"a)(b\"", "unopened group"),
        ("{ span.a =~ 5 }", 13, "5", "\"5\""),
        ("{ span.a = error }", 12, "error", "in quotes"),
        ("{ span.a > nil }", 10, ">", "= and !="),
        ("{ span.a == 1 }", 11, "=", "expected a field or a value"),
        ("{ span.a }", 0, "", ""),
        ("{ name }", 8, "}", "operator"),
        ("{ 1 = 1 }", 3, "1 = 1", "must be a field"),
        ("{ name = 'a' }", 10, "'", "double quotes"),
        ("{ name = \"a }", 10, "\"a }", "not closed"),
        ("{ name = \"\\q\" }", 11, "\\q", "unknown escape"),
        ("{ trace:id = \"xyz\" }", 14, "\"xyz\"", "hexadecimal"),
        ("{ traceDuration > 1s }", 3, "traceDuration", "whole trace"),
        ("{ any.a != \"b\" }", 9, "!=", "!(any.a = \"b\")"),
        ("{ any.a = 1 }", 11, "1", "\"1\""),
        ("{ event.a = span.b }", 3, "event.a = span.b", "several values"),
        ("{ span. = 1 }", 3, "span.", "key"),
        ("{ é = \"ü\" && nmae = 1 }", 3, "é", "not a field"),
        ("{ .é = \"ü\" && nmae = 1 }", 15, "nmae", "did you mean"),
        ("{ span.n = 99999999999999999999 }", 12, "99999999999999999999", "too large"),
    ] {
        let Err(error) = Selector::parse(text) else {
            assert!(says.is_empty(), "{text} must not parse");
            continue;
        };
        assert_eq!(error.column(), column, "{text}: {error}");
        assert_eq!(error.text(), at, "{text}: {error}");
        assert_eq!(&text[error.offset()..error.offset() + error.len()], at, "{text}");
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    for open in ["(", "!", "!("] {
        let text = format!("{{ {} }}", open.repeat(100_000));
        assert!(Selector::parse(&text).unwrap_err().to_string().contains("deeply"));
    }
    let many = vec!["span.a = 1"; 5_000].join(" || ");
    assert!(Selector::parse(&format!("{{ {many} }}")).is_err());
}

#[test]
fn programmatic_selectors_are_checked() {
    let bad = Expr::compare(Intrinsic::Body, Op::Eq, Literal::Str("x".into()));
    assert!(Selector::new(SignalKind::Spans, bad.clone()).is_err());
    assert!(Selector::new(SignalKind::Logs, bad).is_ok());
    let id = Expr::compare(Intrinsic::SpanId, Op::Ne, Literal::Nil);
    assert!(Selector::new(SignalKind::Points, id).is_err());
    for text in ["metric { }", r#"metric { name = "x" && point.a = 1 && service =~ "y.*" }"#] {
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.kind(), SignalKind::Points);
        assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
    }
    let error = Selector::parse("metric { span.a = 1 }").unwrap_err().to_string();
    assert!(error.contains("metric points have no `span.a`"), "{error}");
    let nan =
        Expr::compare(Field::attribute(FieldScope::Span, "x"), Op::Eq, Literal::Float(f64::NAN));
    assert!(Selector::new(SignalKind::Spans, nan).is_err());
}

#[test]
fn tells_what_it_reads_and_what_an_index_can_answer() {
    let text = "{ service = \"pay\" && name = \"charge\" && span.order = \"7\" && \
                (span.a = \"x\" || status = error) && !(span.b = \"y\") && span.n = 3 }";
    let selector = Selector::parse(text).unwrap();
    let columns = selector.columns();
    for name in
        ["name", "status_code", "resource.service.name", "span:int.order", "span.b", OVERFLOW]
    {
        assert!(columns.wants(name), "{name}");
    }
    for name in ["kind", "span.other", "log.a", "events"] {
        assert!(!columns.wants(name), "{name}");
    }
    assert!(columns.attributes.contains(&(Scope::Resource, "service.name".to_owned())));
    let required: Vec<String> = selector
        .required_equalities()
        .iter()
        .map(|term| format!("{} = {}", term.field, term.text))
        .collect();
    assert_eq!(
        required,
        ["resource.service.name = pay", "name = charge", "span.order = 7", "span.n = 3"]
    );
}

#[test]
fn a_field_may_be_a_part_of_a_text() {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use prost::Message;
    let texts = ["took order_id=17, done", "nothing here", "order_id=x-9"];
    let record = |text: &&str| {
        let value = Some(any_value::Value::StringValue((*text).to_owned()));
        LogRecord { body: Some(AnyValue { value }), ..LogRecord::default() }
    };
    let log_records = texts.iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let batch = crate::otlp::decode(SignalKind::Logs, body.into()).unwrap().batch;
    let text = r#"body =~ "order_id=([\\w-]+)""#;
    let field = FieldAccess::parse(SignalKind::Logs, text).unwrap();
    assert_eq!(field.to_string(), text);
    assert_eq!(FieldAccess::parse(SignalKind::Logs, &field.to_string()).unwrap(), field);
    assert_ne!(FieldAccess::parse(SignalKind::Logs, "body").unwrap(), field);
    let index = BatchIndex::new(&batch);
    let reader = field.bind(&index);
    let found: Vec<Option<String>> =
        (0..3).map(|row| reader.get(row).map(|value| value.text().into_owned())).collect();
    assert_eq!(found, [Some("17".to_owned()), None, Some("x-9".to_owned())]);

    for (text, problem) in [
        ("body =~ order_id", "in quotes"),
        (r#"body =~ "order_id""#, "has no group"),
        (r#"body =~ "(a)(b)""#, "2 groups"),
        (r#"body =~ "(a""#, "bad regular expression"),
        (r#"bdy =~ "(a)""#, "`bdy` is not a field"),
        (r#"name =~ "(a)""#, "have no `name`"),
    ] {
        let error = FieldAccess::parse(SignalKind::Logs, text).unwrap_err();
        assert!(error.problem().contains(problem), "{text}: {error}");
    }
}
