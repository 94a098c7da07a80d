//! Requests as they are to be kept: without what limits do not let through, each log record with a
//! time.
//!
//! The log is read back later, under other limits. So where a limit took effect, or a log record
//! has no time at all, the request's protobuf is written anew, field by field as it stands, and the
//! rows are decoded from that: what is acknowledged is what comes back.

use bytes::Bytes;

use super::any::{AnyValue, KeyValue, json_text};
use super::from_json::write::{
    BYTES, FIXED64, VARINT, close, open, put_bytes, put_tag, put_varint,
};
use super::wire::{Field, Message};
use super::{DecodeError, Decoded, Limits, MAX_BODY, Rejected, decode, decode_with};
use crate::column::Buffers;
use crate::schema::SignalKind;

/// The field of a request of logs in which Lacuna notes when it came: fixed64, nanoseconds since
/// the epoch. It stands for both times of records that have neither.
///
/// Protobuf keeps the numbers from 19000 to 19999 for itself, so OTLP will never use it.
const RECEIVED: u32 = 19_553;

/// A request that was written anew is at most this many bytes longer than it was.
pub const SETTLED_MORE: usize = 11;

/// Decodes an export request that came at `received` (nanoseconds since the epoch), and gives the
/// bytes that are to be kept of it: those that the rows were decoded from.
///
/// Attributes that are left out are added to the dropped count of what they belonged to. While it
/// runs it takes twice the request's size, or the request and its rows, whichever is more, if the
/// caller keeps no copy of `body`.
///
/// # Errors
/// As [`decode_with`].
pub fn receive(
    kind: SignalKind,
    body: Bytes,
    limits: &Limits,
    received: i64,
) -> Result<(Bytes, Decoded), DecodeError> {
    let first = decode_with(kind, body.clone(), limits)?;
    let Rejected { attributes, truncated, untimed, .. } = first.rejected;
    let limited = truncated > 0 || attributes > 0;
    let untimed = kind == SignalKind::Logs && untimed > 0;
    if !limited && !untimed {
        return Ok((body, first));
    }
    drop(first);
    let mut settling = Settling {
        out: Vec::with_capacity(body.len() + SETTLED_MORE),
        limits: *limits,
        scratch: Buffers::new(Bytes::new()),
    };
    if limited {
        settling.message(request(kind), &body);
    } else {
        settling.out.extend_from_slice(&body);
    }
    let mut out = settling.out;
    if untimed && out.len() + SETTLED_MORE <= MAX_BODY {
        put_tag(&mut out, RECEIVED, FIXED64);
        out.extend_from_slice(&received.max(0).to_le_bytes());
    }
    drop(body);
    let body = Bytes::from(out);
    let mut decoded = decode(kind, body.clone())?;
    (decoded.rejected.attributes, decoded.rejected.truncated) = (attributes, truncated);
    Ok((body, decoded))
}

/// When a request of logs came, if [`receive`] noted it; else 0.
pub fn received(body: &[u8]) -> i64 {
    let (mut message, mut received) = (Message::new(body), 0);
    while let Ok(Some((number, field))) = message.next_field() {
        if let (RECEIVED, Field::Fixed64(nanos)) = (number, field) {
            received = i64::try_from(nanos).unwrap_or(0);
        }
    }
    received
}

/// What limits have to do with in a message, by field number; 0 where it has none.
struct Shape {
    attributes: u32,
    /// How many attributes were dropped.
    dropped: u32,
    /// Texts that are cut.
    texts: &'static [u32],
    /// A value that is not an attribute's.
    value: u32,
    inner: &'static [(u32, &'static Shape)],
}

const NOTHING: Shape = Shape { attributes: 0, dropped: 0, texts: &[], value: 0, inner: &[] };

static RESOURCE: Shape = Shape { attributes: 1, dropped: 2, ..NOTHING };
static SCOPE: Shape = Shape { attributes: 3, dropped: 4, ..NOTHING };

