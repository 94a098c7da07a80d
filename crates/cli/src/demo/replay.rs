//! Sending a recorded run, with its times moved, to an OTLP/HTTP port.

use std::io::{BufRead, BufReader, Read};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The recording cannot be read.
    #[error("the recording cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A line is not an OTLP/JSON export request.
    #[error("line {line} of the recording is not an OTLP/JSON export request: {why}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The engine did not take a request.
    #[error("the engine answered {status} to line {line} of the recording: {body}")]
    Refused {
        /// Line number, from 1.
        line: usize,
        /// HTTP status.
        status: StatusCode,
        /// What it said.
        body: String,
    },
    /// The engine could not be reached.
    #[error("the engine cannot be reached at {url}: {why}")]
    Unreachable {
        /// Where it was expected.
        url: String,
        /// What went wrong.
        why: String,
    },
}

/// One export request of a recording.
pub struct RecordedRequest {
    /// Line number, from 1.
    line: usize,
    /// The path that takes such requests.
    path: &'static str,
    json: Value,
}

/// A recorded run: OTLP/JSON export requests in the order in which they were received.
pub struct Recording {
    requests: Vec<RecordedRequest>,
    /// The latest time of any signal in it, nanoseconds since the epoch.
    latest: u64,
}

impl Recording {
    /// Reads a recording: zstd-compressed lines, one export request each.
    pub fn read(compressed: &[u8]) -> Result<Self, ReplayError> {
        Self::read_lines(zstd::stream::read::Decoder::new(compressed)?)
    }

    fn read_lines(lines: impl Read) -> Result<Self, ReplayError> {
        let mut recording = Self { requests: Vec::new(), latest: 0 };
        for (i, text) in BufReader::new(lines).lines().enumerate() {
            let (line, text) = (i + 1, text?);
            if text.trim().is_empty() {
                continue;
            }
            let mut json: Value = serde_json::from_str(&text)
                .map_err(|error| ReplayError::Line { line, why: error.to_string() })?;
            let path = if json.get("resourceSpans").is_some() {
                "/v1/traces"
            } else if json.get("resourceLogs").is_some() {
                "/v1/logs"
            } else if json.get("resourceMetrics").is_some() {
                "/v1/metrics"
            } else {
                let why = "expected resourceSpans, resourceLogs or resourceMetrics".to_owned();
                return Err(ReplayError::Line { line, why });
            };
            for_each_time(&mut json, &mut |time| {
                recording.latest = recording.latest.max(time);
                time
            });
            recording.requests.push(RecordedRequest { line, path, json });
        }
        Ok(recording)
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Moves all times so that the latest becomes `latest`, nanoseconds since the epoch.
    pub fn move_to(&mut self, latest: u64) {
        let (old, new) = (i128::from(self.latest), i128::from(latest));
        for request in &mut self.requests {
            for_each_time(&mut request.json, &mut |time| {
                u64::try_from(i128::from(time) - old + new).unwrap_or(0)
            });
        }
        self.latest = latest;
    }

    /// Sends everything to the OTLP/HTTP receiver at `base`, calling `sent` after each request.
    pub async fn send(self, base: &str, mut sent: impl FnMut()) -> Result<(), ReplayError> {
        let client = Client::builder(TokioExecutor::new()).build_http();
        for request in self.requests {
            send_one(&client, base, request).await?;
            sent();
        }
        Ok(())
    }
}

async fn send_one(
    client: &Client<HttpConnector, Full<Bytes>>,
    base: &str,
    recorded: RecordedRequest,
) -> Result<(), ReplayError> {
    let url = format!("{base}{}", recorded.path);
    let unreachable = |why: String| ReplayError::Unreachable { url: url.clone(), why };
    let request = Request::builder()
        .method(Method::POST)
        .uri(&url)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(recorded.json.to_string())))
        .map_err(|error| unreachable(error.to_string()))?;
    let response = client.request(request).await.map_err(|error| unreachable(error.to_string()))?;
    let status = response.status();
    let body =
        response.into_body().collect().await.map_err(|error| unreachable(error.to_string()))?;
    if status.is_success() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Err(ReplayError::Refused { line: recorded.line, status, body })
}

/// Applies `change` to every time of a request that is set: OTLP/JSON writes times as decimal
/// strings in fields whose names end in `UnixNano`.
fn for_each_time(json: &mut Value, change: &mut impl FnMut(u64) -> u64) {
    match json {
        Value::Object(members) => {
            for (name, value) in members {
                if !name.ends_with("UnixNano") {
                    for_each_time(value, change);
                    continue;
                }
                let time = match &*value {
                    Value::String(text) => text.parse().ok(),
                    other => other.as_u64(),
                };
                if let Some(time) = time.filter(|time| *time > 0) {
                    *value = Value::String(change(time).to_string());
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_time(item, change)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = concat!(
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"100","#,
        r#""endTimeUnixNano":"250","name":"a"}]}]}]}"#,
        "\n\n",
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"0","#,
        r#""observedTimeUnixNano":300}]}]}]}"#,
        "\n"
    );

    #[test]
    fn times_move_together_and_unset_ones_stay_unset() {
        let mut recording = Recording::read_lines(LINES.as_bytes()).unwrap();
        assert_eq!((recording.len(), recording.latest), (2, 300));
        recording.move_to(10_300);
        let span = &recording.requests[0].json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(
            (&span["startTimeUnixNano"], &span["endTimeUnixNano"]),
            (&"10100".into(), &"10250".into())
        );
        let log = &recording.requests[1].json["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(
            (&log["timeUnixNano"], &log["observedTimeUnixNano"]),
            (&"0".into(), &"10300".into())
        );
        assert_eq!(recording.requests[1].path, "/v1/logs");
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Recording::read_lines("{}\n".as_bytes()).err().unwrap();
        assert!(error.to_string().starts_with("line 1 of the recording"), "{error}");
    }
}
