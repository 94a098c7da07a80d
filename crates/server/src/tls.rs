//! Clients of HTTP and HTTPS, and whom they trust.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// A client of HTTP/1.1, with and without TLS.
pub type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file of certificates is of no use.
    #[error("{}: no certificates can be read: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// The system trusts nobody.
    #[error("the system has no trusted certificates{0}: name a file of them with --tls-ca-file")]
    NoRoots(String),
    /// There is no such TLS.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// A client for `urls`. For `https` it trusts whom the system does and whoever has signed with one
/// of the certificates in `ca_file` (PEM).
///
/// # Errors
/// The file is of no use; or one of the URLs is `https` and nobody is trusted.
pub fn client<'a>(
    urls: impl IntoIterator<Item = &'a str>,
    ca_file: Option<&Path>,
) -> Result<HttpClient, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let error = |why: String| TlsError::File { path: path.to_owned(), why };
        let read = CertificateDer::pem_file_iter(path).map_err(|e| error(e.to_string()))?;
        for certificate in read {
            let certificate = certificate.map_err(|e| error(e.to_string()))?;
            roots.add(certificate).map_err(|e| error(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(error("there is no `-----BEGIN CERTIFICATE-----` in it".to_owned()));
        }
    }
    // Only where they are needed: reading them takes a while.
    let tls = |url: &str| url.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("https://"));
    if urls.into_iter().any(tls) {
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        if roots.is_empty() {
            let why = system.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(TlsError::NoRoots(why));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// An error with what it comes from, in one line.
pub fn causes(error: &dyn Error) -> String {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !why.ends_with(&text) {
            why = format!("{why}: {text}");
        }
        cause = error.source();
    }
    why
}
