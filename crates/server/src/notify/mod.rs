//! Channels: who is told of findings, over HTTP.
//!
//! Each channel has a task that tells what the book has for it, oldest first, tries again after a
//! failure with growing pauses, and takes off the book what has been told. The book is written
//! before and after, so a notice is delivered at least once whatever happens; if the process is
//! killed between a delivery and the book, once more, under the same key.

mod alertmanager;
mod webhook;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use crate::config::Config;
use crate::live::Live;
use crate::telemetry::{ChannelLabel, SharedTelemetry};
use crate::tls::{self, HttpClient, TlsError};

/// An attempt that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Of an answer no more than this is read.
const MAX_ANSWER: usize = 64 << 10;
/// The pause after a first failure, doubled after each further one, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a channel cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// Not a URL that can be posted to.
    #[error("`{url}` cannot be used: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// The HTTP client cannot be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Whether findings can be sent to `url`.
///
/// # Errors
/// It is no URL, or not an `http` or `https` one.
pub fn check_url(url: &str) -> Result<Url, ChannelError> {
    let error = |why: String| ChannelError::Url { url: url.to_owned(), why };
    let parsed = Url::parse(url).map_err(|e| error(format!("{e}; such as http://host:9093")))?;
    match parsed.scheme() {
        "http" | "https" if parsed.has_host() => Ok(parsed),
        other => Err(error(format!("the scheme is `{other}`; it must be http or https"))),
    }
}

