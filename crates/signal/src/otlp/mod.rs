//! The OTLP codec (OpenTelemetry protocol 1.x, protobuf encoding).
//!
//! A request's bytes are walked once and written straight into Arrow builders whose text points
//! back into the request: there is no struct per span and no copy of a string. A span, log record
//! or point that cannot be read is refused by itself, counted and reported (OTLP's partial
//! success); everything beside it is kept.

pub mod any;
mod attributes;
mod bounds;
pub mod file;
mod from_json;
mod logs;
mod overflow;
mod points;
mod scopes;
mod settle;
pub mod to_json;
mod traces;
pub mod wire;

pub use from_json::{decode_json, json_kind};
pub use settle::{SETTLED_MORE, receive};

use bytes::Bytes;

use crate::batch::Batch;
use crate::schema::SignalKind;
use wire::WireError;

/// The largest request that can be read, in bytes.
///
/// Offsets into a batch's buffers have 32 bits. One buffer is the request itself; the other holds
/// what the decoder has to write, which is at most 11 times as long: an empty member of a
/// key-value list has 2 bytes in protobuf and 22 in OTLP/JSON.
pub const MAX_BODY: usize = 256 << 20;

/// What is kept of a request at most. What is beyond is counted in [`Rejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request, decompressed; at most [`MAX_BODY`] in any case. A larger one is refused.
    pub body: usize,
    /// Attributes of one span, span event, link, log record, point, exemplar, resource or
    /// instrumentation scope. Those that come after are dropped.
    pub attributes: usize,
    /// Bytes of such an attribute's text or bytes, and of a span's name and status message, an
    /// event's name, a log's body and a metric's description. A longer one is cut, texts between
    /// characters; an array or key-value list whose OTLP/JSON is longer is dropped, as is an
    /// attribute whose key is, and has more than 256 bytes.
    pub attribute_length: usize,
}

impl Default for Limits {
    /// No limits but [`MAX_BODY`].
    fn default() -> Self {
        Self { body: MAX_BODY, attributes: usize::MAX, attribute_length: usize::MAX }
    }
}

/// A request that holds nothing readable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not an OTLP export request, or nothing in them can be read.
    #[error("not a readable OTLP export request of {kind}: {first}")]
    Unreadable {
        /// The kind of signal that was expected.
        kind: &'static str,
        /// The first thing wrong, with its place.
        first: String,
    },
    /// The text is not JSON.
    #[error("line {line}, column {column}: {what}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong, or what was expected.
        what: &'static str,
    },
    /// It is no export request of any kind.
    #[error("not an OTLP export request: {0}")]
    Foreign(String),
    /// The request is larger than [`Limits::body`] or [`MAX_BODY`].
    #[error("the request has {found} bytes, at most {limit} are read")]
    TooLarge {
        /// Its size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Arrow refused the columns that were built: a defect of this crate.
    #[error("cannot build columns: {0}")]
    Columns(#[from] arrow::error::ArrowError),
}

/// What a request held.
#[derive(Debug)]
pub struct Decoded {
    /// Everything that could be read.
    pub batch: Batch,
    /// What could not.
    pub rejected: Rejected,
}

/// What of a request could not be read or kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejected {
    /// Spans, log records or points that were refused.
    pub items: u64,
    /// Attributes that were refused without their item: bad ones of a resource or scope, and those
    /// beyond what a batch keeps of unusual keys.
    pub attributes: u64,
    /// Values and texts that were cut to [`Limits::attribute_length`].
    pub truncated: u64,
    /// Span links without a valid id that were left out of their spans. Each is also in its span's
    /// count of dropped links.
    pub links: u64,
    /// Spans without a start and points or log records without a time, which are kept with the time
    /// 0: not refused, but their sender should know. [`receive`] gives log records the time at which
    /// they came.
    pub untimed: u64,
    /// What was wrong with the first of them, each with its place in the request, such as
    /// `resource_spans[0].scope_spans[1].spans[7]: trace_id has 3 bytes, expected 16`.
    pub reasons: Vec<String>,
}

impl Rejected {
    /// At most this many reasons are kept.
    pub const MAX_REASONS: usize = 8;

    /// Whether everything was kept as it came.
    pub fn is_empty(&self) -> bool {
        self.items == 0 && self.attributes == 0 && self.truncated == 0 && self.links == 0
    }

    /// The reasons on one line, for OTLP's `partial_success.error_message`.
    pub fn message(&self) -> String {
        let more = (self.items + self.links).saturating_sub(self.reasons.len() as u64);
        let mut message = self.reasons.join("; ");
        if more > 0 {
            message.push_str(&format!("; and {more} more"));
        }
        if self.attributes > 0 {
            message.push_str(&format!("; {} attributes dropped", self.attributes));
        }
        if self.truncated > 0 {
            message.push_str(&format!("; {} values cut", self.truncated));
        }
        if self.links > 0 {
            message.push_str(&format!("; {} links dropped", self.links));
        }
        if self.untimed > 0 {
            message.push_str(&format!("; {} without a time, kept at 1970", self.untimed));
        }
        message.trim_start_matches("; ").to_owned()
    }

    fn note(&mut self, place: impl FnOnce() -> String, error: &ItemError) {
        self.items += 1;
        self.reason(|| format!("{}: {error}", place()));
    }

