//! Files of OTLP requests: opened, decompressed by what they begin with, read and decoded on all
//! cores, and what is wrong in them told.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use lacuna_signal::otlp::file::{
    FileError, Framing, RawRequest, ReadRequest, Requests, read_request,
};
use lacuna_signal::otlp::{DecodeError, MAX_BODY};
use miette::miette;
use serde::Serialize;

use crate::{Failure, output};

/// Requests that are read and decoded at once: so many, or so many bytes of them.
const CHUNK: usize = 64;
const CHUNK_BYTES: usize = 16 << 20;

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What was wrong in a file.
#[derive(Debug, Clone, Serialize)]
pub struct Problems {
    #[serde(skip)]
    file: String,
    #[serde(skip)]
    most: u64,
    /// Places at which anything was wrong.
    pub places: u64,
    /// Requests of which nothing could be read.
    pub unreadable_requests: u64,
    /// Spans, log records and points that could not be read in requests of which others could.
    pub rejected_items: u64,
}

impl Problems {
    /// Tells that something is wrong at `place`, unless enough has been told.
    pub fn tell(&mut self, place: &str, why: &str) {
        self.places += 1;
        if self.places <= self.most {
            let place = if place.is_empty() { String::new() } else { format!(":{place}") };
            output::error(&format!("{}{place}: {why}", self.file));
        }
    }

    /// Says how many were not told.
    pub fn conclude(&self) {
        if self.places > self.most {
            let more = self.places - self.most;
            output::error(&format!("{}: {more} more lines with problems", self.file));
        }
    }

    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.places == 0
    }
}

/// What became of one request of a file.
pub enum Outcome {
    /// It was read, at least in part; where it stands, for [`Problems::tell`].
    Read(String, Box<ReadRequest>),
    /// Nothing in it can be read.
    Unreadable,
    /// The file ends within it, so that nothing in it can be read. More may be written to the file.
    CutOff,
    /// It comes before those that were asked for.
    Skipped,
}

/// A file being read.
pub struct InputFile {
    /// As messages name it.
    pub name: String,
    /// What was wrong so far.
    pub problems: Problems,
    requests: Requests<Box<dyn BufRead + Send>>,
    read: Arc<AtomicU64>,
    passed: u64,
    /// Why nothing more can be read.
    broken: Option<io::Error>,
}

impl InputFile {
    /// Opens `path`; `-` is standard input. At most `most` problems are told one by one.
    pub fn open(path: &Path, most: u64) -> Result<Self, Failure> {
        let read = Arc::new(AtomicU64::new(0));
        let (name, opened) = if path == Path::new("-") {
            ("standard input".to_owned(), unpacked(io::stdin(), &read))
        } else {
            let file = File::open(path).and_then(|file| unpacked(file, &read));
            (path.display().to_string(), file)
        };
        let reader = opened.map_err(|error| miette!("{name}: cannot be read: {error}"))?;
        let problems = Problems {
            file: name.clone(),
            most,
            places: 0,
            unreadable_requests: 0,
            rejected_items: 0,
        };
        Ok(Self { name, problems, requests: Requests::new(reader), read, passed: 0, broken: None })
    }

    /// Bytes read of the file as it is.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next few requests in their order, none at the end. Of the first `skip` of the file
    /// nothing is decoded.
    ///
    /// # Errors
    /// The file cannot be read any further.
    pub fn next_requests(&mut self, skip: u64) -> Result<Vec<Outcome>, Failure> {
        let (mut raw, mut bytes) = (Vec::new(), 0);
        while raw.len() < CHUNK && bytes < CHUNK_BYTES {
            match self.requests.next() {
                None => break,
                Some(Err(FileError::Io(error))) => {
                    self.broken = Some(error);
                    break;
                }
                Some(request) => {
                    bytes += request.as_ref().map_or(0, |request| request.bytes.len());
                    raw.push(request);
                }
            }
        }
        let skipped = usize::try_from(skip.saturating_sub(self.passed)).unwrap_or(usize::MAX);
        let skipped = skipped.min(raw.len());
        let mut outcomes: Vec<Outcome> = raw.drain(..skipped).map(|_| Outcome::Skipped).collect();
        for (request, read) in decode_all(&raw).into_iter().zip(raw).map(|(read, raw)| (raw, read))
        {
            outcomes.push(self.judge(request, read));
        }
        self.passed += outcomes.len() as u64;
        if let Some(error) = self.broken.take_if(|_| outcomes.is_empty()) {
            let name = &self.name;
            return Err(match self.passed {
                0 => miette!("{name}: cannot be read: {error}"),
                passed => {
                    miette!("{name}: cannot be read beyond its first {passed} requests: {error}")
                }
            });
        }
        Ok(outcomes)
    }

