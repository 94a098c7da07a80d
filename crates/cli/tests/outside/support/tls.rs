//! TLS in front of a plain server, with certificates made for the test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Takes TLS on a port of its own, and hands what is in it on.
pub struct Tls {
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    /// The certificate of who has signed the server's.
    pub ca: PathBuf,
    _folder: tempfile::TempDir,
}

impl Tls {
    /// In front of `plain`, such as `http://127.0.0.1:1234`.
    pub async fn before(plain: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path());
        let at = |name: &str| folder.path().join(name);
        let chain = CertificateDer::pem_file_iter(at("cert.pem")).unwrap();
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_file(at("key.pem")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let plain = plain.trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, plain) = (acceptor.clone(), plain.clone());
                tokio::spawn(async move {
                    // Who does not trust the certificate goes away.
                    let Ok(mut outside) = acceptor.accept(stream).await else { return };
                    let mut inside = TcpStream::connect(plain).await.unwrap();
                    let _ = copy_bidirectional(&mut outside, &mut inside).await;
                });
            }
        });
        Self { url, ca: at("ca.pem"), _folder: folder }
    }
}

/// Makes `ca.pem`, and `cert.pem` with `key.pem` that it has signed.
fn make_certificates(folder: &Path) {
    let ca = "-keyout ca.key -out ca.pem -subj /CN=ca";
    let server = "-keyout key.pem -out cert.pem -subj /CN=localhost -CA ca.pem -CAkey ca.key \
                  -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    for more in [ca, server] {
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(' '))
            .args(more.split_whitespace())
            .current_dir(folder)
            .output()
            .expect("openssl 3 makes the certificates of this test");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
}
