//! Jaeger's query API, asked from outside: requests through the router, over spans and logs that
//! came through the OTLP decoder.

// The helpers of a test crate are not test functions by themselves, as far as the lint knows.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad;
mod clients;
mod filter;
mod harness;
mod large;
mod metrics;
mod quality;
mod schemas;
mod search;
mod source;
mod stored;
mod v1;
mod v3;