static SPANS: Shape = Shape { inner: &[(1, &RESOURCE_SPANS)], ..NOTHING };
static RESOURCE_SPANS: Shape = Shape { inner: &[(1, &RESOURCE), (2, &SCOPE_SPANS)], ..NOTHING };
static SCOPE_SPANS: Shape = Shape { inner: &[(1, &SCOPE), (2, &SPAN)], ..NOTHING };
static SPAN: Shape = Shape {
    attributes: 9,
    dropped: 10,
    texts: &[5],
    value: 0,
    inner: &[(11, &EVENT), (13, &LINK), (15, &STATUS)],
};
static EVENT: Shape = Shape { attributes: 3, dropped: 4, texts: &[2], ..NOTHING };
static LINK: Shape = Shape { attributes: 4, dropped: 5, ..NOTHING };
static STATUS: Shape = Shape { texts: &[2], ..NOTHING };

static LOGS: Shape = Shape { inner: &[(1, &RESOURCE_LOGS)], ..NOTHING };
static RESOURCE_LOGS: Shape = Shape { inner: &[(1, &RESOURCE), (2, &SCOPE_LOGS)], ..NOTHING };
static SCOPE_LOGS: Shape = Shape { inner: &[(1, &SCOPE), (2, &LOG)], ..NOTHING };
static LOG: Shape = Shape { attributes: 6, dropped: 7, value: 5, ..NOTHING };

static METRICS: Shape = Shape { inner: &[(1, &RESOURCE_METRICS)], ..NOTHING };
static RESOURCE_METRICS: Shape = Shape { inner: &[(1, &RESOURCE), (2, &SCOPE_METRICS)], ..NOTHING };
static SCOPE_METRICS: Shape = Shape { inner: &[(1, &SCOPE), (2, &METRIC)], ..NOTHING };
static METRIC: Shape = Shape {
    attributes: 12,
    dropped: 0,
    texts: &[2],
    value: 0,
    inner: &[
        (5, &NUMBERS),
        (7, &NUMBERS),
        (9, &HISTOGRAMS),
        (10, &EXPONENTIAL_HISTOGRAMS),
        (11, &SUMMARIES),
    ],
};
static NUMBERS: Shape = Shape { inner: &[(1, &NUMBER)], ..NOTHING };
static NUMBER: Shape = Shape { attributes: 7, inner: &[(5, &EXEMPLAR)], ..NOTHING };
static HISTOGRAMS: Shape = Shape { inner: &[(1, &HISTOGRAM)], ..NOTHING };
static HISTOGRAM: Shape = Shape { attributes: 9, inner: &[(8, &EXEMPLAR)], ..NOTHING };
static EXPONENTIAL_HISTOGRAMS: Shape = Shape { inner: &[(1, &EXPONENTIAL_HISTOGRAM)], ..NOTHING };
static EXPONENTIAL_HISTOGRAM: Shape = Shape { attributes: 1, inner: &[(11, &EXEMPLAR)], ..NOTHING };
static SUMMARIES: Shape = Shape { inner: &[(1, &SUMMARY)], ..NOTHING };
static SUMMARY: Shape = Shape { attributes: 7, ..NOTHING };
static EXEMPLAR: Shape = Shape { attributes: 7, ..NOTHING };

fn request(kind: SignalKind) -> &'static Shape {
    match kind {
        SignalKind::Spans => &SPANS,
        SignalKind::Logs => &LOGS,
        SignalKind::Points => &METRICS,
    }
}

/// What becomes of a value.
enum Fate<'a> {
    Whole,
    Cut(AnyValue<'a>),
    Dropped,
}

/// A request that is being written anew.
struct Settling {
    out: Vec<u8>,
    limits: Limits,
    /// The OTLP/JSON of the list or map that was looked at last.
    scratch: Buffers,
}

