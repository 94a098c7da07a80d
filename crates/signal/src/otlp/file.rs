//! Files of OTLP requests: one a line in OTLP/JSON, or each after its size, as the OpenTelemetry
//! Collector's file exporter writes them.
//!
//! Source: the file exporter's README, "File Format": a JSON object a line; or, with `format: proto`
//! or a compression, "each encoded object is preceded by 4 bytes (an unsigned 32 bit integer) which
//! represent the number of bytes contained in the encoded object", big-endian.

use std::io::{self, BufRead, Read};

use bytes::Bytes;

use super::wire::{Field, Message};
use super::{DecodeError, Decoded, MAX_BODY, decode, decode_json, json_kind};
use crate::schema::SignalKind;

/// How the requests of a file are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One a line.
    Lines,
    /// Each preceded by its size in 4 bytes, big-endian.
    Sized,
}

impl Framing {
    /// The framing of a file that begins with `first`.
    ///
    /// Sizes of what can be read at all begin with a byte of at most 0x10; text begins with a
    /// printable character, white space or a byte order mark.
    fn of(first: u8) -> Self {
        match first {
            b'\t' | b'\n' | b'\r' | 0x20.. => Self::Lines,
            _ => Self::Sized,
        }
    }

    /// What one request of such a file is called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Lines => "line",
            Self::Sized => "message",
        }
    }
}

/// One request as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRequest {
    /// Its line, or its number, from 1.
    pub number: u64,
    /// Where it begins: bytes from the beginning of the (decompressed) file.
    pub offset: u64,
    /// Its bytes, never empty; without a line's end or the size.
    pub bytes: Bytes,
    /// Whether the file ends before it does: a line without an end, or fewer bytes than the size.
    pub cut_off: bool,
}

/// Why a place in a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read on, or cannot be decompressed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A request is larger than [`MAX_BODY`]. A line is passed over; after a size nothing more can
    /// be read.
    #[error("{} {number}, at byte {offset}, has {} bytes, at most {MAX_BODY} are read", framing.noun(),
        bytes.map_or("too many".to_owned(), |bytes| bytes.to_string()))]
    TooLarge {
        /// Its line, or its number, from 1.
        number: u64,
        /// Where it begins.
        offset: u64,
        /// Its size, if it is known.
        bytes: Option<u64>,
        /// How the file's requests are told apart.
        framing: Framing,
    },
}

/// The requests of a file, one after the other. Ends after an error from which there is no way on.
#[derive(Debug)]
pub struct Requests<R> {
    reader: R,
    framing: Option<Framing>,
    number: u64,
    offset: u64,
    ended: bool,
}

impl<R: BufRead> Requests<R> {
    /// The requests in `reader`, which gives decompressed bytes.
    pub fn new(reader: R) -> Self {
        Self { reader, framing: None, number: 0, offset: 0, ended: false }
    }

    /// How they are told apart; `None` before the first was asked for, and of an empty file.
    pub fn framing(&self) -> Option<Framing> {
        self.framing
    }

    fn read(&mut self) -> Result<Option<RawRequest>, FileError> {
        let framing = match self.framing {
            Some(framing) => framing,
            None => {
                let Some(first) = self.reader.fill_buf()?.first().copied() else { return Ok(None) };
                *self.framing.insert(Framing::of(first))
            }
        };
        match framing {
            Framing::Lines => self.line(),
            Framing::Sized => self.sized(),
        }
    }

    fn line(&mut self) -> Result<Option<RawRequest>, FileError> {
        loop {
            let mut line = Vec::new();
            let limit = MAX_BODY as u64 + 2;
            let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(None);
            }
            let offset = self.offset;
            self.number += 1;
            self.offset += read as u64;
            let ended = line.pop_if(|last| *last == b'\n').is_some();
            if line.len() > MAX_BODY {
                self.offset += if ended { 0 } else { skip_line(&mut self.reader)? };
                let (number, framing) = (self.number, Framing::Lines);
                return Err(FileError::TooLarge { number, offset, bytes: None, framing });
            }
            // A byte order mark is no part of JSON, but some write one.
            let mark = if offset == 0 && line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
            let text = Bytes::from(line).slice(mark..);
            if text.trim_ascii().is_empty() {
                continue;
            }
            let number = self.number;
            return Ok(Some(RawRequest { number, offset, bytes: text, cut_off: !ended }));
        }
    }

    fn sized(&mut self) -> Result<Option<RawRequest>, FileError> {
        loop {
            let offset = self.offset;
            let mut size = Vec::with_capacity(4);
            let read = self.reader.by_ref().take(4).read_to_end(&mut size)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.offset += read as u64;
            let number = self.number;
            let Ok(size) = <[u8; 4]>::try_from(size.as_slice()) else {
                let bytes = Bytes::from(size);
                return Ok(Some(RawRequest { number, offset, bytes, cut_off: true }));
            };
            let size = u64::from(u32::from_be_bytes(size));
            if size > MAX_BODY as u64 {
                self.ended = true;
                let (bytes, framing) = (Some(size), Framing::Sized);
                return Err(FileError::TooLarge { number, offset, bytes, framing });
            }
            // Not allocated at once: a file of four bytes must not cost 256 MiB.
            let mut bytes = Vec::new();
            let read = self.reader.by_ref().take(size).read_to_end(&mut bytes)? as u64;
            self.offset += read;
            if size > 0 {
                let (bytes, cut_off) = (Bytes::from(bytes), read < size);
                return Ok(Some(RawRequest { number, offset, bytes, cut_off }));
            }
        }
    }
}

