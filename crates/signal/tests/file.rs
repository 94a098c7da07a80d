//! Files of requests: framing, cut ends, and which kind a request is.

#![allow(clippy::unwrap_used, reason = "tests say what broke by panicking")]

mod support;

use std::io::{BufReader, Cursor};

use bytes::Bytes;
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::file::{
    FileError, Framing, RawRequest, Requests, protobuf_kind, read_request,
};
use lacuna_signal::otlp::{DecodeError, MAX_BODY, decode, decode_json};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

fn requests(file: &[u8]) -> Vec<Result<RawRequest, FileError>> {
    // A buffer of a few bytes, so that every border falls somewhere between two reads.
    Requests::new(BufReader::with_capacity(3, Cursor::new(file))).collect()
}

fn good(file: &[u8]) -> Vec<RawRequest> {
    requests(file).into_iter().map(Result::unwrap).collect()
}

fn sized(messages: &[Vec<u8>]) -> Vec<u8> {
    let framed = |message: &Vec<u8>| {
        [&u32::try_from(message.len()).unwrap().to_be_bytes(), message.as_slice()].concat()
    };
    messages.iter().flat_map(framed).collect()
}

#[test]
fn lines_have_numbers_and_offsets() {
    let found = good(b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{}\n{\"b\"");
    let seen: Vec<_> =
        found.iter().map(|r| (r.number, r.offset, &r.bytes[..], r.cut_off)).collect();
    let expected: [(u64, u64, &[u8], bool); 3] =
        [(1, 0, b"{\"a\":1}\r", false), (4, 16, b"{}", false), (5, 19, b"{\"b\"", true)];
    assert_eq!(seen, expected);
    assert!(requests(b"").is_empty());
    assert!(requests(b"\n \n").is_empty());
}

#[test]
fn a_size_that_cannot_be_ends_the_file() {
    let mut file = sized(&[b"abc".to_vec()]);
    file.extend(u32::MAX.to_be_bytes());
    file.extend([7; 100]);
    let found = requests(&file);
    assert_eq!(found.len(), 2);
    let error = found[1].as_ref().unwrap_err();
    assert!(matches!(
        error,
        FileError::TooLarge { number: 2, offset: 7, bytes: Some(0xffff_ffff), .. }
    ));
    let told = format!("message 2, at byte 7, has 4294967295 bytes, at most {MAX_BODY} are read");
    assert_eq!(error.to_string(), told);
}

#[test]
fn what_is_no_request_is_told() {
    for (text, told) in [
        ("{\"spans\":[]}", "expected an object with `resourceSpans`"),
        ("{\"resourceSpans\":", "line 1, column 18"),
        ("[1]", "neither a JSON object nor a protobuf request"),
        ("hello", "neither a JSON object nor a protobuf request"),
    ] {
        let error = read_request(Bytes::from_static(text.as_bytes())).unwrap_err().to_string();
        assert!(error.contains(told), "{text}: {error}");
    }
}

#[test]
fn original_names_are_read_and_unknown_ones_reported() {
    let snake = br#"{"resource_spans":[{"scope_spans":[{"spans":[
        {"trace_id":"0102030405060708090a0b0c0d0e0f10","span_id":"0102030405060708"}]}]}]}"#;
    let read = read_request(Bytes::from_static(snake)).unwrap();
    assert_eq!((read.kind, read.decoded.batch.num_rows()), (SignalKind::Spans, 1));

    for known in ["{}", r#"{"resourceSpans":[]}"#, r#"{"x":1,"resourceSpans":null}"#] {
        assert!(decode_json(SignalKind::Spans, known.as_bytes()).unwrap().0.is_empty(), "{known}");
    }
    let error = decode_json(SignalKind::Spans, br#"{"resourcespans":[],"other":{}}"#).unwrap_err();
    assert!(matches!(&error, DecodeError::Unreadable { first, .. }
        if first == "unknown field `resourcespans`, `other`, expected `resourceSpans`"));
    let error = decode_json(SignalKind::Logs, br#"{"resourceSpans":[]}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `resourceSpans`, expected `resourceLogs`"), "{error}");
}

/// A span with a trace id of the wrong length stands first: its neighbour is a span all the same.
#[test]
fn a_bad_id_does_not_change_the_kind() {
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    let span = |trace_id: Vec<u8>| Span {
        trace_id,
        span_id: vec![1; 8],
        name: "work".to_owned(),
        start_time_unix_nano: 5,
        ..Span::default()
    };
    let scope =
        ScopeSpans { spans: vec![span(vec![1; 3]), span(vec![1; 16])], ..Default::default() };
    let resource = ResourceSpans { scope_spans: vec![scope], ..Default::default() };
    let request = opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest {
        resource_spans: vec![resource],
    };
    let read = read_request(request.encode_to_vec().into()).unwrap();
    assert_eq!(read.kind, SignalKind::Spans);
    assert_eq!((read.decoded.batch.num_rows(), read.decoded.rejected.items), (1, 1));
}

proptest! {
    #[test]
    fn sized_messages_come_back(messages in vec(vec(any::<u8>(), 0..40), 0..8), cut in 0..400usize) {
        let file = sized(&messages);
        let whole: Vec<_> = good(&file).into_iter().map(|r| r.bytes.to_vec()).collect();
        let expected: Vec<_> = messages.iter().filter(|m| !m.is_empty()).cloned().collect();
        prop_assert_eq!(&whole, &expected);
        // What is cut off is told to be; all before it is as it was.
        let file = &file[..cut.min(file.len())];
        let (ends, rest): (Vec<_>, Vec<_>) = good(file).into_iter().partition(|r| r.cut_off);
        prop_assert!(ends.len() <= 1);
        let rest: Vec<_> = rest.into_iter().map(|r| r.bytes.to_vec()).collect();
        prop_assert_eq!(&rest, &expected[..rest.len()]);
    }

    #[test]
    fn lines_come_back(lines in vec("[ -~]{0,30}", 0..8)) {
        let file = lines.join("\n").into_bytes();
        let found: Vec<_> = good(&file).into_iter().map(|r| r.bytes.to_vec()).collect();
        let expected: Vec<_> =
            lines.iter().filter(|l| !l.trim().is_empty()).map(|l| l.clone().into_bytes()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn any_bytes_end(file in vec(any::<u8>(), 0..200)) {
        let requests = Requests::new(&file[..]);
        let framing = file.first().map(|first| match first {
            9 | 10 | 13 | 32.. => Framing::Lines,
            _ => Framing::Sized,
        });
        let mut requests = requests;
        for request in requests.by_ref().flatten() {
            prop_assert!(request.cut_off || !request.bytes.is_empty());
            let _ = read_request(request.bytes);
        }
        prop_assert_eq!(requests.framing(), framing);
    }

    /// A request with a few bytes changed, left out or put in: what can be read of it is what the
    /// log would give back, and the request beside it is whole.
    #[test]
    fn a_spoiled_request_is_read_or_told_and_its_neighbour_is_whole(
        traces in support::traces(true), logs in support::logs(true),
        metrics in support::metrics::metrics(true),
        edits in vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let json = serde_json::to_vec(&logs).unwrap();
        for body in [traces.encode_to_vec(), logs.encode_to_vec(), metrics.encode_to_vec(), json] {
            let mut spoiled = body.clone();
            for (at, byte, what) in &edits {
                if spoiled.is_empty() {
                    break;
                }
                let at = at.index(spoiled.len());
                match what {
                    0 => spoiled[at] = *byte,
                    1 => _ = spoiled.remove(at),
                    _ => spoiled.insert(at, *byte),
                }
            }
            for request in good(&sized(&[spoiled, body.clone()])) {
                let neighbour = request.number == 2;
                prop_assert!(!neighbour || request.bytes == body);
                if let Ok(read) = read_request(request.bytes) {
                    let again = decode(read.kind, read.body).unwrap();
                    prop_assert_eq!(again.batch.num_rows(), read.decoded.batch.num_rows());
                }
            }
        }
    }

    /// Whatever has rows is known for what it is.
    #[test]
    fn kinds_are_told_apart(
        traces in support::traces(true), logs in support::logs(true),
        metrics in support::metrics::metrics(true),
    ) {
        for (kind, body) in [
            (SignalKind::Spans, traces.encode_to_vec()),
            (SignalKind::Logs, logs.encode_to_vec()),
            (SignalKind::Points, metrics.encode_to_vec()),
        ] {
            let Ok(decoded) = decode(kind, body.clone().into()) else { continue };
            if decoded.batch.num_rows() > 0 {
                prop_assert_eq!(protobuf_kind(&body), Some(kind));
            }
        }
    }
}