impl Settling {
    /// Writes the message in `bytes`. What cannot be read is written as it is: the decoder refuses
    /// it, and says where it stood.
    fn message(&mut self, shape: &Shape, bytes: &[u8]) {
        let (mut kept, mut dropped, mut before) = (0, 0u32, None);
        let mut message = Message::new(bytes);
        loop {
            let rest = message.rest();
            let Ok(Some((number, field))) = message.next_field() else {
                self.count(shape, before, dropped);
                // Nothing, unknown groups, or what cannot be read.
                return self.out.extend_from_slice(rest);
            };
            let whole = &rest[..rest.len() - message.rest().len()];
            match field {
                Field::Varint(count) if number == shape.dropped => before = Some(count),
                Field::Bytes(bytes) if number == shape.attributes => {
                    if self.attribute(number, bytes, whole, kept) {
                        kept += 1;
                    } else {
                        dropped += 1;
                    }
                }
                Field::Bytes(bytes) if number == shape.value => self.value(number, bytes, whole),
                Field::Bytes(text) if shape.texts.contains(&number) && self.is_long(text) => {
                    put_tag(&mut self.out, number, BYTES);
                    put_bytes(&mut self.out, self.limits.cut(text));
                }
                Field::Bytes(bytes) => match shape.inner.iter().find(|(n, _)| *n == number) {
                    Some((_, inner)) => {
                        let start = open(&mut self.out, number);
                        self.message(inner, bytes);
                        close(&mut self.out, start);
                    }
                    None => self.out.extend_from_slice(whole),
                },
                _ => self.out.extend_from_slice(whole),
            }
        }
    }

    /// Writes how many attributes were dropped.
    fn count(&mut self, shape: &Shape, before: Option<u64>, dropped: u32) {
        let count = (before.unwrap_or(0) as u32).saturating_add(dropped);
        if shape.dropped != 0 && count != 0 {
            put_tag(&mut self.out, shape.dropped, VARINT);
            put_varint(&mut self.out, u64::from(count));
        }
    }

    /// Writes an attribute after `kept` others; false if it is dropped.
    fn attribute(&mut self, number: u32, bytes: &[u8], whole: &[u8], kept: usize) -> bool {
        if kept >= self.limits.attributes {
            return false;
        }
        self.scratch.written.clear();
        let Ok(KeyValue { key, value }) = KeyValue::parse(bytes, &mut self.scratch, true) else {
            self.out.extend_from_slice(whole);
            return true;
        };
        let fate = if self.limits.key_fits(key) { self.fate(value) } else { Fate::Dropped };
        match fate {
            Fate::Whole => self.out.extend_from_slice(whole),
            Fate::Cut(value) => {
                let attribute = open(&mut self.out, number);
                if !key.is_empty() {
                    put_tag(&mut self.out, 1, BYTES);
                    put_bytes(&mut self.out, key);
                }
                self.put_value(2, &value);
                close(&mut self.out, attribute);
            }
            Fate::Dropped => return false,
        }
        true
    }

    /// Writes a value that is not an attribute's: a log's body, which is text or kept as JSON.
    fn value(&mut self, number: u32, bytes: &[u8], whole: &[u8]) {
        self.scratch.written.clear();
        let value = match AnyValue::parse(bytes, &mut self.scratch, true) {
            Ok(value @ (AnyValue::Str(_) | AnyValue::Any(_))) => Ok(value),
            Ok(_) => json_text(bytes, &mut self.scratch).map(AnyValue::Any),
            Err(error) => Err(error),
        };
        match value.map(|value| self.fate(value)) {
            Ok(Fate::Whole) | Err(_) => self.out.extend_from_slice(whole),
            Ok(Fate::Cut(value)) => self.put_value(number, &value),
            Ok(Fate::Dropped) => {}
        }
    }

    fn fate<'a>(&self, value: AnyValue<'a>) -> Fate<'a> {
        let mut cut = value;
        match self.limits.fit(&mut cut) {
            None => Fate::Dropped,
            Some(false) => Fate::Whole,
            Some(true) => Fate::Cut(cut),
        }
    }

    /// Whether `text` is to be cut. One that is not UTF-8 is left for the decoder to refuse.
    fn is_long(&self, text: &[u8]) -> bool {
        text.len() > self.limits.attribute_length && std::str::from_utf8(text).is_ok()
    }

    /// Writes the `AnyValue` of what was cut.
    fn put_value(&mut self, number: u32, value: &AnyValue<'_>) {
        let start = open(&mut self.out, number);
        let (member, bytes) = match value {
            AnyValue::Bytes(bytes) => (7, *bytes),
            AnyValue::Str(text) => (1, *text),
            // Nothing else can be cut.
            _ => return close(&mut self.out, start),
        };
        put_tag(&mut self.out, member, BYTES);
        put_bytes(&mut self.out, bytes);
        close(&mut self.out, start);
    }
}
