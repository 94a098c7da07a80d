//! Answers, serialised on a thread that may block and sent as they grow.

use std::io::{self, Write};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::{HeaderValue, header};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use tokio::sync::mpsc;

/// Bytes that are sent at once.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait for a slow client.
const WAITING: usize = 4;

/// `value` as a JSON answer, indented by four spaces if `pretty`.
///
/// An answer of many traces is never in memory as a whole: the serialiser waits for the client.
///
/// # Errors
/// Why not even its beginning could be written.
pub async fn json<T>(value: T, pretty: bool) -> Result<Response, String>
where
    T: Serialize + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks { buffer: Vec::with_capacity(CHUNK), sender };
        let written = if pretty {
            write(&value, &mut chunks, PrettyFormatter::with_indent(b"    "))
        } else {
            write(&value, &mut chunks, CompactFormatter)
        };
        // Before the client sees the end: what it held is free for its next question.
        drop(value);
        if let Err(error) = written {
            // If the client went away there is nobody to tell.
            let _ = chunks.sender.blocking_send(Err(error));
        }
    });
    let first = match receiver.recv().await {
        Some(Ok(chunk)) => chunk,
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("the answer could not be written".to_owned()),
    };
    let body = match receiver.recv().await {
        None => Body::from(first),
        Some(second) => {
            let rest = stream::poll_fn(move |context| receiver.poll_recv(context));
            Body::from_stream(stream::iter([Ok(first), second]).chain(rest))
        }
    };
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

/// A value, and what has to live until it is written: a question's memory counts so long.
pub struct Held<T, S> {
    value: T,
    _source: S,
}

impl<T, S> Held<T, S> {
    /// `value`, with `source`.
    pub fn new(value: T, source: S) -> Self {
        Self { value, _source: source }
    }
}

impl<T: Serialize, S> Serialize for Held<T, S> {
    fn serialize<Z: serde::Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        self.value.serialize(serializer)
    }
}

fn write<T: Serialize>(value: &T, out: &mut Chunks, formatter: impl Formatter) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, formatter))?;
    out.flush()
}

/// Collects what is written into chunks.
struct Chunks {
    buffer: Vec<u8>,
    sender: mpsc::Sender<io::Result<Bytes>>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.sender.blocking_send(Ok(Bytes::from(full))).map_err(gone)
    }
}
