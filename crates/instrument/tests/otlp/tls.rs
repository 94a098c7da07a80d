//! https endpoints, with a certificate that the child trusts and one that it does not.

use crate::backend::{Received, grpc_services, http_routes};
use crate::child;
use axum::http::StatusCode;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

const CERTIFICATE: &str = include_str!("certificates/server.pem");
const KEY: &str = include_str!("certificates/server.key");
const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp/certificates/ca.pem");

/// Connections whose handshake succeeded.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (socket, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(socket).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn https_backend() -> (String, Received) {
    let received = Received::default();
    let certificates = vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let secure = Secure { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    let app = http_routes(StatusCode::OK, &received);
    tokio::spawn(async move { axum::serve(secure, app).await.unwrap() });
    (url, received)
}

#[tokio::test]
async fn https_carries_all_three_and_an_unknown_certificate_none() {
    let (url, received) = https_backend().await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    child("child_emits_one_of_each_or_loses_it", &variables).await;
    assert!(received.span_names().is_empty(), "nobody vouches for this backend");

    let trusted = [variables[0], variables[1], ("SSL_CERT_FILE", AUTHORITY)];
    child("child_emits_one_of_each", &trusted).await;
    received.assert_complete();
}

#[tokio::test]
async fn grpc_over_tls_carries_all_three() {
    let received = Received::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(CERTIFICATE, KEY));
    let server = grpc_services(Server::builder().tls_config(tls).unwrap(), &received)
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    tokio::spawn(async move { server.await.unwrap() });
    child(
        "child_emits_one_of_each",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
            ("SSL_CERT_FILE", AUTHORITY),
        ],
    )
    .await;
    received.assert_complete();
}
