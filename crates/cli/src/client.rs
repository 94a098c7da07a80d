//! An HTTP client for a server's APIs.

use std::fmt::Display;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use lacuna_server::tls::{self, HttpClient};
use miette::{IntoDiagnostic, miette};
use serde_json::Value;

use crate::Failure;

/// Whom a client trusts.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Tls {
    /// Certificates (PEM) to trust beside the system's, for https.
    #[arg(long, value_name = "FILE", env = "LACUNA_TLS_CA_FILE")]
    pub tls_ca_file: Option<PathBuf>,
}

/// A client of one server.
pub struct Client {
    base: String,
    http: HttpClient,
}

/// What a server answered.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:16686`.
    pub fn new(base: impl Into<String>, tls: &Tls) -> Result<Self, Failure> {
        let base = base.into().trim_end_matches('/').to_owned();
        let http = tls::client([base.as_str()], tls.tls_ca_file.as_deref());
        Ok(Self { http: http.map_err(|error| miette!("{error}"))?, base })
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The JSON at `path`.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let answer = self.ask(path).await?;
        if !answer.status.is_success() {
            let url = format!("{}{path}", self.base);
            return Err(miette!("GET {url} answered {}: {}", answer.status, answer.text()));
        }
        serde_json::from_slice(&answer.body).into_diagnostic()
    }

    /// What is answered at `path`, whatever its status.
    pub async fn ask(&self, path: &str) -> Result<Answer, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// What is answered to `body`, of type `content_type`, at `path`, whatever its status.
    pub async fn post(
        &self,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        self.send(Method::POST, path, Some((content_type, body))).await
    }

    /// The text at `path`, line by line as it comes.
    pub async fn lines(
        &self,
        path: &str,
        header: Option<(&str, &str)>,
    ) -> Result<Lines<impl BodyExt<Data = Bytes> + Unpin + use<>>, Failure> {
        let response = self.open_with(Method::GET, path, header, Bytes::new()).await?;
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            let url = format!("{}{path}", self.base);
            return Err(miette!("GET {url} answered {}", head.status));
        }
        Ok(Lines { body, read: Vec::new() })
    }

    /// What is answered to a request, whatever its status; `body` is its type and the body.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Answer, Failure> {
        let (head, body) = self.open(method, path, body).await?.into_parts();
        let broken = |error| miette!("{}{path}: the answer broke off: {error}", self.base);
        let body = body.collect().await.map_err(broken)?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Sends a request, and gives what is answered before its body has come.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Response<impl BodyExt<Data = Bytes, Error: Display> + Unpin + use<>>, Failure> {
        let header = body.as_ref().map(|(kind, _)| (http::header::CONTENT_TYPE.as_str(), *kind));
        let bytes = body.as_ref().map(|(_, body)| body.clone()).unwrap_or_default();
        self.open_with(method, path, header, bytes).await
    }

    async fn open_with(
        &self,
        method: Method,
        path: &str,
        header: Option<(&str, &str)>,
        body: Bytes,
    ) -> Result<Response<impl BodyExt<Data = Bytes, Error: Display> + Unpin + use<>>, Failure> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request =
            request.body(Full::new(body)).map_err(|error| self.unreachable(path, &error))?;
        self.http.request(request).await.map_err(|error| self.unreachable(path, &error))
    }

    fn unreachable(&self, path: &str, error: &dyn std::error::Error) -> Failure {
        let why = tls::causes(error);
        miette!("{}{path}: no answer: {why}", self.base)
    }
}

/// Lines of a body that is still being sent.
pub struct Lines<B> {
    body: B,
    read: Vec<u8>,
}

impl<B: BodyExt<Data = Bytes> + Unpin> Lines<B> {
    /// The next line, without its end; `None` when the body has ended or broken off.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Some(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            let frame = self.body.frame().await?.ok()?;
            self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
    }
}
