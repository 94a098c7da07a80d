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

use reqwest::{Client, StatusCode, Url};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::live::Live;
use crate::telemetry::{ChannelLabel, SharedTelemetry};

/// An attempt that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
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
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Whether findings can be sent to `url`.
///
/// # Errors
/// It is no URL, or not an `http` one.
pub fn check_url(url: &str) -> Result<Url, ChannelError> {
    let error = |why: String| ChannelError::Url { url: url.to_owned(), why };
    let parsed = Url::parse(url).map_err(|e| error(format!("{e}; such as http://host:9093")))?;
    match parsed.scheme() {
        "http" if parsed.has_host() => Ok(parsed),
        "https" => Err(error("this build has no TLS: send through a local proxy over http".into())),
        other => Err(error(format!("the scheme is `{other}`; it must be http"))),
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
    let client = Client::builder()
        .timeout(TIMEOUT)
        .user_agent(concat!("lacuna/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let channel = |kind: &'static str, url: &str| -> Result<Channel, ChannelError> {
        let parsed = check_url(url)?;
        Ok(Channel {
            name: format!("{kind} {url}"),
            url: parsed,
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
    /// The receiver will never take it.
    Rejected,
    /// It may take it later.
    Failed,
}

/// One receiver.
struct Channel {
    name: String,
    url: Url,
    label: ChannelLabel,
    client: Client,
    live: Arc<Live>,
    telemetry: SharedTelemetry,
    /// Where people reach the query port.
    base: String,
    /// Attempts that failed since the last that did not.
    failures: u32,
}

impl Channel {
    /// Posts JSON that tells `notices` changes. `about` names the one finding that it is about: if
    /// the receiver refuses it for good, that is counted and named in the log.
    async fn post(
        &mut self,
        url: Url,
        key: Option<&str>,
        body: Vec<u8>,
        notices: u64,
        about: Option<&str>,
    ) -> Attempt {
        let mut request = self.client.post(url).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let (attempt, why) = match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => (Attempt::Delivered, String::new()),
            Ok(answer) if is_final(answer.status()) => {
                (Attempt::Rejected, answer.status().to_string())
            }
            Ok(answer) => (Attempt::Failed, answer.status().to_string()),
            // The URL may hold a secret.
            Err(error) => (Attempt::Failed, error.without_url().to_string()),
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
                        "the receiver will not take a finding, which is given up: {why}"
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

    /// Takes what was told, or never will be, off the book.
    async fn told(&self, ids: Vec<u64>) {
        let (live, name) = (Arc::clone(&self.live), self.name.clone());
        let done = tokio::task::spawn_blocking(move || live.desk().told(&name, &ids));
        // An error means that the process ends; the book then has it still, under the same key.
        let _ = done.await;
    }

    /// How long to wait before the next attempt: half to all of what doubles with every failure,
    /// so that those who failed together do not come back together.
    fn pause(&self) -> Duration {
        let full = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        let full = full.min(LONGEST_PAUSE);
        let random = RandomState::new().hash_one(self.failures) as f64 / u64::MAX as f64;
        full.mul_f64(0.5 + random / 2.0)
    }
}

/// Whether the same request will never be taken, whenever it is sent.
fn is_final(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        assert!(check_url("http://127.0.0.1:9093/alertmanager").is_ok());
        for bad in ["", "localhost:9093", "ftp://x", "https://x", "http://"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
        assert_eq!(check_base("https://x.example/lacuna/").unwrap(), "https://x.example/lacuna");
        for bad in ["", "lacuna.example", "localhost:16686", "ftp://x", "http://", "http://x/?a"] {
            let error = check_base(bad).unwrap_err().to_string();
            assert!(error.contains("such as https://lacuna.example"), "{error}");
        }
    }
}
