//! A server and a client in one trace, with one correlation id.
//!
//! `cargo run -p lacuna-instrument --example http --features http`, with an OTLP backend at
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (default: `http://localhost:4318`).

use axum::routing::get;
use lacuna_instrument::correlation;
use lacuna_instrument::http::{ClientRequest, ServerLayer};
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use std::error::Error;
use std::io::{Error as IoError, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
#[allow(dead_code, reason = "the tests include this file and call `run`")]
async fn main() -> Result<(), Box<dyn Error>> {
    let telemetry = lacuna_instrument::init("example_http")?;
    run().await?;
    // Without a backend the example has run all the same.
    telemetry.shutdown().await.ok();
    Ok(())
}

/// The example itself.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let app = axum::Router::new()
        .route("/v1/batches/{id}", get(|| async { correlation::current().unwrap_or_default() }))
        .layer(ServerLayer::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    // Any client will do: it gets the headers to send and hands back the status.
    let request = ClientRequest::new("GET", format!("http://{address}/v1/batches/7"))
        .template("/v1/batches/{id}")
        .send(
            |headers| async move {
                let mut socket = tokio::net::TcpStream::connect(address).await?;
                let mut text =
                    "GET /v1/batches/7 HTTP/1.1\r\nhost: example\r\nconnection: close\r\n"
                        .to_owned();
                for (name, value) in &headers {
                    text += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
                }
                socket.write_all((text + "\r\n").as_bytes()).await?;
                let mut answer = String::new();
                socket.read_to_string(&mut answer).await?;
                let status = answer.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok());
                status.ok_or_else(|| IoError::from(ErrorKind::InvalidData))
            },
            |status| *status,
        );
    let status = request.with_context(correlation::with(&Context::current(), "c-1")).await?;
    tracing::info!(status, "answered");
    Ok(())
}
