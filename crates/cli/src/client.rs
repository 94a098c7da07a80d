//! A plain HTTP client for a server's APIs.

use std::fmt::Display;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use miette::{IntoDiagnostic, miette};
use serde_json::Value;

use crate::Failure;

/// A client of one server.
pub struct Client {
    base: String,
    http: HyperClient<HttpConnector, Full<Bytes>>,
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
    pub fn new(base: impl Into<String>) -> Self {
        let base = base.into().trim_end_matches('/').to_owned();
        Self { base, http: HyperClient::builder(TokioExecutor::new()).build_http() }
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

    async fn send(
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
        let url = format!("{}{path}", self.base);
        let unreachable = |error: &dyn std::error::Error| {
            let mut why = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                why = format!("{why}: {error}");
                cause = error.source();
            }
            miette!("{url}: no answer: {why}")
        };
        let mut request = Request::builder().method(method).uri(&url);
        if let Some((content_type, _)) = &body {
            request = request.header(http::header::CONTENT_TYPE, *content_type);
        }
        let body = Full::new(body.map(|(_, body)| body).unwrap_or_default());
        let request = request.body(body).map_err(|error| unreachable(&error))?;
        self.http.request(request).await.map_err(|error| unreachable(&error))
    }
}
