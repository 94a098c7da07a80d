//! Bodies of requests: read and decompressed within the limits, with room taken for them as they
//! grow.

use std::io::Read;

use bytes::Bytes;

use crate::ingest::{Refused, Room};
use crate::telemetry::Limit;

/// Why a body is refused.
#[derive(Debug)]
pub enum BodyError {
    /// It has more bytes than a limit lets through.
    TooLarge(Limit, usize),
    /// It is not what its encoding says.
    Invalid(String),
    /// There is no room for it.
    Refused(Refused),
    /// The thread that decompressed it has stopped.
    Stopped(String),
}

impl From<Refused> for BodyError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// What a sender is told of a body of more than `max` bytes.
pub fn too_large(limit: Limit, max: usize) -> String {
    let when = if limit == Limit::Decompressed { " after decompression" } else { "" };
    format!("the request has more than {max} bytes{when}: send smaller batches")
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Identity,
    /// RFC 1952, also several members.
    Gzip,
    /// RFC 1950, HTTP's `deflate`.
    Deflate,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// The one called `name`: names are case-insensitive, and `x-gzip` is `gzip` (RFC 9110, 8.4.1).
    /// `None` if it is none of them.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Self::Identity,
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        }
    }

    fn invalid(self, error: &std::io::Error) -> BodyError {
        BodyError::Invalid(format!("the body is not valid {}: {error}", self.name()))
    }

    /// `body` decompressed to at most `max` bytes, for which `room` is taken as they come.
    pub fn open(self, body: Bytes, max: usize, room: &mut Room) -> Result<Bytes, BodyError> {
        match self {
            Self::Identity if body.len() > max => {
                Err(BodyError::TooLarge(Limit::Decompressed, max))
            }
            Self::Identity => Ok(body),
            Self::Gzip => self.inflate(flate2::read::MultiGzDecoder::new(&body[..]), max, room),
            Self::Deflate => self.inflate(flate2::read::ZlibDecoder::new(&body[..]), max, room),
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(&body[..]);
                self.inflate(decoder.map_err(|error| self.invalid(&error))?, max, room)
            }
        }
    }

    /// All that `reader` gives, at most `max` bytes; room for it is taken before it comes.
    fn inflate(
        self,
        mut reader: impl Read,
        max: usize,
        room: &mut Room,
    ) -> Result<Bytes, BodyError> {
        const STEP: usize = 1 << 20;
        let mut out = Vec::new();
        loop {
            let step = STEP.min(max + 1 - out.len());
            let read = reader.by_ref().take(step as u64).read_to_end(&mut out);
            let read = read.map_err(|error| self.invalid(&error))?;
            if out.len() > max {
                return Err(BodyError::TooLarge(Limit::Decompressed, max));
            }
            room.cover(out.len())?;
            if read < step {
                return Ok(Bytes::from(out));
            }
        }
    }
}
