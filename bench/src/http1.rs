//! HTTP/1.1 over one kept connection, with nothing between the measurement and the socket.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::BenchError;

/// A connection to one server.
pub struct Http1 {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Http1 {
    /// Connects to a port of this machine.
    pub async fn connect(port: u16) -> Result<Self, BenchError> {
        let host = format!("127.0.0.1:{port}");
        let stream = TcpStream::connect(&host).await.map_err(BenchError::io(host.clone()))?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Its errors come back through the sender.
            let _ = connection.await;
        });
        Ok(Self { sender, host })
    }

    /// `GET path`.
    pub async fn get(&mut self, path: &str) -> Result<(StatusCode, Bytes), BenchError> {
        let request = Request::get(path).header(HOST, &self.host).body(Full::default());
        self.send(request).await
    }

    /// `POST path` of OTLP protobuf.
    pub async fn post(
        &mut self,
        path: &str,
        body: Bytes,
        gzip: bool,
    ) -> Result<(StatusCode, Bytes), BenchError> {
        let mut request = Request::post(path)
            .header(HOST, &self.host)
            .header(CONTENT_TYPE, "application/x-protobuf");
        if gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        self.send(request.body(Full::new(body))).await
    }

    /// `POST path` of JSON.
    pub async fn post_json(
        &mut self,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), BenchError> {
        let request =
            Request::post(path).header(HOST, &self.host).header(CONTENT_TYPE, "application/json");
        self.send(request.body(Full::new(body))).await
    }

    async fn send(
        &mut self,
        request: Result<Request<Full<Bytes>>, http::Error>,
    ) -> Result<(StatusCode, Bytes), BenchError> {
        let request = request.map_err(|error| BenchError::Transport(error.to_string()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, body))
    }
}
