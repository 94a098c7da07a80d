//! OTLP over https.
//!
//! The exporters' own client takes its provider of cryptography from the process, and with TLS linked
//! it panics where there is none: every other client of its kind in the service would too. So https has
//! a client of its own, with a provider of its own.

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// A client that trusts whom the system does. Requests run on `runtime`, since exporters call from
/// threads that have none.
#[derive(Debug)]
pub(crate) struct HttpsClient {
    runtime: Handle,
    client: HyperClient<HttpsConnector<HttpConnector>>,
}

impl HttpsClient {
    /// `timeout` bounds a request, its answer included.
    pub(crate) fn new(runtime: Handle, timeout: Duration) -> Result<Self, rustls::Error> {
        // With nobody to trust, each export fails with that reason, and is counted.
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self { runtime, client: HyperClient::new(connector, timeout, None) })
    }
}

#[async_trait::async_trait]
impl HttpClient for HttpsClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}