/// Reads to the end of the line; how many bytes that were.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let (length, done) = (end.map_or(buffer.len(), |at| at + 1), end.is_some());
        if length == 0 {
            return Ok(skipped);
        }
        reader.consume(length);
        skipped += length as u64;
        if done {
            return Ok(skipped);
        }
    }
}

impl<R: BufRead> Iterator for Requests<R> {
    type Item = Result<RawRequest, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended |= matches!(next, None | Some(Err(FileError::Io(_))));
        next
    }
}

/// A request that was read from a file.
#[derive(Debug)]
pub struct ReadRequest {
    /// What it is a request of.
    pub kind: SignalKind,
    /// It in protobuf, without what was refused in JSON.
    pub body: Bytes,
    /// What it holds.
    pub decoded: Decoded,
}

/// Reads a request of any kind, in JSON or protobuf, which its first byte tells.
///
/// # Errors
/// [`DecodeError::Foreign`] if it is no request of OTLP; otherwise as [`decode`] and
/// [`decode_json`].
pub fn read_request(bytes: Bytes) -> Result<ReadRequest, DecodeError> {
    // No protobuf request begins with `{`: that is field 15 as a group, which OTLP does not have.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        let Some(kind) = protobuf_kind(&bytes) else {
            let what = "neither a JSON object nor a protobuf request of spans, logs or metrics";
            return Err(DecodeError::Foreign(what.to_owned()));
        };
        let decoded = decode(kind, bytes.clone())?;
        return Ok(ReadRequest { kind, body: bytes, decoded });
    }
    let Some(kind) = json_kind(&bytes)? else {
        return Err(DecodeError::Foreign(
            "expected an object with `resourceSpans`, `resourceLogs` or `resourceMetrics`"
                .to_owned(),
        ));
    };
    let (body, refused) = decode_json(kind, &bytes)?;
    let mut decoded = decode(kind, body.clone())?;
    decoded.rejected.merge(refused);
    Ok(ReadRequest { kind, body, decoded })
}

/// Which kind of export request a protobuf message is; `None` if it is none, or empty.
///
/// The three requests have the same frame, so the items have to tell: by a field that has its type
/// in one kind only, else by ids, which spans have and metrics have not. Where neither is seen, the
/// kind counts that can read all of it.
pub fn protobuf_kind(body: &[u8]) -> Option<SignalKind> {
    // A wrong id must not decide what its neighbours are, so it is asked last.
    items(body).find_map(kind_by_types).or_else(|| items(body).find_map(kind_by_ids)).or_else(
        || {
            [SignalKind::Points, SignalKind::Logs, SignalKind::Spans].into_iter().find(|kind| {
                decode(*kind, Bytes::copy_from_slice(body)).is_ok_and(|decoded| {
                    decoded.batch.num_rows() > 0 && decoded.rejected.is_empty()
                })
            })
        },
    )
}

/// The spans, log records or metrics of a request, as far as it can be read.
fn items(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Resources are field 1 of a request; scopes field 2 of these; items field 2 of those.
    let scopes = repeated(body, 1).flat_map(|resource| repeated(resource, 2));
    scopes.flat_map(|scope| repeated(scope, 2))
}

fn repeated(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let mut message = Message::new(message);
    std::iter::from_fn(move || {
        loop {
            match message.next_field() {
                Ok(Some((found, Field::Bytes(bytes)))) if found == number => return Some(bytes),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    })
}

/// The kind of an item by the types of its fields. Source: `Span` of trace.proto, `LogRecord` of
/// logs.proto, `Metric` of metrics.proto.
fn kind_by_types(item: &[u8]) -> Option<SignalKind> {
    let mut message = Message::new(item);
    while let Ok(Some((number, field))) = message.next_field() {
        match (number, field) {
            // Kind; start and end; flags.
            (6, Field::Varint(_)) | (7 | 8, Field::Fixed64(_)) | (16, Field::Fixed32(_)) => {
                return Some(SignalKind::Spans);
            }
            // Times; severity number; flags.
            (1 | 11, Field::Fixed64(_)) | (2, Field::Varint(_)) | (8, Field::Fixed32(_)) => {
                return Some(SignalKind::Logs);
            }
            // A sum.
            (7, Field::Bytes(_)) => return Some(SignalKind::Points),
            _ => {}
        }
    }
    None
}

/// Whether an item is a metric, by what stands where a span has its ids and a log record has none:
/// name and description.
fn kind_by_ids(item: &[u8]) -> Option<SignalKind> {
    let mut message = Message::new(item);
    while let Ok(Some((number, field))) = message.next_field() {
        match (number, field) {
            (1, Field::Bytes(bytes)) if bytes.len() != 16 => return Some(SignalKind::Points),
            (2, Field::Bytes(bytes)) if bytes.len() != 8 => return Some(SignalKind::Points),
            _ => {}
        }
    }
    None
}
