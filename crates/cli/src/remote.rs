//! A running Lacuna that is read from.

use http::{Method, Uri};
use http_body_util::BodyExt;
use lacuna_signal::Batch;
use lacuna_signal::otlp::{Decoded, decode, decode_json, json_kind};
use miette::miette;

use crate::client::{Client, Tls};
use crate::{Failure, output};

/// A server's query port.
pub struct Remote(Client);

impl Remote {
    /// The server at `url`, such as `http://127.0.0.1:16686`.
    pub fn new(url: &str, tls: &Tls) -> Result<Self, Failure> {
        let parsed = url.parse::<Uri>();
        let known =
            |uri: Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        if parsed.is_ok_and(known) {
            return Ok(Self(Client::new(url, tls)?));
        }
        Err(miette!(
            "`{url}` is not the address of a Lacuna: write the query port's, such as \
             http://127.0.0.1:16686"
        ))
    }

    /// The client that asks it.
    pub fn client(&self) -> &Client {
        &self.0
    }

    /// The JSON at `path`.
    pub async fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.change(Method::GET, path, None).await
    }

    /// The JSON that is answered to a request with `body` as JSON.
    pub async fn change<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<T, Failure> {
        let body = body.map(|body| ("application/json", body.to_string().into()));
        let answer = self.0.send(method, path, body).await?;
        if !answer.status.is_success() {
            return Err(self.refused(path, answer.status, &answer.body));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| miette!("{}{path}: not what a Lacuna answers: {error}", self.0.base()))
    }

    /// Hands every batch of the OTLP/JSON lines at `path` to `take`, line by line as they come; tells on
    /// standard error what the server says is missing. Whether nothing is.
    pub async fn lines(
        &self,
        path: &str,
        take: &mut dyn FnMut(&Batch) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let base = self.0.base();
        let broken =
            |error: &dyn std::fmt::Display| miette!("{base}{path}: the answer broke off: {error}");
        let (head, mut body) = self.0.open(Method::GET, path, None).await?.into_parts();
        if !head.status.is_success() {
            let body = body.collect().await.map(|body| body.to_bytes());
            return Err(self.refused(path, head.status, &body.unwrap_or_default()));
        }
        let (mut rest, mut whole) = (Vec::new(), true);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Some(data) = frame.data_ref() else { continue };
            let mut data = &data[..];
            while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
                rest.extend_from_slice(&data[..end]);
                data = &data[end + 1..];
                if let Ok(Lacking { warnings }) = serde_json::from_slice(&rest) {
                    whole &= warnings.is_empty();
                    warnings
                        .iter()
                        .for_each(|warning| output::error(&format!("{base}: {warning}")));
                    rest.clear();
                    continue;
                }
                let decoded = read_line(&rest).map_err(|error| broken(&error))?;
                if !decoded.rejected.is_empty() {
                    output::error(&format!("{base}: {}", decoded.rejected.message()));
                }
                take(&decoded.batch)?;
                rest.clear();
            }
            rest.extend_from_slice(data);
        }
        if rest.trim_ascii().is_empty() {
            return Ok(whole);
        }
        Err(broken(&"its last line has no end"))
    }

    fn refused(&self, path: &str, status: http::StatusCode, body: &[u8]) -> Failure {
        let base = self.0.base();
        let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        match json["error"]["message"].as_str() {
            Some(message) => miette!("{base}: {message}"),
            None if status == http::StatusCode::NOT_FOUND => miette!(
                "{base}{path} is not there: is this the query port of a Lacuna of the same version?"
            ),
            None => miette!("{base}{path} answered {status}"),
        }
    }
}

/// The line that ends an export which is not whole.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Lacking {
    warnings: Vec<String>,
}

fn read_line(text: &[u8]) -> Result<Decoded, String> {
    let kind = json_kind(text).map_err(|error| error.to_string())?.ok_or("not OTLP/JSON")?;
    let (body, refused) = decode_json(kind, text).map_err(|error| error.to_string())?;
    let mut decoded = decode(kind, body).map_err(|error| error.to_string())?;
    decoded.rejected.merge(refused);
    Ok(decoded)
}

/// `text` as part of a query string.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
