//! The server: OTLP in, HTTP APIs out.
//!
//! It owns the wiring of everything that runs while `lacuna serve` does: the receivers
//! ([`otlp`]), the way from a request's bytes to its acknowledgement ([`ingest`]), the live
//! contract monitor ([`live`]), the findings and who is told of them ([`desk`], [`notify`]), the query APIs ([`jaeger`], [`api`]) and Lacuna's own metrics
//! ([`telemetry`]). It uses `lacuna-signal`, `lacuna-store` and `lacuna-contract`.

pub mod api;
mod body;
pub mod book;
pub mod config;
mod connections;
pub mod desk;
pub mod evidence;
pub mod explain;
mod export;
mod exposition;
pub mod gate;
pub mod ingest;
pub mod jaeger;
pub mod lacking;
pub mod live;
mod logfmt;
pub mod notify;
pub mod otlp;
pub mod search;
pub mod series;
mod start;
mod statefile;
pub mod story;
mod stream;
pub mod telemetry;
pub mod times;
pub mod tls;

pub use config::{Config, RequestLimits};
pub use otlp::cors::check_origin;
pub use start::{Server, StartError};