/// Whether `url` can be the beginning of links for people; gives it without a slash at its end.
///
/// # Errors
/// It is no `http` or `https` URL with a host, or has more after its path.
pub fn check_base(url: &str) -> Result<String, ChannelError> {
    let error = |why: &str| {
        let why = format!(
            "{why}; write where people reach the query port, such as \
                           https://lacuna.example"
        );
        ChannelError::Url { url: url.to_owned(), why }
    };
    let parsed = Url::parse(url).map_err(|e| error(&e.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(error(&format!("the scheme is `{}`", parsed.scheme())));
    }
    if !parsed.has_host() {
        return Err(error("it has no host"));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(error("links cannot be made below a `?` or `#`"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// Host and port of a URL, which may hold a secret elsewhere.
pub(crate) fn target(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return String::new() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// Starts a task for each channel of `config`; they end when `stopped` says so.
///
/// # Errors
/// A URL is of no use.
pub fn start(
    config: &Config,
    live: &Arc<Live>,
    telemetry: &SharedTelemetry,
    base: &str,
    stopped: &watch::Receiver<bool>,
) -> Result<Vec<JoinHandle<()>>, ChannelError> {
    let urls = config.alertmanagers.iter().chain(&config.webhooks).map(String::as_str);
    let client = tls::client(urls, config.tls_ca_file.as_deref())?;
    let channel = |kind: &'static str, url: &str| -> Result<Channel, ChannelError> {
        let mut parsed = check_url(url)?;
        let authorization = authorization(&parsed);
        // They are no part of the address; the schemes there are may go without.
        let _ = parsed.set_username("");
        let _ = parsed.set_password(None);
        parsed.set_fragment(None);
        Ok(Channel {
            name: format!("{kind} {url}"),
            url: parsed,
            authorization,
            label: ChannelLabel { channel: kind, target: target(url) },
            client: client.clone(),
            live: Arc::clone(live),
            telemetry: Arc::clone(telemetry),
            base: base.to_owned(),
            failures: 0,
        })
    };
    let mut tasks = Vec::new();
    for url in &config.alertmanagers {
        let run = alertmanager::run(channel("alertmanager", url)?, config.resend);
        tasks.push(spawn(run, stopped.clone()));
    }
    for url in &config.webhooks {
        tasks.push(spawn(webhook::run(channel("webhook", url)?), stopped.clone()));
    }
    Ok(tasks)
}

fn spawn(
    run: impl Future<Output = ()> + Send + 'static,
    mut stopped: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        tokio::select! {
            () = run => {}
            // An error means that the server is gone, which is a stop too.
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    })
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Delivered,
    /// The receiver will not take it as it is, now.
    Rejected,
    /// It may take it later.
    Failed,
}

/// One receiver.
struct Channel {
    name: String,
    url: Url,
    /// The URL's name and password, as HTTP has them (RFC 7617).
    authorization: Option<HeaderValue>,
    label: ChannelLabel,
    client: HttpClient,
    live: Arc<Live>,
    telemetry: SharedTelemetry,
    /// Where people reach the query port.
    base: String,
    /// Attempts that failed since the last that did not.
    failures: u32,
}

impl Channel {
    /// Posts JSON that tells `notices` changes. `about` names the one finding that it is about: if
    /// the receiver rejects it, that is counted and named in the log.
    async fn post(
        &mut self,
        url: Url,
        key: Option<&str>,
        body: Vec<u8>,
        notices: u64,
        about: Option<&str>,
    ) -> Attempt {
        let (attempt, why) = match self.status(&url, key, body).await {
            Ok(status) if status.is_success() => (Attempt::Delivered, String::new()),
            Ok(status) if is_rejection(status) => (Attempt::Rejected, status.to_string()),
            Ok(status) => (Attempt::Failed, status.to_string()),
            Err(why) => (Attempt::Failed, why),
        };
        match attempt {
            Attempt::Delivered => {
                self.failures = 0;
                self.telemetry.notified(&self.label, notices);
            }
            Attempt::Rejected | Attempt::Failed => {
                self.failures = self.failures.saturating_add(1);
                self.telemetry.not_notified(&self.label);
                let ChannelLabel { channel, target } = &self.label;
                if let (Attempt::Rejected, Some(finding)) = (attempt, about) {
                    self.telemetry.rejected_notice(&self.label);
                    tracing::warn!(
                        channel,
                        target,
                        finding,
                        "the receiver will not take a finding as it is: {why}"
                    );
                }
                // Once when it begins: a receiver that is down for hours fills no log.
                if self.failures == 1 && attempt == Attempt::Failed {
                    tracing::warn!(channel, target, "a finding could not be told yet: {why}");
                }
            }
        }
        attempt
    }

    /// The status that is answered, or why there is none; without the URL, which may hold a secret.
    async fn status(
        &self,
        url: &Url,
        key: Option<&str>,
        body: Vec<u8>,
    ) -> Result<StatusCode, String> {
        let mut request = Request::post(url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("lacuna/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(Bytes::from(body))).map_err(|e| e.to_string())?;
        let answer = async {
            let answer = self.client.request(request).await.map_err(|e| tls::causes(&e))?;
            let status = answer.status();
            // What is read to its end leaves a connection that can be used again.
            let _ = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok(status)
        };
        let late = |_| format!("no answer in {} s", TIMEOUT.as_secs());
        tokio::time::timeout(TIMEOUT, answer).await.map_err(late)?
    }

    /// Takes what was told, or will be no more, off the book.
    async fn told(&self, ids: Vec<u64>) {
        let (live, name) = (Arc::clone(&self.live), self.name.clone());
        let done = tokio::task::spawn_blocking(move || live.desk().told(&name, &ids));
        // An error means that the process ends; the book then has it still, under the same key.
        let _ = done.await;
    }

    /// How long to wait before the next attempt: half to all of what doubles with every failure,
    /// so that those who failed together do not come back together.
    fn pause(&self) -> Duration {
        pause(self.failures, LONGEST_PAUSE)
    }
}

/// See [`Channel::pause`].
fn pause(failures: u32, longest: Duration) -> Duration {
    let full = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
    full.mul_f64(0.5 + random / 2.0)
}

/// What a URL's name and password are as a header.
fn authorization(url: &Url) -> Option<HeaderValue> {
    let name = url.username();
    if name.is_empty() && url.password().is_none() {
        return None;
    }
    let plain = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let mut both = plain(name);
    both.push(b':');
    both.extend(plain(url.password().unwrap_or_default()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(both))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether it is the request that the receiver finds fault with: others may be taken meanwhile.
fn is_rejection(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_password_become_a_header() {
        let header = |url: &str| authorization(&Url::parse(url).unwrap());
        // The example of RFC 7617, section 2.
        let expected = HeaderValue::from_static("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(header("https://Aladdin:open%20sesame@x/"), Some(expected));
        assert_eq!(header("https://x/"), None);
    }

    #[test]
    fn urls_are_checked() {
        assert!(check_url("http://127.0.0.1:9093/alertmanager").is_ok());
        assert!(check_url("https://hooks.example/T0/B0?x=1").is_ok());
        for bad in ["", "localhost:9093", "ftp://x", "https://", "http://"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert_eq!(check_base("https://x.example/lacuna/").unwrap(), "https://x.example/lacuna");
        for bad in ["", "lacuna.example", "localhost:16686", "ftp://x", "http://", "http://x/?a"] {
            let error = check_base(bad).unwrap_err().to_string();
            assert!(error.contains("such as https://lacuna.example"), "{error}");
        }
    }
}
