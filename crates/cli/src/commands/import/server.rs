//! Importing through a running server's OTLP/HTTP.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{StatusCode, Uri};
use lacuna_signal::SignalKind;
use lacuna_signal::otlp::file::ReadRequest;
use lacuna_signal::otlp::wire::{Field, Message};
use miette::miette;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::journal::Journal;
use super::stop::Stop;
use super::{Taken, Target};
use crate::client::{Answer, Client, Tls};
use crate::{Failure, output};

/// How long to wait where the server does not say.
const RETRY: Duration = Duration::from_secs(1);
/// Nobody is made to wait longer at a time.
const LONGEST: Duration = Duration::from_secs(60);
/// A server that cannot be reached is tried again after so long, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// So long an answer is waited for when an end was asked for: it says whether the request is to be
/// sent again.
const GRACE: Duration = Duration::from_secs(2);
/// Characters of an answer that are told.
const MAX_TOLD: usize = 300;

/// A server that is imported into.
pub struct Server {
    client: Client,
    journal: Option<Journal>,
    retry_for: Duration,
    stop: Stop,
}

impl Server {
    /// The server that takes OTLP/HTTP at `url`. How far files are is written down in `journal`.
    /// One that cannot be reached is tried again for `retry_for`.
    pub fn new(
        url: &str,
        tls: &Tls,
        journal: Option<PathBuf>,
        retry_for: Duration,
        stop: Stop,
    ) -> Result<Self, Failure> {
        let parsed = url.parse::<Uri>().ok();
        let usable = parsed.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
        });
        if !usable {
            return Err(miette!("{url}: not a URL, expected one such as http://localhost:4318"));
        }
        let client = Client::new(url, tls)?;
        let journal = journal.map(|folder| Journal::new(folder, client.base()));
        if journal.is_none() {
            output::error("there is no home folder: if interrupted, the import will start anew");
        }
        Ok(Self { client, journal, retry_for, stop })
    }

    /// Sends the request once; `None` if an end was asked for and no answer came.
    fn send(&self, path: &str, request: &ReadRequest) -> Option<Result<Answer, Failure>> {
        let sent = self.client.post(path, "application/x-protobuf", request.body.clone());
        let ended = async {
            self.stop.wait().await;
            sleep(GRACE).await;
        };
        Handle::current().block_on(async {
            tokio::select! {
                biased;
                answer = sent => Some(answer),
                () = ended => None,
            }
        })
    }
}

impl Target for Server {
    fn begin(&mut self, path: &Path, name: &str, again: bool) -> Result<u64, Failure> {
        self.journal.as_mut().map_or(Ok(0), |journal| journal.begin(path, name, again))
    }

    fn take(&mut self, _: u64, request: ReadRequest) -> Result<Taken, Failure> {
        let path = match request.kind {
            SignalKind::Spans => "/v1/traces",
            SignalKind::Logs => "/v1/logs",
            SignalKind::Points => "/v1/metrics",
        };
        let (mut silent, mut pause) = (None, BACK_OFF.0);
        loop {
            if self.stop.asked() {
                return Ok(Taken::Stopped);
            }
            let wait = match self.send(path, &request) {
                None => return Ok(Taken::Stopped),
                Some(Err(failure)) => {
                    if silent.is_none() && !self.retry_for.is_zero() {
                        let seconds = self.retry_for.as_secs_f64();
                        output::error(&format!("{failure}; trying again for {seconds} s"));
                    }
                    let since = *silent.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.retry_for {
                        return Err(miette!(
                            help = "when it can be reached, run it again: it goes on from there",
                            "{failure}"
                        ));
                    }
                    let wait = pause;
                    pause = (pause * 2).min(BACK_OFF.1);
                    wait
                }
                Some(Ok(answer)) => {
                    (silent, pause) = (None, BACK_OFF.0);
                    match judge(&answer) {
                        Verdict::Taken(partial) => {
                            // The same was told when the file was read.
                            let told = request.decoded.rejected.message();
                            let partial = partial.filter(|partial| partial.message != told);
                            return Ok(Taken::New(partial));
                        }
                        Verdict::Refused => {
                            let (base, status) = (self.client.base(), answer.status);
                            return Ok(Taken::Refused(format!(
                                "{base} answered {status}: {}",
                                told(&answer)
                            )));
                        }
                        Verdict::Later(wait) => wait,
                        Verdict::Wrong => {
                            let (base, status) = (self.client.base(), answer.status);
                            return Err(miette!(
                                help = "it must be where the server takes OTLP/HTTP, by default \
                                        port 4318",
                                "POST {base}{path} answered {status}"
                            ));
                        }
                    }
                }
            };
            if !self.stop.sleep(wait) {
                return Ok(Taken::Stopped);
            }
        }
    }

    fn passed(&mut self, passed: u64) -> Result<(), Failure> {
        self.journal.as_mut().map_or(Ok(()), |journal| journal.passed(passed))
    }

    fn end(&mut self, passed: u64) -> Result<(), Failure> {
        let passed = self.passed(passed);
        if let Some(journal) = &mut self.journal {
            journal.end();
        }
        passed
    }

    fn close(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// What a server took a request with.
pub struct Partial {
    /// Items that it refused.
    pub rejected: u64,
    /// What it says.
    pub message: String,
}

/// What an answer means (OTLP specification, "OTLP/HTTP Response").
enum Verdict {
    Taken(Option<Partial>),
    Refused,
    Later(Duration),
    /// It is no answer of a server of OTLP/HTTP.
    Wrong,
}

fn judge(answer: &Answer) -> Verdict {
    match answer.status {
        StatusCode::OK => Verdict::Taken(partial_success(&answer.body)),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Verdict::Refused,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let header = answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let wait = header.and_then(|value| value.parse().ok());
            Verdict::Later(wait.map_or(RETRY, Duration::from_secs).min(LONGEST))
        }
        _ => Verdict::Wrong,
    }
}

/// The value of field `wanted` in the message `bytes`.
fn field(bytes: &[u8], wanted: u32) -> Option<Field<'_>> {
    let mut message = Message::new(bytes);
    std::iter::from_fn(move || message.next_field().ok().flatten())
        .find_map(|(number, field)| (number == wanted).then_some(field))
}

/// An export response's `partial_success`: fields 1 and 2 in all three of them.
fn partial_success(response: &[u8]) -> Option<Partial> {
    let partial = field(response, 1)?.bytes(1).ok()?;
    let rejected = field(partial, 1).and_then(|field| field.varint(1).ok()).unwrap_or(0);
    let message = field(partial, 2).and_then(|field| field.bytes(2).ok()).unwrap_or_default();
    Some(Partial { rejected, message: String::from_utf8_lossy(message).into_owned() })
}

/// What a refusal says: the message of a `google.rpc.Status`, or text.
fn told(answer: &Answer) -> String {
    let status = field(&answer.body, 2).and_then(|field| field.bytes(2).ok());
    let message = status.and_then(|message| std::str::from_utf8(message).ok());
    let message = message.map_or_else(|| answer.text(), str::to_owned);
    message.trim().chars().take(MAX_TOLD).collect()
}
