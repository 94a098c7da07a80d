//! Importing through a running server's OTLP/HTTP.

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use http::header::RETRY_AFTER;
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::file::ReadRequest;
use lacuna_signal::otlp::wire::{Field, Message};
use miette::miette;
use tokio::runtime::Handle;

use super::Target;
use crate::Failure;
use crate::client::{Answer, Client, Tls};

/// How long to wait where the server does not say.
const RETRY: Duration = Duration::from_secs(1);

/// A server that is imported into.
pub struct Server {
    client: Client,
    refused: Vec<String>,
}

impl Server {
    /// The server that takes OTLP/HTTP at `url`.
    pub fn new(url: &str, tls: &Tls) -> Result<Self, Failure> {
        Ok(Self { client: Client::new(url, tls)?, refused: Vec::new() })
    }
}

impl Target for Server {
    fn begin(&mut self, _: &Path, _: &str, _: bool) -> Result<u64, Failure> {
        // It does not tell what it has been sent before.
        Ok(0)
    }

    fn take(&mut self, number: u64, request: ReadRequest) -> Result<bool, Failure> {
        let path = match request.kind {
            SignalKind::Spans => "/v1/traces",
            SignalKind::Logs => "/v1/logs",
            SignalKind::Points => "/v1/metrics",
        };
        loop {
            let body = request.body.clone();
            let sent = self.client.post(path, "application/x-protobuf", body);
            let answer = Handle::current().block_on(sent)?;
            match answer.status {
                StatusCode::OK => {
                    self.refused.extend(partial_success(&answer.body));
                    return Ok(true);
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    std::thread::sleep(retry_after(&answer));
                }
                StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                    let number = number + 1;
                    let (base, status) = (self.client.base(), answer.status);
                    self.refused.push(format!("request {number}: {base} answered {status}"));
                    return Ok(false);
                }
                status => {
                    let base = self.client.base();
                    return Err(miette!(
                        help = "it must be where the server takes OTLP/HTTP, by default port 4318",
                        "POST {base}{path} answered {status}"
                    ));
                }
            }
        }
    }

    fn passed(&mut self, _: u64) -> Result<(), Failure> {
        Ok(())
    }

    fn end(&mut self, _: u64) -> Result<(), Failure> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn refused(&mut self) -> Vec<String> {
        std::mem::take(&mut self.refused)
    }
}

fn retry_after(answer: &Answer) -> Duration {
    let header = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    header.and_then(|value| value.parse().ok()).map_or(RETRY, Duration::from_secs)
}

/// The message of an export response's `partial_success`, fields 1 and 2 in all three of them.
fn partial_success(response: &[u8]) -> Option<String> {
    let field = |bytes, wanted| {
        let mut message = Message::new(bytes);
        std::iter::from_fn(move || message.next_field().ok().flatten()).find_map(
            |found| match found {
                (number, Field::Bytes(bytes)) if number == wanted => Some(bytes),
                _ => None,
            },
        )
    };
    let message = field(field(response, 1)?, 2)?;
    Some(String::from_utf8_lossy(message).into_owned())
}
