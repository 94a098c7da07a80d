//! A plain HTTP client for the server's JSON APIs.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use miette::{IntoDiagnostic, miette};
use serde_json::Value;

use crate::Failure;

/// A client of one server.
pub struct Client {
    base: String,
    http: HyperClient<HttpConnector, Empty<Bytes>>,
}

impl Client {
    /// A client of the server at `base`, such as `http://127.0.0.1:16686`.
    pub fn new(base: String) -> Self {
        Self { base, http: HyperClient::builder(TokioExecutor::new()).build_http() }
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The JSON at `path`.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.base);
        let response = self.http.get(url.parse().into_diagnostic()?).await.into_diagnostic()?;
        let status = response.status();
        let body = response.into_body().collect().await.into_diagnostic()?.to_bytes();
        if !status.is_success() {
            let body = String::from_utf8_lossy(&body);
            return Err(miette!("GET {url} answered {status}: {body}"));
        }
        serde_json::from_slice(&body).into_diagnostic()
    }
}
