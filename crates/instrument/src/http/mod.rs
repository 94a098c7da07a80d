//! HTTP: server spans as a `tower` layer for `axum`, client spans around any client.
//!
//! ```no_run
//! use lacuna_instrument::http::{ClientRequest, ServerLayer};
//!
//! # async fn run(reqwest_like: Client) -> Result<(), Box<dyn std::error::Error>> {
//! let app: axum::Router = axum::Router::new()
//!     .route("/v1/batches/{id}/files", axum::routing::post(|| async { "stored" }))
//!     .layer(ServerLayer::new());
//! # drop(app);
//!
//! let response = ClientRequest::new("POST", "http://127.0.0.1:6001/v1/batches/7/files")
//!     .template("/v1/batches/{id}/files")
//!     .send(|headers| reqwest_like.post(headers), |response| response.status().as_u16())
//!     .await?;
//! # drop(response); Ok(()) }
//! # struct Client;
//! # impl Client {
//! #     async fn post(&self, h: http::HeaderMap) -> Result<http::Response<()>, std::io::Error> {
//! #         let mut r = http::Response::new(()); *r.headers_mut() = h; Ok(r)
//! #     }
//! # }
//! ```
//!
//! The trace context, baggage and the correlation id cross in the headers `traceparent`,
//! `tracestate`, `baggage` and `x-correlation-id`. Query strings are not recorded: they carry
//! whatever users type.

mod client;
mod headers;
mod names;
mod record;
mod server;

pub use client::ClientRequest;
pub use headers::{X_CORRELATION_ID, extract, inject};
pub use server::{ServerFuture, ServerLayer, ServerService};