    fn note_link(&mut self, place: impl FnOnce() -> String, error: &ItemError) {
        self.links += 1;
        self.reason(|| format!("{}: {error}", place()));
    }

    fn reason(&mut self, reason: impl FnOnce() -> String) {
        if self.reasons.len() < Self::MAX_REASONS {
            self.reasons.push(reason());
        }
    }

    /// Adds what another reading of the same request refused.
    pub fn merge(&mut self, other: Self) {
        self.items += other.items;
        self.attributes += other.attributes;
        self.truncated += other.truncated;
        self.links += other.links;
        self.untimed += other.untimed;
        let room = Self::MAX_REASONS - self.reasons.len();
        self.reasons.extend(other.reasons.into_iter().take(room));
    }
}

/// Why one span, log record or point is refused.
#[derive(Debug, thiserror::Error)]
enum ItemError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("{field} has {found} bytes, expected {expected}")]
    IdLength { field: &'static str, found: usize, expected: usize },
    #[error("{0} is all zero")]
    ZeroId(&'static str),
    #[error("{field} is {nanos} ns, later than the year 2262")]
    Time { field: &'static str, nanos: u64 },
    #[error(
        "bucket_counts has {counts} values and explicit_bounds {bounds}, \
         expected one count more than bounds"
    )]
    Buckets { counts: usize, bounds: usize },
    #[error(
        "metric `{0}` has no data of a known type: expected gauge, sum, histogram, \
         exponential_histogram or summary"
    )]
    NoData(String),
    #[error("a request of this size may have {0} rows at most")]
    TooMany(usize),
}

impl ItemError {
    /// "The number of elements in bucket_counts array must be by one greater than the number of
    /// elements in explicit_bounds array", or both have none (metrics.proto).
    fn check_buckets(counts: usize, bounds: usize) -> Result<(), Self> {
        if counts == bounds + 1 || (counts, bounds) == (0, 0) {
            return Ok(());
        }
        Err(Self::Buckets { counts, bounds })
    }
}

/// Why a pass over a request built nothing.
#[derive(Debug)]
enum BuildError {
    /// A text is not UTF-8: the pass trusted it, another must check each item.
    Utf8,
    Arrow(arrow::error::ArrowError),
}

impl From<arrow::error::ArrowError> for BuildError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Arrow(error)
    }
}

/// Decodes an export request of one kind of signal.
///
/// The first pass takes texts to be UTF-8, which Arrow verifies when a column is complete; only if
/// that fails does a second pass check every item by itself and refuse the bad ones.
pub fn decode(kind: SignalKind, body: Bytes) -> Result<Decoded, DecodeError> {
    decode_with(kind, body, &Limits::default())
}

/// [`decode`], keeping at most what `limits` say. What has to be kept of the request then, so that it
/// is decoded to the same again, [`receive`] says.
pub fn decode_with(kind: SignalKind, body: Bytes, limits: &Limits) -> Result<Decoded, DecodeError> {
    check_size(body.len(), limits)?;
    let decoded = match decode_pass(kind, &body, limits, false) {
        Err(BuildError::Utf8) | Err(BuildError::Arrow(_)) => decode_pass(kind, &body, limits, true),
        done => done,
    };
    let decoded = decoded.map_err(|error| match error {
        BuildError::Arrow(error) => DecodeError::Columns(error),
        BuildError::Utf8 => {
            DecodeError::Unreadable { kind: kind.name(), first: WireError::Utf8.to_string() }
        }
    })?;
    match decoded.rejected.reasons.first() {
        Some(first) if decoded.batch.num_rows() == 0 => {
            Err(DecodeError::Unreadable { kind: kind.name(), first: first.clone() })
        }
        _ => Ok(decoded),
    }
}

fn check_size(found: usize, limits: &Limits) -> Result<(), DecodeError> {
    let limit = limits.body.min(MAX_BODY);
    if found > limit { Err(DecodeError::TooLarge { found, limit }) } else { Ok(()) }
}

fn decode_pass(
    kind: SignalKind,
    body: &Bytes,
    limits: &Limits,
    check: bool,
) -> Result<Decoded, BuildError> {
    match kind {
        SignalKind::Spans => scopes::decode(traces::Spans::default(), body, limits, check),
        SignalKind::Logs => {
            let received = settle::received(body);
            scopes::decode(logs::Logs::received(received), body, limits, check)
        }
        SignalKind::Points => scopes::decode(points::Points::default(), body, limits, check),
    }
}

fn id<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<Option<[u8; N]>, ItemError> {
    match <[u8; N]>::try_from(bytes) {
        Ok(id) => Ok((id != [0; N]).then_some(id)),
        Err(_) if bytes.is_empty() => Ok(None),
        Err(_) => Err(ItemError::IdLength { field, found: bytes.len(), expected: N }),
    }
}

fn required_id<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ItemError> {
    match id(field, bytes)? {
        Some(id) => Ok(id),
        None if bytes.is_empty() => Err(ItemError::IdLength { field, found: 0, expected: N }),
        None => Err(ItemError::ZeroId(field)),
    }
}

fn nanos(field: &'static str, nanos: u64) -> Result<i64, ItemError> {
    i64::try_from(nanos).map_err(|_| ItemError::Time { field, nanos })
}