    fn judge(
        &mut self,
        request: Result<RawRequest, FileError>,
        read: Option<Result<ReadRequest, DecodeError>>,
    ) -> Outcome {
        let (request, read) = match (request, read) {
            (Ok(request), Some(read)) => (request, read),
            (Err(error), _) => {
                self.problems.unreadable_requests += 1;
                let number = match &error {
                    FileError::TooLarge { number, .. } => number.to_string(),
                    _ => String::new(),
                };
                self.problems.tell(&number, &error.to_string());
                return Outcome::Unreadable;
            }
            (Ok(_), None) => return Outcome::Unreadable,
        };
        let place = self.place(&request);
        match read {
            Ok(read) => {
                let rejected = &read.decoded.rejected;
                if !rejected.is_empty() {
                    self.problems.rejected_items += rejected.items;
                    self.problems.tell(&place, &rejected.message());
                }
                Outcome::Read(place, Box::new(read))
            }
            Err(error) => {
                self.problems.unreadable_requests += 1;
                let framing = self.requests.framing();
                // A whole line may lack its end; then its text is JSON.
                let cut_off = request.cut_off
                    && (framing == Some(Framing::Sized)
                        || matches!(error, DecodeError::Json { .. }));
                match (&error, framing) {
                    // A line has no lines within it.
                    (DecodeError::Json { column, what, .. }, Some(Framing::Lines)) => {
                        self.problems.tell(&format!("{place}:{column}"), what);
                    }
                    _ if cut_off => {
                        self.problems.tell(&place, &format!("the file ends within it: {error}"));
                    }
                    _ => self.problems.tell(&place, &error.to_string()),
                }
                if cut_off { Outcome::CutOff } else { Outcome::Unreadable }
            }
        }
    }

    fn place(&self, request: &RawRequest) -> String {
        match self.requests.framing() {
            Some(Framing::Sized) => {
                format!(" message {}, at byte {}", request.number, request.offset)
            }
            _ => request.number.to_string(),
        }
    }
}

/// Reads `requests` on all cores; `None` for those that are errors already.
fn decode_all(
    requests: &[Result<RawRequest, FileError>],
) -> Vec<Option<Result<ReadRequest, DecodeError>>> {
    let decode = |request: &Result<RawRequest, FileError>| {
        request.as_ref().ok().map(|request| unpack(&request.bytes).and_then(read_request))
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let share = requests.len().div_ceil(workers).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = requests
            .chunks(share)
            .map(|part| (part, scope.spawn(move || part.iter().map(decode).collect::<Vec<_>>())))
            .collect();
        let parts = parts.into_iter().map(|(part, worker)| {
            worker.join().unwrap_or_else(|_| {
                let why =
                    || DecodeError::Foreign("reading it failed: a defect of lacuna".to_owned());
                part.iter().map(|_| Some(Err(why()))).collect()
            })
        });
        parts.flatten().collect()
    })
}

/// The Collector's file exporter compresses each message by itself.
fn unpack(message: &Bytes) -> Result<Bytes, DecodeError> {
    if !message.starts_with(ZSTD) {
        return Ok(message.clone());
    }
    let mut unpacked = Vec::new();
    zstd::stream::read::Decoder::with_buffer(&message[..])
        .and_then(|decoder| decoder.take(MAX_BODY as u64 + 1).read_to_end(&mut unpacked))
        .map_err(|error| DecodeError::Foreign(format!("it is not valid zstd: {error}")))?;
    Ok(unpacked.into())
}

/// What `source` gives, decompressed; `read` counts its own bytes.
fn unpacked(
    source: impl Read + Send + 'static,
    read: &Arc<AtomicU64>,
) -> io::Result<Box<dyn BufRead + Send>> {
    let counted = Counted { source, read: Arc::clone(read) };
    let mut file = BufReader::with_capacity(256 << 10, counted);
    let start = file.fill_buf()?;
    let decoded: Box<dyn Read + Send> = if start.starts_with(GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else if start.starts_with(ZSTD) {
        Box::new(zstd::stream::read::Decoder::with_buffer(file)?)
    } else {
        return Ok(Box::new(file));
    };
    Ok(Box::new(BufReader::with_capacity(1 << 20, decoded)))
}

struct Counted<R> {
    source: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.source.read(buffer)?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}
